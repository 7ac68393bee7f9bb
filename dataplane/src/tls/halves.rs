//! A TLS connection's two halves, which are received from and sent to as any other's.
//!
//! What is received lies in a buffer of its own until it is opened, and is copied from there to where it was asked for; an
//! idle connection holds none. A send is over when the kernel took all of the records that carry it.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use policy::limits;
use runtime::{Buffer, BufferPool, Deadline, Gather, Io, RecvHalf, SendHalf, timer::Alarm};

use super::record::{self, Opened, PLAINTEXT_BYTES_MAX, RecordError, Records};

/// The receiving half.
pub struct TlsRecv<I: Io> {
    inner: I::Recv,
    records: Rc<RefCell<Records>>,
    held: Held,
    end: Option<End>,
}

/// What was received and nobody has yet.
struct Held {
    /// As it came.
    sealed: Buffer,
    /// Opened.
    opened: Buffer,
    buffers: BufferPool,
}

/// How receiving ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The other end said that nothing more comes.
    Closed,
    /// It broke off, or what it sent could not be opened.
    Broken(io::ErrorKind),
}

/// The sending half.
pub struct TlsSend<I: Io> {
    inner: I::Send,
    records: Rc<RefCell<Records>>,
    out: Gather,
    /// How the connection broke within a send.
    broken: Option<io::ErrorKind>,
}

/// The halves of a connection whose handshake is done. `sealed` came behind it.
pub fn split<I: Io>(
    (recv, send): (I::Recv, I::Send),
    records: Records,
    sealed: Buffer,
    buffers: BufferPool,
) -> (TlsRecv<I>, TlsSend<I>) {
    let records = Rc::new(RefCell::new(records));
    let held = Held { sealed, opened: Buffer::default(), buffers };
    let recv = TlsRecv { inner: recv, records: records.clone(), held, end: None };
    (recv, TlsSend { inner: send, records, out: Gather::new(), broken: None })
}

impl<I: Io> TlsRecv<I> {
    /// Takes a connection out of this worker's loop on which nothing happens, as [`Io::detach`].
    pub async fn detach(
        recv: TlsRecv<I>,
        send: TlsSend<I>,
        io: &I,
    ) -> Result<(I::Stream, Records), (TlsRecv<I>, TlsSend<I>)> {
        if recv.end.is_some() || !recv.held.is_empty() {
            return Err((recv, send));
        }
        let TlsRecv { inner, records, held, .. } = recv;
        let TlsSend { inner: sending, records: shared, out, broken } = send;
        drop(shared);
        match (io.detach(inner, sending).await, Rc::try_unwrap(records)) {
            (Ok(stream), Ok(records)) => Ok((stream, records.into_inner())),
            (Err((recv, send)), Ok(records)) => {
                let records = Rc::new(records);
                let recv = TlsRecv { inner: recv, records: records.clone(), held, end: None };
                Err((recv, TlsSend { inner: send, records, out, broken }))
            }
            (_, Err(_)) => unreachable!("the halves share their records with nobody"),
        }
    }

    /// Whether a receive would give something without asking the kernel.
    fn has_some(&self) -> bool {
        self.end.is_some() || self.held.has_some()
    }

    /// Opens what is there into `buffer` as far as it has room; what of a record has none is kept.
    fn open_into(&mut self, buffer: &mut Buffer) -> usize {
        let before = buffer.len();
        while self.end.is_none() && self.held.opened.is_empty() && buffer.spare() > 0 {
            match self.records.borrow_mut().open(self.held.sealed.filled_mut()) {
                Ok(Opened::Partial) => break,
                Ok(Opened::Data { payload, length }) => {
                    let taken = buffer.extend(payload);
                    if let Some(rest) = payload.get(taken..).filter(|rest| !rest.is_empty()) {
                        self.held.opened = self.held.buffers.take_with(rest);
                    }
                    self.held.sealed.consume(length);
                }
                Ok(Opened::Closed) => self.end = Some(End::Closed),
                Err(error) => self.end = Some(End::Broken(kind_of(&error))),
            }
        }
        if self.held.sealed.is_empty() || self.end.is_some() {
            self.held.buffers.put(std::mem::take(&mut self.held.sealed));
        }
        buffer.len() - before
    }

    fn take_opened(&mut self, buffer: &mut Buffer) -> usize {
        let count = buffer.extend(self.held.opened.filled());
        self.held.opened.consume(count);
        if self.held.opened.is_empty() {
            self.held.buffers.put(std::mem::take(&mut self.held.opened));
        }
        count
    }

    /// Receives behind what is there of a record; `None` when nothing came. An end without a word from the other end is
    /// none that can be told from a cut (RFC 8446 §6.1).
    fn receive(&mut self) -> Option<()> {
        if self.held.sealed.capacity() == 0 {
            self.held.sealed = self.held.buffers.take();
        }
        // What is there is less than a record, which has room behind it when it lies at the front.
        if self.held.sealed.spare() < record::BYTES_MAX {
            self.held.buffers.make_room(&mut self.held.sealed);
        }
        let received = self.inner.try_recv(&mut self.held.sealed);
        match received {
            None => {
                if self.held.sealed.is_empty() {
                    self.held.buffers.put(std::mem::take(&mut self.held.sealed));
                }
                return None;
            }
            Some(Ok(0)) => self.end = Some(End::Broken(io::ErrorKind::UnexpectedEof)),
            Some(Ok(_)) => {}
            Some(Err(error)) => self.end = Some(End::Broken(error.kind())),
        }
        Some(())
    }
}

fn kind_of(error: &RecordError) -> io::ErrorKind {
    match error {
        RecordError::Alert(_) => io::ErrorKind::ConnectionReset,
        RecordError::TooLong(_) | RecordError::Unexpected | RecordError::Tls(_) | RecordError::Empty => {
            io::ErrorKind::InvalidData
        }
    }
}

impl<I: Io> TlsRecv<I> {
    /// As [`RecvHalf::recv`].
    pub async fn recv(&mut self, buffer: &mut Buffer, until: Deadline) -> io::Result<usize> {
        loop {
            self.readable(until).await?;
            if let Some(result) = self.try_recv(buffer) {
                return result;
            }
        }
    }

    /// As [`RecvHalf::readable`].
    pub async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        match self.has_some() {
            true => Ok(()),
            false => self.inner.readable(until).await,
        }
    }

    /// As [`RecvHalf::poll_readable`].
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.has_some() {
            true => Poll::Ready(()),
            false => self.inner.poll_readable(cx),
        }
    }

    /// As [`RecvHalf::try_recv`]. An end that the other end did not announce is an error.
    pub fn try_recv(&mut self, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        if buffer.spare() == 0 {
            return Some(Ok(0));
        }
        if !self.held.opened.is_empty() {
            return Some(Ok(self.take_opened(buffer)));
        }
        loop {
            let count = self.open_into(buffer);
            if count > 0 {
                return Some(Ok(count));
            }
            match self.end {
                Some(End::Closed) => return Some(Ok(0)),
                Some(End::Broken(kind)) => return Some(Err(kind.into())),
                None => self.receive()?,
            }
        }
    }

    /// As [`RecvHalf::cancel_handle`].
    pub fn cancel_handle(&self) -> Alarm {
        self.inner.cancel_handle()
    }

    /// As [`RecvHalf::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Held {
    fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.opened.is_empty()
    }

    /// Whether there is something for who asks.
    fn has_some(&self) -> bool {
        !self.opened.is_empty() || Records::is_whole(self.sealed.filled())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.buffers.put(std::mem::take(&mut self.sealed));
        self.buffers.put(std::mem::take(&mut self.opened));
    }
}

impl<I: Io> TlsSend<I> {
    /// Seals what lies at the front of `gather`, in as many records as one send may carry; gives how much.
    fn seal(&mut self, gather: &Gather) -> io::Result<usize> {
        let mut records = self.records.borrow_mut();
        let mut sealed = 0;
        let mut result = Ok(());
        self.out.fill(|out| {
            let mut batch = Batch::default();
            for run in gather.unsent() {
                let mut rest = run;
                while !rest.is_empty() && sealed + batch.bytes < limits::TLS_SEND_BYTES_MAX {
                    rest = batch.push(rest);
                    if batch.is_full() {
                        sealed += batch.bytes;
                        result = records.seal(batch.runs(), out);
                        batch = Batch::default();
                        if result.is_err() {
                            return;
                        }
                    }
                }
            }
            if batch.bytes > 0 {
                sealed += batch.bytes;
                result = records.seal(batch.runs(), out);
            }
        });
        result.map(|()| sealed).map_err(|error| kind_of(&error).into())
    }
}

/// Runs that go into one record.
#[derive(Default)]
struct Batch<'a> {
    runs: [&'a [u8]; Batch::RUNS_MAX],
    count: usize,
    bytes: usize,
}

impl<'a> Batch<'a> {
    /// A head with its edits is some twenty.
    const RUNS_MAX: usize = 32;

    /// Takes as much of a run as fits; gives the rest.
    fn push(&mut self, run: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = run.split_at(run.len().min(PLAINTEXT_BYTES_MAX - self.bytes));
        if let Some(place) = self.runs.get_mut(self.count) {
            *place = taken;
            self.count += 1;
            self.bytes += taken.len();
            return rest;
        }
        run
    }

    fn is_full(&self) -> bool {
        self.count == Batch::RUNS_MAX || self.bytes == PLAINTEXT_BYTES_MAX
    }

    fn runs(&self) -> &[&'a [u8]] {
        self.runs.get(..self.count).unwrap_or_default()
    }
}

impl<I: Io> TlsSend<I> {
    /// As [`SendHalf::send`], but that of a connection that broke when a part of the records had gone the next send tells:
    /// nobody may take what was in them for unsent.
    pub async fn send(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<usize> {
        if let Some(kind) = self.broken {
            return Err(kind.into());
        }
        let count = self.seal(gather)?;
        let total = self.out.unsent_len();
        match self.inner.send_all(&mut self.out, until).await {
            Ok(()) => {}
            // Of a send that was given up nobody knows anyway how much went.
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                return Err(error);
            }
            Err(error) if self.out.unsent_len() == total => return Err(error),
            Err(error) => self.broken = Some(error.kind()),
        }
        gather.mark_sent(count);
        Ok(count)
    }

    /// As [`SendHalf::send_all`].
    pub async fn send_all(&mut self, gather: &mut Gather, until: Deadline) -> io::Result<()> {
        while !gather.is_sent() {
            self.send(gather, until).await?;
        }
        Ok(())
    }

    /// As [`SendHalf::cancel_handle`].
    pub fn cancel_handle(&self) -> Alarm {
        self.inner.cancel_handle()
    }

    /// As [`SendHalf::limit_unsent`].
    pub fn limit_unsent(&mut self, bytes: u32) {
        self.inner.limit_unsent(bytes);
    }

    /// Says that nothing more will come, then sends FIN.
    pub async fn finish(&mut self, until: Deadline) -> io::Result<()> {
        let records = &self.records;
        let mut result = Ok(());
        self.out.fill(|out| result = records.borrow_mut().seal_close(out));
        result.map_err(|error| io::Error::from(kind_of(&error)))?;
        self.inner.send_all(&mut self.out, until).await?;
        self.inner.shutdown()
    }

    /// As [`SendHalf::reset`].
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}
