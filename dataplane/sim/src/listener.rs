//! Listeners and their connections: bound, accepting, and what goes from one loop to another.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use runtime::{Accepted, Deadline, Listener, io::ListenerClose};

use crate::{
    connection::Side,
    errno,
    executor::Wait,
    io::{SimIo, SimRecv, SimSend},
    operation::InFlight,
    world::World,
};

/// Where what is dropped on its way is noted; nowhere once it is there.
type Dropped<T> = Option<Arc<Mutex<Vec<T>>>>;

/// A bound socket on its way to the worker that will accept on it.
#[derive(Debug)]
pub struct SimSocket {
    pub(crate) number: u64,
    pub(crate) address: SocketAddr,
    pub(crate) dropped: Dropped<u64>,
}

/// A connection on its way from one loop to another; dropped on it, it closes.
#[derive(Debug)]
pub struct SimStream {
    pub(crate) number: u64,
    pub(crate) side: Side,
    pub(crate) dropped: Dropped<(u64, Side)>,
}

/// An accepting socket.
pub struct SimListener {
    pub(crate) number: u64,
    pub(crate) address: SocketAddr,
    pub(crate) io: SimIo,
}

impl SimSocket {
    pub(crate) fn bind(world: &World, address: SocketAddr) -> SimSocket {
        let (number, address) = world.network.borrow_mut().bind(address);
        SimSocket { number, address, dropped: Some(world.dropped_sockets.clone()) }
    }

    /// The bound address, with its port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            dropped.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        if let Some(dropped) = self.dropped.take() {
            dropped.lock().unwrap_or_else(PoisonError::into_inner).push((self.number, self.side));
        }
    }
}

impl Listener for SimListener {
    type Recv = SimRecv;
    type Send = SimSend;

    async fn accept(&mut self) -> io::Result<Accepted<SimRecv, SimSend>> {
        let in_flight = InFlight::begin(&self.io.world);
        let wait = Wait { operation: "an accept", connection: None, until: Deadline::NEVER };
        let failure = self.io.world.failure(&self.io.host, &errno::ACCEPT);
        let accepted = self
            .io
            .complete(wait, |network, is_seen, cx| match is_seen {
                true => network.poll_accept(self.number, failure, cx),
                false => Poll::Pending,
            })
            .await;
        in_flight.completed();
        let (connection, downstream) = accepted?;
        let (recv, send) = self.io.halves(connection, Side::Acceptor);
        Ok(Accepted { recv, send, downstream })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn close_handle(&self) -> ListenerClose {
        // Weak, so that a handle kept for ever does not keep the simulation.
        let (world, number) = (Rc::downgrade(&self.io.world), self.number);
        ListenerClose::new(move || {
            if let Some(world) = world.upgrade() {
                world.network.borrow_mut().close_listener(number);
            }
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.io.world.network.borrow_mut().drop_listener(self.number);
    }
}
