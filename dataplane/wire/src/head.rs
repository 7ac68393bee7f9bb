//! Request and response heads as spans over the buffer they were received in.
//!
//! A head owns no text: it holds `(start, end)` pairs into the receive buffer and is reused from one exchange to
//! the next on a connection, so parsing allocates nothing in steady state. [`RequestView`] and [`ResponseView`]
//! join a head with its bytes for reading. Nothing here parses; `http1::parse` fills these types.

use alloc::vec::Vec;

use crate::http1::edits::ends_here;

/// A run of bytes in the buffer a head was parsed from. Offsets are from the start of the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte; never below `start`.
    pub end: u32,
}

impl Span {
    /// The bytes of this span in `bytes`; empty when the span does not lie inside (a head read with a foreign buffer).
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The span of `bytes[start..end]`. Heads are far shorter than 4 GiB; what would not fit is saturated.
    pub fn new(start: usize, end: usize) -> Span {
        let fit = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: fit(start), end: fit(end) }
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether it holds no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Request methods that have a meaning for proxying (RFC 9110 §9). Anything else is `Other` and passes unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    /// Whether a repeated request has the same effect as one (RFC 9110 §9.2.2).
    pub fn is_idempotent(self) -> bool {
        matches!(
            self,
            Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace
        )
    }
}

/// Protocol version of a head.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// Header names the proxy itself acts on; found once while parsing, so later steps compare a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Known {
    #[default]
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Trailer,
    Upgrade,
    Expect,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Date,
    Server,
    ForwardedClientCert,
    /// One of the names by which the proxies of a mesh say whom a request is from, but with `_` for `-`, or several for one:
    /// where headers become variables of an environment, as CGI did it, they are the same. None goes on in a request.
    DisguisedIdentity,
}

/// One header line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The name, case as received.
    pub name: Span,
    /// The value without surrounding white space.
    pub value: Span,
    /// The whole line with its CRLF.
    pub line: Span,
    /// Which of the names the proxy acts on, if any.
    pub known: Known,
    /// [`crate::http2::field::hash`] of name and value, 0 where nobody knows it.
    pub hash: u32,
    /// Its value must not be kept in a table for compression, here or at any hop behind (RFC 7541 §6.2.3).
    pub never_indexed: bool,
}

#[cfg(test)]
impl Header {
    /// Takes on what is known of it beside what its line says.
    pub(crate) fn know(&mut self, other: &Header) {
        (self.hash, self.never_indexed) = (other.hash, other.never_indexed);
    }
}

/// The form of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`.
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

/// What the `Connection` headers of a head say together (RFC 9110 §7.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConnectionOptions {
    /// `close` was given.
    pub close: bool,
    /// `keep-alive` was given.
    pub keep_alive: bool,
    /// `upgrade` was given.
    pub upgrade: bool,
    /// Something else was given: names of headers that end here.
    pub names: bool,
}

/// How the end of a body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// No body follows the head.
    #[default]
    None,
    /// Exactly this many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes; responses only.
    UntilClose,
}

/// How far a parser has looked for the end of a head that has not come whole. Nobody else's business.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// Bytes looked at.
    pub(crate) bytes: u32,
    /// The first line was among them, and found good.
    pub(crate) first_line: bool,
}

/// A parsed request head. Spans are relative to the head's first byte.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RequestHead {
    /// The method, as far as it matters to us.
    pub method: Method,
    /// The method's bytes.
    pub method_span: Span,
    /// The request target as received (origin-form, absolute-form, authority-form or `*`).
    pub target: Span,
    /// Host and optional port: from the absolute-form target, else from `Host`; empty when HTTP/1.0 gave none.
    pub authority: Span,
    /// Which form the target has.
    pub form: TargetForm,
    /// The path without query; empty for authority-form, `*`, and an absolute-form target without a path (which
    /// [`RequestView::path`] shows as `/`).
    pub path: Span,
    /// The query without `?`; `None` when the target has no `?`.
    pub query: Option<Span>,
    /// Where the target ended as it was received: what follows it in the line does not move when it gets shorter.
    pub target_end: u32,
    /// Protocol version.
    pub version: Version,
    /// Header lines in order.
    pub headers: Vec<Header>,
    /// Length of the head in bytes: where the body begins.
    pub end: u32,
    /// How the body ends. Never `UntilClose`.
    pub framing: Framing,
    /// Whether the downstream connection may carry another request after this one.
    pub keep_alive: bool,
    /// What `Connection` says.
    pub options: ConnectionOptions,
    /// `Expect: 100-continue` was given by an HTTP/1.1 request that has a body.
    pub expects_continue: bool,
    /// An `Upgrade` header named by `Connection` was given by an HTTP/1.1 request, and it does not ask for `h2c`.
    pub upgrade: bool,
    /// What the parser remembers between receives.
    pub scan: Scan,
}

impl Header {
    /// Whether nothing surrounds the value but what every reader takes off: spaces before it. Some keep a tab, or what comes
    /// behind.
    pub fn is_plain(&self, bytes: &[u8]) -> bool {
        let before = Span { start: self.name.end.saturating_add(1), end: self.value.start };
        let after = Span { start: self.value.end, end: self.line.end.saturating_sub(2) };
        before.of(bytes).iter().all(|byte| *byte == b' ') && after.of(bytes).is_empty()
    }
}

impl RequestHead {
    /// Forgets the head and keeps the memory: to be called before the next head on a connection.
    pub fn clear(&mut self) {
        let mut headers = core::mem::take(&mut self.headers);
        headers.clear();
        *self = RequestHead { headers, ..RequestHead::default() };
    }
}

/// A parsed response head. Spans are relative to the head's first byte.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ResponseHead {
    /// Status code, 100–999.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: Span,
    /// Protocol version.
    pub version: Version,
    /// Header lines in order.
    pub headers: Vec<Header>,
    /// Length of the head in bytes.
    pub end: u32,
    /// How the body ends, the request's method taken into account.
    pub framing: Framing,
    /// Whether the upstream connection may be used again after this response.
    pub keep_alive: bool,
    /// What `Connection` says.
    pub options: ConnectionOptions,
    /// The last header is a `content-length: 0` that was not received: HTTP/2 ends a response without a body in another way.
    pub has_added_length: bool,
    /// What the parser remembers between receives.
    pub scan: Scan,
}

impl ResponseHead {
    /// Forgets the head and keeps the memory: to be called before the next head on a connection.
    pub fn clear(&mut self) {
        let mut headers = core::mem::take(&mut self.headers);
        headers.clear();
        *self = ResponseHead { headers, ..ResponseHead::default() };
    }
}

/// A request head together with its bytes: what routing reads.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The spans.
    pub head: &'a RequestHead,
    /// The bytes the spans point into, from the head's first byte.
    pub bytes: &'a [u8],
}

/// A response head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// The spans.
    pub head: &'a ResponseHead,
    /// The bytes the spans point into, from the head's first byte.
    pub bytes: &'a [u8],
}

impl<'a> RequestView<'a> {
    /// The method's bytes.
    pub fn method(&self) -> &'a [u8] {
        self.head.method_span.of(self.bytes)
    }

    /// Host and optional port, case as received.
    pub fn authority(&self) -> &'a [u8] {
        self.head.authority.of(self.bytes)
    }

    /// The path without query; empty for authority-form and `*` only (RFC 9110 §4.2.3: an empty path is `/`).
    pub fn path(&self) -> &'a [u8] {
        if self.head.path.is_empty() && self.head.form == TargetForm::Absolute {
            return b"/";
        }
        self.head.path.of(self.bytes)
    }

    /// The query without `?`.
    pub fn query(&self) -> Option<&'a [u8]> {
        self.head.query.map(|span| span.of(self.bytes))
    }

    /// Values of every header called `name` (ASCII case ignored), in order.
    pub fn header_values<'n>(
        &self,
        name: &'n [u8],
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        values(&self.head.headers, self.bytes, name)
    }

    /// Whether headers called `name` are not forwarded, since `Connection` names them (RFC 9110 §7.6.1).
    pub fn ends_here(&self, name: &[u8]) -> bool {
        self.head.options.names && ends_here(&self.head.headers, self.bytes, name)
    }
}

impl<'a> ResponseView<'a> {
    /// Values of every header called `name` (ASCII case ignored), in order.
    pub fn header_values<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        values(&self.head.headers, self.bytes, name)
    }
}

fn values<'a, 'n>(
    headers: &'a [Header],
    bytes: &'a [u8],
    name: &'n [u8],
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
    headers
        .iter()
        .filter(move |header| header.name.of(bytes).eq_ignore_ascii_case(name))
        .map(move |header| header.value.of(bytes))
}
