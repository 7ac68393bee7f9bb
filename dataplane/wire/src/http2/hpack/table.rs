//! The dynamic table (RFC 7541 §2.3.2, §4), for both directions.
//!
//! Entries lie behind each other in one run of memory, oldest first, each as the line it is handed out as. A new one is
//! written behind the last and stays where it was written. When the memory is used up, the entries that are left move to its
//! front, if that frees as much as it moves; otherwise it grows. So no byte is moved more than once for each that is written,
//! and once it has twice the table's size and what the longest field needs, it never grows again.

use alloc::{collections::VecDeque, vec::Vec};

use crate::head::Span;
use crate::http2::field::Judged;

/// What an entry counts beside its name and its value (RFC 7541 §4.1).
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 32;
/// What a line has beside its name and its value: a colon, a space, CR and LF.
pub(super) const LINE_OVERHEAD_BYTES: usize = 4;
/// Memory kept from one block to the next beside what the table needs: longer fields pay for their own.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// One field as `name: value\r\n`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) line: &'a [u8],
    pub(super) name_len: usize,
    pub(super) judged: Judged,
}

impl<'a> Line<'a> {
    pub(super) fn name(&self) -> &'a [u8] {
        self.line.get(..self.name_len).unwrap_or_default()
    }

    pub(super) fn value(&self) -> &'a [u8] {
        let end = self.line.len().saturating_sub(2);
        self.line.get(self.name_len + 2..end).unwrap_or_default()
    }

    /// Length of name and value.
    pub(super) fn text_bytes(&self) -> usize {
        self.line.len().saturating_sub(LINE_OVERHEAD_BYTES)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    line: Span,
    name_len: u32,
    judged: Judged,
}

impl Entry {
    fn size(&self) -> usize {
        self.line.len() - LINE_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Debug)]
pub(super) struct Table {
    /// Lines of entries that are gone, lines of entries in their order, then the draft.
    bytes: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Sum of the entries' sizes; never above `size_max`.
    size: usize,
    size_max: usize,
    /// The most that `size_max` may be.
    limit: usize,
}

impl Table {
    /// An empty table, without memory, that may hold `size_max` bytes and later up to `limit`.
    pub(super) fn new(size_max: u32, limit: u32) -> Table {
        let (size_max, limit) = (size_max as usize, limit.max(size_max) as usize);
        Table { bytes: Vec::new(), entries: VecDeque::new(), size: 0, size_max, limit }
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The entry that `age` younger ones have followed.
    pub(super) fn get(&self, age: usize) -> Option<Line<'_>> {
        let entry = self.entries.get(self.entries.len().checked_sub(age)?.checked_sub(1)?)?;
        let line = entry.line.of(&self.bytes);
        Some(Line { line, name_len: entry.name_len as usize, judged: entry.judged })
    }

    /// Changes the size; entries that no longer fit go (§4.3). Above the limit it is the limit.
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max.min(self.limit);
        self.make_fit(0);
    }

    /// Begins a draft of a line of up to `bytes_max`. It is written with [`Table::draft`], and ends with
    /// [`Table::insert`] or [`Table::discard`]; nothing else may happen in between but [`Table::drafted`].
    pub(super) fn begin(&mut self, bytes_max: usize) -> Draft {
        if self.bytes.capacity() - self.bytes.len() < bytes_max {
            self.make_room(bytes_max);
        }
        Draft { start: self.bytes.len() }
    }

    /// Where to append.
    pub(super) fn draft(&mut self, _: &Draft) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends the name of the entry with `age`, if there is one, and tells what is known of it.
    pub(super) fn draft_name_of(&mut self, _: &Draft, age: usize) -> Option<(usize, Judged)> {
        let Line { name_len, judged, .. } = self.get(age)?;
        let entry = self.entries.get(self.entries.len().checked_sub(age)?.checked_sub(1)?)?;
        let start = entry.line.start as usize;
        self.bytes.extend_from_within(start..start + name_len);
        Some((name_len, judged))
    }

    /// What was written.
    pub(super) fn drafted(&self, draft: &Draft) -> &[u8] {
        self.bytes.get(draft.start..).unwrap_or_default()
    }

    /// Makes the youngest entry of the draft; the oldest go until it fits. When it is larger than the table all go, and
    /// nothing else happens (§4.4).
    pub(super) fn insert(&mut self, draft: Draft, name_len: usize, judged: Judged) {
        let line = Span::new(draft.start, self.bytes.len());
        let entry = Entry { line, name_len: Span::new(0, name_len).end, judged };
        self.make_fit(entry.size());
        if entry.size() > self.size_max {
            return self.discard(draft);
        }
        self.size += entry.size();
        self.entries.push_back(entry);
    }

    /// Forgets the draft.
    pub(super) fn discard(&mut self, draft: Draft) {
        self.bytes.truncate(draft.start);
    }

    /// To be called between blocks: gives back memory that one long field has taken.
    pub(super) fn trim(&mut self) {
        let keep = self.limit * 2;
        if self.bytes.capacity() > keep + SPARE_BYTES_MAX {
            self.move_to_front();
            self.bytes.shrink_to(keep);
        }
    }

    /// Drops the oldest entries until there is room for one of `size`, or none is left.
    fn make_fit(&mut self, size: usize) {
        while self.size + size > self.size_max {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.size -= oldest.size();
        }
    }

    fn gone_bytes(&self) -> usize {
        self.entries.front().map_or(self.bytes.len(), |oldest| oldest.line.start as usize)
    }

    #[cold]
    fn make_room(&mut self, bytes_max: usize) {
        let gone = self.gone_bytes();
        if gone >= self.bytes.len() - gone {
            self.move_to_front();
        }
        let wanted = self.bytes.len() + bytes_max;
        let capacity = self.bytes.capacity();
        if wanted > capacity {
            let target = (2 * capacity).min(2 * self.limit + bytes_max).max(wanted);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
    }

    fn move_to_front(&mut self) {
        let gone = self.gone_bytes();
        self.bytes.drain(..gone);
        for entry in &mut self.entries {
            entry.line = Span::new(entry.line.start as usize - gone, entry.line.end as usize - gone);
        }
    }
}

/// A line that is being written behind the entries of a table.
#[derive(Debug)]
pub(super) struct Draft {
    start: usize,
}

#[cfg(test)]
impl Table {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The sum of the entries' sizes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How much memory there is for bytes, and for entries.
    pub(super) fn capacities(&self) -> (usize, usize) {
        (self.bytes.capacity(), self.entries.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::field::judge;
    use crate::http2::hpack::tests::Random;
    use std::vec;

    fn insert(table: &mut Table, name: &[u8], value: &[u8]) {
        let draft = table.begin(name.len() + value.len() + LINE_OVERHEAD_BYTES);
        table.draft(&draft).extend_from_slice(&[name, b": ", value, b"\r\n"].concat());
        table.insert(draft, name.len(), judge(name, value));
    }

    fn names(table: &Table) -> Vec<&[u8]> {
        (0..).map_while(|age| table.get(age)).map(|line| line.name()).collect()
    }

    #[test]
    fn the_oldest_go_until_the_youngest_fits() {
        let mut table = Table::new(120, 120);
        insert(&mut table, b"a", b"1234567");
        insert(&mut table, b"b", b"1234567");
        insert(&mut table, b"c", b"1234567");
        assert_eq!((names(&table), table.size()), (vec![&b"c"[..], b"b", b"a"], 120));
        insert(&mut table, b"d", b"");
        assert_eq!((names(&table), table.size()), (vec![&b"d"[..], b"c", b"b"], 113));
        insert(&mut table, b"e", &[b'x'; 87]);
        assert_eq!((names(&table), table.size()), (vec![&b"e"[..]], 120));
        insert(&mut table, b"f", b"");
        assert_eq!((names(&table), table.size()), (vec![&b"f"[..]], 33));
        // Larger than the table: nothing is left, not even itself.
        insert(&mut table, b"g", &[b'x'; 88]);
        assert_eq!((names(&table), table.size()), (vec![], 0));
        insert(&mut table, b"h", b"");
        assert_eq!(names(&table), [b"h"]);
    }

    #[test]
    fn a_smaller_size_drops_the_oldest_at_once() {
        let mut table = Table::new(4096, 4096);
        for name in [b"a", b"b", b"c", b"d"] {
            insert(&mut table, name, b"1234567");
        }
        for (size_max, left) in [(160, 4), (159, 3), (80, 2), (4096, 2), (40, 1), (39, 0), (4096, 0)] {
            table.set_size_max(size_max);
            assert_eq!(table.len(), left, "{size_max}");
            assert_eq!(table.size(), left * 40);
        }
        table.set_size_max(0);
        insert(&mut table, b"a", b"");
        assert_eq!((table.len(), table.size()), (0, 0));
        table.set_size_max(5000);
        assert_eq!(table.size_max(), 4096);
    }

    #[test]
    fn it_holds_what_a_list_of_copies_holds() {
        let mut random = Random::new(11);
        let mut table = Table::new(1000, 2000);
        let mut copies: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
        let size = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 32;
        let mut capacities = (0, 0);
        for round in 0..20_000 {
            let name = vec![b'a' + random.below(26) as u8; random.below(20)];
            let value = vec![
                b'A' + random.below(26) as u8;
                if random.below(50) == 0 { 1500 } else { random.below(100) }
            ];
            match random.below(20) {
                0 => table.set_size_max(random.below(2100)),
                1 => {
                    let draft = table.begin(200);
                    table.draft(&draft).extend_from_slice(&[b'?'; 200]);
                    table.discard(draft);
                }
                2 => table.trim(),
                _ => {
                    insert(&mut table, &name, &value);
                    copies.push_front((name, value));
                }
            }
            while copies.iter().map(size).sum::<usize>() > table.size_max() {
                copies.pop_back();
            }
            assert_eq!(table.len(), copies.len());
            assert_eq!(table.size(), copies.iter().map(size).sum());
            for (age, (name, value)) in copies.iter().enumerate() {
                let line = table.get(age).unwrap();
                assert_eq!(line.line, [&name[..], b": ", value, b"\r\n"].concat(), "round {round}");
                assert_eq!((line.name(), line.value()), (&name[..], &value[..]));
                assert_eq!(line.judged, judge(name, value));
            }
            assert!(table.get(copies.len()).is_none() && table.get(usize::MAX).is_none());
            if round == 10_000 {
                capacities = table.capacities();
            }
        }
        assert_eq!(table.capacities(), capacities, "it grew when it was warm");
        assert!(capacities.0 <= 2 * 2000 + 1600, "{capacities:?}");
    }

    #[test]
    fn a_table_without_entries_holds_no_memory_and_a_long_field_s_is_given_back() {
        let mut table = Table::new(4096, 4096);
        assert_eq!(table.capacities(), (0, 0));
        insert(&mut table, b"a", b"kept");
        let draft = table.begin(100_000);
        table.draft(&draft).resize(100_000, 0);
        table.discard(draft);
        assert!(table.capacities().0 >= 100_000);
        table.trim();
        assert!(table.capacities().0 <= 2 * 4096 + SPARE_BYTES_MAX, "{:?}", table.capacities());
        assert_eq!(table.get(0).unwrap().line, b"a: kept\r\n");
        // What is not much more than the table is kept, so that it is not asked for again with every block.
        let draft = table.begin(12_000);
        table.discard(draft);
        let capacities = table.capacities();
        table.trim();
        assert_eq!(table.capacities(), capacities);
    }
}
