//! HPACK (RFC 7541), both ways.
//!
//! A decoded head is kept as the HTTP/1.1 head that says the same. So a field is handed out as a line, `name: value\r\n`,
//! and the tables keep their entries so: an indexed field is one run of bytes to copy, and what was found out about it
//! ([`Judged`](super::field::Judged)) is found out once.

mod decode;
mod encode;

pub use decode::{DecodeError, Decoded, Decoder, Field};
pub use encode::{Encoder, Indexing};

/// Largest dynamic table, in bytes as RFC 7541 §4.1 counts them. Both sides use less if told to use more.
pub const TABLE_BYTES_MAX: u32 = 1024 * 1024;
