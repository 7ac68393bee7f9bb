//! Why a head is refused: the errors, their status and their word.

/// Why a head is refused. The connection closes after it: where the next message begins is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// An empty line, or a byte that cannot begin a head, where one must begin.
    #[error("a head does not begin here")]
    Start,
    /// A line ends in LF without CR.
    #[error("line end without carriage return")]
    BareLf,
    /// CR without LF.
    #[error("carriage return without line feed")]
    BareCr,
    /// The request line is not `method SP target SP version`.
    #[error("malformed request line")]
    RequestLine,
    /// The status line is not `version SP code SP [reason]`, or the code is below 100.
    #[error("malformed status line")]
    StatusLine,
    /// The method is longer than [`METHOD_BYTES_MAX`](super::parse::METHOD_BYTES_MAX).
    #[error("method too long")]
    MethodTooLong,
    /// The target is longer than [`Limits::target_bytes_max`](super::parse::Limits::target_bytes_max).
    #[error("request target too long")]
    TargetTooLong,
    /// The target has no form that its method allows, or its authority is malformed.
    #[error("malformed request target")]
    Target,
    /// The target carries a fragment.
    #[error("fragment in request target")]
    Fragment,
    /// The version is malformed.
    #[error("malformed protocol version")]
    Version,
    /// The version is well formed and neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// A header name is empty, holds a byte that is no token character, or is followed by white space.
    #[error("malformed header name")]
    HeaderName,
    /// A header value holds a control byte.
    #[error("malformed header value")]
    HeaderValue,
    /// A header line is folded (RFC 9112 §5.2).
    #[error("folded header line")]
    Fold,
    /// More header lines than allowed.
    #[error("too many headers")]
    TooManyHeaders,
    /// The head is longer than [`Limits::head_bytes_max`](super::parse::Limits::head_bytes_max).
    #[error("head too large")]
    HeadTooLarge,
    /// An HTTP/1.1 request without `Host`.
    #[error("missing host")]
    MissingHost,
    /// More than one `Host`.
    #[error("more than one host")]
    DuplicateHost,
    /// `Host` is not `host[:port]`.
    #[error("malformed host")]
    Host,
    /// `Host` differs from the authority in the target.
    #[error("host differs from request target")]
    HostMismatch,
    /// `Content-Length` is not one number in range.
    #[error("malformed content length")]
    ContentLength,
    /// More than one `Content-Length`, equal or not.
    #[error("more than one content length")]
    DuplicateContentLength,
    /// `Transfer-Encoding` is malformed, repeated, or `chunked` is not its last coding.
    #[error("malformed transfer encoding")]
    TransferEncoding,
    /// `Transfer-Encoding` names a coding other than `chunked`.
    #[error("unknown transfer coding")]
    TransferCoding,
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    #[error("transfer encoding in an old version")]
    TransferEncodingVersion,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both content length and transfer encoding")]
    LengthAndEncoding,
    /// A header that some readers take for one that frames the message: `Content_Length`, `Transfer--Encoding`.
    #[error("header that others take for framing")]
    DisguisedFraming,
    /// `Connection` has more than 32 elements.
    #[error("too many connection options")]
    ConnectionOptions,
    /// CONNECT with a body.
    #[error("connect with a body")]
    ConnectBody,
    /// `Expect` asks for something else than `100-continue`.
    #[error("unknown expectation")]
    Expectation,
}

impl ParseError {
    /// The status a request with this error is answered with. A response with any error is answered with 502.
    pub fn status(self) -> u16 {
        match self {
            ParseError::Start
            | ParseError::BareLf
            | ParseError::BareCr
            | ParseError::RequestLine
            | ParseError::StatusLine
            | ParseError::MethodTooLong
            | ParseError::Target
            | ParseError::Fragment
            | ParseError::Version
            | ParseError::HeaderName
            | ParseError::HeaderValue
            | ParseError::Fold
            | ParseError::MissingHost
            | ParseError::DuplicateHost
            | ParseError::Host
            | ParseError::HostMismatch
            | ParseError::ContentLength
            | ParseError::DuplicateContentLength
            | ParseError::TransferEncoding
            | ParseError::TransferEncodingVersion
            | ParseError::LengthAndEncoding
            | ParseError::DisguisedFraming
            | ParseError::ConnectionOptions
            | ParseError::ConnectBody => 400,
            ParseError::TargetTooLong => 414,
            ParseError::Expectation => 417,
            ParseError::TooManyHeaders | ParseError::HeadTooLarge => 431,
            ParseError::TransferCoding => 501,
            ParseError::UnsupportedVersion => 505,
        }
    }

    /// A short word for logs, metrics and `x-ringway-reason`. These do not change between versions.
    pub fn reason(self) -> &'static str {
        match self {
            ParseError::Start => "head-start",
            ParseError::BareLf => "bare-lf",
            ParseError::BareCr => "bare-cr",
            ParseError::RequestLine => "request-line",
            ParseError::StatusLine => "status-line",
            ParseError::MethodTooLong => "method-too-long",
            ParseError::TargetTooLong => "target-too-long",
            ParseError::Target => "target",
            ParseError::Fragment => "target-fragment",
            ParseError::Version => "version",
            ParseError::UnsupportedVersion => "version-unsupported",
            ParseError::HeaderName => "header-name",
            ParseError::HeaderValue => "header-value",
            ParseError::Fold => "obs-fold",
            ParseError::TooManyHeaders => "too-many-headers",
            ParseError::HeadTooLarge => "head-too-large",
            ParseError::MissingHost => "host-missing",
            ParseError::DuplicateHost => "host-duplicate",
            ParseError::Host => "host",
            ParseError::HostMismatch => "host-mismatch",
            ParseError::ContentLength => "content-length",
            ParseError::DuplicateContentLength => "content-length-duplicate",
            ParseError::TransferEncoding => "transfer-encoding",
            ParseError::TransferCoding => "transfer-coding-unknown",
            ParseError::TransferEncodingVersion => "transfer-encoding-version",
            ParseError::LengthAndEncoding => "length-and-encoding",
            ParseError::DisguisedFraming => "framing-disguised",
            ParseError::ConnectionOptions => "connection-options",
            ParseError::ConnectBody => "connect-body",
            ParseError::Expectation => "expectation",
        }
    }
}
