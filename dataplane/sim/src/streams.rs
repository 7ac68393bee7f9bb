//! HTTP/2 for the ends of a test: [`wire::http2`], which other tests hold against foreign implementations, over a connection
//! of the simulation. A story does with its streams what it likes, in a script; what the other end must not do panics.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf};
use wire::{
    Tick,
    head::{
        Framing as WireFraming, Header, Method, RequestHead, RequestView, ResponseHead, ResponseView, Version,
    },
    http1::{
        body::TrailerLimits,
        encode::{BodyOut, HeadEdits, ResponseEdits},
        parse::{self, Limits},
    },
    http2::{
        Config, Connection, Event, StreamKey,
        budget::{Allowance, FrameBounds},
        error::ErrorCode,
        frame::{FrameHead, Kind},
        settings::Settings,
    },
};

use crate::{
    client::{Ask, Loss, Verdict, both, judge},
    faults::End,
    http::{Framing, Message},
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
    /// Bytes that may come on a stream that nobody took.
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

struct State {
    wire: Connection,
    /// Frames that go behind what the connection says.
    raw: Vec<u8>,
    /// By [`StreamKey::index`].
    streams: BTreeMap<usize, Seen>,
    arrived: VecDeque<StreamKey>,
    wakers: Vec<Waker>,
    /// Nothing is received.
    is_deaf: bool,
    /// Windows of new streams are not opened.
    is_holding: bool,
    /// We end it.
    closing: Option<End>,
    /// It is over.
    loss: Option<Loss>,
    /// The other end said that it leaves.
    is_left: bool,
}

/// What came of a stream.
#[derive(Default)]
struct Seen {
    method: String,
    interims: Vec<u16>,
    head: Option<Message>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    is_ended: bool,
    gone: Option<Loss>,
    /// Its window is not opened.
    is_held: bool,
    /// Bytes whose place in the window was not given back.
    held_bytes: usize,
}

/// A stream. Dropped, it is over, also on the wire where it has not ended.
pub struct Stream<I: Io> {
    streams: Streams<I>,
    key: StreamKey,
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
            wire: Connection::new(is_server, wire_config(config), Tick(io.now())),
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
        let key = self
            .wait("a new stream", |state| match state.end() {
                Some(loss) => Some(Err(loss)),
                None if state.is_left => Some(Err(Loss::Left)),
                None => state.wire.open().map(Ok),
            })
            .await?;
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

impl<I: Io> Stream<I> {
    fn change<T>(&self, change: impl FnOnce(&mut State, &mut Seen) -> T) -> T {
        self.streams.change(|state| {
            let mut seen = state.streams.remove(&self.key.index()).unwrap_or_default();
            let changed = change(state, &mut seen);
            state.streams.insert(self.key.index(), seen);
            changed
        })
    }

    fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        let state = self.streams.shared.state.borrow();
        look(&state.streams[&self.key.index()])
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut Seen) -> Option<T>) -> Result<T, Loss> {
        let index = self.key.index();
        let found = self.streams.try_wait(|state| {
            let end = state.end();
            let seen = state.streams.get_mut(&index)?;
            match look(seen) {
                Some(found) => Some(Ok(found)),
                None => seen.gone.clone().or(end).map(Err),
            }
        });
        found.await.unwrap_or(Err(Loss::Ended(io::ErrorKind::TimedOut)))
    }

    /// The request that came, or the final response's head.
    pub async fn head(&self) -> Result<Message, Loss> {
        self.wait(|seen| seen.head.clone()).await
    }

    /// The whole message.
    pub async fn whole(&self) -> Result<Message, Loss> {
        self.wait(|seen| seen.whole()).await
    }

    /// What became of the request.
    pub async fn verdict(&self, ask: &Ask) -> Verdict {
        match self.whole().await {
            Ok(answer) => judge(ask, answer),
            Err(loss) => Verdict::Lost(loss),
        }
    }

    /// Statuses of the interim responses so far.
    pub fn interims(&self) -> Vec<u16> {
        self.seen(|seen| seen.interims.clone())
    }

    /// The body so far.
    pub fn body(&self) -> Vec<u8> {
        self.seen(|seen| seen.body.clone())
    }

    /// Waits until so many bytes of the body have come in all.
    pub async fn body_of(&self, bytes: usize) -> Result<Vec<u8>, Loss> {
        self.wait(|seen| (seen.body.len() >= bytes).then(|| seen.body.clone())).await
    }

    /// Whether the other end has ended it.
    pub fn is_ended(&self) -> bool {
        self.seen(|seen| seen.is_ended)
    }

    /// Waits until the other end has ended it.
    pub async fn end(&self) -> Result<(), Loss> {
        self.wait(|seen| seen.is_ended.then_some(())).await
    }

    /// How it ended before its time, if it did.
    pub fn gone(&self) -> Option<Loss> {
        let end = self.streams.shared.state.borrow().end();
        self.seen(|seen| seen.gone.clone()).or(end)
    }

    /// Waits until it is over before its time.
    pub async fn until_gone(&self) -> Loss {
        match self.wait(|_| None::<()>).await {
            Err(loss) => loss,
            Ok(()) => Loss::Closed,
        }
    }

    /// From now on no place is made in its window.
    pub fn hold(&self) {
        self.change(|_, seen| seen.is_held = true);
    }

    /// Makes place for so many bytes more than is there; all of it if there are fewer.
    pub fn take(&self, bytes: usize) {
        let key = self.key;
        self.change(|state, seen| {
            let bytes = bytes.min(seen.held_bytes);
            seen.held_bytes -= bytes;
            state.wire.consume(key, bytes);
        });
    }

    /// From now on everything that comes makes place for more.
    pub fn read_on(&self) {
        self.change(|_, seen| seen.is_held = false);
        self.take(usize::MAX);
    }

    /// Sends a part of the body, and the end if it `ends`; false when the stream was over first.
    pub async fn send(&self, mut bytes: &[u8], ends: bool) -> bool {
        let key = self.key;
        if bytes.is_empty() && ends {
            self.send_end(&[]);
        }
        while !bytes.is_empty() {
            let index = key.index();
            let sent = self.streams.try_wait(|state| {
                let is_over = state.end().is_some() || state.streams.get(&index)?.gone.is_some();
                match state.wire.send_data(key, bytes, ends) {
                    0 if is_over => Some(0),
                    0 => None,
                    sent => Some(sent),
                }
            });
            match sent.await {
                Some(sent) if sent > 0 => bytes = &bytes[sent..],
                _ => return false,
            }
        }
        true
    }

    /// Sends the end, with trailers if there are any.
    pub fn send_end(&self, trailers: &[(&str, &str)]) {
        let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.change(|state, _| state.wire.send_trailers(self.key, lines.as_bytes()));
    }

    /// Sends a response head: interim, final, or with 101 what grants a protocol.
    pub fn respond(&self, status: u16, headers: &[(&str, &str)], ends: bool) {
        let mut text = format!("HTTP/1.1 {status} Answer\r\n");
        let is_granted = status == 101;
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        self.change(|state, seen| {
            let mut head = ResponseHead::default();
            let method = if seen.method == "HEAD" { Method::Head } else { Method::Get };
            let parsed = parse::response(text.as_bytes(), &LIMITS, method, &mut head);
            assert_eq!(parsed, Ok(parse::Parsed::Complete), "{text}");
            let edits = ResponseEdits {
                headers: &[],
                body: if is_granted { BodyOut::None } else { BodyOut::choose(head.framing, Version::Http11) },
                close: false,
                version: Version::Http11,
                method,
            };
            let view = ResponseView { head: &head, bytes: text.as_bytes() };
            state.wire.send_response(self.key, view, &edits, ends);
        });
    }

    /// Resets it.
    pub fn reset(&self, code: u32) {
        self.change(|state, seen| {
            state.wire.reset(self.key, ErrorCode(code));
            seen.gone.get_or_insert(Loss::Reset(code));
        });
    }
}

impl<I: Io> Drop for Stream<I> {
    fn drop(&mut self) {
        self.streams.change(|state| {
            if let Some(seen) = state.streams.remove(&self.key.index()) {
                state.wire.consume(self.key, seen.held_bytes);
            }
            state.wire.release(self.key);
        });
    }
}

impl Seen {
    fn whole(&self) -> Option<Message> {
        let mut message = self.head.clone().filter(|_| self.is_ended)?;
        message.body = self.body.clone();
        message.trailers = self.trailers.clone();
        Some(message)
    }
}

impl State {
    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|known| known.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn end(&self) -> Option<Loss> {
        self.loss.clone().or(self.closing.map(|_| Loss::Closed))
    }

    fn over(&mut self, loss: Loss) {
        self.loss.get_or_insert(loss);
        self.wake();
    }

    /// Takes received bytes as far as they are whole; gives how many.
    fn receive(&mut self, bytes: &[u8], now: u64) -> usize {
        let mut done = 0;
        loop {
            let (count, event) = match self.wire.receive(&bytes[done..], Tick(now)) {
                Ok(received) => received,
                Err(error) => panic!("the other end must not do that: {error}"),
            };
            done += count;
            match event {
                None => return done,
                Some(event) => self.note(event),
            }
        }
    }

    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Request { stream } => {
                let mut head = RequestHead::default();
                let bytes = self.wire.take_request(&mut head);
                let view = RequestView { head: &head, bytes };
                let method = latin1(view.method());
                let message = Message {
                    start: format!("{method} {} HTTP/2", latin1(head.target.of(bytes))),
                    headers: headers(&head.headers, bytes),
                    framing: framing(head.framing),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                let is_ended = self.wire.has_received_all(stream);
                let is_held = self.is_holding;
                let seen = Seen { method, head: Some(message), is_ended, is_held, ..Seen::default() };
                self.streams.insert(stream.index(), seen);
                self.arrived.push_back(stream);
            }
            Event::Response { stream } => {
                let mut head = ResponseHead::default();
                let bytes = self.wire.take_response(&mut head);
                let message = Message {
                    start: format!("HTTP/2 {} -", head.status),
                    headers: headers(&head.headers, bytes),
                    framing: framing(head.framing),
                    body: Vec::new(),
                    trailers: Vec::new(),
                };
                let is_ended = self.wire.has_received_all(stream);
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                if head.status < 200 && head.status != 101 {
                    return seen.interims.push(head.status);
                }
                assert!(seen.head.is_none(), "a second final response");
                seen.head = Some(message);
                seen.is_ended = is_ended;
            }
            Event::Data { stream, bytes, ends } => {
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                seen.body.extend_from_slice(bytes);
                seen.is_ended |= ends;
                match seen.is_held {
                    true => seen.held_bytes += bytes.len(),
                    false => self.wire.consume(stream, bytes.len()),
                }
            }
            Event::Trailers { stream } => {
                let text = latin1(self.wire.trailers());
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                let fields = text.lines().filter_map(|line| line.split_once(':'));
                seen.trailers =
                    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
                seen.is_ended = true;
            }
            Event::Reset { stream, code } => {
                let Some(seen) = self.streams.get_mut(&stream.index()) else { return };
                seen.gone.get_or_insert(Loss::Reset(code.0));
            }
            Event::GoAway { code } => {
                assert_eq!(code, ErrorCode::NO_ERROR, "the other end found fault");
                self.is_left = true;
                while let Some(stream) = self.wire.next_refused() {
                    if let Some(seen) = self.streams.get_mut(&stream.index()) {
                        seen.gone.get_or_insert(Loss::Left);
                    }
                }
            }
            Event::TooLarge { .. } => panic!("a head that is too large"),
            Event::Window { .. } | Event::Settings => {}
        }
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

fn wire_config(config: StreamConfig) -> Config {
    let plenty = Allowance { most: u32::MAX, per_second: 0, per_use: 0 };
    Config {
        settings: Settings {
            streams_max: config.streams_max,
            window_bytes: config.window_bytes,
            connect_protocol: config.takes_protocols,
            ..Settings::default()
        },
        stream_window_bytes_max: config.window_bytes,
        connection_window_bytes: 4 << 20,
        own_streams_max: u32::MAX,
        head: LIMITS,
        trailers: TrailerLimits { bytes_max: 16 * 1024, count_max: 100 },
        resets: plenty,
        chatter: plenty,
        frames: FrameBounds::NONE,
        keepalive: None,
    }
}

fn framing(framing: WireFraming) -> Framing {
    match framing {
        WireFraming::None => Framing::None,
        WireFraming::Length(_) => Framing::Length,
        WireFraming::Chunked => Framing::Chunked,
        WireFraming::UntilClose => Framing::UntilClose,
    }
}

fn headers(headers: &[Header], bytes: &[u8]) -> Vec<(String, String)> {
    headers.iter().map(|header| (latin1(header.name.of(bytes)), latin1(header.value.of(bytes)))).collect()
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
