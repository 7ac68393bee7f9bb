//! What became of each document, in the shape Kubernetes shows it: the value of `status`.

use std::collections::BTreeMap;

use crate::document::ObjectKey;

/// What became of each document and registration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// The value of `status` per object, as Gateway API defines it for the kind.
    pub objects: BTreeMap<ObjectKey, serde_json::Value>,
    /// Why a registration is not used, by its instance.
    pub refused_registrations: BTreeMap<String, String>,
}
