//! An allocator that counts what chosen threads allocate: for the test that proves the request path allocates nothing.
//!
//! Built only with the feature `counting`, which no program turns on. It is here because an allocator is unsafe code.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

/// The system's allocator, counting. Made the global one by the test's `#[global_allocator]`.
#[derive(Debug)]
pub struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Initialised when compiling and without a destructor, so that touching it allocates nothing.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// Counts what this thread allocates from now on.
pub fn count_this_thread() {
    IS_COUNTED.set(true);
}

/// Allocations and reallocations so far, by all counted threads together.
pub fn count() -> u64 {
    COUNT.load(Ordering::SeqCst)
}

fn note() {
    // A thread that is going away is not counted.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every call is passed on to `System` unchanged, so its guarantees are ours; counting neither allocates nor
// unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller upholds the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above, for `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: as above, for `realloc`; `memory` came from `System`, as all of ours does.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above, for `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}
