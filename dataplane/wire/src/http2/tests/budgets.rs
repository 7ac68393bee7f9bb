//! A peer that makes work without purpose is ended after a bounded number of frames; one that is only busy never is.

use core::time::Duration;
use std::{format, vec::Vec};

use super::*;

/// Gives `make(n)` for n = 0, 1, … until the connection ends, for being too busy; how many it took. All output is taken at
/// once, so that it is not what bounds them, and streams that are over are released.
fn count(end: &mut End, make: impl Fn(u32) -> Vec<u8>) -> u32 {
    for n in 0..2000 {
        end.receive(&make(n));
        end.take();
        let told = end.take_told();
        for line in told.iter().filter(|line| line.starts_with("reset ")) {
            end.release(line.split(' ').nth(1).unwrap().parse().unwrap());
        }
        if let Some(error) = end.error {
            assert!(matches!(error, ConnectionError::Calm | ConnectionError::BlockTooLarge), "{error:?}");
            assert_eq!(error.code(), ErrorCode::ENHANCE_YOUR_CALM);
            return n + 1;
        }
    }
    u32::MAX
}

/// A server with nothing on it.
fn server() -> End {
    End::server(config())
}

/// With an open stream 1.
fn busy() -> End {
    let mut end = server();
    end.receive(&post(1));
    end.take_told();
    end
}

#[test]
fn h2_01_rapid_resets_end_the_connection_whoever_resets() {
    let next = |n: u32| 1 + 2 * n;
    assert_eq!(count(&mut server(), |n| [get(next(n)), reset(next(n), 8)].concat()), 21);
    assert_eq!(
        count(&mut server(), |n| [post(next(n)), data(next(n), 0, b"x"), reset(next(n), 8)].concat()),
        21
    );
    // Refused heads are resets, too.
    assert_eq!(count(&mut server(), |n| headers(next(n), END, &GET[1..])), 21);
    // Time gives back.
    let mut end = server();
    for n in 0..20 {
        end.receive(&[get(next(n)), reset(next(n), 8)].concat());
        end.release_all();
    }
    end.take_told();
    end.now = end.now.after(Duration::from_millis(1500));
    assert_eq!(count(&mut end, |n| [get(next(100 + n)), reset(next(100 + n), 8)].concat()), 11);
}

#[test]
fn h2_01_an_upstream_that_resets_all_ends_its_connection() {
    let mut client = End::new(false, config());
    client.receive(&settings(&[]));
    for n in 0..21 {
        let id = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.receive(&reset(id, 7));
        client.release(id);
        assert_eq!(client.error.is_some(), n == 20, "{n}");
    }
}

#[test]
fn a_server_that_has_answered_may_refuse_the_rest_of_a_request() {
    let mut client = End::new(false, config());
    client.receive(&settings(&[]));
    for _ in 0..100 {
        let id = client.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.receive(&[headers(id, END, &[(":status", "413")]), reset(id, 0)].concat());
        assert_eq!(client.take_told().last().unwrap(), &format!("reset {id} NO_ERROR"));
        client.release(id);
    }
    assert_eq!(client.error, None);
}

#[test]
fn h2_02_resets_that_the_server_is_made_to_send_are_counted_and_free_no_place() {
    type Wrong = fn(u32) -> Vec<u8>;
    let primitives: [(&str, Wrong); 6] = [
        ("a window of 0", |id| window_update(id, 0)),
        ("a window above 2^31 - 1", |id| window_update(id, (1 << 31) - 1)),
        ("a priority of 4", |id| frame(PRIORITY, 0, id, &[0; 4])),
        ("a priority of itself", |id| frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())),
        ("headers behind the end", |id| headers(id, END, &[("x", "y")])),
        ("data behind the end", |id| data(id, END, b"x")),
    ];
    for (name, wrong) in primitives {
        let next = |n: u32| 1 + 2 * n;
        assert_eq!(count(&mut server(), |n| [get(next(n)), wrong(next(n))].concat()), 21, "{name}");
        // As long as their work goes on, they have their places.
        let mut end = server();
        for n in 0..9 {
            end.receive(&[get(next(n)), wrong(next(n))].concat());
        }
        assert_eq!(end.wire.streams_count(), 8, "{name}");
        assert!(end.sent().iter().any(|line| line == "RST_STREAM 17 REFUSED_STREAM"), "{name}");
        end.release(1);
        end.take_told();
        end.receive(&get(19));
        assert_eq!(end.take_told(), ["request 19: GET / HTTP/1.1|host: a"], "{name}");
    }
}

#[test]
fn a_stream_that_its_peer_has_reset_keeps_its_place_until_it_is_released() {
    let mut end = server();
    for n in 0..8 {
        end.receive(&[get(1 + 2 * n), reset(1 + 2 * n, 8)].concat());
    }
    end.receive(&get(17));
    assert_eq!(end.sent(), ["RST_STREAM 17 REFUSED_STREAM"]);
    end.release_all();
    end.receive(&get(19));
    assert_eq!(end.sent(), [] as [&str; 0]);
    assert_eq!(end.wire.streams_count(), 1);
}

#[test]
fn h2_03_a_block_without_end_is_ended_by_frames_and_by_bytes() {
    let begin = || {
        let mut end = server();
        end.receive(&frame(HEADERS, END, 1, &block(GET)));
        end
    };
    assert_eq!(count(&mut begin(), |_| frame(CONTINUATION, 0, 1, &[0])), 16);
    assert_eq!(count(&mut begin(), |_| frame(CONTINUATION, 0, 1, &[0; 16 * 1024])), 3);
    assert_eq!(count(&mut begin(), |_| frame(CONTINUATION, 0, 1, &[])), 2);
}

#[test]
fn h2_05_floods_end() {
    let idle = |id: u32| move |_| frame(PRIORITY, 0, id, &[0, 0, 0, 0, 9]);
    assert_eq!(count(&mut server(), |_| ping(0)), 101);
    assert_eq!(count(&mut server(), |_| ping(END)), 101);
    assert_eq!(count(&mut server(), |_| settings(&[])), 101);
    assert_eq!(count(&mut server(), |_| settings(&[(4, 100)])), 101);
    assert_eq!(count(&mut server(), |_| frame(SETTINGS, END, 0, &[])), 101);
    assert_eq!(count(&mut server(), |_| frame(77, 0, 1, &[])), 101);
    assert_eq!(count(&mut server(), |_| goaway(0, 0)), 101);
    assert_eq!(count(&mut server(), idle(9)), 11);
    assert_eq!(count(&mut busy(), idle(1)), 21);
    assert_eq!(count(&mut server(), |_| window_update(0, 1)), 6);
    assert_eq!(count(&mut busy(), |_| window_update(1, 1)), 8);
    assert_eq!(count(&mut busy(), |_| data(1, 0, b"")), 2);
    assert_eq!(count(&mut busy(), |_| data(1, PADDED, &[3, 0, 0, 0])), 2);
    // Of streams that are over already.
    let over = || {
        let mut end = busy();
        end.receive(&get(3));
        end.release_all();
        end.take_told();
        end
    };
    assert_eq!(count(&mut over(), |_| reset(1, 8)), 101);
    assert_eq!(count(&mut over(), |_| data(1, END, b"")), 101);
    assert_eq!(count(&mut over(), |_| headers(1, END, &[("x", "y")])), 101);
    let by_us = || {
        let mut end = busy();
        end.wire.reset(end.keys[&1], ErrorCode::CANCEL);
        end
    };
    assert_eq!(count(&mut by_us(), |_| reset(1, 8)), 101);
    assert_eq!(count(&mut by_us(), |_| data(1, END, b"")), 101);
    assert_eq!(count(&mut by_us(), |_| headers(1, END, &[("x", "y")])), 101);
    let left = || {
        let mut end = server();
        end.wire.leave(ErrorCode::NO_ERROR);
        end
    };
    assert_eq!(count(&mut left(), |n| get(1 + 2 * n)), 101);
}

#[test]
fn answers_that_nobody_reads_end_the_connection() {
    let unread = |make: &dyn Fn(u32) -> Vec<u8>| {
        let mut config = config();
        config.chatter.most = 10_000;
        config.resets.most = 10_000;
        let mut end = End::server(config);
        let count = (0..1000).find(|n| {
            end.receive(&make(*n));
            end.error.is_some()
        });
        assert!(end.wire.output_len() < 51 * 17 + 100);
        count
    };
    assert_eq!(unread(&|_| ping(0)), Some(50));
    assert_eq!(unread(&|_| settings(&[])), Some(50));
    assert_eq!(unread(&|n| headers(1 + 2 * n, END, &GET[1..])), Some(50));
    assert_eq!(unread(&|_| ping(END)), None);
    let mut end = server();
    for _ in 0..90 {
        end.receive(&ping(0));
        end.take();
    }
    assert_eq!(end.error, None);
}

#[test]
fn empty_frames_are_counted_in_a_row() {
    let mut end = busy();
    for _ in 0..1000 {
        end.receive(&[data(1, 0, b""), ping(0), data(1, 0, b"x")].concat());
        end.take();
    }
    end.receive(&[data(1, 0, b""), headers(3, 0, &[])].concat());
    assert_eq!(end.error, Some(ConnectionError::Calm));
    let mut config = config();
    config.frames.empty_max = 0;
    let mut end = End::server(config);
    end.receive(&[post(1), data(1, END, b"")].concat());
    assert_eq!(end.error, None, "an end is something");
    end.receive(&[post(3), data(3, 0, b"")].concat());
    assert_eq!(end.error, Some(ConnectionError::Calm));
}

/// As h2load does: many streams, a WINDOW_UPDATE for the connection and one for the stream with each DATA frame, a PING now
/// and then, a reset that crosses the end of a response.
#[test]
fn a_busy_peer_that_is_honest_is_never_ended() {
    let mut server = End::server(config());
    let mut id = 1;
    for round in 0..3000u32 {
        let ids = [id, id + 2, id + 4];
        id += 6;
        for id in ids {
            server.receive(&[post(id), data(id, 0, &[b'x'; 100]), data(id, END, b"")].concat());
            server.answer(id, "HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n", false);
            server.data(id, &[0; 500], false);
            server.data(id, &[0; 500], true);
            server.take();
            server.receive(&[window_update(0, 500), window_update(id, 500)].concat());
            server.receive(&[window_update(0, 500), window_update(id, 500)].concat());
            if round % 2 == 0 {
                server.receive(&reset(id, 0));
            }
        }
        server.receive(&[ping(0), frame(PRIORITY, 0, ids[0], &[0, 0, 0, 0, 9])].concat());
        assert_eq!(server.error, None, "round {round}");
        server.release_all();
        server.take_told();
        server.take();
    }
}

#[test]
fn what_is_on_its_way_to_as_many_streams_as_there_may_be_is_no_attack_when_all_were_answered_early() {
    const STREAMS: u32 = 100;
    let settings = Settings { streams_max: STREAMS, ..Settings::default() };
    let mut server = End::server(Config { settings, ..config() });
    let ids = || (1..).step_by(2).take(STREAMS as usize);
    ids().for_each(|id| server.receive(&post(id)));
    for id in ids() {
        server.answer(id, "HTTP/1.1 413 \r\n\r\n", true);
        server.release(id);
    }
    server.take();
    for _ in 0..3 {
        ids().for_each(|id| server.receive(&data(id, 0, b"x")));
    }
    ids().for_each(|id| server.receive(&data(id, END, b"x")));
    assert_eq!(server.error, None);
    assert_eq!(server.sent(), [] as [&str; 0]);
}
