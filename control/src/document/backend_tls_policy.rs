//! BackendTLSPolicy of Gateway API v1.6: how a Service is spoken to that speaks TLS itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::absent_if_null;

/// How to speak TLS to a Service, and how to know that it is the right one. Endpoints before which a proxy of the mesh is are
/// spoken to as the mesh does.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTlsPolicySpec {
    /// The Services, or their ports. Of two policies for one the older holds, and one that names the port before one that does
    /// not.
    pub target_refs: Vec<BackendTlsTarget>,
    /// What its certificate must be.
    pub validation: BackendTlsValidation,
    /// Options of implementations; there are none, so a policy with one does not hold, and nobody speaks to its Services.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub options: BTreeMap<String, String>,
}

/// A Service of the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTlsTarget {
    /// API group: empty, which is that of Services.
    pub group: String,
    /// `Service`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Name of the port; every port if absent.
    pub section_name: Option<String>,
}

/// What the certificate of a Service must be.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTlsValidation {
    /// Who vouches for it: ConfigMaps with `ca.crt` of the policy's namespace.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub ca_certificate_refs: Vec<LocalObjectRef>,
    /// `System`, whom the system believes, instead; not yet, so such a policy does not hold.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<String>,
    /// The host that is asked for (SNI), and that the certificate must be for if there are no `subjectAltNames`.
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// Names an object of the same namespace.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalObjectRef {
    /// API group; empty for Kubernetes' core kinds.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum SubjectAltName {
    /// A DNS name.
    Hostname {
        /// The name.
        hostname: String,
    },
    /// A URI, as SPIFFE identities are.
    #[serde(rename = "URI")]
    Uri {
        /// The URI.
        uri: String,
    },
}
