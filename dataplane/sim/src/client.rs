//! A client that keeps a ledger: every request has an id of its own, every answer gets a verdict.

use std::{future::Future, io, net::SocketAddr, pin::pin, task::Poll, time::Duration};

use runtime::{Buffer, Deadline, Gather, Io, RecvHalf, SendHalf};

use crate::{
    http::{Event, Malformed, Message, Parser, hash},
    origin::{LEDGER_ID, REQUEST_HASH, RESPONSE_HASH},
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// One keep-alive connection that requests go over, one after the other.
pub struct Client<I: Io> {
    io: I,
    recv: I::Recv,
    send: I::Send,
    parser: Parser,
    is_over: bool,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The method.
    pub method: String,
    /// The target, origin form unless the test wants otherwise.
    pub target: String,
    /// The `host`.
    pub host: String,
    /// Its name in the ledger.
    pub id: String,
    /// Header lines besides its own.
    pub headers: Vec<(String, String)>,
    /// The body; `None` sends no framing header.
    pub body: Option<Vec<u8>>,
    /// Sends the body in chunks of so many bytes.
    pub chunk_bytes: Option<usize>,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The origin's own answer, whole and right.
    Ok(Message),
    /// An answer that no origin gave: the proxy's own.
    Refused(Message),
    /// No answer, or a part of one whose end is no clean end.
    Lost(Loss),
    /// The answer to another request.
    Cross(Message),
    /// An answer that looks whole and has another body than was sent, either way.
    Truncated(Message),
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The connection ended like this before the answer was whole.
    Ended(io::ErrorKind),
    /// FIN before the answer was whole.
    Closed,
    /// What came is no answer.
    Malformed(Malformed),
    /// Its stream was reset with this code.
    Reset(u32),
    /// The other end left and has not looked at it.
    Left,
}

impl Ask {
    /// A GET.
    pub fn get(host: &str, target: &str, id: impl ToString) -> Ask {
        Ask {
            method: "GET".to_owned(),
            target: target.to_owned(),
            host: host.to_owned(),
            id: id.to_string(),
            headers: Vec::new(),
            body: None,
            chunk_bytes: None,
        }
    }

    /// A POST of a body of known length.
    pub fn post(host: &str, target: &str, id: impl ToString, body: impl Into<Vec<u8>>) -> Ask {
        Ask { method: "POST".to_owned(), body: Some(body.into()), ..Ask::get(host, target, id) }
    }

    /// One more header line.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body in chunks of so many bytes.
    pub fn chunked(mut self, bytes: usize) -> Ask {
        self.chunk_bytes = Some(bytes);
        self
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\n", self.method, self.target, self.host);
        let mut add = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
        add(LEDGER_ID, &self.id);
        self.headers.iter().for_each(|(name, value)| add(name, value));
        match (&self.body, self.chunk_bytes) {
            (Some(_), Some(_)) => add("transfer-encoding", "chunked"),
            (Some(body), None) => add("content-length", &body.len().to_string()),
            (None, _) => {}
        }
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        match (&self.body, self.chunk_bytes) {
            (Some(body), Some(chunk_bytes)) => {
                for chunk in body.chunks(chunk_bytes.max(1)) {
                    bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    bytes.extend_from_slice(chunk);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
            (Some(body), None) => bytes.extend_from_slice(body),
            (None, _) => {}
        }
        bytes
    }
}

impl<I: Io> Client<I> {
    /// Connects. Panics when it cannot.
    pub async fn connect(io: &I, to: SocketAddr) -> Client<I> {
        Self::try_connect(io, to).await.unwrap_or_else(|error| panic!("connect to {to}: {error}"))
    }

    /// Connects, maybe.
    pub async fn try_connect(io: &I, to: SocketAddr) -> io::Result<Client<I>> {
        let (recv, send) = io.connect(to, Deadline::after(io.now(), PATIENCE)).await?;
        Ok(Client { io: io.clone(), recv, send, parser: Parser::responses(), is_over: false })
    }

    /// Whether the connection can carry no further request.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Sends a request and receives its answer, both at once.
    pub async fn ask(&mut self, ask: &Ask) -> Verdict {
        let mut verdicts = self.ask_all(std::slice::from_ref(ask), Behind::Nothing).await;
        verdicts.remove(0)
    }

    /// Sends requests one behind the other and receives their answers, all at once. Those behind a loss, or behind an
    /// answer that announces the end of the connection, get no verdict.
    pub async fn ask_all(&mut self, asks: &[Ask], behind: Behind) -> Vec<Verdict> {
        let until = Deadline::after(self.io.now(), PATIENCE);
        let mut gather = Gather::new();
        for ask in asks {
            self.parser.expect_answer_to(&ask.method);
            gather.insert(&ask.bytes());
        }
        let Client { recv, send, parser, .. } = self;
        let sending = async {
            let sent = send.send_all(&mut gather, until).await;
            // A connection that broke meanwhile is told by the answer.
            sent.is_ok() && (behind == Behind::Nothing || send.shutdown().is_ok())
        };
        let receiving = async {
            let mut verdicts = Vec::new();
            for ask in asks {
                let verdict = match receive(recv, parser, until).await {
                    Ok(answer) => judge(ask, answer),
                    Err(loss) => Verdict::Lost(loss),
                };
                let is_last = verdict.is_last();
                verdicts.push(verdict);
                if is_last {
                    break;
                }
            }
            verdicts
        };
        // The answer decides: a request may well be cut short by an early one.
        let (is_sent, verdicts) = both(sending, receiving).await;
        self.is_over |= !is_sent || behind == Behind::Fin || verdicts.iter().any(Verdict::is_last);
        verdicts
    }
}

/// What follows requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behind {
    /// Whatever is asked next.
    Nothing,
    /// FIN.
    Fin,
}

impl Verdict {
    /// Whether the connection carries nothing after it.
    fn is_last(&self) -> bool {
        match self {
            Verdict::Ok(answer) | Verdict::Refused(answer) => answer.header("connection") == Some("close"),
            Verdict::Lost(_) | Verdict::Cross(_) | Verdict::Truncated(_) => true,
        }
    }
}

/// The next final response.
async fn receive<R: RecvHalf>(recv: &mut R, parser: &mut Parser, until: Deadline) -> Result<Message, Loss> {
    let mut buffer = Buffer::new(16 * 1024);
    loop {
        while let Some(event) = parser.next_event().map_err(Loss::Malformed)? {
            match event {
                Event::Whole(message) if message.status() >= 200 => return Ok(message),
                Event::Whole(_) | Event::Head => {}
            }
        }
        buffer.clear();
        match recv.recv(&mut buffer, until).await {
            Ok(0) => {
                return match parser.finish() {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) | Err(_) => Err(Loss::Closed),
                };
            }
            Ok(_) => parser.receive(buffer.filled()),
            Err(error) => return Err(Loss::Ended(error.kind())),
        }
    }
}

pub(crate) fn judge(ask: &Ask, answer: Message) -> Verdict {
    let Some(id) = answer.header(LEDGER_ID) else { return Verdict::Refused(answer) };
    if id != ask.id {
        return Verdict::Cross(answer);
    }
    let is_right = |name: &str, body: &[u8]| answer.header(name).is_none_or(|told| told == hash(body));
    let is_whole = is_right(REQUEST_HASH, ask.body.as_deref().unwrap_or_default())
        && (ask.method == "HEAD" || is_right(RESPONSE_HASH, &answer.body));
    if is_whole { Verdict::Ok(answer) } else { Verdict::Truncated(answer) }
}

/// Runs two futures at once until both have ended; neither is ever dropped before.
pub async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
