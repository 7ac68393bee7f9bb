//! gRPC on HTTP, as far as a proxy needs it: which requests are gRPC, how long they may take, and how an answer of our own
//! says what went wrong (gRPC's PROTOCOL-HTTP2, statuscodes and http-grpc-status-mapping).

use alloc::vec::Vec;
use core::time::Duration;

/// `content-type` of a request or response that is gRPC; also what follows of an answer of our own begins with.
pub const CONTENT_TYPE: &[u8] = b"application/grpc";

/// A status of gRPC, sent as a number in `grpc-status`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Status {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Status {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The number as `grpc-status` has it.
    pub fn text(self) -> &'static str {
        const TEXTS: [&str; 17] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
        TEXTS.get(usize::from(self.code())).copied().unwrap_or("2")
    }

    /// What a client makes of a response that is HTTP only, without a `grpc-status`.
    pub fn of_http(status: u16) -> Status {
        match status {
            400 => Status::Internal,
            401 => Status::Unauthenticated,
            403 => Status::PermissionDenied,
            404 => Status::Unimplemented,
            429 | 502 | 503 | 504 => Status::Unavailable,
            _ => Status::Unknown,
        }
    }

    /// What an answer of our own says that would have this status on HTTP. Where we know more than that table it says so:
    /// a timeout is not an upstream that is gone, which clients try again at once; what is too large would be so again;
    /// and what we got wrong is not unknown.
    pub fn of_own_answer(status: u16) -> Status {
        match status {
            408 | 504 => Status::DeadlineExceeded,
            413 | 431 => Status::ResourceExhausted,
            405 | 501 | 505 => Status::Unimplemented,
            500 | 508 => Status::Internal,
            _ => Status::of_http(status),
        }
    }
}

/// Whether a `content-type` is gRPC: alone, or with `+` and a format. What only begins so is another type, such as
/// `application/grpc-web`. Case counts, as it does for Envoy.
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.strip_prefix(CONTENT_TYPE).is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// What a `grpc-timeout` says: one to eight digits and a unit. `None` is not a timeout. Eight digits of hours are some
/// eleven thousand years, which is far below what a [`Duration`] can hold: nothing overflows.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count: u64, digit| count * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Appends `message` as `grpc-message` has it: what is not visible ASCII or a space, and `%`, as `%` and two digits.
pub fn push_message(message: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |of: u8| DIGITS.get(usize::from(of & 0xf)).copied().unwrap_or_default();
    for byte in message {
        match byte {
            b' '..=b'~' if *byte != b'%' => out.push(*byte),
            _ => out.extend_from_slice(&[b'%', digit(byte >> 4), digit(*byte)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_type_is_grpc_alone_or_with_a_format() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc+", true),
            ("application/grpc-web", false),
            ("application/grpc;charset=utf-8", false),
            ("application/grpcs", false),
            ("Application/gRPC", false),
            ("application/grp", false),
            ("text/html", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
        }
    }

    #[test]
    fn a_timeout_is_at_most_eight_digits_and_a_unit() {
        let nanoseconds = |value: &str| timeout(value.as_bytes()).map(|timeout| timeout.as_nanos());
        for (value, expected) in [
            ("1H", 3_600_000_000_000),
            ("1M", 60_000_000_000),
            ("1S", 1_000_000_000),
            ("1m", 1_000_000),
            ("1u", 1_000),
            ("1n", 1),
            ("0n", 0),
            ("00000007S", 7_000_000_000),
            ("99999999H", 359_999_996_400_000_000_000),
            ("99999999n", 99_999_999),
        ] {
            assert_eq!(nanoseconds(value), Some(expected), "{value}");
        }
        for value in
            ["", "S", "1", "1s", "1h", "1D", "-1S", "+1S", " 1S", "1S ", "1 S", "1.5S", "0x1S", "100000000n"]
        {
            assert_eq!(nanoseconds(value), None, "{value}");
        }
        // Digits of 2^64 and more, which once came round to a short timeout elsewhere.
        for value in ["18446744073709551616S", "99999999999999999999999999999999H"] {
            assert_eq!(nanoseconds(value), None, "{value}");
        }
    }

    #[test]
    fn an_http_status_becomes_a_grpc_status() {
        use Status::*;
        // Status; what a client makes of a foreign answer; what an answer of our own says.
        for (status, foreign, own) in [
            (200, Unknown, Unknown),
            (307, Unknown, Unknown),
            (400, Internal, Internal),
            (401, Unauthenticated, Unauthenticated),
            (403, PermissionDenied, PermissionDenied),
            (404, Unimplemented, Unimplemented),
            (405, Unknown, Unimplemented),
            (408, Unknown, DeadlineExceeded),
            (413, Unknown, ResourceExhausted),
            (429, Unavailable, Unavailable),
            (431, Unknown, ResourceExhausted),
            (500, Unknown, Internal),
            (501, Unknown, Unimplemented),
            (502, Unavailable, Unavailable),
            (503, Unavailable, Unavailable),
            (504, Unavailable, DeadlineExceeded),
            (505, Unknown, Unimplemented),
            (508, Unknown, Internal),
            (599, Unknown, Unknown),
        ] {
            assert_eq!((Status::of_http(status), Status::of_own_answer(status)), (foreign, own), "{status}");
        }
    }

    #[test]
    fn a_status_is_written_as_its_number() {
        use Status::*;
        let all = [
            Ok,
            Cancelled,
            Unknown,
            InvalidArgument,
            DeadlineExceeded,
            NotFound,
            AlreadyExists,
            PermissionDenied,
            ResourceExhausted,
            FailedPrecondition,
            Aborted,
            OutOfRange,
            Unimplemented,
            Internal,
            Unavailable,
            DataLoss,
            Unauthenticated,
        ];
        for (code, status) in (0..).zip(all) {
            assert_eq!((status.code(), status.text()), (code, &*code.to_string()));
        }
    }

    #[test]
    fn a_message_is_visible_ascii_and_percent_signs() {
        for (message, expected) in [
            ("", ""),
            ("no healthy endpoint", "no healthy endpoint"),
            ("100%", "100%25"),
            ("~\u{7f}", "~%7F"),
            ("a\r\nb\0", "a%0D%0Ab%00"),
            ("ä", "%C3%A4"),
        ] {
            let mut out = b"<".to_vec();
            push_message(message.as_bytes(), &mut out);
            assert_eq!(
                std::str::from_utf8(&out),
                core::result::Result::Ok(&*(std::string::String::from("<") + expected))
            );
        }
        let mut out = Vec::new();
        push_message(b"\xff", &mut out);
        assert_eq!(out, b"%FF");
    }
}
