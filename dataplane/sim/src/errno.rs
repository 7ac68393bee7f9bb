//! The errors that Linux gives for an operation on a TCP socket, for a machine whose operations fail
//! ([`SimIo::fail_operations`](crate::SimIo::fail_operations)).
//!
//! Not among them: EAGAIN and EINPROGRESS, which no implementation of the interface passes on; EBADF and the like, which
//! would be bugs of ours; EINVAL of an accept, by which the interface tells that the listener was closed; ENOBUFS of a receive,
//! which no implementation passes on either
//! ([`SimIo::short_of_buffers`](crate::SimIo::short_of_buffers)).

/// No descriptor is free, in the process or in the system; no memory.
const SHORTAGES: [i32; 3] = [24, 23, 12];

/// connect(2): shortages, EADDRNOTAVAIL (no port is free), EADDRINUSE, EACCES and EPERM (a packet filter says no),
/// ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, ETIMEDOUT, ECONNRESET.
pub(crate) const CONNECT: [i32; 12] =
    [SHORTAGES[0], SHORTAGES[1], SHORTAGES[2], 99, 98, 13, 1, 111, 101, 113, 110, 104];

/// accept(2): shortages, ENOBUFS, ECONNABORTED, and the errors of the connection that Linux tells instead of it: EPERM,
/// ENETDOWN, EPROTO, EHOSTUNREACH.
pub(crate) const ACCEPT: [i32; 9] =
    [SHORTAGES[0], SHORTAGES[1], SHORTAGES[2], 105, ECONNABORTED, 1, 100, 71, 113];

/// The other end was gone before it was accepted.
pub(crate) const ECONNABORTED: i32 = 103;

/// recv(2): ECONNRESET, ETIMEDOUT (what we sent was never acknowledged), EHOSTUNREACH, ENETUNREACH, ECONNREFUSED; ENOMEM.
pub(crate) const RECV: [i32; 6] = [104, 110, 113, 101, 111, ENOMEM];

/// send(2): EPIPE, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH; ENOMEM and ENOBUFS.
pub(crate) const SEND: [i32; 7] = [32, 104, 110, 113, 101, ENOMEM, ENOBUFS];

/// fcntl(2) with F_DUPFD: no descriptor is free.
pub(crate) const DUPLICATE: [i32; 1] = [SHORTAGES[0]];

/// epoll_ctl(2): ENOMEM; ENOSPC (as many as a user may watch).
pub(crate) const WATCH: [i32; 2] = [ENOMEM, 28];

const ENOMEM: i32 = 12;
const ENOBUFS: i32 = 105;

/// Whether the connection is over with this error. Else only the operation failed.
pub(crate) fn is_end(error: i32) -> bool {
    !matches!(error, ENOMEM | ENOBUFS)
}
