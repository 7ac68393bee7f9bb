//! The signals that a wrapper passes on to what it wraps, and where each of them came from.
//!
//! A terminal sends Ctrl-C to everyone in the foreground, so an application in our process group has it already; what
//! another process sends to us alone has to be passed on.

use std::collections::BTreeSet;
use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::backend::Handle;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use tokio::sync::mpsc;

const PASSED_ON: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// One signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub number: i32,
    /// The kernel sent it, for a terminal: the whole process group has it.
    pub from_terminal: bool,
}

impl Received {
    /// Whether it asks a program to end.
    pub fn ends(self) -> bool {
        !matches!(self.number, SIGUSR1 | SIGUSR2)
    }
}

/// Signals sent to this process, from [`Self::listen`] on. A signal that was ignored when this process started stays
/// ignored, for us and for what we start (`nohup`).
#[derive(Debug)]
pub struct Signals {
    receiver: mpsc::UnboundedReceiver<Received>,
    handle: Handle,
}

impl Signals {
    /// Takes over the signals that are passed on.
    pub fn listen() -> io::Result<Signals> {
        let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
        let wanted = PASSED_ON.iter().filter(|number| !ignored.contains(number));
        let mut signals = SignalsInfo::<WithOrigin>::new(wanted)?;
        let handle = signals.handle();
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for origin in signals.forever() {
                let from_terminal = origin.cause == Cause::Kernel;
                if sender.send(Received { number: origin.signal, from_terminal }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Signals { receiver, handle })
    }

    /// The next one.
    pub async fn next(&mut self) -> Received {
        match self.receiver.recv().await {
            Some(received) => received,
            // The thread ends only with this value.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The signals that `/proc/self/status` lists as ignored.
fn ignored(status: &str) -> BTreeSet<i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    (1..=64).filter(|number| mask >> (number - 1) & 1 == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tringway\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\t0000000000000000\n";
        assert_eq!(ignored(status), BTreeSet::from([SIGHUP, SIGINT, 13]));
        assert_eq!(ignored("Name:\tringway\n"), BTreeSet::new());
    }
}
