//! The io_uring driver: receives into buffers that the kernel picks, sends, and says when a descriptor is worth a try.
//!
//! A connection that waits for bytes has one multishot receive in the ring and no buffer. What arrives lies in a buffer of
//! the ring ([`super::provided`]) until somebody takes it. A connection whose bytes come faster than they are taken must
//! not fill them all: it is received from when it is asked for, by poll and `recv`, as epoll does it; so is every
//! connection while the ring has no buffer left, and one that found none.
//!
//! A descriptor's number at the driver is given to another only when the last completion of its last operation has come,
//! so no completion is ever taken for another's. All operations that wait are submitted with the one system call of a
//! turn, which also waits.

mod check;

use std::{io, os::fd::IntoRawFd, rc::Rc, time::Duration};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use slab::Slab;

use super::{
    provided::{GROUP, Provided},
    socket::{self, Chunk, Receiving, Sending, Side, Watched},
};
use crate::buffer::{Buffer, Gather};

/// How much a ring's queues hold.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Of the submission queue: operations one system call can start.
    pub(super) entries: u32,
    /// Of the completion queue. The kernel keeps what does not fit, at some cost.
    pub(super) completions: u32,
}

impl Sizes {
    pub(super) const OF_WORKERS: Sizes = Sizes { entries: 1024, completions: 4096 };
}

/// Runs of bytes that lie in the ring's buffers for one descriptor before its receive is told to end.
pub(super) const CHUNKS_MAX: usize = 3;

pub(super) struct Ring {
    ring: IoUring,
    provided: Provided,
    watched: Slab<Rc<Watched>>,
    /// Descriptors that nobody wants any more and nothing is in flight on; closed with the next system call.
    finished: Vec<usize>,
    /// Descriptors whose receive is to be told to end.
    cancels: Vec<usize>,
    /// Turns in which more completions came than the queue holds.
    overflow_count: u64,
    /// Why the kernel takes no more operations; ends the loop.
    failed: Option<io::Error>,
}

/// What a completion is of: the low bits of its user data; the descriptor's number is above them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Operation(u64);

impl Operation {
    const RECEIVE: Operation = Operation(0);
    const SEND: Operation = Operation(1);
    const POLL_READ: Operation = Operation(2);
    const POLL_WRITE: Operation = Operation(3);
    /// Of a receive.
    const CANCEL: Operation = Operation(4);
    /// Whose completion means nothing.
    const OTHER: Operation = Operation(5);
    const BITS: u32 = 3;

    fn of(self, key: usize) -> u64 {
        (key as u64) << Operation::BITS | self.0
    }

    fn parse(data: u64) -> (usize, Operation) {
        ((data >> Operation::BITS) as usize, Operation(data & ((1 << Operation::BITS) - 1)))
    }
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        Ring::with(Sizes::OF_WORKERS)
    }

    pub(super) fn with(sizes: Sizes) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(sizes.completions)
            .build(sizes.entries)?;
        // Saves a look-up per system call; a kernel that refuses it (before 5.18) costs just that.
        let _ = ring.submitter().register_ring_fd();
        let provided = Provided::new(&ring)?;
        Ok(Ring {
            ring,
            provided,
            watched: Slab::new(),
            finished: Vec::new(),
            cancels: Vec::new(),
            overflow_count: 0,
            failed: None,
        })
    }

    pub(super) fn overflow_count(&self) -> u64 {
        self.overflow_count
    }

    /// Receives into no more buffers of the ring's own than so many.
    pub(super) fn limit_provided(&mut self, most: u16) {
        self.provided.limit(most);
    }

    pub(super) fn watch(&mut self, watched: &Rc<Watched>) {
        watched.key.set(self.watched.insert(watched.clone()));
    }

    /// Has the owner of the read side woken when there is something to take or to try.
    pub(super) fn arm_read(&mut self, watched: &Watched) {
        let ring = &watched.ring;
        if ring.receiving.get() != Receiving::No || watched.read.is_polled.get() {
            return;
        }
        if ring.is_bulk.get() || self.provided.is_empty() {
            self.poll(watched, &watched.read, libc::POLLIN | libc::POLLRDHUP, Operation::POLL_READ);
            return;
        }
        ring.receiving.set(Receiving::Armed);
        let receive = opcode::RecvMulti::new(types::Fd(watched.raw()), GROUP).build();
        self.submit(watched, receive, Operation::RECEIVE);
    }

    /// Tells what waits for bytes to end, in whichever of the two ways; gives whether nothing does.
    pub(super) fn disarm_read(&mut self, watched: &Watched) -> bool {
        let is_polled = watched.read.is_polled.get();
        if watched.ring.receiving.get() == Receiving::Armed {
            self.cancel_receive(watched);
        }
        if is_polled {
            self.cancel(Operation::POLL_READ.of(watched.key.get()));
        }
        !is_polled && watched.ring.receiving.get() == Receiving::No
    }

    /// As [`Ring::arm_read`], but never receives: for listeners and the bell.
    pub(super) fn poll_read(&mut self, watched: &Watched) {
        self.poll(watched, &watched.read, libc::POLLIN, Operation::POLL_READ);
    }

    /// Has the owner of the write side woken when a send or connect is worth a try.
    pub(super) fn poll_write(&mut self, watched: &Watched) {
        self.poll(watched, &watched.write, libc::POLLOUT, Operation::POLL_WRITE);
    }

    fn poll(&mut self, watched: &Watched, side: &Side, events: libc::c_short, operation: Operation) {
        if !side.is_polled.replace(true) {
            let poll = opcode::PollAdd::new(types::Fd(watched.raw()), events as u32).build();
            self.submit(watched, poll, operation);
        }
    }

    /// Moves received bytes behind what `buffer` holds. `None` when there are none and no end was seen; `Ok(0)` is the
    /// other end's FIN.
    pub(super) fn take(&mut self, watched: &Watched, buffer: &mut Buffer) -> Option<io::Result<usize>> {
        let mut chunks = watched.ring.chunks.borrow_mut();
        if let Some(chunk) = chunks.front_mut() {
            let count = self.provided.take(chunk, buffer);
            if chunk.start == chunk.end {
                let emptied = chunk.buffer;
                chunks.pop_front();
                self.provided.give_back(emptied);
            }
            return Some(Ok(count));
        }
        match watched.ring.end.get()? {
            0 => Some(Ok(0)),
            error => {
                // As the kernel does it: an error is told once, and then nothing follows.
                watched.ring.end.set(Some(0));
                Some(Err(io::Error::from_raw_os_error(error)))
            }
        }
    }

    /// Starts to send what the loaded vectors of `gather` point to. It is the descriptor's until [`Sending::Done`].
    pub(super) fn send(&mut self, watched: &Watched, gather: Gather) {
        watched.ring.gather.replace(gather);
        let gather = watched.ring.gather.borrow();
        let (descriptor, flags) = (types::Fd(watched.raw()), libc::MSG_NOSIGNAL);
        let send = match &gather.vectors[..] {
            [run] => {
                opcode::Send::new(descriptor, run.iov_base.cast(), run.iov_len as u32).flags(flags).build()
            }
            _ => {
                let message = watched.ring.message.get();
                // SAFETY: no send is in flight on this descriptor, so nobody reads the message; the ring's owner is the
                // only one that writes it.
                unsafe { (*message).0 = socket::message_of(&gather) };
                opcode::SendMsg::new(descriptor, message.cast()).flags(flags as u32).build()
            }
        };
        drop(gather);
        watched.ring.sending.set(Sending::InFlight);
        self.submit(watched, send, Operation::SEND);
    }

    /// Forgets a descriptor and closes it, when its last operation is over; those that wait are told to end.
    pub(super) fn forget(&mut self, watched: &Rc<Watched>) {
        let ring = &watched.ring;
        ring.is_closing.set(true);
        for chunk in ring.chunks.borrow_mut().drain(..) {
            self.provided.give_back(chunk.buffer);
        }
        self.disarm_read(watched);
        if watched.write.is_polled.get() {
            self.cancel(Operation::POLL_WRITE.of(watched.key.get()));
        }
        if ring.sending.get() == Sending::InFlight {
            // The kernel reads its bytes until it ends; so it is ended.
            watched.abort();
        }
        if ring.in_flight.get() == 0 {
            self.finished.push(watched.key.get());
        }
    }

    /// Submits what is queued, waits for a completion, at most `wait`, and wakes whom completions concern.
    ///
    /// After an error the loop must end: something that is in flight may never be told of. That is so, too, when the kernel
    /// had no memory for a completion that did not fit into the queue (EBADR).
    pub(super) fn wait(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some(key) = self.finished.pop() {
            self.close(key);
        }
        let submitter = self.ring.submitter();
        let result = match wait {
            None => submitter.submit_and_wait(1),
            Some(wait) => {
                let timespec = types::Timespec::new().sec(wait.as_secs()).nsec(wait.subsec_nanos());
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
            }
        };
        match result {
            Err(error) if !is_passing(&error) => return Err(error),
            _ => {}
        }
        self.read_completions();
        Ok(())
    }

    /// Ends everything that is in flight, so that nothing the kernel may touch is freed under it.
    pub(super) fn end(&mut self) {
        let all: Vec<_> = self.watched.iter().map(|(_, watched)| watched.clone()).collect();
        for watched in all.iter().filter(|watched| watched.ring.in_flight.get() > 0) {
            watched.abort();
            for operation in [Operation::RECEIVE, Operation::POLL_READ, Operation::POLL_WRITE] {
                self.cancel(operation.of(watched.key.get()));
            }
        }
        // Each ends at once; the bound is for a kernel that does not keep its word.
        for _ in 0..64 {
            if self.in_flight() == 0 || self.wait(Some(Duration::from_millis(10))).is_err() {
                break;
            }
        }
        if self.in_flight() > 0 {
            // What the kernel still has is never freed.
            std::mem::forget(all);
            self.provided.leak();
        }
    }

    /// Operations whose last completion has not come.
    fn in_flight(&self) -> u32 {
        self.watched.iter().map(|(_, watched)| watched.ring.in_flight.get()).sum()
    }

    fn read_completions(&mut self) {
        let Ring { ring, provided, watched, finished, cancels, .. } = self;
        let completions = ring.completion();
        let is_full = completions.is_full();
        for completion in completions {
            let (key, operation) = Operation::parse(completion.user_data());
            let Some(watched) = watched.get(key).filter(|_| operation != Operation::OTHER) else { continue };
            let (result, flags) = (completion.result(), completion.flags());
            let is_last = !cqueue::more(flags);
            if operation == Operation::CANCEL {
                // Not found: it is over, as a completion before this one told, or it was between two places.
                if result < 0 && watched.ring.receiving.get() == Receiving::Cancelled {
                    cancels.push(key);
                }
                continue;
            }
            if operation == Operation::RECEIVE {
                if on_received(watched, provided, result, flags, is_last) {
                    cancels.push(key);
                }
            } else if operation == Operation::SEND {
                watched.ring.sending.set(Sending::Done(result));
                watched.write.wake();
            } else {
                let is_read = operation == Operation::POLL_READ;
                let side = if is_read { &watched.read } else { &watched.write };
                side.is_polled.set(false);
                let is_over = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR;
                if result > 0 && result & i32::from(is_over) != 0 {
                    watched.has_hung_up.set(true);
                }
                // One that was told to end says nothing of the descriptor.
                if result < 0 { side.wake() } else { side.set_ready() }
            }
            if is_last {
                watched.ring.in_flight.set(watched.ring.in_flight.get() - 1);
                if watched.ring.is_closing.get() && watched.ring.in_flight.get() == 0 {
                    finished.push(key);
                }
            }
        }
        // Those that did not fit come with the next system call.
        if is_full && self.ring.submission().cq_overflow() {
            self.overflow_count += 1;
        }
        while let Some(key) = self.cancels.pop() {
            // Unless its last completion came right behind: what is over cannot be cancelled.
            let is_on = |watched: &&Rc<Watched>| watched.ring.receiving.get() != Receiving::No;
            if let Some(watched) = self.watched.get(key).filter(is_on).cloned() {
                self.cancel_receive(&watched);
            }
        }
    }

    fn cancel_receive(&mut self, watched: &Watched) {
        watched.ring.receiving.set(Receiving::Cancelled);
        let key = watched.key.get();
        let cancel = opcode::AsyncCancel::new(Operation::RECEIVE.of(key)).build();
        self.push(cancel.user_data(Operation::CANCEL.of(key)));
    }

    fn cancel(&mut self, of: u64) {
        let cancel = opcode::AsyncCancel::new(of).build();
        self.push(cancel.user_data(Operation::OTHER.of(0)));
    }

    fn close(&mut self, key: usize) {
        let Some(watched) = self.watched.try_remove(key) else { return };
        // Its halves are gone. A handle to a listener may share it still, and closes it then.
        if let Ok(watched) = Rc::try_unwrap(watched) {
            let descriptor = watched.into_descriptor().into_raw_fd();
            self.push(opcode::Close::new(types::Fd(descriptor)).build().user_data(Operation::OTHER.of(0)));
        }
    }

    fn submit(&mut self, watched: &Watched, entry: squeue::Entry, operation: Operation) {
        watched.ring.in_flight.set(watched.ring.in_flight.get() + 1);
        self.push(entry.user_data(operation.of(watched.key.get())));
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: what an entry points to lives until its completion: a send's bytes and its message in the descriptor's
            // record, which is kept and left alone until then; the others point to nothing.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: make room, as often as it takes.
            match self.ring.submit() {
                Err(error) if !is_passing(&error) => {
                    self.failed = Some(error);
                    return;
                }
                _ => {}
            }
        }
    }
}

/// Whether the next system call may do what this one did not: the time is over, a signal came, completions have to be
/// read first, or memory was short.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}

/// Takes note of a receive's completion; gives whether bytes come faster than they are taken.
fn on_received(watched: &Watched, provided: &mut Provided, result: i32, flags: u32, is_last: bool) -> bool {
    let ring = &watched.ring;
    if is_last {
        ring.receiving.set(Receiving::No);
    }
    let buffer = cqueue::buffer_select(flags);
    if let Some(buffer) = buffer {
        provided.picked();
        if result <= 0 || ring.is_closing.get() {
            provided.give_back(buffer);
        }
    }
    if ring.is_closing.get() {
        return false;
    }
    match (result, buffer) {
        (1.., Some(buffer)) => {
            let end = usize::try_from(result).unwrap_or_default();
            ring.chunks.borrow_mut().push_back(Chunk { buffer, start: 0, end });
        }
        // Told to end: whoever waits looks for another way.
        (result, _) if result == -libc::ECANCELED => {}
        // So does he when there was no buffer, even if there is one again by now: many may have missed it, and each turn
        // would serve one of them and tell all others the same.
        (result, _) if result == -libc::ENOBUFS => ring.is_bulk.set(true),
        (result, _) => ring.end.set(Some(-result)),
    }
    watched.read.wake();
    let too_fast = ring.receiving.get() == Receiving::Armed && ring.chunks.borrow().len() >= CHUNKS_MAX;
    ring.is_bulk.set(ring.is_bulk.get() || too_fast);
    too_fast
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.end();
    }
}
