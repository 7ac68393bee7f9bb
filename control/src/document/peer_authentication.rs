//! PeerAuthentication, a kind of our own: how others must reach the workloads of a Service. The word, and those of its modes,
//! are Istio's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AuthorizationTarget;

/// How others must reach the workloads of a Service, or of the whole namespace. Without one it is by the mesh's mutual TLS
/// and by nothing else. What names a Service wins over what holds for its namespace; of several that name the same, the
/// strictest holds.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthenticationSpec {
    /// Whose callers it is about.
    pub target_refs: Vec<AuthorizationTarget>,
    /// What callers must show.
    pub mtls: PeerMtls,
}

/// What callers must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PeerMtls {
    /// Whether there is a way in for those who are not in the mesh yet.
    pub mode: MtlsMode,
}

/// How callers are taken, the laxer first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
pub enum MtlsMode {
    /// By mutual TLS of the mesh, and as they are: in plain text, or in TLS that the application ends itself. Who comes so is
    /// nobody: rules of AuthorizationPolicies that allow identities do not allow it, and those that deny identities deny it.
    Permissive,
    /// By mutual TLS of the mesh alone.
    Strict,
}
