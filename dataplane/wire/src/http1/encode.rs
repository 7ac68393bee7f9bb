//! Heads on their way out: as runs of the bytes they came in, with small inserts between.
//!
//! What is not changed is not touched: order, case and white space of a header line stay as they were received. What
//! ends at this hop is left out (RFC 9110 §7.6.1), edits are applied, and the first line is made HTTP/1.1 with an
//! origin-form target. The common head, with a header or two added, is two pieces: everything up to the final
//! empty line, and the insert.
//!
//! Nothing given here can break the framing: edits of headers that frame or route a message are passed over, and so
//! are edits whose name or value holds a byte that must not be on the wire.

use super::fields::{classify, is_token, is_value, list};
use super::target;
use crate::head::{
    ConnectionOptions, Framing, Header, Known, Method, RequestView, ResponseView, Span, TargetForm, Version,
};

/// Takes the pieces of a head in order.
pub trait Sink {
    /// The next bytes are this run of the buffer that the head was received in. Runs that touch come as one.
    fn keep(&mut self, span: Span);
    /// The next bytes are these; they live only during the call. Several inserts may follow each other.
    fn insert(&mut self, bytes: &[u8]);
}

/// One change to the headers. A list of them means what it means applied in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Edit<'a> {
    /// Leaves out every header of this name.
    Remove(&'a [u8]),
    /// Leaves out every header of this name and adds one (Envoy: `OVERWRITE_IF_EXISTS_OR_ADD`).
    Set {
        /// Name as it shall be sent.
        name: &'a [u8],
        /// Value without surrounding white space.
        value: &'a [u8],
    },
    /// Adds a header line after those that are there (Envoy: `APPEND_IF_EXISTS_OR_ADD`).
    Append {
        /// Name as it shall be sent.
        name: &'a [u8],
        /// Value without surrounding white space.
        value: &'a [u8],
    },
}

/// What to change in a request head on its way upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEdits<'a> {
    /// New path and query; begins with `/`, or is `*`.
    pub path_and_query: Option<&'a [u8]>,
    /// New value of `Host`.
    pub authority: Option<&'a [u8]>,
    /// Header changes. `Host`, `Connection` and what frames a message cannot be changed by them.
    pub headers: &'a [Edit<'a>],
    /// Adds `Connection: close`.
    pub close: bool,
    /// Sends the upgrade on, if the request asks for one. Else it is left out, and the request is a plain one.
    pub upgrade: bool,
}

/// Why a request head cannot be sent. Nothing was given to the sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The new path does not begin with `/`, or holds white space, a control byte, `#` or a byte above 0x7f.
    #[error("rewritten path cannot be sent")]
    Path,
    /// The new authority is not `host[:port]`.
    #[error("rewritten authority cannot be sent")]
    Authority,
}

/// How a response body is framed on its way downstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyOut {
    /// No body.
    None,
    /// As many bytes as the received `Content-Length` says.
    Length,
    /// Chunks, see [`super::body::ChunkHead`].
    Chunked,
    /// Bytes until the connection closes.
    UntilClose,
}

impl BodyOut {
    /// The framing for a downstream that speaks `version`. A body until close gets chunks, so that its end is seen
    /// and the connection lives on; HTTP/1.0 knows none, so chunks become a body until close.
    pub fn choose(framing: Framing, version: Version) -> BodyOut {
        match (framing, version) {
            (Framing::None, _) => BodyOut::None,
            (Framing::Length(_), _) => BodyOut::Length,
            (Framing::Chunked | Framing::UntilClose, Version::Http11) => BodyOut::Chunked,
            (Framing::Chunked | Framing::UntilClose, Version::Http10) => BodyOut::UntilClose,
        }
    }
}

/// How a response head goes downstream.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a> {
    /// Header changes; as in [`HeadEdits::headers`].
    pub headers: &'a [Edit<'a>],
    /// Framing of what follows, by [`BodyOut::choose`].
    pub body: BodyOut,
    /// The downstream connection closes after this response. `UntilClose` closes always.
    pub close: bool,
    /// The version that the downstream speaks: that of its request.
    pub version: Version,
    /// The method of the request.
    pub method: Method,
}

/// Gives the pieces of a request head for upstream.
pub fn request(
    view: RequestView<'_>,
    edits: &HeadEdits<'_>,
    sink: &mut impl Sink,
) -> Result<(), EncodeError> {
    let head = view.head;
    if edits.path_and_query.is_some_and(|text| !is_path(text)) {
        return Err(EncodeError::Path);
    }
    if edits.authority.is_some_and(|text| target::authority(text).is_none()) {
        return Err(EncodeError::Authority);
    }
    let upgrade = edits.upgrade && head.upgrade;
    let own_connection = edits.close || upgrade;
    let filter = Filter::new(&head.headers, view.bytes, head.options, edits.headers);
    let mut out = Pieces::new(sink);
    request_line(view, edits, &mut out);

    let mut host = false;
    for header in &head.headers {
        let keep = match header.known {
            Known::Other => filter.keeps(header),
            Known::Host => {
                host = true;
                if let Some(authority) = edits.authority {
                    out.keep(Span { start: header.line.start, end: header.value.start });
                    out.insert(authority);
                    out.keep(Span { start: header.value.end, end: header.line.end });
                    continue;
                }
                true
            }
            Known::ContentLength | Known::TransferEncoding | Known::Trailer => true,
            Known::Connection => !own_connection && only_keep_alive(head.options),
            Known::Upgrade => upgrade,
            Known::Expect => head.version == Version::Http11,
            Known::Te
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization => false,
            Known::Date | Known::Server => filter.keeps(header),
        };
        if keep {
            out.keep(header.line);
        }
    }
    if !host {
        // HTTP/1.0 may come without; HTTP/1.1 must not go out without, an empty one if need be (RFC 9112 §3.2).
        out.insert(b"Host: ");
        match edits.authority {
            Some(authority) => out.insert(authority),
            None => out.keep(head.authority),
        }
        out.insert(b"\r\n");
    }
    filter.add_lines(&mut out);
    if upgrade {
        out.insert(b"Connection: upgrade\r\n");
    } else if edits.close {
        out.insert(b"Connection: close\r\n");
    }
    out.finish(head.end);
    Ok(())
}

/// Gives the pieces of a response head for downstream.
pub fn response(view: ResponseView<'_>, edits: &ResponseEdits<'_>, sink: &mut impl Sink) {
    let head = view.head;
    let interim = head.status < 200;
    let tunnel = edits.method == Method::Connect && (200..300).contains(&head.status);
    let upgrade = matches!(head.status, 101 | 426);
    let close = (edits.close || edits.body == BodyOut::UntilClose) && !interim;
    let own_connection = close || upgrade || edits.version == Version::Http10;
    let filter = Filter::new(&head.headers, view.bytes, head.options, edits.headers);
    let mut out = Pieces::new(sink);
    let version_bytes = b"HTTP/1.1".len();
    if head.version == Version::Http11 {
        out.keep(Span::new(0, version_bytes));
    } else {
        out.insert(b"HTTP/1.1");
    }
    out.keep(Span::new(version_bytes, head.reason.end as usize + 2));

    for header in &head.headers {
        let keep = match header.known {
            Known::Other | Known::Date | Known::Server => filter.keeps(header),
            // RFC 9110 §8.6, RFC 9112 §6.1: not with 1xx and 204, nor before a tunnel.
            Known::ContentLength => !interim && head.status != 204 && !tunnel,
            Known::TransferEncoding => match edits.body {
                BodyOut::Chunked => true,
                BodyOut::None => {
                    !interim && head.status != 204 && !tunnel && edits.version == Version::Http11
                }
                BodyOut::Length | BodyOut::UntilClose => false,
            },
            Known::Trailer => edits.body == BodyOut::Chunked,
            Known::Connection => !own_connection && only_keep_alive(head.options),
            Known::Upgrade => upgrade,
            Known::Host | Known::Expect => true,
            Known::Te
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::ProxyAuthenticate
            | Known::ProxyAuthorization => false,
        };
        if keep {
            out.keep(header.line);
        }
    }
    filter.add_lines(&mut out);
    if edits.body == BodyOut::Chunked && head.framing != Framing::Chunked {
        out.insert(b"Transfer-Encoding: chunked\r\n");
    }
    if upgrade {
        out.insert(b"Connection: upgrade\r\n");
    } else {
        out.insert(connection_line(close, edits.version, interim || tunnel));
    }
    out.finish(head.end);
}

/// An answer of our own, small enough to be made in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status code, 200 or above.
    pub status: u16,
    /// Headers besides `Content-Length`, `Connection` and what else frames a message.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The body; its length is always announced. Not sent after HEAD and with 204 and 304.
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
    if answer.status != 204 {
        insert_line(sink, b"content-length", Decimal::new(answer.body.len() as u64).as_bytes());
    }
    sink.insert(connection_line(answer.close, answer.version, false));
    sink.insert(b"\r\n");
    if answer.method != Method::Head && !matches!(answer.status, 204 | 304) {
        sink.insert(answer.body);
    }
}

/// `HTTP/1.1 100 Continue`, whole.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The reason phrase of a status that we give ourselves; empty for others.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn request_line<S: Sink>(view: RequestView<'_>, edits: &HeadEdits<'_>, out: &mut Pieces<'_, S>) {
    let head = view.head;
    out.keep(Span { start: 0, end: head.target.start });
    match (edits.path_and_query, head.form) {
        (Some(_), TargetForm::Authority)
        | (None, TargetForm::Origin | TargetForm::Authority | TargetForm::Asterisk) => {
            out.keep(head.target);
        }
        (Some(text), _) => out.insert(text),
        (None, TargetForm::Absolute) => {
            if head.path.is_empty() {
                // RFC 9112 §3.2.4: OPTIONS without a path asks about the server.
                let server = head.method == Method::Options && head.query.is_none();
                out.insert(if server { b"*" } else { b"/" });
            }
            out.keep(Span { start: head.path.start, end: head.target.end });
        }
    }
    let version = b" HTTP/1.1\r\n";
    if head.version == Version::Http11 {
        let start = head.target.end as usize;
        out.keep(Span::new(start, start + version.len()));
    } else {
        out.insert(version);
    }
}

/// The `Connection` line that a response needs, if any: HTTP/1.0 closes unless told, HTTP/1.1 the other way round.
fn connection_line(close: bool, version: Version, silent: bool) -> &'static [u8] {
    match (close, version) {
        _ if silent => b"",
        (true, _) => b"Connection: close\r\n",
        (false, Version::Http10) => b"Connection: keep-alive\r\n",
        (false, Version::Http11) => b"",
    }
}

/// Whether a `Connection` header may stay: it says about the next connection what we would say.
fn only_keep_alive(options: ConnectionOptions) -> bool {
    !options.close && !options.upgrade && !options.names
}

/// Decides about the header lines that the proxy itself does not act on.
struct Filter<'a> {
    headers: &'a [Header],
    bytes: &'a [u8],
    edits: &'a [Edit<'a>],
    /// `Connection` names headers, which end here.
    nominates: bool,
    /// There are edits that leave out headers.
    removes: bool,
}

impl<'a> Filter<'a> {
    fn new(
        headers: &'a [Header],
        bytes: &'a [u8],
        options: ConnectionOptions,
        edits: &'a [Edit<'a>],
    ) -> Filter<'a> {
        let removes = edits.iter().any(|edit| !matches!(edit, Edit::Append { .. }));
        Filter { headers, bytes, edits, nominates: options.names, removes }
    }

    fn keeps(&self, header: &Header) -> bool {
        if !self.nominates && !self.removes {
            return true;
        }
        let name = header.name.of(self.bytes);
        let removed = self.removes && is_removed(self.edits, name);
        let ends_here = self.nominates && !is_identity(name) && self.is_nominated(name);
        !removed && !ends_here
    }

    fn is_nominated(&self, name: &[u8]) -> bool {
        let lines = self.headers.iter().filter(|header| header.known == Known::Connection);
        lines.flat_map(|line| list(line.value.of(self.bytes))).any(|option| option.eq_ignore_ascii_case(name))
    }

    /// The lines that the edits add and no later edit takes away.
    fn add_lines<S: Sink>(&self, out: &mut Pieces<'_, S>) {
        for (at, edit) in self.edits.iter().enumerate() {
            let (Edit::Set { name, value } | Edit::Append { name, value }) = edit else { continue };
            let later = self.edits.get(at + 1..).unwrap_or_default();
            if is_editable(name) && is_clean(name, value) && !is_removed(later, name) {
                for piece in [*name, b": ", *value, b"\r\n"] {
                    out.insert(piece);
                }
            }
        }
    }
}

fn is_removed(edits: &[Edit<'_>], name: &[u8]) -> bool {
    edits.iter().any(|edit| match edit {
        Edit::Remove(other) | Edit::Set { name: other, .. } => other.eq_ignore_ascii_case(name),
        Edit::Append { .. } => false,
    })
}

/// Headers that a peer must not make us drop by naming them in `Connection`, nor send after a body: they frame, route,
/// or say who asks. Those before us may have set them; what they say is not the peer's to take away.
pub(super) fn is_identity(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 5] = [b"host", b"forwarded", b"via", b"x-request-id", b"x-real-ip"];
    const PREFIXES: [&[u8]; 4] = [b"content-", b"x-forwarded-", b"x-envoy-", b"x-ringway-"];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}

/// Whether edits may name this header: not what frames or routes the message, or governs the connection.
fn is_editable(name: &[u8]) -> bool {
    matches!(
        classify(name),
        Known::Other | Known::Date | Known::Server | Known::ProxyAuthenticate | Known::ProxyAuthorization
    )
}

fn is_clean(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token(*byte)) && value.iter().all(|byte| is_value(*byte))
}

fn is_path(text: &[u8]) -> bool {
    text == b"*"
        || (text.starts_with(b"/") && text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'))
}

fn insert_line(sink: &mut impl Sink, name: &[u8], value: &[u8]) {
    sink.insert(name);
    sink.insert(b": ");
    sink.insert(value);
    sink.insert(b"\r\n");
}

/// Merges runs that touch before they reach the sink.
struct Pieces<'s, S> {
    sink: &'s mut S,
    run: Span,
    inserted: bool,
}

impl<'s, S: Sink> Pieces<'s, S> {
    fn new(sink: &'s mut S) -> Self {
        Pieces { sink, run: Span::default(), inserted: false }
    }

    fn keep(&mut self, span: Span) {
        if span.start == self.run.end {
            self.run.end = span.end;
        } else {
            self.flush();
            self.run = span;
        }
        self.inserted = false;
    }

    fn insert(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.flush();
            self.sink.insert(bytes);
            self.inserted = true;
        }
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            self.sink.keep(self.run);
        }
        // A run that begins where the last one ended is still a new piece once something lies between.
        self.run = Span { start: self.run.end, end: self.run.end };
    }

    /// The empty line: part of the insert before it, or of the run.
    fn finish(mut self, end: u32) {
        if self.inserted {
            self.insert(b"\r\n");
        } else {
            self.keep(Span { start: end.saturating_sub(2), end });
        }
        self.flush();
    }
}

/// A number in decimal digits, in a small array.
struct Decimal {
    text: [u8; 20],
    start: usize,
}

impl Decimal {
    fn new(mut value: u64) -> Decimal {
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

    fn as_bytes(&self) -> &[u8] {
        self.text.get(self.start..).unwrap_or_default()
    }
}
