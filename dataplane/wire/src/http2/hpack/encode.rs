//! Fields to header blocks (RFC 7541 §6).

use alloc::vec::Vec;

use super::static_table::Entries;
use super::table::{ENTRY_OVERHEAD_BYTES, LINE_OVERHEAD_BYTES, Table};
use super::{STARTING_TABLE_BYTES, TABLE_BYTES_MAX, static_table};
use crate::head::Known;
use crate::http2::field::{Judged, Kind, hash as hash_field, hash_name};

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
    table: Table,
    index: Index,
    seen: Seen,
    table_bytes_max: usize,
    /// The size the peer wants, as far as we are willing.
    wanted: usize,
    /// The smallest that was wanted since the block before.
    smallest: usize,
}

impl Encoder {
    /// `table_bytes_max` is the most we are willing to keep, at most [`TABLE_BYTES_MAX`].
    pub fn new(table_bytes_max: u32) -> Encoder {
        let limit = table_bytes_max.min(TABLE_BYTES_MAX);
        let wanted = limit.min(STARTING_TABLE_BYTES) as usize;
        // The peer's table has the starting size until we say otherwise.
        let table = Table::new(STARTING_TABLE_BYTES, limit);
        Encoder {
            table,
            index: Index::default(),
            seen: Seen::default(),
            wanted,
            smallest: wanted,
            table_bytes_max: limit as usize,
        }
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE. What follows from it goes out at the start of the next block.
    pub fn set_peer_table_size(&mut self, bytes: u32) {
        self.wanted = self.table_bytes_max.min(bytes as usize);
        self.smallest = self.smallest.min(self.wanted);
    }

    /// Starts a block: tells the peer how large the table is, when that has changed (RFC 7541 §4.2).
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        for size_max in [self.smallest, self.wanted] {
            if size_max != self.table.size_max() {
                self.table.set_size_max(size_max);
                write_integer(SIZE_UPDATE, size_max, out);
            }
        }
        self.smallest = self.wanted;
    }

    /// Writes one field, a pseudo-header field as well. `name` may have large letters, which go out small. `hash` is that
    /// of [`Judged`], 0 when it is not known. Nothing is checked: who gives them made sure that name and value may
    /// stand in a head.
    pub fn field(&mut self, name: &[u8], value: &[u8], hash: u32, indexing: Indexing, out: &mut Vec<u8>) {
        debug_assert!(hash == 0 || hash == hash_field(name, value), "the hash of another field");
        let hash = if hash == 0 { hash_field(name, value) } else { hash };
        let is_allowed = indexing == Indexing::Allowed;
        if is_allowed && let Some(index) = self.find(hash, name, value) {
            return write_integer(INDEXED, index, out);
        }
        let name_hash = hash_name(name);
        let named = static_table::find_name(name, name_hash);
        if is_allowed {
            let found = named.and_then(|first| static_table::find_value(first, value));
            if let Some(index) = found {
                return write_integer(INDEXED, index, out);
            }
        }
        let named = named.or_else(|| self.find_name(name_hash, name));
        let is_kept = is_allowed && self.seen.note(hash) && self.is_worth_keeping(name, value);
        let form = match indexing {
            Indexing::Never => LITERAL_NEVER,
            Indexing::Allowed if is_kept => LITERAL_INDEXED,
            Indexing::Allowed => LITERAL,
        };
        write_integer(form, named.unwrap_or(0), out);
        if named.is_none() {
            write_text(name, out);
            make_lowercase(out, name.len());
        }
        write_text(value, out);
        if is_kept {
            self.insert(name, value, hash, name_hash);
        }
    }

    /// Writes `:method`.
    pub fn method(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.pseudo(b":method", static_table::METHOD, value, out);
    }

    /// Writes `:scheme`.
    pub fn scheme(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.pseudo(b":scheme", static_table::SCHEME, value, out);
    }

    /// Writes `:authority`.
    pub fn authority(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.pseudo(b":authority", static_table::AUTHORITY, value, out);
    }

    /// Writes `:path`.
    pub fn path(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.pseudo(b":path", static_table::PATH, value, out);
    }

    /// Writes `:protocol` (RFC 8441).
    pub fn protocol(&mut self, value: &[u8], out: &mut Vec<u8>) {
        self.field(b":protocol", value, 0, Indexing::Allowed, out);
    }

    /// Writes `:status`, which has three digits.
    pub fn status(&mut self, status: u16, out: &mut Vec<u8>) {
        let digits = [status / 100 % 10, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
        self.pseudo(b":status", static_table::STATUS, &digits, out);
    }

    /// Writes a field whose name these entries of the static table have, where its value is often found, too; before that
    /// nothing of it is looked at.
    fn pseudo(&mut self, name: &[u8], entries: Entries, value: &[u8], out: &mut Vec<u8>) {
        if let Some(index) = static_table::find_value_among(entries, value) {
            return write_integer(INDEXED, index, out);
        }
        let hash = hash_field(name, value);
        if let Some(index) = self.find(hash, name, value) {
            return write_integer(INDEXED, index, out);
        }
        let is_kept = self.seen.note(hash) && self.is_worth_keeping(name, value);
        write_integer(if is_kept { LITERAL_INDEXED } else { LITERAL }, entries.0, out);
        write_text(value, out);
        if is_kept {
            self.insert(name, value, hash, hash_name(name));
        }
    }

    /// The index of the entry of our table that is this field.
    fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        let mut age = self.index.youngest(hash)?;
        loop {
            let line = self.table.get(age)?;
            // The name last: its letters' case is mostly the same, but may differ.
            if line.judged.hash == hash && line.value() == value && is_same_name(line.name(), name) {
                return Some(static_table::STATIC_COUNT + 1 + age);
            }
            age = self.index.older(age)?;
        }
    }

    /// The index of an entry of our table that has this name. May be missed: it costs the letters of the name.
    fn find_name(&self, name_hash: u32, name: &[u8]) -> Option<usize> {
        let age = self.index.youngest_of_name(name_hash)?;
        let line = self.table.get(age)?;
        is_same_name(line.name(), name).then_some(static_table::STATIC_COUNT + 1 + age)
    }

    /// An entry that fills the table would push out all others.
    fn is_worth_keeping(&self, name: &[u8], value: &[u8]) -> bool {
        name.len() + value.len() + ENTRY_OVERHEAD_BYTES <= self.table.size_max() / 4 * 3
    }

    fn insert(&mut self, name: &[u8], value: &[u8], hash: u32, name_hash: u32) {
        let draft = self.table.begin(name.len() + value.len() + LINE_OVERHEAD_BYTES);
        let out = self.table.draft(&draft);
        out.extend_from_slice(name);
        make_lowercase(out, name.len());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        self.table.insert(draft, name.len(), Judged { hash, ..FINE });
        self.index.insert(hash, name_hash, self.table.limit() / ENTRY_OVERHEAD_BYTES);
    }
}

/// Nobody asks an entry of this side more than its hash.
const FINE: Judged = Judged { kind: Kind::Regular(Known::Other), name_ok: true, value_ok: true, hash: 1 };

fn is_same_name(entry: &[u8], name: &[u8]) -> bool {
    entry == name || entry.eq_ignore_ascii_case(name)
}

/// The bits before an integer, and how many bits of the integer fit beside them (RFC 7541 §6).
type Form = (u8, u32);
const INDEXED: Form = (0x80, 7);
const LITERAL_INDEXED: Form = (0x40, 6);
const SIZE_UPDATE: Form = (0x20, 5);
const LITERAL_NEVER: Form = (0x10, 4);
const LITERAL: Form = (0, 4);
/// The length of a string without Huffman code.
const LENGTH: Form = (0, 7);

#[inline]
fn write_integer((bits, prefix_bits): Form, value: usize, out: &mut Vec<u8>) {
    let prefix_max = (1 << prefix_bits) - 1;
    if value < prefix_max {
        return out.push(bits | value as u8);
    }
    out.push(bits | prefix_max as u8);
    let mut rest = value - prefix_max;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    write_integer(LENGTH, text.len(), out);
    out.extend_from_slice(text);
}

/// Makes the letters of the last `count` bytes small.
fn make_lowercase(out: &mut [u8], count: usize) {
    let start = out.len().saturating_sub(count);
    out.get_mut(start..).unwrap_or_default().make_ascii_lowercase();
}

/// Finds entries of the table by hashes. Entries are numbered as they are inserted; a number that is too old for the table
/// is of an entry that is gone, so nothing is ever taken out here. Two entries in one place do not push out each other (they
/// would be inserted again and again): each knows the one that its place had before.
#[derive(Debug, Default)]
struct Index {
    /// None before the first entry; then a power of two, and as many as the table may have entries.
    slots: Vec<Slot>,
    /// Entries that were ever inserted; wraps. That a number then means another entry is no matter: entries are compared.
    inserted: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The youngest entry whose hash leads here.
    by_field: u32,
    /// The youngest entry whose name's hash leads here.
    by_name: u32,
    /// What `by_field` of its place was before the entry whose number leads here.
    older: u32,
}

impl Index {
    /// The age of the youngest entry that may have `hash`.
    fn youngest(&self, hash: u32) -> Option<usize> {
        Some(self.age(self.slot(hash)?.by_field))
    }

    /// The age of the youngest entry that may have a name with `name_hash`.
    fn youngest_of_name(&self, name_hash: u32) -> Option<usize> {
        Some(self.age(self.slot(name_hash)?.by_name))
    }

    /// The age of the next older entry in the same place as that of `age`.
    fn older(&self, age: usize) -> Option<usize> {
        let number = self.inserted.wrapping_sub(1).wrapping_sub(age as u32);
        let older = self.age(self.slot(number)?.older);
        (older > age).then_some(older)
    }

    /// Takes note of a new entry of a table that has up to `entries_max`.
    fn insert(&mut self, hash: u32, name_hash: u32, entries_max: usize) {
        if self.slots.is_empty() {
            self.slots.resize(entries_max.next_power_of_two(), Slot::default());
        }
        let number = self.inserted;
        self.inserted = number.wrapping_add(1);
        let older = self.slot_mut(hash).map(|slot| core::mem::replace(&mut slot.by_field, number));
        if let Some(slot) = self.slot_mut(number) {
            slot.older = older.unwrap_or(number);
        }
        if let Some(slot) = self.slot_mut(name_hash) {
            slot.by_name = number;
        }
    }

    fn age(&self, number: u32) -> usize {
        self.inserted.wrapping_sub(1).wrapping_sub(number) as usize
    }

    fn slot(&self, at: u32) -> Option<&Slot> {
        self.slots.get(at as usize & self.slots.len().wrapping_sub(1))
    }

    fn slot_mut(&mut self, at: u32) -> Option<&mut Slot> {
        let mask = self.slots.len().wrapping_sub(1);
        self.slots.get_mut(at as usize & mask)
    }
}

/// Hashes of fields that went out lately without an index: 32 places for four each, about the last hundred. Which of the
/// four a new one takes the room of looks random: otherwise five that share a place and come in turn would push out each
/// other for ever.
#[derive(Debug, Default)]
struct Seen {
    places: [[u32; 4]; 32],
    turn: u32,
}

impl Seen {
    /// Takes note of a field; tells whether it was there before.
    fn note(&mut self, hash: u32) -> bool {
        let place = &mut self.places[hash as usize % 32];
        if place.contains(&hash) {
            return true;
        }
        // The low bits of such a sequence repeat soon, the high ones do not.
        self.turn = self.turn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let any = (self.turn >> 30) as usize;
        let free = place.iter().position(|seen| *seen == 0);
        if let Some(seen) = place.get_mut(free.unwrap_or(any)) {
            *seen = hash;
        }
        false
    }
}

#[cfg(test)]
impl Encoder {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn index_slots(&self) -> usize {
        self.index.slots.capacity()
    }
}
