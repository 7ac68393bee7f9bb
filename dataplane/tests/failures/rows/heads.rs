//! What a request head may hold: H1-05 to H1-07, H1-10 to H1-13, H1-17, H1-20, H1-21.
//!
//! `wire` has longer tables of the same in `parse`, `encode` and `target`, each input cut at every byte there, too.

use policy::limits::{HEADERS_COUNT_DEFAULT, METHOD_BYTES_MAX, REQUEST_HEAD_BYTES_MAX};

use crate::{
    client::Answer,
    ledger::{Line, Meant, Verdict},
    trial::{Fate, Input, Trials},
};

/// These bytes, with `{id}` in them where the id stands.
fn raw(bytes: impl AsRef<[u8]>, means: Option<Meant>, fate: Fate) -> Input {
    let bytes = bytes.as_ref().to_vec();
    let name = bytes[..bytes.len().min(100)].escape_ascii().to_string();
    Input { name, bytes, means, fate, is_in_body: false }
}

/// A GET with these lines.
fn get(lines: &str, means: Option<Meant>, fate: Fate) -> Input {
    raw(format!("GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {{id}}\r\n{lines}\r\n\r\n"), means, fate)
}

/// A GET with this first line and these lines.
fn begins(line: &str, lines: &str, means: Option<Meant>, fate: Fate) -> Input {
    raw(format!("{line}\r\n{lines}X-Id: {{id}}\r\n\r\n"), means, fate)
}

fn plain() -> Meant {
    Meant::new("GET", "/t", b"")
}

const REFUSED: Fate = Fate::Refused(400);

/// RFC 9112 §5.2: a server must reject folded lines, or put spaces in their place. §2.2 for the line before all others.
pub(crate) fn folds(trials: &mut Trials<'_>) {
    for lines in ["X: a\r\n b", "X: a\r\n\tb", "X: a\r\n b\r\n c", "X:\r\n b", "X: a\r\n \r\n b"] {
        trials.input(&get(lines, Some(plain()), REFUSED));
    }
    for lines in [
        "Content-Length:\r\n 5",
        "Transfer-Encoding:\r\n chunked",
        "Expect: 100-continue\r\n b\r\nContent-Length: 5",
    ] {
        trials.input(&get(lines, None, REFUSED));
    }
    trials.input(&begins("GET /t HTTP/1.1", " Host: a\r\n", None, REFUSED));
    trials.input(&begins("GET /t HTTP/1.1", " X: y\r\nHost: a\r\n", Some(plain()), REFUSED));
    trials.input(&begins("GET /t HTTP/1.1", "\tTransfer-Encoding: chunked\r\nHost: a\r\n", None, REFUSED));
}

/// RFC 9112 §5.1: white space between a name and its colon is rejected with 400. RFC 9110 §5.1: a name is a token.
pub(crate) fn names(trials: &mut Trials<'_>) {
    for lines in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        "Transfer-Encoding : chunked",
        "X : y",
        "X Y: z",
        "Foo",
        "Foo\r\nContent-Length: 5",
        ": v",
        ":",
        "X(Y): z",
        "\"X\": z",
        "X,Y: z",
        "X/Y: z",
        "X\x7f: z",
    ] {
        trials.input(&get(lines, None, REFUSED));
    }
    for lines in ["X-Odd!#$%&'*+-.^_`|~9: z", "X-Empty:", "X-Space:  \t z \t"] {
        trials.input(&get(lines, Some(plain()), Fate::Forwarded));
    }
}

/// RFC 9112 §2.2: LF alone may be taken for a line end, which Ringway does not; CR alone never.
pub(crate) fn line_ends(trials: &mut Trials<'_>) {
    for bytes in [
        "GET /t HTTP/1.1\nHost: a\nX-Id: {id}\n\n",
        "GET /t HTTP/1.1\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\nX-Id: {id}\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\n",
        "\nGET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "\r\nGET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "\r\n\r\nGET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
    ] {
        trials.input(&raw(bytes, Some(plain()), REFUSED));
    }
    for bytes in [
        "GET /t\n HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "GET\n/t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "GET /t\r HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "GET /t HTTP/1.1\r\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\r\n",
        "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\rX: y\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\nX: y\rZ: w\r\n\r\n",
        "GET /t HTTP/1.1\r\nHost: a\rX-Id: {id}\r\n\r\n",
        "\rGET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
        " GET /t HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n\r\n",
    ] {
        trials.input(&raw(bytes, None, REFUSED));
    }
}

/// RFC 9110 §5.5: control bytes in a value are invalid; bytes from 0x80 on are opaque and stay as they are.
pub(crate) fn odd_bytes(trials: &mut Trials<'_>) {
    let head = |target: &[u8], line: &[u8]| {
        let parts = [&b"GET /t"[..], target, b" HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n", line, b"\r\n\r\n"];
        parts.concat()
    };
    for byte in [0, 0x01, 0x08, 0x0b, 0x0c, 0x1b, 0x7f] {
        trials.input(&raw(head(b"", &[b'X', b':', b' ', b'a', byte, b'b']), None, REFUSED));
        trials.input(&raw(head(b"", &[b'X', byte, b':', b' ', b'a']), None, REFUSED));
        trials.input(&raw(head(&[byte], b"X: a"), None, REFUSED));
        trials.input(&raw([&[byte], &head(b"", b"X: a")[..]].concat(), None, REFUSED));
    }
    for byte in [0x80, 0x85, 0xa0, 0xff] {
        trials.input(&raw(head(b"", &[b'X', byte, b':', b' ', b'a']), None, REFUSED));
        trials.input(&raw(head(&[byte], b"X: a"), None, REFUSED));
    }
    const KEPT: [[Line; 1]; 3] =
        [[("X-Odd", b"\x85v\xa0")], [("X-Odd", b"\xc3\xa9")], [("X-Odd", b"a\tb \x80\xff")]];
    for with in &KEPT {
        let line = [&b"X-Odd: "[..], with[0].1].concat();
        trials.input(&raw(head(b"", &line), Some(Meant { with, ..plain() }), Fate::Forwarded));
    }
}

/// RFC 9112 §3.2: the target has one of four forms. In absolute form it wins over `Host` (§3.2.2); a `Host` that differs is
/// refused, since not all who read it know.
pub(crate) fn targets(trials: &mut Trials<'_>) {
    let absolute = |host| Meant { with: host, ..plain() };
    let (a, b): (&'static [Line], &'static [Line]) = (&[("Host", b"a")], &[("Host", b"b")]);
    for (line, lines, means, fate) in [
        ("GET http://a/t HTTP/1.1", "Host: a\r\n", Some(absolute(a)), Fate::Forwarded),
        ("GET HTTP://a/t HTTP/1.1", "Host: a\r\n", Some(absolute(a)), Fate::Forwarded),
        ("GET http://b/t HTTP/1.1", "Host: a\r\n", Some(absolute(b)), REFUSED),
        ("GET http://a:81/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET http://a,b/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET http://a,b/t HTTP/1.1", "Host: a,b\r\n", None, REFUSED),
        ("GET http://u@a/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET http://a@b/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET http:///t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET ftp://a/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET /t#b HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET http://a/t#b HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET ? HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET * HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET /t u HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET /t\tu HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET  /t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET /t  HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("GET /t HTTP/1.1 ", "Host: a\r\n", None, REFUSED),
        ("GET\t/t HTTP/1.1", "Host: a\r\n", None, REFUSED),
        ("G(T /t HTTP/1.1", "Host: a\r\n", None, REFUSED),
    ] {
        trials.input(&begins(line, lines, means, fate));
    }
    let long = format!("GET /{} HTTP/1.1", "t".repeat(64 * 1024));
    trials.input(&begins(&long, "Host: a\r\n", None, Fate::Refused(414)));
    let query = Meant::new("GET", "/t?a=b?c&d=%2e%2E/..//", b"");
    trials.input(&begins("GET /t?a=b?c&d=%2e%2E/..// HTTP/1.1", "Host: a\r\n", Some(query), Fate::Forwarded));
    let options = Meant::new("OPTIONS", "*", b"");
    trials.input(&begins("OPTIONS * HTTP/1.1", "Host: a\r\n", Some(options), Fate::Answered(404)));
}

/// RFC 9112 §3.2: exactly one `Host`, and a valid one, or 400.
pub(crate) fn hosts(trials: &mut Trials<'_>) {
    for lines in [
        "",
        "Host: a\r\nHost: b\r\n",
        "Host: a:99999\r\n",
        "Host: a:\r\n",
        "Host: :80\r\n",
        "Host: a:+80\r\n",
        "Host: a:8 0\r\n",
        "Host: a b\r\n",
        "Host: [::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [a]\r\n",
        "Host: a/b\r\n",
        "Host: a,b\r\n",
        "Host: u@a\r\n",
        "Host: a#b\r\n",
        "Host: a%00\r\n",
    ] {
        trials.input(&begins("GET /t HTTP/1.1", lines, None, REFUSED));
    }
    // Two that are the same do no harm when one goes on. An empty one is for targets that name no host (RFC 9112 §3.2).
    for lines in ["Host: a\r\nHost: a\r\n", "Host: a\r\nhOST: a\r\n", "Host:\r\n"] {
        trials.input(&begins("GET /t HTTP/1.1", lines, Some(plain()), REFUSED));
    }
    for lines in ["Host: a.b-c_d~e:8080\r\n", "Host: 10.0.0.7:65535\r\n", "Host: [fe80::1]:80\r\n"] {
        trials.input(&begins("GET /t HTTP/1.1", lines, Some(plain()), Fate::Forwarded));
    }
}

/// RFC 9110 §2.5: a higher minor version may be served as the highest one knows; Ringway refuses it with 505.
pub(crate) fn versions(trials: &mut Trials<'_>) {
    let unknown = Fate::Refused(505);
    for (line, means, fate) in [
        ("GET /t HTTP/1.2", Some(plain()), unknown),
        ("GET /t HTTP/1.9", Some(plain()), unknown),
        ("GET /t HTTP/2.0", None, unknown),
        ("GET /t HTTP/0.9", None, unknown),
        ("PRI * HTTP/2.0", None, unknown),
        ("GET /t HTTP/1.01", None, REFUSED),
        ("GET /t HTTP/01.1", None, REFUSED),
        ("GET /t HTTP/1.", None, REFUSED),
        ("GET /t HTTP/1", None, REFUSED),
        ("GET /t HTTP/11", None, REFUSED),
        ("GET /t http/1.1", None, REFUSED),
        ("GET /t HTTPS/1.1", None, REFUSED),
        ("GET /t", None, REFUSED),
        ("GET", None, REFUSED),
    ] {
        trials.input(&begins(line, "Host: a\r\n", means, fate));
    }
    let old = "Connection: keep-alive\r\nHost: a\r\n";
    trials.input(&begins("GET /t HTTP/1.0", old, Some(plain()), Fate::Forwarded));
}

/// No listener of this proxy is a tunnel (RFC 9110 §9.3.6). What follows a CONNECT would be inside of one.
pub(crate) fn connect(trials: &mut Trials<'_>) {
    let refused = Fate::Refused(405);
    for (line, lines, fate) in [
        ("CONNECT a:443 HTTP/1.1", "Host: a:443\r\n", refused),
        ("CONNECT a:443 HTTP/1.1", "Host: a:443\r\nContent-Length: 0\r\n", refused),
        ("CONNECT a:443 HTTP/1.1", "Host: a:443\r\nContent-Length: 5\r\n", REFUSED),
        ("CONNECT a:443 HTTP/1.1", "Host: a:443\r\nTransfer-Encoding: chunked\r\n", REFUSED),
        ("CONNECT a:443 HTTP/1.1", "Host: b:443\r\n", REFUSED),
        ("CONNECT a HTTP/1.1", "Host: a\r\n", REFUSED),
        ("CONNECT /t HTTP/1.1", "Host: a\r\n", REFUSED),
        ("CONNECT http://a/t HTTP/1.1", "Host: a\r\n", REFUSED),
    ] {
        trials.input(&begins(line, lines, None, fate));
    }
}

/// RFC 9110 §7.6.1: what `Connection` names ends here, unless it frames, routes or says who asks.
pub(crate) fn hop_by_hop(trials: &mut Trials<'_>) {
    const KEPT: &[Line] = &[
        ("Host", b"a"),
        ("X-Forwarded-For", b"10.0.0.1"),
        ("X-Request-Id", b"r"),
        ("X-Envoy-External-Address", b"10.0.0.2"),
        ("Content-Type", b"text/plain"),
    ];
    const TRAILERS: &[Line] = &[("TE", b"trailers"), ("Connection", b"te")];
    let kept = "X-Forwarded-For: 10.0.0.1\r\nX-Request-Id: r\r\nX-Envoy-External-Address: 10.0.0.2\r\nContent-Type: text/plain\r\nX-Auth: me\r\n";
    let ended: &'static [&'static str] =
        &["x-auth", "keep-alive", "proxy-connection", "te", "proxy-authorization"];
    for lines in [
        "Connection: X-Auth, Host, Content-Length, X-Forwarded-For, X-Request-Id, Content-Type",
        "connection: x-auth\r\nConnection: host,x-forwarded-for,\r\nConnection: X-ENVOY-External-Address",
        "Connection: X-Auth\r\nTE: gzip;q=0.5\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive",
        "Connection: X-Auth\r\nProxy-Authorization: Basic eA==",
    ] {
        let means = Meant { with: KEPT, without: ended, ..plain() };
        trials.input(&get(&format!("{kept}{lines}"), Some(means), Fate::Forwarded));
    }
    for lines in
        ["TE: trailers\r\nConnection: te", "TE: trailers", "TE: gzip, trailers;q=0.5\r\nConnection: te"]
    {
        let means = Meant { with: TRAILERS, ..plain() };
        trials.input(&get(lines, Some(means), Fate::Forwarded));
    }
    // A length that may not be taken away, with a body that would be the next request without it.
    let body = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = format!(
        "POST /t HTTP/1.1\r\nHost: a\r\nX-Id: {{id}}\r\nConnection: Content-Length\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    trials.input(&raw(text, Some(Meant::new("POST", "/t", body.as_bytes())), Fate::Forwarded));
    trials.input(&get(&format!("Connection: {}", vec!["x"; 33].join(",")), Some(plain()), REFUSED));
}

/// Each limit, one byte or line below and above it. RFC 9110 §5.4, RFC 9112 §3.
///
/// That a head which drips is given up by a timer no byte prolongs is among the stories of timeouts.
pub(crate) fn limits(trials: &mut Trials<'_>) {
    let too_large = Fate::Refused(431);
    for (bytes, fate) in [
        (REQUEST_HEAD_BYTES_MAX - 1, Fate::Forwarded),
        (REQUEST_HEAD_BYTES_MAX, Fate::Forwarded),
        (REQUEST_HEAD_BYTES_MAX + 1, too_large),
        (1 << 20, too_large),
    ] {
        let empty = "GET /t HTTP/1.1\r\nHost: a\r\nX-Id: \r\nX: \r\n\r\n".len();
        let padding = bytes - empty - trials.ledger.next_id_bytes();
        trials.input(&get(&format!("X: {}", "x".repeat(padding)), Some(plain()), fate));
    }
    // Host and id are two of them.
    for (count, fate) in [
        (HEADERS_COUNT_DEFAULT - 2, Fate::Forwarded),
        (HEADERS_COUNT_DEFAULT - 1, too_large),
        (10_000, too_large),
    ] {
        trials.input(&get(&vec!["X: y"; count].join("\r\n"), Some(plain()), fate));
    }
    for (bytes, fate) in
        [(METHOD_BYTES_MAX, Fate::Forwarded), (METHOD_BYTES_MAX + 1, REFUSED), (8192, REFUSED)]
    {
        let method = "M".repeat(bytes);
        let means = Meant::new(&method, "/t", b"");
        trials.input(&begins(&format!("{method} /t HTTP/1.1"), "Host: a\r\n", Some(means), fate));
    }
    trials.input(&raw("\r\n".repeat(1_000_000), None, REFUSED));
    trials.input(&raw("\n".repeat(1_000_000), None, REFUSED));
    pipeline(trials, 100);
}

/// So many requests in one write are answered in their order.
fn pipeline(trials: &mut Trials<'_>, count: usize) {
    let mut verdict = Verdict::default();
    let requests: Vec<(u64, Vec<u8>)> = (0..count).map(|_| trials.plain()).collect();
    let mut client = trials.connect();
    client.send(&requests.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<u8>>());
    for (at, (id, _)) in requests.iter().enumerate() {
        let answer = client.answer("GET");
        let is_over = !matches!(answer, Answer::Whole(_));
        verdict.expect_echo(&format!("request {at} of {count}"), *id, answer);
        if is_over {
            break;
        }
    }
    trials.settle(0, &mut verdict);
    trials.tally.count("pipelined requests", verdict);
}
