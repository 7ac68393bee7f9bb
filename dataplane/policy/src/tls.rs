//! What the configuration says of TLS, on either side of us: data only. Keys and trust are DER, as they will be used; how
//! they are is not known here.
//!
//! A certificate or a trust bundle that has a name comes on its own, and may be another one from one moment to the next
//! ([`Secret`]); what refers to it stays as it is.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{fmt, time::Duration};

use crate::peer::Peer;

/// TLS on the connections that a filter chain takes (Envoy: `DownstreamTlsContext`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DownstreamTls {
    /// What both sides have in common.
    pub common: CommonTls,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// Whether a client may go on with a session that it had.
    pub resumption: bool,
    /// How long a handshake may take (Envoy: `transport_socket_connect_timeout` of the filter chain).
    pub handshake_timeout: Duration,
}

/// TLS on connections to upstream (Envoy: `UpstreamTlsContext`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpstreamTls {
    /// What both sides have in common.
    pub common: CommonTls,
    /// The server name that is asked for; without one none is sent.
    pub sni: Option<Arc<str>>,
    /// Whether a session is gone on with.
    pub resumption: bool,
}

/// What `DownstreamTls` and `UpstreamTls` have in common (Envoy: `CommonTlsContext`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommonTls {
    /// Lowest and highest version that is spoken.
    pub versions: Versions,
    /// Cipher suites of TLS 1.2 that may be used; empty: all that are safe. Those of TLS 1.3 all are.
    pub tls12_suites: Vec<CipherSuite>,
    /// Key exchanges that may be used, best first; empty: all that are safe.
    pub key_exchanges: Vec<KeyExchange>,
    /// Application protocols, best first (RFC 7301).
    pub alpn: Vec<Box<[u8]>>,
    /// What we show the other end.
    pub certificates: Vec<Source<CertificateChain>>,
    /// What the other end's certificate must be; `None` takes any, or none.
    pub validation: Option<Validation>,
}

/// A range of versions of TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// TLS 1.2 is spoken.
    pub tls12: bool,
    /// TLS 1.3 is spoken.
    pub tls13: bool,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { tls12: true, tls13: true }
    }
}

/// A cipher suite of TLS 1.2: ephemeral keys, authenticated encryption.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CipherSuite {
    EcdsaAes128,
    EcdsaAes256,
    EcdsaChacha20,
    RsaAes128,
    RsaAes256,
    RsaChacha20,
}

/// How keys are agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyExchange {
    /// X25519 with ML-KEM-768, which a quantum computer does not break.
    X25519MlKem768,
    /// X25519.
    X25519,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
}

/// Where something secret comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source<T> {
    /// It is in the configuration.
    Inline(Arc<T>),
    /// It comes on its own, by this name (SDS).
    Named(Arc<str>),
}

/// How the certificate of the other end is judged (Envoy: `CertificateValidationContext`, and the combined one).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Validation {
    /// What is in the configuration.
    pub own: TrustBundle,
    /// What comes on its own is laid over that ([`TrustBundle::under`]).
    pub named: Option<Arc<str>>,
}

/// Whom to trust, and for which names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustBundle {
    /// Certificates that vouch for others, in DER. None: nobody is believed, which takes no peer that has to show a
    /// certificate.
    pub anchors: Vec<Box<[u8]>>,
    /// The other end's certificate must have a name that one of these matches; none: any name will do.
    pub names: Vec<NameMatch>,
    /// A certificate is asked for, but one that nobody vouches for is taken as well, as that of nobody (Envoy:
    /// `ACCEPT_UNTRUSTED`).
    pub accepts_untrusted: bool,
    /// SHA-256 of the certificates that are taken, whoever else vouches for them; none: any.
    pub fingerprints: Vec<[u8; 32]>,
}

/// A name of a certificate, and how it is matched (Envoy: `SubjectAltNameMatcher`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameMatch {
    /// Which names are looked at.
    pub kind: NameKind,
    /// How.
    pub pattern: NamePattern,
}

/// How a name is matched. There are no regular expressions: an unescaped dot in one has let the wrong peers in elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamePattern {
    /// It is this. A DNS name of a certificate may have a `*` as its first label, which stands for one label.
    Exact(Box<str>),
    /// It begins with this.
    Prefix(Box<str>),
}

/// A kind of name in a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameKind {
    /// A URI, such as a SPIFFE ID.
    Uri,
    /// A DNS name.
    Dns,
}

/// A certificate with those that vouch for it, and its key.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateChain {
    /// In DER, the leaf first.
    pub chain: Vec<Box<[u8]>>,
    /// The leaf's private key.
    pub key: PrivateKey,
}

/// A private key in DER, in one of the three forms that are in use. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum PrivateKey {
    /// PKCS #8.
    Pkcs8(Box<[u8]>),
    /// PKCS #1, RSA only.
    Pkcs1(Box<[u8]>),
    /// SEC 1, elliptic curves only.
    Sec1(Box<[u8]>),
}

impl fmt::Debug for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateChain({} certificates)", self.chain.len())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// What was asked of those who made connections that are secured as a [`DownstreamTls`] says, so that it can be told of one
/// that lives whether it may live on under another. What we show is not among it: they have judged that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Terms {
    versions: Versions,
    tls12_suites: Vec<CipherSuite>,
    key_exchanges: Vec<KeyExchange>,
    alpn: Vec<Box<[u8]>>,
    is_certificate_required: bool,
    trust: Option<TrustBundle>,
}

impl Terms {
    /// Those of `tls`; `trust` is what its validation comes to, with what came on its own.
    pub fn new(tls: &DownstreamTls, trust: Option<TrustBundle>) -> Terms {
        Terms {
            versions: tls.common.versions,
            tls12_suites: tls.common.tls12_suites.clone(),
            key_exchanges: tls.common.key_exchanges.clone(),
            alpn: tls.common.alpn.clone(),
            is_certificate_required: tls.require_client_certificate,
            trust,
        }
    }

    /// Whether everybody who was taken on the terms `before` is taken on these, too. Who is trusted may be more than before,
    /// so that authorities can change without the end of a connection; all else is the same.
    pub fn are_met_by(&self, before: &Terms) -> bool {
        let is_trusted = match (&self.trust, &before.trust) {
            (None, None) => true,
            (Some(trust), Some(before)) => trust.takes_all_of(before),
            // Who was not asked may be anybody; and who was, was judged by something that is gone.
            _ => false,
        };
        is_trusted
            && (!self.is_certificate_required || before.is_certificate_required)
            && self.versions == before.versions
            && self.tls12_suites == before.tls12_suites
            && self.key_exchanges == before.key_exchanges
            && self.alpn == before.alpn
    }
}

/// What carries the bytes of a cluster's connections (Envoy: `transport_socket`, `transport_socket_matches`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transports {
    /// For endpoints that nothing in `matches` is for; `None` is plain TCP.
    pub default: Option<Arc<UpstreamTls>>,
    /// The first that is for an endpoint decides.
    pub matches: Vec<TransportMatch>,
}

/// A way to carry bytes, and the endpoints that it is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransportMatch {
    /// Labels that an endpoint must have; none: every endpoint.
    pub labels: Vec<Label>,
    /// `None` is plain TCP.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// A key and its value, in the metadata of an endpoint (Envoy: below `envoy.transport_socket_match`).
pub type Label = (Box<str>, Box<str>);

impl Transports {
    /// What carries the bytes to an endpoint with these labels.
    pub fn of(&self, labels: &[Label]) -> Option<&Arc<UpstreamTls>> {
        let is_for = |of: &&TransportMatch| of.labels.iter().all(|wanted| labels.contains(wanted));
        match self.matches.iter().find(is_for) {
            Some(found) => found.tls.as_ref(),
            None => self.default.as_ref(),
        }
    }

    /// Names of the secrets that any of them needs.
    pub fn secret_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.all().flat_map(|tls| tls.common.secret_names())
    }

    /// Every way that has TLS.
    pub fn all(&self) -> impl Iterator<Item = &Arc<UpstreamTls>> {
        self.default.iter().chain(self.matches.iter().filter_map(|of| of.tls.as_ref()))
    }
}

/// What comes on its own, by name (Envoy: `Secret`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Secret {
    /// A certificate with its key.
    Certificate(Arc<CertificateChain>),
    /// Whom to trust.
    Trust(Arc<TrustBundle>),
}

impl CommonTls {
    /// Names of the secrets that it needs.
    pub fn secret_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let certificates = self.certificates.iter().filter_map(|source| match source {
            Source::Named(name) => Some(name),
            Source::Inline(_) => None,
        });
        certificates.chain(self.validation.iter().filter_map(|validation| validation.named.as_ref()))
    }
}

impl TrustBundle {
    /// This one with another laid over it, as Envoy merges its messages: what there can be several of is added, and what
    /// there is one of gives way to the other's. `trusted_ca` is one, whatever number of certificates is in it.
    pub fn under(&self, other: &TrustBundle) -> TrustBundle {
        TrustBundle {
            anchors: if other.anchors.is_empty() { &self.anchors } else { &other.anchors }.clone(),
            names: [&self.names[..], &other.names].concat(),
            accepts_untrusted: self.accepts_untrusted || other.accepts_untrusted,
            fingerprints: [&self.fingerprints[..], &other.fingerprints].concat(),
        }
    }

    /// Whether whoever is taken by `before` is taken by this one, too, and is as much somebody.
    pub fn takes_all_of(&self, before: &TrustBundle) -> bool {
        fn has_all<T: PartialEq>(of: &[T], before: &[T]) -> bool {
            before.iter().all(|one| of.contains(one))
        }
        // None of these takes everything.
        fn is_as_wide<T: PartialEq>(of: &[T], before: &[T]) -> bool {
            of.is_empty() || !before.is_empty() && has_all(of, before)
        }
        // Where there are no anchors at all, other things decide, and an anchor takes less.
        let vouches = self.anchors.is_empty() == before.anchors.is_empty();
        self == before
            || vouches
                && has_all(&self.anchors, &before.anchors)
                && is_as_wide(&self.names, &before.names)
                && is_as_wide(&self.fingerprints, &before.fingerprints)
                && (self.accepts_untrusted || !before.accepts_untrusted)
    }

    /// Whether one of the names is what must be.
    pub fn takes(&self, peer: &Peer) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted.matches(peer))
    }
}

impl NameMatch {
    fn matches(&self, peer: &Peer) -> bool {
        let names = match self.kind {
            NameKind::Uri => &peer.uri_sans,
            NameKind::Dns => &peer.dns_sans,
        };
        names.iter().any(|name| match (&self.pattern, self.kind) {
            (NamePattern::Exact(wanted), NameKind::Uri) => name == wanted,
            (NamePattern::Exact(wanted), NameKind::Dns) => is_dns_name(name, wanted),
            (NamePattern::Prefix(wanted), _) => name.starts_with(&**wanted),
        })
    }
}

/// Whether a certificate's DNS name stands for `wanted`.
pub fn is_dns_name(name: &str, wanted: &str) -> bool {
    let has_label = |wanted: &&str| wanted.split_once('.').is_some_and(|(label, _)| !label.is_empty());
    match name.strip_prefix("*.") {
        None => name.eq_ignore_ascii_case(wanted),
        Some(parent) => Some(wanted)
            .filter(has_label)
            .and_then(|wanted| wanted.split_once('.'))
            .is_some_and(|(_, rest)| rest.contains('.') && rest.eq_ignore_ascii_case(parent)),
    }
}

#[cfg(test)]
mod tests;
