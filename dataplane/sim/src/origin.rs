//! An HTTP/1.1 origin that records what it gets, byte for byte and as strictly read requests, and misbehaves on
//! demand. The recorder of every verdict about the proxy.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use runtime::{Accepted, Buffer, Deadline, Gather, Io, Listener, RecvHalf, SendHalf, io::ListenerClose};

use crate::{
    faults::{Cut, End},
    http::{Event, Malformed, Message, Parser, hash},
};

/// The header that names a request. Origins echo it; `x-request-id` belongs to the proxy.
pub const LEDGER_ID: &str = "x-ledger-id";

/// The hash of the request's body, as the origin got it. Not there when it answered early.
pub const REQUEST_HASH: &str = "x-request-hash";

/// The hash of the response's body, as the origin sends it.
pub const RESPONSE_HASH: &str = "x-response-hash";

/// A running origin; it ends with the simulation or by [`Origin::stop`].
#[derive(Clone)]
pub struct Origin {
    address: SocketAddr,
    records: Rc<RefCell<Vec<Record>>>,
    behaviour: Rc<RefCell<Rc<Behaviour>>>,
    is_held: Rc<Cell<bool>>,
    close: ListenerClose,
}

/// Pause between two looks whether an origin may answer.
const LOOK: Duration = Duration::from_millis(1);

/// What came over one connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Every byte.
    pub raw: Vec<u8>,
    /// The complete requests in it.
    pub requests: Vec<Message>,
    /// Why the rest is no request, if it is none.
    pub malformed: Option<Malformed>,
    /// How the other end finished, if it did first.
    pub ended: Option<End>,
    /// Whether it is over, whoever ended it.
    pub is_over: bool,
}

/// What an origin does. The default answers each request with 200 and keeps the connection.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// When it answers.
    pub answer: Answer,
    /// How long it thinks before it does.
    pub think: Duration,
    /// The status.
    pub status: u16,
    /// Header lines besides its own.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// How the body is sent.
    pub framing: AnswerFraming,
    /// These bytes instead of an answer of its own.
    pub raw: Option<Vec<u8>>,
    /// Whether it sends 100 to a request that expects it.
    pub continues: bool,
    /// What it does with the connection after an answer.
    pub then: Then,
    /// Ends the connection after so many bytes of requests.
    pub request_cut: Option<Cut>,
    /// Ends the connection after so many bytes of an answer.
    pub answer_cut: Option<Cut>,
    /// Bytes it receives at once.
    pub read_bytes: usize,
    /// How long it rests before it receives.
    pub read_pause: Duration,
    /// Ends a connection without a request for so long.
    pub idle_max: Option<Duration>,
}

/// When an origin answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// When the whole request is there.
    AtRequest,
    /// When its head is there, whatever of the body is.
    AtHead,
    /// When the request and a FIN behind it are there.
    AtFin,
    /// Never.
    Never,
}

/// How an answer's body is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerFraming {
    /// With `content-length`.
    Length,
    /// In chunks of so many bytes.
    Chunked(usize),
    /// Until FIN, which [`Then::Close`] or [`Then::HalfClose`] must send.
    UntilClose,
}

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// The next request.
    KeepAlive,
    /// The connection is closed, as `connection: close` announced.
    Close,
    /// The connection is closed without a word before.
    CloseUnannounced,
    /// FIN; what comes is still received.
    HalfClose,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            answer: Answer::AtRequest,
            think: Duration::ZERO,
            status: 200,
            headers: Vec::new(),
            body: b"ok\n".to_vec(),
            framing: AnswerFraming::Length,
            raw: None,
            continues: true,
            then: Then::KeepAlive,
            request_cut: None,
            answer_cut: None,
            read_bytes: 16 * 1024,
            read_pause: Duration::ZERO,
            idle_max: None,
        }
    }
}

impl Behaviour {
    /// Answers as soon as the head is there, and goes on receiving the body.
    pub fn answers_early(status: u16) -> Behaviour {
        Behaviour { answer: Answer::AtHead, status, ..Behaviour::default() }
    }

    /// Answers as soon as the head is there and closes at once, the body unread.
    pub fn answers_early_and_closes(status: u16) -> Behaviour {
        Behaviour { then: Then::Close, ..Behaviour::answers_early(status) }
    }

    /// Receives everything and says nothing.
    pub fn never_answers() -> Behaviour {
        Behaviour { answer: Answer::Never, ..Behaviour::default() }
    }

    /// Ends the connection after so many bytes of requests.
    pub fn ends_after_request_bytes(bytes: u64, end: End) -> Behaviour {
        Behaviour { request_cut: Some(Cut { bytes, end }), ..Behaviour::default() }
    }

    /// Ends the connection after so many bytes of an answer.
    pub fn ends_after_answer_bytes(bytes: u64, end: End) -> Behaviour {
        Behaviour { answer_cut: Some(Cut { bytes, end }), ..Behaviour::default() }
    }

    /// Receives `bytes`, rests for `pause`, and so on.
    pub fn reads_slowly(bytes: usize, pause: Duration) -> Behaviour {
        Behaviour { read_bytes: bytes, read_pause: pause, ..Behaviour::default() }
    }

    /// Answers, sends FIN and receives on.
    pub fn half_closes() -> Behaviour {
        Behaviour { then: Then::HalfClose, ..Behaviour::default() }
    }

    /// Says these bytes to every request.
    pub fn says(raw: impl Into<Vec<u8>>) -> Behaviour {
        Behaviour { raw: Some(raw.into()), ..Behaviour::default() }
    }
}

impl Origin {
    /// Starts to accept on a socket. Panics when the loop cannot take it.
    pub fn start<I: Io>(io: &I, socket: I::Socket, behaviour: Behaviour) -> Origin {
        let listener = io.listener(socket).expect("the loop takes a listener");
        let origin = Origin {
            address: listener.local_addr(),
            records: Rc::default(),
            behaviour: Rc::new(RefCell::new(Rc::new(behaviour))),
            is_held: Rc::default(),
            close: listener.close_handle(),
        };
        io.spawn(accept(io.clone(), listener, origin.clone()));
        origin
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves otherwise, from the next receive and the next answer on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.borrow_mut() = Rc::new(behaviour);
    }

    /// Answers nothing until it is released: for what has to happen while a request runs, however long that takes.
    pub fn hold(&self) {
        self.is_held.set(true);
    }

    /// Answers again.
    pub fn release(&self) {
        self.is_held.set(false);
    }

    /// Accepts no more.
    pub fn stop(&self) {
        self.close.close();
    }

    /// Every connection so far, in the order in which they were accepted.
    pub fn connections(&self) -> Vec<Record> {
        self.records.borrow().clone()
    }

    /// Every complete request, connection by connection. Panics when something that came is no request: an origin
    /// behind the proxy must never see that.
    pub fn requests(&self) -> Vec<Message> {
        let records = self.records.borrow();
        for (number, record) in records.iter().enumerate() {
            if let Some(malformed) = &record.malformed {
                panic!("connection {number} of origin {}: {malformed}", self.address);
            }
        }
        records.iter().flat_map(|record| record.requests.clone()).collect()
    }

    /// How many requests named each id. More than 1 is a duplicate.
    pub fn ledger(&self) -> BTreeMap<String, usize> {
        let mut ledger = BTreeMap::new();
        for request in self.requests() {
            *ledger.entry(request.header(LEDGER_ID).unwrap_or_default().to_owned()).or_default() += 1;
        }
        ledger
    }

    fn behaviour(&self) -> Rc<Behaviour> {
        self.behaviour.borrow().clone()
    }
}

async fn accept<I: Io>(io: I, mut listener: I::Listener, origin: Origin) {
    // An accept that fails ends it: only a closed listener, or a test that wants it so.
    while let Ok(Accepted { recv, send, .. }) = listener.accept().await {
        let mut records = origin.records.borrow_mut();
        let number = records.len();
        records.push(Record::default());
        drop(records);
        let connection = Connection {
            io: io.clone(),
            recv,
            send,
            number,
            origin: origin.clone(),
            is_answered: false,
            is_silent: false,
        };
        io.spawn(connection.serve());
    }
}

struct Connection<I: Io> {
    io: I,
    recv: I::Recv,
    send: I::Send,
    number: usize,
    origin: Origin,
    /// The request that comes was answered at its head, whatever the behaviour is at its end.
    is_answered: bool,
    /// A request was never answered, so no later one can be.
    is_silent: bool,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    Away,
}

impl<I: Io> Connection<I> {
    async fn serve(mut self) {
        let mut parser = Parser::requests();
        while self.receive(&mut parser).await == Goes::On {}
        self.record(|record| record.is_over = true);
    }

    /// One receive and what it brings about.
    async fn receive(&mut self, parser: &mut Parser) -> Goes {
        let behaviour = self.origin.behaviour();
        let mut most = behaviour.read_bytes;
        if let Some(cut) = behaviour.request_cut {
            let left = cut.bytes.saturating_sub(self.record(|record| record.raw.len() as u64));
            if left == 0 {
                return self.end(cut.end);
            }
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        if behaviour.read_pause > Duration::ZERO {
            self.io.sleep_until(Deadline::after(self.io.now(), behaviour.read_pause)).await;
        }
        let is_idle = parser.current().is_none() && parser.unread().is_empty();
        let until = match behaviour.idle_max {
            Some(max) if is_idle => Deadline::after(self.io.now(), max),
            _ => Deadline::NEVER,
        };
        let mut buffer = Buffer::new(most);
        match self.recv.recv(&mut buffer, until).await {
            Ok(0) => self.fin(parser).await,
            Ok(_) => {
                self.record(|record| record.raw.extend_from_slice(buffer.filled()));
                parser.receive(buffer.filled());
                self.answer_what_came(parser).await
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionReset {
                    self.record(|record| record.ended = Some(End::Reset));
                }
                Goes::Away
            }
        }
    }

    async fn answer_what_came(&mut self, parser: &mut Parser) -> Goes {
        loop {
            let behaviour = self.origin.behaviour();
            let goes = match parser.next_event() {
                Ok(None) => return Goes::On,
                Ok(Some(Event::Head)) => {
                    let Some(head) = parser.current() else { continue };
                    self.is_answered = behaviour.answer == Answer::AtHead;
                    if self.is_answered {
                        let answer = behaviour.answer_to(head, false);
                        self.answer(answer).await
                    } else if behaviour.continues && head.header("expect") == Some("100-continue") {
                        self.say(b"HTTP/1.1 100 Continue\r\n\r\n").await
                    } else {
                        Goes::On
                    }
                }
                Ok(Some(Event::Whole(request))) => {
                    let answer = behaviour.answer_to(&request, true);
                    self.record(|record| record.requests.push(request));
                    let is_answered = std::mem::take(&mut self.is_answered);
                    self.is_silent |= behaviour.answer == Answer::Never;
                    match behaviour.answer {
                        Answer::AtRequest | Answer::AtHead if !is_answered => self.answer(answer).await,
                        _ => Goes::On,
                    }
                }
                Err(malformed) => {
                    self.record(|record| record.malformed = Some(malformed));
                    self.say(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
                    return Goes::Away;
                }
            };
            if goes == Goes::Away {
                return Goes::Away;
            }
        }
    }

    async fn fin(&mut self, parser: &mut Parser) -> Goes {
        let malformed = parser.finish().err();
        let last = self.record(|record| {
            record.ended = Some(End::Close);
            record.malformed = malformed;
            record.requests.last().cloned()
        });
        let behaviour = self.origin.behaviour();
        if let (Answer::AtFin, Some(request)) = (behaviour.answer, last) {
            self.answer(behaviour.answer_to(&request, true)).await;
        }
        Goes::Away
    }

    async fn answer(&mut self, answer: Vec<u8>) -> Goes {
        if self.is_silent {
            return Goes::On;
        }
        let behaviour = self.origin.behaviour();
        if behaviour.think > Duration::ZERO {
            self.io.sleep_until(Deadline::after(self.io.now(), behaviour.think)).await;
        }
        while self.origin.is_held.get() {
            self.io.sleep_until(Deadline::after(self.io.now(), LOOK)).await;
        }
        if let Some(cut) = behaviour.answer_cut.filter(|cut| cut.bytes < answer.len() as u64) {
            self.say(&answer[..cut.bytes as usize]).await;
            return self.end(cut.end);
        }
        match (self.say(&answer).await, behaviour.then) {
            (Goes::Away, _) | (_, Then::Close | Then::CloseUnannounced) => Goes::Away,
            (Goes::On, Then::KeepAlive) => Goes::On,
            (Goes::On, Then::HalfClose) => {
                // A connection that broke meanwhile tells so at the next receive.
                let _ = self.send.shutdown();
                Goes::On
            }
        }
    }

    async fn say(&mut self, bytes: &[u8]) -> Goes {
        let mut gather = Gather::new();
        gather.insert(bytes);
        match self.send.send_all(&mut gather, Deadline::NEVER).await {
            Ok(()) => Goes::On,
            Err(_) => Goes::Away,
        }
    }

    fn end(&mut self, end: End) -> Goes {
        if end == End::Reset {
            self.send.reset();
        }
        Goes::Away
    }

    fn record<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.origin.records.borrow_mut()[self.number])
    }
}

impl Behaviour {
    /// The bytes of the answer to a request; `is_whole` when its body is there.
    fn answer_to(&self, request: &Message, is_whole: bool) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let mut head = format!("HTTP/1.1 {} Answer\r\n", self.status);
        let mut add = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        if let Some(id) = request.header(LEDGER_ID) {
            add(LEDGER_ID, id);
        }
        if is_whole {
            add(REQUEST_HASH, &hash(&request.body));
        }
        add(RESPONSE_HASH, &hash(&self.body));
        if self.then == Then::Close {
            add("connection", "close");
        }
        self.headers.iter().for_each(|(name, value)| add(name, value));
        match self.framing {
            AnswerFraming::Length => add("content-length", &self.body.len().to_string()),
            AnswerFraming::Chunked(_) => add("transfer-encoding", "chunked"),
            AnswerFraming::UntilClose => {}
        }
        let mut answer = head.into_bytes();
        answer.extend_from_slice(b"\r\n");
        match self.framing {
            _ if request.method() == "HEAD" => {}
            AnswerFraming::Length | AnswerFraming::UntilClose => answer.extend_from_slice(&self.body),
            AnswerFraming::Chunked(bytes) => {
                for chunk in self.body.chunks(bytes.max(1)) {
                    answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    answer.extend_from_slice(chunk);
                    answer.extend_from_slice(b"\r\n");
                }
                answer.extend_from_slice(b"0\r\n\r\n");
            }
        }
        answer
    }
}
