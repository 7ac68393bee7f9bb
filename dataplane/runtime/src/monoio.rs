//! [`Io`] over monoio: io_uring where the kernel allows it, epoll elsewhere. One generic path serves both.
//!
//! What is relied upon was read in monoio 0.2.4's source: a cancelled receive still delivers what it got; on epoll an
//! operation calls the kernel only while it is polled; a dropped connect frees its descriptor when it completes; `tasks`
//! run before the main future, the main future before the loop parks.
//!
//! Longer than 500 lines: the halves, the listener and the drivers share one idea of when an operation is complete.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use monoio::{
    IoUringDriver, LegacyDriver, RuntimeBuilder,
    buf::{IoBuf, IoBufMut, IoVecBuf},
    io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller, OwnedReadHalf},
    net::{TcpListener as MonoioListener, TcpStream, UnixStream},
    time::TimeDriver,
};

use crate::{
    buffer::{Buffer, Gather},
    io::{Accepted, Deadline, Io, Listener, ListenerClose, RecvHalf, SendHalf},
    timer::{Alarm, Rung, Timers},
    turn::Turn,
};

/// Which kernel interface a worker's loop runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// io_uring with SINGLE_ISSUER, DEFER_TASKRUN and SUBMIT_ALL (Linux 6.1 or later).
    IoUring,
    /// epoll.
    Epoll,
}

impl Driver {
    /// The name users see: `io_uring` or `epoll`.
    pub fn name(self) -> &'static str {
        match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        }
    }
}

/// What the operator asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// io_uring if it works, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// epoll.
    Epoll,
}

/// The driver that will be used, and why it is not io_uring where `auto` fell back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// The driver.
    pub driver: Driver,
    /// Why `auto` fell back: what the kernel answered and what commonly causes it.
    pub fallback_reason: Option<String>,
}

/// Entries of the submission queue: operations one turn can start with one system call.
const RING_ENTRIES: u32 = 1024;

/// Tries what a worker will do, once, on a thread of its own, so that every worker then uses the same driver.
pub fn probe(choice: Choice) -> io::Result<Probed> {
    if choice == Choice::Epoll {
        return Ok(Probed { driver: Driver::Epoll, fallback_reason: None });
    }
    let tried = std::thread::spawn(|| uring_runtime().map(|mut runtime| runtime.block_on(async {}))).join();
    let error = match tried {
        Ok(Ok(())) => return Ok(Probed { driver: Driver::IoUring, fallback_reason: None }),
        Ok(Err(error)) => error,
        Err(_) => io::Error::other("the io_uring probe panicked"),
    };
    match choice {
        Choice::IoUring => Err(error),
        Choice::Auto | Choice::Epoll => {
            Ok(Probed { driver: Driver::Epoll, fallback_reason: Some(reason(&error)) })
        }
    }
}

fn reason(error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(libc::EPERM) => "refused by a seccomp profile or kernel.io_uring_disabled",
        Some(libc::ENOSYS) => "not in this kernel, or hidden by a seccomp profile",
        Some(libc::EINVAL) => "this kernel lacks the set-up flags (Linux 6.1 or later has them)",
        Some(libc::ENOMEM) => "locked-memory limit (ulimit -l) or memory too small",
        _ => "unexpected",
    };
    format!("io_uring: {error}: {cause}")
}

fn uring_runtime() -> io::Result<monoio::Runtime<TimeDriver<IoUringDriver>>> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    RuntimeBuilder::<IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .enable_timer()
        .build()
}

/// Runs `main` on this thread's loop until it ends; everything still in flight is then dropped.
///
/// `bell` is the descriptor of the worker's [`crate::mailbox::Bell`]; each ring makes a turn. `origin` is where the
/// clock of all workers starts.
pub fn run<F, T>(
    driver: Driver,
    origin: Instant,
    bell: OwnedFd,
    main: impl FnOnce(Mono) -> F,
) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let turn = Rc::new(Turn::new(origin));
    let timers = Timers::new(turn.now());
    let io = Mono { driver, turn: turn.clone(), timers };
    let main = async move {
        io.spawn(wait_for_bell(UnixStream::from_std(bell.into())?, turn.clone()));
        io.spawn(keep_time(io.timers.clone(), turn.clone()));
        let result = main(io).await;
        turn.set_ending();
        Ok(result)
    };
    match driver {
        Driver::IoUring => uring_runtime()?.block_on(main),
        Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(main),
    }
}

async fn wait_for_bell(mut bell: UnixStream, turn: Rc<Turn>) {
    // readv works on an eventfd with both drivers; recv wants a socket and pread fails on epoll.
    let mut count = monoio::buf::VecBuf::from(vec![vec![0; 8]]);
    loop {
        let (result, returned) = bell.readv(count).await;
        count = returned;
        turn.touch();
        // A wait that was interrupted goes on: a worker without its bell would adopt nothing any more.
        let goes_on = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
        if result.is_err_and(|error| !goes_on.contains(&error.kind())) {
            return; // only while the worker goes away
        }
    }
}

async fn keep_time(timers: Timers, turn: Rc<Turn>) {
    // Far enough that it never wakes an idle worker, near enough for monoio's wheel.
    const FAR: Duration = Duration::from_secs(24 * 3600);
    let mut sleep = pin!(monoio::time::sleep(FAR));
    let mut slept_until = Deadline::NEVER;
    loop {
        poll_fn(|cx| {
            if sleep.as_mut().poll(cx).is_ready() {
                turn.touch();
                slept_until = Deadline::NEVER;
                sleep.as_mut().reset(monoio::time::Instant::now() + FAR);
                return Poll::Ready(());
            }
            let next = timers.next_visit();
            if next < slept_until {
                slept_until = next;
                let wait = Duration::from_nanos(next.0.saturating_sub(turn.now()));
                sleep.as_mut().reset(monoio::time::Instant::now() + wait);
                timers.sleep_until(next, cx.waker());
                if sleep.as_mut().poll(cx).is_ready() {
                    turn.touch();
                    slept_until = Deadline::NEVER;
                    return Poll::Ready(());
                }
            } else {
                timers.sleep_until(slept_until, cx.waker());
            }
            Poll::Pending
        })
        .await;
        timers.advance(turn.now());
    }
}

/// This thread's access to its loop.
#[derive(Clone, Debug)]
pub struct Mono {
    driver: Driver,
    turn: Rc<Turn>,
    timers: Timers,
}

impl Mono {
    fn halves(&self, stream: TcpStream) -> (MonoRecv, MonoSend) {
        let descriptor = stream.as_raw_fd();
        let stream = Rc::new(UnsafeCell::new(stream));
        let shared = Rc::new(Shared {
            turn: self.turn.clone(),
            broken: Cell::new(false),
            incoming: RefCell::default(),
        });
        let recv = MonoRecv {
            half: OwnedReadHalf(stream.clone()),
            driver: self.driver,
            canceller: None,
            alarm: self.timers.alarm(),
            at_once: 0,
            shared: shared.clone(),
        };
        (recv, MonoSend { stream, descriptor, alarm: self.timers.alarm(), shared })
    }
}

impl Io for Mono {
    type Socket = TcpListener;
    type Listener = MonoListener;
    type Recv = MonoRecv;
    type Send = MonoSend;

    fn now(&self) -> u64 {
        self.turn.now()
    }

    fn timers(&self) -> &Timers {
        &self.timers
    }

    async fn connect(&self, to: SocketAddr, until: Deadline) -> io::Result<(MonoRecv, MonoSend)> {
        let alarm = self.timers.alarm();
        alarm.set(until);
        let mut connect = pin!(TcpStream::connect_addr(to));
        let result = poll_fn(|cx| match connect.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            // Dropping a connect in flight is safe: no byte can be lost, and its descriptor is closed on completion.
            Poll::Pending => alarm.poll_rung(cx).map(|_| Err(io::ErrorKind::TimedOut.into())),
        })
        .await;
        self.turn.touch();
        let stream = result?;
        stream.set_nodelay(true)?;
        Ok(self.halves(stream))
    }

    fn listener(&self, socket: TcpListener) -> io::Result<MonoListener> {
        let address = socket.local_addr()?;
        let descriptor = socket.as_raw_fd();
        let listener = MonoioListener::from_std(socket)?;
        Ok(MonoListener { listener: Rc::new(listener), descriptor, address, io: self.clone() })
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }

    async fn turn(&self) -> Duration {
        self.turn.ended().await
    }
}

/// An accepting socket.
pub struct MonoListener {
    listener: Rc<MonoioListener>,
    descriptor: RawFd,
    address: SocketAddr,
    io: Mono,
}

impl Listener for MonoListener {
    type Recv = MonoRecv;
    type Send = MonoSend;

    async fn accept(&mut self) -> io::Result<Accepted<MonoRecv, MonoSend>> {
        let in_flight = InFlight::begin(&self.io.turn);
        let accepted = self.listener.accept().await;
        in_flight.completed();
        self.io.turn.touch();
        let (stream, downstream) = accepted?;
        let (recv, send) = self.io.halves(stream);
        Ok(Accepted { recv, send, downstream })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn close_handle(&self) -> ListenerClose {
        // Shares the listener, so the descriptor cannot be closed and reused while the handle lives.
        let (listener, descriptor) = (self.listener.clone(), self.descriptor);
        ListenerClose::new(move || {
            let _ = &listener;
            let _ = shutdown(descriptor, libc::SHUT_RDWR);
        })
    }
}

fn shutdown(descriptor: RawFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: shutdown has no memory arguments. Every caller owns a share of the descriptor's socket, so the number
    // names that socket and no later one.
    match unsafe { libc::shutdown(descriptor, how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the two halves of a connection share.
struct Shared {
    turn: Rc<Turn>,
    /// A send failed. The kernel tells an error once, to whoever comes first, and from then on a receive gets 0, as if
    /// the other end had finished; with this the receiving half knows better.
    broken: Cell<bool>,
    /// The buffer of a receive on epoll. The operation only refers to it, so it stays when the operation is dropped.
    incoming: RefCell<Buffer>,
}

/// The receiving half of a connection.
pub struct MonoRecv {
    half: OwnedReadHalf<TcpStream>,
    driver: Driver,
    /// For io_uring. None before the first receive, and while it is being replaced.
    canceller: Option<Canceller>,
    alarm: Alarm,
    shared: Rc<Shared>,
    /// Receives that ended since one had to wait.
    at_once: u8,
}

/// Receives in a row that may complete without waiting, as those of epoll do while bytes are there, before the other
/// tasks and the clock get their turn. With buffers of 64 KiB a task holds the loop for a millisecond at most.
const AT_ONCE_MAX: u8 = 32;

impl RecvHalf for MonoRecv {
    async fn recv(&mut self, buffer: Buffer, until: Deadline) -> (io::Result<usize>, Buffer) {
        let shared = self.shared.clone();
        let has_room = buffer.spare() > 0;
        self.alarm.set(until);
        let in_flight = InFlight::begin(&shared.turn);
        let (result, buffer) = match self.driver {
            Driver::IoUring => self.receive_in_ring(buffer).await,
            Driver::Epoll => self.receive_when_ready(buffer).await,
        };
        in_flight.completed();
        shared.turn.touch();
        self.alarm.set(Deadline::NEVER);
        self.at_once += 1;
        if self.at_once == AT_ONCE_MAX {
            self.at_once = 0;
            shared.turn.next().await;
        }
        let result = match result {
            Ok(0) if has_room && shared.broken.get() => Err(io::ErrorKind::ConnectionReset.into()),
            result => result,
        };
        (result, buffer)
    }

    async fn readable(&mut self, until: Deadline) -> io::Result<()> {
        let MonoRecv { half, alarm, shared, .. } = self;
        alarm.set(until);
        // SAFETY: `OwnedReadHalf` shares its stream with the write half on this thread only; `readable` takes
        // `&TcpStream` and touches nothing but the shared descriptor, and the borrow ends with this function.
        let stream = unsafe { &*half.0.get() };
        let mut ready = pin!(stream.readable(true));
        let result = poll_fn(|cx| match ready.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            // A wait for readiness owns no buffer and takes no byte, so it may be dropped.
            Poll::Pending => alarm.poll_rung(cx).map(|rung| Err(error_of(rung))),
        })
        .await;
        shared.turn.touch();
        alarm.set(Deadline::NEVER);
        result
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.half.local_addr()
    }
}

impl MonoRecv {
    /// The kernel has the buffer until the operation is over: who wants it to end must cancel it and wait.
    async fn receive_in_ring(&mut self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let MonoRecv { half, canceller, alarm, at_once, .. } = self;
        let handle = canceller.get_or_insert_default().handle();
        let mut receive = pin!(half.cancelable_read(Receiving(buffer), handle));
        let mut why = None;
        let (result, buffer) = poll_fn(|cx| {
            if let Poll::Ready(done) = receive.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            *at_once = 0;
            if why.is_none()
                && let Poll::Ready(rung) = alarm.poll_rung(cx)
            {
                why = Some(rung);
                *canceller = canceller.take().map(Canceller::cancel);
            }
            Poll::Pending
        })
        .await;
        (explain(result, why), buffer.0)
    }

    /// An operation on epoll calls the kernel only while it is polled, so it ends by being dropped. That saves what
    /// monoio's canceller costs, a tenth of a request's instructions.
    async fn receive_when_ready(&mut self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let MonoRecv { half, alarm, shared, at_once, .. } = self;
        shared.incoming.replace(buffer);
        let mut receive = pin!(half.read(ReceivingShared(shared.clone())));
        let result = poll_fn(|cx| match receive.as_mut().poll(cx) {
            Poll::Ready((result, _)) => Poll::Ready(result),
            Poll::Pending => {
                *at_once = 0;
                alarm.poll_rung(cx).map(|rung| Err(error_of(rung)))
            }
        })
        .await;
        (result, shared.incoming.take())
    }
}

/// A cancelled operation ends with ECANCELED; say why it was cancelled instead.
fn explain(result: io::Result<usize>, why: Option<Rung>) -> io::Result<usize> {
    match (result, why) {
        (Err(error), Some(rung)) if error.raw_os_error() == Some(libc::ECANCELED) => Err(error_of(rung)),
        (Err(error), Some(rung)) if error.kind() == io::ErrorKind::Interrupted => Err(error_of(rung)),
        (result, _) => result,
    }
}

fn error_of(rung: Rung) -> io::Error {
    match rung {
        Rung::TimedOut => io::ErrorKind::TimedOut.into(),
        Rung::Cancelled => io::ErrorKind::Interrupted.into(),
    }
}

/// The sending half of a connection.
pub struct MonoSend {
    /// Not monoio's write half: that one sends FIN when it is dropped, and a reset must stay a reset.
    stream: Rc<UnsafeCell<TcpStream>>,
    descriptor: RawFd,
    alarm: Alarm,
    shared: Rc<Shared>,
}

impl SendHalf for MonoSend {
    async fn send(&mut self, mut gather: Gather, until: Deadline) -> (io::Result<usize>, Gather) {
        let MonoSend { stream, descriptor, alarm, shared } = self;
        let Shared { turn, broken, .. } = &**shared;
        // SAFETY: `TcpStream` is `Split`: its read and write operations may run side by side on one thread. Only
        // write operations are started here and only read operations in `MonoRecv`; each clones the shared
        // descriptor at once and touches nothing else of the stream.
        let stream = unsafe { &mut *stream.get() };
        gather.load_vectors();
        alarm.set(until);
        let in_flight = InFlight::begin(turn);
        let mut why = None;
        // A lone run goes by `send`, which is cheaper in the kernel than a vector of one.
        let (result, mut gather) = if gather.vectors.len() == 1 {
            let mut send = pin!(stream.write(SendingOne(gather)));
            let (result, sending) =
                poll_fn(|cx| or_break(send.as_mut().poll(cx), alarm, cx, *descriptor, &mut why)).await;
            (result, sending.0)
        } else {
            let mut send = pin!(stream.writev(SendingMany(gather)));
            let (result, sending) =
                poll_fn(|cx| or_break(send.as_mut().poll(cx), alarm, cx, *descriptor, &mut why)).await;
            (result, sending.0)
        };
        in_flight.completed();
        turn.touch();
        alarm.set(Deadline::NEVER);
        // A pipe is also broken after a FIN either way, which receiving survives.
        let is_error = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe);
        if is_error || why.is_some() {
            broken.set(true);
        }
        match (result, why) {
            (Ok(count), _) => {
                gather.mark_sent(count);
                (Ok(count), gather)
            }
            (Err(_), Some(rung)) => (Err(error_of(rung)), gather),
            (Err(error), None) => (Err(error), gather),
        }
    }

    fn cancel_handle(&self) -> Alarm {
        self.alarm.clone()
    }

    fn shutdown(&mut self) -> io::Result<()> {
        shutdown(self.descriptor, libc::SHUT_WR)
    }

    fn reset(&mut self) {
        // SAFETY: this half keeps the descriptor open for the whole call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        // A linger of zero turns the close that follows into RST; a socket that is gone already needs none.
        let _ = socket2::SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
    }
}

/// Breaks the connection when the alarm rings, which makes the send in flight complete; its buffer comes back then.
fn or_break<T>(
    polled: Poll<T>,
    alarm: &Alarm,
    cx: &mut std::task::Context<'_>,
    descriptor: RawFd,
    why: &mut Option<Rung>,
) -> Poll<T> {
    if polled.is_pending()
        && why.is_none()
        && let Poll::Ready(rung) = alarm.poll_rung(cx)
    {
        *why = Some(rung);
        let _ = shutdown(descriptor, libc::SHUT_RDWR);
    }
    polled
}

/// Trips when an operation that owns a buffer is dropped before it completed.
struct InFlight<'a> {
    turn: &'a Turn,
    done: bool,
}

impl<'a> InFlight<'a> {
    fn begin(turn: &'a Turn) -> Self {
        InFlight { turn, done: false }
    }

    fn completed(mut self) {
        self.done = true;
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        debug_assert!(
            self.done || self.turn.is_ending() || std::thread::panicking(),
            "an operation in flight was dropped"
        );
    }
}

struct Receiving(Buffer);

// SAFETY: the pointer is into the buffer's boxed slice, which stays where it is while `Receiving` is moved, and
// `bytes_total` is the length of that slice behind the filled run. Nobody else can reach the buffer meanwhile.
unsafe impl IoBufMut for Receiving {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.spare_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.spare()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// Refers to [`Shared::incoming`]. Only for epoll, where the kernel writes to it within a poll and at no other time.
struct ReceivingShared(Rc<Shared>);

// SAFETY: as above, for as long as a poll lasts, which is as long as epoll's driver keeps the pointer. The buffer is
// taken out of its place only between two polls.
unsafe impl IoBufMut for ReceivingShared {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.incoming.borrow_mut().spare_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.incoming.borrow().spare()
    }

    unsafe fn set_init(&mut self, count: usize) {
        self.0.incoming.borrow_mut().advance(count);
    }
}

struct SendingOne(Gather);

// SAFETY: `load_vectors` ran and found one run, in heap memory that the gather owns and nobody changes while it is
// in here; the pointer and length are that run's.
unsafe impl IoBuf for SendingOne {
    fn read_ptr(&self) -> *const u8 {
        self.0.vectors[0].iov_base.cast()
    }

    fn bytes_init(&self) -> usize {
        self.0.vectors[0].iov_len
    }
}

struct SendingMany(Gather);

// SAFETY: as above, for every entry; the entries themselves lie in a heap vector that is not touched meanwhile.
unsafe impl IoVecBuf for SendingMany {
    fn read_iovec_ptr(&self) -> *const libc::iovec {
        self.0.vectors.as_ptr()
    }

    fn read_iovec_len(&self) -> usize {
        self.0.vectors.len()
    }
}
