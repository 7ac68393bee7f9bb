//! Where a connection comes from and goes to, as far as is known.

use std::{net::SocketAddr, sync::Arc};

use policy::{
    alpn::{self, Http},
    filter_chain::{ConnectionFacts, FilterChain, FilterChains, TransportProtocol},
    network_filter::Codec,
    peer::Peer,
    tls::Terms,
};
use wire::proxy_protocol::Addresses;

/// What is known of a connection for its whole life.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The listener that accepted it.
    pub listener: Arc<str>,
    /// Who made the connection, as far as is known.
    pub remote: SocketAddr,
    /// The other end, where that is somebody else.
    peer: Option<Box<SocketAddr>>,
    /// Its IP address, as `x-forwarded-for` shows it.
    pub remote_text: Box<str>,
    /// The address it was made to.
    pub local: SocketAddr,
    /// What its first bytes say, where somebody looked.
    pub spoken: Option<Box<Spoken>>,
    /// How it is secured; `None` is not at all.
    pub tls: Option<Arc<TlsOrigin>>,
}

/// What is known of a connection by its TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsOrigin {
    /// Who the other end is, if it showed a certificate that somebody who is believed vouches for.
    pub peer: Option<Peer>,
    /// The application protocol that was agreed on.
    pub alpn: Option<Box<[u8]>>,
    /// The URI name of the certificate that we have shown.
    pub own: Option<Arc<str>>,
    /// What the other end was asked for.
    pub terms: Arc<Terms>,
}

/// What the first bytes of a connection say of it.
#[derive(Clone, Debug, Default)]
pub struct Spoken {
    /// Server name of its ClientHello.
    pub server_name: Option<Box<str>>,
    /// A ClientHello was seen.
    pub is_tls: bool,
    /// The application protocols that it offers, best first, or the one that is spoken.
    pub protocols: Box<[Box<[u8]>]>,
}

impl Origin {
    /// A connection between these two.
    pub fn new(listener: Arc<str>, remote: SocketAddr, local: SocketAddr) -> Origin {
        // An IPv4 address is one, also on a socket that takes both families.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let remote_text = remote.ip().to_string().into();
        Origin { listener, remote, peer: None, remote_text, local, spoken: None, tls: None }
    }

    /// Takes the word of the other end for whom it speaks for.
    pub fn set_addresses(&mut self, told: Addresses) {
        self.peer = Some(Box::new(self.remote));
        self.remote = SocketAddr::new(told.source.ip().to_canonical(), told.source.port());
        self.remote_text = self.remote.ip().to_string().into();
        self.local = told.destination;
    }

    /// Who the other end is, if its certificate says so and is believed.
    pub fn identity(&self) -> Option<&Peer> {
        self.tls.as_ref()?.peer.as_ref()
    }

    /// The URI name of the certificate that we have shown.
    pub fn own_name(&self) -> Option<&str> {
        self.tls.as_ref()?.own.as_deref()
    }

    /// Which HTTP is spoken on it: what was agreed on, where it could be either.
    pub fn codec(&self, configured: Codec) -> Codec {
        let agreed = self.tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        match (configured, agreed.and_then(alpn::http)) {
            (Codec::Auto, Some(Http::Http2)) => Codec::Http2,
            (Codec::Auto, Some(Http::Http1)) => Codec::Http1,
            (configured, _) => configured,
        }
    }

    /// The scheme of what is asked for on it.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer.as_deref().copied().unwrap_or(self.remote)
    }

    /// Between whom it was made, as it is told upstream.
    pub fn addresses(&self) -> Addresses {
        Addresses { source: self.remote, destination: self.local }
    }

    /// The filter chain that takes it.
    pub fn pick<'a>(&self, chains: &'a FilterChains) -> Option<&'a FilterChain> {
        let destination_port = Some(self.local.port());
        let Some(spoken) = &self.spoken else {
            return chains.pick(&ConnectionFacts { destination_port, ..ConnectionFacts::default() });
        };
        let protocols: Vec<&[u8]> = spoken.protocols.iter().map(|protocol| &**protocol).collect();
        chains.pick(&ConnectionFacts {
            destination_port,
            server_name: spoken.server_name.as_deref(),
            transport_protocol: if spoken.is_tls {
                TransportProtocol::Tls
            } else {
                TransportProtocol::RawBuffer
            },
            application_protocols: &protocols,
        })
    }
}
