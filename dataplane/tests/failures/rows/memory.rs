//! More bodies than there is memory for: RES-03.
//!
//! The proxy is in a memory cgroup. That it is never killed for want of memory is the point; who is refused is told so,
//! others are served all the same, and when the slow ones have gone all is as before.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use policy::limits::SEND_TIME_WHEN_TIGHT;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};

use crate::{
    cgroup::Cgroup,
    client::{Answer, Client},
    ledger::{Unsafe, Verdict},
    subject::Setting,
    trial::Trials,
};

const LIMIT_BYTES: u64 = 128 << 20;

/// What the proxy may keep when the slow ones have gone.
const KEPT_BYTES_MAX: u64 = 32 << 20;

/// Memory for each byte that clients send, which an upload may cost at most.
const AMPLIFICATION_MAX: f64 = 10.0;

/// Longer than anything takes while memory is short: connections that wait to be accepted, sends that are given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a load lasts at least: longer than a send of those that were there first.
const HELD: Duration = Duration::from_secs(6);
const _: () = assert!(HELD.as_secs() > SEND_TIME_WHEN_TIGHT.as_secs());

/// Good requests that must be answered while all the slow ones are there, and after them.
const GOOD: usize = 50;

/// What is written at a time: a buffer of the proxy is full with it.
const PIECE_BYTES: usize = 64 * 1024;

/// What the kernel keeps for either end here: little, so that it is the proxy's that counts.
const SOCKET_BYTES: u32 = 32 * 1024;

/// Descriptors that a load needs: each connection has two ends here, one as a client and one as the origin.
const DESCRIPTORS: u64 = 8_000;

/// Connections that hold memory.
#[derive(Clone, Copy, Default)]
struct Slow {
    /// Each sends a body without end, which the origin does not take.
    uploads: usize,
    /// Each is sent a body without end, and does not take it.
    downloads: usize,
    /// Each does both: the origin answers before it has taken anything.
    both: usize,
    /// Each sends the first part of a head, and waits.
    heads: usize,
    /// Each asks for something small, again and again.
    small: usize,
}

pub(crate) fn shortage(trials: &mut Trials<'_>) {
    if !trials.subject.kind.is_thorough() {
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, raised).is_err() || raised.current.is_some_and(|most| most < DESCRIPTORS) {
        trials.tally.not_tried.push(format!("{raised:?} descriptors are too few"));
        return;
    }
    for (what, slow) in [
        ("uploads that nobody takes", Slow { uploads: 1500, ..Slow::default() }),
        ("downloads that nobody takes", Slow { downloads: 1500, ..Slow::default() }),
        (
            "both at once, parts of heads, and many small ones",
            Slow { both: 1000, heads: 600, small: 300, ..Slow::default() },
        ),
    ] {
        let cgroup = match Cgroup::new(LIMIT_BYTES) {
            Ok(cgroup) => cgroup,
            Err(why) => return trials.tally.not_tried.push(why),
        };
        let (origin, slow_cluster) = origin();
        let setting = Setting { runner: cgroup.runner(), clusters: vec![slow_cluster], ..Setting::default() };
        trials.with(&setting, |trials| {
            let mut verdict = Verdict::default();
            let note = under(trials, &cgroup, origin, slow, &mut verdict);
            trials.tally.notes.push(format!("{what}: {note}"));
            trials.judge(&mut verdict);
            trials.tally.count(what, verdict);
        });
        let mut verdict = Verdict::default();
        if cgroup.kills() > 0 {
            verdict.found.push((Unsafe::Broken, format!("killed for want of memory under {what}")));
        }
        trials.tally.count(what, verdict);
    }
}

/// Serves good requests under this load; gives what it was like.
fn under(
    trials: &mut Trials<'_>,
    cgroup: &Cgroup,
    origin: std::net::TcpListener,
    slow: Slow,
    verdict: &mut Verdict,
) -> String {
    let before = cgroup.used_bytes();
    let load = Load::start(trials.subject.address, origin, slow);
    let (mut good, mut refused, mut client) = (0, 0, None);
    let (begun, mut good_before) = (Instant::now(), None);
    let is_enough = |good, before: Option<usize>| before.is_some_and(|before| good >= before + GOOD);
    while !(is_enough(good, good_before) && begun.elapsed() > HELD)
        && begun.elapsed() < PATIENCE
        && verdict.found.is_empty()
    {
        if refused + load.refused() > 0 && load.is_there() {
            good_before.get_or_insert(good);
        }
        match ask(trials, &mut client, verdict) {
            Some(true) => good += 1,
            Some(false) => refused += 1,
            None => {}
        }
    }
    let (sent, refused, took) = (load.sent(), refused + load.refused(), begun.elapsed());
    if !is_enough(good, good_before) {
        verdict.unexpected = Some(format!("{good} good requests answered, {refused} refused"));
    }
    drop((load, client));
    let peak = cgroup.peak_bytes();
    let grown = peak.unwrap_or_default().saturating_sub(before) as f64;
    let amplification = grown / sent.max(1) as f64;
    if slow.downloads == 0 && amplification > AMPLIFICATION_MAX {
        verdict.found.push((Unsafe::Amplified, format!("{amplification:.1} bytes for each that was sent")));
    }
    if !trials.subject.soon(|_| cgroup.used_bytes() <= before + KEPT_BYTES_MAX) {
        let after = cgroup.used_bytes();
        verdict.found.push((Unsafe::Broken, format!("it keeps {after} bytes, {before} before")));
    }
    let after = cgroup.used_bytes();
    let mut client = None;
    if !(0..GOOD).all(|_| ask(trials, &mut client, verdict) == Some(true)) {
        verdict.unexpected.get_or_insert("a request was not answered after the load".to_owned());
    }
    let mib = |bytes: u64| bytes >> 20;
    let peak = peak.map_or("unknown".to_owned(), |bytes| mib(bytes).to_string());
    format!(
        "{refused} refused, {good} good ones served in {took:.1?}; {} MiB before, {peak} at most, {} after; {} MiB sent \
         (cgroup v{})",
        mib(before),
        mib(after),
        mib(sent),
        cgroup.version()
    )
}

/// Whether a good request was answered, or was refused for want of memory; `None` when its connection had ended.
fn ask(trials: &mut Trials<'_>, client: &mut Option<Client>, verdict: &mut Verdict) -> Option<bool> {
    let (id, request) = trials.plain();
    if client.is_none() {
        match std::net::TcpStream::connect(trials.subject.address) {
            Ok(stream) => *client = Some(Client::over(stream, PATIENCE)),
            // It was killed.
            Err(error) => verdict.found.push((Unsafe::Broken, format!("connect: {error}"))),
        }
    }
    let known = client.as_mut()?;
    known.send(&request);
    let answer = known.answer("GET");
    let result = match answer {
        Answer::Whole(message)
            if message.head.status() == 503
                && message.head.values("x-ringway-reason").eq([&b"overloaded"[..]]) =>
        {
            Some(false)
        }
        answer => {
            let is_whole = matches!(answer, Answer::Whole(_));
            verdict.expect_echo_or_end("a good request", id, answer);
            is_whole.then_some(true)
        }
    };
    if result != Some(true) {
        *client = None;
    }
    result
}

/// Clients and an origin that hold what they can, until this is dropped.
struct Load {
    connections: u64,
    counts: Arc<Counts>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    /// Bytes of clients that the kernel took.
    sent: AtomicU64,
    /// Answers that memory is short.
    refused: AtomicU64,
    /// Connections, or tries to connect.
    begun: AtomicU64,
}

/// An origin that is slow, and its cluster.
fn origin() -> (std::net::TcpListener, (String, String)) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket.set_recv_buffer_size(SOCKET_BYTES as usize).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    socket.listen(4096).expect("the port is ours");
    let listener = std::net::TcpListener::from(socket);
    let port = listener.local_addr().expect("bound").port();
    let endpoint =
        format!("{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}");
    let cluster = format!(
        "type: STATIC, load_assignment: {{cluster_name: slow, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}"
    );
    (listener, ("slow".to_owned(), cluster))
}

impl Load {
    fn start(proxy: SocketAddr, origin: std::net::TcpListener, slow: Slow) -> Load {
        let (counts, (end, ended)) = (Arc::<Counts>::default(), oneshot::channel::<()>());
        let counted = counts.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("epoll");
            // All tasks and their connections end with the runtime.
            runtime.block_on(async {
                let origin = TcpListener::from_std(origin).expect("epoll");
                tokio::spawn(async move {
                    while let Ok((stream, _)) = origin.accept().await {
                        tokio::spawn(serve(stream));
                    }
                });
                let Slow { uploads, downloads, both, heads, small } = slow;
                // Interleaved, so that all kinds are there from the beginning.
                for n in 0..[uploads, downloads, both, heads, small].into_iter().max().unwrap_or_default() {
                    if n < uploads {
                        tokio::spawn(upload(proxy, counted.clone(), "/slow/up"));
                    }
                    if n < both {
                        tokio::spawn(upload(proxy, counted.clone(), "/slow/both"));
                    }
                    if n < downloads {
                        tokio::spawn(waits(
                            proxy,
                            counted.clone(),
                            "GET /slow/large HTTP/1.1\r\nHost: a\r\n\r\n",
                        ));
                    }
                    if n < heads {
                        tokio::spawn(waits(proxy, counted.clone(), "GET /slow HTTP/1.1\r\nHost: "));
                    }
                    if n < small {
                        tokio::spawn(ask_often(proxy, counted.clone()));
                    }
                }
                // The sender's end is dropped.
                let _ = ended.await;
            });
        });
        let connections = (slow.uploads + slow.downloads + slow.both + slow.heads + slow.small) as u64;
        Load { connections, counts, end: Some(end), thread: Some(thread) }
    }

    /// Whether all have connected.
    fn is_there(&self) -> bool {
        self.counts.begun.load(Ordering::Relaxed) >= self.connections
    }

    fn sent(&self) -> u64 {
        self.counts.sent.load(Ordering::Relaxed)
    }

    fn refused(&self) -> usize {
        self.counts.refused.load(Ordering::Relaxed) as usize
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.take();
        self.thread.take().map(JoinHandle::join);
    }
}

/// The origin: takes nothing of an upload, sends without end, or gives a small answer.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        let count = stream.read(&mut bytes).await?;
        match &bytes[..count] {
            [] => return Ok(()),
            head if head.starts_with(b"POST /slow/up") => std::future::pending().await,
            head if !head.starts_with(b"GET /slow/small") => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n").await?;
                loop {
                    stream.write_all(&bytes).await?;
                }
            }
            _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await?,
        }
    }
}

async fn connect(proxy: SocketAddr, counts: &Counts) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BYTES)?;
    let stream = socket.connect(proxy).await;
    counts.begun.fetch_add(1, Ordering::Relaxed);
    stream
}

async fn upload(proxy: SocketAddr, counts: Arc<Counts>, target: &str) -> io::Result<()> {
    let mut stream = connect(proxy, &counts).await?;
    let mut bytes =
        format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").into_bytes();
    bytes.resize(PIECE_BYTES, b'x');
    loop {
        // A head that is written in part is cut off by the next piece, and the proxy refuses it.
        let count = stream.write(&bytes).await?;
        counts.sent.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Sends this, and takes nothing.
async fn waits(proxy: SocketAddr, counts: Arc<Counts>, bytes: &'static str) -> io::Result<()> {
    let mut stream = connect(proxy, &counts).await?;
    stream.write_all(bytes.as_bytes()).await?;
    counts.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    std::future::pending().await
}

async fn ask_often(proxy: SocketAddr, counts: Arc<Counts>) -> io::Result<()> {
    let mut bytes = vec![0; 1024];
    loop {
        let mut stream = connect(proxy, &counts).await?;
        loop {
            stream.write_all(b"GET /slow/small HTTP/1.1\r\nHost: a\r\n\r\n").await?;
            // A small answer comes in one piece.
            match stream.read(&mut bytes).await {
                Ok(count) if bytes[..count].starts_with(b"HTTP/1.1 200 ") => {}
                Ok(count) if bytes[..count].starts_with(b"HTTP/1.1 503 ") => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                _ => break,
            }
        }
    }
}
