//! Requests that are refused: each is answered and closed, nothing is forwarded, and the next connection works.

use sim::{Ask, Behaviour, End};

use crate::mesh::{Ground, Mesh, Setup, answers, ok};

/// FAILURES §2.1: bytes, status, reason.
const REFUSED: [(&str, u16, &str); 34] = [
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
        400,
        "length-and-encoding",
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\nG",
        400,
        "length-and-encoding",
    ),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", 501, "transfer-coding-unknown"),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n", 400, ""),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: ,chunked\r\n\r\n", 400, "transfer-encoding"),
    ("POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", 400, "transfer-encoding-version"),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        400,
        "content-length-duplicate",
    ),
    (
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        400,
        "content-length-duplicate",
    ),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", 400, "content-length"),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\nhello", 400, ""),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nhello", 400, "content-length"),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", 400, "obs-fold"),
    ("GET / HTTP/1.1\r\n host: a\r\n\r\n", 400, ""),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 5\r\n\r\nhello", 400, "header-name"),
    ("GET / HTTP/1.1\r\nhost: a\r\nfoo\r\n\r\n", 400, "header-name"),
    ("GET / HTTP/1.1\r\nhost: a\r\n: v\r\n\r\n", 400, "header-name"),
    ("GET / HTTP/1.1\nhost: a\n\n", 400, "bare-lf"),
    ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400, "bare-lf"),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", 400, "header-value"),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: \u{1}\r\n\r\n", 400, "header-value"),
    ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "host-mismatch"),
    ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400, "target-fragment"),
    ("GET / HTTP/1.1\r\n\r\n", 400, "host-missing"),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400, "host-duplicate"),
    ("GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400, "host"),
    ("GET / HTTP/1.1\r\nhost: a:99999\r\n\r\n", 400, "host"),
    ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505, "version-unsupported"),
    ("GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505, "version-unsupported"),
    ("GET / http/1.1\r\nhost: a\r\n\r\n", 400, "version"),
    ("GET /\r\n\r\n", 400, ""),
    ("POST / HTTP/1.1\r\nhost: a\r\nexpect: y\r\ncontent-length: 5\r\n\r\nhello", 417, "expectation"),
    ("CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 405, "method-not-allowed"),
    ("\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "head-start"),
    ("\u{16}\u{3}\u{1}", 400, "head-start"),
];

async fn refuses<I: Ground>(mesh: &Mesh<I>, bytes: &[u8], status: u16, reason: &str) {
    let mut peer = mesh.peer().await;
    // Whatever follows must not be taken for a request.
    let smuggled = [bytes, b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    let _ = peer.try_send(smuggled).await;
    let answer = answers(&mut peer, &["GET"]).await.remove(0);
    let told = answer.header("x-ringway-reason").unwrap_or_default();
    let case = String::from_utf8_lossy(bytes);
    assert_eq!(answer.status(), status, "{case:?}: {told}");
    assert!(reason.is_empty() || told == reason, "{case:?}: {told}");
    assert_eq!(answer.header("connection"), Some("close"), "{case:?}");
    assert_eq!(peer.recv_to_end().await, sim::Ended { bytes: Vec::new(), end: End::Close }, "{case:?}");
}

pub(crate) async fn malformed_heads<I: Ground>(mesh: &Mesh<I>) {
    for (bytes, status, reason) in REFUSED {
        refuses(mesh, bytes.as_bytes(), status, reason).await;
    }
    assert!(mesh.origin().connections().is_empty(), "nothing was forwarded");
    ok(mesh.client().await.ask(&Ask::get("shop", "/", 1)).await);
}

#[test]
fn a_malformed_head_is_answered_and_nothing_of_it_forwarded() {
    Setup::new(Behaviour::default()).on_sim(malformed_heads);
}

#[test]
fn a_malformed_head_behind_a_good_request_takes_nothing_from_it() {
    Setup::new(Behaviour::default()).on_sim(async |mesh| {
        for (bytes, status, _) in REFUSED {
            let mut peer = mesh.peer().await;
            let _ = peer.try_send([&Ask::get("shop", "/", 1).bytes()[..], bytes.as_bytes()].concat()).await;
            let answers = answers(&mut peer, &["GET", "GET"]).await;
            assert_eq!((answers[0].status(), answers[1].status()), (200, status), "{bytes:?}");
        }
        assert_eq!(mesh.ledger()["1"], REFUSED.len());
        assert_eq!(mesh.origin().requests().len(), REFUSED.len());
    });
}

#[test]
fn limits_of_a_head_are_exact() {
    let setup = Setup::new(Behaviour::default()).manager(|m| m.request_head_bytes_max = 1000);
    setup.on_sim(async |mesh| {
        let head = |bytes: usize| {
            let frame = "GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(bytes - frame))
        };
        let mut peer = mesh.peer().await;
        peer.send(head(1000)).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
        refuses(mesh, head(1001).as_bytes(), 431, "head-too-large").await;
        let mut peer = mesh.peer().await;
        peer.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(99))).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
        let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(100));
        refuses(mesh, many.as_bytes(), 431, "too-many-headers").await;
    });
}

#[test]
fn a_malformed_body_breaks_both_sides_and_no_origin_takes_it_for_whole() {
    for body in [
        "5;\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "ffffffffffffffff\r\nhello",
        "5\r\nhello\r\n0\r\nhost: b\r\n\r\n",
    ] {
        Setup::new(Behaviour::default()).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
            let _ = peer.try_send(format!("{head}{body}")).await;
            let status = answers(&mut peer, &["POST"]).await[0].status();
            assert!(matches!(status, 400 | 413), "{body:?}: {status}");
            assert_eq!(peer.recv_to_end().await.end, End::Close);
            let seen = mesh.origin().connections();
            assert!(seen.iter().all(|connection| connection.requests.is_empty()), "{body:?}");
            ok(mesh.client().await.ask(&Ask::get("shop", "/", 1)).await);
        });
    }
}
