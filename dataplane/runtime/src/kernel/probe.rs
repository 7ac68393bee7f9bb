//! Which kernel interface to use: what the operator asked for, and what the kernel gives.

use std::io;

use super::ring::Ring;

/// Which kernel interface a worker's loop runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// io_uring with SINGLE_ISSUER, DEFER_TASKRUN and SUBMIT_ALL (Linux 6.1 or later).
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The name users see: `io_uring` or `epoll`.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// io_uring if it works, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// The driver that will be used, and why it is not io_uring where `auto` fell back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// The driver.
    pub driver: Driver,
    /// Why `auto` fell back: what the kernel answered and what commonly causes it.
    pub fallback_reason: Option<String>,
}

/// Tries what a worker will do, once, on a thread of its own, so that every worker then uses the same driver.
pub fn probe(choice: Choice) -> io::Result<Probed> {
    if choice == Choice::Epoll {
        return Ok(Probed { driver: Driver::Epoll, fallback_reason: None });
    }
    let tried = std::thread::spawn(|| Ring::new().and_then(Ring::check)).join();
    let error = match tried {
        Ok(Ok(())) => return Ok(Probed { driver: Driver::IoUring, fallback_reason: None }),
        Ok(Err(error)) => error,
        Err(_) => io::Error::other("the io_uring probe panicked"),
    };
    match choice {
        Choice::IoUring => Err(error),
        Choice::Auto | Choice::Epoll => {
            Ok(Probed { driver: Driver::Epoll, fallback_reason: Some(reason(&error)) })
        }
    }
}

fn reason(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EPERM) => "refused by a seccomp profile or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "not in this kernel, or hidden by a seccomp profile",
        Some(libc::EINVAL) => "this kernel lacks the set-up flags (Linux 6.1 or later has them)",
        Some(libc::ENOMEM) => "locked-memory limit (ulimit -l) or memory too small",
        _ => "unexpected",
    };
    format!("io_uring: {error}: {cause}")
}
