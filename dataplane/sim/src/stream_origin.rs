//! An origin that speaks HTTP/2: as [`crate::origin`], with what only streams can do.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use runtime::{Accepted, Deadline, Io, Listener, io::ListenerClose};

use crate::{
    client::Loss,
    faults::End,
    http::{Message, hash},
    origin::{Answer, LEDGER_ID, REQUEST_HASH, RESPONSE_HASH},
    streams::{Stream, StreamConfig, Streams},
};

/// Pause between two looks whether an origin may answer.
const LOOK: Duration = Duration::from_millis(1);

/// A running origin; it ends with the simulation or by [`StreamOrigin::stop`].
#[derive(Clone)]
pub struct StreamOrigin {
    address: SocketAddr,
    shared: Rc<Shared>,
    close: ListenerClose,
}

struct Shared {
    behaviour: RefCell<Rc<StreamBehaviour>>,
    records: RefCell<Vec<StreamRecord>>,
    /// Streams that are not over.
    running: Cell<usize>,
    running_max: Cell<usize>,
    is_held: Cell<bool>,
}

/// What came over one connection.
#[derive(Clone, Debug, Default)]
pub struct StreamRecord {
    /// Streams that came.
    pub begun: usize,
    /// The complete requests.
    pub requests: Vec<Message>,
    /// How streams ended before their time.
    pub lost: Vec<Loss>,
    /// It is over, whoever ended it.
    pub is_over: bool,
}

/// What an origin does with each stream. The default answers with 200.
#[derive(Clone, Debug)]
pub struct StreamBehaviour {
    /// What it says of itself; for connections from now on.
    pub config: StreamConfig,
    /// When it answers; [`Answer::AtFin`] is as [`Answer::AtRequest`].
    pub answer: Answer,
    /// How long it rests before it answers.
    pub think: Duration,
    /// Interim responses before the answer.
    pub interims: Vec<u16>,
    /// The status.
    pub status: u16,
    /// Header lines besides its own.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// It says how long the body is.
    pub has_length: bool,
    /// Fields behind the body.
    pub trailers: Vec<(String, String)>,
    /// It takes nothing of a request's body but what the window lets come.
    pub holds: bool,
    /// It resets a stream with this code before it looks at it.
    pub refuses: Option<u32>,
    /// It resets the stream with this code behind so many bytes of the body.
    pub resets: Option<(usize, u32)>,
    /// It ends the connection behind so many bytes of a body.
    pub ends: Option<(usize, End)>,
    /// It says with GOAWAY that it leaves when so many streams have come.
    pub leaves_after: Option<usize>,
}

impl Default for StreamBehaviour {
    fn default() -> Self {
        StreamBehaviour {
            config: StreamConfig::default(),
            answer: Answer::AtRequest,
            think: Duration::ZERO,
            interims: Vec::new(),
            status: 200,
            headers: Vec::new(),
            body: b"ok\n".to_vec(),
            has_length: true,
            trailers: Vec::new(),
            holds: false,
            refuses: None,
            resets: None,
            ends: None,
            leaves_after: None,
        }
    }
}

impl StreamOrigin {
    /// Starts to accept on a socket. Panics when the loop cannot take it.
    pub fn start<I: Io>(io: &I, socket: I::Socket, behaviour: StreamBehaviour) -> StreamOrigin {
        let listener = io.listener(socket).expect("the loop takes a listener");
        let shared = Shared {
            behaviour: RefCell::new(Rc::new(behaviour)),
            records: RefCell::default(),
            running: Cell::default(),
            running_max: Cell::default(),
            is_held: Cell::default(),
        };
        let (address, close) = (listener.local_addr(), listener.close_handle());
        let origin = StreamOrigin { address, shared: Rc::new(shared), close };
        io.spawn(accept(io.clone(), listener, origin.clone()));
        origin
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves otherwise, from the next stream on.
    pub fn behave(&self, behaviour: StreamBehaviour) {
        *self.shared.behaviour.borrow_mut() = Rc::new(behaviour);
    }

    /// Answers nothing until it is released.
    pub fn hold(&self) {
        self.shared.is_held.set(true);
    }

    /// Answers again.
    pub fn release(&self) {
        self.shared.is_held.set(false);
    }

    /// Accepts no more.
    pub fn stop(&self) {
        self.close.close();
    }

    /// Every connection so far, in the order in which they were accepted.
    pub fn connections(&self) -> Vec<StreamRecord> {
        self.shared.records.borrow().clone()
    }

    /// Streams that are not over.
    pub fn running(&self) -> usize {
        self.shared.running.get()
    }

    /// The most that there were at a time.
    pub fn running_max(&self) -> usize {
        self.shared.running_max.get()
    }

    /// Every complete request, connection by connection.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.records.borrow().iter().flat_map(|record| record.requests.clone()).collect()
    }

    /// How many requests named each id.
    pub fn ledger(&self) -> BTreeMap<String, usize> {
        let mut ledger = BTreeMap::new();
        for request in self.requests() {
            *ledger.entry(request.header(LEDGER_ID).unwrap_or_default().to_owned()).or_default() += 1;
        }
        ledger
    }

    fn behaviour(&self) -> Rc<StreamBehaviour> {
        self.shared.behaviour.borrow().clone()
    }
}

async fn accept<I: Io>(io: I, mut listener: I::Listener, origin: StreamOrigin) {
    while let Ok(Accepted { recv, send, .. }) = listener.accept().await {
        let number = origin.shared.records.borrow().len();
        origin.shared.records.borrow_mut().push(StreamRecord::default());
        let streams = Streams::new(&io, (recv, send), true, origin.behaviour().config);
        io.spawn(serve(io.clone(), streams, number, origin.clone()));
    }
}

async fn serve<I: Io>(io: I, streams: Streams<I>, number: usize, origin: StreamOrigin) {
    while let Some(stream) = streams.arrived().await {
        let begun = {
            let record = &mut origin.shared.records.borrow_mut()[number];
            record.begun += 1;
            record.begun
        };
        let running = origin.running() + 1;
        origin.shared.running.set(running);
        origin.shared.running_max.set(origin.running_max().max(running));
        let serving = Serving { io: io.clone(), streams: streams.clone(), number, origin: origin.clone() };
        io.spawn(serving.serve(stream));
        if origin.behaviour().leaves_after == Some(begun) {
            streams.leave();
        }
    }
    origin.shared.records.borrow_mut()[number].is_over = true;
}

/// What answers one stream.
struct Serving<I: Io> {
    io: I,
    streams: Streams<I>,
    number: usize,
    origin: StreamOrigin,
}

impl<I: Io> Serving<I> {
    async fn serve(self, stream: Stream<I>) {
        let behaviour = self.origin.behaviour();
        if behaviour.holds {
            stream.hold();
        }
        let served = match behaviour.refuses {
            Some(code) => {
                stream.reset(code);
                Ok(())
            }
            None => self.answer(&stream, &behaviour).await,
        };
        if let Err(loss) = served {
            self.origin.shared.records.borrow_mut()[self.number].lost.push(loss);
        }
        self.origin.shared.running.set(self.origin.running() - 1);
    }

    async fn answer(&self, stream: &Stream<I>, behaviour: &StreamBehaviour) -> Result<(), Loss> {
        let (head, request) = match behaviour.answer {
            Answer::AtHead => (stream.head().await?, None),
            Answer::AtRequest | Answer::AtFin | Answer::Never => {
                let request = stream.whole().await?;
                self.record(&request);
                (request.clone(), Some(request))
            }
        };
        if behaviour.answer == Answer::Never {
            return Err(stream.until_gone().await);
        }
        if behaviour.think > Duration::ZERO {
            self.io.sleep_until(Deadline::after(self.io.now(), behaviour.think)).await;
        }
        while self.origin.shared.is_held.get() && stream.gone().is_none() {
            self.io.sleep_until(Deadline::after(self.io.now(), LOOK)).await;
        }
        behaviour.interims.iter().for_each(|status| stream.respond(*status, &[("x-hint", "early")], false));
        let is_bodyless = head.method() == "HEAD" || matches!(behaviour.status, 204 | 304);
        let body = if is_bodyless { &[] } else { &behaviour.body[..] };
        let ends = behaviour.trailers.is_empty() && body.is_empty();
        self.respond(stream, behaviour, (&head, request.as_ref()), ends);
        self.send_body(stream, behaviour, body, ends).await?;
        if request.is_none() {
            let request = stream.whole().await?;
            self.record(&request);
        }
        Ok(())
    }

    fn respond(
        &self,
        stream: &Stream<I>,
        behaviour: &StreamBehaviour,
        (head, request): (&Message, Option<&Message>),
        ends: bool,
    ) {
        let mut lines: Vec<(String, String)> = behaviour.headers.clone();
        let mut add = |name: &str, value: &str| lines.push((name.to_owned(), value.to_owned()));
        if let Some(id) = head.header(LEDGER_ID) {
            add(LEDGER_ID, id);
        }
        if let Some(request) = request {
            add(REQUEST_HASH, &hash(&request.body));
        }
        add(RESPONSE_HASH, &hash(&behaviour.body));
        if behaviour.has_length && !matches!(behaviour.status, 204 | 304) {
            add("content-length", &behaviour.body.len().to_string());
        }
        let lines: Vec<(&str, &str)> =
            lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        stream.respond(behaviour.status, &lines, ends);
    }

    async fn send_body(
        &self,
        stream: &Stream<I>,
        behaviour: &StreamBehaviour,
        body: &[u8],
        has_ended: bool,
    ) -> Result<(), Loss> {
        let lost = || stream.gone().unwrap_or(Loss::Closed);
        let cut = behaviour.resets.map(|(bytes, _)| bytes).or(behaviour.ends.map(|(bytes, _)| bytes));
        if let Some(cut) = cut {
            let part = &body[..cut.min(body.len())];
            if !stream.send(part, false).await {
                return Err(lost());
            }
            if let Some((_, code)) = behaviour.resets {
                stream.reset(code);
            }
            match behaviour.ends {
                Some((_, End::Close)) => self.streams.close(),
                Some((_, End::Reset)) => self.streams.reset(),
                None => {}
            }
            return Err(lost());
        }
        if has_ended {
            return Ok(());
        }
        let trailers: Vec<(&str, &str)> =
            behaviour.trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !stream.send(body, trailers.is_empty()).await {
            return Err(lost());
        }
        if !trailers.is_empty() {
            stream.send_end(&trailers);
        }
        Ok(())
    }

    fn record(&self, request: &Message) {
        self.origin.shared.records.borrow_mut()[self.number].requests.push(request.clone());
    }
}
