//! The last step before the workers: a snapshot becomes what each of them adopts. Nothing here can fail; what can, did.

use std::sync::Arc;

use policy::{Rng, snapshot::Snapshot};

use super::sockets::Sockets;
use crate::{telemetry::registry::Registry, worker::Order, workers::Workers};

/// Sends the snapshot to every worker, with its counters and with the sockets of listeners that are new.
pub fn publish(
    snapshot: &Arc<Snapshot>,
    sockets: &mut Sockets,
    registry: &mut Registry,
    rng: &mut Rng,
    workers: &Workers,
) {
    let handover = sockets.hand_over(snapshot);
    let bounds = registry.bind(snapshot, rng).into_iter();
    workers.send(bounds.zip(handover.opened).map(|(bound, sockets)| Order::Adopt {
        bound,
        sockets,
        closed: handover.closed.clone(),
    }));
}
