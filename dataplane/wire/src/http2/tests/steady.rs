//! A connection that lives long: signs of life, tables, and memory.

use core::time::Duration;
use std::{format, string::String, vec, vec::Vec};

use super::*;
use crate::http2::Keepalive;

#[test]
fn a_silent_peer_is_asked_for_a_sign_of_life_and_anything_is_one() {
    let keepalive = Keepalive {
        interval: Some(Duration::from_secs(10)),
        idle_interval: None,
        timeout: Duration::from_secs(3),
    };
    let mut end = End::server(Config { keepalive: Some(keepalive), ..config() });
    let begin = end.now;
    let at = |seconds: u64| begin.after(Duration::from_secs(seconds));
    assert_eq!(end.wire.deadline(), at(10));
    assert_eq!(end.wire.on_timeout(at(9)), Ok(()));
    assert!(!end.wire.has_output());
    assert_eq!(end.wire.on_timeout(at(10)), Ok(()));
    assert_eq!((end.wire.deadline(), end.sent()), (at(13), vec!["PING".into()]));
    // The answer stands behind much else.
    end.now = at(12);
    end.receive(&post(1));
    assert_eq!(end.wire.deadline(), at(15));
    end.now = at(14);
    end.receive(&frame(PING, END, 0, b"rw-alive"));
    assert_eq!(end.wire.deadline(), at(24));
    assert_eq!(end.wire.on_timeout(at(24)), Ok(()));
    // Another's answer is none, but it is a sign.
    end.now = at(26);
    end.receive(&frame(PING, END, 0, b"whatever"));
    assert_eq!(end.wire.deadline(), at(29));
    assert_eq!(end.wire.on_timeout(at(29)), Err(ConnectionError::PingTimeout));
    assert_eq!(end.sent(), ["PING", "GOAWAY 1 NO_ERROR"]);
}

#[test]
fn a_peer_that_was_silent_for_long_is_asked_before_the_next_stream() {
    let keepalive = Keepalive {
        interval: None,
        idle_interval: Some(Duration::from_secs(10)),
        timeout: Duration::from_secs(3),
    };
    let mut end = End::new(false, Config { keepalive: Some(keepalive), ..config() });
    end.take();
    let begin = end.now;
    let at = |seconds: u64| begin.after(Duration::from_secs(seconds));
    assert_eq!(end.wire.deadline(), Tick::NEVER);
    end.wire.ask_when_idle(at(9));
    assert!(!end.wire.has_output());
    end.wire.ask_when_idle(at(10));
    end.wire.ask_when_idle(at(11));
    assert_eq!((end.wire.deadline(), end.sent()), (at(13), vec!["PING".into()]));
    assert_eq!(end.wire.on_timeout(at(13)), Err(ConnectionError::PingTimeout));
}

#[test]
fn the_table_of_what_is_sent_is_as_large_as_both_sides_allow_and_as_small_as_it_ever_was() {
    let ask = |ours: u32, theirs: &[(u16, u32)]| {
        let mut config = config();
        config.settings.table_bytes = ours;
        let mut client = End::new(false, config);
        client.receive(&settings(theirs));
        client.take();
        client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let updates: Vec<u8> = client.take()[FRAME_HEAD_BYTES..].to_vec();
        let end = updates.iter().position(|byte| *byte == 0x82).unwrap();
        updates[..end].to_vec()
    };
    assert_eq!(ask(4096, &[]), []);
    assert_eq!(ask(0, &[]), [0x20], "we keep none");
    assert_eq!(ask(4096, &[(1, 0)]), [0x20], "they keep none");
    assert_eq!(ask(4096, &[(1, 1 << 20)]), [], "they would keep more");
    assert_eq!(ask(8192, &[(1, 1 << 20)]), [0x3f, 0xe1, 0x3f], "so would we");
    assert_eq!(ask(4096, &[(1, 0), (1, 4096)]), [0x20, 0x3f, 0xe1, 0x1f], "they kept none for a while");
}

/// What everything that grows has room for.
fn capacities(end: &End) -> [usize; 5] {
    let Connection { out, block, writer, request, response, .. } = &end.wire;
    let heads = request.headers.capacity() + response.headers.capacity();
    [out.capacity(), block.capacity(), writer.capacity(), heads, end.wire.streams.capacity()]
}

#[test]
fn a_thousand_exchanges_leave_all_memory_as_the_first_three_hundred() {
    let mut pair = Pair::new(5000);
    let mut after = None;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for round in 0..1000 {
        let headers: String =
            (0..10).map(|n| format!("x-{n}: {}\r\n", "v".repeat(50 + (round + n) % 7))).collect();
        let ids: Vec<u32> = (0..1 + round % 3)
            .map(|_| pair.client.ask(&format!("POST /{round} HTTP/1.1\r\nhost: a\r\ncookie: b\r\ntransfer-encoding: chunked\r\n{headers}\r\n")))
            .collect();
        for id in &ids {
            pair.client.data(*id, &[b'x'; 3000], false);
            pair.client.trailers(*id, "x-sum: 1\r\n");
        }
        // The same two vectors go back and forth, as a driver's do; four times, so that each ends where it began.
        for _ in 0..4 {
            up.clear();
            pair.client.wire.take_output(&mut up);
            pair.server.receive(&up);
            for id in &ids {
                if !pair.server.wire.has_sent_all(pair.server.keys[id]) {
                    pair.server.answer(
                        *id,
                        &format!("HTTP/1.1 200 \r\ncontent-length: 5\r\n{headers}\r\n"),
                        false,
                    );
                    pair.server.data(*id, b"hello", true);
                }
            }
            down.clear();
            pair.server.wire.take_output(&mut down);
            pair.client.receive(&down);
        }
        for end in [&mut pair.client, &mut pair.server] {
            end.take_told();
            end.release_all();
            assert_eq!(end.error, None);
            assert_eq!(end.wire.streams_count(), 0);
        }
        // The vectors change places with those of the ends.
        let now = ([up.capacity(), down.capacity()], capacities(&pair.client), capacities(&pair.server));
        if round == 299 {
            after = Some(now);
        }
        assert!(round < 300 || after == Some(now), "round {round}: {after:?} {now:?}");
    }
}
