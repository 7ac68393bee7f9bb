//! Registrations of workloads as leases: who is there, who is refused and why, when one that fell silent goes.
//!
//! [`Leases`] (`leases`) is pure: time is an argument. [`Registry`] keeps one behind a lock, publishes what it means and writes
//! it down; `service` is its gRPC side. What a registration says is hostile until it has become a
//! [`Registration`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::model::{Registration, Registrations};

mod leases;
mod service;
mod store;

pub use leases::{Leases, REGISTRATIONS_COUNT_MAX, Refusal};
pub use service::RegistryService;

/// What the registrations mean now.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    /// Those that hold and conflict with no other.
    pub registrations: Arc<Registrations>,
    /// The last change took an endpoint out of service: it should not wait for anything.
    pub urgent: bool,
}

/// One row of `/api/v1/registrations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationRow {
    /// Unique per workload instance.
    pub instance: String,
    /// Namespace of the service.
    pub namespace: String,
    /// The service it adds an endpoint to.
    pub service: String,
    /// Where other proxies reach it.
    pub address: String,
    /// The application's own port.
    pub port: u16,
    /// Labels, for selectors.
    pub labels: BTreeMap<String, String>,
    /// Name of the machine.
    pub host: String,
    /// What the application speaks; empty means HTTP.
    pub app_protocol: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// Whether it finishes what it has.
    pub draining: bool,
    /// Whether its stream is open. If not, it goes when the lease ends.
    pub connected: bool,
    /// Milliseconds until the lease ends, if nothing renews it.
    pub lease_left_ms: u64,
    /// Why it is not used; empty if it is.
    pub refused: String,
    /// What it is in conflict with, on both sides of the conflict; empty if with nothing.
    pub conflict: String,
}

/// The leases of one control plane, shared by its streams.
#[derive(Debug)]
pub struct Registry {
    leases: Mutex<Leases>,
    registered: watch::Sender<Registered>,
    lease: Duration,
    file: PathBuf,
    /// Whether leases of an earlier process were found. If not, workloads that were registered with it may not have
    /// come back yet.
    restored: bool,
}

impl Registry {
    /// Takes up the leases that `file` holds, each as if its stream had broken now, so that a restart removes
    /// nothing and no proxy sees a difference.
    pub fn open(file: PathBuf, lease: Duration, trust_domain: &str) -> Registry {
        let ends = Instant::now() + lease;
        let mut leases = Leases::new(trust_domain.to_owned());
        let stored = store::read(&file);
        let restored = stored.is_some();
        for message in stored.unwrap_or_default() {
            // Written by an older version with other rules, at worst; it is told why when it comes back.
            let _ = leases.register(message, None, ends);
        }
        let registrations = Arc::new(leases.registrations());
        let (registered, _) = watch::channel(Registered { registrations, urgent: false });
        let registry = Registry { leases: Mutex::new(leases), registered, lease, file, restored };
        registry.write();
        registry
    }

    /// What the registrations mean, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Registered> {
        self.registered.subscribe()
    }

    /// How long a registration holds without a sign of life.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Whether leases of an earlier process were found.
    pub fn is_restored(&self) -> bool {
        self.restored
    }

    /// Everything, as the API shows it.
    pub fn rows(&self) -> Vec<RegistrationRow> {
        self.with(|leases| leases.rows(Instant::now()))
    }

    /// Ends leases when their time comes, until every reader of [`Self::watch`] is gone.
    pub async fn expire(&self, mut on_end: impl FnMut(&str)) {
        loop {
            // A lease that is registered meanwhile ends no earlier than this wait does.
            let deadline = self.with(|leases| leases.deadline());
            let until = deadline.unwrap_or_else(|| Instant::now() + self.lease);
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => {}
                () = self.registered.closed() => return,
            }
            let now = Instant::now();
            if self.with(|leases| leases.deadline()).is_none_or(|deadline| deadline > now) {
                continue;
            }
            for instance in self.change(|leases| leases.expire(now)) {
                tracing::info!(instance, "registration ended: no sign of life within the lease");
                on_end(&instance);
            }
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Leases) -> T) -> T {
        // A panic elsewhere leaves the table as whole as it was: every change of it is one call.
        look(&mut self.leases.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the leases; if that changes what they mean, everyone is told.
    fn change<T>(&self, change: impl FnOnce(&mut Leases) -> T) -> T {
        self.with(|leases| {
            let result = change(leases);
            let now = leases.registrations();
            // Under the lock, so that of two changes the later one is told last.
            self.registered.send_if_modified(|registered| {
                let changed = *registered.registrations != now;
                if changed {
                    let urgent = takes_away(&registered.registrations, &now);
                    *registered = Registered { registrations: Arc::new(now), urgent };
                }
                changed
            });
            result
        })
    }

    /// Writes the registrations down after every change, until `stop`; then once more.
    pub async fn keep(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut registered = self.watch();
        tokio::pin!(stop);
        loop {
            let stopping = tokio::select! {
                changed = registered.changed() => changed.is_err(),
                () = &mut stop => true,
            };
            let registry = self.clone();
            // Only fails if the runtime shuts down, which is as good as a crash here.
            let _ = tokio::task::spawn_blocking(move || registry.write()).await;
            if stopping {
                return;
            }
        }
    }

    fn write(&self) {
        let messages: Vec<_> = self.with(|leases| leases.messages().into_iter().cloned().collect());
        if let Err(error) = store::write(&self.file, &messages) {
            let file = self.file.display();
            tracing::warn!(%file, %error, "cannot keep registrations; a restart waits for workloads to come back");
        }
    }
}

/// Whether some endpoint that took requests before does not take them any more.
fn takes_away(before: &Registrations, now: &Registrations) -> bool {
    let takes = |registration: &Registration| registration.ready && !registration.draining;
    before
        .values()
        .filter(|old| takes(old))
        .any(|old| !now.get(&old.instance).is_some_and(|new| takes(new) && new.address == old.address))
}

#[cfg(test)]
mod tests {
    use super::leases::tests::{LEASE, message};
    use super::*;

    #[test]
    fn only_what_takes_an_endpoint_out_of_service_is_urgent() {
        let map = |ready: bool, draining: bool, address: &str| -> Registrations {
            let message = proto::control::Registration { ready, draining, ..message("a", address) };
            [("a".to_owned(), leases::check(&message, "mesh.local").unwrap())].into()
        };
        let serving = map(true, false, "10.0.0.1:80");
        let table = [
            (&serving, Registrations::new(), true),
            (&serving, map(true, true, "10.0.0.1:80"), true),
            (&serving, map(false, false, "10.0.0.1:80"), true),
            (&serving, map(true, false, "10.0.0.2:80"), true),
            (&serving, serving.clone(), false),
            (&map(false, false, "10.0.0.1:80"), serving.clone(), false),
            (&map(true, true, "10.0.0.1:80"), Registrations::new(), false),
        ];
        for (before, now, urgent) in table {
            assert_eq!(takes_away(before, &now), urgent, "{before:?} -> {now:?}");
        }
    }

    #[test]
    fn a_restart_takes_up_the_leases_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registrations");
        let first = Registry::open(file.clone(), LEASE, "mesh.local");
        assert!(!first.is_restored());
        let ends = Instant::now() + LEASE;
        first.change(|leases| leases.register(message("z", "10.0.0.1:80"), Some(1), ends)).unwrap();
        first.change(|leases| leases.register(message("b", "10.0.0.2:80"), Some(2), ends)).unwrap();
        first.write();
        let second = Registry::open(file, LEASE, "mesh.local");
        assert!(second.is_restored());
        assert_eq!(second.watch().borrow().registrations, first.watch().borrow().registrations);
        assert!(second.rows().iter().all(|row| !row.connected && row.lease_left_ms > 0));
        let orders =
            second.with(|leases| leases.messages().iter().map(|m| m.instance.clone()).collect::<Vec<_>>());
        assert_eq!(orders, ["z", "b"]);
    }
}
