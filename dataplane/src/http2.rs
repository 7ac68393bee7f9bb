//! An HTTP/2 connection and its streams, whichever side of the proxy it is on.
//!
//! Three parts share one [`Http2`] on one worker: its [driver](drive), the task that receives and sends, and the
//! [streams](Stream), each held by an exchange. An exchange writes frames into the connection's output and wakes the driver,
//! which runs behind all exchanges that are ready, so that the frames of many streams leave in one write. What comes is put
//! at its stream, and its exchange is woken. A body that nobody takes stays here, up to the stream's window; so a slow
//! reader stops its own stream and no other.
//!
//! Faces hostile bytes; [`wire::http2`] judges them.

mod config;
mod drive;
mod stream;

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use policy::limits;
use runtime::{Buffer, BufferPool};
use wire::{
    Tick,
    head::{RequestHead, ResponseHead},
    http1::{conn::INTERIM_COUNT_MAX, parse::ParseError},
    http2::{
        self as wire_http2, Config, Event, StreamKey,
        error::{ConnectionError, ErrorCode},
    },
};

pub use self::{
    config::{downstream_config, upstream_config},
    drive::{Drive, Owner, drive},
    stream::{Gone, Piece, Stream},
};

/// A connection that is shared by its streams.
pub struct Http2 {
    state: RefCell<State>,
    buffers: BufferPool,
}

struct State {
    wire: wire_http2::Connection,
    /// By [`StreamKey::index`].
    places: Vec<Place>,
    /// Streams that wait for room in the output or in the connection's window, longest first.
    waiting: VecDeque<StreamKey>,
    /// Wakes the driver.
    driver: Option<Waker>,
    /// Those who wait for the first word of the other end.
    hearing: Vec<Waker>,
    /// A stream has ended since the driver looked.
    had_streams: bool,
    /// Output is on its way; what comes meanwhile goes when that has gone.
    is_sending: bool,
    /// It is over: nothing comes any more, and nothing that is sent arrives.
    end: Option<Ended>,
    /// Nobody picks it for new streams any more.
    is_retired: bool,
    /// Streams of ours that it may carry still.
    streams_left: u32,
}

/// What is kept of one stream between its exchange and the driver.
#[derive(Default)]
struct Place {
    /// Its exchange, while it waits.
    waker: Option<Waker>,
    /// Response heads that were not taken, with their bytes.
    heads: VecDeque<(ResponseHead, Buffer)>,
    /// Memory for the next of them.
    spare: ResponseHead,
    /// Of the body, what was not taken.
    body: VecDeque<Buffer>,
    /// Trailer lines that were not taken.
    trailers: Vec<u8>,
    /// Nothing comes behind that.
    is_ended: bool,
    /// It is over before its time.
    gone: Option<Gone>,
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The other end closed it.
    Closed,
    /// It broke.
    Broken,
    /// The other end did what it must not.
    Failed(ConnectionError),
    /// We closed it when nothing was left to do.
    Done,
}

/// A request that came.
pub struct Arrived {
    /// Its stream.
    pub stream: Stream,
    /// Its head, as HTTP/1.1 would have it.
    pub head: RequestHead,
    /// The bytes of the head.
    pub bytes: Buffer,
    /// Instead of a head: it was too large.
    pub error: Option<ParseError>,
}

impl Http2 {
    /// A connection that begins `now`.
    pub fn new(is_server: bool, config: Config, buffers: BufferPool, now: u64) -> Rc<Http2> {
        let state = State {
            wire: wire_http2::Connection::new(is_server, config, Tick(now)),
            places: Vec::new(),
            waiting: VecDeque::new(),
            driver: None,
            hearing: Vec::new(),
            had_streams: false,
            is_sending: false,
            end: None,
            is_retired: false,
            streams_left: u32::MAX,
        };
        Rc::new(Http2 { state: RefCell::new(state), buffers })
    }

    /// It shall carry so many streams of ours and no more.
    pub fn limit_streams(&self, streams: u32) {
        self.state.borrow_mut().streams_left = streams;
    }

    /// A stream for a request; `None` when there can be no other now.
    pub fn open(self: &Rc<Self>, now: u64) -> Option<Stream> {
        let mut state = self.state.borrow_mut();
        if state.end.is_some() || state.is_retired {
            return None;
        }
        if state.wire.can_open() {
            state.wire.ask_when_idle(Tick(now));
        }
        let key = state.wire.open()?;
        state.streams_left = state.streams_left.saturating_sub(1);
        // The last that it shall carry.
        state.is_retired |= state.streams_left == 0;
        state.place(key);
        drop(state);
        Some(Stream::new(self.clone(), key))
    }

    /// Whether it can never again have new streams.
    pub fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.end.is_some() || state.is_leaving()
    }

    /// Whether the other end has said how many streams it takes.
    pub fn is_heard(&self) -> bool {
        self.state.borrow().wire.peer_takes_protocols().is_some()
    }

    /// Whether it has, or never will; else the task of `cx` is woken then.
    pub fn poll_heard(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_heard() || self.is_over() {
            return Poll::Ready(());
        }
        let hearing = &mut self.state.borrow_mut().hearing;
        if !hearing.iter().any(|known| known.will_wake(cx.waker())) {
            hearing.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// How many streams it has.
    pub fn streams_count(&self) -> usize {
        self.state.borrow().wire.streams_count()
    }

    /// No new streams shall come: it ends when those that are here have ended.
    pub fn retire(&self) {
        let mut state = self.state.borrow_mut();
        state.is_retired = true;
        state.hearing.drain(..).for_each(Waker::wake);
        state.wake_driver();
    }

    /// Takes received bytes as far as they are whole; how many of them are done with. `arrived` gets the requests among
    /// them.
    fn receive(
        self: &Rc<Self>,
        bytes: &[u8],
        now: u64,
        owner: &mut impl Owner,
        arrived: &mut Vec<Arrived>,
    ) -> Result<usize, ConnectionError> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut done = 0;
        loop {
            let rest = bytes.get(done..).unwrap_or_default();
            let (count, event) = state.wire.receive(rest, Tick(now))?;
            done += count;
            match event {
                None => return Ok(done),
                Some(Event::Request { stream }) => {
                    let mut head = owner.spare();
                    let bytes = self.buffers.take_with(state.wire.take_request(&mut head));
                    state.place(stream).is_ended = state.wire.has_received_all(stream);
                    arrived.push(Arrived {
                        stream: Stream::new(self.clone(), stream),
                        head,
                        bytes,
                        error: None,
                    });
                }
                Some(Event::TooLarge { stream, error }) => {
                    state.place(stream).is_ended = state.wire.has_received_all(stream);
                    arrived.push(Arrived {
                        stream: Stream::new(self.clone(), stream),
                        head: owner.spare(),
                        bytes: Buffer::default(),
                        error: Some(error),
                    });
                }
                Some(event) => state.note(event, &self.buffers),
            }
        }
    }

    /// It is over.
    fn end(&self, ended: Ended) {
        let mut state = self.state.borrow_mut();
        state.end.get_or_insert(ended);
        state.places.iter_mut().for_each(Place::wake);
        state.hearing.drain(..).for_each(Waker::wake);
        state.wake_driver();
    }
}

impl State {
    /// The place of a stream.
    #[inline]
    fn place(&mut self, key: StreamKey) -> &mut Place {
        let at = key.index();
        if at >= self.places.len() {
            self.places.resize_with(at + 1, Place::default);
        }
        &mut self.places[at]
    }

    fn note(&mut self, event: Event<'_>, buffers: &BufferPool) {
        match event {
            Event::Response { stream } => {
                let mut head = std::mem::take(&mut self.place(stream).spare);
                let bytes = buffers.take_with(self.wire.take_response(&mut head));
                let is_ended = self.wire.has_received_all(stream);
                let place = self.place(stream);
                place.is_ended = is_ended;
                place.heads.push_back((head, bytes));
                place.wake();
                if place.heads.len() > usize::from(INTERIM_COUNT_MAX) {
                    self.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                }
            }
            Event::Data { stream, bytes, ends } => {
                let held = &self.place(stream).body;
                // What is promised by windows is more than there is memory for: who does not read loses its stream.
                if !held.is_empty() && buffers.is_used_up() {
                    self.wire.consume(stream, bytes.len());
                    return self.reset(stream, ErrorCode::ENHANCE_YOUR_CALM);
                }
                let place = self.place(stream);
                place.is_ended = ends;
                place.append(bytes, buffers);
                place.wake();
            }
            Event::Trailers { stream } => {
                let at = stream.index();
                let trailers = self.wire.trailers();
                if let Some(place) = self.places.get_mut(at) {
                    place.trailers.extend_from_slice(trailers);
                    place.is_ended = true;
                    place.wake();
                }
            }
            Event::Reset { stream, code } => {
                let is_refused = code == ErrorCode::REFUSED_STREAM;
                self.is_gone(stream, if is_refused { Gone::Refused } else { Gone::Reset });
            }
            Event::Window { stream: Some(stream) } => self.place(stream).wake(),
            Event::Window { stream: None } => self.wake_waiting(),
            Event::Settings => {
                self.hearing.drain(..).for_each(Waker::wake);
                self.waiting.clear();
                self.places.iter_mut().for_each(Place::wake);
            }
            Event::GoAway { .. } => {
                self.hearing.drain(..).for_each(Waker::wake);
                while let Some(stream) = self.wire.next_refused() {
                    self.is_gone(stream, Gone::Left);
                }
            }
            Event::Request { .. } | Event::TooLarge { .. } => {}
        }
    }

    fn reset(&mut self, stream: StreamKey, code: ErrorCode) {
        self.wire.reset(stream, code);
        self.is_gone(stream, Gone::Reset);
        self.flush();
    }

    fn is_gone(&mut self, stream: StreamKey, gone: Gone) {
        let place = self.place(stream);
        place.gone.get_or_insert(gone);
        place.wake();
    }

    /// Lets all that wait for room look again, those that wait longest first.
    fn wake_waiting(&mut self) {
        while let Some(stream) = self.waiting.pop_front() {
            self.place(stream).wake();
        }
    }

    /// No new streams come about.
    fn is_leaving(&self) -> bool {
        self.is_retired || self.wire.is_leaving()
    }

    /// Has the driver send what there is, behind those who are woken already, so that what they send goes with it.
    fn flush(&mut self) {
        if self.wire.has_output() && !self.is_sending {
            self.wake_driver();
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    /// The driver is the task of `cx`.
    fn drive_by(&mut self, cx: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }
}

impl Place {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Puts a part of the body behind what is there.
    fn append(&mut self, mut bytes: &[u8], buffers: &BufferPool) {
        while !bytes.is_empty() {
            if self.body.back().is_none_or(|last| last.spare() == 0) {
                self.body.push_back(buffers.take());
            }
            let Some(last) = self.body.back_mut() else { return };
            let count = last.extend(bytes);
            bytes = bytes.get(count..).unwrap_or_default();
        }
    }

    /// Makes it ready for another stream.
    fn clear(&mut self, buffers: &BufferPool) {
        self.waker = None;
        // Mostly there is nothing left, and one by one that is seen at once.
        while let Some((_, bytes)) = self.heads.pop_front() {
            buffers.put(bytes);
        }
        while let Some(bytes) = self.body.pop_front() {
            buffers.put(bytes);
        }
        self.trailers.clear();
        self.is_ended = false;
        self.gone = None;
    }
}

/// What a buffer for receiving must hold: a frame.
const _: () = assert!(
    limits::RECV_BUFFER_BYTES >= wire_http2::frame::PAYLOAD_BYTES_MAX + wire_http2::frame::FRAME_HEAD_BYTES
);
