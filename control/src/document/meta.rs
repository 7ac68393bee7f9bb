//! What every document has: the envelope, `metadata`, and fields that we accept and do not use.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_saphyr::Spanned;

/// One document of a kind whose content is its `spec`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Envelope<S> {
    /// API group and version of the kind.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
    /// What became of it; the control plane's to write, so it is not read.
    pub status: Unused,
}

/// Name, namespace, labels and the rest of what Kubernetes keeps about an object.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name, unique among the objects of the kind in the namespace.
    pub name: String,
    /// Namespace; `default` if absent. Kinds without namespaces ignore it.
    pub namespace: Option<String>,
    /// What selectors match.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub labels: BTreeMap<String, String>,
    /// When the object was created. The older of two routes that match equally well wins; objects without it are
    /// all equally old. The file's own time never counts.
    pub creation_timestamp: Option<jiff::Timestamp>,
    /// Counts changes of the object; shown again as `observedGeneration`.
    pub generation: Option<i64>,
    /// Notes of tools.
    pub annotations: Unused,
    /// Kubernetes' own.
    pub uid: Unused,
    /// Kubernetes' own.
    pub resource_version: Unused,
    /// Kubernetes' own.
    pub generate_name: Unused,
    /// Kubernetes' own.
    pub self_link: Unused,
    /// Kubernetes' own.
    pub managed_fields: Unused,
    /// Kubernetes' own.
    pub owner_references: Unused,
    /// Kubernetes' own.
    pub finalizers: Unused,
    /// Kubernetes' own.
    pub deletion_timestamp: Unused,
    /// Kubernetes' own.
    pub deletion_grace_period_seconds: Unused,
}

/// Reads a field whose absence has a meaning. An explicit null, which Kubernetes' own tools write for an empty list,
/// has the same.
pub(super) fn absent_if_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A port: 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port(u16);

impl Port {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        match u16::try_from(number) {
            Ok(port) if port != 0 => Ok(Self(port)),
            _ => Err(serde::de::Error::custom(format!("{number} is not a port, which is 1 to 65535"))),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Port {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Port".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 })
    }
}

/// A field that Kubernetes defines and we do not use: accepted, and listed with the document. An explicit null
/// counts as absent.
pub type Unused = Option<Ignored>;

/// Where a field we do not use was written; its value is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored {
    /// Line of the value, from 1.
    pub line: u32,
    /// Column of the value, from 1.
    pub column: u32,
}

/// Key of the map that stands for an [`Ignored`] when a document is serialized to find its unused fields. No
/// field of Kubernetes can have this name.
const IGNORED: &str = "ringway.io/ignored";

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<IgnoredAny>::deserialize(deserializer)?;
        Ok(Self { line: small(spanned.referenced.line()), column: small(spanned.referenced.column()) })
    }
}

/// Files are bounded far below four thousand million lines.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Serialize for Ignored {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(IGNORED, &[self.line, self.column])?;
        map.end()
    }
}

impl JsonSchema for Ignored {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Ignored".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-ringway-unused": true })
    }
}

/// A field that was written and that we do not use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedField {
    /// From the root of the document: `spec.rules[0].retry`.
    pub path: String,
    /// Where its value starts.
    pub at: Ignored,
}

impl fmt::Display for UnusedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Every field of `document` that was written and is not used, in order of the document's fields.
pub(super) fn unused_fields(document: &impl Serialize) -> Vec<UnusedField> {
    let mut found = Vec::new();
    // Documents are trees of strings, numbers and lists: they always have a JSON form.
    if let Ok(value) = serde_json::to_value(document) {
        collect(&value, "", &mut found);
    }
    found
}

fn collect(value: &serde_json::Value, path: &str, found: &mut Vec<UnusedField>) {
    match value {
        serde_json::Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{path}[{index}]"), found);
            }
        }
        serde_json::Value::Object(fields) => {
            if let Some([line, column]) = fields.get(IGNORED).and_then(|at| at.as_array()).map(Vec::as_slice)
            {
                let number = |value: &serde_json::Value| small(value.as_u64().unwrap_or_default());
                let at = Ignored { line: number(line), column: number(column) };
                found.push(UnusedField { path: path.to_owned(), at });
                return;
            }
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(field, &path, found);
            }
        }
        _ => {}
    }
}

/// Chooses objects by their labels. An empty selector chooses all.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub match_labels: BTreeMap<String, String>,
    /// Further demands, all of which must hold.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One demand on one label.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: LabelOperator,
    /// What it is compared with, for `In` and `NotIn`.
    #[serde(default, deserialize_with = "absent_if_null")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, Serialize, JsonSchema)]
pub enum LabelOperator {
    /// Present with one of the values.
    In,
    /// Absent, or present with another value.
    NotIn,
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is chosen.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed = value.is_some_and(|value| requirement.values.contains(value));
                match requirement.operator {
                    LabelOperator::In => listed,
                    LabelOperator::NotIn => !listed,
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_chooses_by_every_demand_at_once() {
        let labels =
            BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "a".to_owned())]);
        let cases = [
            ("{}", true),
            ("{matchLabels: {app: web}}", true),
            ("{matchLabels: {app: web, tier: b}}", false),
            ("{matchExpressions: [{key: app, operator: In, values: [api, web]}]}", true),
            ("{matchExpressions: [{key: app, operator: NotIn, values: [web]}]}", false),
            ("{matchExpressions: [{key: zone, operator: NotIn, values: [web]}]}", true),
            ("{matchExpressions: [{key: zone, operator: Exists}]}", false),
            ("{matchLabels: {app: web}, matchExpressions: [{key: zone, operator: DoesNotExist}]}", true),
        ];
        for (text, expected) in cases {
            let selector: LabelSelector = serde_saphyr::from_str(text).unwrap();
            assert_eq!(selector.matches(&labels), expected, "{text}");
        }
    }
}
