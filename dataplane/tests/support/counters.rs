//! What was counted, over all workers of a mesh.

use dataplane::telemetry::metrics::sources;

use super::{
    APP, Ground, LISTENER, Mesh,
    snapshots::{Row, sum},
};

impl<I: Ground> Mesh<I> {
    /// A counter of the connection manager, over all workers.
    pub(crate) fn http(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        let blocks = binder.registry.http.values().next().unwrap();
        of_name(name, sum(blocks, |block| block.counters.each().collect()))
    }

    /// A counter of what rules for requests said, over all workers.
    pub(crate) fn rbac(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        let blocks = binder.registry.http.values().next().unwrap();
        of_name(name, sum(blocks, |block| block.rbac.each().collect()))
    }

    /// A counter of what rules for connections said, over all workers.
    pub(crate) fn connecting(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        let blocks = binder.registry.rbac.values().next().unwrap();
        of_name(name, sum(blocks, |block| block.each().collect()))
    }

    /// A counter of [`LISTENER`], over all workers.
    pub(crate) fn listener(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        of_name(name, sum(&binder.registry.listeners[LISTENER], |block| block.counters.each().collect()))
    }

    /// Connections in plain text to [`LISTENER`], where TLS ends there, too: all of them, and those of each source.
    pub(crate) fn plaintext(&self) -> (u64, Vec<u64>) {
        let binder = self.binder.borrow();
        let workers = &binder.registry.listeners[LISTENER];
        let all = workers.iter().map(|stats| stats.plaintext.connections.get()).sum();
        (all, sources(workers).map(|source| source.connections).collect())
    }

    /// A counter of the handshakes at [`LISTENER`], over all workers.
    pub(crate) fn secured(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        of_name(name, sum(&binder.registry.listeners[LISTENER], |block| block.tls.each().collect()))
    }

    /// A counter of [`APP`], over all workers.
    pub(crate) fn upstream(&self, name: &str) -> u64 {
        let binder = self.binder.borrow();
        of_name(name, sum(&binder.registry.clusters[APP], |block| block.counters.each().collect()))
    }
}

fn of_name(name: &str, rows: Vec<Row>) -> u64 {
    rows.into_iter().find(|(known, ..)| *known == name).unwrap().2
}
