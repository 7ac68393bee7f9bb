//! References to authorities: who vouches for the certificates of others.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Name;
use super::backend::Broken;
use super::grant::Grants;
use crate::document::{ConfigMap, Documents, Object, ObjectKey, ObjectRef};

/// The key of a ConfigMap under which they are.
const KEY: &str = "ca.crt";

/// Everything that decides where references lead.
pub(super) struct Authorities<'a> {
    documents: &'a Documents,
    grants: &'a Grants<'a>,
}

impl<'a> Authorities<'a> {
    pub(super) fn new(documents: &'a Documents, grants: &'a Grants<'a>) -> Self {
        Self { documents, grants }
    }

    /// The certificates, in PEM, that a Gateway in `namespace` means by `reference`.
    pub(super) fn resolve(&self, reference: &ObjectRef, namespace: &str) -> Result<&'a str, Broken> {
        let broken = |reason, message| Err(Broken { reason, message });
        let ObjectRef { group, kind, name, namespace: written } = reference;
        if kind != "ConfigMap" || !group.is_empty() {
            return broken("InvalidCACertificateKind", format!("authorities of kind {kind} are not known"));
        }
        let own = |written: &&str| !written.is_empty();
        let map = Name::new(written.as_deref().filter(own).unwrap_or(namespace), name.as_str());
        if !self.grants.allow(("Gateway", namespace), ("ConfigMap", &map)) {
            let message =
                format!("no ReferenceGrant in {} lets this Gateway refer to ConfigMap {map}", map.namespace);
            return broken("RefNotPermitted", message);
        }
        let key = ObjectKey {
            group: "".into(),
            kind: "ConfigMap".into(),
            namespace: Arc::clone(&map.namespace),
            name: Arc::clone(&map.name),
        };
        let Some(Object::ConfigMap(found)) =
            self.documents.objects.get(&key).map(|document| &document.object)
        else {
            return broken("InvalidCACertificateRef", format!("ConfigMap {map} does not exist"));
        };
        read(found).or_else(|what| broken("InvalidCACertificateRef", format!("ConfigMap {map} {what}")))
    }
}

/// The certificates of a ConfigMap, in PEM; otherwise what is wrong with it, said of it.
pub(super) fn read(map: &ConfigMap) -> Result<&str, String> {
    let text = map.data.get(KEY).ok_or_else(|| format!("has no {KEY}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("has a {KEY} that is not PEM: {error}"))?;
        let added = roots.add(certificate);
        added.map_err(|error| format!("has a {KEY} with a certificate that cannot be read: {error}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("has a {KEY} without a certificate in PEM")),
        false => Ok(text),
    }
}
