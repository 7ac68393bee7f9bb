//! TLS on the connections of the data plane, on either side.
//!
//! The handshake is rustls's, on its unbuffered interface ([`handshake`]); what follows is read and written by [`record`]
//! with rustls's ciphers, so that a record is opened where it lies. What is configured, and which certificates and bundles
//! are current, becomes rustls's configuration on the control thread ([`config`]), once for all workers. Who the other end
//! is, and whether it may be that, is judged in [`verify`].
//!
//! Faces hostile bytes, before and after the handshake. Fails closed: a connection without a configuration that can be used
//! is refused, and none falls back to plain text.

mod config;
mod halves;
mod handshake;
mod record;
mod sealer;
#[cfg(test)]
mod tests;
mod turnstile;
mod verify;

pub(crate) use self::verify::of_own as peer;

pub use self::{
    config::{BoundTls, ClientTls, ServerTls, TlsConfigs},
    halves::{TlsRecv, TlsSend, split},
    handshake::{HandshakeError, HandshakeFault, Secured, accept, connect},
    record::Records,
    turnstile::Turnstile,
};
