//! How the kernel backs this process's memory.

use std::{io, mem::MaybeUninit};

// Only for its C library, which has what is declared below.
use libmimalloc_sys as _;

// SAFETY: as mimalloc.h has it.
unsafe extern "C" {
    fn mi_collect(force: bool);
}

/// Gives the kernel back what mimalloc keeps of memory that was freed: what this thread freed, and whole pages of any
/// thread. mimalloc does so by itself only when somebody allocates much again, and a process that has read its
/// configuration does not. Another allocator is left alone.
pub fn give_back() {
    // SAFETY: mimalloc may be asked for this by any thread at any time; it takes nothing that is in use, and without any
    // memory of mimalloc's it does nothing.
    unsafe { mi_collect(true) }
}

/// Frees bytes and gives the kernel their pages back. The allocator keeps those of a run of blocks until the last of them is
/// freed, and one buffer that stays would keep half a MiB.
#[expect(clippy::boxed_local, reason = "it is freed here")]
pub(crate) fn free(bytes: Box<[MaybeUninit<u8>]>) {
    const PAGE_BYTES: usize = 4096;
    let range = bytes.as_ptr_range();
    let start = range.start.addr().next_multiple_of(PAGE_BYTES);
    let count = (range.end.addr() & !(PAGE_BYTES - 1)).saturating_sub(start);
    if count > 0 && !cfg!(miri) {
        let pages = range.start.with_addr(start).cast_mut().cast();
        // SAFETY: whole pages inside of a block of our own, in private memory of an allocator, of which nobody reads what
        // was in it any more; they read as zeros from now on. A refusal changes nothing.
        unsafe { libc::madvise(pages, count, libc::MADV_DONTNEED) };
    }
}

/// Has the kernel back memory that is touched from here on with small pages. A proxy beside every application touches a
/// little of many places; with transparent huge pages each of them costs 2 MiB.
///
/// Pages that are there stay as they are, and the allocator's first ones are there before `main`: it asks for huge ones,
/// and 3.8 MB of them stay empty for ever. So a program with this crate in it calls this when it is loaded, too.
pub fn avoid_huge_pages() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_THP_DISABLE takes a flag and three zeros, no pointers.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Run by the loader, by its number before the functions without one, among which is the allocator's.
// SAFETY: the section is an array of pointers to functions of this type, which the loader calls once each before `main`,
// on the only thread there is; this one makes a system call and needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static WHEN_LOADED: extern "C" fn() = {
    extern "C" fn avoid() {
        // A refusal costs memory and nothing else.
        let _ = avoid_huge_pages();
    }
    avoid
};

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    #[test]
    fn pages_that_are_freed_are_gone_and_what_is_beside_them_is_not() {
        let resident = |start: usize| {
            let mut pages = [0u8; 16];
            // SAFETY: the kernel writes one byte for each page, and refuses what is not mapped.
            let done = unsafe { libc::mincore(start as *mut _, pages.len() * 4096, pages.as_mut_ptr()) };
            if done == 0 { pages.iter().filter(|page| **page & 1 == 1).count() } else { 0 }
        };
        let mut all: Vec<Box<[MaybeUninit<u8>]>> = (0..8).map(|_| Box::new_uninit_slice(65_536)).collect();
        for bytes in &mut all {
            bytes.fill(MaybeUninit::new(7));
        }
        let freed = all.remove(3);
        let inner = freed.as_ptr().addr().next_multiple_of(4096);
        assert!(resident(inner) >= 15, "{}", resident(inner));
        super::free(freed);
        // The allocator writes to the first or the last of them.
        assert!(resident(inner) <= 2, "{}", resident(inner));
        // SAFETY: all bytes were written.
        assert!(all.iter().all(|bytes| bytes.iter().all(|byte| unsafe { byte.assume_init() } == 7)));
        super::free(Box::new_uninit_slice(10));
    }

    #[test]
    fn the_kernel_has_taken_the_wish_before_anybody_made_it() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("THP_enabled:\t0"), "{status}");
        super::avoid_huge_pages().unwrap();
    }
}
