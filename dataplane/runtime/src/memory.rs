//! How the kernel backs this process's memory.

use std::io;

/// Has the kernel back memory that is touched from here on with small pages. A proxy beside every application touches a
/// little of many places; with transparent huge pages each of them costs 2 MiB. To be called first, since pages that are
/// there stay as they are.
pub fn avoid_huge_pages() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: PR_SET_THP_DISABLE takes a flag and three zeros, no pointers.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_takes_the_wish() {
        super::avoid_huge_pages().unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("THP_enabled:\t0"), "{status}");
    }
}
