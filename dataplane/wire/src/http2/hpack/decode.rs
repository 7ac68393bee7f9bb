//! Header blocks to fields (RFC 7541 §3, §6).

use alloc::vec::Vec;

use super::table::{Draft, ENTRY_OVERHEAD_BYTES, LINE_OVERHEAD_BYTES, Line, Table};
use super::{STARTING_TABLE_BYTES, TABLE_BYTES_MAX, huffman, static_table};
use crate::http2::field::{Judged, Kind, judge_name, judge_value};

/// Table size updates that one block may begin with: the smallest size since the block before, and the last (§4.2).
const SIZE_UPDATES_MAX: u32 = 2;
/// Bytes after the prefix of an integer: 32 bits need five.
const INTEGER_BYTES_MAX: usize = 5;
/// Bytes of names that one byte of a block may make us copy, the caller's bound apart. Only blocks over that bound can come
/// near, and only those that are made of empty fields with the longest names: 16,000 of 4 KiB in 32 KiB.
const COPIED_PER_BYTE_MAX: usize = 32;

/// Why a header block cannot be decoded. The connection is over: the tables of both sides differ from now on
/// (RFC 9113 §4.3: COMPRESSION_ERROR).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// An index is 0 or names no entry (§2.3.3).
    #[error("index out of table")]
    Index,
    /// An integer exceeds 32 bits, or has more than five bytes after its prefix (§5.1).
    #[error("integer overflow")]
    Integer,
    /// The block ends inside a field.
    #[error("header block truncated")]
    Truncated,
    /// The padding of a Huffman string is longer than 7 bits, not all ones, or EOS stands in the text (§5.2).
    #[error("malformed huffman string")]
    Huffman,
    /// A table size update above the size that we announced (§6.3).
    #[error("table size update above the maximum")]
    SizeUpdateTooLarge,
    /// A table size update behind a field (§4.2).
    #[error("table size update behind a field")]
    SizeUpdateLate,
    /// More than two table size updates in one block: more than §4.2 has a use for.
    #[error("more than two table size updates")]
    SizeUpdates,
    /// A few bytes make the table copy long names again and again, past the caller's bound.
    #[error("header block expands too much")]
    Expansion,
}

/// One decoded field; lives during the call.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    line: Line<'a>,
    /// What is known of it.
    pub judged: Judged,
    /// It came as one that is never to be indexed, and must go on so (§6.2.3).
    pub is_sensitive: bool,
}

impl<'a> Field<'a> {
    fn new(line: Line<'a>, is_sensitive: bool) -> Field<'a> {
        Field { line, judged: line.judged, is_sensitive }
    }

    /// The name.
    pub fn name(&self) -> &'a [u8] {
        self.line.name()
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        self.line.value()
    }

    /// `name: value\r\n`: a line of HTTP/1.1 when `judged` has name and value as good and the name has no colon.
    pub fn line(&self) -> &'a [u8] {
        self.line.line
    }
}

/// What a whole block held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decoded {
    /// Size of all fields: name, value and 32 bytes each (RFC 9113 §6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE).
    pub size: usize,
    /// `size` exceeds the bound: not all fields were handed out.
    pub is_too_large: bool,
}

/// Decodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
}

impl Decoder {
    /// `table_bytes_max` is our SETTINGS_HEADER_TABLE_SIZE, at most [`TABLE_BYTES_MAX`]; it never changes. It is at least
    /// [`STARTING_TABLE_BYTES`], which a peer may use before it has seen our settings.
    pub fn new(table_bytes_max: u32) -> Decoder {
        let limit = table_bytes_max.clamp(STARTING_TABLE_BYTES, TABLE_BYTES_MAX);
        Decoder { table: Table::new(STARTING_TABLE_BYTES, limit) }
    }

    /// What to announce as SETTINGS_HEADER_TABLE_SIZE.
    pub fn table_bytes_max(&self) -> u32 {
        u32::try_from(self.table.limit()).unwrap_or(u32::MAX)
    }

    /// Decodes a whole header block, all its fragments joined, and gives each field to `take`, in order, until
    /// `decoded_bytes_max` is exceeded; the fields behind are decoded for the table's sake only. After an error the
    /// connection is over.
    pub fn decode(
        &mut self,
        block: &[u8],
        decoded_bytes_max: usize,
        take: &mut impl FnMut(&Field<'_>),
    ) -> Result<Decoded, DecodeError> {
        let copied_bytes_max =
            block.len().saturating_mul(COPIED_PER_BYTE_MAX).saturating_add(decoded_bytes_max);
        let mut count = Count { size: 0, decoded_bytes_max, copied: 0, copied_bytes_max };
        let mut rest = self.size_updates(block)?;
        while let Some(first) = rest.first() {
            match first {
                0x80.. => self.indexed(&mut rest, &mut count, take)?,
                0x40.. => self.literal(&mut rest, Literal::Indexed, &mut count, take)?,
                0x20.. => return Err(DecodeError::SizeUpdateLate),
                0x10.. => self.literal(&mut rest, Literal::Sensitive, &mut count, take)?,
                _ => self.literal(&mut rest, Literal::Plain, &mut count, take)?,
            }
        }
        self.table.trim();
        Ok(Decoded { size: count.size, is_too_large: count.is_over() })
    }

    /// The table size updates that `block` begins with (§6.3); gives what is behind them.
    fn size_updates<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], DecodeError> {
        let mut rest = block;
        let mut updates = 0;
        while let Some(0x20..=0x3f) = rest.first() {
            updates += 1;
            if updates > SIZE_UPDATES_MAX {
                return Err(DecodeError::SizeUpdates);
            }
            let size_max = integer(&mut rest, 5)?;
            if size_max > self.table.limit() {
                return Err(DecodeError::SizeUpdateTooLarge);
            }
            self.table.set_size_max(size_max);
        }
        Ok(rest)
    }

    /// A field that stands in a table (§6.1). When it is over the bound, nothing of it is touched but its length.
    fn indexed(
        &mut self,
        rest: &mut &[u8],
        count: &mut Count,
        take: &mut impl FnMut(&Field<'_>),
    ) -> Result<(), DecodeError> {
        let line = match place(integer(rest, 7)?).ok_or(DecodeError::Index)? {
            Place::Static(line) => line,
            Place::Dynamic(age) => self.table.get(age).ok_or(DecodeError::Index)?,
        };
        count.add(line.text_bytes());
        if !count.is_over() {
            take(&Field::new(line, false));
        }
        Ok(())
    }

    /// A field that is spelled out, its name maybe by an index (§6.2).
    fn literal(
        &mut self,
        rest: &mut &[u8],
        form: Literal,
        count: &mut Count,
        take: &mut impl FnMut(&Field<'_>),
    ) -> Result<(), DecodeError> {
        let name = match integer(rest, if form == Literal::Indexed { 6 } else { 4 })? {
            0 => Name::Spelled(text(rest)?),
            index => Name::Placed(place(index).ok_or(DecodeError::Index)?),
        };
        let value = text(rest)?;
        let name_bytes_max = match &name {
            Name::Spelled(text) => text.bytes_max(),
            Name::Placed(Place::Static(line)) => line.name_len,
            Name::Placed(Place::Dynamic(age)) => self.table.get(*age).ok_or(DecodeError::Index)?.name_len,
        };
        let is_wanted = form == Literal::Indexed || !count.is_over();
        let draft = self.table.begin(name_bytes_max + value.bytes_max() + LINE_OVERHEAD_BYTES);
        if !is_wanted && matches!(name, Name::Placed(_)) {
            // Many of these could name a long one. The value is as long as what it was spelled with.
            value.draft(self.table.draft(&draft))?;
            count.add(name_bytes_max + self.table.drafted(&draft).len());
            self.table.discard(draft);
            return Ok(());
        }
        let (name_len, judged_name) = self.name(&draft, &name, count)?;
        let out = self.table.draft(&draft);
        out.extend_from_slice(b": ");
        value.draft(out)?;
        out.extend_from_slice(b"\r\n");
        let mut line = Line { line: self.table.drafted(&draft), name_len, judged: UNKNOWN };
        count.add(line.text_bytes());
        if is_wanted {
            line.judged = judge_value(judged_name, line.name(), line.value());
        }
        let judged = line.judged;
        if !count.is_over() {
            take(&Field::new(line, form == Literal::Sensitive));
        }
        match form {
            Literal::Indexed => self.table.insert(draft, name_len, judged),
            Literal::Plain | Literal::Sensitive => self.table.discard(draft),
        }
        Ok(())
    }

    /// Drafts the name of a literal. Gives its length, what it is, and whether it may be one.
    fn name(
        &mut self,
        draft: &Draft,
        name: &Name<'_>,
        count: &mut Count,
    ) -> Result<(usize, (Kind, bool)), DecodeError> {
        let (name_len, judged) = match name {
            Name::Spelled(text) => {
                text.draft(self.table.draft(draft))?;
                let name = self.table.drafted(draft);
                return Ok((name.len(), judge_name(name)));
            }
            Name::Placed(Place::Static(line)) => {
                self.table.draft(draft).extend_from_slice(line.name());
                (line.name_len, line.judged)
            }
            Name::Placed(Place::Dynamic(age)) => {
                self.table.draft_name_of(draft, *age).ok_or(DecodeError::Index)?
            }
        };
        count.copied += name_len;
        if count.copied > count.copied_bytes_max {
            return Err(DecodeError::Expansion);
        }
        Ok((name_len, (judged.kind, judged.name_ok)))
    }
}

/// What nobody will ask about.
const UNKNOWN: Judged = Judged { kind: Kind::UnknownPseudo, name_ok: false, value_ok: false, hash: 1 };

/// What one block has come to so far.
struct Count {
    size: usize,
    decoded_bytes_max: usize,
    copied: usize,
    copied_bytes_max: usize,
}

impl Count {
    /// Adds a field by the length of its name and its value.
    fn add(&mut self, text_bytes: usize) {
        self.size = self.size.saturating_add(text_bytes + ENTRY_OVERHEAD_BYTES);
    }

    fn is_over(&self) -> bool {
        self.size > self.decoded_bytes_max
    }
}

/// The forms of a literal (§6.2.1 to §6.2.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Literal {
    Indexed,
    Plain,
    Sensitive,
}

enum Name<'a> {
    Spelled(Text<'a>),
    Placed(Place),
}

/// What an index names (§2.3.3).
enum Place {
    Static(Line<'static>),
    /// How many younger entries there are.
    Dynamic(usize),
}

/// What `index` names; `None` for 0.
fn place(index: usize) -> Option<Place> {
    match index.checked_sub(static_table::STATIC_COUNT + 1) {
        Some(age) => Some(Place::Dynamic(age)),
        None => static_table::get(index).map(Place::Static),
    }
}

/// A string as it came (§5.2).
struct Text<'a> {
    coded: &'a [u8],
    is_huffman: bool,
}

impl Text<'_> {
    fn bytes_max(&self) -> usize {
        if self.is_huffman { huffman::text_bytes_max(self.coded.len()) } else { self.coded.len() }
    }

    fn draft(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.is_huffman {
            return huffman::decode(self.coded, out).map_err(|huffman::Malformed| DecodeError::Huffman);
        }
        out.extend_from_slice(self.coded);
        Ok(())
    }
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<Text<'a>, DecodeError> {
    let is_huffman = rest.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (coded, behind) = rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *rest = behind;
    Ok(Text { coded, is_huffman })
}

/// An integer whose first `prefix_bits` stand in the lowest bits of the first byte (§5.1).
pub(super) fn integer(rest: &mut &[u8], prefix_bits: u32) -> Result<usize, DecodeError> {
    let (first, behind) = rest.split_first().ok_or(DecodeError::Truncated)?;
    *rest = behind;
    let prefix_max = u8::MAX >> (8 - prefix_bits);
    let prefix = first & prefix_max;
    if prefix < prefix_max {
        return Ok(usize::from(prefix));
    }
    let mut value = u64::from(prefix_max);
    for place in 0..INTEGER_BYTES_MAX {
        let (byte, behind) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = behind;
        value += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| DecodeError::Integer)?;
            return Ok(value as usize);
        }
    }
    Err(DecodeError::Integer)
}

#[cfg(test)]
impl Decoder {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }
}
