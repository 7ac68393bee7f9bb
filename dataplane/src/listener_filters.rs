//! What is read from a connection before its filter chain is picked: whom a PROXY protocol header says it is from, which
//! server its ClientHello asks for, and whether it speaks HTTP.
//!
//! In some protocols the server speaks first, and a proxy that waits for the client waits for ever. Where a connection may be
//! of one, its server is connected to when the client has been silent for a moment; if the server speaks, nobody looks for
//! anything any more, on this connection and on others to the same destination.
//!
//! Faces hostile bytes. One timeout covers all of it, and no byte prolongs it.

use std::io;

use policy::{limits, snapshot::ListenerFilters};
use runtime::{Buffer, Deadline, Io};
use wire::{
    http_sniff::{self, Sniff as Sniffed},
    proxy_protocol::{self, Accepted, Addresses, Parsed},
    tls_sniff::{self, Sniff},
};

use crate::{
    downstream::idle::{self, Waiting},
    origin::Spoken,
    transport,
    worker::Worker,
};

/// What the listener filters found.
#[derive(Default)]
pub(crate) struct Found {
    /// Between whom the connection was made, where somebody told.
    pub(crate) addresses: Option<Addresses>,
    /// What the first bytes say.
    pub(crate) spoken: Option<Box<Spoken>>,
    /// The application's bytes that were read on the way.
    pub(crate) bytes: Buffer,
}

/// Why it is not known what a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    /// The bytes that would tell did not come in time, or are no ClientHello.
    NotTold,
    /// There is no PROXY protocol header, or a wrong one.
    ProxyProtocol,
    /// It had no place any more: its listener is gone, or the worker drains.
    Retired,
}

/// Runs the listener filters of a connection, of which `bytes` came already.
pub(crate) async fn run<I: Io>(
    worker: &Worker<I>,
    recv: &mut transport::Recv<I>,
    (filters, until): (&ListenerFilters, Deadline),
    waiting: &Waiting,
    bytes: Buffer,
) -> Result<Found, Unknown> {
    let mut found = Found { bytes, ..Found::default() };
    if found.bytes.capacity() == 0 {
        found.bytes = worker.buffers.take();
    }
    let mut reading = Reading { worker, recv, filters, waiting, until, is_retiring: false };
    match reading.all(&mut found).await {
        Ok(Goes::On | Goes::OnUntold) => Ok(found),
        Err(unknown) => {
            worker.buffers.put(found.bytes);
            Err(unknown)
        }
    }
}

/// How a filter that refuses nothing ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    /// It is done.
    On,
    /// The time is over, and the connection goes on with what is known.
    OnUntold,
}

struct Reading<'a, I: Io> {
    worker: &'a Worker<I>,
    recv: &'a mut transport::Recv<I>,
    filters: &'a ListenerFilters,
    waiting: &'a Waiting,
    until: Deadline,
    is_retiring: bool,
}

impl<I: Io> Reading<'_, I> {
    async fn all(&mut self, found: &mut Found) -> Result<Goes, Unknown> {
        if let Some(accepted) = self.filters.proxy_protocol
            && self.proxy_protocol(accepted, found).await? == Goes::OnUntold
        {
            return Ok(Goes::OnUntold);
        }
        if self.filters.tls_inspector && self.client_hello(found).await? == Goes::OnUntold {
            return Ok(Goes::OnUntold);
        }
        if self.filters.http_inspector && found.spoken.is_none() {
            self.http(found).await
        } else {
            Ok(Goes::On)
        }
    }

    async fn http(&mut self, found: &mut Found) -> Result<Goes, Unknown> {
        loop {
            let sniffed = http_sniff::http(found.bytes.filled());
            if sniffed != Sniffed::Partial {
                found.spoken = sniffed.protocol().map(|protocol| {
                    Box::new(Spoken { protocols: Box::from([Box::from(protocol)]), ..Spoken::default() })
                });
                return Ok(Goes::On);
            }
            if self.more(&mut found.bytes).await? == Goes::OnUntold {
                return Ok(Goes::OnUntold);
            }
        }
    }

    async fn proxy_protocol(&mut self, accepted: Accepted, found: &mut Found) -> Result<Goes, Unknown> {
        loop {
            match proxy_protocol::parse(found.bytes.filled(), accepted) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Absent) => return Ok(Goes::On),
                Ok(Parsed::Header { length, addresses }) => {
                    found.bytes.consume(length);
                    found.addresses = addresses;
                    return Ok(Goes::On);
                }
                Err(_) => return Err(Unknown::ProxyProtocol),
            }
            if self.more(&mut found.bytes).await? == Goes::OnUntold {
                return Ok(Goes::OnUntold);
            }
        }
    }

    async fn client_hello(&mut self, found: &mut Found) -> Result<Goes, Unknown> {
        loop {
            match tls_sniff::client_hello(found.bytes.filled()) {
                Sniff::Hello(hello) => {
                    found.spoken = Some(Box::new(Spoken {
                        server_name: hello.server_name.as_ref().map(|name| Box::from(&**name)),
                        is_tls: true,
                        protocols: hello.protocols().map(Box::from).collect(),
                    }));
                    return Ok(Goes::On);
                }
                Sniff::NotTls => return Ok(Goes::On),
                // More bytes than a hello may have are told as malformed.
                Sniff::Partial => {}
                Sniff::Malformed => return Err(Unknown::NotTold),
            }
            if self.more(&mut found.bytes).await? == Goes::OnUntold {
                return Ok(Goes::OnUntold);
            }
        }
    }

    /// Receives more bytes.
    async fn more(&mut self, bytes: &mut Buffer) -> Result<Goes, Unknown> {
        loop {
            let is_leaving = self.worker.is_draining() || self.waiting.last.borrow().is_some();
            if !self.is_retiring && is_leaving {
                self.is_retiring = true;
                self.until = self.until.min(idle::retire_at(self.worker, limits::DRAIN_TIMEOUT_DEFAULT));
            }
            self.worker.buffers.make_room(bytes);
            return match self.recv.recv(bytes, self.until).await.map_err(|error| error.kind()) {
                Ok(0) => Err(Unknown::NotTold),
                Ok(_) => Ok(Goes::On),
                // Somebody wants it to end: the top of the loop looks.
                Err(io::ErrorKind::Interrupted) => continue,
                Err(io::ErrorKind::TimedOut) if self.is_retiring => Err(Unknown::Retired),
                Err(io::ErrorKind::TimedOut) if self.filters.continue_on_timeout => Ok(Goes::OnUntold),
                Err(_) => Err(Unknown::NotTold),
            };
        }
    }
}
