//! What Kubernetes' API server would check of a BackendTLSPolicy.

use super::{Verdict, bound, check, hostname};
use crate::document::{BackendTlsPolicySpec, SubjectAltName};

/// Most targets of one policy, as Gateway API bounds it.
const TARGETS_MAX: usize = 16;
/// Most authorities, as Gateway API bounds it.
const AUTHORITIES_MAX: usize = 8;
/// Most names, as Gateway API bounds it.
const NAMES_MAX: usize = 5;

pub(super) fn policy(spec: &BackendTlsPolicySpec) -> Verdict {
    bound(spec.target_refs.len(), TARGETS_MAX, "spec.targetRefs")?;
    check(!spec.target_refs.is_empty(), "spec.targetRefs", || "a policy is about something".to_owned())?;
    for (i, target) in spec.target_refs.iter().enumerate() {
        check(target.kind == "Service" && target.group.is_empty(), &format!("spec.targetRefs[{i}]"), || {
            format!("a target of kind {} speaks no TLS that is known here", target.kind)
        })?;
    }
    let validation = &spec.validation;
    let at = "spec.validation.caCertificateRefs";
    bound(validation.ca_certificate_refs.len(), AUTHORITIES_MAX, at)?;
    let by_refs = !validation.ca_certificate_refs.is_empty();
    check(by_refs != validation.well_known_ca_certificates.is_some(), at, || {
        "either caCertificateRefs or wellKnownCACertificates says who vouches".to_owned()
    })?;
    let at = "spec.validation.hostname";
    check(!validation.hostname.contains('*'), at, || "one host is asked for".to_owned())?;
    hostname(&validation.hostname, at)?;
    bound(validation.subject_alt_names.len(), NAMES_MAX, "spec.validation.subjectAltNames")?;
    for (i, name) in validation.subject_alt_names.iter().enumerate() {
        let at = format!("spec.validation.subjectAltNames[{i}]");
        match name {
            SubjectAltName::Hostname { hostname: name } => hostname(name, &format!("{at}.hostname"))?,
            SubjectAltName::Uri { uri } => {
                let has_scheme =
                    uri.split_once(':').is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty());
                check(has_scheme, &format!("{at}.uri"), || format!("`{uri}` is no URI"))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_who_vouches_for_which_host() {
        let good = "targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a.example, \
                    caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]}";
        let cases = [
            (good.to_owned(), Ok(())),
            (good.replace("kind: Service", "kind: Pod"), Err("spec.targetRefs[0]")),
            (
                good.replace(
                    "caCertificateRefs: [{group: '', kind: ConfigMap, name: a}]",
                    "caCertificateRefs: []",
                ),
                Err("spec.validation.caCertificateRefs"),
            ),
            (
                good.replace("hostname: a.example,", "hostname: a.example, wellKnownCACertificates: System,"),
                Err("spec.validation.caCertificateRefs"),
            ),
            (good.replace("hostname: a.example", "hostname: '*.example'"), Err("spec.validation.hostname")),
            (good.replace("hostname: a.example", "hostname: 'a_b'"), Err("spec.validation.hostname")),
            (
                good.replace(
                    "hostname: a.example",
                    "hostname: a.example, subjectAltNames: [{type: URI, uri: abc}]",
                ),
                Err("spec.validation.subjectAltNames[0].uri"),
            ),
            (
                good.replace(
                    "hostname: a.example",
                    "hostname: a.example, subjectAltNames: [{type: Hostname, hostname: a.b}]",
                ),
                Ok(()),
            ),
        ];
        for (text, expected) in cases {
            let said = policy(&serde_saphyr::from_str(&format!("{{{text}}}")).unwrap());
            assert_eq!(said.map_err(|wrong| wrong.path), expected.map_err(str::to_owned), "{text}");
        }
    }
}
