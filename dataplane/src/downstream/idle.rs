//! A connection between two exchanges, and its end.
//!
//! Faces hostile bytes, of which it looks at none.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use runtime::{Buffer, Deadline, Io, timer::Alarm};

use crate::{
    origin::Origin,
    telemetry::metrics::HttpStats,
    transport,
    upstream::Owner,
    worker::{Bound, Worker},
};

/// The connection itself: all that is left of one at rest.
pub struct Connection<I: Io> {
    /// The receiving half.
    pub recv: transport::Recv<I>,
    /// The sending half.
    pub send: transport::Send<I>,
    /// Where it came from.
    pub origin: Origin,
    /// Marks the upstream connections that are its own.
    pub owner: Owner,
    /// It sent FIN, or is broken.
    pub is_ended: bool,
    /// The other end asked for its end with a request that came whole, and nothing came behind: it will send no more.
    pub is_finished: bool,
    /// From then on it ends with its next response: it has lived as long as it may.
    pub ages_at: Deadline,
    /// Requests it has carried.
    pub(super) requests_count: u32,
    /// See [`HttpConnectionManager::drain_timeout`](policy::network_filter::HttpConnectionManager::drain_timeout).
    pub(super) drain_timeout: Duration,
    /// See
    /// [`HttpConnectionManager::delayed_close_timeout`](policy::network_filter::HttpConnectionManager::delayed_close_timeout).
    pub(super) delayed_close_timeout: Duration,
    /// How much may be thrown away in that time, in bytes.
    pub(super) thrown_away_max: u64,
}

/// What the worker knows of a connection, to end it while it waits for a request, or for the bytes that tell what it is.
#[derive(Debug)]
pub struct Waiting {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// Ends its receive.
    pub cancel: Alarm,
    /// It waits for a request.
    pub waits: Cell<bool>,
    /// The last snapshot in which it had a place, for a request that is on its way already.
    pub last: RefCell<Option<Rc<Bound>>>,
    /// Where it stands among the worker's connections.
    pub at: Cell<usize>,
}

/// How long a connection waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// Then it is closed.
    until: Deadline,
    /// It has no place any more.
    is_retiring: bool,
    /// Its connection manager is of the snapshot in use.
    is_current: bool,
}

/// What a wait ended with.
pub(super) enum Next {
    /// The first bytes of a request.
    Bytes(Buffer),
    /// None yet.
    NotYet,
    /// None will come.
    Never,
}

/// How long after an exchange the next one is likely.
pub(super) const LIKELY: Duration = Duration::from_secs(1);

impl Rest {
    /// A wait that begins `now` and lasts at most `timeout`.
    pub(super) fn begin(now: u64, timeout: Option<Duration>, is_current: bool) -> Rest {
        let until = timeout.map_or(Deadline::NEVER, |wait| Deadline::after(now, wait));
        Rest { until, is_retiring: false, is_current }
    }
}

impl<I: Io> Connection<I> {
    /// Waits at rest for the first bytes of a request; `None` when none will come.
    pub(super) async fn rest(
        &mut self,
        worker: &Worker<I>,
        mut rest: Rest,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> Option<Buffer> {
        // It holds no snapshot, so nothing says that it still has a place.
        rest.is_current = false;
        match self.bytes(worker, &mut rest, Deadline::NEVER, waiting, stats).await {
            Next::Bytes(bytes) => Some(bytes),
            Next::NotYet | Next::Never => None,
        }
    }

    /// Waits for the first bytes of a request, no longer than `likely_until` unless it is about to end anyway. No buffer is
    /// held meanwhile.
    pub(super) async fn bytes(
        &mut self,
        worker: &Worker<I>,
        rest: &mut Rest,
        likely_until: Deadline,
        waiting: &Waiting,
        stats: &HttpStats,
    ) -> Next {
        waiting.waits.set(true);
        let next = loop {
            if !rest.is_retiring && self.is_retiring(worker, rest.is_current, waiting) {
                rest.is_retiring = true;
                rest.until = rest.until.min(retire_at(worker, self.drain_timeout));
            }
            let until = match rest.is_retiring {
                true => rest.until,
                false => rest.until.min(likely_until).min(self.ages_at),
            };
            match self.recv.readable(until).await.map_err(|error| error.kind()) {
                Ok(()) => {}
                // Somebody wants it to end: the top of the loop looks.
                Err(io::ErrorKind::Interrupted) => continue,
                // It has become too old.
                Err(io::ErrorKind::TimedOut) if worker.io.now() < rest.until.min(likely_until).0 => continue,
                Err(io::ErrorKind::TimedOut) if worker.io.now() < rest.until.0 => break Next::NotYet,
                Err(io::ErrorKind::TimedOut) => {
                    if !rest.is_retiring {
                        stats.counters.downstream_cx_idle_timeout.inc();
                    }
                    break Next::Never;
                }
                Err(_) => {
                    self.is_ended = true;
                    break Next::Never;
                }
            }
            let mut buffer = worker.buffers.take();
            match self.recv.try_recv(&mut buffer) {
                Some(Ok(count)) if count > 0 => {
                    stats.counters.downstream_cx_rx_bytes_total.add(count as u64);
                    break Next::Bytes(buffer);
                }
                Some(_) => {
                    self.is_ended = true;
                    worker.buffers.put(buffer);
                    break Next::Never;
                }
                // Readiness was told early.
                None => worker.buffers.put(buffer),
            }
        };
        waiting.waits.set(false);
        next
    }

    /// Whether the connection has no place any more.
    fn is_retiring(&self, worker: &Worker<I>, is_current: bool, waiting: &Waiting) -> bool {
        worker.is_draining()
            || waiting.last.borrow().is_some()
            || worker.io.now() >= self.ages_at.0
            || !is_current && worker.bound().snapshot.listeners.position(&self.origin.listener).is_none()
    }

    /// FIN, then throws away for a while what still comes: closing a socket with unread bytes would send RST, and the
    /// other end could lose our last answer (RFC 9112 §9.6). An other end that will send no more is not waited for.
    pub(super) async fn close(&mut self, worker: &Worker<I>) {
        while self.is_finished && !self.is_ended {
            if self.recv.poll_readable(&mut Context::from_waker(Waker::noop())).is_pending() {
                return;
            }
            // Unless that was told early, it does not keep its word.
            self.is_finished = self.throw_away(worker) == 0;
        }
        let until = Deadline::after(worker.io.now(), self.delayed_close_timeout);
        if self.send.finish(until).await.is_err() || self.is_ended {
            return;
        }
        // The wait's own deadline ends it only when nothing comes.
        let mut left = self.thrown_away_max;
        while left > 0
            && worker.io.now() < until.0
            && !self.is_ended
            && self.recv.readable(until).await.is_ok()
        {
            left = left.saturating_sub(self.throw_away(worker) as u64);
        }
    }

    /// Receives what nobody wants; how many bytes.
    fn throw_away(&mut self, worker: &Worker<I>) -> usize {
        let mut thrown_away = worker.buffers.take();
        let received = self.recv.try_recv(&mut thrown_away);
        worker.buffers.put(thrown_away);
        self.is_ended |= matches!(received, Some(Ok(0) | Err(_)));
        match received {
            Some(Ok(count)) => count,
            Some(Err(_)) | None => 0,
        }
    }
}

impl Waiting {
    /// A connection of `listener` that does not wait yet; `cancel` ends its receive.
    pub fn new(listener: Arc<str>, cancel: Alarm) -> Waiting {
        Waiting { listener, cancel, waits: Cell::new(false), last: RefCell::default(), at: Cell::new(0) }
    }
}

/// When a connection that waits and shall end does. A request that comes in this time is answered, with a close announced;
/// so a connection in use never ends in the face of a request. The second half of it is drawn, so that not all end at once.
pub(crate) fn retire_at<I: Io>(worker: &Worker<I>, drain_timeout: Duration) -> Deadline {
    let half = drain_timeout / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    let drawn = worker.rng.borrow_mut().below(nanos.max(1));
    Deadline::after(worker.io.now(), half + Duration::from_nanos(drawn))
}
