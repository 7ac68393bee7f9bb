//! The built-in certificate authority: a root, an intermediate below it that signs, and X.509 SVIDs of workloads.
//!
//! Nothing of a request is believed but its public key, once the request's signature shows that the caller has the other
//! half: who a certificate is for, and what it may be used for, is said here (SPIFFE X509-SVID §4). Keys are in files that
//! only the user of the control plane may read, and are never shown.

mod current;
mod files;
mod proof;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use current::{AuthoritySource, CurrentAuthority};
use policy::peer::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    string::Ia5String,
};

/// How long the root and the intermediate are good for: until somebody replaces them.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The built-in intermediate is renewed when less than this is left of it.
const INTERMEDIATE_LEFT_MIN: Duration = Duration::from_secs(240 * 24 * 3600);

/// How much earlier a certificate begins than it was made: other machines' clocks are not this one's.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Length of a serial number, in bytes (RFC 5280 §4.1.2.2: at most 20).
pub const SERIAL_BYTES: usize = 16;

/// The trust domain where nobody says another.
pub const TRUST_DOMAIN_DEFAULT: &str = "mesh.local";

/// Shortest life of a certificate of a workload.
pub const SVID_LIFE_MIN: Duration = Duration::from_secs(5);
/// And its life where nobody says another.
pub const SVID_LIFE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// Signs certificates of the workloads of one trust domain.
pub struct Authority {
    trust_domain: String,
    svid_life: Duration,
    /// Whom proxies trust, in DER.
    roots: Vec<Vec<u8>>,
    /// What vouches for a leaf, in DER: the certificate that signs first, and then up to a root, which is not among them.
    above: Vec<Vec<u8>>,
    /// When the certificate that signs ends; nothing it signs is good for longer.
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
}

/// Files of an authority that an organisation has already, all of them PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenFiles {
    /// The certificate that signs, and then those between it and a root, if there are any.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whom proxies trust. Without it the last one in `certificate` is a root.
    pub root: Option<PathBuf>,
}

/// A signed certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// In DER: the leaf, and the intermediate that vouches for it.
    pub chain: Vec<Vec<u8>>,
    /// Serial number of the leaf, big-endian; random, so nobody else's.
    pub serial: [u8; SERIAL_BYTES],
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file cannot be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{path} is not {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A key is not only its user's.
    #[error("others may read or write {path} (mode {mode:03o}); if none of them has, `chmod 600` mends it")]
    Open {
        /// The file of the key.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Key and certificate do not belong together.
    #[error("{key} is not the key of {certificate}")]
    OtherKey {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
    },
    /// The certificate must not sign others.
    #[error("{path} is not a certificate of an authority: {reason}")]
    NotAuthority {
        /// The file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// Nobody says whom to trust.
    #[error("the last certificate of {path} is no root, and no other file names one")]
    NoRoot {
        /// The file.
        path: PathBuf,
    },
    /// Nobody would trust what it signs.
    #[error("what {path} signs is not trusted by {root}: {reason}")]
    Untrusted {
        /// The file of the certificate that signs.
        path: PathBuf,
        /// The file of those who are trusted.
        root: PathBuf,
        /// What a verifier says.
        reason: String,
    },
    /// The trust domain is none.
    #[error("the trust domain {0:?} must be lower case letters, digits, dots, dashes and underscores")]
    TrustDomain(String),
    /// No certificate can be made.
    #[error("cannot make the certificate authority")]
    Make(#[from] rcgen::Error),
}

/// Why a request is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// It is no request, its key is of a kind that is not taken, or its signature is wrong.
    #[error("the certificate request cannot be used: {0}")]
    Request(rcgen::Error),
    /// It asks for an identity that is another authority's.
    #[error("{id} is not of the trust domain {trust_domain}")]
    TrustDomain {
        /// The identity.
        id: SpiffeId,
        /// The trust domain that is ours.
        trust_domain: String,
    },
    /// What it would sign, nobody would believe.
    #[error("the certificate that signs has ended, or is about to")]
    Ended,
    /// The certificate cannot be made.
    #[error("cannot sign")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// The authority whose files are under `data_dir`; they are made if there are none.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be: nothing is made anew in its place.
    pub fn open(
        data_dir: &Path,
        trust_domain: &str,
        svid_life: Duration,
    ) -> Result<Authority, AuthorityError> {
        check_trust_domain(trust_domain)?;
        let (folder, now) = (data_dir.join("ca"), SystemTime::now());
        let files = match files::read(&folder)? {
            Some(files) => renewed_in_time(&folder, files, trust_domain, now)?,
            None => {
                let made = make(trust_domain, now)?;
                files::write(&folder, &made)?;
                made
            }
        };
        let paths = files::paths(&folder);
        let given = files::Given { above: vec![files.intermediate], roots: vec![files.root] };
        Authority::of(given, files.intermediate_key, &paths, trust_domain, svid_life)
    }

    /// An authority that an organisation has already.
    ///
    /// # Errors
    /// When a file cannot be read, they do not belong together, or nobody would trust what is signed.
    pub fn given(
        files: &GivenFiles,
        trust_domain: &str,
        svid_life: Duration,
    ) -> Result<Authority, AuthorityError> {
        check_trust_domain(trust_domain)?;
        let (given, key) = files::read_given(files)?;
        Authority::of(given, key, files, trust_domain, svid_life)
    }

    fn of(
        files::Given { above, roots }: files::Given,
        key: KeyPair,
        paths: &GivenFiles,
        trust_domain: &str,
        svid_life: Duration,
    ) -> Result<Authority, AuthorityError> {
        let signing = above.first().or(roots.first()).map_or(&[][..], Vec::as_slice);
        let not_after = proof::may_sign(signing)
            .map_err(|reason| AuthorityError::NotAuthority { path: paths.certificate.clone(), reason })?;
        let issuer = Issuer::from_ca_cert_der(&signing.into(), key)?;
        let trust_domain = trust_domain.to_owned();
        let svid_life = svid_life.max(SVID_LIFE_MIN);
        let authority = Authority { trust_domain, svid_life, roots, above, not_after, issuer };
        // Found out now rather than by every proxy of the mesh.
        proof::is_trusted(&authority).map_err(|reason| AuthorityError::Untrusted {
            path: paths.certificate.clone(),
            root: paths.root.as_ref().unwrap_or(&paths.certificate).clone(),
            reason,
        })?;
        Ok(authority)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// Whom proxies of the mesh trust, in DER.
    pub fn bundle(&self) -> Vec<Vec<u8>> {
        self.roots.clone()
    }

    /// A certificate for the key of a request (PKCS #10 in DER) and the identity `id`, from `now` on.
    ///
    /// # Errors
    /// When the request cannot be used, or the identity is not ours to give.
    pub fn sign(&self, request: &[u8], id: &SpiffeId, now: SystemTime) -> Result<Signed, SignError> {
        if id.trust_domain() != self.trust_domain {
            return Err(SignError::TrustDomain { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        if self.not_after < now + SVID_LIFE_MIN {
            return Err(SignError::Ended);
        }
        let mut request =
            CertificateSigningRequestParams::from_der(&request.into()).map_err(SignError::Request)?;
        let not_after = (now + self.svid_life).min(self.not_after);
        let (serial, not_before) = (serial().map_err(SignError::Sign)?, now - CLOCK_SKEW);
        request.params = workload(id, &serial, not_before, not_after).map_err(SignError::Sign)?;
        let leaf = request.signed_by(&self.issuer).map_err(SignError::Sign)?;
        let chain = std::iter::once(leaf.der().to_vec()).chain(self.above.iter().cloned()).collect();
        Ok(Signed { chain, serial, not_before, not_after })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.trust_domain)
    }
}

fn check_trust_domain(text: &str) -> Result<(), AuthorityError> {
    match SpiffeId::parse(&format!("spiffe://{text}")) {
        Ok(id) if id.path().is_empty() => Ok(()),
        _ => Err(AuthorityError::TrustDomain(text.to_owned())),
    }
}

/// A root, and an intermediate below it.
fn make(trust_domain: &str, now: SystemTime) -> Result<files::Files, rcgen::Error> {
    let root_key = KeyPair::generate()?;
    let root = authority(&format!("Ringway root of {trust_domain}"), now, ROOT_LIFE, None);
    let root_certificate = root.self_signed(&root_key)?;
    let root_der = root_certificate.der().to_vec();
    let root = Issuer::new(root, root_key);
    let intermediate_key = KeyPair::generate()?;
    let intermediate = intermediate(trust_domain, &intermediate_key, &root, now)?;
    Ok(files::Files { root: root_der, root_key: root.key().serialize_pem(), intermediate, intermediate_key })
}

/// The certificate that signs, in DER.
fn intermediate(
    trust_domain: &str,
    key: &KeyPair,
    root: &Issuer<'_, KeyPair>,
    now: SystemTime,
) -> Result<Vec<u8>, rcgen::Error> {
    let name = format!("Ringway intermediate of {trust_domain}");
    let certificate = authority(&name, now, INTERMEDIATE_LIFE, Some(0)).signed_by(key, root)?;
    Ok(certificate.der().to_vec())
}

/// The same files, with an intermediate that has some life before it. Its key stays, so only one file changes, and what it signed
/// is vouched for by the old one and the new one alike.
fn renewed_in_time(
    folder: &Path,
    files: files::Files,
    trust_domain: &str,
    now: SystemTime,
) -> Result<files::Files, AuthorityError> {
    match proof::may_sign(&files.intermediate) {
        Ok(not_after) if not_after < now + INTERMEDIATE_LEFT_MIN => {}
        // What is wrong with it is said where every authority is tried.
        _ => return Ok(files),
    }
    let root = Issuer::from_ca_cert_der(&files.root[..].into(), KeyPair::from_pem(&files.root_key)?)?;
    let intermediate = intermediate(trust_domain, &files.intermediate_key, &root, now)?;
    files::write_intermediate(folder, &intermediate)?;
    tracing::info!("the intermediate of the certificate authority is renewed");
    Ok(files::Files { intermediate, ..files })
}

/// What a certificate of an authority says; `below` is how many others may be between it and a leaf.
fn authority(name: &str, now: SystemTime, life: Duration, below: Option<u8>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(below.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    // A root vouches for itself.
    params.use_authority_key_identifier_extension = below.is_some();
    params
}

/// What the certificate of a workload says: one URI and nothing else that names it, and no more than a handshake needs.
fn workload(
    id: &SpiffeId,
    serial: &[u8],
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str())?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    Ok(params)
}

/// Random bytes, the first of which makes it a positive number (RFC 5280 §4.1.2.2).
fn serial() -> Result<[u8; SERIAL_BYTES], rcgen::Error> {
    let mut serial = [0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| rcgen::Error::RingUnspecified)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

#[cfg(test)]
mod tests;
