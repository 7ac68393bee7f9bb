//! What a connection may suffer: delays, small buffers, short reads and writes, a cut after so many bytes.

use std::{net::SocketAddr, time::Duration};

use crate::rng::Rng;

/// The faults of one connection, each way by itself.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// From the end that connected to the end that accepted.
    pub up: Way,
    /// From the end that accepted to the end that connected.
    pub down: Way,
}

/// One direction of a connection. The default is a calm network: 100 µs, 64 KiB, whole reads and writes.
#[derive(Clone, Debug)]
pub struct Way {
    /// Shortest time from a send to its arrival.
    pub latency_min: Duration,
    /// Longest such time; each send draws its own. Order is kept.
    pub latency_max: Duration,
    /// Bytes that fit between the two ends, in transit and arrived together; a sender waits when they are there.
    pub buffer_bytes: usize,
    /// How many bytes one receive gives.
    pub recv: Pieces,
    /// How many bytes one send takes.
    pub send: Pieces,
    /// Where the connection breaks, if it does.
    pub cut: Option<Cut>,
}

/// How many of the bytes that could be moved one operation moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pieces {
    /// All of them.
    Whole,
    /// At most so many; 1 splits at every byte.
    Every(usize),
    /// A random number from 1 to so many.
    UpTo(usize),
    /// All, but an operation ends where so many bytes have passed since the connection began: one split.
    SplitAt(u64),
}

/// Breaks a connection, on both of its ends, when `bytes` have gone this way; they still arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Bytes that pass before the cut.
    pub bytes: u64,
    /// What each end sees.
    pub end: End,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum End {
    /// FIN: what came is said to be all.
    Close,
    /// RST: what came is not all.
    Reset,
}

/// A connection about to be made, for whoever chooses its faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Counts the connections of the simulation from 0.
    pub number: u64,
    /// Who connects.
    pub from: SocketAddr,
    /// Whom to.
    pub to: SocketAddr,
}

impl Default for Way {
    fn default() -> Self {
        let latency = Duration::from_micros(100);
        Way {
            latency_min: latency,
            latency_max: latency,
            buffer_bytes: 64 * 1024,
            recv: Pieces::Whole,
            send: Pieces::Whole,
            cut: None,
        }
    }
}

impl Faults {
    /// The same both ways.
    pub fn both(way: Way) -> Faults {
        Faults { up: way.clone(), down: way }
    }

    /// A rough but unbroken connection, drawn from `rng`: every byte arrives, in awkward times and pieces.
    pub fn rough(rng: &mut Rng) -> Faults {
        Faults { up: Way::rough(rng), down: Way::rough(rng) }
    }
}

impl Way {
    fn rough(rng: &mut Rng) -> Way {
        let pieces = [
            Pieces::Whole,
            Pieces::Every(1),
            Pieces::UpTo(7),
            Pieces::UpTo(2000),
            Pieces::SplitAt(rng.below(300)),
        ];
        let latency = Duration::from_micros(rng.below(3000));
        Way {
            latency_min: latency / 4,
            latency_max: latency,
            buffer_bytes: rng.pick(&[512, 4096, 64 * 1024]),
            recv: rng.pick(&pieces),
            send: rng.pick(&pieces),
            cut: None,
        }
    }

    pub(crate) fn draw_latency(&self, rng: &mut Rng) -> u64 {
        let (min, max) = (self.latency_min.as_nanos() as u64, self.latency_max.as_nanos() as u64);
        if max > min { min + rng.below(max - min + 1) } else { min }
    }
}

impl Pieces {
    /// How many of `possible` bytes the next operation moves when `moved` went before. 0 only when `possible` is.
    pub(crate) fn limit(self, possible: usize, moved: u64, rng: &mut Rng) -> usize {
        match self {
            Pieces::Whole => possible,
            Pieces::Every(max) => possible.min(max.max(1)),
            Pieces::UpTo(max) => {
                let max = possible.min(max.max(1));
                if max > 1 { 1 + rng.below(max as u64) as usize } else { max }
            }
            Pieces::SplitAt(offset) if moved < offset => possible.min((offset - moved) as usize),
            Pieces::SplitAt(_) => possible,
        }
    }
}
