//! The recorder: an origin that keeps every byte it got, connection by connection, and reads it strictly.
//!
//! It answers every request with the request's own id and body, unless the request's id has a script.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Duration,
};

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
    pub(crate) id: Option<u64>,
    pub(crate) message: Message,
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
}

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    scripts: Mutex<HashMap<u64, Script>>,
}

/// A recording origin on a port of loopback.
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

/// One connection, as a script uses it.
pub(crate) struct Origin {
    stream: TcpStream,
    shared: Arc<Shared>,
    connection: usize,
    /// Where the current request stands in the log.
    index: usize,
    bytes: Vec<u8>,
    at: usize,
    reader: BodyReader,
    pub(crate) message: Message,
}

impl Recorder {
    pub(crate) fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let recorder =
            Recorder { address: listener.local_addr().expect("bound"), shared: Arc::<Shared>::default() };
        let shared = recorder.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, shared));
            }
        });
        recorder
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

    /// Waits until this holds of the log; false when it does not come to hold.
    pub(crate) fn wait(&self, patience: Duration, mut holds: impl FnMut(&Log) -> bool) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.log(), patience, |log| !holds(log));
        !waited.expect("no recorder panics").1.timed_out()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no recorder panics")
}

fn serve(stream: TcpStream, shared: Arc<Shared>) {
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
    drop(stream);
    shared.change(|log| log.ended.insert(connection));
}

/// Makes the end of a connection a reset.
pub(crate) fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Makes every write of this side, and of the other, a partial one.
pub(crate) fn small_buffers(stream: &TcpStream) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
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
        self.bytes.drain(..self.at + end);
        self.at = 0;
        self.reader = BodyReader::new(head.request_framing().map_err(io::Error::other)?);
        self.message = Message { head, ..Message::default() };
        let (id, message) = (self.message.head.id(), self.message.clone());
        let recorded = Recorded { connection: self.connection, id, message };
        self.index = self.shared.change(|log| {
            log.requests.push(recorded);
            log.requests.len() - 1
        });
        self.read_body_so_far()?;
        Ok(true)
    }

    fn act(&mut self) -> io::Result<Then> {
        let script = self.message.head.id().and_then(|id| lock(&self.shared.scripts).remove(&id));
        match script {
            Some(script) => script(self),
            None => {
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
            let (index, message) = (self.index, self.message.clone());
            self.shared.change(|log| log.requests[index].message = message);
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
