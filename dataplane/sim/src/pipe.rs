//! One direction of a connection: bytes on their way, bytes that arrived, and how it ends.

use std::{collections::VecDeque, task::Waker};

use runtime::Buffer;

use crate::faults::Way;

/// Bytes from one end to the other. Order is kept, whatever the latencies.
pub(crate) struct Pipe {
    pub(crate) way: Way,
    /// Arrived bytes first, then those in transit.
    bytes: VecDeque<u8>,
    arrived_count: usize,
    transit: VecDeque<(u64, Carried)>,
    /// The sending end said that no more will follow.
    pub(crate) fin_sent: bool,
    /// The receiving end knows it.
    pub(crate) fin_arrived: bool,
    /// Cut: bytes sent from here on are taken and lost.
    pub(crate) cut: bool,
    pub(crate) sent_count: u64,
    pub(crate) received_count: u64,
    pub(crate) receiver: Option<Waker>,
    pub(crate) sender: Option<Waker>,
}

/// What travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carried {
    Bytes(usize),
    Fin,
    Reset,
}

impl Pipe {
    pub(crate) fn new(way: Way) -> Pipe {
        Pipe {
            way,
            bytes: VecDeque::new(),
            arrived_count: 0,
            transit: VecDeque::new(),
            fin_sent: false,
            fin_arrived: false,
            cut: false,
            sent_count: 0,
            received_count: 0,
            receiver: None,
            sender: None,
        }
    }

    /// Bytes a sender may put in now.
    pub(crate) fn room(&self) -> usize {
        self.way.buffer_bytes.max(1).saturating_sub(self.bytes.len())
    }

    /// Bytes a receiver may take now.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived_count
    }

    /// Puts `count` bytes of `runs` in; they travel with the next [`Pipe::carry`].
    pub(crate) fn put<'a>(&mut self, runs: impl Iterator<Item = &'a [u8]>, count: usize) {
        let mut left = count;
        for run in runs {
            let step = left.min(run.len());
            self.bytes.extend(&run[..step]);
            left -= step;
            if left == 0 {
                break;
            }
        }
        self.sent_count += count as u64;
    }

    /// Sends something off to arrive at `at`, or behind what was sent before.
    pub(crate) fn carry(&mut self, carried: Carried, at: u64) {
        self.transit.push_back((at, carried));
    }

    /// The next thing that arrived by `now`.
    pub(crate) fn arrive(&mut self, now: u64) -> Option<Carried> {
        if self.transit.front()?.0 > now {
            return None;
        }
        let (_, carried) = self.transit.pop_front()?;
        if let Carried::Bytes(count) = carried {
            self.arrived_count += count;
        }
        Some(carried)
    }

    /// Moves at most `count` arrived bytes into the buffer, and makes room for the sender.
    pub(crate) fn take(&mut self, buffer: &mut Buffer, count: usize) -> usize {
        let count = count.min(self.arrived_count).min(buffer.spare());
        let (first, second) = self.bytes.as_slices();
        let in_first = count.min(first.len());
        buffer.extend(&first[..in_first]);
        buffer.extend(&second[..count - in_first]);
        self.drop_front(count);
        self.received_count += count as u64;
        count
    }

    /// Loses what arrived: nobody will take it.
    pub(crate) fn discard_arrived(&mut self) {
        self.drop_front(self.arrived_count);
    }

    /// Loses everything, arrived or not, but an end that is on its way.
    pub(crate) fn discard_all(&mut self) {
        self.bytes.clear();
        self.arrived_count = 0;
        self.transit.retain(|(_, carried)| !matches!(carried, Carried::Bytes(_)));
    }

    fn drop_front(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.arrived_count -= count;
        wake(&mut self.sender);
    }
}

/// Wakes whoever waits, and keeps the waker: it is the same one next time.
pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake_by_ref();
    }
}
