//! The task of a connection: receives, sends, and notices when it is over.

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use runtime::{Buffer, BufferPool, Deadline, Gather, Io, timer::Alarm};
use wire::{
    Tick,
    head::RequestHead,
    http2::{
        conn::OUTPUT_BYTES_MAX,
        error::{ConnectionError, ErrorCode},
    },
};

use super::{Arrived, Ended, Http2};
use crate::telemetry::metrics::Counter;
use crate::transport;

/// How a connection is driven.
pub struct Drive<'a, I: Io> {
    /// Its receiving half.
    pub recv: &'a mut transport::Recv<I>,
    /// Its sending half.
    pub send: &'a mut transport::Send<I>,
    /// What was received of it already.
    pub first: Buffer,
    /// Rings when it shall be looked whether it may stay.
    pub alarm: Alarm,
    /// How long it may be without a stream; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// From then on it takes no new streams.
    pub ages_at: Deadline,
    /// How long the other end may take to say what it takes.
    pub settings_timeout: Duration,
    /// How long the other end may take none of what is to be sent.
    pub send_timeout: Duration,
    /// Counts bytes that came.
    pub received: &'a Counter,
    /// Counts bytes that were sent.
    pub sent: &'a Counter,
}

/// What a driver asks of whoever has the connection.
pub trait Owner {
    /// A request came.
    fn arrived(&mut self, arrived: Arrived);
    /// Memory for the head of a request.
    fn spare(&mut self) -> RequestHead;
    /// Whether the connection may have new streams.
    fn may_stay(&mut self) -> bool;
}

/// How long the last words of a connection that fails may take to be taken.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long after the announcement that it leaves a connection may be without a sign that the other end has heard: streams
/// that are on their way are taken in this time.
const LEAVING: Duration = Duration::from_secs(1);

/// Drives a connection until it is over. Streams that are held then see that it is.
pub async fn drive<I: Io>(http2: &Rc<Http2>, io: &I, with: Drive<'_, I>, owner: &mut impl Owner) -> Ended {
    let Drive {
        recv,
        send,
        first,
        alarm,
        idle_timeout,
        ages_at,
        settings_timeout,
        send_timeout,
        received,
        sent,
    } = with;
    let cancel_sending = send.cancel_handle();
    let mut receiving = Receiving {
        http2,
        io,
        recv,
        alarm: &alarm,
        idle_timeout,
        ages_at,
        idle_since: io.now(),
        leaves_at: Deadline::NEVER,
        heard_by: Deadline::after(io.now(), settings_timeout),
        received,
        arrived: Vec::new(),
    };
    let mut receiving = pin!(receiving.run(first, owner));
    let mut sending = pin!(transmit(http2, io, send, send_timeout, sent));
    let (mut is_received, mut is_sent) = (false, false);
    poll_fn(|cx| {
        http2.state.borrow_mut().drive_by(cx);
        // What exchanges have written goes out before more is received.
        if !is_sent && sending.as_mut().poll(cx).is_ready() {
            is_sent = true;
        }
        if !is_received && let Poll::Ready(ended) = receiving.as_mut().poll(cx) {
            is_received = true;
            http2.end(ended);
            if ended == Ended::Broken {
                cancel_sending.cancel();
            }
        }
        if is_received && !is_sent && sending.as_mut().poll(cx).is_ready() {
            is_sent = true;
        }
        if is_received && is_sent { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    http2.state.borrow().end.unwrap_or(Ended::Done)
}

struct Receiving<'a, I: Io> {
    http2: &'a Rc<Http2>,
    io: &'a I,
    recv: &'a mut transport::Recv<I>,
    alarm: &'a Alarm,
    idle_timeout: Option<Duration>,
    ages_at: Deadline,
    idle_since: u64,
    /// It was announced that it leaves; by then that is final.
    leaves_at: Deadline,
    /// By then the other end has said what it takes.
    heard_by: Deadline,
    received: &'a Counter,
    /// Requests on their way to the owner.
    arrived: Vec<Arrived>,
}

impl<I: Io> Receiving<'_, I> {
    async fn run(&mut self, first: Buffer, owner: &mut impl Owner) -> Ended {
        let buffers: &BufferPool = &self.http2.buffers;
        let mut buffer = first;
        let ended = loop {
            if !buffer.is_empty() {
                let now = self.io.now();
                let result = self.http2.receive(buffer.filled(), now, owner, &mut self.arrived);
                self.arrived.drain(..).for_each(|request| owner.arrived(request));
                self.http2.state.borrow_mut().flush();
                match result {
                    Ok(done) => buffer.consume(done),
                    Err(error) => break Ended::Failed(error),
                }
            }
            buffers.make_room(&mut buffer);
            if buffer.is_empty() {
                buffers.put(std::mem::take(&mut buffer));
            }
            if let Err(ended) = self.readable(owner).await {
                break ended;
            }
            if buffer.capacity() == 0 {
                buffer = buffers.take();
            }
            match self.recv.try_recv(&mut buffer) {
                Some(Ok(0)) => break Ended::Closed,
                Some(Ok(count)) => self.received.add(count as u64),
                Some(Err(_)) => break Ended::Broken,
                None => {}
            }
        };
        buffers.put(buffer);
        ended
    }

    /// Waits until bytes can be received; does what is due meanwhile.
    async fn readable(&mut self, owner: &mut impl Owner) -> Result<(), Ended> {
        poll_fn(|cx| self.poll_readable(owner, cx)).await
    }

    fn poll_readable(&mut self, owner: &mut impl Owner, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.http2.state.borrow().end.is_some() {
            return Poll::Ready(Err(Ended::Broken));
        }
        // An end that does not read is not read from either.
        let is_stuck = self.http2.state.borrow().wire.output_len() > OUTPUT_BYTES_MAX;
        if !is_stuck && self.recv.poll_readable(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            if let Err(ended) = self.look(owner) {
                return Poll::Ready(Err(ended));
            }
            self.alarm.set(self.deadline());
            if self.alarm.poll_rung(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// When something is due.
    fn deadline(&self) -> Deadline {
        let state = self.http2.state.borrow();
        let idle = match self.idle_timeout {
            Some(timeout) if state.wire.streams_count() == 0 && !state.is_leaving() => {
                Deadline::after(self.idle_since, timeout)
            }
            _ => Deadline::NEVER,
        };
        let ages_at = if state.is_leaving() { Deadline::NEVER } else { self.ages_at };
        let heard_by = if state.wire.is_heard() { Deadline::NEVER } else { self.heard_by };
        idle.min(ages_at).min(heard_by).min(self.leaves_at).min(Deadline(state.wire.deadline().0))
    }

    /// Does what is due.
    fn look(&mut self, owner: &mut impl Owner) -> Result<(), Ended> {
        let now = self.io.now();
        let mut state = self.http2.state.borrow_mut();
        if std::mem::take(&mut state.had_streams) || state.wire.streams_count() > 0 {
            self.idle_since = now;
        }
        if let Err(error) = state.wire.on_timeout(Tick(now)) {
            return Err(Ended::Failed(error));
        }
        if now >= self.heard_by.0 && !state.wire.is_heard() {
            let error = ConnectionError::SettingsTimeout;
            state.wire.leave(error.code());
            return Err(Ended::Failed(error));
        }
        let is_idle =
            self.idle_timeout.is_some_and(|timeout| now >= Deadline::after(self.idle_since, timeout).0);
        let shall_leave = state.is_retired || is_idle || now >= self.ages_at.0 || !owner.may_stay();
        if shall_leave && !state.is_leaving() {
            state.is_retired = true;
            // Nobody but us opens streams of ours.
            if state.wire.is_server() {
                state.wire.announce_leaving();
                self.leaves_at = Deadline::after(now, LEAVING);
            }
        }
        if now >= self.leaves_at.0 {
            self.leaves_at = Deadline::NEVER;
            state.wire.leave(ErrorCode::NO_ERROR);
        }
        let may_end = if state.wire.is_server() { state.wire.has_left() } else { state.is_leaving() };
        if may_end && state.wire.streams_count() == 0 {
            state.wire.leave(ErrorCode::NO_ERROR);
            return Err(Ended::Done);
        }
        state.flush();
        Ok(())
    }
}

/// Sends what there is, until the connection is over and its last words are out.
async fn transmit<I: Io>(
    http2: &Rc<Http2>,
    io: &I,
    send: &mut transport::Send<I>,
    send_timeout: Duration,
    sent: &Counter,
) {
    let mut gather = Gather::new();
    loop {
        let is_over = poll_fn(|_| {
            let state = http2.state.borrow();
            match (state.wire.has_output(), state.end) {
                (_, Some(Ended::Broken)) => Poll::Ready(true),
                (true, _) => Poll::Ready(false),
                (false, Some(_)) => Poll::Ready(true),
                (false, None) => Poll::Pending,
            }
        })
        .await;
        if is_over {
            return;
        }
        let wait = match http2.state.borrow().end {
            Some(Ended::Closed | Ended::Broken | Ended::Failed(_)) => LAST_WORDS,
            // With the end of the last response among it, whose client may be slow.
            Some(Ended::Done) | None => send_timeout,
        };
        {
            let mut state = http2.state.borrow_mut();
            gather.fill(|empty| state.wire.take_output(empty));
            state.is_sending = true;
            state.wake_waiting();
        }
        let count = gather.unsent_len();
        let result = send.send_all(&mut gather, Deadline::after(io.now(), wait)).await;
        sent.add((count - gather.unsent_len()) as u64);
        http2.state.borrow_mut().is_sending = false;
        if result.is_err() {
            return http2.end(Ended::Broken);
        }
    }
}
