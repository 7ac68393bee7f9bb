//! HTTP/1.1 read strictly, for the ends of a test: whatever is not in canonical form is an error.
//!
//! Shares no code with the proxy, so that the proxy cannot agree with itself about a mistake.

use std::{collections::VecDeque, fmt};

/// One request or response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The first line, without its end.
    pub start: String,
    /// Names as they came, values without surrounding blanks; each byte is one character.
    pub headers: Vec<(String, String)>,
    /// How the body was delimited.
    pub framing: Framing,
    /// The body, without framing.
    pub body: Vec<u8>,
    /// Fields behind a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// `content-length`.
    Length,
    /// `transfer-encoding: chunked`.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// Why bytes are no message in canonical form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// What is wrong.
    pub what: &'static str,
    /// The bytes where it was seen, escaped.
    pub near: String,
}

/// What a parser tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A head is complete; [`Parser::current`] has it until its body is.
    Head,
    /// A message is complete.
    Whole(Message),
}

/// Reads the messages of one direction of a connection, in whatever pieces they come.
#[derive(Debug)]
pub struct Parser {
    responses: bool,
    /// Methods whose answers are still to come.
    methods: VecDeque<String>,
    waiting: Vec<u8>,
    /// The first byte of `waiting` that was not read.
    at: usize,
    current: Option<Message>,
    left: Left,
}

/// What of the current message is still to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    Head,
    Bytes(usize),
    ChunkLine,
    Chunk(usize),
    ChunkEnd,
    Trailers,
    UntilClose,
}

impl Parser {
    /// Reads requests.
    pub fn requests() -> Parser {
        Parser {
            responses: false,
            methods: VecDeque::new(),
            waiting: Vec::new(),
            at: 0,
            current: None,
            left: Left::Head,
        }
    }

    /// Reads responses; [`Parser::expect_answer_to`] tells to what.
    pub fn responses() -> Parser {
        Parser { responses: true, ..Parser::requests() }
    }

    /// A request was sent whose answer will come in its turn.
    pub fn expect_answer_to(&mut self, method: &str) {
        self.methods.push_back(method.to_owned());
    }

    /// Takes bytes that came.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.waiting.drain(..self.at);
        self.at = 0;
        self.waiting.extend_from_slice(bytes);
    }

    /// The next thing they say.
    pub fn next_event(&mut self) -> Result<Option<Event>, Malformed> {
        loop {
            let goes_on = match self.left {
                Left::Head => return self.head(),
                Left::Bytes(count) => {
                    let count = count - self.move_to_body(count);
                    self.left = Left::Bytes(count);
                    return Ok((count == 0).then(|| self.whole()));
                }
                Left::UntilClose => {
                    self.move_to_body(usize::MAX);
                    return Ok(None);
                }
                Left::ChunkLine => self.chunk_line()?,
                Left::Chunk(count) => {
                    let count = count - self.move_to_body(count);
                    self.left = if count > 0 { Left::Chunk(count) } else { Left::ChunkEnd };
                    count == 0
                }
                Left::ChunkEnd => self.chunk_end()?,
                Left::Trailers => match self.line() {
                    None => false,
                    Some(line) if line.is_empty() => return Ok(Some(self.whole())),
                    Some(line) => self.trailer(&line)?,
                },
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    /// The other end sent FIN: the message that this ends, if any. An error when it cuts one.
    pub fn finish(&mut self) -> Result<Option<Message>, Malformed> {
        match self.left {
            Left::Head if self.at == self.waiting.len() => Ok(None),
            Left::UntilClose => match self.whole() {
                Event::Whole(message) => Ok(Some(message)),
                Event::Head => Ok(None),
            },
            _ => Err(self.malformed("ends in the middle of a message")),
        }
    }

    /// The message whose head came and whose body has not, yet.
    pub fn current(&self) -> Option<&Message> {
        self.current.as_ref()
    }

    /// Bytes that came and belong to nothing yet.
    pub fn unread(&self) -> &[u8] {
        &self.waiting[self.at..]
    }

    fn line_end(&self) -> Option<usize> {
        self.unread().windows(2).position(|two| two == b"\r\n")
    }

    fn move_to_body(&mut self, max: usize) -> usize {
        let count = max.min(self.waiting.len() - self.at);
        if let Some(message) = &mut self.current {
            message.body.extend_from_slice(&self.waiting[self.at..self.at + count]);
        }
        self.at += count;
        count
    }

    fn whole(&mut self) -> Event {
        self.left = Left::Head;
        self.current.take().map_or(Event::Head, Event::Whole)
    }

    fn head(&mut self) -> Result<Option<Event>, Malformed> {
        let Some(end) = self.unread().windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = latin1(&self.unread()[..end]);
        let mut lines = head.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let headers = lines.map(field).collect::<Result<Vec<_>, _>>().map_err(|what| self.malformed(what))?;
        let message =
            Message { start, headers, framing: Framing::None, body: Vec::new(), trailers: Vec::new() };
        let framing = self.framing(&message).map_err(|what| self.malformed(what))?;
        let left = match framing {
            Framing::None => Left::Bytes(0),
            Framing::Length => {
                Left::Bytes(length(&message).ok_or_else(|| self.malformed("no canonical content-length"))?)
            }
            Framing::Chunked => Left::ChunkLine,
            Framing::UntilClose => Left::UntilClose,
        };
        self.at += end + 4;
        self.left = left;
        self.current = Some(Message { framing, ..message });
        Ok(Some(Event::Head))
    }

    fn framing(&mut self, message: &Message) -> Result<Framing, &'static str> {
        let codings: Vec<&str> = message.all("transfer-encoding").collect();
        let lengths = message.all("content-length").count();
        if lengths + codings.len() > 1 {
            return Err("more than one framing header");
        }
        if codings.iter().any(|coding| *coding != "chunked") {
            return Err("a transfer coding that is not `chunked`");
        }
        let declared = match (codings.len(), lengths) {
            (1, _) => Some(Framing::Chunked),
            (_, 1) => Some(Framing::Length),
            _ => None,
        };
        if !self.responses {
            check_request(message)?;
            return Ok(declared.unwrap_or(Framing::None));
        }
        let status = check_response(message)?;
        let method = self.methods.front().map(String::as_str).ok_or("a response to nothing")?;
        let is_bodyless = method == "HEAD" || matches!(status, 100..200 | 204 | 304);
        if status >= 200 || status == 101 {
            self.methods.pop_front();
        }
        if is_bodyless { Ok(Framing::None) } else { Ok(declared.unwrap_or(Framing::UntilClose)) }
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let end = self.line_end()?;
        let line = self.unread()[..end].to_vec();
        self.at += end + 2;
        Some(line)
    }

    // Each tells whether there was enough to go on.

    fn chunk_line(&mut self) -> Result<bool, Malformed> {
        let Some(line) = self.line() else { return Ok(false) };
        let digits = std::str::from_utf8(&line).ok().filter(|line| {
            !line.is_empty() && line.len() <= 8 && line.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        let count = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let count = count.ok_or_else(|| self.malformed("no canonical chunk size"))?;
        self.left = if count == 0 { Left::Trailers } else { Left::Chunk(count) };
        Ok(true)
    }

    fn chunk_end(&mut self) -> Result<bool, Malformed> {
        match self.unread() {
            [b'\r', b'\n', ..] => {
                self.at += 2;
                self.left = Left::ChunkLine;
                Ok(true)
            }
            [] | [b'\r'] => Ok(false),
            _ => Err(self.malformed("no line end behind a chunk")),
        }
    }

    fn trailer(&mut self, line: &[u8]) -> Result<bool, Malformed> {
        let field = field(&latin1(line)).map_err(|what| self.malformed(what))?;
        if let Some(message) = &mut self.current {
            message.trailers.push(field);
        }
        Ok(true)
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        let near = self.unread();
        Malformed { what, near: near[..near.len().min(200)].escape_ascii().to_string() }
    }
}

impl Message {
    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// A request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// A response's status; 0 for a request.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

fn check_request(message: &Message) -> Result<(), &'static str> {
    let [method, target, "HTTP/1.1"] = message.start.split(' ').collect::<Vec<_>>()[..] else {
        return Err("a request line that is not `METHOD target HTTP/1.1`");
    };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err("no method");
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("no target");
    }
    if message.all("host").count() != 1 {
        return Err("not one host");
    }
    Ok(())
}

fn check_response(message: &Message) -> Result<u16, &'static str> {
    let rest = message.start.strip_prefix("HTTP/1.1 ").ok_or("a status line of another version")?;
    let (status, _) = rest.split_at_checked(3).ok_or("no status")?;
    if !rest[3..].starts_with(' ') || !status.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("no status");
    }
    status.parse().ok().filter(|status| (100..600).contains(status)).ok_or("no status")
}

fn length(message: &Message) -> Option<usize> {
    let value = message.header("content-length")?;
    let is_canonical =
        value.bytes().all(|byte| byte.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    if is_canonical { value.parse().ok() } else { None }
}

fn field(line: &str) -> Result<(String, String), &'static str> {
    let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("a header name that is no token");
    }
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(|c| c != '\t' && c.is_ascii_control()) {
        return Err("a control character in a header value");
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// FNV-1a of a body: tells a body that was cut, doubled or mixed with another from the right one.
pub fn hash(bytes: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.what, self.near)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a parser makes of `bytes` in pieces of `piece`, and of the FIN behind them.
    fn read(mut parser: Parser, bytes: &[u8], piece: usize) -> Result<Vec<Message>, &'static str> {
        let mut messages = Vec::new();
        for piece in bytes.chunks(piece) {
            parser.receive(piece);
            while let Some(event) = parser.next_event().map_err(|malformed| malformed.what)? {
                messages.extend(match event {
                    Event::Whole(message) => Some(message),
                    Event::Head => None,
                });
            }
        }
        messages.extend(parser.finish().map_err(|malformed| malformed.what)?);
        Ok(messages)
    }

    fn in_any_pieces(parser: fn() -> Parser, bytes: &str) -> Result<Vec<Message>, &'static str> {
        let whole = read(parser(), bytes.as_bytes(), usize::MAX);
        for piece in [1, 2, 3, 7] {
            assert_eq!(read(parser(), bytes.as_bytes(), piece), whole, "{bytes:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn requests_in_canonical_form_are_read_one_after_the_other() {
        let bytes = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody\
            POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nt: v\r\n\r\n";
        let messages = in_any_pieces(Parser::requests, bytes).unwrap();
        let told: Vec<_> = messages.iter().map(|m| (m.target(), m.framing, &m.body[..])).collect();
        assert_eq!(
            told,
            [
                ("/a", Framing::None, &b""[..]),
                ("/b", Framing::Length, b"body"),
                ("/c", Framing::Chunked, b"abcde"),
            ]
        );
        assert_eq!(messages[0].header("hOST"), Some("x"));
        assert_eq!(messages[2].trailers, [("t".to_owned(), "v".to_owned())]);
    }

    #[test]
    fn what_is_not_canonical_is_an_error() {
        for (bytes, what) in [
            ("GET /a HTTP/1.0\r\nhost: x\r\n\r\n", "a request line that is not `METHOD target HTTP/1.1`"),
            ("GET  /a HTTP/1.1\r\nhost: x\r\n\r\n", "a request line that is not `METHOD target HTTP/1.1`"),
            ("GET /a HTTP/1.1\r\n\r\n", "not one host"),
            ("GET /a HTTP/1.1\r\nhost : x\r\n\r\n", "a header name that is no token"),
            ("GET /a HTTP/1.1\r\nhost: x\r\n b\r\n\r\n", "a header without a colon"),
            ("GET /a HTTP/1.1\r\nhost: x\ny: z\r\n\r\n", "a control character in a header value"),
            ("GET /a HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\n", "no canonical content-length"),
            (
                "GET /a HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n",
                "more than one framing header",
            ),
            (
                "GET /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n",
                "a transfer coding that is not `chunked`",
            ),
            (
                "GET /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\nx\r\n",
                "no canonical chunk size",
            ),
            (
                "GET /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxy\r\n",
                "no line end behind a chunk",
            ),
            (
                "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nbody",
                "ends in the middle of a message",
            ),
        ] {
            assert_eq!(in_any_pieces(Parser::requests, bytes), Err(what), "{bytes:?}");
        }
    }

    #[test]
    fn responses_are_delimited_by_what_they_answer() {
        let answer_to = |method: &str, bytes: &str| {
            let mut parser = Parser::responses();
            parser.expect_answer_to(method);
            read(parser, bytes.as_bytes(), 5)
        };
        let body = |method, bytes| answer_to(method, bytes).map(|mut all| all.pop().unwrap().body);
        assert_eq!(body("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").unwrap(), b"");
        assert_eq!(body("GET", "HTTP/1.1 304 \r\ncontent-length: 9\r\n\r\n").unwrap(), b"");
        assert_eq!(body("GET", "HTTP/1.1 200 OK\r\n\r\nto the end").unwrap(), b"to the end");
        let interim = answer_to("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n").unwrap();
        assert_eq!(interim.iter().map(Message::status).collect::<Vec<_>>(), [100, 204]);
        let twice = "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        assert_eq!(answer_to("GET", twice), Err("a response to nothing"));
    }
}
