//! A client and a server of ours talk to each other, over a network that cuts as it likes.

use std::{format, string::String, vec::Vec};

use super::*;

/// Runs a story with bytes one by one, cut at random, and whole.
fn tell(story: fn(&mut Pair)) {
    for piece_bytes_max in [1, 7, 100, 100_000] {
        story(&mut Pair::new(piece_bytes_max));
    }
}

#[test]
fn a_request_and_its_response_with_bodies_and_trailers() {
    tell(|pair| {
        let text = "POST /a?b HTTP/1.1\r\nHost: x.y\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n";
        let id = pair.client.ask(text);
        assert_eq!(pair.client.data(id, b"hello ", false), 6);
        assert_eq!(pair.client.data(id, b"world", false), 5);
        pair.client.trailers(id, "X-Sum: 1\r\nx-other: 2\r\n");
        pair.run();
        assert_eq!(
            pair.server.take_told(),
            [
                "request 1: POST /a?b HTTP/1.1|host: x.y|x-a: b|transfer-encoding: chunked",
                "data 1: hello world",
                "trailers 1: x-sum: 1|x-other: 2"
            ]
        );
        pair.server.answer(1, "HTTP/1.1 100 Continue\r\n\r\n", false);
        pair.server.answer(1, "HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", false);
        pair.server.answer(1, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", false);
        assert_eq!(pair.server.data(1, b"abc", false), 3);
        pair.server.trailers(1, "grpc-status: 0\r\n");
        pair.run();
        assert_eq!(
            pair.client.take_told(),
            [
                "response 1: HTTP/1.1 100 ",
                "response 1: HTTP/1.1 103 |link: x",
                "response 1: HTTP/1.1 200 |content-length: 3",
                "data 1: abc",
                "trailers 1: grpc-status: 0"
            ]
        );
        for end in [&mut pair.client, &mut pair.server] {
            end.release(1);
            assert!(!end.wire.has_output() && end.error.is_none(), "{:?}", end.told);
        }
    });
}

#[test]
fn responses_without_a_body_end_with_their_heads() {
    tell(|pair| {
        for (method, status, headers, expected) in [
            ("GET", 204, "", "HTTP/1.1 204 "),
            ("GET", 304, "content-length: 5\r\n", "HTTP/1.1 304 |content-length: 5"),
            ("HEAD", 200, "content-length: 5\r\n", "HTTP/1.1 200 |content-length: 5"),
            ("HEAD", 200, "", "HTTP/1.1 200 "),
            ("GET", 200, "", "HTTP/1.1 200 |content-length: 0"),
            // gRPC: a response of trailers only.
            ("POST", 200, "grpc-status: 12\r\n", "HTTP/1.1 200 |grpc-status: 12|content-length: 0"),
        ] {
            let id = pair.client.ask(&format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"));
            pair.run();
            pair.server.answer(id, &format!("HTTP/1.1 {status} \r\n{headers}\r\n"), true);
            pair.run();
            assert_eq!(pair.server.take_told(), [format!("request {id}: {method} / HTTP/1.1|host: a")]);
            assert_eq!(pair.client.take_told(), [format!("response {id}: {expected}")]);
            assert!(pair.client.wire.has_received_all(pair.client.keys[&id]));
            pair.client.release(id);
            pair.server.release(id);
            pair.run();
        }
    });
}

#[test]
fn a_tunnel_goes_both_ways_until_it_is_ended() {
    tell(|pair| {
        pair.client.ask("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n");
        pair.client.data(1, b"ping", false);
        pair.run();
        let request = "request 1: CONNECT a:443 HTTP/1.1|host: a:443";
        assert_eq!(pair.server.take_told(), [request, "data 1: ping"]);
        pair.server.answer(1, "HTTP/1.1 200 OK\r\n\r\n", false);
        pair.server.data(1, b"pong", true);
        pair.client.data(1, b"!", true);
        pair.run();
        assert_eq!(pair.client.take_told(), ["response 1: HTTP/1.1 200 ", "data 1: pong end"]);
        assert_eq!(pair.server.take_told(), ["data 1: ! end"]);
    });
}

#[test]
fn heads_over_several_frames_go_both_ways() {
    tell(|pair| {
        let long = |count: usize| "v".repeat(count);
        let id =
            pair.client.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {}\r\ny: z\r\n\r\n", long(35_000)));
        let sent = pair.client.take();
        let shown: Vec<String> = frames(&sent).iter().map(Frame::shown).collect();
        assert_eq!(shown, ["HEADERS 1 end", "CONTINUATION 1", "CONTINUATION 1"]);
        pair.server.receive(&sent);
        assert_eq!(
            pair.server.take_told(),
            [format!("request 1: GET / HTTP/1.1|host: a|x-a: {}|y: z", long(35_000))]
        );
        pair.server.answer(id, &format!("HTTP/1.1 200 \r\nx-b: {}\r\n\r\n", long(20_000)), true);
        pair.run();
        assert_eq!(
            pair.client.take_told(),
            [format!("response 1: HTTP/1.1 200 |x-b: {}|content-length: 0", long(20_000))]
        );
        // The tables are in step.
        pair.client.ask("GET / HTTP/1.1\r\nhost: a\r\ny: z\r\n\r\n");
        pair.run();
        assert_eq!(pair.server.take_told(), ["request 3: GET / HTTP/1.1|host: a|y: z"]);
    });
}

#[test]
fn many_exchanges_at_once_with_bodies_larger_than_their_windows() {
    for (seed, piece_bytes_max) in [(1, 3000), (2, 50_000), (3, 20_000)] {
        let mut pair = Pair::new(piece_bytes_max);
        let mut random = Random::new(seed);
        for _ in 0..8 {
            pair.client.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        }
        let mut left: BTreeMap<u32, usize> = (0..8).map(|n| (n * 2 + 1, 300_000)).collect();
        let mut rounds = 0;
        while !left.is_empty() {
            for id in 0..8 {
                let id = id * 2 + 1;
                let Some(bytes) = left.get_mut(&id) else { continue };
                let count = (1 + random.below(40_000)).min(*bytes);
                *bytes -= pair.client.data(id, &std::vec![b'x'; count], count == *bytes);
                if *bytes == 0 {
                    left.remove(&id);
                }
            }
            pair.run();
            rounds += 1;
            assert!(rounds < 10_000, "stuck with {left:?}");
        }
        let told = pair.server.take_told();
        let count = |id: u32| -> usize {
            told.iter()
                .filter(|line| line.starts_with(&format!("data {id}: ")))
                .map(|line| line.matches('x').count())
                .sum()
        };
        assert!(
            (0..8).all(|n| count(n * 2 + 1) == 300_000),
            "{:?}",
            (0..8).map(|n| count(n * 2 + 1)).collect::<Vec<_>>()
        );
        assert!(pair.server.error.is_none() && pair.client.error.is_none());
    }
}

#[test]
fn a_field_that_no_table_may_keep_is_still_such_a_field_behind_us() {
    let block = [&block(GET)[..], b"\x10\x05x-key\x05value", b"\x00\x01y\x01z"].concat();
    let bytes = [&PREFACE[..], &settings(&[]), &frame(HEADERS, END | END_HEADERS, 1, &block)].concat();
    let mut server = Connection::new(true, config(), Tick(0));
    let (done, _) = server.receive(&bytes, Tick(0)).unwrap();
    let (_, event) = server.receive(&bytes[done..], Tick(0)).unwrap();
    assert!(matches!(event, Some(Event::Request { .. })), "{event:?}");
    let mut head = RequestHead::default();
    let text = server.take_request(&mut head).to_vec();
    let marked: Vec<bool> = head.headers.iter().map(|header| header.never_indexed).collect();
    assert_eq!(marked, [false, true, false]);

    let mut client = End::new(false, config());
    client.take();
    let key = client.wire.open().unwrap();
    let view = RequestView { head: &head, bytes: &text };
    client.wire.send_request(key, view, &HeadEdits::default(), b"http").unwrap();
    let out = client.take();
    assert!(out.windows(13).any(|run| run == b"\x10\x05x-key\x05value"), "{}", out.escape_ascii());
    assert!(out.windows(5).any(|run| run == b"\x00\x01y\x01z"), "{}", out.escape_ascii());
}

#[test]
fn what_is_sent_is_never_malformed_by_edits_or_by_what_http_1_0_leaves_out() {
    let mut client = End::new(false, config());
    let mut server = End::new(true, config());
    let text = b"GET / HTTP/1.0\r\nX-Old: y\r\nconnection: x-hop\r\nx-hop: 1\r\nX_Forwarded-For: 1\r\n\r\n";
    let mut head = RequestHead::default();
    parse::request(text, &config().head, &mut head).unwrap();
    let headers = [
        Edit::Set { name: b"X-Blank", value: b" \t v " },
        Edit::Append { name: b"x-bad", value: b"a\r\nb: c" },
        Edit::Append { name: b"x bad", value: b"a" },
        Edit::Append { name: b"connection", value: b"close" },
        Edit::Remove(b"x-old"),
    ];
    let key = client.wire.open().unwrap();
    let view = RequestView { head: &head, bytes: text };
    let edits = HeadEdits { authority: Some(b"b:1"), headers: &headers, ..HeadEdits::default() };
    client.wire.send_request(key, view, &edits, b"https").unwrap();
    client.id(key);
    server.receive(&client.take());
    assert_eq!(server.take_told()[2..], ["request 1: GET / HTTP/1.1|host: b:1|x-blank: v"]);

    let answer = Answer {
        status: 503,
        headers: &[(b"Retry-After", b" 1 "), (b"x-bad", b"a\nb"), (b"connection", b"close")],
        body: b"no",
        close: true,
        version: Version::Http11,
        method: Method::Get,
    };
    assert_eq!(server.wire.send_answer(server.keys[&1], &answer), 2);
    client.receive(&server.take());
    let response = "response 1: HTTP/1.1 503 |retry-after: 1|content-length: 2";
    assert_eq!(client.take_told()[2..], [response, "data 1: no end"]);

    // Edits that would be another target send nothing.
    let key = client.wire.open().unwrap();
    client.take();
    for edits in [
        HeadEdits { path_and_query: Some(b"/a b"), ..HeadEdits::default() },
        HeadEdits { authority: Some(b"a\r\nb"), ..HeadEdits::default() },
    ] {
        assert!(client.wire.send_request(key, view, &edits, b"http").is_err());
        assert!(!client.wire.has_output());
    }
    // Without a host there is no authority.
    client.wire.send_request(key, view, &HeadEdits::default(), b"http").unwrap();
    let sent = client.take();
    assert!(
        !sent.windows(2).any(|run| run == [0x01, 0x00] || run == [0x41, 0x00]),
        "{}",
        sent.escape_ascii()
    );
}
