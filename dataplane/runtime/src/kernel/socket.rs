//! What a driver knows of one descriptor, and the system calls on it that do not wait.

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    task::{Context, Waker},
    time::Duration,
};

use socket2::{SockAddr, SockRef, Socket};

use crate::buffer::{Buffer, Gather};

/// A receive of no more than this is taken for a message and not for a part of something long, in bytes.
const MESSAGE_BYTES: usize = 4096;

/// A descriptor in a driver's care.
pub(super) struct Watched {
    descriptor: OwnedFd,
    /// Its number at the driver.
    pub(super) key: Cell<usize>,
    pub(super) read: Side,
    pub(super) write: Side,
    /// The other end has said that nothing follows what can be read.
    pub(super) has_hung_up: Cell<bool>,
    /// A send or a receive failed.
    pub(super) is_broken: Cell<bool>,
    /// What only io_uring needs.
    pub(super) ring: InRing,
}

/// One direction of a descriptor.
#[derive(Default)]
pub(super) struct Side {
    /// The next call on it is worth a try.
    pub(super) is_ready: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// io_uring: a poll for it is in flight.
    pub(super) is_polled: Cell<bool>,
}

/// A descriptor's operations in the ring.
#[derive(Default)]
pub(super) struct InRing {
    /// What was received and not taken yet, oldest first.
    pub(super) chunks: RefCell<VecDeque<Chunk>>,
    /// How receiving ended, 0 or an error's number; behind the last chunk.
    pub(super) end: Cell<Option<i32>>,
    pub(super) receiving: Cell<Receiving>,
    /// Comes faster than it is taken, or found no buffer: received when it is asked for, and into the asker's buffer.
    pub(super) is_bulk: Cell<bool>,
    pub(super) sending: Cell<Sending>,
    /// Read by the kernel when the send is submitted.
    pub(super) message: UnsafeCell<Message>,
    /// What the send in flight reads.
    pub(super) gather: RefCell<Gather>,
    /// Operations whose last completion has not come.
    pub(super) in_flight: Cell<u32>,
    pub(super) is_closing: Cell<bool>,
}

/// What a send of several runs refers to.
pub(super) struct Message(pub(super) libc::msghdr);

impl Default for Message {
    fn default() -> Message {
        // SAFETY: all zeros is a valid `msghdr`: no name, no vectors, no control data.
        Message(unsafe { MaybeUninit::zeroed().assume_init() })
    }
}

/// A run of received bytes in one of the ring's buffers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) buffer: u16,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Where a descriptor's multishot receive stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Receiving {
    #[default]
    No,
    Armed,
    /// Told to end; what it got meanwhile still comes.
    Cancelled,
}

/// Where a descriptor's send stands.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Sending {
    #[default]
    No,
    InFlight,
    /// It ended with this: bytes, or an error's number below zero.
    Done(i32),
}

impl Side {
    /// Remembers whom to wake.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn set_ready(&self) {
        self.is_ready.set(true);
        self.wake();
    }
}

impl Watched {
    pub(super) fn new(descriptor: OwnedFd) -> Watched {
        Watched {
            descriptor,
            key: Cell::new(usize::MAX),
            read: Side::default(),
            write: Side::default(),
            has_hung_up: Cell::new(false),
            is_broken: Cell::new(false),
            ring: InRing::default(),
        }
    }

    /// Whether there are bytes or an end to take, or may be.
    pub(super) fn has_come(&self) -> bool {
        let InRing { chunks, end, .. } = &self.ring;
        self.read.is_ready.get() || !chunks.borrow().is_empty() || end.get().is_some()
    }

    pub(super) fn raw(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Another number for what is open.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.descriptor)
    }

    /// Receives what is there behind what `buffer` holds.
    pub(super) fn receive(&self, buffer: &mut Buffer) -> io::Result<usize> {
        let room = buffer.spare();
        // SAFETY: the pointer and `room` describe the writable rest of the buffer, which is borrowed for the call.
        let count = unsafe { libc::recv(self.raw(), buffer.spare_ptr().cast(), room, libc::MSG_DONTWAIT) };
        let count = checked(count)?;
        // SAFETY: the kernel wrote so many there.
        unsafe { buffer.advance(count) };
        // Less than there was room for: all that had come. More is told anew, except an end that is known already.
        if count < room && count > 0 && !self.has_hung_up.get() {
            self.read.is_ready.set(false);
        }
        if count <= MESSAGE_BYTES {
            self.ring.is_bulk.set(false);
        }
        Ok(count)
    }

    /// Sends what the loaded vectors of `gather` point to, or some of it.
    pub(super) fn send(&self, gather: &Gather) -> io::Result<usize> {
        const FLAGS: libc::c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let count = match &gather.vectors[..] {
            // A lone run goes by `send`, which is cheaper in the kernel than a vector of one.
            // SAFETY: `load_vectors` ran: pointer and length are of a run in heap memory that the gather owns.
            [run] => unsafe { libc::send(self.raw(), run.iov_base, run.iov_len, FLAGS) },
            // SAFETY: as above for each entry, and the message refers to the gather's entries, borrowed for the call.
            _ => unsafe { libc::sendmsg(self.raw(), &message_of(gather), FLAGS) },
        };
        checked(count)
    }

    /// The next connection that waits.
    pub(super) fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        let (socket, from) = self.socket().accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
        let from = from.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok((socket.into(), from))
    }

    /// How a connect ended that was under way.
    pub(super) fn connected(&self) -> io::Result<()> {
        self.socket().take_error()?.map_or(Ok(()), Err)
    }

    /// Empties the counter of an eventfd.
    pub(super) fn silence(&self) -> io::Result<()> {
        let mut count = [0u8; 8];
        // SAFETY: the pointer and length are those of an array that lives through the call.
        checked(unsafe { libc::read(self.raw(), count.as_mut_ptr().cast(), count.len()) }).map(drop)
    }

    pub(super) fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        self.socket().shutdown(how)
    }

    /// Breaks the connection here and now, which ends what is in flight on it: the other end gets a RST behind what was sent. A
    /// FIN, which a shutdown brings, would say that what was sent is all.
    pub(super) fn abort(&self) {
        let nowhere = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        // SAFETY: the descriptor is open as long as this lives, and the kernel reads no more of the address than its size.
        let done = checked(unsafe {
            libc::connect(self.raw(), &raw const nowhere, size_of_val(&nowhere) as libc::socklen_t) as isize
        });
        if done.is_err() {
            // Linux 6.4 to 6.6 refuse that while somebody waits in a call on the socket.
            let _ = self.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Lets the kernel take more only while less than this is unsent, or always with 0. A connection that is gone needs no
    /// limit.
    pub(super) fn limit_unsent(&self, bytes: u32) {
        let _ = self.socket().set_tcp_notsent_lowat(bytes);
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Turns the close that follows into a RST; a socket that is gone already needs none.
    pub(super) fn linger_not(&self) {
        let _ = self.socket().set_linger(Some(Duration::ZERO));
    }

    pub(super) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }
}

/// What the kernel may hold of a connection each way, in bytes of messages; it counts up to twice as much for what it keeps
/// beside them. Sockets that are accepted inherit it.
pub(crate) fn limit_held(socket: &Socket, bytes: u32) -> io::Result<()> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    socket.set_recv_buffer_size(bytes)?;
    socket.set_send_buffer_size(bytes)
}

/// A socket that connects, or has connected already; see [`limit_held`] for `held_bytes_max`.
pub(super) fn connect(to: SocketAddr, held_bytes_max: Option<u32>) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Type};
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = held_bytes_max {
        limit_held(&socket, bytes)?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// A message of all the vectors of a gather, which must have been loaded.
pub(super) fn message_of(gather: &Gather) -> libc::msghdr {
    let Message(mut message) = Message::default();
    message.msg_iov = gather.vectors.as_ptr().cast_mut();
    message.msg_iovlen = gather.vectors.len();
    message
}

/// A result of a system call as an error, or the count.
fn checked(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A descriptor that a system call has just returned.
pub(super) fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    match result {
        // SAFETY: the kernel has just made this descriptor for the caller, and nobody else knows it.
        0.. => Ok(unsafe { OwnedFd::from_raw_fd(result) }),
        _ => Err(io::Error::last_os_error()),
    }
}
