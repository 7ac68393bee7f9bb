//! Protocols in which the server speaks first, on connections of which it is not declared what they speak.
//!
//! Faces hostile bytes, of which it looks at none.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hashbrown::HashMap;
use policy::{limits, network_filter::TcpProxy};
use runtime::{Buffer, Deadline, Io, timer::Rung};

use crate::{
    origin::Origin,
    tcp::{self, Upstream},
    transport,
    worker::Worker,
};

/// The destinations of a worker where the server spoke first, each with when that is forgotten.
#[derive(Debug, Default)]
pub struct ServerFirst(RefCell<HashMap<SocketAddr, Deadline>>);

impl ServerFirst {
    /// Whether the server spoke first at `destination`, not long ago.
    pub fn knows(&self, destination: SocketAddr, now: u64) -> bool {
        self.0.borrow().get(&destination).is_some_and(|until| now < until.0)
    }

    /// It did.
    pub fn remember(&self, destination: SocketAddr, now: u64) {
        let mut known = self.0.borrow_mut();
        if known.len() >= limits::SERVER_FIRST_DESTINATIONS_MAX && !known.contains_key(&destination) {
            // Some of them will be learnt again.
            known.retain(|_, until| now < until.0);
            if known.len() >= limits::SERVER_FIRST_DESTINATIONS_MAX {
                known.clear();
            }
        }
        known.insert(destination, Deadline::after(now, limits::SERVER_FIRST_REMEMBERED));
    }
}

/// Who spoke first on a connection.
pub(crate) enum First<I: Io> {
    /// The client, with these bytes; or it closed, or the connection shall end.
    Client(Buffer),
    /// The server, with these bytes.
    Server(Upstream<I>, Buffer),
    /// Nobody in time.
    Nobody,
}

/// A connection to the server on its way. It is made in a task of its own, so that nobody has to wait for its end.
struct Dialed<I: Io> {
    upstream: Cell<Option<Upstream<I>>>,
    waker: RefCell<Option<Waker>>,
}

/// Waits until either side speaks, no longer than `until`. The server is connected to when the client has been silent for
/// `silence`.
pub(crate) async fn wait<I: Io>(
    worker: &Rc<Worker<I>>,
    recv: &mut transport::Recv<I>,
    proxy: &Arc<TcpProxy>,
    origin: &Origin,
    (silence, until): (Duration, Deadline),
) -> First<I> {
    let alarm = recv.cancel_handle();
    let dials_at = Deadline::after(worker.io.now(), silence).min(until);
    let mut dialed: Option<Rc<Dialed<I>>> = None;
    alarm.set(dials_at);
    let first = poll_fn(|cx| {
        loop {
            if let Some(bytes) = received(worker, recv, cx) {
                return Poll::Ready(First::Client(bytes));
            }
            if let Some(dialed) = &dialed
                && let Some(mut upstream) = dialed.upstream.take()
            {
                match received(worker, &mut upstream.recv, cx) {
                    // It ended without a word, and may have waited for the client's.
                    Some(bytes) if bytes.is_empty() => worker.buffers.put(bytes),
                    Some(bytes) => return Poll::Ready(First::Server(upstream, bytes)),
                    None => dialed.upstream.set(Some(upstream)),
                }
            }
            if let Some(dialed) = &dialed {
                *dialed.waker.borrow_mut() = Some(cx.waker().clone());
            }
            match alarm.poll_rung(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Rung::Cancelled) => return Poll::Ready(First::Client(Buffer::default())),
                Poll::Ready(Rung::TimedOut) if worker.io.now() >= until.0 => {
                    return Poll::Ready(First::Nobody);
                }
                Poll::Ready(Rung::TimedOut) => {
                    alarm.set(until);
                    dialed.get_or_insert_with(|| dial(worker, proxy, origin));
                }
            }
        }
    })
    .await;
    alarm.set(Deadline::NEVER);
    first
}

/// What came, if anything: empty where it was an end.
fn received<I: Io>(
    worker: &Worker<I>,
    recv: &mut transport::Recv<I>,
    cx: &mut Context<'_>,
) -> Option<Buffer> {
    while recv.poll_readable(cx).is_ready() {
        let mut bytes = worker.buffers.take();
        match recv.try_recv(&mut bytes) {
            Some(Ok(_)) => return Some(bytes),
            Some(Err(_)) => {
                worker.buffers.put(bytes);
                return Some(Buffer::default());
            }
            // Readiness was told early.
            None => worker.buffers.put(bytes),
        }
    }
    None
}

fn dial<I: Io>(worker: &Rc<Worker<I>>, proxy: &Arc<TcpProxy>, origin: &Origin) -> Rc<Dialed<I>> {
    let dialed = Rc::new(Dialed { upstream: Cell::new(None), waker: RefCell::default() });
    let (dialing, of, proxy, origin) = (dialed.clone(), worker.clone(), proxy.clone(), origin.clone());
    worker.io.spawn(async move {
        dialing.upstream.set(tcp::connect(&of, &proxy, &origin).await);
        if let Some(waker) = dialing.waker.take() {
            waker.wake();
        }
    });
    dialed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_remembered_for_a_time_and_within_a_bound() {
        let known = ServerFirst::default();
        let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
        assert!(!known.knows(at(1), 0));
        known.remember(at(1), 0);
        let forgotten = Deadline::after(0, limits::SERVER_FIRST_REMEMBERED).0;
        assert!(known.knows(at(1), forgotten - 1) && !known.knows(at(1), forgotten));
        for port in 0..2000 {
            known.remember(at(port), 1);
            assert!(known.knows(at(port), 2));
            assert!(known.0.borrow().len() <= limits::SERVER_FIRST_DESTINATIONS_MAX);
        }
    }
}
