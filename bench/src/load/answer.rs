//! Where an answer ends: enough of HTTP/1.1 to read what any server may send to a load generator, and to refuse the rest.
//!
//! Not the parser of `wire`: what checks a proxy's answers shares no code with the proxy.

/// Reads the answers of one connection, each to one request. No I/O: bytes in, answers out.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The head so far, while it is not complete.
    partial: Vec<u8>,
    body: Body,
    answer: Answer,
}

/// An answer that is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The connection ends with this answer.
    pub(super) is_last: bool,
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Head,
    Chunk,
    /// More bytes than the answer has.
    Excess,
    /// The connection ended in the middle.
    Truncated,
}

/// What is still to come of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Body {
    /// The head is not complete.
    #[default]
    Unknown,
    Missing(u64),
    UntilEnd,
    Chunked(Chunk),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In the line with the size, of which this much is read; no digit may follow an extension.
    Size { size: u64, digits: u8, is_extension: bool },
    /// In the data, or the line end behind it, with so many bytes to come.
    Data(u64),
    /// In a trailer or the empty line behind them; so many bytes of the line are read.
    Trailer(usize),
}

/// Longest head that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;

impl Reader {
    /// Reads on. Gives the answer when it is complete: with the last byte of `bytes`, for nothing may follow it.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        if self.body != Body::Unknown {
            return self.receive_body(bytes);
        }
        if self.partial.is_empty() {
            return self.receive_head(bytes);
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(bytes);
        self.receive_head(&whole)
    }

    /// The connection has ended. Gives the answer that ends with it.
    pub(super) fn end(&mut self) -> Result<Answer, Malformed> {
        let was_until_end = self.body == Body::UntilEnd;
        self.body = Body::Unknown;
        if was_until_end { Ok(self.answer) } else { Err(Malformed::Truncated) }
    }

    fn receive_head(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        loop {
            let Some(head_bytes) = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
                if bytes.len() > HEAD_BYTES_MAX {
                    return Err(Malformed::Head);
                }
                self.partial = bytes.to_vec();
                return Ok(None);
            };
            let (head, rest) = bytes.split_at(head_bytes);
            (self.answer, self.body) = read_head(head).ok_or(Malformed::Head)?;
            // Interim answers come before the real one. After 101 there is no HTTP any more.
            if !(100..200).contains(&self.answer.status) {
                return self.receive_body(rest);
            }
            if self.answer.status == 101 {
                return Err(Malformed::Head);
            }
            self.body = Body::Unknown;
            bytes = rest;
        }
    }

    fn receive_body(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, Malformed> {
        match &mut self.body {
            Body::Unknown | Body::UntilEnd => return Ok(None),
            Body::Missing(missing) => {
                *missing = missing.checked_sub(bytes.len() as u64).ok_or(Malformed::Excess)?;
                if *missing > 0 {
                    return Ok(None);
                }
            }
            Body::Chunked(chunk) => {
                while let Some(next) = read_chunk(*chunk, &mut bytes)? {
                    *chunk = next;
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                }
                if !bytes.is_empty() {
                    return Err(Malformed::Excess);
                }
            }
        }
        self.body = Body::Unknown;
        Ok(Some(self.answer))
    }
}

fn read_head(head: &[u8]) -> Option<(Answer, Body)> {
    let minor = match head.get(..9)? {
        b"HTTP/1.1 " => 1,
        b"HTTP/1.0 " => 0,
        _ => return None,
    };
    let status = str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    let mut answer = Answer { status, is_last: minor == 0 };
    let mut body = Body::UntilEnd;
    for line in head.split(|b| *b == b'\n').skip(1) {
        // The first letter tells most lines apart.
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, "content-length") {
                    // With both, chunked counts.
                    if body == Body::UntilEnd {
                        body = Body::Missing(value.parse().ok()?);
                    }
                } else if let Some(value) = value_of(line, "connection") {
                    let has = |token: &str| value.split(',').any(|t| t.trim().eq_ignore_ascii_case(token));
                    answer.is_last = has("close") || (minor == 0 && !has("keep-alive"));
                }
            }
            Some(b't' | b'T')
                if value_of(line, "transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) =>
            {
                body = Body::Chunked(Chunk::START);
            }
            _ => {}
        }
    }
    // These have no body, whatever their head says. (No request of ours is a HEAD.)
    if (100..200).contains(&status) || status == 204 || status == 304 {
        body = Body::Missing(0);
    }
    answer.is_last |= body == Body::UntilEnd;
    Some((answer, body))
}

fn value_of<'a>(line: &'a [u8], name: &str) -> Option<&'a str> {
    let (field, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    if field.eq_ignore_ascii_case(name.as_bytes()) { Some(str::from_utf8(value).ok()?.trim()) } else { None }
}

impl Chunk {
    const START: Self = Chunk::Size { size: 0, digits: 0, is_extension: false };
}

/// Takes what belongs to one state; gives the next one, or `None` when the body has ended.
fn read_chunk(chunk: Chunk, bytes: &mut &[u8]) -> Result<Option<Chunk>, Malformed> {
    match chunk {
        Chunk::Data(missing) => {
            let taken = bytes.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
            *bytes = &bytes[taken..];
            let missing = missing - taken as u64;
            Ok(Some(if missing == 0 { Chunk::START } else { Chunk::Data(missing) }))
        }
        Chunk::Size { size, digits, is_extension } => {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(Some(chunk)) };
            *bytes = rest;
            Ok(Some(match (byte, char::from(byte).to_digit(16)) {
                (b'\n', _) if digits == 0 => return Err(Malformed::Chunk),
                (b'\n', _) if size == 0 => Chunk::Trailer(0),
                // The line end behind the data belongs to it.
                (b'\n', _) => Chunk::Data(size + 2),
                (_, Some(digit)) if !is_extension && digits < 15 => {
                    Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1, is_extension }
                }
                (b';' | b'\r' | b' ' | b'\t', _) if digits > 0 => {
                    Chunk::Size { size, digits, is_extension: true }
                }
                _ if is_extension => chunk,
                _ => return Err(Malformed::Chunk),
            }))
        }
        Chunk::Trailer(length) => {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(Some(chunk)) };
            *bytes = rest;
            match byte {
                b'\n' if length == 0 => Ok(None),
                b'\n' => Ok(Some(Chunk::Trailer(0))),
                b'\r' => Ok(Some(chunk)),
                _ if length >= HEAD_BYTES_MAX => Err(Malformed::Chunk),
                _ => Ok(Some(Chunk::Trailer(length + 1))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn answer(status: u16, is_last: bool) -> Answer {
        Answer { status, is_last }
    }

    /// Bytes, and the answer they are; `None` when only the connection's end completes it.
    const COMPLETE: &[(&[u8], Option<Answer>)] = &[
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", Some(answer(200, false))),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Some(answer(200, true))),
        (b"HTTP/1.0 404 No\r\ncontent-length: 1\r\n\r\nx", Some(answer(404, true))),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 1\r\n\r\nx", Some(answer(200, false))),
        (b"HTTP/1.1 204 No\r\n\r\n", Some(answer(204, false))),
        (b"HTTP/1.1 304 No\r\ncontent-length: 99\r\n\r\n", Some(answer(304, false))),
        (b"HTTP/1.1 103 E\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", Some(answer(200, false))),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Some(answer(200, false))),
        (
            b"HTTP/1.1 503 OK\r\ncontent-length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n1A \r\n\
              abcdefghijklmnopqrstuvwxyz\r\n0\r\nt: 1\r\nu: 2\r\n\r\n",
            Some(answer(503, false)),
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", None),
    ];

    #[test]
    fn an_answer_ends_where_it_says_however_it_is_split() {
        for (bytes, expected) in COMPLETE {
            for at in 0..bytes.len() {
                let mut reader = Reader::default();
                // Twice: nothing of the first answer is left behind.
                for _ in 0..2 {
                    let text = String::from_utf8_lossy(bytes);
                    assert_eq!(reader.receive(&bytes[..at]), Ok(None), "{text} at {at}");
                    assert_eq!(reader.receive(&bytes[at..]), Ok(*expected), "{text} at {at}");
                    if expected.is_none() {
                        assert_eq!(reader.end(), Ok(answer(200, true)));
                    }
                    assert!(reader.partial.is_empty() && reader.body == Body::Unknown);
                }
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_malformed() {
        let cases: &[(&[u8], Malformed)] = &[
            (b"HTTP/2 200\r\n\r\n", Malformed::Head),
            (b"HTTP/1.1 20\r\n\r\n", Malformed::Head),
            (b"HTTP/1.1 101 Up\r\n\r\n", Malformed::Head),
            (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", Malformed::Head),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", Malformed::Excess),
            (b"HTTP/1.1 204 OK\r\n\r\na", Malformed::Excess),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx", Malformed::Excess),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", Malformed::Chunk),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", Malformed::Chunk),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", Malformed::Chunk),
        ];
        for (bytes, expected) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(Reader::default().receive(bytes), Err(*expected), "{text}");
        }
    }

    #[test]
    fn a_connection_that_ends_within_an_answer_truncates_it() {
        for (bytes, _) in COMPLETE.iter().filter(|(_, complete)| complete.is_some()) {
            for at in 0..bytes.len() {
                let mut reader = Reader::default();
                reader.receive(&bytes[..at]).unwrap();
                assert_eq!(reader.end(), Err(Malformed::Truncated));
            }
        }
    }
}
