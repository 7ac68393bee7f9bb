//! Answers of origins: H1-18, H1-19.

use crate::{
    recorder::Then,
    trial::{Output, Reply, Trials},
};

/// Bytes that would be an answer to somebody.
const LEFT_OVER: &str = "HTTP/1.1 200 OK\r\nX-Id: 7\r\nContent-Length: 4\r\n\r\nevil";

fn answer(method: &'static str, text: &str, means: Option<(u16, &str)>, reply: Reply) -> Output {
    Output {
        name: format!("{method} {text:?}"),
        method,
        bytes: text.replacen("\r\n", "\r\nX-Id: {id}\r\n", 1).into_bytes(),
        then: Then::KeepAlive,
        means: means.map(|(status, body)| (status, body.as_bytes().to_vec())),
        reply,
    }
}

/// RFC 9112 §6.3: these end with their heads whatever the heads say. Bytes behind them are nobody's.
pub(crate) fn bodyless(trials: &mut Trials<'_>) {
    for (method, head, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n", 404),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
        ("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304),
        ("GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", 205),
    ] {
        for behind in ["", "hello", "5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n", LEFT_OVER] {
            let text = format!("{head}{behind}");
            trials.output(&answer(method, &text, Some((status, "")), Reply::Whole));
        }
    }
    let with_body = "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello";
    trials.output(&answer("GET", with_body, Some((205, "hello")), Reply::Whole));
}

/// RFC 9112 §6.3: a response that can be read in two ways is a 502, and its connection ends. Where a lenient reader may
/// take it in one way, that way is in the table.
pub(crate) fn ambiguous(trials: &mut Trials<'_>) {
    let hello = Some((200, "hello"));
    let refused = Reply::Status(502);
    for (text, means) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", hello),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", hello),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", None),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            hello,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            hello,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n", None),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", hello),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\n\r\nhello", hello),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 5\r\n\r\nhello", hello),
        ("HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", None),
        ("HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 5\r\n\r\nhello", None),
        ("HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", hello),
        ("HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello", None),
        ("HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello", None),
        ("HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", hello),
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", None),
        ("hello\r\n\r\n", None),
    ] {
        trials.output(&answer("GET", text, means, refused));
    }
    // An answer to a request that was never made.
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        trials.output(&answer("GET", &format!("{text}{LEFT_OVER}"), hello, Reply::Whole));
    }
    // Interim responses come before the final one, up to a bound.
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for (count, reply) in [(1, Reply::Whole), (16, Reply::Whole), (17, refused), (100_000, refused)] {
        let mut output = answer("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", hello, reply);
        output.bytes.splice(0..0, interim.repeat(count).into_bytes());
        output.name = format!("{count} interim responses");
        trials.output(&output);
    }
}
