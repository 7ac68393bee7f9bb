//! Who comes in plain text to a listener where others come secured: what has to change before nobody may.
//!
//! A table of one worker, which alone writes it. Others read it at any time: each place says by its version whether it was
//! given to another source meanwhile.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use policy::limits;

use super::{Counter, ListenerStats};

/// Plain connections to a listener whose other connections are secured.
#[derive(Debug, Default)]
pub struct PlaintextStats {
    /// All of them.
    pub connections: Counter,
    /// By source; it is there from the first on.
    places: OnceLock<Box<[Place; limits::PLAINTEXT_SOURCES_MAX]>>,
}

/// One source, or none yet.
#[derive(Debug, Default)]
struct Place {
    /// 0 before the first source, odd while another one takes the place.
    version: AtomicU64,
    /// The address as IPv6 has it: upper and lower half.
    address: [AtomicU64; 2],
    connections: Counter,
    seen: Counter,
}

/// What is known of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// Where it is.
    pub address: IpAddr,
    /// How many connections it made since it is known.
    pub connections: u64,
    /// When the last one came, by the workers' clock in nanoseconds.
    pub seen: u64,
}

impl PlaintextStats {
    /// Counts a connection. Where all places are taken, the source that was not seen for longest is forgotten.
    pub fn count(&self, from: IpAddr, now: u64) {
        self.connections.inc();
        let places = self.places.get_or_init(|| Box::new(std::array::from_fn(|_| Place::default())));
        let halves = halves(from);
        // They fill up in order.
        let known = places.iter().take_while(|place| !place.is_free()).find(|place| place.is_of(halves));
        let place = match known {
            Some(place) => place,
            None => {
                let longest_gone = places.iter().min_by_key(|place| (!place.is_free(), place.seen.get()));
                let Some(place) = longest_gone else { return };
                place.give_to(halves, now);
                place
            }
        };
        place.connections.inc();
        place.seen.set(now);
    }

    /// The sources that are known.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        let places = self.places.get().into_iter().flat_map(|places| places.iter());
        places.take_while(|place| !place.is_free()).filter_map(Place::read)
    }
}

/// The sources of plain connections to a listener, as all workers know them, in order of their addresses.
pub fn sources(workers: &[Arc<ListenerStats>]) -> impl Iterator<Item = Source> {
    let mut all: BTreeMap<IpAddr, Source> = BTreeMap::new();
    for source in workers.iter().flat_map(|stats| stats.plaintext.sources()) {
        let known = all.entry(source.address).or_insert(Source { connections: 0, ..source });
        known.connections = known.connections.wrapping_add(source.connections);
        known.seen = known.seen.max(source.seen);
    }
    all.into_values()
}

impl Place {
    fn is_free(&self) -> bool {
        self.version.load(Ordering::Relaxed) == 0
    }

    fn is_of(&self, halves: [u64; 2]) -> bool {
        self.address() == halves
    }

    fn address(&self) -> [u64; 2] {
        self.address.each_ref().map(|half| half.load(Ordering::Relaxed))
    }

    fn give_to(&self, halves: [u64; 2], now: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees anything of what follows sees that it is being changed.
        fence(Ordering::Release);
        self.address.iter().zip(halves).for_each(|(half, of)| half.store(of, Ordering::Relaxed));
        self.connections.set(0);
        self.seen.set(now);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// `None` while it changes hands, which takes a moment: the next look will tell.
    fn read(&self) -> Option<Source> {
        let version = self.version.load(Ordering::Acquire);
        let [upper, lower] = self.address();
        let (connections, seen) = (self.connections.get(), self.seen.get());
        fence(Ordering::Acquire);
        if version % 2 == 1 || version != self.version.load(Ordering::Relaxed) {
            return None;
        }
        let address = Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower));
        Some(Source { address: IpAddr::V6(address).to_canonical(), connections, seen })
    }
}

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    #[test]
    fn sources_are_told_apart_and_the_longest_gone_makes_room() {
        let stats = PlaintextStats::default();
        assert_eq!(stats.sources().count(), 0);
        let v6: IpAddr = "fd00::1".parse().unwrap();
        for (from, now) in [(v4(1), 10), (v6, 20), (v4(1), 30)] {
            stats.count(from, now);
        }
        let known: Vec<_> = stats.sources().collect();
        assert_eq!(
            known,
            [
                Source { address: v4(1), connections: 2, seen: 30 },
                Source { address: v6, connections: 1, seen: 20 },
            ]
        );
        let many = limits::PLAINTEXT_SOURCES_MAX as u32;
        (2..many).for_each(|number| stats.count(v4(number), 100 + u64::from(number)));
        assert_eq!(stats.sources().count(), many as usize);
        // All places are taken: `v6` is gone longest, then `v4(1)`.
        stats.count(v4(many), 1000);
        stats.count(v4(many), 1001);
        let of = |address| stats.sources().find(|source| source.address == address);
        assert_eq!(of(v6), None);
        assert_eq!(of(v4(many)), Some(Source { address: v4(many), connections: 2, seen: 1001 }));
        stats.count(v6, 1002);
        assert_eq!((of(v4(1)), of(v6).map(|source| source.connections)), (None, Some(1)));
        assert_eq!(stats.connections.get(), u64::from(many) + 4);
    }

    #[test]
    fn what_several_workers_know_of_a_source_is_added_up() {
        let workers: Vec<Arc<ListenerStats>> = (0..2).map(|_| Arc::default()).collect();
        for (worker, from, now) in [(0, 1, 10), (1, 1, 5), (1, 2, 7), (0, 1, 11)] {
            workers[worker].plaintext.count(v4(from), now);
        }
        assert_eq!(
            sources(&workers).collect::<Vec<_>>(),
            [
                Source { address: v4(1), connections: 3, seen: 11 },
                Source { address: v4(2), connections: 1, seen: 7 },
            ]
        );
    }

    #[test]
    fn a_reader_never_takes_one_source_for_another() {
        let stats = PlaintextStats::default();
        // The number is in both halves of the address, and when it is seen.
        let of = |number: u64| IpAddr::V6(Ipv6Addr::from_bits(u128::from(number) << 64 | u128::from(number)));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..=10_000 {
                    stats.count(of(number), number);
                    stats.count(of(number), number);
                }
            });
            while !writer.is_finished() {
                for Source { address, connections, seen } in stats.sources() {
                    assert!(address == of(seen) && connections <= 2, "{address} {connections} {seen}");
                }
            }
        });
    }
}
