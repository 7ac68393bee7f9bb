//! The streams of one connection: a slab, and an index of stream ids that costs no hashing.
//!
//! A stream keeps its place until its owner releases it, however it ended on the wire. So a peer that resets its streams,
//! or makes us reset them, gets no new ones before the work for the old ones is really over.

use alloc::{boxed::Box, vec::Vec};

use super::flow::{RecvWindow, SendWindow};
use crate::head::Method;

/// A stream by its place. Good from the event or call that gave it until it is released.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamKey(u32);

impl StreamKey {
    /// Its place among the streams of its connection, to keep things beside it. Small, and used again.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How far one direction of a stream is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Half {
    /// The head, or the final one, has not come.
    Head,
    /// The head has; the body goes on.
    Body,
    /// It was ended.
    Ended,
}

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    /// 0 before it has one.
    pub(super) id: u32,
    pub(super) receiving: Half,
    pub(super) sending: Half,
    /// One side has reset it.
    pub(super) is_reset: bool,
    /// That was the peer, so nothing more may come.
    pub(super) by_peer: bool,
    pub(super) send_window: SendWindow,
    pub(super) recv_window: RecvWindow,
    /// What `content-length` says is still to come.
    pub(super) body_left: Option<u64>,
    /// Of the request.
    pub(super) method: Method,
    /// What the request asked for instead of a response (RFC 8441).
    pub(super) protocol: Option<Box<[u8]>>,
}

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Vec<Option<Stream>>,
    free: Vec<u32>,
    /// Places by stream id, each one more than it is, found by linear probing from [`Streams::slot`]; 0 is nobody. At most
    /// half full. Ids of one side are two apart, so streams opened one after the other never meet.
    index: Vec<u32>,
    /// Ids that are not where the search for them begins. There are none as long as the ids that are live lie closer
    /// together than the index is long; then taking one out leaves nothing to be moved up, however long the run is that it
    /// was in.
    displaced_count: usize,
    live_count: usize,
}

/// The least length of the index; a power of two.
const INDEX_MIN: usize = 16;

impl Streams {
    /// How many there are.
    pub(super) fn live_count(&self) -> usize {
        self.live_count
    }

    /// Adds a stream; its id must be new, or 0: then it has none yet.
    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        if self.live_count * 2 >= self.index.len() {
            self.grow();
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        if stream.id != 0 {
            self.enter(stream.id, place);
        }
        if let Some(empty) = self.places.get_mut(place as usize) {
            *empty = Some(stream);
        }
        self.live_count += 1;
        StreamKey(place)
    }

    /// Gives a stream that has none its id.
    pub(super) fn name(&mut self, key: StreamKey, id: u32) -> Option<&mut Stream> {
        let is_nameless = self.get(key)?.id == 0;
        if is_nameless {
            self.enter(id, key.0);
        }
        let stream = self.get_mut(key).filter(|_| is_nameless)?;
        stream.id = id;
        Some(stream)
    }

    /// Takes a stream out.
    pub(super) fn remove(&mut self, key: StreamKey) -> Option<Stream> {
        let stream = self.places.get_mut(key.index())?.take()?;
        if stream.id != 0 {
            self.forget(stream.id);
        }
        self.free.push(key.0);
        self.live_count -= 1;
        Some(stream)
    }

    /// A stream.
    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.places.get(key.index())?.as_ref()
    }

    /// A stream, to change it.
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.places.get_mut(key.index())?.as_mut()
    }

    /// The stream with this id.
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        let mut slot = self.slot(id);
        loop {
            let place = self.index.get(slot)?.checked_sub(1)?;
            if self.id_at(place) == Some(id) {
                return Some(StreamKey(place));
            }
            slot = self.next(slot);
        }
    }

    /// All of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamKey, &mut Stream)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(at, place)| Some((StreamKey(at as u32), place.as_mut()?)))
    }

    /// How many places there is room for, in all its parts.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.places.capacity() + self.free.capacity() + self.index.capacity()
    }

    fn id_at(&self, place: u32) -> Option<u32> {
        self.places.get(place as usize)?.as_ref().map(|stream| stream.id)
    }

    /// Where the search for an id begins.
    fn slot(&self, id: u32) -> usize {
        (id >> 1) as usize & self.index.len().wrapping_sub(1)
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & self.index.len().wrapping_sub(1)
    }

    fn enter(&mut self, id: u32, place: u32) {
        let mut slot = self.slot(id);
        // Half of it is empty.
        while self.index.get(slot).is_some_and(|taken| *taken != 0) {
            slot = self.next(slot);
        }
        self.displaced_count += usize::from(slot != self.slot(id));
        if let Some(empty) = self.index.get_mut(slot) {
            *empty = place + 1;
        }
    }

    /// Takes an id out of the index and moves those up that probed past it (Knuth, TAOCP 6.4, algorithm R).
    fn forget(&mut self, id: u32) {
        let mut hole = self.slot(id);
        let at = |index: &[u32], slot: usize| index.get(slot).and_then(|taken| taken.checked_sub(1));
        // Its place is empty already, so nobody else there has no id.
        while let Some(place) = at(&self.index, hole)
            && self.id_at(place).is_some()
        {
            hole = self.next(hole);
        }
        self.displaced_count -= usize::from(hole != self.slot(id));
        let mut slot = self.next(hole);
        while self.displaced_count > 0
            && let Some(place) = at(&self.index, slot)
        {
            let wanted = self.slot(self.id_at(place).unwrap_or_default());
            let mask = self.index.len().wrapping_sub(1);
            let is_past = slot.wrapping_sub(wanted) & mask >= slot.wrapping_sub(hole) & mask;
            if is_past {
                self.index.swap(hole, slot);
                self.displaced_count -= usize::from(hole == wanted);
                hole = slot;
            }
            slot = self.next(slot);
        }
        if let Some(hole) = self.index.get_mut(hole) {
            *hole = 0;
        }
    }

    fn grow(&mut self) {
        let length = (self.index.len() * 2).max(INDEX_MIN);
        self.index.clear();
        self.index.resize(length, 0);
        self.displaced_count = 0;
        for place in 0..self.places.len() as u32 {
            if let Some(id) = self.id_at(place).filter(|id| *id != 0) {
                self.enter(id, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn stream(id: u32) -> Stream {
        Stream {
            id,
            receiving: Half::Head,
            sending: Half::Head,
            is_reset: false,
            by_peer: false,
            send_window: SendWindow::new(0),
            recv_window: RecvWindow::new(0),
            body_left: None,
            method: Method::Get,
            protocol: None,
        }
    }

    #[test]
    fn streams_are_found_by_their_ids_whatever_came_and_went() {
        let mut streams = Streams::default();
        let mut known = BTreeMap::new();
        let (mut random, mut next) = (7u64, 1);
        for round in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let is_growing = known.len() < 10 || round % 2_000 < 300 && known.len() < 200;
            if is_growing {
                known.insert(next, streams.insert(stream(next)));
                // Some ids are left out, so that they meet in the index.
                next += if random >> 60 == 0 { 2 * 64 } else { 2 };
            } else {
                let at = (random >> 33) as usize % known.len();
                let id = *known.keys().nth(at).unwrap();
                let key = known.remove(&id).unwrap();
                assert_eq!(streams.remove(key).unwrap().id, id);
                assert_eq!(streams.find(id), None);
            }
            assert_eq!(streams.live_count(), known.len());
            let is_displaced = |(slot, taken): &(usize, &u32)| {
                let id = taken.checked_sub(1).and_then(|place| streams.id_at(place));
                id.is_some_and(|id| streams.slot(id) != *slot)
            };
            let displaced = streams.index.iter().enumerate().filter(is_displaced).count();
            assert_eq!(streams.displaced_count, displaced, "round {round}");
            for (id, key) in &known {
                assert_eq!(streams.find(*id), Some(*key), "round {round}, stream {id}");
                assert_eq!(streams.get(*key).unwrap().id, *id);
            }
        }
        assert!(streams.places.len() <= 200 && streams.index.len() <= 512);
    }

    #[test]
    fn nobody_is_found_where_nobody_is() {
        let mut streams = Streams::default();
        assert_eq!(streams.find(1), None);
        let key = streams.insert(stream(1));
        assert_eq!((streams.find(1), streams.find(33)), (Some(key), None));
        assert!(streams.remove(key).is_some() && streams.remove(key).is_none());
        assert!(streams.get(key).is_none());
    }
}
