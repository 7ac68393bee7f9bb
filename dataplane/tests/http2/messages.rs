//! What a message says, and how it ends, is the same in every pairing of HTTP/1.1 and HTTP/2.

use std::{fs, path::Path};

use crate::{
    ask::{Answer, Ask, ask},
    origin::{self, LARGE_BYTES, large},
    programs::{DRIVERS, good, proxy},
    support::{Home, text_of},
};

/// In front of the paths of an origin, by what it speaks.
const UPSTREAMS: [&str; 2] = ["/1", "/2"];

#[tokio::test]
async fn messages_are_whole_in_every_pairing() {
    let trailers = vec![("x-sum".to_owned(), "1".to_owned()), ("x-more".to_owned(), "2".to_owned())];
    let post = |path: &str| Ask { method: "POST", body: "hello".into(), ..Ask::get(path) };
    let asks = [
        Ask::get("/hello"),
        Ask { method: "HEAD", ..Ask::get("/hello") },
        Ask::get("/204"),
        Ask { method: "HEAD", ..Ask::get("/204") },
        Ask::get("/304"),
        Ask::get("/early"),
        Ask { method: "HEAD", ..Ask::get("/early") },
        Ask::get("/trailers-only"),
        Ask::get("/large"),
        post("/echo"),
        post("/early"),
        post("/204"),
        Ask { body: large(), ..post("/echo") },
        Ask { trailers: trailers.clone(), ..post("/echo") },
        Ask { body: large(), trailers: trailers.clone(), ..post("/echo") },
        Ask { method: "POST", trailers, ..Ask::get("/echo") },
    ];
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "AUTO", origin::start().await).await;
        for one in &asks {
            for (is_http2, upstream) in
                [false, true].into_iter().flat_map(|down| UPSTREAMS.map(|up| (down, up)))
            {
                let one = Ask { path: format!("{upstream}{}", one.path), ..one.clone() };
                judge(&one, &ask(address, is_http2, &one).await, &format!("{driver}, HTTP/2 {is_http2}"));
            }
        }
        proxy.stop().await;
    }
}

/// The answer must be the origin's own.
fn judge(ask: &Ask, answer: &Answer, how: &str) {
    let what = format!("{} {}, {how}", ask.method, ask.path);
    let is_head = ask.method == "HEAD";
    let meant = origin::answer(ask);
    assert_eq!((answer.status, &answer.interim), (meant.status, &meant.interim), "{what}");
    assert!(answer.body == if is_head { "".into() } else { meant.body.clone() }, "{what}: another body");
    let trailers = if is_head { Vec::new() } else { meant.trailers };
    assert_eq!(answer.trailers, trailers, "{what}");
    let has_length = !matches!(meant.status, 204 | 304) && trailers.is_empty();
    let length = has_length.then(|| meant.body.len().to_string());
    assert_eq!(answer.header("content-length").map(str::to_owned), length, "{what}");
    for (name, value) in &meant.headers {
        assert_eq!(answer.header(name), Some(&**value), "{what}");
    }
}

/// curl, nghttp and h2load, each where it can be.
#[tokio::test]
async fn the_programs_of_others_get_every_byte() {
    let [curl, nghttp, h2load] = ["curl", "nghttp", "h2load"].map(Path::new);
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "AUTO", origin::start().await).await;
        let (body, back) = (home.path("body"), home.path("back"));
        fs::write(&body, large()).unwrap();
        let of_file = format!("@{}", text_of(&body));
        for upstream in UPSTREAMS {
            let url = |path: &str| format!("http://{address}{upstream}{path}");
            for version in ["--http1.1", "--http2-prior-knowledge"] {
                let echo = url("/echo");
                let arguments =
                    [version, "-sS", "-H", "expect:", "--data-binary", &of_file, "-o", text_of(&back), &echo];
                good(curl, &arguments).await;
                assert!(fs::read(&back).unwrap() == large(), "{driver}, curl {version}, {upstream}");
            }
            let data = format!("--data={}", text_of(&body));
            let came = good(nghttp, &["--no-dep", &data, &url("/echo")]).await;
            assert!(came == large(), "{driver}, nghttp, {upstream}");
            // More than one at a time, so that the streams and connections share what there is.
            for protocol in ["--h1", "--no-tls-proto=h2c"] {
                h2load_gets_all(h2load, protocol, &url("/hello"), 2000).await;
                h2load_gets_all(h2load, protocol, &url("/large"), 20).await;
            }
        }
        proxy.stop().await;
    }
}

/// So many GETs on four connections, all of them answered with all bytes.
async fn h2load_gets_all(h2load: &Path, protocol: &str, url: &str, count: usize) {
    let requests = format!("-n{count}");
    let arguments = [protocol, "-c4", "-m10", &requests, url];
    let said = String::from_utf8_lossy(&good(h2load, &arguments).await).into_owned();
    let done = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(said.contains(&done), "{url} {protocol}: {said}");
    let body_bytes = if url.ends_with("large") { LARGE_BYTES } else { "hello".len() };
    let traffic = said.lines().find_map(|line| line.strip_prefix("traffic:")).unwrap_or_default();
    assert!(traffic.contains(&format!("({}) data", count * body_bytes)), "{url} {protocol}: {said}");
}
