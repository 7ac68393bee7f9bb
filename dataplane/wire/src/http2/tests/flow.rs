//! Windows of streams and of the connection, both ways.

use std::{collections::BTreeMap, vec, vec::Vec};

use super::*;

/// A client with a stream whose body goes on, as long as it is let.
fn sender() -> End {
    let mut client = End::new(false, config());
    client.receive(&settings(&[]));
    client.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.take_told();
    client.take();
    client
}

/// Sends until nothing more may be sent; how much.
fn send_all(end: &mut End, id: u32) -> usize {
    let mut sum = 0;
    loop {
        let sent = end.data(id, &[b'x'; 50_000], false);
        sum += sent;
        if sent == 0 {
            return sum;
        }
        assert!(sent <= 16 * 1024);
        end.take();
    }
}

#[test]
fn no_more_is_sent_than_the_windows_allow() {
    let mut client = sender();
    assert_eq!(send_all(&mut client, 1), 65_535);
    let key = client.keys[&1];
    assert_eq!((client.wire.room(key), client.wire.has_own_room(key)), (0, false));
    // The stream alone, the connection alone, both.
    client.receive(&window_update(1, 100));
    assert_eq!(send_all(&mut client, 1), 0);
    assert!(client.wire.has_own_room(key));
    client.receive(&window_update(0, 30));
    assert_eq!(send_all(&mut client, 1), 30);
    client.receive(&window_update(0, 1000));
    assert_eq!(send_all(&mut client, 1), 70);
    assert_eq!(client.take_told(), ["window 1", "window", "window"]);
    // An end needs no room.
    assert_eq!(client.data(1, b"", true), 0);
    assert_eq!(client.sent(), ["DATA 1 0 end"]);
}

#[test]
fn settings_move_the_windows_of_all_streams_below_zero_and_back() {
    let mut client = sender();
    client.receive(&window_update(0, 1_000_000));
    assert_eq!(client.data(1, &[0; 10_000], false), 10_000);
    client.receive(&settings(&[(4, 3000)]));
    assert_eq!(client.wire.room(client.keys[&1]), 0);
    client.receive(&window_update(1, 7000));
    assert_eq!(client.data(1, b"x", false), 0);
    client.receive(&window_update(1, 1));
    assert_eq!(client.data(1, b"xy", false), 1);
    client.receive(&settings(&[(4, 0), (4, 3010)]));
    assert_eq!(client.data(1, &[0; 100], false), 10);
    let other = client.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.wire.room(client.keys[&other]), 3010);
    // Above the largest window by settings is an error of the connection.
    client.receive(&window_update(1, (1 << 31) - 1));
    client.receive(&settings(&[(4, 3011)]));
    assert_eq!(client.error, Some(ConnectionError::FlowControl));
}

#[test]
fn output_that_is_not_taken_takes_no_more_data() {
    let mut client = sender();
    client.receive(&[window_update(0, 1 << 30), window_update(1, 1 << 30)].concat());
    let mut sum = 0;
    while client.data(1, &[0; 16 * 1024], false) > 0 {
        sum += 1;
    }
    assert_eq!(sum, 4);
    assert!(client.wire.output_len() <= super::super::conn::OUTPUT_BYTES_MAX + 9);
    client.take();
    assert!(client.wire.room(client.keys[&1]) >= 16 * 1024);
}

#[test]
fn more_than_a_window_is_an_error_of_its_stream_or_of_the_connection() {
    let narrow = |stream: u32, connection: u32| {
        let mut config = config();
        config.settings.window_bytes = stream;
        config.connection_window_bytes = connection;
        let mut end = End::server(config);
        end.receive(&[post(1), post(3)].concat());
        end.consumes = false;
        end.take_told();
        end
    };
    let mut end = narrow(1000, 65_535);
    end.receive(&[data(1, 0, &[b'x'; 1000]), data(3, 0, &[b'x'; 999]), data(3, PADDED, &[0; 2])].concat());
    let told = end.take_told();
    assert_eq!(told[2..], ["reset 3 FLOW_CONTROL_ERROR"]);
    assert_eq!(end.sent().last().unwrap(), "RST_STREAM 3 FLOW_CONTROL_ERROR");
    end.receive(&data(1, 0, &[]));
    assert_eq!(end.error, None);
    end.receive(&data(1, 0, b"x"));
    assert_eq!(end.take_told(), ["reset 1 FLOW_CONTROL_ERROR"]);

    let mut end = narrow(1 << 20, 65_535);
    for _ in 0..4 {
        end.receive(&data(1, 0, &[b'x'; 16_000]));
    }
    end.receive(&data(3, 0, &[b'x'; 1536]));
    assert_eq!(end.error, Some(ConnectionError::FlowControl));
}

#[test]
fn padding_is_given_back_though_nobody_takes_it() {
    let mut end = End::server(config());
    end.consumes = false;
    end.receive(&post(1));
    let padding = [&[255][..], &[0; 255]].concat();
    let mut budget = (0u32, 0u32);
    for _ in 0..1000 {
        // One byte in each, so that it is not idle talk.
        end.receive(&data(1, PADDED, &[&padding[..], b"x"].concat()[..]));
        for frame in frames(&end.take()) {
            match (frame.head.kind, frame.head.stream) {
                (Kind::WindowUpdate, 0) => budget.0 += frame.number(0),
                (Kind::WindowUpdate, _) => budget.1 += frame.number(0),
                _ => {}
            }
        }
    }
    assert_eq!(end.error, None);
    let (sent, held) = (1000 * 257, 1000);
    for (name, opened, at_first) in [("connection", budget.0, 128 * 1024), ("stream", budget.1, 65_535)] {
        let known = at_first + opened - sent + held;
        assert!(known >= at_first / 2 && known <= at_first, "{name}: {known}");
    }
}

/// To what the window of a stream grows over which so many bytes could come in a round trip, and the most that was open.
fn grown(in_flight: usize) -> (u32, usize) {
    /// Steps of time in a round trip.
    const TRIP: usize = 10;
    let mut end = End::server(Config { connection_window_bytes: 1 << 20, ..config() });
    end.receive(&post(1));
    let (mut window, mut largest) = (65_535, 0);
    let mut on_its_way: BTreeMap<usize, (usize, Vec<u8>)> = BTreeMap::new();
    for step in 0..60 * TRIP {
        let (opened, pongs) = on_its_way.remove(&step).unwrap_or_default();
        window += opened;
        largest = largest.max(window);
        end.receive(&pongs);
        let mut left = (in_flight / TRIP).min(window);
        window -= left;
        while left > 0 {
            let count = left.min(8000);
            end.receive(&data(1, 0, &vec![0; count]));
            left -= count;
        }
        let (opened, pongs) = on_its_way.entry(step + TRIP).or_default();
        for sent in frames(&end.take()) {
            match sent.head.kind {
                Kind::WindowUpdate if sent.head.stream == 1 => *opened += sent.number(0) as usize,
                Kind::Ping => pongs.extend(frame(PING, END, 0, &sent.payload)),
                _ => {}
            }
        }
    }
    assert_eq!(end.error, None);
    (end.wire.growth.window_bytes, largest)
}

#[test]
fn a_window_grows_only_while_a_round_trip_fills_it_and_not_above_its_bound() {
    for (in_flight, expected) in
        [(10_000, 65_535), (20_000, 65_535), (45_000, 131_070), (100_000, 262_140), (1_000_000, 256 * 1024)]
    {
        let (window, largest) = grown(in_flight);
        assert_eq!(window, expected, "{in_flight}");
        assert!(largest <= window as usize, "{in_flight}: {largest}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_makes_no_window_grow() {
    let mut end = End::server(config());
    end.receive(&post(1));
    for _ in 0..3 {
        end.receive(&data(1, 0, &[0; 10_000]));
        end.receive(&frame(PING, END, 0, b"rw-delay"));
    }
    assert_eq!(end.wire.growth.window_bytes, 65_535);
}

/// What a peer knows of the connection's window and of each stream's.
#[derive(Default)]
struct Known {
    connection: i64,
    streams: BTreeMap<u32, i64>,
}

impl Known {
    fn note(&mut self, sent: &[Frame]) {
        for frame in sent.iter().filter(|frame| frame.head.kind == Kind::WindowUpdate) {
            let more = i64::from(frame.number(0));
            match frame.head.stream {
                0 => self.connection += more,
                id => *self.streams.entry(id).or_default() += more,
            }
        }
        assert!(self.connection <= 128 * 1024);
    }
}

/// Random bodies, padded and not, of streams that are reset by either side, released, too short or too long; at the end
/// nothing of the connection's window is lost.
fn conserve(seed: u64) {
    let mut random = Random::new(seed);
    let mut config = config();
    config.resets.most = 1000;
    config.frames.empty_max = 1000;
    let mut server = End::server(config);
    server.consumes = false;
    let mut known = Known { connection: 128 * 1024, ..Known::default() };
    let mut next = 1;
    // Of each stream, what was told and not consumed.
    let mut held: BTreeMap<u32, usize> = BTreeMap::new();
    for _ in 0..60 {
        let any = |random: &mut Random| 1 + 2 * random.below((next as usize / 2).max(1)) as u32;
        match random.below(12) {
            0 | 1 if next < 15 => {
                let length = ["10", "3000", "50000"][random.below(3)];
                let with_length = [(":method", "POST"), GET[1], GET[2], GET[3], ("content-length", length)];
                let fields = if random.below(2) == 0 { &with_length[..] } else { &with_length[..4] };
                server.receive(&headers(next, 0, fields));
                known.streams.insert(next, 65_535);
                next += 2;
            }
            2 if next > 1 => server.receive(&reset(any(&mut random), 8)),
            3 => {
                let id = any(&mut random);
                if let Some(key) = server.keys.get(&id) {
                    server.wire.reset(*key, ErrorCode::CANCEL);
                }
            }
            4 | 5 => {
                let id = any(&mut random);
                if server.keys.contains_key(&id) {
                    let key = server.keys[&id];
                    server.release(id);
                    // As an owner does that lets go of a body which it had not read.
                    server.wire.consume(key, held.remove(&id).unwrap_or_default());
                }
            }
            6 | 7 => {
                let id = any(&mut random);
                let Some(bytes) = held.get_mut(&id) else { continue };
                let count = random.below(*bytes + 1);
                *bytes -= count;
                server.wire.consume(server.keys[&id], count);
            }
            _ if next > 1 => {
                let id = any(&mut random);
                let room = known.connection.min(*known.streams.get(&id).unwrap_or(&0));
                let most = [10, 300, 9000][random.below(3)].min(room.max(0) as usize);
                let count = random.below(most + 1);
                let padding = random.below(200).min(count.saturating_sub(1));
                let payload = match padding {
                    0 => vec![b'x'; count],
                    _ => [&[padding as u8][..], &vec![b'x'; count - 1 - padding], &vec![0; padding]].concat(),
                };
                let flags = if random.below(8) == 0 { END } else { 0 };
                let flags = if padding > 0 { flags | PADDED } else { flags };
                known.connection -= count as i64;
                *known.streams.entry(id).or_default() -= count as i64;
                let bytes = data(id, flags, &payload);
                // A stream may be gone in the middle of a frame.
                let cut = random.below(bytes.len());
                server.receive(&bytes[..cut]);
                note_held(&mut server, &mut held);
                if random.below(10) == 0 && server.keys.contains_key(&id) {
                    let key = server.keys[&id];
                    server.release(id);
                    server.wire.consume(key, held.remove(&id).unwrap_or_default());
                }
                server.receive(&bytes[cut..]);
            }
            _ => {}
        }
        assert_eq!(server.error, None, "seed {seed}");
        note_held(&mut server, &mut held);
        known.note(&frames(&server.take()));
        let (left, kept) = server.wire.recv_window.parts();
        assert_eq!(i64::from(left), known.connection, "seed {seed}");
        assert_eq!(kept as usize, held.values().sum::<usize>(), "seed {seed}: {held:?}");
    }
    for (id, bytes) in held {
        server.wire.consume(server.keys[&id], bytes);
    }
    server.release_all();
    known.note(&frames(&server.take()));
    let (left, kept) = server.wire.recv_window.parts();
    assert_eq!((i64::from(left), kept), (known.connection, 0), "seed {seed}");
    // The rest of it is given when a half is gone.
    assert!(known.connection > 64 * 1024, "seed {seed}: {}", known.connection);
    assert_eq!(server.wire.streams_count(), 0);
}

fn note_held(server: &mut End, held: &mut BTreeMap<u32, usize>) {
    for line in server.take_told() {
        let Some((id, text)) = line.strip_prefix("data ").and_then(|rest| rest.split_once(": ")) else {
            continue;
        };
        *held.entry(id.parse().unwrap()).or_default() += text.matches('x').count();
    }
}

#[test]
fn nothing_of_the_connection_s_window_is_lost_whatever_becomes_of_its_streams() {
    (0..2000).for_each(conserve);
}
