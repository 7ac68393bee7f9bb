//! Idle connections that go from one worker to another.
//!
//! A worker whose pool has none for an endpoint looks at what the others have ([`policy::lending`]) and asks one of them,
//! through its mailbox. What it gets is as if it had been idle here. It waits for it no longer than
//! [`limits::LOAN_WAIT_MAX`]; what comes later goes into the pool. Of all this nothing happens while the pool has a
//! connection, or when there is only one worker.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use policy::{
    endpoint::{EndpointId, EndpointState, WorkerId},
    lending, limits,
    tls::UpstreamTls,
};
use runtime::{Deadline, Io, timer::Alarm};

use super::{Connection, Open, Watch};
use crate::{
    telemetry::metrics::ClusterStats,
    transport,
    worker::{Order, Worker},
};

/// Names an ask among those of the worker that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(u64);

/// A worker asks another for a connection.
#[derive(Debug)]
pub struct Ask {
    endpoint: EndpointId,
    from: WorkerId,
    ticket: Ticket,
    /// When nobody waits for it any more. The workers' clocks are one.
    until: Deadline,
    /// Counters of the cluster, those of the worker that asks.
    stats: Arc<ClusterStats>,
}

/// What became of an ask.
pub struct Answer<I: Io> {
    ticket: Ticket,
    loan: Option<Loan<I>>,
}

/// A connection on its way, with what it goes on with.
struct Loan<I: Io> {
    stream: transport::Stream<I>,
    endpoint: EndpointId,
    tls: Option<Arc<UpstreamTls>>,
    idle_timeout: Option<Duration>,
    ages_at: Deadline,
    requests_left: u32,
    stats: Arc<ClusterStats>,
}

/// The asks of one worker that have no answer yet, or one that nobody has taken.
pub struct Asks<I: Io> {
    last: Cell<u64>,
    waiting: RefCell<Vec<Waiting<I>>>,
}

struct Waiting<I: Io> {
    ticket: Ticket,
    endpoint: EndpointId,
    lender: usize,
    exchange: Waker,
    answer: Poll<Option<Connection<I>>>,
    /// Nobody waits for it any more. It counts until it is answered, so that who does not answer is not asked for ever.
    is_abandoned: bool,
}

/// A connection that another worker can spare; `None` when nobody can, or it does not come in time. `alarm` is the caller's.
pub async fn borrow<I: Io>(
    worker: &Worker<I>,
    endpoint: &EndpointState,
    stats: &Arc<ClusterStats>,
    (alarm, deadline): (&Alarm, Deadline),
) -> Option<Connection<I>> {
    let lender = worker.asks.lender(worker.id, endpoint)?;
    let ticket = worker.asks.begin(endpoint.id(), lender);
    let until = Deadline::after(worker.io.now(), limits::LOAN_WAIT_MAX).min(deadline);
    let ask = Ask { endpoint: endpoint.id(), from: worker.id, ticket, until, stats: stats.clone() };
    worker.colleagues.tell(lender, Order::Lend(ask));
    alarm.set(until);
    poll_fn(|cx| match worker.asks.poll_answered(ticket, cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => alarm.poll_rung(cx).map(drop),
    })
    .await;
    alarm.set(Deadline::NEVER);
    worker.asks.end(ticket)
}

/// Gives a connection that can be spared to the worker that asks, or tells it that there is none. An ask that is read too late
/// gets none: who asked has made one by now, and needs no other.
pub(crate) fn lend<I: Io>(worker: &Rc<Worker<I>>, ask: Ask) {
    let is_late = worker.io.now() >= ask.until.0;
    let spare = if is_late { None } else { worker.pools.spare(ask.endpoint) };
    let Some(connection) = spare else { return answer(worker, &ask, None) };
    let lender = worker.clone();
    worker.io.spawn(async move {
        let loan = detach(&lender, connection, &ask.stats).await;
        answer(&lender, &ask, loan);
    });
}

fn answer<I: Io>(worker: &Worker<I>, ask: &Ask, loan: Option<Loan<I>>) {
    worker.colleagues.tell(ask.from.0.into(), Order::Lent(Answer { ticket: ask.ticket, loan }));
}

async fn detach<I: Io>(
    worker: &Rc<Worker<I>>,
    connection: Connection<I>,
    stats: &Arc<ClusterStats>,
) -> Option<Loan<I>> {
    let Connection { recv, send, reused, has_surplus, mut open } = connection;
    match transport::detach(&worker.io, recv, send).await {
        Ok(stream) => {
            open.is_lent = true;
            worker.stats.counters.upstream_cx_lent.inc();
            Some(Loan {
                stream,
                endpoint: open.watch.id,
                tls: open.watch.tls.clone(),
                idle_timeout: open.watch.idle_timeout,
                ages_at: open.watch.ages_at,
                requests_left: open.watch.requests_left.get(),
                stats: stats.clone(),
            })
        }
        // Something came, which ends it; or no descriptor was free.
        Err((recv, send)) => {
            worker.pools.put(&worker.io, Connection { recv, send, reused, has_surplus, open });
            None
        }
    }
}

/// Takes on what became of an ask.
pub(crate) fn take_on<I: Io>(worker: &Rc<Worker<I>>, Answer { ticket, loan }: Answer<I>) {
    let connection = loan.and_then(|loan| loan.attach(worker).ok());
    if connection.is_some() {
        worker.stats.counters.upstream_cx_borrowed.inc();
    }
    if let Some(late) = worker.asks.answer(ticket, connection) {
        worker.pools.put(&worker.io, late);
    }
}

impl<I: Io> Loan<I> {
    fn attach(self, worker: &Worker<I>) -> io::Result<Connection<I>> {
        let Loan { stream, endpoint, tls, idle_timeout, ages_at, requests_left, stats } = self;
        let (recv, send) = transport::attach(&worker.io, stream, &worker.buffers)
            .inspect_err(|_| stats.counters.upstream_cx_destroy_local.inc())?;
        stats.counters.upstream_cx_active.inc();
        let watch = Watch {
            id: endpoint,
            tls,
            owner: None,
            idle_timeout,
            ages_at,
            requests_left: Cell::new(requests_left),
            is_idle: Cell::new(false),
            is_gone: Cell::new(false),
            alarm: recv.cancel_handle(),
            task: RefCell::default(),
        };
        let open = Open { end: None, is_lent: false, stats, watch: Rc::new(watch) };
        Ok(Connection { recv, send, reused: true, has_surplus: false, open })
    }
}

impl<I: Io> Default for Asks<I> {
    fn default() -> Asks<I> {
        Asks { last: Cell::new(0), waiting: RefCell::default() }
    }
}

impl<I: Io> Asks<I> {
    /// Whom to ask: who has most beside what it is asked for already.
    fn lender(&self, own: WorkerId, endpoint: &EndpointState) -> Option<usize> {
        let waiting = self.waiting.borrow();
        let asked_of = |position: usize| {
            let same = |ask: &&Waiting<I>| ask.lender == position && ask.endpoint == endpoint.id();
            waiting.iter().filter(same).count()
        };
        let others = endpoint.idle().enumerate().filter(|(position, _)| *position != usize::from(own.0));
        lending::lender(others.map(|(position, idle)| (position, idle.saturating_sub(asked_of(position)))))
    }

    fn begin(&self, endpoint: EndpointId, lender: usize) -> Ticket {
        let ticket = Ticket(self.last.get() + 1);
        self.last.set(ticket.0);
        let exchange = Waker::noop().clone();
        self.waiting.borrow_mut().push(Waiting {
            ticket,
            endpoint,
            lender,
            exchange,
            answer: Poll::Pending,
            is_abandoned: false,
        });
        ticket
    }

    fn poll_answered(&self, ticket: Ticket, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        match waiting.iter_mut().find(|ask| ask.ticket == ticket) {
            Some(ask) if ask.answer.is_pending() => {
                ask.exchange.clone_from(cx.waker());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// Tells the exchange that waits; gives the connection back when none does any more.
    fn answer(&self, ticket: Ticket, connection: Option<Connection<I>>) -> Option<Connection<I>> {
        let mut waiting = self.waiting.borrow_mut();
        let Some(at) = waiting.iter().position(|ask| ask.ticket == ticket) else { return connection };
        let ask = &mut waiting[at];
        if ask.is_abandoned {
            waiting.swap_remove(at);
            return connection;
        }
        ask.answer = Poll::Ready(connection);
        ask.exchange.wake_by_ref();
        None
    }

    fn end(&self, ticket: Ticket) -> Option<Connection<I>> {
        let mut waiting = self.waiting.borrow_mut();
        let at = waiting.iter().position(|ask| ask.ticket == ticket)?;
        if waiting[at].answer.is_pending() {
            waiting[at].is_abandoned = true;
            return None;
        }
        match waiting.swap_remove(at).answer {
            Poll::Ready(connection) => connection,
            Poll::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::kernel::Kernel;

    use super::*;

    #[test]
    fn what_is_asked_for_already_is_nothing_to_spare() {
        let (endpoint, other) = (EndpointState::new(EndpointId(1), 3), EndpointState::new(EndpointId(2), 3));
        let asks = Asks::<Kernel>::default();
        let lender = |endpoint| asks.lender(WorkerId(0), endpoint);
        endpoint.set_idle(WorkerId(0), 9);
        assert_eq!(lender(&endpoint), None, "nobody asks himself");
        endpoint.set_idle(WorkerId(2), 3);
        other.set_idle(WorkerId(2), 2);
        let tickets = [asks.begin(EndpointId(1), 2), asks.begin(EndpointId(1), 2)];
        assert_eq!((lender(&endpoint), lender(&other)), (None, Some(2)));
        assert!(asks.end(tickets[0]).is_none());
        assert_eq!(lender(&endpoint), None, "who has not answered yet is not asked for more");
        assert!(asks.answer(tickets[0], None).is_none());
        assert_eq!(lender(&endpoint), Some(2));
    }
}
