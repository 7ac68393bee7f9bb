//! What the control plane sends: judged, answered, taken in.

use std::{sync::Arc, time::Instant};

use policy::snapshot::Listener;
use proto::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use translate::assemble::{RejectedVersion, Update};

use super::{ControlThread, STATE_WRITE_DELAY};
use crate::{
    report,
    state::LastGood,
    xds::{
        Kind,
        session::Refused,
        sockets::Sockets,
        transport::{self, Event},
    },
};

impl ControlThread {
    pub(super) fn on_discovery(&mut self, event: Event) {
        let Some(session) = &mut self.session else { return };
        match event {
            Event::Opening(requests) => {
                self.requests = Some(requests);
                for request in session.open(Instant::now()) {
                    self.send(request);
                }
            }
            Event::Opened(channel) => {
                tracing::debug!("stream to the control plane opened");
                self.stop_reporting();
                if let Some(control_plane) = &self.bootstrap.control_plane {
                    let states = (self.active.subscribe(), self.plaintext.subscribe());
                    let report = report::run(channel, control_plane.clone(), self.identity.clone(), states);
                    self.reports = Some(tokio::spawn(report));
                }
            }
            Event::Response(response) => {
                if let Some(after) = self.outage.on_answer(Instant::now()) {
                    tracing::info!(?after, "connected to the control plane");
                }
                self.on_response(response);
            }
            Event::Closed { reason, retry_in } => {
                session.close();
                self.requests = None;
                self.stop_reporting();
                let reason = transport::chain(&reason);
                match self.outage.on_closed(Instant::now(), retry_in) {
                    true => tracing::warn!(reason, "no control plane; the last good configuration serves"),
                    false => tracing::debug!(reason, ?retry_in, "stream to the control plane ended"),
                }
                self.go_on_without_what_is_missing();
            }
        }
    }

    /// A proxy that starts from its last good configuration waits for nothing that is not in it once it knows that nobody
    /// can send it: a cluster that never had endpoints must not keep all others from serving. One that starts from nothing
    /// waits; its control plane may only be later than it.
    fn go_on_without_what_is_missing(&mut self) {
        if self.is_live || !self.is_restored {
            return;
        }
        let missing = Kind::NAMED.map(|kind| {
            let names = self.assembler.missing(kind.type_url());
            names.into_iter().map(move |name| (kind, name))
        });
        let absent = missing.into_iter().flatten().map(|(kind, name)| {
            tracing::warn!(kind = kind.word(), %name, "not in the last good configuration, and nobody can send it");
            Update::Absent { type_url: kind.type_url(), name: name.to_string() }
        });
        self.take(absent.collect());
    }

    pub(super) fn is_connected(&self) -> bool {
        self.reports.is_some()
    }

    fn stop_reporting(&mut self) {
        if let Some(reports) = self.reports.take() {
            reports.abort();
        }
    }

    /// Judges every resource by itself, answers at once, then takes in what is good.
    fn on_response(&mut self, response: DeltaDiscoveryResponse) {
        let Some(session) = &mut self.session else { return };
        let mut batch = session.receive(response);
        let mut refused = std::mem::take(&mut batch.faults);
        let mut updates = Vec::new();
        if let Some(kind) = batch.kind {
            let absent = batch
                .removed
                .iter()
                .map(|name| Update::Absent { type_url: kind.type_url(), name: name.clone() });
            updates.extend(absent);
            let judged =
                judge(kind, &batch.resources, |name| self.assembler.is_static(kind.type_url(), name));
            let removed = if kind == Kind::Listener { &batch.removed[..] } else { &[] };
            let accepted = reserve(&mut self.sockets, judged.accepted, removed, &mut refused);
            refused.extend(judged.refused);
            updates.extend(accepted);
            let rejected = refused.iter().filter(|refused| !refused.name.is_empty()).map(|refused| {
                let rejected =
                    RejectedVersion { version: refused.version.clone(), reason: refused.reason.clone() };
                Update::Rejected { type_url: kind.type_url(), name: refused.name.clone(), rejected }
            });
            updates.extend(rejected);
            updates.push(Update::Revision { type_url: kind.type_url(), revision: batch.revision.clone() });
            let good = |resource: &&Resource| !refused.iter().any(|refused| refused.name == resource.name);
            remember(
                &mut self.last_good,
                kind,
                batch.resources.iter().filter(good),
                &batch.removed,
                &batch.revision,
            );
        }
        for refused in &refused {
            let (name, version) = (&refused.name, &refused.version);
            tracing::warn!(
                name,
                version,
                reason = refused.reason,
                "resource refused, the last good one serves"
            );
        }
        let answer = session.answer(&batch, &refused);
        self.send(answer);
        if let Some(kind) = batch.kind {
            self.count(kind, refused.len());
        }
        self.state_due.get_or_insert_with(|| Instant::now() + STATE_WRITE_DELAY);
        self.take(updates);
    }

    fn count(&mut self, kind: Kind, refused: usize) {
        if let Some((_, discovered)) = self.discovery.iter_mut().find(|(of, _)| *of == kind) {
            discovered.responses += 1;
            discovered.refused += refused as u64;
        }
    }

    /// Asks for what the configuration refers to by name now, and no longer for what it does not.
    pub(super) fn subscribe(&mut self) {
        let now = Instant::now();
        for kind in Kind::NAMED {
            let wanted = self.assembler.wanted(kind.type_url());
            self.last_good.retain(kind, |name| wanted.contains_key(name));
            let request = self.session.as_mut().and_then(|session| session.subscribe(kind, wanted, now));
            if let Some(request) = request {
                self.send(request);
            }
        }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) {
        let Some(requests) = &self.requests else { return };
        if requests.try_send(request).is_err() {
            // Nobody reads on the other end: without a sender the stream ends, and a new one begins from what is here.
            self.requests = None;
        }
    }
}

/// Resources, judged.
pub(super) struct Judged {
    pub(super) accepted: Vec<Update>,
    pub(super) refused: Vec<Refused>,
}

/// Translates each resource by itself. `is_static` tells names that the bootstrap file has taken.
pub(super) fn judge(kind: Kind, resources: &[Resource], is_static: impl Fn(&str) -> bool) -> Judged {
    let mut judged = Judged { accepted: Vec::new(), refused: Vec::new() };
    for resource in resources {
        let reason = match translate::resource(kind.type_url(), resource) {
            Ok(_) if is_static(&resource.name) => {
                format!("name: the bootstrap file has a {} of this name", kind.word())
            }
            Ok(update) => {
                judged.accepted.push(update);
                continue;
            }
            Err(rejected) => rejected.fault.to_string(),
        };
        judged.refused.push(Refused {
            name: resource.name.clone(),
            version: resource.version.clone(),
            reason,
        });
    }
    judged
}

/// Binds the addresses of listeners among `updates`; leaves out those that cannot be had and adds them to `refused`.
pub(super) fn reserve(
    sockets: &mut Sockets,
    mut updates: Vec<Update>,
    removed: &[String],
    refused: &mut Vec<Refused>,
) -> Vec<Update> {
    let of = |update: &Update| match update {
        Update::Listener(listener) => Some((listener.value.value.clone(), listener.version.clone())),
        _ => None,
    };
    let listeners: Vec<(Arc<Listener>, Arc<str>)> = updates.iter().filter_map(of).collect();
    if listeners.is_empty() && removed.is_empty() {
        return updates;
    }
    let values: Vec<&Listener> = listeners.iter().map(|(listener, _)| &**listener).collect();
    let failed = sockets.reserve(&values, removed);
    for (name, error) in failed {
        updates.retain(|update| !matches!(update, Update::Listener(listener) if listener.name == name));
        let version = listeners.iter().find(|(listener, _)| listener.name == name);
        let version = version.map(|(_, version)| version.to_string()).unwrap_or_default();
        refused.push(Refused { name: name.to_string(), version, reason: error.to_string() });
    }
    updates
}

fn remember<'a>(
    last_good: &mut LastGood,
    kind: Kind,
    good: impl Iterator<Item = &'a Resource>,
    removed: &[String],
    revision: &str,
) {
    good.for_each(|resource| last_good.insert(kind, resource));
    removed.iter().for_each(|name| last_good.remove(kind, name));
    last_good.set_revision(kind, revision);
}
