//! As much of HTTP/1.1 as an origin and a load generator on loopback need: where a message ends.
//!
//! Both ends are our own and the proxy between them is under measurement, so a message that is not plain HTTP/1.1 with a
//! `content-length` is an error to report, not a case to handle.

/// A message whose head is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Bytes of the head, its empty line included.
    pub head_bytes: usize,
    /// Bytes of the body that follows; 0 without `content-length`.
    pub body_bytes: usize,
}

impl Message {
    /// Bytes of the whole message.
    pub fn bytes(self) -> usize {
        self.head_bytes + self.body_bytes
    }
}

/// The message at the start of `received`, once its head is complete.
pub fn first_in(received: &[u8]) -> Option<Message> {
    let head_bytes = memchr::memmem::find(received, b"\r\n\r\n")? + 4;
    let body_bytes =
        header(&received[..head_bytes], "content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    Some(Message { head_bytes, body_bytes })
}

/// The value of the first header `name` (in any case) of a head.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let value = head.split(|b| *b == b'\n').skip(1).find_map(|line| {
        let (field, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })?;
    Some(str::from_utf8(value).ok()?.trim())
}

/// The status of a response head: the three digits behind `HTTP/1.1 `.
pub fn status(head: &[u8]) -> Option<u16> {
    str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_seen_only_when_its_head_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";
        let head_bytes = text.len() - 5;
        for received in 0..text.len() {
            let expected = (received >= head_bytes).then_some(Message { head_bytes, body_bytes: 5 });
            assert_eq!(first_in(&text[..received]), expected, "{received} bytes");
        }
    }

    #[test]
    fn headers_are_found_in_any_case_and_by_whole_name() {
        let head = b"GET / HTTP/1.1\r\nX-Bench-Two: 2\r\nx-BENCH:  1 \r\n\r\n";
        assert_eq!(header(head, "x-bench"), Some("1"));
        assert_eq!(header(head, "bench"), None);
        assert_eq!(header(head, "get / http/1.1"), None);
    }

    #[test]
    fn a_status_is_three_digits_of_http_1_1() {
        assert_eq!(status(b"HTTP/1.1 503 No\r\n\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n\r\n"), None);
        assert_eq!(status(b"HTTP/1.1 20"), None);
    }
}
