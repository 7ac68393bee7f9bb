//! Fields to header blocks (RFC 7541 §6).

use alloc::vec::Vec;

use super::TABLE_BYTES_MAX;

/// Whether a field may stand in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Indexing {
    /// It may.
    Allowed,
    /// It must not, here and at every hop behind (RFC 7541 §6.2.3, §7.1.3): secrets that could be guessed.
    Never,
}

/// Encodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    table_bytes_max: u32,
}

impl Encoder {
    /// `table_bytes_max` is the most we are willing to keep, at most [`TABLE_BYTES_MAX`].
    pub fn new(table_bytes_max: u32) -> Encoder {
        Encoder { table_bytes_max: table_bytes_max.min(TABLE_BYTES_MAX) }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. What follows from it goes out at the start of the next block.
    pub fn set_peer_table_size(&mut self, bytes: u32) {
        let _ = bytes;
    }

    /// Starts a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        let _ = (self.table_bytes_max, out);
    }

    /// Writes one field, a pseudo-header field as well; pseudo-header fields must come first. `name` may have large
    /// letters, which go out small. `hash` is that of [`Judged`](crate::http2::field::Judged), 0 when it is not known.
    pub fn field(&mut self, name: &[u8], value: &[u8], hash: u32, indexing: Indexing, out: &mut Vec<u8>) {
        let _ = (name, value, hash, indexing, out);
    }

    /// Writes `:method`.
    pub fn method(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":method", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:scheme`.
    pub fn scheme(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":scheme", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:authority`.
    pub fn authority(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":authority", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:path`.
    pub fn path(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":path", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:protocol` (RFC 8441).
    pub fn protocol(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":protocol", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:status`, which has three digits.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        self.field(b":status", &digits, 0, Indexing::Allowed, out);
    }
}
