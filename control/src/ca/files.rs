//! The files of the certificate authority: certificates and keys in PEM, for their user only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{AuthorityError, GivenFiles, proof};
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

/// What is in the files of an authority, whoever made them; the key is apart, since it is used up.
pub(super) struct Given {
    /// In DER: the certificate that signs, and those between it and a root.
    pub(super) above: Vec<Vec<u8>>,
    /// In DER.
    pub(super) roots: Vec<Vec<u8>>,
}

/// The files in `folder`, for messages.
pub(super) fn paths(folder: &Path) -> GivenFiles {
    let [certificate, key, root] = [INTERMEDIATE, INTERMEDIATE_KEY, ROOT].map(|name| folder.join(name));
    GivenFiles { certificate, key, root: Some(root) }
}

/// What is in the files of somebody else's authority.
pub(super) fn read_given(files: &GivenFiles) -> Result<(Given, KeyPair), AuthorityError> {
    let mut above = certificates(&files.certificate)?;
    let key = KeyPair::from_pem(&text(&files.key)?);
    let key = key.map_err(|_| content(&files.key, "a private key in PEM, and not encrypted"))?;
    if !vouches_for_key(&above[0], &key) {
        return Err(AuthorityError::OtherKey {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
        });
    }
    let roots = match &files.root {
        Some(root) => certificates(root)?,
        None if above.last().is_some_and(|last| proof::is_root(last)) => above.split_off(above.len() - 1),
        None => return Err(AuthorityError::NoRoot { path: files.certificate.clone() }),
    };
    Ok((Given { above, roots }, key))
}

/// At least one certificate.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let text = text(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.ok().filter(|all| !all.is_empty());
    let all = all.ok_or_else(|| content(path, "certificates in PEM"))?;
    Ok(all.iter().map(|der| der.to_vec()).collect())
}

fn text(path: &Path) -> Result<String, AuthorityError> {
    let failed = |source| AuthorityError::File { verb: "read", path: path.to_owned(), source };
    fs::read_to_string(path).map_err(failed)
}

fn content(path: &Path, expected: &'static str) -> AuthorityError {
    AuthorityError::Content { path: path.to_owned(), expected }
}

/// What is in `folder`; `None` when nothing was ever made.
pub(super) fn read(folder: &Path) -> Result<Option<Files>, AuthorityError> {
    let text = |name: &str| text(&folder.join(name));
    let intermediate_key = match text(INTERMEDIATE_KEY) {
        Err(AuthorityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        read => read?,
    };
    for name in [ROOT_KEY, INTERMEDIATE_KEY] {
        is_its_users_own(&folder.join(name))?;
    }
    let wrong = |name: &str, expected| content(&folder.join(name), expected);
    let certificate = |name: &str| {
        let der = CertificateDer::from_pem_slice(text(name)?.as_bytes());
        der.map(|der| der.to_vec()).map_err(|_| wrong(name, "a certificate in PEM"))
    };
    let (root, intermediate) = (certificate(ROOT)?, certificate(INTERMEDIATE)?);
    let key = KeyPair::from_pem(&intermediate_key);
    let intermediate_key = key.map_err(|_| wrong(INTERMEDIATE_KEY, "a private key in PEM"))?;
    if !vouches_for_key(&intermediate, &intermediate_key) {
        let GivenFiles { certificate, key, .. } = paths(folder);
        return Err(AuthorityError::OtherKey { key, certificate });
    }
    Ok(Some(Files { root, root_key: text(ROOT_KEY)?, intermediate, intermediate_key }))
}

/// A key that others could read may be theirs by now.
fn is_its_users_own(path: &Path) -> Result<(), AuthorityError> {
    let failed = |source| AuthorityError::File { verb: "read", path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(AuthorityError::Open { path: path.to_owned(), mode }),
    }
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

/// Replaces the certificate that signs.
pub(super) fn write_intermediate(folder: &Path, certificate: &[u8]) -> Result<(), AuthorityError> {
    let path = folder.join(INTERMEDIATE);
    let text = pem("CERTIFICATE", certificate);
    let written = replace(&path, text.as_bytes(), Readers::Owner);
    written.map_err(|source| AuthorityError::File { verb: "write", path, source })
}

fn pem(label: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(label, der))
}
