//! What fields become a head, and which are refused: the rows DG-01 to DG-08 of the catalogue of failures.

use std::{format, string::String, vec, vec::Vec};

use super::*;

type Fields<'a> = Vec<(&'a str, &'a str)>;

/// What a server is told of a request with these fields, after a GET that was fine and before another.
fn ask(fields: &[(&str, &str)], flags: u8) -> String {
    let mut server = End::server(config());
    server.receive(&[get(1), headers(3, flags, fields), get(5)].concat());
    let mut told = server.take_told();
    assert_eq!(server.error, None, "{fields:?}");
    assert_eq!(told.remove(0), "request 1: GET / HTTP/1.1|host: a");
    assert_eq!(told.pop().unwrap(), "request 5: GET / HTTP/1.1|host: a", "{fields:?}");
    answer_of(told, server.sent(), fields)
}

/// The same of a response to `method` on a client.
fn respond(id: u32, fields: &[(&str, &str)], flags: u8) -> String {
    let mut client = End::client(config());
    client.receive(&headers(id, flags, fields));
    assert_eq!(client.error, None, "{fields:?}");
    answer_of(client.take_told(), client.sent(), fields)
}

fn answer_of(told: Vec<String>, sent: Vec<String>, fields: &[(&str, &str)]) -> String {
    if let [reset] = &sent[..] {
        assert!(reset.starts_with("RST_STREAM ") && told.len() < 2, "{fields:?}: {told:?}");
        return reset[11..].split_once(' ').unwrap().1.into();
    }
    assert_eq!((told.len(), sent.len()), (1, 0), "{fields:?}: {told:?} {sent:?}");
    told[0].split_once(": ").unwrap().1.into()
}

const REFUSED: &str = "PROTOCOL_ERROR";

/// GET / of a over http, and these fields.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Fields<'a> {
    [GET, more].concat()
}

/// GET / of a over http, but for one of those.
fn but<'a>(name: &'static str, value: &'a str) -> Fields<'a> {
    GET.iter().map(|field| if field.0 == name { (name, value) } else { *field }).collect()
}

fn without(name: &str) -> Fields<'static> {
    GET.iter().filter(|field| field.0 != name).copied().collect()
}

#[test]
fn pseudo_fields_become_the_first_line_or_nothing() {
    let connect = |more: &[(&'static str, &'static str)]| [&[(":method", "CONNECT")], more].concat();
    let options = |path: &'static str| vec![(":method", "OPTIONS"), GET[1], GET[2], (":path", path)];
    let rows: &[(Fields<'_>, &str)] = &[
        (with(&[]), "GET / HTTP/1.1|host: a"),
        (vec![GET[3], GET[2], GET[1], GET[0]], "GET / HTTP/1.1|host: a"),
        (but(":method", "PURGE"), "PURGE / HTTP/1.1|host: a"),
        (but(":path", "/a?b=c;d"), "GET /a?b=c;d HTTP/1.1|host: a"),
        (but(":path", "//x"), "GET //x HTTP/1.1|host: a"),
        (but(":scheme", "https"), "GET / HTTP/1.1|host: a"),
        (but(":scheme", "HttpS"), "GET / HTTP/1.1|host: a"),
        (but(":authority", "A.b:80"), "GET / HTTP/1.1|host: A.b:80"),
        (but(":authority", "[::1]:80"), "GET / HTTP/1.1|host: [::1]:80"),
        (options("*"), "OPTIONS * HTTP/1.1|host: a"),
        (connect(&[(":authority", "a:1")]), "CONNECT a:1 HTTP/1.1|host: a:1"),
        // Missing.
        (vec![], REFUSED),
        (without(":method"), REFUSED),
        (without(":scheme"), REFUSED),
        (without(":path"), REFUSED),
        (without(":authority"), REFUSED),
        // Twice, unknown, of a response, behind a regular field.
        (with(&[(":path", "/b")]), REFUSED),
        (with(&[(":method", "GET")]), REFUSED),
        (with(&[(":authority", "a")]), REFUSED),
        (with(&[(":what", "x")]), REFUSED),
        (with(&[(":status", "200")]), REFUSED),
        (with(&[(":Path", "/")]), REFUSED),
        ([&without(":path")[..], &[("x", "y"), (":path", "/")]].concat(), REFUSED),
        // CONNECT has the authority alone, and only it has none of the others.
        (connect(&[]), REFUSED),
        (connect(&[(":authority", "a")]), REFUSED),
        (connect(&[(":authority", "a:1"), (":path", "/")]), REFUSED),
        (connect(&[(":authority", "a:1"), (":scheme", "http")]), REFUSED),
        (with(&[(":protocol", "websocket")]), REFUSED),
        // Paths that begin with no slash would be another target.
        (but(":path", ""), REFUSED),
        (but(":path", "*"), REFUSED),
        (but(":path", "a"), REFUSED),
        (but(":path", "http://b/"), REFUSED),
        (but(":path", "b:80"), REFUSED),
        (options("*x"), REFUSED),
        // DG-08: schemes.
        (but(":scheme", "ftp"), REFUSED),
        (but(":scheme", ""), REFUSED),
        (but(":scheme", "http://b/?"), REFUSED),
        (but(":scheme", "https "), REFUSED),
        // Another first line in one of the parts.
        (but(":method", ""), REFUSED),
        (but(":method", "GET /x HTTP/1.1"), REFUSED),
        (but(":method", "GET /x"), REFUSED),
        (but(":method", "G(T"), REFUSED),
        (but(":path", "/ HTTP/1.1"), REFUSED),
        (but(":path", "/a b"), REFUSED),
        (but(":path", "/a\tb"), REFUSED),
        (but(":path", "/a#b"), REFUSED),
        (but(":path", "/\u{e9}"), REFUSED),
        // What is no host.
        (but(":authority", ""), REFUSED),
        (but(":authority", "u@a"), REFUSED),
        (but(":authority", "a/b"), REFUSED),
        (but(":authority", "a, b"), REFUSED),
        (but(":authority", "a:99999"), REFUSED),
    ];
    for (fields, expected) in rows {
        assert_eq!(ask(fields, END), *expected, "{fields:?}");
    }
}

#[test]
fn dg_01_no_byte_that_ends_a_line_stands_in_any_part() {
    for byte in ["\r", "\n", "\0", "\r\n", "\u{7f}", "\u{b}", "\u{1b}"] {
        for place in ["{}x", "x{}", "x{}y", "x{}y: z", "{}"] {
            let text = &*place.replace("{}", byte);
            for name in [":method", ":scheme", ":authority", ":path"] {
                let value = if name == ":path" { format!("/{text}") } else { text.into() };
                assert_eq!(ask(&but(name, &value), END), REFUSED, "{name} {value:?}");
            }
            for fields in [
                with(&[("x", text)]),
                with(&[(text, "x")]),
                with(&[("cookie", text)]),
                with(&[("host", text)]),
            ] {
                assert_eq!(ask(&fields, END), REFUSED, "{fields:?}");
                assert_eq!(ask(&fields, 0), REFUSED, "{fields:?}");
            }
            assert_eq!(respond(1, &[(":status", "200"), ("x", text)], END), REFUSED, "{text:?}");
            assert_eq!(respond(1, &[(":status", text)], END), REFUSED, "{text:?}");
            for trailer in [("x", text), (text, "x")] {
                let mut server = End::server(config());
                server.receive(&[post(1), headers(1, END, &[trailer])].concat());
                assert_eq!(server.take_told()[1..], ["reset 1 PROTOCOL_ERROR"], "{trailer:?}");
            }
        }
    }
}

#[test]
fn dg_02_fields_of_a_connection_are_refused() {
    let rows = [
        (("connection", "close"), REFUSED),
        (("connection", ""), REFUSED),
        (("keep-alive", "5"), REFUSED),
        (("proxy-connection", "x"), REFUSED),
        (("transfer-encoding", "chunked"), REFUSED),
        (("transfer-encoding", "identity"), REFUSED),
        (("upgrade", "h2c"), REFUSED),
        (("te", "gzip"), REFUSED),
        (("te", "trailers, gzip"), REFUSED),
        (("te", ""), REFUSED),
        (("te", "trailers"), "te: trailers"),
        (("trailer", "x"), "trailer: x"),
        (("content-length", "0"), "content-length: 0"),
        (("content-length", "-1"), REFUSED),
        (("content-length", "0, 0"), REFUSED),
        (("content-length", "18446744073709551616"), REFUSED),
        // Names that others read as such.
        (("transfer_encoding", "chunked"), REFUSED),
        (("content_length", "0"), REFUSED),
    ];
    for (field, expected) in rows {
        let line =
            |start: &str| if expected == REFUSED { REFUSED.into() } else { format!("{start}|{expected}") };
        assert_eq!(ask(&with(&[field]), END), line("GET / HTTP/1.1|host: a"), "{field:?}");
        // With underscores it is refused in requests only; TE and a first line are not there either.
        if !field.0.contains('_') && field.0 != "content-length" {
            let told = respond(3, &[(":status", "200"), field], END);
            assert_eq!(told, line("HTTP/1.1 200 "), "{field:?}");
        }
        if expected == REFUSED && !field.0.starts_with("content") && !field.0.contains('_') {
            let mut server = End::server(config());
            server.receive(&[post(1), headers(1, END, &[field])].concat());
            assert_eq!(server.take_told()[1..], ["reset 1 PROTOCOL_ERROR"], "{field:?}");
        }
    }
}

#[test]
fn dg_03_the_host_is_the_authority_and_is_counted() {
    let of = |authority: &'static str, hosts: &[&'static str]| -> Fields<'static> {
        but(":authority", authority).into_iter().chain(hosts.iter().map(|host| ("host", *host))).collect()
    };
    let tls = |authority: &'static str, host: &'static str| -> Fields<'static> {
        vec![GET[0], (":scheme", "Https"), (":authority", authority), GET[3], ("host", host)]
    };
    let tunnel = |host: &'static str| vec![(":method", "CONNECT"), (":authority", "a:1"), ("host", host)];
    let rows: &[(Fields<'_>, &str)] = &[
        (of("a", &["a"]), "GET / HTTP/1.1|host: a"),
        (of("a", &["A"]), "GET / HTTP/1.1|host: a"),
        (of("a", &["a:80"]), "GET / HTTP/1.1|host: a"),
        (of("A:80", &["a"]), "GET / HTTP/1.1|host: A:80"),
        (of("a:080", &["a:80"]), "GET / HTTP/1.1|host: a:080"),
        (of("[::1]", &["[::1]:80"]), "GET / HTTP/1.1|host: [::1]"),
        (of("a", &["a", "a:80"]), "GET / HTTP/1.1|host: a"),
        (with(&[("x", "y"), ("host", "a"), ("z", "z")]), "GET / HTTP/1.1|host: a|x: y|z: z"),
        (tls("a", "a:443"), "GET / HTTP/1.1|host: a"),
        (tunnel("a:1"), "CONNECT a:1 HTTP/1.1|host: a:1"),
        (tunnel("a"), "CONNECT a:1 HTTP/1.1|host: a:1"),
        // Others.
        (of("a", &["b"]), REFUSED),
        (of("a", &[""]), REFUSED),
        (of("a", &["a."]), REFUSED),
        (of("a", &["a:81"]), REFUSED),
        (of("a", &["a:443"]), REFUSED),
        (of("a:", &["a"]), REFUSED),
        (of("a:8080", &["a"]), REFUSED),
        (of("a", &["a, b"]), REFUSED),
        (of("a", &["u@a"]), REFUSED),
        (of("a", &["a", "b"]), REFUSED),
        (of("a", &["b", "a"]), REFUSED),
        (tls("a", "a:80"), REFUSED),
        (tunnel("b:1"), REFUSED),
        (tunnel("a:2"), REFUSED),
        // Without an authority there is one host.
        ([&without(":authority")[..], &[("host", "b")]].concat(), "GET / HTTP/1.1|host: b"),
        ([&without(":authority")[..], &[("host", "b"), ("host", "b")]].concat(), REFUSED),
        ([&without(":authority")[..], &[("host", "")]].concat(), REFUSED),
    ];
    for (fields, expected) in rows {
        assert_eq!(ask(fields, END), *expected, "{fields:?}");
    }
    let many = vec![("host", "a"); 1100];
    assert_eq!(too_large(&with(&many)), "HeadTooLarge");
    let long = "h".repeat(20_000);
    assert_eq!(too_large(&with(&[("host", &long), ("host", &long[..19_900])])), "HeadTooLarge");
}

#[test]
fn dg_04_names_are_tokens_of_small_letters_and_values_have_no_blanks_around() {
    for name in ["", "X", "aB", " a", "a ", "a b", "a:", ":a", "a\u{e9}", "a\"", "a/b", "a\t"] {
        assert_eq!(ask(&with(&[(name, "x")]), END), REFUSED, "{name:?}");
        assert_eq!(respond(1, &[(":status", "200"), (name, "x")], END), REFUSED, "{name:?}");
    }
    for value in [" x", "x ", "\tx", "x\t", " ", "\t"] {
        assert_eq!(ask(&with(&[("a", value)]), END), REFUSED, "{value:?}");
    }
    assert_eq!(ask(&with(&[("a", "")]), END), "GET / HTTP/1.1|host: a|a: ");
    assert_eq!(ask(&with(&[("a", "x \t y")]), END), "GET / HTTP/1.1|host: a|a: x \\t y");
    assert_eq!(ask(&with(&[("a", "\u{e9}")]), END), "GET / HTTP/1.1|host: a|a: \\xe9");
}

#[test]
fn cookies_are_joined() {
    let rows: &[(Fields<'_>, &str)] = &[
        (with(&[("cookie", "a=b")]), "|cookie: a=b"),
        (
            with(&[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e")]),
            "|x: y|cookie: a=b; c=d; e",
        ),
        (with(&[("cookie", "")]), ""),
        (with(&[("cookie", ""), ("cookie", "a=b")]), "|cookie: a=b"),
    ];
    for (fields, expected) in rows {
        assert_eq!(ask(fields, END), format!("GET / HTTP/1.1|host: a{expected}"), "{fields:?}");
    }
    let told = respond(1, &[(":status", "204"), ("cookie", "a"), ("cookie", "b")], END);
    assert_eq!(told, "HTTP/1.1 204 |cookie: a|cookie: b");
}

#[test]
fn a_body_of_unknown_length_is_chunked_and_none_is_nothing() {
    let chunked = "GET / HTTP/1.1|host: a|transfer-encoding: chunked";
    assert_eq!(ask(&with(&[]), 0), chunked);
    assert_eq!(ask(&with(&[("content-length", "5")]), 0), "GET / HTTP/1.1|host: a|content-length: 5");
    assert_eq!(ask(&[(":method", "CONNECT"), (":authority", "a:1")], 0), "CONNECT a:1 HTTP/1.1|host: a:1");
    assert_eq!(respond(1, &[(":status", "200")], 0), "HTTP/1.1 200 |transfer-encoding: chunked");
    assert_eq!(respond(3, &[(":status", "200")], 0), "HTTP/1.1 200 ");
    assert_eq!(respond(7, &[(":status", "200")], 0), "HTTP/1.1 200 ");
    assert_eq!(respond(7, &[(":status", "403")], 0), "HTTP/1.1 403 |transfer-encoding: chunked");
}

#[test]
fn statuses_are_three_digits_and_switch_no_protocols() {
    for status in ["", "20", "2000", "2x0", "099", "101", "+20", " 200", "200 OK", "\u{b2}00"] {
        assert_eq!(respond(1, &[(":status", status)], END), REFUSED, "{status:?}");
        assert_eq!(respond(1, &[(":status", status)], 0), REFUSED, "{status:?}");
    }
    for fields in [
        &[(":status", "200"), (":status", "200")][..],
        &[("x", "y"), (":status", "200")],
        &[(":status", "200"), (":path", "/")],
    ] {
        assert_eq!(respond(1, fields, END), REFUSED, "{fields:?}");
    }
    assert_eq!(respond(1, &[(":status", "999")], END), "HTTP/1.1 999 |content-length: 0");
}

/// What is too large of a request with these fields; the head comes in as many frames as it needs.
fn too_large(fields: &[(&str, &str)]) -> String {
    let mut server = End::server(config());
    let block = block(fields);
    let parts: Vec<&[u8]> = block.chunks(16 * 1024).collect();
    for (at, part) in parts.iter().enumerate() {
        let flags = if at + 1 == parts.len() { END_HEADERS } else { 0 };
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        server.receive(&frame(kind, flags | u8::from(at == 0), 1, part));
    }
    // It waits for its answer, and others go on.
    server.receive(&get(3));
    let told = server.take_told();
    assert_eq!(told[1..], ["request 3: GET / HTTP/1.1|host: a"], "{told:?}");
    assert_eq!(server.sent(), [] as [&str; 0]);
    server.answer(1, "HTTP/1.1 431 \r\n\r\n", true);
    assert_eq!(server.sent(), ["HEADERS 1 end"]);
    told[0].strip_prefix("too large 1: ").unwrap_or(&told[0]).into()
}

#[test]
fn what_is_too_large_waits_for_its_answer() {
    let (long, path) = ("v".repeat(20_000), format!("/{}", "p".repeat(2000)));
    assert_eq!(too_large(&with(&[("x", &long), ("y", &long[..19_900])])), "HeadTooLarge");
    assert_eq!(too_large(&but(":path", &path)), "TargetTooLong");
    assert_eq!(too_large(&with(&[("x", "y"); 20])), "TooManyHeaders");
    // Small on the wire, and counted as what it stands for: CVE-2026-47774, CVE-2026-73550.
    for name in ["cookie", "host", "x"] {
        let mut server = End::server(config());
        let literal = [b"\x40", &block(&[(name, &"v".repeat(3000))])[1..]].concat();
        let bomb = [&block(GET)[..], &literal, &[0xbe; 20]].concat();
        server.receive(&frame(HEADERS, END | END_HEADERS, 1, &bomb));
        assert_eq!(server.take_told(), ["too large 1: HeadTooLarge"], "{name}");
    }
}

#[test]
fn a_response_or_trailers_that_are_too_large_end_their_stream() {
    let mut client = End::client(config());
    let literal = [b"\x40", &block(&[("x", &"v".repeat(3000))])[1..]].concat();
    let bomb = [&block(&[(":status", "200")])[..], &literal, &[0xbe; 20]].concat();
    client.receive(&frame(HEADERS, END_HEADERS, 1, &bomb));
    client.receive(
        &[headers(5, 0, &[(":status", "200")]), headers(5, END, &[("x", &"y".repeat(300))])].concat(),
    );
    let told = client.take_told();
    assert_eq!((&*told[0], &*told[2]), ("reset 1 PROTOCOL_ERROR", "reset 5 PROTOCOL_ERROR"));
}

#[test]
fn trailers_that_would_frame_or_route_are_refused_and_what_ends_here_is_left_out() {
    for (field, expected) in [
        (("x-b", "c"), "trailers 1: x-a: b|x-b: c"),
        (("proxy-authorization", "c"), "trailers 1: x-a: b"),
        (("x_forwarded_client_cert", "c"), "trailers 1: x-a: b"),
        (("content-length", "5"), "reset 1 PROTOCOL_ERROR"),
        (("host", "c"), "reset 1 PROTOCOL_ERROR"),
        (("X", "c"), "reset 1 PROTOCOL_ERROR"),
    ] {
        let mut server = End::server(config());
        server.receive(&[post(1), headers(1, END, &[("x-a", "b"), field])].concat());
        assert_eq!(server.take_told()[1], expected, "{field:?}");
    }
}
