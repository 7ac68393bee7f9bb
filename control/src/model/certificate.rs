//! References from listeners to the certificates that they show.

use std::sync::Arc;

use super::backend::Broken;
use super::grant::Grants;
use super::{Certificate, Name};
use crate::document::{Documents, Object, ObjectKey, SecretRef};

/// Everything that decides where references lead.
pub(super) struct Certificates<'a> {
    documents: &'a Documents,
    grants: &'a Grants<'a>,
}

impl<'a> Certificates<'a> {
    pub(super) fn new(documents: &'a Documents, grants: &'a Grants<'a>) -> Self {
        Self { documents, grants }
    }

    /// The certificate that a Gateway in `namespace` means by `reference`.
    pub(super) fn resolve(&self, reference: &SecretRef, namespace: &str) -> Result<Certificate, Broken> {
        let broken = |reason, message| Err(Broken { reason, message });
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        if kind != "Secret" || !reference.group.as_deref().unwrap_or("").is_empty() {
            return broken("InvalidCertificateRef", format!("a certificate of kind {kind} is not known"));
        }
        let own = |written: &&str| !written.is_empty();
        let secret = Name::new(
            reference.namespace.as_deref().filter(own).unwrap_or(namespace),
            reference.name.as_str(),
        );
        // Before anything is said of what is there: without a grant that is nobody's business.
        if !self.grants.allow(("Gateway", namespace), ("Secret", &secret)) {
            let message = format!(
                "no ReferenceGrant in {} lets this Gateway refer to Secret {secret}",
                secret.namespace
            );
            return broken("RefNotPermitted", message);
        }
        let key = ObjectKey {
            group: "".into(),
            kind: "Secret".into(),
            namespace: Arc::clone(&secret.namespace),
            name: Arc::clone(&secret.name),
        };
        let Some(Object::Secret(found)) = self.documents.objects.get(&key).map(|document| &document.object)
        else {
            return broken("InvalidCertificateRef", format!("Secret {secret} does not exist"));
        };
        match found.key_pair() {
            Ok(pair) => Ok(Certificate { secret, pair: pair.clone() }),
            Err(what) => broken("InvalidCertificateRef", format!("Secret {secret} {what}")),
        }
    }
}
