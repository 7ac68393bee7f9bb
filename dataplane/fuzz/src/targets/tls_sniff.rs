//! The ClientHello of a connection: told the same at every length, and in whatever records it comes.

use wire::tls_sniff::{HELLO_BYTES_MAX, SERVER_NAME_BYTES_MAX, Sniff, client_hello};

/// Words of such a message.
pub const WORDS: &[&str] = &[
    "\u{16}\u{3}\u{1}",
    "\u{1}\u{0}",
    "\u{3}\u{3}",
    "\u{0}\u{2}\u{13}\u{1}",
    "\u{1}\u{0}",
    "\u{0}\u{0}\u{0}",
    "\u{0}\u{10}\u{0}",
    "a.b",
    "h2",
    "http/1.1",
    "127.0.0.1",
    "\u{0}",
    "\u{ff}",
    "A.B",
    "a.b.",
];

const RECORD_HEAD_BYTES: usize = 5;

/// Judges the first bytes of a connection.
pub fn run(bytes: &[u8]) {
    let shown = bytes.escape_ascii();
    let whole = client_hello(bytes);
    for cut in 0..bytes.len().min(2 * HELLO_BYTES_MAX) {
        let part = client_hello(&bytes[..cut]);
        assert!(part == Sniff::Partial || part == whole, "{part:?} at {cut} and {whole:?}: {shown}");
    }
    let Sniff::Hello(hello) = &whole else { return };
    if let Some(name) = &hello.server_name {
        let is_good = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
        assert!(!name.is_empty() && name.len() <= SERVER_NAME_BYTES_MAX, "{name:?}: {shown}");
        assert!(name.bytes().all(is_good), "{name:?}: {shown}");
    }
    assert!(hello.protocols().all(|protocol| !protocol.is_empty()), "{shown}");
    // The first record holds the whole message in nearly all of them: in other records it says the same.
    let record_bytes = usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
    let Some(message) = bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + record_bytes) else { return };
    if client_hello(&bytes[..RECORD_HEAD_BYTES + record_bytes]) != whole {
        return;
    }
    for piece_bytes in [1, 3, 50] {
        let record = |piece: &[u8]| [&[22, 3, 1, 0, piece.len() as u8], piece].concat();
        let records: Vec<u8> = message.chunks(piece_bytes).flat_map(record).collect();
        assert_eq!(client_hello(&records), whole, "in records of {piece_bytes}: {shown}");
    }
}
