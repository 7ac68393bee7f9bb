//! What goes wrong on an HTTP/2 connection, and how far it reaches (RFC 9113 §5.4, §7).

/// A code as RST_STREAM and GOAWAY carry it. Unknown ones are kept as they are (RFC 9113 §7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ErrorCode(pub u32);

#[allow(missing_docs)]
impl ErrorCode {
    pub const NO_ERROR: ErrorCode = ErrorCode(0x0);
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(0x2);
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(0x3);
    pub const SETTINGS_TIMEOUT: ErrorCode = ErrorCode(0x4);
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(0x5);
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(0x6);
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(0x7);
    pub const CANCEL: ErrorCode = ErrorCode(0x8);
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(0x9);
    pub const CONNECT_ERROR: ErrorCode = ErrorCode(0xa);
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(0xb);
    pub const INADEQUATE_SECURITY: ErrorCode = ErrorCode(0xc);
    pub const HTTP_1_1_REQUIRED: ErrorCode = ErrorCode(0xd);
}

/// Why a connection ends. It is told to the peer in GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It does not begin with the preface and SETTINGS.
    #[error("not an HTTP/2 preface")]
    Preface,
    /// A frame is longer than we take, or not as long as its type is.
    #[error("frame of a wrong length")]
    FrameSize,
    /// A frame that may not come on this stream, or not now.
    #[error("frame out of place")]
    OutOfPlace,
    /// Padding that is longer than its frame.
    #[error("padding longer than its frame")]
    Padding,
    /// A stream id that is not the next of the peer's.
    #[error("stream id out of order")]
    StreamId,
    /// A frame on a stream that is over.
    #[error("frame on a closed stream")]
    StreamClosed,
    /// A setting out of its bounds.
    #[error("setting out of bounds")]
    Setting,
    /// More bytes than the window allows, or a window above 2^31 - 1.
    #[error("flow control violated")]
    FlowControl,
    /// The fields cannot be decompressed.
    #[error("malformed field block")]
    Compression,
    /// Fields that come in too many bytes or frames.
    #[error("field block too large")]
    BlockTooLarge,
    /// The peer has used up what it may do without purpose.
    #[error("too many frames without purpose")]
    Calm,
    /// SETTINGS did not come in time.
    #[error("no settings")]
    SettingsTimeout,
    /// A PING was not answered in time.
    #[error("ping not answered")]
    PingTimeout,
}

impl ConnectionError {
    /// What GOAWAY says.
    pub fn code(self) -> ErrorCode {
        match self {
            ConnectionError::Preface
            | ConnectionError::OutOfPlace
            | ConnectionError::Padding
            | ConnectionError::StreamId
            | ConnectionError::Setting => ErrorCode::PROTOCOL_ERROR,
            ConnectionError::FrameSize => ErrorCode::FRAME_SIZE_ERROR,
            ConnectionError::StreamClosed => ErrorCode::STREAM_CLOSED,
            ConnectionError::FlowControl => ErrorCode::FLOW_CONTROL_ERROR,
            ConnectionError::Compression => ErrorCode::COMPRESSION_ERROR,
            ConnectionError::BlockTooLarge | ConnectionError::Calm => ErrorCode::ENHANCE_YOUR_CALM,
            ConnectionError::SettingsTimeout => ErrorCode::SETTINGS_TIMEOUT,
            ConnectionError::PingTimeout => ErrorCode::NO_ERROR,
        }
    }
}

/// Why a head is refused: its stream ends, the connection goes on (RFC 9113 §8.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeadError {
    /// The fields are more than we take.
    #[error("too many or too long fields")]
    TooLarge,
    /// A name with a byte that may not be in one, or an upper-case letter.
    #[error("malformed field name")]
    Name,
    /// A value with a byte that may not be in one, or with spaces around it.
    #[error("malformed field value")]
    Value,
    /// A pseudo field that is missing, unknown, given twice, or behind a regular one.
    #[error("pseudo field missing or out of place")]
    Pseudo,
    /// A `host` that is not what `:authority` says (RFC 9113 §8.3.1).
    #[error("host differs from authority")]
    HostMismatch,
    /// A field that belongs to a connection (RFC 9113 §8.2.2).
    #[error("field that belongs to a connection")]
    ConnectionSpecific,
    /// Written as a head of HTTP/1.1 it is none.
    #[error("malformed head: {0}")]
    Head(#[from] crate::http1::parse::ParseError),
    /// A field that a trailer may not have.
    #[error("malformed trailer: {0}")]
    Trailer(#[from] crate::http1::body::BodyError),
    /// An end of the stream that contradicts `content-length`, or a trailer that does not end it.
    #[error("end out of place")]
    End,
}
