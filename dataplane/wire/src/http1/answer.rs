//! Answers of our own: whole small messages, made of inserts only.

use super::edits::{is_clean, is_editable};
use super::encode::Sink;
use crate::head::{Method, Version};

/// An answer of our own, small enough to be made in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status code, 200 or above.
    pub status: u16,
    /// Headers besides `Content-Length`, `Connection` and what else frames a message.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The body. Its length is announced, and it is sent but after HEAD. With 204 and 304 it does not exist.
    pub body: &'a [u8],
    /// The downstream connection closes after it.
    pub close: bool,
    /// The version that the downstream speaks; HTTP/1.1 when its request could not be read.
    pub version: Version,
    /// The method of the request; `Get` when it could not be read.
    pub method: Method,
}

/// Gives an answer, head and body, as inserts only.
pub fn answer(answer: &Answer<'_>, sink: &mut impl Sink) {
    sink.insert(b"HTTP/1.1 ");
    sink.insert(Decimal::new(u64::from(answer.status)).as_bytes());
    sink.insert(b" ");
    sink.insert(reason_phrase(answer.status).as_bytes());
    sink.insert(b"\r\n");
    for (name, value) in answer.headers {
        if is_editable(name) && is_clean(name, value) {
            insert_line(sink, name, value);
        }
    }
    let bodyless = matches!(answer.status, 204 | 304);
    if !bodyless {
        insert_line(sink, b"content-length", Decimal::new(answer.body.len() as u64).as_bytes());
    }
    sink.insert(connection_line(answer.close, answer.version, false));
    sink.insert(b"\r\n");
    if answer.method != Method::Head && !bodyless {
        sink.insert(answer.body);
    }
}

/// `HTTP/1.1 100 Continue`, whole.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The reason phrase that is registered for a status; empty for one that is not.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// The `Connection` line that a response needs, if any: HTTP/1.0 closes unless told, HTTP/1.1 the other way round.
pub(super) fn connection_line(close: bool, version: Version, silent: bool) -> &'static [u8] {
    match (close, version) {
        _ if silent => b"",
        (true, _) => b"Connection: close\r\n",
        (false, Version::Http10) => b"Connection: keep-alive\r\n",
        (false, Version::Http11) => b"",
    }
}

fn insert_line(sink: &mut impl Sink, name: &[u8], value: &[u8]) {
    sink.insert(name);
    sink.insert(b": ");
    sink.insert(value);
    sink.insert(b"\r\n");
}

/// A number in decimal digits, in a small array.
pub(crate) struct Decimal {
    text: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut value: u64) -> Decimal {
        let mut text = [b'0'; 20];
        let mut start = text.len();
        for (at, slot) in text.iter_mut().enumerate().rev() {
            *slot = b'0' + (value % 10) as u8;
            start = at;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        Decimal { text, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Span;
    use std::string::String;
    use std::vec::Vec;

    #[derive(Default)]
    struct Written(Vec<u8>);

    impl Sink for Written {
        fn keep(&mut self, _: Span) {
            panic!("an answer of our own keeps nothing");
        }

        fn insert(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }
    }

    #[test]
    fn our_own_answers_are_whole_messages() {
        let base = Answer {
            status: 503,
            headers: &[
                (b"x-ringway-reason", b"no-endpoint"),
                (b"content-length", b"9"),
                (b"x", b"a\r\nb: c"),
            ],
            body: b"no endpoint\n",
            close: false,
            version: Version::Http11,
            method: Method::Get,
        };
        let text = |mine: &Answer<'_>| {
            let mut written = Written::default();
            answer(mine, &mut written);
            String::from_utf8(written.0).unwrap()
        };
        let head =
            "HTTP/1.1 503 Service Unavailable\r\nx-ringway-reason: no-endpoint\r\ncontent-length: 12\r\n";
        assert_eq!(text(&base), [head, "\r\nno endpoint\n"].concat());
        assert_eq!(
            text(&Answer { close: true, ..base }),
            [head, "Connection: close\r\n\r\nno endpoint\n"].concat()
        );
        assert_eq!(text(&Answer { method: Method::Head, ..base }), [head, "\r\n"].concat());
        let old = Answer { version: Version::Http10, ..base };
        assert_eq!(text(&old), [head, "Connection: keep-alive\r\n\r\nno endpoint\n"].concat());
        let empty = Answer { status: 204, headers: &[], ..base };
        assert_eq!(text(&empty), "HTTP/1.1 204 No Content\r\n\r\n");
        let strange = Answer { status: 299, headers: &[], body: b"", ..base };
        assert_eq!(text(&strange), "HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n");
    }
}
