//! The buffers of one worker, and how many of them there may be.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::buffer::Buffer;

/// Buffers of one worker, the free ones last in first out so that warm memory is used first.
///
/// Where memory is limited it is told how many it may have. When it has as many it gives small ones: whoever is served goes
/// on, more slowly, and nobody waits for a buffer that another may never give back.
#[derive(Clone, Debug)]
pub struct BufferPool(Rc<Pool>);

#[derive(Debug)]
struct Pool {
    free: RefCell<Vec<Buffer>>,
    /// Fewest that were free at a time since the last [`BufferPool::trim`].
    unused: Cell<usize>,
    /// Bytes taken and not given back.
    out_bytes: Cell<usize>,
    /// Most bytes that there were, taken or free, since the last [`BufferPool::trim`].
    most_bytes: Cell<usize>,
    /// As many as may be, taken or free, in bytes.
    allowed_bytes: Cell<usize>,
    capacity: usize,
    kept_max: usize,
}

/// Bytes of a buffer when there are as many as may be: a page, so that thousands of them do not matter.
const SMALL_BYTES: usize = 4096;

impl BufferPool {
    /// A pool of buffers of `capacity` bytes that keeps at most `kept_max` free ones.
    pub fn new(capacity: usize, kept_max: usize) -> BufferPool {
        BufferPool(Rc::new(Pool {
            free: RefCell::default(),
            unused: Cell::default(),
            out_bytes: Cell::default(),
            most_bytes: Cell::default(),
            allowed_bytes: Cell::new(usize::MAX),
            capacity,
            kept_max,
        }))
    }

    /// An empty buffer; allocates only when none is free. A small one where there are as many others as may be.
    pub fn take(&self) -> Buffer {
        let mut free = self.0.free.borrow_mut();
        let buffer = free.pop().unwrap_or_else(|| self.0.new_buffer());
        self.0.unused.set(self.0.unused.get().min(free.len()));
        self.0.out_bytes.set(self.0.out_bytes.get() + buffer.capacity());
        buffer
    }

    /// Gives a buffer back. A default (capacity 0) one, left where a buffer was moved out, is ignored.
    pub fn put(&self, mut buffer: Buffer) {
        let Pool { free, out_bytes, allowed_bytes, capacity, kept_max, .. } = &*self.0;
        out_bytes.set(out_bytes.get().saturating_sub(buffer.capacity()));
        let mut free = free.borrow_mut();
        if buffer.capacity() != *capacity {
            return;
        }
        if out_bytes.get().saturating_add((free.len() + 1) * capacity) > allowed_bytes.get() {
            crate::memory::free(buffer.into_bytes());
        } else if free.len() < *kept_max {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// A buffer with these bytes, which fit into one that is not small.
    pub fn take_with(&self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take();
        if buffer.capacity() < bytes.len() {
            self.grow(&mut buffer);
        }
        let count = buffer.extend(bytes);
        debug_assert_eq!(count, bytes.len(), "more than a buffer holds");
        buffer
    }

    /// Makes room behind what `buffer` holds, if there can be any: for one message that has to fit into one buffer, a small
    /// one grows.
    pub fn make_room(&self, buffer: &mut Buffer) {
        buffer.compact();
        if buffer.spare() == 0 {
            self.grow(buffer);
        }
    }

    /// Puts one that is not small in the place of a small one.
    fn grow(&self, buffer: &mut Buffer) {
        if (1..self.0.capacity).contains(&buffer.capacity()) {
            let mut larger = self.0.free.borrow_mut().pop().unwrap_or_else(|| Buffer::new(self.0.capacity));
            self.0.out_bytes.set(self.0.out_bytes.get() + larger.capacity());
            larger.extend(buffer.filled());
            self.put(std::mem::replace(buffer, larger));
        }
    }

    /// Sets how many buffers there may be, taken or free; free ones beyond that are freed.
    pub fn allow(&self, count: u64) {
        let Pool { free, out_bytes, allowed_bytes, capacity, .. } = &*self.0;
        let allowed = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(*capacity);
        if allowed < allowed_bytes.replace(allowed) {
            let most = allowed.saturating_sub(out_bytes.get()) / capacity;
            free_behind(&mut free.borrow_mut(), most);
        }
    }

    /// Frees what was free all the time since the last call; gives how many fewer there are than there were at a time since
    /// then.
    pub fn trim(&self) -> usize {
        let Pool { free, unused, out_bytes, most_bytes, capacity, .. } = &*self.0;
        let mut free = free.borrow_mut();
        let needed = free.len() - unused.get().min(free.len());
        free_behind(&mut free, needed);
        unused.set(needed);
        let bytes = out_bytes.get() + needed * capacity;
        most_bytes.replace(bytes).saturating_sub(bytes) / capacity
    }

    /// Whether there are as many as may be, so that [`BufferPool::take`] gives small ones.
    pub fn is_used_up(&self) -> bool {
        let Pool { free, out_bytes, allowed_bytes, capacity, .. } = &*self.0;
        free.borrow().is_empty() && out_bytes.get().saturating_add(*capacity) > allowed_bytes.get()
    }

    /// Free buffers that are kept for the next.
    pub fn kept_count(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// Buffers that were taken and not given back; small ones count together as what they are of one.
    pub fn out_count(&self) -> usize {
        self.0.out_bytes.get().div_ceil(self.0.capacity)
    }
}

/// Frees all of them but the first `count`.
fn free_behind(buffers: &mut Vec<Buffer>, count: usize) {
    let behind = count.min(buffers.len());
    buffers.drain(behind..).for_each(|buffer| crate::memory::free(buffer.into_bytes()));
}

impl Pool {
    /// When none is free.
    fn new_buffer(&self) -> Buffer {
        let out = self.out_bytes.get();
        let may_be_full = out.saturating_add(self.capacity) <= self.allowed_bytes.get();
        let buffer = Buffer::new(if may_be_full { self.capacity } else { SMALL_BYTES.min(self.capacity) });
        self.most_bytes.set(self.most_bytes.get().max(out + buffer.capacity()));
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_back_the_warmest_buffer_and_keeps_no_more_than_it_may() {
        let pool = BufferPool::new(8, 1);
        let (mut first, second) = (pool.take(), pool.take());
        first.extend(b"x");
        let address = first.filled().as_ptr();
        pool.put(first);
        pool.put(second);
        pool.put(Buffer::default());
        let mut again = pool.take();
        assert_eq!(again.len(), 0);
        again.extend(b"x");
        assert_eq!(again.filled().as_ptr(), address);
        assert_eq!(pool.kept_count(), 0);
    }

    #[test]
    fn a_pool_that_has_as_many_as_it_may_gives_small_ones_which_can_grow() {
        let pool = BufferPool::new(2 * SMALL_BYTES, 8);
        pool.allow(3);
        assert!(!pool.is_used_up());
        let mut taken: Vec<Buffer> = (0..5).map(|_| pool.take()).collect();
        let sizes: Vec<usize> = taken.iter().map(|buffer| buffer.capacity() / SMALL_BYTES).collect();
        assert_eq!((sizes, pool.out_count()), (vec![2, 2, 2, 1, 1], 4));
        assert!(pool.is_used_up());
        let mut small = taken.pop().unwrap();
        assert_eq!(small.extend(&[b'x'; SMALL_BYTES]), SMALL_BYTES);
        pool.make_room(&mut small);
        assert_eq!((small.len(), small.capacity(), pool.out_count()), (SMALL_BYTES, 2 * SMALL_BYTES, 5));
        small.consume(1);
        pool.make_room(&mut small);
        assert_eq!((small.len(), small.spare()), (SMALL_BYTES - 1, SMALL_BYTES + 1), "it has grown enough");
        let with = pool.take_with(&[b'y'; SMALL_BYTES]);
        assert_eq!((with.len(), with.capacity()), (SMALL_BYTES, SMALL_BYTES));
        let more = pool.take_with(&[b'z'; SMALL_BYTES + 1]);
        assert_eq!((more.len(), more.capacity()), (SMALL_BYTES + 1, 2 * SMALL_BYTES));
        [with, more].into_iter().for_each(|buffer| pool.put(buffer));
        let mut none = Buffer::default();
        pool.make_room(&mut none);
        assert_eq!(none.capacity(), 0);
        taken.push(small);
        taken.into_iter().rev().for_each(|buffer| pool.put(buffer));
        assert_eq!((pool.out_count(), pool.kept_count()), (0, 3), "no more are kept than may be");
        pool.allow(1);
        assert_eq!(pool.kept_count(), 1);
    }

    #[test]
    fn a_pool_frees_what_nobody_needed_since_it_looked_last() {
        let pool = BufferPool::new(8, 8);
        let taken: Vec<Buffer> = (0..5).map(|_| pool.take()).collect();
        taken.into_iter().for_each(|buffer| pool.put(buffer));
        assert_eq!((pool.trim(), pool.kept_count()), (0, 5));
        let taken: Vec<Buffer> = (0..2).map(|_| pool.take()).collect();
        taken.into_iter().for_each(|buffer| pool.put(buffer));
        assert_eq!((pool.trim(), pool.kept_count()), (3, 2));
        assert_eq!((pool.trim(), pool.kept_count()), (2, 0));
    }
}
