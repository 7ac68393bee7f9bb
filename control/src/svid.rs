//! The identity in the certificate of another machine, and that of the control plane itself. The certificate was verified before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::peer::{NotSpiffe, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Path of the control plane's own identity. Paths of workloads begin with `/ns/`, those of hosts with `/host/`.
const CONTROL_PLANE: &str = "/control-plane";

/// What an SVID says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Svid {
    /// Whose it is.
    pub(crate) id: SpiffeId,
    /// When it ends.
    pub(crate) not_after: SystemTime,
}

/// Why a certificate is no SVID (X509-SVID §2, §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSvid {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It has no URI name, or several.
    #[error("the certificate has {0} URI names, and an SVID has one")]
    Names(usize),
    /// Its name is no SPIFFE ID.
    #[error("the certificate names no identity: {0}")]
    Name(#[from] NotSpiffe),
}

/// Reads a certificate in DER.
pub(crate) fn read(certificate: &[u8]) -> Result<Svid, NotSvid> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NotSvid::Unreadable)?;
    let names = certificate.subject_alternative_name().map_err(|_| NotSvid::Unreadable)?;
    let names = names.map(|names| &*names.value.general_names).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(NotSvid::Names(uris.len())) };
    let seconds = certificate.validity().not_after.timestamp().try_into().unwrap_or_default();
    let not_after = UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(NotSvid::Unreadable)?;
    Ok(Svid { id: SpiffeId::parse(uri)?, not_after })
}

/// The identity of the control plane of a mesh.
pub(crate) fn control_plane(trust_domain: &str) -> Result<SpiffeId, NotSpiffe> {
    SpiffeId::parse(&format!("spiffe://{trust_domain}{CONTROL_PLANE}"))
}

/// Whether an identity is that of a control plane.
pub(crate) fn is_control_plane(id: &SpiffeId) -> bool {
    id.path() == CONTROL_PLANE
}

/// The identity of a host.
pub(crate) fn host(trust_domain: &str, name: &str) -> Result<SpiffeId, NotSpiffe> {
    SpiffeId::parse(&format!("spiffe://{trust_domain}/host/{name}"))
}

/// The name of the host whose identity this is.
pub(crate) fn host_name(id: &SpiffeId) -> Option<&str> {
    id.path().strip_prefix("/host/")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn an_svid_has_one_name() {
        let with = |names: &[&str]| {
            let mut params = CertificateParams::default();
            params.subject_alt_names =
                names.iter().map(|name| SanType::URI((*name).try_into().unwrap())).collect();
            let key = KeyPair::generate().unwrap();
            read(params.self_signed(&key).unwrap().der()).map(|svid| svid.id.to_string())
        };
        let host = "spiffe://mesh.local/host/vm1";
        assert_eq!(with(&[host]), Ok(host.to_owned()));
        assert_eq!(with(&[]), Err(NotSvid::Names(0)));
        assert_eq!(with(&[host, host]), Err(NotSvid::Names(2)));
        assert_eq!(with(&["http://mesh.local/"]), Err(NotSvid::Name(NotSpiffe::Scheme)));
        assert_eq!(read(b"x"), Err(NotSvid::Unreadable));
    }
}
