//! The four ways in which a client and an origin speak: HTTP/1.1 or HTTP/2 on either side of the proxy.

use policy::cluster::UpstreamProtocol;
use runtime::Io;
use sim::{
    Ask, Behaviour, Client, StreamBehaviour, StreamConfig, StreamOrigin, Streams, Verdict,
    origin::AnswerFraming,
};

use super::{Ground, Mesh, Setup};

/// Who speaks HTTP/2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pairing {
    pub(crate) down: bool,
    pub(crate) up: bool,
}

/// A client of either kind.
pub(crate) enum Asker<I: Io> {
    Connection(Client<I>),
    Streams(Streams<I>),
}

impl Pairing {
    /// All but the one in which nobody does.
    pub(crate) fn with_streams() -> [Pairing; 3] {
        [(true, true), (true, false), (false, true)].map(|(down, up)| Pairing { down, up })
    }

    /// All of them.
    pub(crate) fn all() -> [Pairing; 4] {
        let [a, b, c] = Self::with_streams();
        [a, b, c, Pairing { down: false, up: false }]
    }

    /// One origin that does the same in both protocols.
    pub(crate) fn setup(self, behaviour: StreamBehaviour) -> Setup {
        if self.up {
            return Setup::streams(behaviour);
        }
        let StreamBehaviour { answer, think, status, headers, body, has_length, .. } = behaviour;
        let framing = if has_length { AnswerFraming::Length } else { AnswerFraming::Chunked(700) };
        Setup::new(Behaviour { answer, think, status, headers, body, framing, ..Behaviour::default() })
    }

    /// An endpoint that the story plays.
    pub(crate) fn played(self) -> Setup {
        let setup = Setup::new(Behaviour::default()).played(1);
        let protocol = if self.up { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 };
        setup.cluster(|cluster| cluster.protocol = protocol)
    }

    /// A client with a connection.
    pub(crate) async fn asker<I: Ground>(self, mesh: &Mesh<I>) -> Asker<I> {
        match self.down {
            true => Asker::Streams(mesh.streams().await),
            false => Asker::Connection(mesh.client().await),
        }
    }
}

impl<I: Io> Asker<I> {
    /// Sends a request and receives its answer.
    pub(crate) async fn ask(&mut self, ask: &Ask) -> Verdict {
        match self {
            Asker::Connection(client) => client.ask(ask).await,
            Asker::Streams(streams) => streams.ask(ask).await,
        }
    }
}

impl Setup {
    /// One origin that speaks HTTP/2 behind one route for everything.
    pub(crate) fn streams(behaviour: StreamBehaviour) -> Setup {
        let setup = Setup::new(Behaviour::default()).without_origins().stream_origin(behaviour);
        setup.cluster(|cluster| cluster.protocol = UpstreamProtocol::Http2)
    }

    /// One more that speaks HTTP/2.
    pub(crate) fn stream_origin(mut self, behaviour: StreamBehaviour) -> Setup {
        self.stream_origins.push(behaviour);
        self
    }
}

impl<I: Ground> Mesh<I> {
    /// A client with a connection that speaks HTTP/2.
    pub(crate) async fn streams(&self) -> Streams<I> {
        Streams::connect(&self.io, self.proxy, StreamConfig::default()).await
    }

    /// The next connection to the first endpoint that the story plays, which speaks HTTP/2.
    pub(crate) async fn accept_streams(&self, config: StreamConfig) -> Streams<I> {
        let mut listener = self.played.borrow_mut().remove(0);
        let streams = Streams::accept(&self.origins_io, &mut listener, config).await;
        self.played.borrow_mut().insert(0, listener);
        streams
    }

    /// The first origin that speaks HTTP/2.
    pub(crate) fn stream_origin(&self) -> &StreamOrigin {
        &self.stream_origins[0]
    }
}
