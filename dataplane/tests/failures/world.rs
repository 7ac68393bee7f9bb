//! What is upstream of a proxy under trial.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Mutex,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use socket2::Socket;

use crate::recorder::{Recorder, reserve};

/// How long a proxy waits for a connection to [`World::mute`], and for an answer to `/silent`.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

/// All origins of one proxy.
pub(crate) struct World {
    /// Where everything goes that does not say otherwise.
    pub(crate) origin: Recorder,
    /// `/three`: three more that can be killed; they write into the log of the first.
    pub(crate) three: [Recorder; 3],
    /// `/mute`: SYN are dropped.
    pub(crate) mute: Mute,
    /// `/refused`: nobody listens.
    pub(crate) refused: (Socket, SocketAddr),
    /// Behind the TCP listener.
    pub(crate) tcp: TcpOrigin,
}

/// A listener whose queue is full, so that the kernel drops what else would connect.
pub(crate) struct Mute {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queued: TcpStream,
}

/// An origin without HTTP: each connection is treated as the next script says.
pub(crate) struct TcpOrigin {
    pub(crate) address: SocketAddr,
    scripts: Mutex<Sender<TcpScript>>,
}

/// What a [`TcpOrigin`] does with one connection.
pub(crate) type TcpScript = Box<dyn FnOnce(TcpStream) -> io::Result<()> + Send>;

impl World {
    pub(crate) fn start() -> World {
        let origin = Recorder::start();
        let three = [origin.another(), origin.another(), origin.another()];
        World { origin, three, mute: Mute::start(), refused: reserve(), tcp: TcpOrigin::start() }
    }
}

impl Mute {
    fn start() -> Mute {
        let (listener, address) = reserve();
        listener.listen(0).expect("the port is ours");
        // One fits into a queue of length 0.
        let queued = TcpStream::connect(address).expect("loopback");
        Mute { address, _listener: listener, _queued: queued }
    }
}

impl TcpOrigin {
    fn start() -> TcpOrigin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (scripts, next) = channel::<TcpScript>();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Ok(script) = next.recv() else { return };
                thread::spawn(move || script(stream));
            }
        });
        TcpOrigin { address, scripts: Mutex::new(scripts) }
    }

    /// The next connection without a script is treated so; one that is there already waits for it.
    pub(crate) fn script(&self, script: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) {
        self.scripts.lock().expect("no origin panics").send(Box::new(script)).expect("an origin");
    }
}
