//! The four ways in which a client and an origin speak: HTTP/1.1 or HTTP/2 on either side of the proxy.

use policy::cluster::UpstreamProtocol;
use runtime::Io;
use sim::{Ask, Behaviour, Client, StreamBehaviour, Streams, Verdict, origin::AnswerFraming};

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
