//! The buffers that receives of a ring are filled into: the kernel picks one when bytes are there, not before.
//!
//! A buffer that is taken whole changes places with the empty one it is taken into, so nothing is copied. There are as many
//! as connections receive into in one turn: more are made when the kernel has used up all.

use std::{
    io,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

use super::socket::Chunk;
use crate::buffer::Buffer;

/// The group's number in the ring.
pub(super) const GROUP: u16 = 0;
/// The most there are; a power of two. When more connections than these receive in one turn, the others wait for the next.
pub(super) const COUNT: u16 = 256;
/// How many are made at a time.
const STEP: u16 = 32;
/// Bytes of one of the buffers that io_uring receives into. As large as the buffers of connections, so that they can change
/// places.
pub const BYTES: usize = 64 * 1024;

pub(super) struct Provided {
    /// Shared with the kernel: `COUNT` entries, and in the first one's spare field the tail.
    entries: Mapping,
    /// By number. The kernel writes to those that it has.
    buffers: Vec<Box<[MaybeUninit<u8>]>>,
    tail: u16,
    /// How many the kernel has.
    available: u16,
    /// How many there may be.
    most: u16,
}

impl Provided {
    pub(super) fn new(ring: &IoUring) -> io::Result<Provided> {
        let entries = Mapping::new(usize::from(COUNT) * size_of::<BufRingEntry>())?;
        // SAFETY: the mapping is page-aligned, zeroed and of the right size. The kernel keeps its pages for as long as the
        // ring has it, and writes to a buffer only while a receive is in flight, which `Ring::end` waits for.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.address.as_ptr() as u64, COUNT, GROUP, 0)?
        };
        let mut provided = Provided { entries, buffers: Vec::new(), tail: 0, available: 0, most: COUNT };
        provided.grow();
        Ok(provided)
    }

    fn grow(&mut self) {
        for number in (0..self.most).skip(self.buffers.len()).take(usize::from(STEP)) {
            self.buffers.push(Box::new_uninit_slice(BYTES));
            self.give_back(number);
        }
    }

    /// Makes no more of them than so many from now on.
    pub(super) fn limit(&mut self, most: u16) {
        self.most = most.min(COUNT);
    }

    /// Never frees the buffers, since the kernel may still write to them.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.buffers));
    }

    /// Whether the kernel has none left.
    pub(super) fn is_empty(&self) -> bool {
        self.available == 0
    }

    /// The kernel has picked one, as a completion tells.
    pub(super) fn picked(&mut self) {
        self.available = self.available.saturating_sub(1);
        if self.available == 0 {
            self.grow();
        }
    }

    /// Moves what `chunk` still has behind what `buffer` holds, as far as there is room; gives how many bytes.
    pub(super) fn take(&mut self, chunk: &mut Chunk, buffer: &mut Buffer) -> usize {
        let own = &mut self.buffers[usize::from(chunk.buffer)];
        if buffer.is_empty() && buffer.capacity() == own.len() {
            let count = chunk.end - chunk.start;
            // SAFETY: the kernel told with the chunk that it wrote them.
            unsafe { buffer.exchange(own, chunk.start..chunk.end) };
            chunk.start = chunk.end;
            return count;
        }
        // SAFETY: as above.
        let received = unsafe { own[chunk.start..chunk.end].assume_init_ref() };
        let count = buffer.extend(received);
        chunk.start += count;
        count
    }

    /// Gives one to the kernel.
    pub(super) fn give_back(&mut self, number: u16) {
        let place = self.tail & (COUNT - 1);
        let buffer = &mut self.buffers[usize::from(number)];
        // SAFETY: `place` lies within the mapping, which is all zeros or entries from here and so always valid; the kernel
        // does not read an entry that is not before the tail, and this one is behind it.
        let entry =
            unsafe { &mut *self.entries.address.cast::<BufRingEntry>().add(usize::from(place)).as_ptr() };
        entry.set_addr(buffer.as_mut_ptr() as u64);
        entry.set_len(BYTES as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a field of the first entry, which is valid as above.
        let tail = unsafe { BufRingEntry::tail(self.entries.address.cast::<BufRingEntry>().as_ptr()) };
        // SAFETY: aligned, in the mapping, and only ever accessed as an atomic while the kernel looks at it.
        unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.store(self.tail, Ordering::Release);
        self.available += 1;
    }
}

/// Anonymous memory of whole pages.
struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Mapping> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { address, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size, and nobody refers to it any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}
