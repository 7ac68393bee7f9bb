//! How the kernel backs this process's memory.

use std::io;

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
    #[test]
    fn the_kernel_has_taken_the_wish_before_anybody_made_it() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("THP_enabled:\t0"), "{status}");
        super::avoid_huge_pages().unwrap();
    }
}
