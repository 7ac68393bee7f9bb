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

/// Tries what this many workers will do, once, on a thread of its own, so that all of them then use the same driver: the
/// kernel may have memory and descriptors for one ring and not for all.
pub fn probe(choice: Choice, workers: usize) -> io::Result<Probed> {
    if choice == Choice::Epoll {
        return Ok(Probed { driver: Driver::Epoll, fallback_reason: None });
    }
    let tried = move || {
        let mut rings = (0..workers).map(|_| Ring::new()).collect::<io::Result<Vec<_>>>()?;
        rings.pop().map_or(Ok(()), Ring::check)
    };
    let error = match std::thread::spawn(tried).join() {
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
        Some(libc::EMFILE | libc::ENFILE) => "no descriptor left (ulimit -n)",
        Some(libc::ENOMEM) => "locked-memory limit (ulimit -l) or memory too small",
        _ => "unexpected",
    };
    format!("io_uring: {error}: {cause}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::refusing::{Call, refusing};

    /// What `auto` comes to for two workers when all such calls but the first few fail so.
    fn probed(call: Call, error: i32, but: u64) -> Probed {
        let decide = move |count| (count >= but).then_some(error);
        refusing(call, decide, || probe(Choice::Auto, 2).unwrap()).unwrap()
    }

    #[test]
    fn res_04_whatever_the_kernel_refuses_epoll_takes_over_and_says_why() {
        for (error, cause) in [
            (libc::EPERM, "seccomp"),
            (libc::ENOSYS, "not in this kernel"),
            (libc::EINVAL, "set-up flags"),
            (libc::ENOMEM, "memory"),
            (libc::EMFILE, "no descriptor left"),
            (libc::ENFILE, "no descriptor left"),
            (libc::EACCES, "unexpected"),
        ] {
            for call in Call::ALL {
                let Probed { driver, fallback_reason } = probed(call, error, 0);
                let reason = fallback_reason.unwrap_or_default();
                assert_eq!(driver, Driver::Epoll, "{call:?} {error}");
                let is_told = reason.contains(cause)
                    && reason.contains(&io::Error::from_raw_os_error(error).to_string());
                assert!(is_told, "{call:?} {error}: {reason}");
            }
        }
    }

    #[test]
    fn res_04_rings_for_all_workers_or_for_none() {
        assert_eq!(probed(Call::Setup, libc::ENOMEM, 1).driver, Driver::Epoll, "the second ring is refused");
        let well = Probed { driver: Driver::IoUring, fallback_reason: None };
        assert_eq!(probed(Call::Setup, libc::ENOMEM, 2), well);
    }

    #[test]
    fn res_04_who_asks_for_io_uring_gets_it_or_an_error_and_who_asks_for_epoll_tries_nothing() {
        let error = refusing(Call::Setup, |_| Some(libc::EPERM), || probe(Choice::IoUring, 1)).unwrap();
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EPERM));
        let (tries, tried) = mpsc::channel();
        let decide = move |_| tries.send(()).err().map(|_| libc::EPERM);
        let probed = refusing(Call::Setup, decide, || probe(Choice::Epoll, 1)).unwrap();
        assert_eq!(probed.unwrap(), Probed { driver: Driver::Epoll, fallback_reason: None });
        assert_eq!(tried.recv(), Err(mpsc::RecvError), "no ring was made");
    }

    #[test]
    fn res_04_a_call_that_fails_for_a_moment_is_made_again() {
        for error in [libc::EAGAIN, libc::EINTR, libc::EBUSY] {
            let decide = move |count| (count % 2 == 0).then_some(error);
            let probed = refusing(Call::Enter, decide, || probe(Choice::IoUring, 1)).unwrap();
            assert_eq!(probed.unwrap().driver, Driver::IoUring, "{error}");
        }
    }
}
