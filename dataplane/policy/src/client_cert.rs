//! What upstream is told of the certificate of who called: `x-forwarded-client-cert`, as Envoy writes it.
//!
//! The header is an identity: one that comes from whom we do not know is never passed on, unless the configuration says that
//! nobody else can reach us. What a certificate says is a stranger's word; nothing of it can end a part, an element or a line.

use alloc::vec::Vec;

use crate::peer::Peer;

/// The name of the header.
pub const FORWARDED_CLIENT_CERT: &[u8] = b"x-forwarded-client-cert";

/// What becomes of the header (Envoy: `forward_client_cert_details`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ForwardClientCert {
    /// It is taken off.
    #[default]
    Sanitize,
    /// It is passed on where the client has shown a certificate.
    ForwardOnly,
    /// The same, with the client's own behind it.
    AppendForward,
    /// The client's own takes its place, where it has shown a certificate.
    SanitizeSet,
    /// It is passed on, whoever it came from.
    AlwaysForwardOnly,
}

/// What is told beside our own name and the hash (Envoy: `set_current_client_cert_details`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClientCertDetails {
    /// The subject.
    pub subject: bool,
    /// The URI names.
    pub uri: bool,
    /// The DNS names.
    pub dns: bool,
}

impl ForwardClientCert {
    /// Whether what came is passed on; `peer` is who called, if that is known.
    pub fn passes_on(self, peer: Option<&Peer>) -> bool {
        match self {
            ForwardClientCert::Sanitize | ForwardClientCert::SanitizeSet => false,
            ForwardClientCert::ForwardOnly | ForwardClientCert::AppendForward => peer.is_some(),
            ForwardClientCert::AlwaysForwardOnly => true,
        }
    }

    /// Whether who called is told.
    pub fn tells(self) -> bool {
        matches!(self, ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet)
    }
}

impl ClientCertDetails {
    /// Appends the element of a caller. `own` is the URI name of the certificate that we have shown.
    pub fn write(&self, peer: &Peer, own: Option<&str>, out: &mut Vec<u8>) {
        if let Some(own) = own {
            out.extend_from_slice(b"By=");
            escape(own, out);
            out.push(b';');
        }
        out.extend_from_slice(b"Hash=");
        for byte in peer.fingerprint {
            out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
        }
        if self.subject {
            out.extend_from_slice(b";Subject=\"");
            escape(&peer.subject, out);
            out.push(b'"');
        }
        let names = [(self.uri, &b";URI="[..], &peer.uri_sans), (self.dns, b";DNS=", &peer.dns_sans)];
        for (_, key, names) in names.into_iter().filter(|(is_told, ..)| *is_told) {
            for name in names {
                out.extend_from_slice(key);
                escape(name, out);
            }
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends text with what has a meaning in the header, or none in any, as `%` and two digits.
fn escape(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b',' | b';' | b'\\' | 0..=b' ' | 0x7f.. => {
                out.push(b'%');
                out.extend([byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]));
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{boxed::Box, format, string::String};

    use super::*;

    fn peer() -> Peer {
        Peer {
            uri_sans: [Box::from("spiffe://m/ns/a/sa/web")].into(),
            dns_sans: [Box::from("a"), Box::from("b")].into(),
            subject: "CN=web".into(),
            fingerprint: [0xab; 32],
            ..Peer::default()
        }
    }

    fn written(details: ClientCertDetails, peer: &Peer, own: Option<&str>) -> String {
        let mut out = Vec::new();
        details.write(peer, own, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_element_tells_what_is_asked_for() {
        let hash = "ab".repeat(32);
        let all = ClientCertDetails { subject: true, uri: true, dns: true };
        assert_eq!(written(ClientCertDetails::default(), &peer(), None), format!("Hash={hash}"));
        assert_eq!(
            written(all, &peer(), Some("spiffe://m/ns/a/sa/pay")),
            format!(
                "By=spiffe://m/ns/a/sa/pay;Hash={hash};Subject=\"CN=web\";URI=spiffe://m/ns/a/sa/web;DNS=a;DNS=b"
            )
        );
    }

    #[test]
    fn nothing_in_a_certificate_ends_a_part_or_a_line() {
        let hostile = Peer {
            dns_sans: [Box::from("a;URI=spiffe://m/admin,By=x\r\nx-admin: yes")].into(),
            subject: "CN=\"a\\\u{e9}".into(),
            ..peer()
        };
        let details = ClientCertDetails { subject: true, uri: false, dns: true };
        let written = written(details, &hostile, None);
        assert!(written.ends_with(
            "Subject=\"CN=%22a%5c%c3%a9\";DNS=a%3bURI=spiffe://m/admin%2cBy=x%0d%0ax-admin:%20yes"
        ));
    }

    #[test]
    fn what_came_is_passed_on_from_whom_is_known() {
        use ForwardClientCert::*;
        let peer = peer();
        for (forward, known, unknown, tells) in [
            (Sanitize, false, false, false),
            (ForwardOnly, true, false, false),
            (AppendForward, true, false, true),
            (SanitizeSet, false, false, true),
            (AlwaysForwardOnly, true, true, false),
        ] {
            let passes = (forward.passes_on(Some(&peer)), forward.passes_on(None), forward.tells());
            assert_eq!(passes, (known, unknown, tells), "{forward:?}");
        }
    }
}
