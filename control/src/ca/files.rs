//! The files of the certificate authority: certificates and keys in PEM, for their user only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::AuthorityError;
use crate::files::{Readers, replace};

const ROOT: &str = "root.pem";
const ROOT_KEY: &str = "root.key";
const INTERMEDIATE: &str = "intermediate.pem";
/// Written last: where it is, all others are.
const INTERMEDIATE_KEY: &str = "intermediate.key";

/// What is in them.
pub(super) struct Files {
    /// In DER.
    pub(super) root: Vec<u8>,
    /// In PEM; it signs intermediates, and is not needed for anything else.
    pub(super) root_key: String,
    /// In DER.
    pub(super) intermediate: Vec<u8>,
    /// It signs.
    pub(super) intermediate_key: KeyPair,
}

/// What is in `folder`; `None` when nothing was ever made.
pub(super) fn read(folder: &Path) -> Result<Option<Files>, AuthorityError> {
    let text = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|source| AuthorityError::File { verb: "read", path, source })
    };
    let intermediate_key = match text(INTERMEDIATE_KEY) {
        Err(AuthorityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        read => read?,
    };
    let wrong = |name: &str, expected| AuthorityError::Content { path: folder.join(name), expected };
    let certificate = |name: &str| {
        let der = CertificateDer::from_pem_slice(text(name)?.as_bytes());
        der.map(|der| der.to_vec()).map_err(|_| wrong(name, "a certificate in PEM"))
    };
    let (root, intermediate) = (certificate(ROOT)?, certificate(INTERMEDIATE)?);
    let key = KeyPair::from_pem(&intermediate_key);
    let intermediate_key = key.map_err(|_| wrong(INTERMEDIATE_KEY, "a private key in PEM"))?;
    if !vouches_for_key(&intermediate, &intermediate_key) {
        return Err(wrong(INTERMEDIATE_KEY, "the key of intermediate.pem"));
    }
    Ok(Some(Files { root, root_key: text(ROOT_KEY)?, intermediate, intermediate_key }))
}

fn vouches_for_key(certificate: &[u8], key: &KeyPair) -> bool {
    use rcgen::PublicKeyData;
    // The public key stands in the certificate as it is in its own encoding.
    let public = key.subject_public_key_info();
    certificate.windows(public.len()).any(|part| part == public)
}

/// Writes all of them.
pub(super) fn write(folder: &Path, files: &Files) -> Result<(), AuthorityError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::File { verb: "write", path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
    let certificate = |der: &[u8]| pem("CERTIFICATE", der);
    let intermediate_key = files.intermediate_key.serialize_pem();
    for (name, text) in [
        (ROOT, &certificate(&files.root)),
        (ROOT_KEY, &files.root_key),
        (INTERMEDIATE, &certificate(&files.intermediate)),
        (INTERMEDIATE_KEY, &intermediate_key),
    ] {
        let path = folder.join(name);
        replace(&path, text.as_bytes(), Readers::Owner).map_err(failed(&path))?;
    }
    Ok(())
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
