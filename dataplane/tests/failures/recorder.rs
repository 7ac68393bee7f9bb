//! The recorder: an origin that keeps every byte it got, connection by connection, and reads it strictly.
//!
//! It answers every request with the request's own id and body, unless the request's id has a script.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::http::{BodyReader, Framing, Message, request_head};

/// What an origin does with one request in place of answering it.
pub(crate) type Script = Box<dyn FnOnce(&mut Origin) -> io::Result<Then> + Send>;

/// What becomes of the connection after a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// The next request is read.
    KeepAlive,
    /// It is closed with FIN.
    Close,
    /// It is closed with RST.
    Reset,
}

/// One request as it arrived.
#[derive(Clone)]
pub(crate) struct Recorded {
    /// Which connection it came over, counted from the first.
    pub(crate) connection: usize,
    /// The address that was asked.
    pub(crate) at: SocketAddr,
    pub(crate) id: Option<u64>,
    pub(crate) message: Message,
    /// The bytes that it was read from, when it is whole.
    pub(crate) bytes: Vec<u8>,
}

/// All that arrived.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) requests: Vec<Recorded>,
    /// Bytes that no strict reader takes for a request: what, and the bytes.
    pub(crate) faults: Vec<String>,
    /// How many connections there were.
    pub(crate) connections: usize,
    /// Those that are over.
    pub(crate) ended: HashSet<usize>,
}

impl Log {
    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.connections - self.ended.len()
    }

    /// How many are open of those that came after the first so many.
    pub(crate) fn open_from(&self, first: usize) -> usize {
        (first..self.connections).filter(|connection| !self.ended.contains(connection)).count()
    }
}

/// What an origin does with every request that has no script.
pub(crate) type Habit = fn(&mut Origin) -> io::Result<Then>;

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    scripts: Mutex<HashMap<u64, Script>>,
    habit: Mutex<Option<Habit>>,
}

/// A recording origin on a port of loopback.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    /// While it takes connections: the listener, and the thread that does.
    accepting: Mutex<Option<(Arc<Socket>, JoinHandle<()>)>>,
    streams: Streams,
    /// Bound and not listening: keeps the port while nobody listens there.
    _port: Socket,
}

/// The connections that are open, by descriptor.
type Streams = Arc<Mutex<HashMap<RawFd, TcpStream>>>;

/// One connection, as a script uses it.
pub(crate) struct Origin {
    stream: TcpStream,
    shared: Arc<Shared>,
    connection: usize,
    /// Where the current request stands in the log.
    index: usize,
    /// Of the current request's head.
    head: Vec<u8>,
    /// What came behind that head.
    bytes: Vec<u8>,
    at: usize,
    reader: BodyReader,
    pub(crate) message: Message,
}

impl Recorder {
    pub(crate) fn start() -> Recorder {
        Recorder::with_log(Arc::default())
    }

    /// Another origin that writes into the same log.
    pub(crate) fn another(&self) -> Recorder {
        Recorder::with_log(self.shared.clone())
    }

    /// One more, on every address of loopback.
    pub(crate) fn everywhere(&self) -> Recorder {
        let port = bound(SocketAddr::from(([0, 0, 0, 0], 0)));
        Recorder::on(port, self.shared.clone())
    }

    fn with_log(shared: Arc<Shared>) -> Recorder {
        Recorder::on(bound(SocketAddr::from(([127, 0, 0, 1], 0))), shared)
    }

    fn on(port: Socket, shared: Arc<Shared>) -> Recorder {
        let address = address_of(&port);
        let (accepting, streams) = (Mutex::default(), Arc::default());
        let recorder = Recorder { address, shared, accepting, streams, _port: port };
        recorder.revive();
        recorder
    }

    /// Takes connections.
    pub(crate) fn revive(&self) {
        let listener = bound(self.address);
        listener.listen(1024).expect("the port is ours");
        let listener = Arc::new(listener);
        let (accepts, shared, streams) = (listener.clone(), self.shared.clone(), self.streams.clone());
        let thread = thread::spawn(move || {
            while let Ok((stream, _)) = accepts.accept() {
                let stream = TcpStream::from(stream);
                lock(&streams).extend(stream.try_clone().map(|clone| (stream.as_raw_fd(), clone)));
                let (shared, streams) = (shared.clone(), streams.clone());
                thread::spawn(move || serve(stream, shared, &streams));
            }
        });
        *lock(&self.accepting) = Some((listener, thread));
    }

    /// Ends as a process that is killed: nobody listens, and every connection is over, wherever it is.
    pub(crate) fn kill(&self) {
        if let Some((listener, thread)) = lock(&self.accepting).take() {
            listener.shutdown(Shutdown::Both).expect("a listener");
            drop(listener);
            thread.join().expect("no recorder panics");
        }
        for stream in lock(&self.streams).values() {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.shared.log)
    }

    /// The request with this id is treated so.
    pub(crate) fn script(
        &self,
        id: u64,
        script: impl FnOnce(&mut Origin) -> io::Result<Then> + Send + 'static,
    ) {
        lock(&self.shared.scripts).insert(id, Box::new(script));
    }

    /// Requests without a script are treated so; without a habit they are answered.
    pub(crate) fn treat_all(&self, habit: Option<Habit>) {
        *lock(&self.shared.habit) = habit;
    }

    /// The log as soon as this holds of it, or as it is after that long.
    pub(crate) fn log_when(
        &self,
        mut holds: impl FnMut(&Log) -> bool,
        patience: Duration,
    ) -> MutexGuard<'_, Log> {
        let waited = self.shared.changed.wait_timeout_while(self.log(), patience, |log| !holds(log));
        waited.expect("no recorder panics").0
    }
}

/// A port of loopback that nobody else gets, and where nobody listens as long as only this socket has it.
pub(crate) fn reserve() -> (Socket, SocketAddr) {
    let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = address_of(&socket);
    (socket, address)
}

fn address_of(socket: &Socket) -> SocketAddr {
    socket.local_addr().ok().and_then(|address| address.as_socket()).expect("bound")
}

/// A socket that may share its address with others that do not listen.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&address.into()).expect("loopback");
    socket
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no recorder panics")
}

fn serve(stream: TcpStream, shared: Arc<Shared>, streams: &Streams) {
    let _ = stream.set_nodelay(true);
    let connection = shared.change(|log| {
        log.connections += 1;
        log.connections - 1
    });
    let mut origin = Origin {
        stream,
        shared,
        connection,
        index: 0,
        head: Vec::new(),
        bytes: Vec::new(),
        at: 0,
        reader: BodyReader::new(Framing::Length(0)),
        message: Message::default(),
    };
    let end = loop {
        match origin.next_request().and_then(|is_there| if is_there { origin.act() } else { Ok(Then::Close) })
        {
            Ok(Then::KeepAlive) => {}
            Ok(then) => break then,
            Err(_) => break Then::Close,
        }
    };
    if end == Then::Reset {
        // What is left of the request is thrown away with it.
        let _ = reset(&origin.stream);
    }
    let Origin { stream, shared, connection, .. } = origin;
    // The other handle first, so that this one closes the connection.
    lock(streams).remove(&stream.as_raw_fd());
    drop(stream);
    shared.change(|log| log.ended.insert(connection));
}

/// Makes the end of a connection a reset.
pub(crate) fn reset(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Makes every write of this side, and of the other, a partial one.
pub(crate) fn small_buffers(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_send_buffer_size(4096)?;
    // Much less than this is less than one segment of loopback, and the kernels wait for each other.
    socket.set_recv_buffer_size(32 * 1024)
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut lock(&self.log));
        self.changed.notify_all();
        result
    }
}

impl Origin {
    /// Reads the next request head; false at the end of the connection.
    fn next_request(&mut self) -> io::Result<bool> {
        let (head, end) = loop {
            match request_head(&self.bytes[self.at..]) {
                Ok(Some(found)) => break found,
                Ok(None) => {}
                Err(why) => return self.fault(&why),
            }
            if self.receive()? == 0 {
                return if self.at == self.bytes.len() { Ok(false) } else { self.fault("half a head") };
            }
        };
        // What was dealt with is not kept: the log has it.
        self.bytes.drain(..self.at);
        self.head = self.bytes.drain(..end).collect();
        self.at = 0;
        self.reader = BodyReader::new(head.request_framing().map_err(io::Error::other)?);
        self.message = Message { head, ..Message::default() };
        let body = self.reader.read(&self.bytes, &mut self.at, &mut self.message);
        let recorded = self.recorded()?;
        self.index = self.shared.change(|log| {
            log.requests.push(recorded);
            log.requests.len() - 1
        });
        body.map_or_else(|why| self.fault(&why), |_| Ok(true))
    }

    /// The current request as it is by now.
    fn recorded(&self) -> io::Result<Recorded> {
        let (id, message) = (self.message.head.id(), self.message.clone());
        let bytes = match message.is_whole {
            true => [&self.head, &self.bytes[..self.at]].concat(),
            false => Vec::new(),
        };
        Ok(Recorded { connection: self.connection, at: self.stream.local_addr()?, id, message, bytes })
    }

    fn act(&mut self) -> io::Result<Then> {
        let script = self.message.head.id().and_then(|id| lock(&self.shared.scripts).remove(&id));
        let habit = *lock(&self.shared.habit);
        match (script, habit) {
            (Some(script), _) => script(self),
            (None, Some(habit)) => habit(self),
            (None, None) => {
                self.body()?;
                self.send(&echo(&self.message))?;
                Ok(Then::KeepAlive)
            }
        }
    }

    /// Reads the body to its end.
    pub(crate) fn body(&mut self) -> io::Result<()> {
        while !self.message.is_whole {
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read_body_so_far()?;
        }
        Ok(())
    }

    /// Reads until `count` bytes of the body are there.
    pub(crate) fn body_bytes(&mut self, count: usize) -> io::Result<()> {
        while self.message.body.len() < count {
            if self.receive()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.read_body_so_far()?;
        }
        Ok(())
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read_body_so_far(&mut self) -> io::Result<()> {
        if let Err(why) = self.reader.read(&self.bytes, &mut self.at, &mut self.message) {
            return self.fault(&why).map(|_| ());
        }
        if self.message.is_whole {
            let (index, recorded) = (self.index, self.recorded()?);
            self.shared.change(|log| log.requests[index] = recorded);
        }
        Ok(())
    }

    fn fault(&mut self, why: &str) -> io::Result<bool> {
        let bytes = self.bytes[..self.bytes.len().min(400)].escape_ascii();
        let fault = format!("{why} on connection {}: {bytes}", self.connection);
        self.shared.change(|log| log.faults.push(fault));
        Err(io::ErrorKind::InvalidData.into())
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 64 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.bytes.extend(&buffer[..count]);
        Ok(count)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }
}

/// The answer of an origin that has no script: the request's id, then its body.
pub(crate) fn echo(request: &Message) -> Vec<u8> {
    let id = request.head.id().map_or_else(|| "none".to_owned(), |id| id.to_string());
    let length = if request.head.first[0] == b"HEAD" { 0 } else { request.body.len() };
    let head = format!("HTTP/1.1 200 OK\r\nX-Id: {id}\r\nContent-Length: {}\r\n\r\n", request.body.len());
    [head.as_bytes(), &request.body[..length]].concat()
}
