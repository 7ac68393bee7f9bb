//! Counters of handshakes.

use super::{Counter, Kind};
use crate::tls::{HandshakeError, HandshakeFault};

block! {
    /// `ssl.*` of Envoy, below a listener or a cluster.
    TlsCounters {
        /// Handshakes done.
        Counter handshake,
        /// Of these, those that went on with a session.
        Counter session_reused,
        /// Handshakes that failed, whatever the reason.
        Counter connection_error,
        /// Of these, for want of a certificate.
        Counter fail_verify_no_cert,
        /// Of these, for a certificate that nobody vouches for, or that is not valid now.
        Counter fail_verify_error,
        /// Of these, for a certificate without the names that are demanded.
        Counter fail_verify_san,
        /// Of these, for a certificate that is none of those that are taken.
        Counter fail_verify_cert_hash,
        /// Of these, by timeout.
        Counter handshake_timeout,
        /// Of these, refused because there were as many handshakes as may be.
        Counter handshake_overflow,
        /// Of these, refused because a certificate of ours is missing.
        Counter no_certificate,
    }
}

impl TlsCounters {
    /// Counts a handshake that is done.
    pub fn handshake(&self, is_resumed: bool) {
        self.handshake.inc();
        if is_resumed {
            self.session_reused.inc();
        }
    }

    /// Counts one that failed.
    pub fn refused(&self, error: &HandshakeError) {
        self.connection_error.inc();
        match error.kind() {
            HandshakeFault::NoCertificate => self.fail_verify_no_cert.inc(),
            HandshakeFault::Untrusted => self.fail_verify_error.inc(),
            HandshakeFault::Name => self.fail_verify_san.inc(),
            HandshakeFault::Fingerprint => self.fail_verify_cert_hash.inc(),
            HandshakeFault::TimedOut => self.handshake_timeout.inc(),
            HandshakeFault::TooMany => self.handshake_overflow.inc(),
            HandshakeFault::Other => {}
        }
    }
}
