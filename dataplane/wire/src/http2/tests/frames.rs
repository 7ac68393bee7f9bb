//! Frames made by hand, and what becomes of them: the same however they are cut.

use std::{format, vec, vec::Vec};

use super::*;

/// A name, the frames, what is told, and what is sent.
type Row<'a> = (&'a str, Vec<Vec<u8>>, &'a str, &'a str);

/// Runs each row at once, byte for byte, and in two pieces cut at each place.
fn check(make: fn() -> End, rows: &[Row<'_>]) {
    for (name, frames, told, sent) in rows {
        let bytes = frames.concat();
        let ask = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let mut end = make();
            end.consumes = false;
            pieces.for_each(|piece| end.receive(piece));
            (end.take_told().join("; "), end.sent().join("; "))
        };
        let (whole_told, whole_sent) = ask(&mut [&bytes[..]].into_iter());
        assert_eq!(whole_told, *told, "{name}");
        assert_eq!(whole_sent, *sent, "{name}");
        let whole = (whole_told, whole_sent);
        assert_eq!(ask(&mut bytes.chunks(1)), whole, "{name}, byte for byte");
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(ask(&mut [first, second].into_iter()), whole, "{name}, cut at {cut}");
        }
    }
}

/// With `make` and one frame, the connection ends with this error and this code.
fn check_errors(make: fn() -> End, rows: &[(&str, Vec<u8>, &str, &str)]) {
    for (name, bytes, error, goaway) in rows {
        check(make, &[(*name, vec![bytes.clone(), get(99)], &format!("error {error}"), goaway)]);
    }
}

fn server() -> End {
    End::server(config())
}

/// With streams 1 (body goes on) and 3 (ended).
fn busy_server() -> End {
    let mut end = server();
    end.receive(&[post(1), get(3)].concat());
    assert_eq!(end.take_told().len(), 2);
    end
}

fn client() -> End {
    End::client(config())
}

const OK: &[(&str, &str)] = &[(":status", "200")];
const PROTOCOL: &str = "GOAWAY 0 PROTOCOL_ERROR";
const SIZE: &str = "GOAWAY 0 FRAME_SIZE_ERROR";

#[test]
fn a_connection_begins_with_its_preface_and_settings() {
    let new = || End::new(true, config());
    let begun = "SETTINGS; WINDOW_UPDATE 0 65537";
    let with = |last: &str| format!("{begun}; {last}");
    let bad = with(PROTOCOL);
    let preface = PREFACE.to_vec();
    check(
        new,
        &[
            ("good", vec![preface.clone(), settings(&[])], "settings", &with("SETTINGS ack")),
            ("part", vec![PREFACE[..23].to_vec()], "", begun),
            ("http/1", vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], "error Preface", &bad),
            ("pri of another", vec![b"PRI * HTTP/2.1".to_vec()], "error Preface", &bad),
            ("no settings", vec![preface.clone(), ping(0)], "error Preface", &bad),
            ("an ack first", vec![preface.clone(), frame(SETTINGS, END, 0, &[])], "error Preface", &bad),
            ("a head of 9 bytes tells", vec![preface, data(1, 0, b"x")], "error Preface", &bad),
        ],
    );
    let client = || End::new(false, config());
    check(
        client,
        &[
            ("good", vec![settings(&[])], "settings", &with("SETTINGS ack")),
            ("no settings", vec![ping(0)], "error Preface", &bad),
        ],
    );
}

#[test]
fn frames_of_a_wrong_length_or_on_a_wrong_stream_end_the_connection() {
    let long = |kind: u8, stream: u32| frame(kind, 0, stream, &vec![0; 16 * 1024 + 1])[..9].to_vec();
    check_errors(
        server,
        &[
            ("long", long(HEADERS, 1), "FrameSize", SIZE),
            ("long unknown", long(77, 1), "FrameSize", SIZE),
            ("long settings", long(SETTINGS, 0), "FrameSize", SIZE),
            ("settings of 5", frame(SETTINGS, 0, 0, &[0; 5]), "FrameSize", SIZE),
            ("settings ack of 6", frame(SETTINGS, END, 0, &[0; 6]), "FrameSize", SIZE),
            ("settings on a stream", frame(SETTINGS, 0, 1, &[]), "OutOfPlace", PROTOCOL),
            ("settings out of bounds", settings(&[(2, 2)]), "Setting", PROTOCOL),
            ("window too large", settings(&[(4, 1 << 31)]), "FlowControl", "GOAWAY 0 FLOW_CONTROL_ERROR"),
            ("ping of 7", frame(PING, 0, 0, &[0; 7]), "FrameSize", SIZE),
            ("ping of 9", frame(PING, 0, 0, &[0; 9]), "FrameSize", SIZE),
            ("ping on a stream", frame(PING, 0, 1, &[0; 8]), "OutOfPlace", PROTOCOL),
            ("goaway of 7", frame(GOAWAY, 0, 0, &[0; 7]), "FrameSize", SIZE),
            ("goaway on a stream", frame(GOAWAY, 0, 1, &[0; 8]), "OutOfPlace", PROTOCOL),
            ("window update of 3", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), "FrameSize", SIZE),
            ("window update of 5", frame(WINDOW_UPDATE, 0, 0, &[0; 5]), "FrameSize", SIZE),
            ("window update of 0", window_update(0, 0), "OutOfPlace", PROTOCOL),
            ("window update, idle", window_update(1, 1), "OutOfPlace", PROTOCOL),
            ("window update, idle, ours", window_update(2, 1), "OutOfPlace", PROTOCOL),
            (
                "window overflow",
                window_update(0, (1 << 31) - 1),
                "FlowControl",
                "GOAWAY 0 FLOW_CONTROL_ERROR",
            ),
            ("reset of 3", frame(RST_STREAM, 0, 1, &[0; 3]), "FrameSize", SIZE),
            ("reset of 5", frame(RST_STREAM, 0, 1, &[0; 5]), "FrameSize", SIZE),
            ("reset of the connection", reset(0, 0), "OutOfPlace", PROTOCOL),
            ("reset, idle", reset(1, 0), "OutOfPlace", PROTOCOL),
            ("priority of the connection", frame(PRIORITY, 0, 0, &[0; 5]), "OutOfPlace", PROTOCOL),
            ("h2_conn: priority of 4, idle", frame(PRIORITY, 0, 1, &[0; 4]), "FrameSize", SIZE),
            ("priority of itself, idle", frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]), "OutOfPlace", PROTOCOL),
            ("data on the connection", data(0, 0, b"x"), "OutOfPlace", PROTOCOL),
            ("data, idle", data(1, 0, b"x"), "OutOfPlace", PROTOCOL),
            ("headers on the connection", headers(0, 0, GET), "OutOfPlace", PROTOCOL),
            ("headers, even", headers(2, 0, GET), "StreamId", PROTOCOL),
            ("headers, padded, empty", frame(HEADERS, PADDED | END_HEADERS, 1, &[]), "FrameSize", SIZE),
            ("headers, all padding", frame(HEADERS, PADDED | END_HEADERS, 1, &[2, 0]), "Padding", PROTOCOL),
            ("headers, short priority", frame(HEADERS, WITH_PRIORITY | 4, 1, &[0; 4]), "FrameSize", SIZE),
            ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), "OutOfPlace", PROTOCOL),
            ("continuation of nothing", frame(CONTINUATION, 0, 1, &[]), "OutOfPlace", PROTOCOL),
            (
                "bad fields",
                frame(HEADERS, END_HEADERS, 1, &[0x80]),
                "Compression",
                "GOAWAY 0 COMPRESSION_ERROR",
            ),
        ],
    );
    let open = frame(HEADERS, 0, 1, &[]);
    for (name, next) in [
        ("data", data(1, 0, b"")),
        ("headers", headers(1, 0, &[])),
        ("another stream's", frame(CONTINUATION, END_HEADERS, 3, &[])),
        ("unknown", frame(77, 0, 1, &[])),
        ("settings", settings(&[])),
    ] {
        let row = (name, [open.clone(), next].concat(), "OutOfPlace", PROTOCOL);
        check_errors(server, &[row]);
    }
    check_errors(
        client,
        &[
            ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), "OutOfPlace", PROTOCOL),
            ("a head on a stream that nobody opened", headers(9, 0, OK), "OutOfPlace", PROTOCOL),
            ("a head on a stream of theirs", headers(2, 0, OK), "OutOfPlace", PROTOCOL),
            ("data on a stream that nobody opened", data(9, 0, b"x"), "OutOfPlace", PROTOCOL),
            ("push on", settings(&[(2, 1)]), "Setting", PROTOCOL),
        ],
    );
}

#[test]
fn frames_that_ask_nothing_are_passed_over() {
    check(
        busy_server,
        &[
            ("unknown", vec![frame(77, 0xff, 1, b"what"), frame(200, 0, 0, &[])], "", ""),
            ("ping", vec![ping(0), ping(0)], "", "PING ack; PING ack"),
            ("a reserved bit", vec![frame(PING, 0, 1 << 31, b"pingpong")], "", "PING ack"),
            ("settings", vec![settings(&[(3, 5), (0x99, 1)])], "settings", "SETTINGS ack"),
            (
                "priority",
                vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 9]), frame(PRIORITY, 0, 99, &[0; 5])],
                "",
                "",
            ),
            ("goaway", vec![goaway(0, 0), goaway(4, 2)], "goaway NO_ERROR; goaway INTERNAL_ERROR", ""),
            ("windows", vec![window_update(0, 1), window_update(1, 1)], "window; window 1", ""),
            ("a reserved bit of a window", vec![window_update(1, 1 << 31 | 1)], "window 1", ""),
        ],
    );
}

#[test]
fn what_is_wrong_with_a_stream_ends_the_stream() {
    let own = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 9]);
    let priority_of_itself = [&[0, 0, 0, 5, 9][..], &block(GET)].concat();
    let closed = "RST_STREAM 3 STREAM_CLOSED";
    let protocol = "RST_STREAM 1 PROTOCOL_ERROR";
    let told = "reset 1 PROTOCOL_ERROR";
    let nine = "request 9: GET / HTTP/1.1|host: a";
    let alive = || get(7);
    check(
        busy_server,
        &[
            ("window of 0", vec![window_update(1, 0)], told, protocol),
            (
                "window overflow",
                vec![window_update(1, (1 << 31) - 1)],
                "reset 1 FLOW_CONTROL_ERROR",
                "RST_STREAM 1 FLOW_CONTROL_ERROR",
            ),
            ("priority of itself", vec![own], told, protocol),
            (
                "priority of 4",
                vec![frame(PRIORITY, 0, 1, &[0; 4])],
                "reset 1 FRAME_SIZE_ERROR",
                "RST_STREAM 1 FRAME_SIZE_ERROR",
            ),
            (
                "a head that depends on itself",
                vec![frame(HEADERS, END | 4 | WITH_PRIORITY, 5, &priority_of_itself), alive()],
                "request 7: GET / HTTP/1.1|host: a",
                "RST_STREAM 5 PROTOCOL_ERROR",
            ),
            ("headers behind the end", vec![headers(3, END, &[("x", "y")])], "reset 3 STREAM_CLOSED", closed),
            ("data behind the end", vec![data(3, END, b"x")], "reset 3 STREAM_CLOSED", closed),
            ("trailers that do not end", vec![headers(1, 0, &[("x", "y")])], told, protocol),
            ("pseudo fields in trailers", vec![headers(1, END, &[(":path", "/")])], told, protocol),
            (
                "twice wrong is told once",
                vec![window_update(1, 0), window_update(1, 0), data(1, 0, b"x"), headers(1, END, &[])],
                told,
                protocol,
            ),
            ("reset", vec![reset(1, 8), reset(1, 8)], "reset 1 CANCEL", ""),
            (
                "data behind their reset",
                vec![reset(1, 8), data(1, 0, b"x")],
                "reset 1 CANCEL",
                "RST_STREAM 1 STREAM_CLOSED",
            ),
            (
                "headers behind their reset",
                vec![reset(1, 8), headers(1, END, &[])],
                "reset 1 CANCEL; error StreamClosed",
                "GOAWAY 3 STREAM_CLOSED",
            ),
            (
                "an id that was passed over",
                vec![get(9), get(11), get(7)],
                &format!("{nine}; request 11: GET / HTTP/1.1|host: a; error StreamId"),
                "GOAWAY 11 PROTOCOL_ERROR",
            ),
            (
                "an id that was passed over before the last time",
                vec![get(9), get(13), get(7)],
                &format!("{nine}; request 13: GET / HTTP/1.1|host: a; error StreamClosed"),
                "GOAWAY 13 STREAM_CLOSED",
            ),
        ],
    );
    check(
        client,
        &[
            ("data before the head", vec![data(1, 0, b"x")], told, protocol),
            ("an interim head that ends", vec![headers(1, END, &[(":status", "103")])], told, protocol),
            ("no status", vec![headers(1, END, &[("x", "y")])], told, protocol),
            (
                "two heads",
                vec![headers(1, 0, OK), headers(1, 0, OK)],
                "response 1: HTTP/1.1 200 |transfer-encoding: chunked; reset 1 PROTOCOL_ERROR",
                protocol,
            ),
            (
                "an interim head behind the head",
                vec![headers(1, 0, OK), headers(1, END, &[(":status", "100")])],
                "response 1: HTTP/1.1 200 |transfer-encoding: chunked; reset 1 PROTOCOL_ERROR",
                protocol,
            ),
        ],
    );
}

#[test]
fn a_stream_that_is_over_and_forgotten_was_not_passed_over() {
    for (id, error) in [(1, "StreamClosed"), (3, "StreamId")] {
        let mut server = server();
        server.receive(&get(1));
        server.answer(1, "HTTP/1.1 204 \r\n\r\n", true);
        server.release(1);
        server.receive(&[get(5), get(id)].concat());
        assert_eq!(server.take_told().last().unwrap(), &format!("error {error}"), "{id}");
    }
}

#[test]
fn padding_is_taken_off_and_priorities_passed_over() {
    let padded = |count: u8, bytes: &[u8]| [&[count][..], bytes, &vec![0; usize::from(count)]].concat();
    let head = [&[3, 0x80, 0, 0, 9, 1][..], &block(GET), &[0; 3]].concat();
    check(
        busy_server,
        &[
            (
                "data",
                vec![data(1, PADDED, &padded(3, b"ab")), data(1, PADDED | END, &padded(255, b"cd"))],
                "data 1: abcd end",
                "",
            ),
            ("none", vec![data(1, PADDED | END, &[0])], "data 1:  end", ""),
            (
                "nothing else",
                vec![data(1, PADDED | END, &padded(5, b"")), get(5)],
                "data 1:  end; request 5: GET / HTTP/1.1|host: a",
                "",
            ),
            (
                "headers",
                vec![frame(HEADERS, PADDED | WITH_PRIORITY | END | END_HEADERS, 5, &head)],
                "request 5: GET / HTTP/1.1|host: a",
                "",
            ),
            (
                "more than there is",
                vec![data(1, PADDED, &[2, 0])],
                "error Padding",
                "GOAWAY 3 PROTOCOL_ERROR",
            ),
        ],
    );
}

#[test]
fn what_stands_behind_an_empty_frame_is_not_left_there() {
    let told = "request 5: GET / HTTP/1.1|host: a";
    check(
        busy_server,
        &[
            ("of a stream", vec![data(1, 0, b""), get(5)], told, ""),
            ("of padding", vec![data(1, PADDED, &[1, 0]), get(5)], told, ""),
            (
                "of a stream that is over",
                vec![reset(3, 8), data(3, END, b""), get(5)],
                &format!("reset 3 CANCEL; {told}"),
                "RST_STREAM 3 STREAM_CLOSED",
            ),
        ],
    );
}

#[test]
fn a_padded_frame_without_the_length_of_its_padding_ends_the_connection() {
    let empty = || vec![data(1, PADDED, b"")];
    check(
        busy_server,
        &[
            ("and nothing behind it", empty(), "error FrameSize", "GOAWAY 3 FRAME_SIZE_ERROR"),
            // The byte behind is not of this frame.
            ("and another", [empty(), vec![get(5)]].concat(), "error FrameSize", "GOAWAY 3 FRAME_SIZE_ERROR"),
        ],
    );
}

#[test]
fn the_length_that_a_head_names_is_that_of_the_body() {
    let with = |length: &'static str, flags: u8| {
        headers(5, flags, &[GET[0], GET[1], GET[2], GET[3], ("content-length", length)])
    };
    let request = "request 5: GET / HTTP/1.1|host: a|content-length: 3";
    let wrong = &*format!("{request}; reset 5 PROTOCOL_ERROR");
    let reset_5 = "RST_STREAM 5 PROTOCOL_ERROR";
    check(
        busy_server,
        &[
            (
                "as long",
                vec![with("3", 0), data(5, 0, b"ab"), data(5, END, b"c")],
                &format!("{request}; data 5: abc end"),
                "",
            ),
            (
                "as long, then the end",
                vec![with("3", 0), data(5, 0, b"abc"), data(5, END, b"")],
                &format!("{request}; data 5: abc end"),
                "",
            ),
            (
                "as long, then trailers",
                vec![with("3", 0), data(5, 0, b"abc"), headers(5, END, &[])],
                &format!("{request}; data 5: abc; trailers 5: "),
                "",
            ),
            (
                "CVE-2026-48743: none at all",
                vec![with("3", END), get(7)],
                "request 7: GET / HTTP/1.1|host: a",
                reset_5,
            ),
            ("too short at the end", vec![with("3", 0), data(5, END, b"ab")], wrong, reset_5),
            ("an empty end", vec![with("3", 0), data(5, END, b"")], wrong, reset_5),
            ("too short at trailers", vec![with("3", 0), headers(5, END, &[("x", "y")])], wrong, reset_5),
            ("too long", vec![with("3", 0), data(5, 0, b"abcd")], wrong, reset_5),
            (
                "too long later",
                vec![with("3", 0), data(5, 0, b"abc"), data(5, END, b"d")],
                &format!("{request}; data 5: abc; reset 5 PROTOCOL_ERROR"),
                reset_5,
            ),
            (
                "two that differ",
                vec![headers(
                    5,
                    0,
                    &[GET[0], GET[1], GET[2], GET[3], ("content-length", "3"), ("content-length", "4")],
                )],
                "",
                reset_5,
            ),
        ],
    );
    let response =
        |id: u32, length: &'static str, flags: u8| headers(id, flags, &[OK[0], ("content-length", length)]);
    let told = |id: u32| format!("response {id}: HTTP/1.1 200 |content-length: 3");
    check(
        client,
        &[
            (
                "as long",
                vec![response(1, "3", 0), data(1, END, b"abc")],
                &format!("{}; data 1: abc end", told(1)),
                "",
            ),
            (
                "none at all",
                vec![response(1, "3", END)],
                "reset 1 PROTOCOL_ERROR",
                "RST_STREAM 1 PROTOCOL_ERROR",
            ),
            (
                "too short",
                vec![response(1, "3", 0), data(1, END, b"a")],
                &format!("{}; reset 1 PROTOCOL_ERROR", told(1)),
                "RST_STREAM 1 PROTOCOL_ERROR",
            ),
            (
                "too short at trailers",
                vec![response(1, "3", 0), headers(1, END, &[])],
                &format!("{}; reset 1 PROTOCOL_ERROR", told(1)),
                "RST_STREAM 1 PROTOCOL_ERROR",
            ),
            (
                "too long",
                vec![response(1, "3", 0), data(1, 0, b"abcd")],
                &format!("{}; reset 1 PROTOCOL_ERROR", told(1)),
                "RST_STREAM 1 PROTOCOL_ERROR",
            ),
            ("to HEAD", vec![response(3, "3", END)], &told(3), ""),
            (
                "to HEAD, an end of its own",
                vec![response(3, "3", 0), data(3, END, b"")],
                &format!("{}; data 3:  end", told(3)),
                "",
            ),
            (
                "to HEAD, a body",
                vec![response(3, "3", 0), data(3, END, b"abc")],
                &format!("{}; reset 3 PROTOCOL_ERROR", told(3)),
                "RST_STREAM 3 PROTOCOL_ERROR",
            ),
            (
                "204 with a body",
                vec![headers(1, 0, &[(":status", "204")]), data(1, END, b"x")],
                "response 1: HTTP/1.1 204 ; reset 1 PROTOCOL_ERROR",
                "RST_STREAM 1 PROTOCOL_ERROR",
            ),
            (
                "304 without",
                vec![headers(1, END, &[(":status", "304"), ("content-length", "3")])],
                "response 1: HTTP/1.1 304 |content-length: 3",
                "",
            ),
        ],
    );
}
