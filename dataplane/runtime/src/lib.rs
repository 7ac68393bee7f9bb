//! The kernel of the data plane: sockets, buffers, timers, executor and the mailbox between threads.
//!
//! Everything above talks to [`io::Io`] and never to a socket; [`kernel`] (io_uring or epoll) stands behind it in
//! the proxy and a simulated network in tests. This is the only crate of the data plane with unsafe code, and
//! each block names who upholds its condition. It knows nothing of HTTP, configuration or policy.
//!
//! Faces: hostile bytes (it moves them, never reads them) and a kernel that may refuse anything.

pub mod affinity;
pub mod buffer;
mod buffer_pool;
#[cfg(feature = "counting")]
pub mod counting;
mod executor;
pub mod io;
pub mod kernel;
pub mod listen;
pub mod mailbox;
pub mod memory;
#[cfg(any(test, feature = "refusing"))]
pub mod refusing;
pub mod timer;
mod turn;

pub use buffer::{Buffer, Gather};
pub use buffer_pool::BufferPool;
pub use io::{Accepted, Deadline, Io, Listener, RecvHalf, SendHalf};
