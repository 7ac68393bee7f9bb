//! HTTP/1 as these tests read it: strictly, and apart from `wire`, so that no mistake is made twice.
//!
//! A message is read from all bytes that its connection carried so far; what was read is not read again.

/// A head: three words and header lines.
#[derive(Clone, Default)]
pub(crate) struct Head {
    /// Method, target and version, or version, code and reason.
    pub(crate) first: [Vec<u8>; 3],
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// One message, as far as it came.
#[derive(Clone, Default)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Trailer lines.
    pub(crate) trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// All of it came.
    pub(crate) is_whole: bool,
}

/// Reads the body of one message.
pub(crate) struct BodyReader {
    framing: Framing,
    /// What is left of a chunk; `None` between two.
    chunk_left: Option<usize>,
    in_trailers: bool,
}

impl Head {
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |(known, _): &&(Vec<u8>, Vec<u8>)| known.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().filter(named).map(|(_, value)| &value[..])
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    pub(crate) fn status(&self) -> u16 {
        std::str::from_utf8(&self.first[1]).ok().and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// The id of the request, or of the request that is answered.
    pub(crate) fn id(&self) -> Option<u64> {
        std::str::from_utf8(self.values("x-id").next()?).ok()?.parse().ok()
    }

    /// Framing of the message; an error when it could be read in two ways.
    fn framing(&self) -> Result<Option<Framing>, String> {
        let lengths: Vec<&[u8]> = self.values("content-length").collect();
        let codings: Vec<&[u8]> = self.values("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(None),
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(length).ok().and_then(|length| length.parse().ok());
                length.map(|length| Some(Framing::Length(length))).ok_or("a length out of range".to_owned())
            }
            ([], [coding]) if !self.is_old() && coding.eq_ignore_ascii_case(b"chunked") => {
                Ok(Some(Framing::Chunked))
            }
            _ => Err(format!(
                "{} lengths and {} codings in {}",
                lengths.len(),
                codings.len(),
                self.first.concat().escape_ascii()
            )),
        }
    }

    /// A message of HTTP/1.0, which knows no chunks.
    fn is_old(&self) -> bool {
        self.first.iter().any(|word| word == b"HTTP/1.0")
    }

    /// How the body of a request ends.
    pub(crate) fn request_framing(&self) -> Result<Framing, String> {
        Ok(self.framing()?.unwrap_or(Framing::Length(0)))
    }

    /// How the body of a response to `method` ends (RFC 9112 §6.3).
    pub(crate) fn response_framing(&self, method: &str) -> Result<Framing, String> {
        let framing = self.framing()?.unwrap_or(Framing::UntilClose);
        let is_bodyless = method == "HEAD" || matches!(self.status(), 100..200 | 204 | 304);
        Ok(if is_bodyless { Framing::Length(0) } else { framing })
    }
}

/// Reads a request head at the front of `bytes` and how many bytes it has; `None` when it is not whole.
pub(crate) fn request_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let Some((head, end)) = head(bytes)? else { return Ok(None) };
    let [method, target, version] = &head.first;
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err("a malformed request line".to_owned());
    }
    if version != b"HTTP/1.1" && version != b"HTTP/1.0" {
        return Err("a request of an odd version".to_owned());
    }
    let hosts = head.values("host").count();
    if hosts > 1 || hosts == 0 && version == b"HTTP/1.1" {
        return Err("not one host".to_owned());
    }
    head.request_framing()?;
    Ok(Some((head, end)))
}

/// Reads a response head, as [`request_head`] does.
pub(crate) fn response_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let Some((head, end)) = head(bytes)? else { return Ok(None) };
    if (head.first[0] != b"HTTP/1.1" && head.first[0] != b"HTTP/1.0")
        || head.first[1].len() != 3
        || head.status() < 100
    {
        return Err("a malformed status line".to_owned());
    }
    Ok(Some((head, end)))
}

fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut at = 0;
    let Some(first) = line(bytes, &mut at)? else { return Ok(None) };
    let mut words = first.splitn(3, |byte| *byte == b' ').map(<[u8]>::to_vec);
    let mut word = || words.next().ok_or_else(|| "a first line without three words".to_owned());
    let first = [word()?, word()?, word()?];
    let mut headers = Vec::new();
    loop {
        match line(bytes, &mut at)? {
            None => return Ok(None),
            Some(b"") => return Ok(Some((Head { first, headers }, at))),
            Some(text) => headers.push(field(text)?),
        }
    }
}

/// The next line without its CRLF; no other CR or LF may stand anywhere.
fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<&'a [u8]>, String> {
    let rest = &bytes[*at..];
    let Some(feed) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let text = rest[..feed].strip_suffix(b"\r").ok_or("a line that ends in a bare line feed")?;
    if text.contains(&b'\r') {
        return Err("a bare carriage return".to_owned());
    }
    *at += feed + 1;
    Ok(Some(text))
}

fn field(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a header line without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(format!("the header name {:?}", String::from_utf8_lossy(name)));
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a control byte in a header value".to_owned());
    }
    Ok((name.to_vec(), value.trim_ascii().to_vec()))
}

fn is_token(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_one)
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> BodyReader {
        BodyReader { framing, chunk_left: None, in_trailers: false }
    }

    /// Takes what `bytes` holds of the body from `at` on; whether it is whole.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        at: &mut usize,
        message: &mut Message,
    ) -> Result<bool, String> {
        match self.framing {
            Framing::Length(length) => {
                let count = (length - message.body.len()).min(bytes.len() - *at);
                message.body.extend(&bytes[*at..*at + count]);
                *at += count;
                message.is_whole = message.body.len() == length;
            }
            Framing::UntilClose => {
                message.body.extend(&bytes[*at..]);
                *at = bytes.len();
            }
            Framing::Chunked => message.is_whole = self.read_chunks(bytes, at, message)?,
        }
        Ok(message.is_whole)
    }

    fn read_chunks(&mut self, bytes: &[u8], at: &mut usize, message: &mut Message) -> Result<bool, String> {
        loop {
            if let Some(left) = self.chunk_left {
                let count = left.min(bytes.len() - *at);
                message.body.extend(&bytes[*at..*at + count]);
                *at += count;
                self.chunk_left = Some(left - count);
                if count < left || bytes.len() - *at < 2 {
                    return Ok(false);
                }
                if &bytes[*at..*at + 2] != b"\r\n" {
                    return Err("a chunk that does not end where it said".to_owned());
                }
                *at += 2;
                self.chunk_left = None;
            }
            let Some(text) = line(bytes, at)? else { return Ok(false) };
            if self.in_trailers {
                if text.is_empty() {
                    return Ok(true);
                }
                message.trailers.push(field(text)?);
                continue;
            }
            let is_size = !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
            let size = std::str::from_utf8(text).ok().filter(|_| is_size);
            match size.and_then(|size| usize::from_str_radix(size, 16).ok()) {
                Some(0) => self.in_trailers = true,
                Some(size) => self.chunk_left = Some(size),
                None => return Err(format!("the chunk line {:?}", String::from_utf8_lossy(text))),
            }
        }
    }

    /// The connection ended here; whether that is the body's end.
    pub(crate) fn on_close(&self, message: &mut Message) {
        message.is_whole |= self.framing == Framing::UntilClose;
    }
}
