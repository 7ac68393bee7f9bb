//! What `ringway run` and `ringway gateway` say while they run: lines on standard error, which is all they may use.

use std::io::{self, Write as _};

use crate::sidecar::lease::LeaseStatus;
use crate::sidecar::process::Life;

/// One line, in one write: proxy and application say theirs at the same time.
pub(super) fn say(line: &str) {
    // Standard error that cannot be written to leaves nowhere to say so.
    let _ = io::stderr().write_all(format!("ringway: {line}\n").as_bytes());
}

/// What became of the proxy, as far as it is news.
pub(super) fn tell_life(life: &Life) {
    match life {
        Life::Starting { .. } | Life::Failed { .. } | Life::Stopped => {}
        Life::Ready { after, .. } => {
            say(&format!("proxy ready again in {} ms, same ports", after.as_millis()))
        }
        Life::Down { why, again_in } => {
            say(&format!("the proxy {why}; starting it again in {} ms", again_in.as_millis()));
        }
    }
}

/// What became of the registration.
pub(super) fn tell_registration(status: &LeaseStatus) {
    match status {
        LeaseStatus::Pending | LeaseStatus::Draining => {}
        LeaseStatus::Held => say("registered"),
        LeaseStatus::Refused(reason) => say(&format!("registration refused: {reason}")),
        LeaseStatus::Unreachable(reason) => {
            say(&format!("the control plane is away ({reason}); the proxy goes on with what it has"));
        }
    }
}
