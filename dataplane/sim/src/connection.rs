//! Talking over a connection: what each end may do, what arrives at it, how it ends.
//!
//! Ends behave as Linux's: bytes that arrived before a RST can still be received, a close with unread bytes is a
//! RST, bytes sent to an end that is gone bring a RST back, an error is told once and an end of file follows.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, Waker},
};

use runtime::{Buffer, Gather};

use crate::{
    errno,
    faults::{End, Faults, Link},
    network::{Event, Leak, Network},
    pipe::{Carried, Pipe, wake},
    trace::What,
};

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The end that connected.
    Connector,
    /// The end that accepted.
    Acceptor,
}

impl Side {
    /// The pipe it sends into, and its place among the ends.
    fn out(self) -> usize {
        self as usize
    }

    /// The pipe it receives from.
    fn into(self) -> usize {
        self.other() as usize
    }

    fn other(self) -> Side {
        match self {
            Side::Connector => Side::Acceptor,
            Side::Acceptor => Side::Connector,
        }
    }
}

/// The state of both ends and of what is between them.
pub(crate) struct Connection {
    ends: [Held; 2],
    addresses: [SocketAddr; 2],
    /// By the side that sends.
    pipes: [Pipe; 2],
}

#[derive(Clone, Copy, Default)]
struct Held {
    /// Halves in somebody's hands.
    halves: u8,
    /// Not handed out yet: in an accept queue, or its connect has not ended.
    waits: bool,
    /// Told to break instead of close.
    reset_on_close: bool,
    /// The connection is broken; nothing can be sent and nothing more will come.
    broken: bool,
    /// A send was given up half-way, which broke the connection from this side.
    given_up: bool,
    /// Told by the next operation.
    error: Option<io::ErrorKind>,
    /// This end will be sent a RST, or was.
    reset_coming: bool,
}

impl Connection {
    /// A connection that neither end has been handed out of.
    pub(crate) fn new(link: &Link, faults: Faults) -> Connection {
        let waiting = Held { waits: true, ..Held::default() };
        Connection {
            ends: [waiting; 2],
            addresses: [link.from, link.to],
            pipes: [Pipe::new(faults.up), Pipe::new(faults.down)],
        }
    }

    /// The ends that somebody holds or could still take.
    pub(crate) fn leaks(&self, number: u64) -> impl Iterator<Item = Leak> {
        let open = |side: &Side| !self.ends[side.out()].is_closed();
        [Side::Connector, Side::Acceptor].into_iter().filter(open).map(move |side| Leak::Connection {
            number,
            side,
            local: self.addresses[side.out()],
            remote: self.addresses[side.into()],
        })
    }
}

impl Network {
    /// A half keeps its connection in the map, so it is always found.
    fn connection(&mut self, number: u64) -> &mut Connection {
        self.connections.get_mut(&number).expect("a half keeps its connection")
    }

    /// Gives both halves of an end into somebody's hands.
    pub(crate) fn hand_out(&mut self, connection: u64, side: Side) {
        let end = &mut self.connection(connection).ends[side.out()];
        end.waits = false;
        end.halves = 2;
    }

    /// Closes the connecting end: nobody waits for it any more.
    pub(crate) fn give_up(&mut self, connection: u64) {
        if let Some(state) = self.connections.get_mut(&connection) {
            state.ends[Side::Connector.out()].waits = false;
        }
        self.close(connection, Side::Connector);
    }

    /// Breaks a connection that will not be accepted.
    pub(crate) fn refuse(&mut self, connection: u64) {
        if let Some(state) = self.connections.get_mut(&connection) {
            let end = &mut state.ends[Side::Acceptor.out()];
            end.waits = false;
            end.reset_on_close = true;
        }
        self.close(connection, Side::Acceptor);
    }

    /// The address of one end.
    pub(crate) fn address(&mut self, connection: u64, side: Side) -> SocketAddr {
        self.connection(connection).addresses[side.out()]
    }

    pub(crate) fn poll_recv(
        &mut self,
        number: u64,
        side: Side,
        buffer: &mut Buffer,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.poll_readable(number, side, cx).is_pending() {
            return Poll::Pending;
        }
        let Network { connections, rng, .. } = self;
        let connection = connections.get_mut(&number).expect("a half keeps its connection");
        let (end, pipe) = (&mut connection.ends[side.out()], &mut connection.pipes[side.into()]);
        let possible = pipe.arrived().min(buffer.spare());
        if possible == 0 && pipe.arrived() == 0 {
            // What broke is not what ended, even when a send was told of it first.
            let broke = end.given_up || end.broken && !pipe.fin_arrived;
            let error = end.error.take().or(broke.then_some(io::ErrorKind::ConnectionReset));
            return Poll::Ready(error.map_or(Ok(0), |kind| Err(kind.into())));
        }
        let limit = pipe.way.recv.limit(possible, pipe.received_count, rng);
        let bytes = pipe.take(buffer, limit);
        self.note(What::Received { connection: number, by: side, bytes });
        Poll::Ready(Ok(bytes))
    }

    /// Ready when a receive would not wait.
    pub(crate) fn poll_readable(&mut self, number: u64, side: Side, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.connection(number);
        let (end, pipe) = (&connection.ends[side.out()], &mut connection.pipes[side.into()]);
        if pipe.arrived() > 0 || end.broken || pipe.fin_arrived {
            return Poll::Ready(());
        }
        keep_waker(&mut pipe.receiver, cx);
        Poll::Pending
    }

    pub(crate) fn poll_send(
        &mut self,
        number: u64,
        side: Side,
        gather: &mut Gather,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Network { connections, rng, now, .. } = self;
        let connection = connections.get_mut(&number).expect("a half keeps its connection");
        let (end, pipe) = (&mut connection.ends[side.out()], &mut connection.pipes[side.out()]);
        if let Some(kind) = end.error.take() {
            return Poll::Ready(Err(kind.into()));
        }
        if end.broken || pipe.fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let possible = gather.unsent_len();
        if possible == 0 {
            return Poll::Ready(Ok(0));
        }
        if pipe.cut {
            gather.mark_sent(possible);
            self.answer_with_reset(number, side);
            return Poll::Ready(Ok(possible));
        }
        let mut possible = possible.min(pipe.room());
        if possible == 0 {
            keep_waker(&mut pipe.sender, cx);
            return Poll::Pending;
        }
        let cut = pipe.way.cut;
        if let Some(cut) = cut {
            possible = possible.min(usize::try_from(cut.bytes - pipe.sent_count).unwrap_or(usize::MAX));
        }
        let bytes = pipe.way.send.limit(possible, pipe.sent_count, rng);
        pipe.put(gather.unsent(), bytes);
        gather.mark_sent(bytes);
        let at = *now + pipe.way.draw_latency(rng);
        let sent_count = pipe.sent_count;
        self.carry(number, side, Carried::Bytes(bytes), at);
        self.note(What::Sent { connection: number, by: side, bytes });
        if let Some(cut) = cut.filter(|cut| cut.bytes == sent_count) {
            self.cut(number, cut.end);
        }
        Poll::Ready(Ok(bytes))
    }

    /// An operation of this end fails. After most errors the connection is over, and the other end gets a RST.
    pub(crate) fn fail(&mut self, number: u64, side: Side, error: i32) -> io::Error {
        self.note(What::Fails { connection: number, at: side, error });
        if errno::is_end(error) {
            self.reset(number, side);
            let connection = self.connection(number);
            let end = &mut connection.ends[side.out()];
            // Told once, here.
            (end.broken, end.error) = (true, None);
            connection.pipes[side.out()].discard_all();
            let pipe = &mut connection.pipes[side.into()];
            pipe.discard_arrived();
            wake(&mut pipe.receiver);
            wake(&mut connection.pipes[side.out()].sender);
        }
        runtime::io::kernel_error(error)
    }

    /// Takes a byte of a send that is given up, whether there is room or not.
    pub(crate) fn take_one(&mut self, number: u64, side: Side, gather: &mut Gather) -> usize {
        let Network { connections, rng, now, .. } = self;
        let connection = connections.get_mut(&number).expect("a half keeps its connection");
        let pipe = &mut connection.pipes[side.out()];
        pipe.put(gather.unsent(), 1);
        gather.mark_sent(1);
        let at = *now + pipe.way.draw_latency(rng);
        self.carry(number, side, Carried::Bytes(1), at);
        1
    }

    /// Sends FIN behind what was sent.
    pub(crate) fn shutdown(&mut self, number: u64, side: Side) -> io::Result<()> {
        let connection = self.connection(number);
        if connection.ends[side.out()].broken {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.fin(number, side);
        Ok(())
    }

    /// Breaks the connection from this side, as a send that is given up does. What was sent still arrives.
    pub(crate) fn abort(&mut self, number: u64, side: Side) {
        self.reset(number, side);
        let connection = self.connection(number);
        let end = &mut connection.ends[side.out()];
        (end.broken, end.given_up, end.error) = (true, true, None);
        let pipe = &mut connection.pipes[side.into()];
        pipe.discard_arrived();
        wake(&mut pipe.receiver);
    }

    /// From here on closing this end breaks the connection.
    pub(crate) fn reset_on_close(&mut self, number: u64, side: Side) {
        self.connection(number).ends[side.out()].reset_on_close = true;
    }

    /// One more in somebody's hands.
    pub(crate) fn hold(&mut self, number: u64, side: Side) {
        self.connection(number).ends[side.out()].halves += 1;
    }

    /// One half less in somebody's hands; the last one closes the end.
    pub(crate) fn release(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let end = &mut connection.ends[side.out()];
        end.halves = end.halves.saturating_sub(1);
        if end.halves == 0 {
            self.close(number, side);
        }
    }

    fn close(&mut self, number: u64, side: Side) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let end = connection.ends[side.out()];
        let unread = connection.pipes[side.into()].arrived() > 0;
        connection.pipes[side.into()].discard_arrived();
        self.note(What::Closed { connection: number, by: side });
        if !end.broken {
            if end.reset_on_close || unread {
                self.reset(number, side);
            } else {
                self.fin(number, side);
            }
        }
        if self.connections.get(&number).is_some_and(|connection| connection.ends.iter().all(Held::is_closed))
        {
            self.connections.remove(&number);
        }
    }

    /// Breaks a connection between its ends.
    pub(crate) fn cut(&mut self, number: u64, how: End) {
        for side in [Side::Connector, Side::Acceptor] {
            let fin_sent = self.connection(number).pipes[side.out()].fin_sent;
            match how {
                End::Close => self.fin(number, side),
                End::Reset => self.reset(number, side),
            }
            let pipe = &mut self.connection(number).pipes[side.out()];
            // This FIN is the network's, not the end's own: the end may still send, into nothing.
            pipe.fin_sent = fin_sent;
            pipe.cut = true;
            wake(&mut pipe.sender);
        }
    }

    fn fin(&mut self, number: u64, by: Side) {
        let pipe = &mut self.connection(number).pipes[by.out()];
        if !std::mem::replace(&mut pipe.fin_sent, true) && !pipe.cut {
            self.carry_now(number, by, Carried::Fin);
        }
    }

    fn reset(&mut self, number: u64, by: Side) {
        let other = &mut self.connection(number).ends[by.other().out()];
        if !std::mem::replace(&mut other.reset_coming, true) {
            self.carry_now(number, by, Carried::Reset);
        }
    }

    /// What `by` sends finds nobody: its RST comes after a round trip.
    fn answer_with_reset(&mut self, number: u64, by: Side) {
        self.reset(number, by.other());
    }

    fn carry_now(&mut self, number: u64, by: Side, carried: Carried) {
        let Network { connections, rng, now, .. } = self;
        let Some(connection) = connections.get_mut(&number) else { return };
        let at = *now + connection.pipes[by.out()].way.draw_latency(rng);
        self.carry(number, by, carried, at);
    }

    fn carry(&mut self, number: u64, by: Side, carried: Carried, at: u64) {
        self.connection(number).pipes[by.out()].carry(carried, at);
        self.schedule(at, Event::Arrives { connection: number, by });
    }

    /// Lets arrive what is due of what `by` sent.
    pub(crate) fn arrives(&mut self, number: u64, by: Side) {
        let to = by.other();
        loop {
            let now = self.now;
            let Some(connection) = self.connections.get_mut(&number) else { return };
            let gone = connection.ends[to.out()].is_closed();
            let pipe = &mut connection.pipes[by.out()];
            let Some(carried) = pipe.arrive(now) else { return };
            match carried {
                Carried::Bytes(_) if gone => {
                    pipe.discard_arrived();
                    self.answer_with_reset(number, by);
                }
                Carried::Bytes(_) => wake(&mut pipe.receiver),
                Carried::Fin => {
                    pipe.fin_arrived = true;
                    wake(&mut pipe.receiver);
                    self.note(What::EndArrives { connection: number, at: to });
                }
                Carried::Reset => {
                    wake(&mut pipe.receiver);
                    let ended = pipe.fin_arrived;
                    let end = &mut connection.ends[to.out()];
                    // A FIN that came before stays what a receive sees; a send then meets a broken pipe.
                    if !std::mem::replace(&mut end.broken, true) && !ended {
                        end.error = Some(io::ErrorKind::ConnectionReset);
                    }
                    let pipe = &mut connection.pipes[to.out()];
                    wake(&mut pipe.sender);
                    if !pipe.cut {
                        // The other end is gone. After a cut it is not, and what was sent still arrives.
                        pipe.discard_all();
                    }
                    self.note(What::ResetArrives { connection: number, at: to });
                }
            }
        }
    }
}

impl Held {
    fn is_closed(&self) -> bool {
        self.halves == 0 && !self.waits
    }
}

/// Keeps the waker of a task that waits, unless it is the one that is kept.
pub(crate) fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    if !kept.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *kept = Some(cx.waker().clone());
    }
}
