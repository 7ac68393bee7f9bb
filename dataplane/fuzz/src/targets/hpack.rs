//! Field blocks: ours decodes what the reference decodes, block after block; and what our encoder makes of the fields, both
//! decode to the same again.

use wire::http2::{
    field::judge,
    hpack::{Decoder, Encoder, Indexing},
};

use crate::reference::hpack::{self, Field};

/// Blocks, and parts of them. The first byte is how long a block is.
pub const WORDS: &[&str] = &[
    "\u{4}\u{82}\u{86}\u{84}\u{be}",
    "\u{7}\u{82}\u{86}\u{84}\u{41}\u{01}a\u{be}",
    "\u{40}\u{1}a\u{1}b",
    "\u{40}\u{3}x-a\u{3}abc",
    "\u{10}\u{1}k\u{1}v",
    "\u{0}\u{1}a\u{0}",
    "\u{41}\u{8c}\u{f1}\u{e3}\u{c2}\u{e5}\u{f2}\u{3a}\u{6b}\u{a0}\u{ab}\u{90}\u{f4}\u{ff}",
    "\u{81}\u{ff}",
    "\u{82}\u{ff}\u{ff}",
    "\u{84}\u{ff}\u{ff}\u{ff}\u{fc}",
    "\u{20}",
    "\u{3f}\u{e1}\u{1f}",
    "\u{3f}\u{21}",
    "\u{20}\u{3f}\u{e1}\u{1f}",
    "\u{7f}\u{80}\u{1}",
    "\u{7f}\u{0}",
    "\u{ff}\u{0}",
    "\u{ff}\u{80}\u{80}\u{80}\u{80}\u{f}",
    "\u{bf}",
    "\u{c0}",
    "\u{80}",
    "cookie",
    ":path",
    "X-Large",
];

/// The largest table that a block may ask for; our decoder never takes less.
const TABLE_BYTES: u32 = 4096;

/// Judges blocks, each behind the byte that is its length. The first byte of all says how much may be decoded.
pub fn run(bytes: &[u8]) {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let bytes_max = if first % 2 == 0 { usize::MAX } else { usize::from(*first) * 4 };
    let (mut ours, mut theirs) = (Decoder::new(TABLE_BYTES), hpack::Decoder::new(TABLE_BYTES as usize));
    let mut again = Again::new(u32::from(*first) * 32);
    while let Some((length, behind)) = rest.split_first() {
        let (block, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let mut fields: Vec<Field> = Vec::new();
        let decoded = ours.decode(block, bytes_max, &mut |field| {
            assert_eq!(field.line(), [field.name(), b": ", field.value(), b"\r\n"].concat());
            assert_eq!(field.judged, judge(field.name(), field.value()));
            fields.push((field.name().to_vec(), field.value().to_vec(), field.is_sensitive));
        });
        let expected = theirs.decode(block);
        let shown = block.escape_ascii();
        let (Ok(decoded), Some(expected)) = (decoded, &expected) else {
            assert_eq!((decoded.is_ok(), expected.is_some()), (false, false), "{decoded:?} of {shown}");
            return;
        };
        let size = |(name, value, _): &Field| name.len() + value.len() + 32;
        assert_eq!(decoded.size, expected.iter().map(size).sum::<usize>(), "of {shown}");
        assert_eq!(decoded.is_too_large, decoded.size > bytes_max, "of {shown}");
        let mut sum = 0;
        let fits = |field: &&Field| {
            sum += size(field);
            sum <= bytes_max
        };
        let wanted: Vec<Field> = expected.iter().take_while(fits).cloned().collect();
        assert_eq!(fields, wanted, "of {shown}");
        again.send(expected, *length);
    }
}

/// The same fields, sent by our encoder.
struct Again {
    encoder: Encoder,
    ours: Decoder,
    theirs: hpack::Decoder,
}

impl Again {
    fn new(table_bytes: u32) -> Again {
        Again {
            encoder: Encoder::new(table_bytes),
            ours: Decoder::new(16 * 1024),
            theirs: hpack::Decoder::new(16 * 1024),
        }
    }

    fn send(&mut self, fields: &[Field], size: u8) {
        if size.is_multiple_of(4) {
            self.encoder.set_peer_table_size(u32::from(size) * 16);
        }
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        for (name, value, is_sensitive) in fields {
            let indexing = if *is_sensitive { Indexing::Never } else { Indexing::Allowed };
            self.encoder.field(name, value, 0, indexing, &mut block);
        }
        let sent: Vec<Field> = fields
            .iter()
            .map(|(name, value, is_sensitive)| (name.to_ascii_lowercase(), value.clone(), *is_sensitive))
            .collect();
        assert_eq!(self.theirs.decode(&block).as_ref(), Some(&sent), "{}", block.escape_ascii());
        let mut decoded: Vec<Field> = Vec::new();
        let taken = self.ours.decode(&block, usize::MAX, &mut |field| {
            decoded.push((field.name().to_vec(), field.value().to_vec(), field.is_sensitive));
        });
        assert!(taken.is_ok(), "{taken:?} of {}", block.escape_ascii());
        assert_eq!(decoded, sent, "{}", block.escape_ascii());
    }
}
