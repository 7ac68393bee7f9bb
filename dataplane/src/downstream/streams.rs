//! A downstream connection that speaks HTTP/2: one exchange for each of its streams.
//!
//! Exchanges run in tasks that a worker keeps: one that is done takes the next stream, of whichever connection. So a request
//! starts no task and allocates nothing once as many have run side by side before.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use policy::limits;
use runtime::{Buffer, Gather, Io, timer::Alarm};
use wire::{
    head::{RequestHead, ResponseHead},
    http1::{encode::Edit, parse::ParseError},
    http2::error::ErrorCode,
};

use super::{
    After, Client, Downstream, Manager, OnStream, Side,
    idle::{Connection, Waiting},
};
use crate::{
    exchange,
    http2::{self, Arrived, Drive, Ended, Http2, Owner},
    place::Misplaced,
    respond::ExchangeError,
    telemetry::metrics::HttpStats,
    worker::Worker,
};

/// Serves the streams of a connection whose first bytes are `first`, until it is over.
pub(super) async fn serve<I: Io>(
    worker: &Rc<Worker<I>>,
    connection: &mut Connection<I>,
    first: Buffer,
    (waiting, stats): (&Waiting, &HttpStats),
) {
    let manager = Manager::find_with(worker.bound(), &connection.origin, || waiting.last.take());
    let Ok(manager) = manager else { return worker.buffers.put(first) };
    let config = http2::downstream_config(&manager.config, worker.rng.borrow_mut().next_u64());
    let window_bytes = u64::from(config.connection_window_bytes);
    let http2 = Http2::new(true, config, worker.buffers.clone(), worker.io.now());
    let client = Client { origin: connection.origin.clone(), owner: connection.owner };
    stats.counters.downstream_cx_http2_total.inc();
    stats.counters.downstream_cx_http2_active.inc();
    waiting.waits.set(true);
    let drive = Drive {
        first,
        alarm: connection.recv.cancel_handle(),
        idle_timeout: manager.config.idle_timeout,
        settings_timeout: manager
            .config
            .request_headers_timeout
            .unwrap_or(limits::REQUEST_HEADERS_TIMEOUT_DEFAULT),
        ages_at: connection.ages_at,
        send_timeout: manager.config.stream_idle_timeout.unwrap_or(limits::STREAM_IDLE_TIMEOUT_DEFAULT),
        recv: &mut connection.recv,
        send: &mut connection.send,
        received: &stats.counters.downstream_cx_rx_bytes_total,
        sent: &stats.counters.downstream_cx_tx_bytes_total,
    };
    let requests_left = manager.config.max_requests_per_connection.map_or(u32::MAX, |max| max.get());
    let mut owner = Requests {
        worker,
        waiting,
        stats,
        requests_left,
        manager: Rc::new(manager),
        misplaced: None,
        client: Rc::new(client),
    };
    let ended = http2::drive(&http2, &worker.io, drive, &mut owner).await;
    waiting.waits.set(false);
    stats.counters.downstream_cx_http2_active.dec();
    match ended {
        Ended::Failed(_) => {
            stats.counters.downstream_cx_protocol_error.inc();
            // Of a client that keeps to the windows no more than that is on its way; the others need not be read for long.
            connection.thrown_away_max = window_bytes;
        }
        Ended::Closed | Ended::Broken => connection.is_ended = true,
        Ended::Done => {}
    }
}

/// Starts the exchanges of one connection.
struct Requests<'a, I: Io> {
    worker: &'a Rc<Worker<I>>,
    waiting: &'a Waiting,
    stats: &'a HttpStats,
    requests_left: u32,
    /// Of the snapshot in use when the last request came, or of the last in which the connection had a place.
    manager: Rc<Manager>,
    /// Why it has none any more: it takes streams that are on their way already, and leaves.
    misplaced: Option<Misplaced>,
    client: Rc<Client>,
}

impl<I: Io> Owner for Requests<'_, I> {
    fn arrived(&mut self, arrived: Arrived) {
        // Routes are looked up in what is current when the request begins, not when the connection did.
        if !self.worker.is_current(&self.manager.bound) {
            match Manager::find(self.worker.bound(), &self.client.origin) {
                Ok(current) => (self.manager, self.misplaced) = (Rc::new(current), None),
                Err(why) => self.misplaced = Some(why),
            }
        }
        if self.misplaced == Some(Misplaced::Insecure) {
            // Nothing of it was done, so it can be sent again on a connection as is asked for now.
            let Arrived { stream, head, bytes, error: _ } = arrived;
            stream.reset(ErrorCode::REFUSED_STREAM);
            self.worker.buffers.put(bytes);
            self.worker.exchanges.keep_head(head);
            return;
        }
        if self.requests_left == 1 {
            self.stats.counters.downstream_cx_max_requests_reached.inc();
        }
        self.requests_left = self.requests_left.saturating_sub(1);
        let request = Request { manager: self.manager.clone(), client: self.client.clone(), arrived };
        self.worker.exchanges.begin(self.worker, request);
    }

    fn spare(&mut self) -> RequestHead {
        self.worker.exchanges.heads.borrow_mut().pop().unwrap_or_default()
    }

    fn may_stay(&mut self) -> bool {
        !self.worker.is_draining()
            && self.waiting.last.borrow().is_none()
            && self.requests_left > 0
            && !self.manager.is_denied
            && self.misplaced.is_none()
    }
}

/// A request on its way to the task that runs its exchange.
struct Request {
    manager: Rc<Manager>,
    client: Rc<Client>,
    arrived: Arrived,
}

/// The tasks of a worker that run exchanges of streams.
pub struct Exchanges<I: Io> {
    idle: RefCell<Vec<Rc<Place<I>>>>,
    /// Memory for the heads of requests.
    heads: RefCell<Vec<RequestHead>>,
}

/// Where a task waits for its next exchange.
struct Place<I: Io> {
    next: Cell<Option<(Rc<Worker<I>>, Request)>>,
    /// None comes any more.
    is_over: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

/// Tasks, and heads, that are kept for the next exchange.
const KEPT_MAX: usize = 256;

impl<I: Io> Default for Exchanges<I> {
    fn default() -> Self {
        Exchanges { idle: RefCell::default(), heads: RefCell::default() }
    }
}

impl<I: Io> Exchanges<I> {
    fn begin(&self, worker: &Rc<Worker<I>>, request: Request) {
        let place = self.idle.borrow_mut().pop();
        match place {
            Some(place) => {
                place.next.set(Some((worker.clone(), request)));
                if let Some(task) = place.task.borrow().as_ref() {
                    task.wake_by_ref();
                }
            }
            None => {
                let next = Cell::new(Some((worker.clone(), request)));
                let place = Place { next, is_over: Cell::new(false), task: RefCell::default() };
                worker.io.spawn(run(Rc::new(place), Kept::new(worker)));
            }
        }
    }

    /// Keeps the memory of a head for the next request.
    fn keep_head(&self, mut head: RequestHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < KEPT_MAX {
            head.clear();
            heads.push(head);
        }
    }

    /// Ends the tasks that wait for an exchange: the worker stops.
    pub fn stop(&self) {
        for place in self.idle.borrow_mut().drain(..) {
            place.is_over.set(true);
            if let Some(task) = place.task.borrow().as_ref() {
                task.wake_by_ref();
            }
        }
    }
}

/// Memory of a task from one exchange to the next.
struct Kept {
    response: ResponseHead,
    to_upstream: Gather,
    to_downstream: Gather,
    edits: Vec<Edit<'static>>,
    text: Vec<u8>,
    forwarded: Vec<u8>,
    trailers: [Vec<u8>; 2],
    alarm: Alarm,
}

impl Kept {
    fn new<I: Io>(worker: &Worker<I>) -> Kept {
        Kept {
            response: ResponseHead::default(),
            to_upstream: Gather::new(),
            to_downstream: Gather::new(),
            edits: Vec::new(),
            text: Vec::new(),
            forwarded: Vec::new(),
            trailers: Default::default(),
            alarm: worker.io.timers().alarm(),
        }
    }
}

/// Runs one exchange after the other; ends when enough others wait for the next.
async fn run<I: Io>(place: Rc<Place<I>>, mut kept: Kept) {
    loop {
        let next = poll_fn(|cx| match place.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None if place.is_over.get() => Poll::Ready(None),
            None => {
                let mut task = place.task.borrow_mut();
                task.get_or_insert_with(|| cx.waker().clone());
                Poll::Pending
            }
        });
        let Some((worker, request)) = next.await else { return };
        kept = exchange(&worker, request, kept).await;
        let mut idle = worker.exchanges.idle.borrow_mut();
        if idle.len() >= KEPT_MAX {
            return;
        }
        idle.push(place.clone());
    }
}

async fn exchange<I: Io>(worker: &Rc<Worker<I>>, request: Request, kept: Kept) -> Kept {
    let Request { manager, client, arrived: Arrived { stream, head, bytes, error } } = request;
    let Kept { response, to_upstream, to_downstream, edits, text, forwarded, trailers, alarm } = kept;
    let until = |wait: Option<Duration>| {
        wait.map_or(runtime::Deadline::NEVER, |wait| runtime::Deadline::after(worker.io.now(), wait))
    };
    let is_gone = stream.gone().is_some();
    let mut downstream = Downstream {
        side: Side::Http2(OnStream { stream, client }),
        buffer: bytes,
        request: head,
        response,
        to_upstream,
        to_downstream,
        edits,
        request_is_kept: false,
        done_bytes: 0,
        rest: Buffer::default(),
        text,
        forwarded,
        trailers,
        alarm,
        is_last: false,
        request_until: until(manager.config.request_timeout),
    };
    // What was reset with the same bytes that brought it costs nobody upstream anything (CVE-2023-44487).
    let refused = (error.map(ExchangeError::RequestHead))
        .or_else(|| is_gone.then_some(ExchangeError::DownstreamGone))
        .or_else(|| downstream.judge_names(&manager).err());
    let after = match refused {
        None => exchange::run(worker, &manager, &mut downstream).await,
        Some(error) => {
            if matches!(
                error,
                ExchangeError::RequestHead(ParseError::HeadTooLarge | ParseError::TooManyHeaders)
            ) {
                manager.stats.counters.downstream_rq_too_large.inc();
            }
            exchange::refuse(worker, &manager, &mut downstream, error).await
        }
    };
    let Downstream {
        side,
        buffer,
        request,
        response,
        to_upstream,
        to_downstream,
        edits,
        text,
        forwarded,
        trailers,
        alarm,
        ..
    } = downstream;
    if let (After::Reset, Side::Http2(on)) = (after, &side) {
        on.stream.reset(ErrorCode::INTERNAL_ERROR);
    }
    worker.buffers.put(buffer);
    worker.exchanges.keep_head(request);
    Kept { response, to_upstream, to_downstream, edits, text, forwarded, trailers, alarm }
}
