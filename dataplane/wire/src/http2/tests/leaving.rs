//! GOAWAY both ways, and the ends of ids.

use std::{format, vec, vec::Vec};

use super::*;

/// What the client tells of streams that were refused, by id.
fn refused(end: &mut End) -> Vec<u32> {
    core::iter::from_fn(|| {
        let key = end.wire.next_refused()?;
        end.wire.streams.get(key).map(|stream| stream.id)
    })
    .collect()
}

#[test]
fn streams_that_a_leaving_server_has_not_looked_at_are_given_once() {
    let mut client = End::client(config());
    client.receive(&goaway((1 << 31) - 1, 0));
    assert_eq!(refused(&mut client), vec![]);
    assert!(client.wire.is_leaving() && client.wire.open().is_none());
    client.receive(&goaway(3, 0));
    assert_eq!(refused(&mut client), [5, 7]);
    assert_eq!(refused(&mut client), vec![]);
    // It says less the second time; more it cannot say.
    client.receive(&[goaway(1, 2), goaway(7, 0)].concat());
    assert_eq!(refused(&mut client), [3]);
    client.take_told();
    client.receive(&headers(1, END, &[(":status", "204")]));
    assert_eq!(client.take_told(), ["response 1: HTTP/1.1 204 "]);
    client.release_all();
    assert_eq!(client.sent(), [] as [&str; 0], "what was not looked at needs no reset");
}

const ASKED: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_stream_that_was_reset_before_it_began_takes_no_id() {
    let mut client = End::new(false, config());
    client.take();
    let (first, second) = (client.wire.open().unwrap(), client.wire.open().unwrap());
    client.wire.reset(first, ErrorCode::CANCEL);
    assert_eq!(client.send_request(first, ASKED), 0);
    assert_eq!(client.send_request(second, ASKED), 1);
    client.wire.release(first);
    client.receive(&[settings(&[]), headers(1, END, &[(":status", "204")])].concat());
    assert_eq!(client.take_told(), ["settings", "response 1: HTTP/1.1 204 "]);
    assert_eq!(client.sent(), ["HEADERS 1 end", "SETTINGS ack"]);
}

#[test]
fn a_stream_that_had_not_begun_when_the_server_left_is_refused() {
    let mut client = End::client(config());
    let key = client.wire.open().unwrap();
    client.receive(&goaway(7, 0));
    assert_eq!(refused(&mut client), [0]);
    client.send_request(key, ASKED);
    assert_eq!(client.sent(), [] as [&str; 0]);
    client.wire.release(key);
}

#[test]
fn ids_go_to_the_last_and_no_further() {
    let mut client = End::new(false, config());
    client.wire.own_next = (1 << 31) - 5;
    let keys: Vec<StreamKey> = core::iter::from_fn(|| client.wire.open()).collect();
    let ids: Vec<u32> = keys.iter().map(|key| client.send_request(*key, ASKED)).collect();
    assert_eq!(ids, [(1 << 31) - 5, (1 << 31) - 3, (1 << 31) - 1]);
    client.release_all();
    assert!(client.wire.open().is_none());

    let mut server = End::server(config());
    let last = (1 << 31) - 1;
    server.receive(&[get(last), get(last - 2)].concat());
    let request = format!("request {last}: GET / HTTP/1.1|host: a");
    assert_eq!(server.take_told(), [&request, "error StreamId"]);
    assert_eq!(server.sent(), [format!("GOAWAY {last} PROTOCOL_ERROR")]);
}

#[test]
fn what_a_leaving_client_says_of_the_streams_of_its_server_means_nothing() {
    let mut server = End::server(config());
    server.receive(&[get(1), goaway(0, 0), get(3)].concat());
    assert_eq!(server.take_told().len(), 3);
    assert_eq!(refused(&mut server), vec![]);
    for id in [1, 3] {
        server.answer(id, "HTTP/1.1 204 \r\n\r\n", true);
    }
    assert_eq!(server.sent(), ["HEADERS 1 end", "HEADERS 3 end"]);
}

/// A GET with a field that the encoder of the test's client keeps: the first time it is spelled, then it is an index.
fn kept(id: u32, is_first: bool) -> Vec<u8> {
    let last = if is_first { &b"\x40\x03x-a\x01b"[..] } else { &[0xbe] };
    frame(HEADERS, END_HEADERS, id, &[&block(GET)[..], last].concat())
}

#[test]
fn streams_behind_our_last_word_are_not_looked_at_and_harm_none_that_is_here() {
    let mut server = End::server(config());
    server.receive(&post(1));
    server.wire.announce_leaving();
    assert_eq!(server.sent(), ["GOAWAY 2147483647 NO_ERROR", "PING"]);
    // On its way when the client heard of it: taken.
    server.receive(&post(3));
    server.wire.announce_leaving();
    assert!(server.wire.is_leaving() && !server.wire.has_left());
    server.receive(&frame(PING, END, 0, b"rw-leave"));
    assert_eq!(server.sent(), ["GOAWAY 3 NO_ERROR"]);
    assert!(server.wire.has_left());
    server.take_told();

    let behind = [
        kept(5, true),
        data(5, 0, b"body"),
        window_update(5, 10),
        frame(PRIORITY, 0, 5, &[0; 5]),
        headers(5, END, &[("x", "y")]),
        kept(7, false),
        reset(7, 8),
        data(7, 0, b"on its way"),
    ];
    server.receive(&behind.concat());
    assert_eq!((server.take_told(), server.sent()), (vec![], vec![]));
    // What those blocks put into the table is there.
    server.receive(&frame(HEADERS, END | END_HEADERS, 3, &[0xbe]));
    server.receive(&data(1, END, b"x"));
    assert_eq!(server.take_told(), ["trailers 3: x-a: b", "data 1: x end"]);
    server.receive(&get(5));
    assert_eq!(server.take_told(), [] as [&str; 0]);
}

#[test]
fn the_last_goaway_says_why_and_takes_nothing_back() {
    let mut server = End::server(config());
    server.receive(&get(1));
    server.wire.leave(ErrorCode::NO_ERROR);
    server.wire.leave(ErrorCode::NO_ERROR);
    server.receive(&[get(3), ping(0), window_update(0, 0), get(5)].concat());
    assert_eq!(server.take_told()[1..], ["error OutOfPlace"]);
    assert_eq!(server.sent(), ["GOAWAY 1 NO_ERROR", "PING ack", "GOAWAY 1 PROTOCOL_ERROR"]);
}
