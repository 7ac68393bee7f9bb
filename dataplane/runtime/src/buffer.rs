//! Memory for operations: [`Buffer`] to receive into, [`Gather`] to send from.
//!
//! Both are plain owners of memory with stable addresses, so the kernel may read what a gather points to while the gather is
//! moved. No socket here.

use std::{mem::MaybeUninit, ops::Range};

/// A receive buffer: fixed capacity, with a run of received bytes in it.
///
/// Its memory is not zeroed: a page of it that was never received into costs nothing.
#[derive(Default)]
pub struct Buffer {
    /// Those from `start` to `end` are initialised, which every method here upholds.
    bytes: Box<[MaybeUninit<u8>]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A new buffer of `capacity` bytes; prefer [`BufferPool::take`](crate::BufferPool::take).
    pub fn new(capacity: usize) -> Buffer {
        Buffer { bytes: Box::new_uninit_slice(capacity), start: 0, end: 0 }
    }

    /// The received bytes that were not consumed.
    pub fn filled(&self) -> &[u8] {
        let filled = &self.bytes[self.start..self.end];
        // SAFETY: see the field.
        unsafe { filled.assume_init_ref() }
    }

    /// The same, to be changed where they are.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        let filled = &mut self.bytes[self.start..self.end];
        // SAFETY: see the field.
        unsafe { filled.assume_init_mut() }
    }

    /// Number of received bytes that were not consumed.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is left to consume.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes that can still be received before the buffer must be compacted or is full.
    pub fn spare(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// All bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Gives up the first `count` received bytes; all of them when there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Gives up everything.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Moves what is left to the front, so that [`Buffer::spare`] is as large as it can be.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Appends bytes as if they had been received; gives how many found room.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.spare());
        self.bytes[self.end..self.end + count].write_copy_of_slice(&bytes[..count]);
        self.end += count;
        count
    }

    /// Its memory, with whatever is in it.
    pub(crate) fn into_bytes(self) -> Box<[MaybeUninit<u8>]> {
        self.bytes
    }

    /// Changes places with the memory of another buffer, in which `received` is a run of received bytes. Only when this
    /// one is empty and both are of one size.
    ///
    /// # Safety
    ///
    /// The bytes of `received` are initialised.
    pub(crate) unsafe fn exchange(&mut self, bytes: &mut Box<[MaybeUninit<u8>]>, received: Range<usize>) {
        debug_assert!(self.is_empty() && self.bytes.len() == bytes.len());
        assert!(
            received.start <= received.end && received.end <= bytes.len(),
            "received outside of the buffer"
        );
        std::mem::swap(&mut self.bytes, bytes);
        (self.start, self.end) = (received.start, received.end);
    }

    /// The writable rest, for whoever fills it; followed by [`Buffer::advance`].
    pub(crate) fn spare_ptr(&mut self) -> *mut u8 {
        self.bytes[self.end..].as_mut_ptr().cast()
    }

    /// Counts `count` bytes behind the filled ones as received; at most [`Buffer::spare`].
    ///
    /// # Safety
    ///
    /// They were written.
    pub(crate) unsafe fn advance(&mut self, count: usize) {
        assert!(count <= self.spare(), "more bytes received than there was room for");
        self.end += count;
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} of {})", self.len(), self.capacity())
    }
}

/// What a part of a [`Gather`] points into.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The buffer that was received; offsets are from its first filled byte.
    Kept,
    /// The small bytes written by us.
    Inserted,
}

#[derive(Clone, Debug)]
struct Part {
    source: Source,
    range: Range<usize>,
}

/// What one vectored send carries: runs of a received buffer by reference, and small bytes of our own between them.
///
/// Reused from one send to the next, so building one allocates nothing in steady state.
#[derive(Default)]
pub struct Gather {
    buffer: Buffer,
    inserted: Vec<u8>,
    parts: Vec<Part>,
    /// Built from `parts` for one send; the kernel reads it while the send is in flight.
    pub(crate) vectors: Vec<libc::iovec>,
    /// The first part that is not wholly sent; its range starts at the first byte not sent.
    next: usize,
}

/// Most parts one send hands to the kernel; the rest goes in the next send. Linux refuses more than 1024.
const PARTS_PER_SEND_MAX: usize = 64;

/// Several parts of no more bytes than this are copied together before they are sent: the kernel takes one run at less
/// cost than a list of runs, by more than the copying costs.
const JOINED_BYTES_MAX: usize = 2048;

impl Gather {
    /// An empty gather.
    pub fn new() -> Gather {
        Gather::default()
    }

    /// Puts in the buffer that kept runs point into; they may be queued before or after.
    pub fn put_buffer(&mut self, buffer: Buffer) {
        debug_assert!(self.buffer.capacity() == 0, "runs would point into another buffer");
        self.buffer = buffer;
    }

    /// Gives the buffer back, for the next receive. Only when everything was sent, or nothing will be.
    pub fn take_buffer(&mut self) -> Buffer {
        self.clear();
        std::mem::take(&mut self.buffer)
    }

    /// The buffer that kept runs point into.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    /// Queues a run of the buffer; offsets are from its first filled byte. A run that continues the one before joins it.
    pub fn keep(&mut self, range: Range<usize>) {
        self.push(Source::Kept, range);
    }

    /// Queues a copy of small bytes of our own.
    pub fn insert(&mut self, bytes: &[u8]) {
        let start = self.inserted.len();
        self.inserted.extend_from_slice(bytes);
        self.push(Source::Inserted, start..self.inserted.len());
    }

    /// Queues what `fill` writes into empty memory, of which nothing is copied. Only when everything before was sent.
    pub fn fill(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.is_sent(), "what is queued would be lost");
        self.clear();
        fill(&mut self.inserted);
        self.push(Source::Inserted, 0..self.inserted.len());
    }

    fn push(&mut self, source: Source, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match self.parts.last_mut() {
            Some(last)
                if last.range.end == range.start
                    && matches!(
                        (last.source, source),
                        (Source::Kept, Source::Kept) | (Source::Inserted, Source::Inserted)
                    ) =>
            {
                last.range.end = range.end;
            }
            _ => self.parts.push(Part { source, range }),
        }
    }

    /// The runs that are not sent yet, in order.
    pub fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.parts[self.next..].iter().map(|part| match part.source {
            Source::Kept => {
                debug_assert!(part.range.end <= self.buffer.len(), "a run must lie inside the buffer");
                self.buffer.filled().get(part.range.clone()).unwrap_or_default()
            }
            Source::Inserted => self.inserted.get(part.range.clone()).unwrap_or_default(),
        })
    }

    /// Number of bytes not sent yet.
    pub fn unsent_len(&self) -> usize {
        self.parts[self.next..].iter().map(|part| part.range.len()).sum()
    }

    /// Whether nothing is left to send.
    pub fn is_sent(&self) -> bool {
        self.next == self.parts.len()
    }

    /// Forgets all parts; the memory stays for the next use.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.inserted.clear();
        self.vectors.clear();
        self.next = 0;
    }

    /// Counts the next `count` bytes as sent; forgets the parts when all are.
    pub fn mark_sent(&mut self, mut count: usize) {
        while count > 0 && self.next < self.parts.len() {
            let part = &mut self.parts[self.next];
            let step = count.min(part.range.len());
            part.range.start += step;
            count -= step;
            if part.range.is_empty() {
                self.next += 1;
            }
        }
        if self.is_sent() {
            self.clear();
        }
    }

    /// Fills `vectors` with pointers to the unsent runs. They stay valid while `self` is neither changed nor
    /// dropped, wherever it is moved: every run lies in a heap allocation that `self` owns.
    pub(crate) fn load_vectors(&mut self) {
        let mut vectors = std::mem::take(&mut self.vectors);
        vectors.clear();
        if let Some(run) = self.joined() {
            vectors.push(libc::iovec { iov_base: run.as_ptr().cast_mut().cast(), iov_len: run.len() });
            self.vectors = vectors;
            return;
        }
        vectors.extend(
            self.unsent()
                .take(PARTS_PER_SEND_MAX)
                .map(|run| libc::iovec { iov_base: run.as_ptr().cast_mut().cast(), iov_len: run.len() }),
        );
        self.vectors = vectors;
    }
}

impl Gather {
    /// The unsent runs as one, if there are several and they are short: a copy behind what the buffer has received, where
    /// there is room most of the time and warm memory. The next load writes another one there.
    fn joined(&mut self) -> Option<&[u8]> {
        let parts = self.parts.get(self.next..).filter(|parts| parts.len() > 1)?;
        let total = parts.iter().map(|part| part.range.len()).sum::<usize>();
        let (received, spare) = self.buffer.bytes.split_at_mut(self.buffer.end);
        // SAFETY: see the field.
        let received = unsafe { received.get(self.buffer.start..)?.assume_init_ref() };
        let joined = spare.get_mut(..total).filter(|_| total <= JOINED_BYTES_MAX)?;
        let mut rest = &mut *joined;
        for part in parts {
            let from = match part.source {
                Source::Kept => received,
                Source::Inserted => &self.inserted[..],
            };
            let (place, behind) = rest.split_at_mut_checked(part.range.len())?;
            place.write_copy_of_slice(from.get(part.range.clone())?);
            rest = behind;
        }
        // SAFETY: the parts are as long as `joined` together, and each was written.
        Some(unsafe { joined.assume_init_ref() })
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gather({} parts, {} bytes)", self.parts.len() - self.next, self.unsent_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(gather: &Gather) -> String {
        gather.unsent().map(|run| String::from_utf8_lossy(run).into_owned()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn a_buffer_keeps_what_is_not_consumed_and_makes_room_by_compacting() {
        let mut buffer = Buffer::new(8);
        assert_eq!(buffer.extend(b"abcdef"), 6);
        buffer.consume(4);
        assert_eq!((buffer.filled(), buffer.spare()), (&b"ef"[..], 2));
        buffer.compact();
        assert_eq!((buffer.filled(), buffer.spare()), (&b"ef"[..], 6));
        assert_eq!(buffer.extend(b"0123456789"), 6, "no more than there is room for");
        buffer.consume(100);
        assert_eq!((buffer.len(), buffer.spare()), (0, 8));
    }

    #[test]
    fn a_gather_joins_neighbours_and_remembers_what_was_sent() {
        let mut gather = Gather::new();
        let mut buffer = Buffer::new(16);
        buffer.extend(b"xxheadbody");
        buffer.consume(2);
        gather.keep(0..2);
        gather.keep(2..4);
        gather.insert(b"-1");
        gather.insert(b"-2-");
        gather.keep(4..8);
        gather.put_buffer(buffer);
        assert_eq!(text(&gather), "head|-1-2-|body");
        gather.mark_sent(6);
        assert_eq!((text(&gather).as_str(), gather.unsent_len()), ("-2-|body", 7));
        gather.mark_sent(7);
        assert!(gather.is_sent());
        assert_eq!(gather.take_buffer().filled(), b"headbody");
    }

    #[test]
    fn short_parts_are_sent_as_one_run_and_long_ones_where_they_lie() {
        let loaded = |gather: &mut Gather| {
            gather.load_vectors();
            gather.vectors.len()
        };
        let with_spare = |spare: usize| {
            let mut gather = Gather::new();
            let mut buffer = Buffer::new(JOINED_BYTES_MAX + spare);
            buffer.extend(&[b'x'; JOINED_BYTES_MAX]);
            gather.put_buffer(buffer);
            gather.insert(b"head");
            gather
        };
        for (kept, spare, runs) in [
            (JOINED_BYTES_MAX - 4, JOINED_BYTES_MAX, 1),
            (JOINED_BYTES_MAX - 3, JOINED_BYTES_MAX, 2),
            (100, 104, 1),
            (100, 103, 2),
        ] {
            let mut gather = with_spare(spare);
            gather.keep(0..kept);
            assert_eq!(loaded(&mut gather), runs, "{kept} bytes with room for {spare}");
        }
        let mut gather = with_spare(64);
        gather.keep(0..8);
        gather.mark_sent(2);
        let joined = |gather: &mut Gather| String::from_utf8_lossy(gather.joined().unwrap()).into_owned();
        assert_eq!(joined(&mut gather), "adxxxxxxxx", "what was sent is not sent again");
        assert_eq!((text(&gather).as_str(), gather.unsent_len()), ("ad|xxxxxxxx", 10));
        assert_eq!(gather.take_buffer().len(), JOINED_BYTES_MAX, "the copy is no received byte");
    }
}
