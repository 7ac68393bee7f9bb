//! HTTP/2 for the ends of a test: [`wire::http2`], which other tests hold against foreign implementations, over a connection
//! of the simulation. A story does with its streams what it likes, in a script; what the other end must not do panics.

mod state;
mod stream;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf};
use wire::{
    Tick,
    head::{RequestHead, RequestView},
    http1::{
        encode::HeadEdits,
        parse::{self, Limits},
    },
    http2::{
        Connection,
        error::ErrorCode,
        frame::{FrameHead, Kind},
    },
};

pub use self::stream::Stream;
use self::{state::State, stream::Seen};
use crate::{
    client::{Ask, Loss, Verdict, both},
    faults::End,
};

/// How long an end waits for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of one receive.
const PIECE_BYTES: usize = 16 * 1024;

const LIMITS: Limits =
    Limits { head_bytes_max: 60 * 1024, headers_count_max: 100, target_bytes_max: 8 * 1024 };

/// What an end says of itself.
#[derive(Clone, Copy, Debug)]
pub struct StreamConfig {
    /// Streams that it takes at a time.
    pub streams_max: u32,
    /// Bytes that may come on a stream that nobody took. What a client sends before it has heard of it is held to it, too: for
    /// a server less than 65 535 is for stories whose first request is small.
    pub window_bytes: u32,
    /// It takes CONNECT with a protocol.
    pub takes_protocols: bool,
}

impl Default for StreamConfig {
    fn default() -> Self {
        StreamConfig { streams_max: 1000, window_bytes: 65_535, takes_protocols: true }
    }
}

/// One end of a connection.
pub struct Streams<I: Io> {
    shared: Rc<Shared<I>>,
}

struct Shared<I: Io> {
    io: I,
    state: RefCell<State>,
}

impl<I: Io> Clone for Streams<I> {
    fn clone(&self) -> Self {
        Streams { shared: self.shared.clone() }
    }
}

impl<I: Io> Streams<I> {
    /// Connects as a client. Panics when it cannot.
    pub async fn connect(io: &I, to: SocketAddr, config: StreamConfig) -> Streams<I> {
        Self::try_connect(io, to, config).await.unwrap_or_else(|error| panic!("connect to {to}: {error}"))
    }

    /// Connects as a client, maybe.
    pub async fn try_connect(io: &I, to: SocketAddr, config: StreamConfig) -> io::Result<Streams<I>> {
        let halves = io.connect(to, Deadline::after(io.now(), PATIENCE)).await?;
        Ok(Self::new(io, halves, false, config))
    }

    /// Accepts one connection, as a server.
    pub async fn accept(io: &I, listener: &mut I::Listener, config: StreamConfig) -> Streams<I> {
        let Accepted { recv, send, .. } =
            listener.accept().await.unwrap_or_else(|error| panic!("accept: {error}"));
        Self::new(io, (recv, send), true, config)
    }

    pub(crate) fn new(
        io: &I,
        (recv, send): (I::Recv, I::Send),
        is_server: bool,
        config: StreamConfig,
    ) -> Self {
        let state = State {
            wire: Connection::new(is_server, state::wire_config(config), Tick(io.now())),
            raw: Vec::new(),
            streams: BTreeMap::new(),
            arrived: VecDeque::new(),
            wakers: Vec::new(),
            is_deaf: false,
            is_holding: false,
            closing: None,
            loss: None,
            is_left: false,
        };
        let shared = Rc::new(Shared { io: io.clone(), state: RefCell::new(state) });
        io.spawn(drive(shared.clone(), recv, send));
        Streams { shared }
    }

    /// Whether it is over, or leaves, so that it can carry no further request.
    pub fn is_over(&self) -> bool {
        let state = self.shared.state.borrow();
        state.loss.is_some() || state.closing.is_some() || state.is_left
    }

    /// The other end said that it leaves.
    pub fn is_left(&self) -> bool {
        self.shared.state.borrow().is_left
    }

    /// How it ended, once it has.
    pub fn loss(&self) -> Option<Loss> {
        self.shared.state.borrow().loss.clone()
    }

    /// Streams that nobody has let go.
    pub fn streams_count(&self) -> usize {
        self.shared.state.borrow().streams.len()
    }

    /// Waits until it is over.
    pub async fn ended(&self) -> Loss {
        self.wait("the end of the connection", |state| state.loss.clone()).await
    }

    /// From now on nothing is received, or again.
    pub fn deafen(&self, is_deaf: bool) {
        self.change(|state| state.is_deaf = is_deaf);
    }

    /// From now on nothing makes room in the windows of new streams.
    pub fn hold(&self) {
        self.change(|state| state.is_holding = true);
    }

    /// Sends FIN, behind what is to be sent, and takes nothing any more.
    pub fn close(&self) {
        self.change(|state| {
            state.closing.get_or_insert(End::Close);
        });
    }

    /// Breaks the connection.
    pub fn reset(&self) {
        self.change(|state| state.closing = Some(End::Reset));
    }

    /// Says with GOAWAY that streams above `last` are not looked at.
    pub fn go_away(&self, last: u32, code: u32) {
        self.change(|state| {
            FrameHead { length: 8, kind: Kind::GoAway, flags: 0, stream: 0 }.write(&mut state.raw);
            state.raw.extend_from_slice(&last.to_be_bytes());
            state.raw.extend_from_slice(&code.to_be_bytes());
        });
    }

    /// Says with GOAWAY that it leaves once what came has been answered.
    pub fn leave(&self) {
        self.change(|state| state.wire.leave(ErrorCode::NO_ERROR));
    }

    /// Sends a frame, whatever it means.
    pub fn send_frame(&self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        self.change(|state| {
            FrameHead { length: payload.len() as u32, kind, flags, stream }.write(&mut state.raw);
            state.raw.extend_from_slice(payload);
        });
    }

    /// Begins a request on a stream of its own, as soon as the other end allows one. Its body is the caller's to send, unless
    /// there is none.
    pub async fn begin(&self, ask: &Ask) -> Result<Stream<I>, Loss> {
        let bytes = ask.bytes();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_default() + 4;
        let mut head = RequestHead::default();
        let parsed = parse::request(&bytes, &LIMITS, &mut head);
        assert_eq!(parsed, Ok(parse::Parsed::Complete), "{}", bytes[..end].escape_ascii());
        let key = self.try_wait(|state| match state.end() {
            Some(loss) => Some(Err(loss)),
            None if state.is_left => Some(Err(Loss::Left)),
            None => state.wire.open().map(Ok),
        });
        let key = key.await.unwrap_or(Err(Loss::Ended(io::ErrorKind::TimedOut)))?;
        self.change(|state| {
            let view = RequestView { head: &head, bytes: &bytes[..end] };
            let edits = HeadEdits { upgrade: true, ..HeadEdits::default() };
            state.wire.send_request(key, view, &edits, b"http").expect("a head that can be sent");
            let seen = Seen { method: ask.method.clone(), is_held: state.is_holding, ..Seen::default() };
            state.streams.insert(key.index(), seen);
        });
        Ok(Stream { streams: self.clone(), key })
    }

    /// Sends a request and receives its answer, both at once.
    pub async fn ask(&self, ask: &Ask) -> Verdict {
        let stream = match self.begin(ask).await {
            Ok(stream) => stream,
            Err(loss) => return Verdict::Lost(loss),
        };
        let sending = async {
            match &ask.body {
                Some(body) => stream.send(body, true).await,
                None => true,
            }
        };
        both(sending, stream.verdict(ask)).await.1
    }

    /// The next request; `None` when no other can come.
    pub async fn arrived(&self) -> Option<Stream<I>> {
        let key = poll_fn(|cx| {
            let mut state = self.shared.state.borrow_mut();
            match (state.arrived.pop_front(), state.end()) {
                (Some(key), _) => Poll::Ready(Some(key)),
                (None, Some(_)) => Poll::Ready(None),
                (None, None) => state.wait(cx),
            }
        })
        .await?;
        Some(Stream { streams: self.clone(), key })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.shared.state.borrow_mut();
        let changed = change(&mut state);
        state.wake();
        changed
    }

    /// Waits for something; panics when it does not come in time.
    async fn wait<T>(&self, what: &str, look: impl FnMut(&mut State) -> Option<T>) -> T {
        self.try_wait(look).await.unwrap_or_else(|| panic!("still not there: {what}"))
    }

    async fn try_wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let io = &self.shared.io;
        let alarm = io.timers().alarm();
        alarm.set(Deadline::after(io.now(), PATIENCE));
        poll_fn(|cx| {
            let mut state = self.shared.state.borrow_mut();
            if let Some(found) = look(&mut state) {
                state.wake();
                return Poll::Ready(Some(found));
            }
            let _: Poll<()> = state.wait(cx);
            alarm.poll_rung(cx).map(|_| None)
        })
        .await
    }
}

/// The task of a connection.
async fn drive<I: Io>(shared: Rc<Shared<I>>, mut recv: I::Recv, mut send: I::Send) {
    let cancel = send.cancel_handle();
    let receiving = async {
        let mut received = Vec::new();
        let loss = loop {
            let may_go_on = poll_fn(|cx| {
                let mut state = shared.state.borrow_mut();
                match state.end().is_some() {
                    true => Poll::Ready(false),
                    false if !state.is_deaf && recv.poll_readable(cx).is_ready() => Poll::Ready(true),
                    false => state.wait(cx),
                }
            });
            if !may_go_on.await {
                break Loss::Closed;
            }
            let mut buffer = Buffer::new(PIECE_BYTES);
            match recv.try_recv(&mut buffer) {
                None => continue,
                Some(Ok(0)) => break Loss::Closed,
                Some(Err(error)) => break Loss::Ended(error.kind()),
                Some(Ok(_)) => received.extend_from_slice(buffer.filled()),
            }
            let mut state = shared.state.borrow_mut();
            let done = state.receive(&received, shared.io.now());
            received.drain(..done);
            state.wake();
        };
        shared.state.borrow_mut().over(loss);
        if shared.state.borrow().closing != Some(End::Close) {
            cancel.cancel();
        }
    };
    let sending = async {
        let mut gather = Gather::new();
        loop {
            let may_go_on = poll_fn(|cx| {
                let mut state = shared.state.borrow_mut();
                let has_output = state.wire.has_output() || !state.raw.is_empty();
                match (state.closing, &state.loss) {
                    (Some(End::Reset), _) => Poll::Ready(false),
                    (None, Some(_)) => Poll::Ready(false),
                    _ if has_output => Poll::Ready(true),
                    (Some(End::Close), _) => Poll::Ready(false),
                    (None, None) => state.wait(cx),
                }
            });
            if !may_go_on.await {
                return;
            }
            {
                let mut state = shared.state.borrow_mut();
                let mut out = Vec::new();
                state.wire.take_output(&mut out);
                out.append(&mut state.raw);
                gather.insert(&out);
                state.wake();
            }
            if let Err(error) = send.send_all(&mut gather, Deadline::NEVER).await {
                return shared.state.borrow_mut().over(Loss::Ended(error.kind()));
            }
        }
    };
    both(receiving, sending).await;
    if shared.state.borrow().closing == Some(End::Reset) {
        send.reset();
    }
}
