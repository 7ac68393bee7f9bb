//! HPACK (RFC 7541), both ways, without I/O.
//!
//! - A decoded head is kept as the HTTP/1.1 head that says the same. So a field is handed out as a line, `name: value\r\n`,
//!   and the tables keep their entries so: an indexed field is one run of bytes to copy, and what was found out about it
//!   ([`Judged`](super::field::Judged)) is found out once.
//! - Blocks are hostile. A few bytes may stand for megabytes (an index is one byte, its entry 4 KiB): what is decoded has
//!   the caller's bound, and the time it takes is linear in the bytes of the block, be they over that bound or not.
//! - [`Encoder`] puts a field into its table when it comes for the second time. Values that never come again (ids of
//!   requests, times, traces) then never push out those that do, and no list of names is needed to tell them.
//! - It spells strings plainly, without the Huffman code: what repeats becomes an index anyway, and the quarter that is saved
//!   of the rest costs both sides more time than it saves on the way.
//! - Nothing allocates once a connection has seen its largest fields; a table without entries holds no memory.

mod decode;
mod encode;
mod huffman;
mod static_table;
mod table;
#[cfg(test)]
pub(super) mod tests;

pub use decode::{DecodeError, Decoded, Decoder, Field};
pub use encode::{Encoder, Indexing};

/// Largest dynamic table, in bytes as RFC 7541 §4.1 counts them. Both sides use less if told to use more.
pub const TABLE_BYTES_MAX: u32 = 1024 * 1024;
/// The size of the dynamic tables before any settings are known (RFC 9113 §6.5.2).
pub const STARTING_TABLE_BYTES: u32 = 4096;
