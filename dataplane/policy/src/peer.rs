//! Who is on the other end of a connection, as its certificate says: data and the grammar of a SPIFFE ID.
//!
//! Faces what a certificate authority signed, which may be another organisation's: everything is checked again here.

use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// What the verified certificate of the other end says of it. Nothing in it is from a certificate that was not verified.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// Its SPIFFE identity, if the certificate is an SVID.
    pub spiffe: Option<SpiffeId>,
    /// Its URI names, in the order of the certificate.
    pub uri_sans: Vec<Box<str>>,
    /// Its DNS names, in the order of the certificate.
    pub dns_sans: Vec<Box<str>>,
    /// Its subject, as RFC 2253 writes it (`CN=web,O=shop`); empty when it has none.
    pub subject: Box<str>,
    /// SHA-256 of the certificate in DER.
    pub fingerprint: [u8; 32],
}

impl Peer {
    /// The names that authorization goes by, best first: every URI name, then every DNS name, then the subject. As Envoy walks
    /// them for `Principal.Authenticated.principal_name`, whose documentation speaks of the first kind alone.
    ///
    /// One difference is on purpose: a DNS name with a `:` or a `/` is none, and could only be meant to be taken for a URI, so
    /// it is left out.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        let dns = self.dns_sans.iter().filter(|name| !name.contains([':', '/']));
        self.uri_sans.iter().chain(dns).map(|name| &**name).chain([&*self.subject])
    }
}

/// Longest SPIFFE ID, in bytes (SPIFFE-ID §2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// Longest trust domain, in bytes (SPIFFE-ID §2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// An identity in a mesh: `spiffe://<trust domain>/<path>`, in the one form in which it may be written, so that two are the
/// same when their text is (SPIFFE-ID §2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Box<str>,
    /// Where the path begins, which is at a `/` or at the end.
    path_at: usize,
}

/// Why a text is no SPIFFE ID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotSpiffe {
    /// It does not begin with `spiffe://`.
    #[error("a SPIFFE ID begins with `spiffe://`")]
    Scheme,
    /// It is longer than [`SPIFFE_ID_BYTES_MAX`], or its trust domain than 255 bytes.
    #[error("too long")]
    TooLong,
    /// The trust domain is empty, or has a character that is none of `a-z`, `0-9`, `.`, `-`, `_`.
    #[error("the trust domain must be lower case letters, digits, dots, dashes and underscores")]
    TrustDomain,
    /// The path has an empty segment, `.`, `..`, or a character that is none of `A-Z`, `a-z`, `0-9`, `.`, `-`, `_`.
    #[error(
        "a path segment must be letters, digits, dots, dashes and underscores, and neither empty nor dots alone"
    )]
    Path,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Reads an ID; nothing is decoded or made lower case, so there is one spelling of each.
    ///
    /// # Errors
    /// When it is none, and why.
    pub fn parse(text: &str) -> Result<SpiffeId, NotSpiffe> {
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(NotSpiffe::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(NotSpiffe::Scheme)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let is_segment = |byte: u8| is_domain(byte) || byte.is_ascii_uppercase();
        if trust_domain.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(NotSpiffe::TooLong);
        }
        if trust_domain.is_empty() || !trust_domain.bytes().all(is_domain) {
            return Err(NotSpiffe::TrustDomain);
        }
        let mut segments = path.split('/').skip(1);
        if !segments.all(|of| !matches!(of, "" | "." | "..") && of.bytes().all(is_segment)) {
            return Err(NotSpiffe::Path);
        }
        Ok(SpiffeId { path_at: SCHEME.len() + trust_domain.len(), text: text.into() })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    pub fn trust_domain(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// What is identified within the trust domain: empty, or with its leading `/`.
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Namespace and service account of a workload of the mesh (`/ns/<namespace>/sa/<name>`).
    pub fn workload(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path().strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::{format, string::String};

    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let long = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - "spiffe://a/".len()));
        let domain = |bytes: usize| format!("spiffe://{}/b", "a".repeat(bytes));
        use NotSpiffe::{Path, Scheme, TooLong, TrustDomain};
        let table: [(String, Result<(), NotSpiffe>); 26] = [
            ("spiffe://mesh.local/ns/shop/sa/web".into(), Ok(())),
            ("spiffe://mesh.local".into(), Ok(())),
            ("spiffe://a_b-c.1/A.b-c_9/..a/...".into(), Ok(())),
            (long(SPIFFE_ID_BYTES_MAX), Ok(())),
            (long(SPIFFE_ID_BYTES_MAX + 1), Err(TooLong)),
            (domain(255), Ok(())),
            (domain(256), Err(TooLong)),
            ("".into(), Err(Scheme)),
            ("SPIFFE://mesh.local/a".into(), Err(Scheme)),
            ("spiffe:/mesh.local/a".into(), Err(Scheme)),
            ("https://mesh.local/a".into(), Err(Scheme)),
            ("spiffe://".into(), Err(TrustDomain)),
            ("spiffe:///a".into(), Err(TrustDomain)),
            ("spiffe://Mesh.local/a".into(), Err(TrustDomain)),
            ("spiffe://mesh.local:80/a".into(), Err(TrustDomain)),
            ("spiffe://u@mesh.local/a".into(), Err(TrustDomain)),
            ("spiffe://mesh.local?a".into(), Err(TrustDomain)),
            ("spiffe://mesh%2elocal/a".into(), Err(TrustDomain)),
            ("spiffe://mesh.local/".into(), Err(Path)),
            ("spiffe://mesh.local/a/".into(), Err(Path)),
            ("spiffe://mesh.local//a".into(), Err(Path)),
            ("spiffe://mesh.local/a/../b".into(), Err(Path)),
            ("spiffe://mesh.local/a/./b".into(), Err(Path)),
            ("spiffe://mesh.local/a%2fb".into(), Err(Path)),
            ("spiffe://mesh.local/a\0".into(), Err(Path)),
            ("spiffe://mesh.local/a#b".into(), Err(Path)),
        ];
        for (text, expected) in table {
            assert_eq!(SpiffeId::parse(&text).map(|_| ()), expected, "{text}");
        }
    }

    #[test]
    fn an_id_is_taken_apart() {
        let parts = |text: &str| {
            let id = SpiffeId::parse(text).unwrap();
            let workload =
                id.workload().map(|(namespace, name)| (String::from(namespace), String::from(name)));
            (String::from(id.trust_domain()), String::from(id.path()), workload)
        };
        let web = Some(("shop".into(), "web".into()));
        assert_eq!(parts("spiffe://m/ns/shop/sa/web"), ("m".into(), "/ns/shop/sa/web".into(), web));
        assert_eq!(parts("spiffe://m"), ("m".into(), "".into(), None));
        for path in ["/host/web", "/ns/shop", "/ns/shop/sa/web/x", "/ns/a/b/sa/web", "/x/ns/shop/sa/web"] {
            assert_eq!(parts(&format!("spiffe://m{path}")).2, None, "{path}");
        }
    }

    #[test]
    fn authorization_goes_by_every_name_of_a_certificate_best_first() {
        let names = |of: &[&str]| of.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
        let peer = |uris: &[&str], dns: &[&str]| Peer {
            uri_sans: names(uris),
            dns_sans: names(dns),
            subject: "CN=c".into(),
            ..Peer::default()
        };
        for (peer, expected) in [
            (peer(&["u", "v"], &["d"]), &["u", "v", "d", "CN=c"][..]),
            (peer(&[], &["d", "e"]), &["d", "e", "CN=c"]),
            (peer(&[], &[]), &["CN=c"]),
            (peer(&["spiffe://m/a"], &["spiffe://m/b", "m/b", "m:b"]), &["spiffe://m/a", "CN=c"]),
            (Peer::default(), &[""]),
        ] {
            assert_eq!(peer.principals().collect::<Vec<_>>(), expected);
        }
    }
}
