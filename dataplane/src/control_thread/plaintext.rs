//! Who comes in plain text where others come secured, as the control plane is told.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proto::control::{Plaintext, PlaintextSource};
use tokio::sync::watch;

use super::ControlThread;
use crate::telemetry::metrics;

/// Pause between two tellings: callers are many, and what they do is looked at by people.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What was told last, and when.
#[derive(Debug)]
pub(super) struct Known {
    told: watch::Sender<Option<Plaintext>>,
    /// Connections that were counted then.
    connections: u64,
    next: Instant,
}

impl Known {
    pub(super) fn new(now: Instant) -> Known {
        Known { told: watch::Sender::new(None), connections: 0, next: now }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Plaintext>> {
        self.told.subscribe()
    }

    fn open_since_unix_ms(&self) -> i64 {
        self.told.borrow().as_ref().map_or(0, |told| told.open_since_unix_ms)
    }
}

impl ControlThread {
    /// Tells of what is new since the last time, if anything is.
    pub(super) fn look_at_plaintext(&mut self, now: Instant) {
        if self.bootstrap.control_plane.is_none() || now < self.plaintext.next {
            return;
        }
        let before = self.plaintext.open_since_unix_ms();
        let unix_ms = unix_ms();
        let open_since_unix_ms = match self.takes_plaintext() {
            true if before > 0 => before,
            true => unix_ms,
            false => 0,
        };
        let stats = self.registry.listeners.values().flatten();
        let counts = stats.map(|stats| stats.plaintext.connections.get());
        let connections = counts.fold(0, u64::wrapping_add);
        if open_since_unix_ms == before && connections == self.plaintext.connections {
            return;
        }
        self.plaintext.connections = connections;
        self.plaintext.next = now + TELL_EVERY;
        let now = self.workers.now();
        let sources = self.registry.listeners.values().flat_map(|workers| metrics::sources(workers));
        let sources = sources.map(|source| PlaintextSource {
            address: source.address.to_string(),
            connections: source.connections,
            last_seen_unix_ms: unix_ms - millis(Duration::from_nanos(now.saturating_sub(source.seen))),
        });
        let known = Plaintext { open_since_unix_ms, sources: sources.collect() };
        self.plaintext.told.send_replace(Some(known));
    }

    /// Whether some listener takes plain connections beside those whose TLS ends there.
    fn takes_plaintext(&self) -> bool {
        let mut listeners = self.snapshot.listeners.iter().map(|(_, listener)| &listener.filter_chains);
        listeners.any(|chains| chains.ends_tls() && chains.iter().any(|chain| chain.is_plain()))
    }
}

fn unix_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
