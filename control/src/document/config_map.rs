//! ConfigMap of Kubernetes: the authorities that other documents refer to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meta::{Metadata, Unused, absent_if_null};

/// A ConfigMap; one with the key `ca.crt` has certificates of authorities there, in PEM.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMap {
    /// `v1`.
    pub api_version: String,
    /// `ConfigMap`.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// The values.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub data: BTreeMap<String, String>,
    /// Not used.
    pub binary_data: Unused,
    /// Kubernetes' own.
    pub immutable: Unused,
}
