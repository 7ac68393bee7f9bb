//! What became of each document, in the shape Kubernetes shows it: the value of `status`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::document::{Metadata, ObjectKey};

/// The name by which Gateway API knows who wrote a status; also the controller of the GatewayClasses we serve.
pub const CONTROLLER: &str = "ringway.io/gateway";

/// What became of each document and registration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    /// The value of `status` per object, as Gateway API defines it for the kind. Kinds for which it defines none
    /// have `conditions` alone.
    pub objects: BTreeMap<ObjectKey, Value>,
    /// Why a registration is not used, by its instance.
    pub refused_registrations: BTreeMap<String, String>,
}

impl Conditions {
    /// Sets `lastTransitionTime` of every condition: that of `previous` where the status is still the same, `now`
    /// where it is not. Building a model knows no time, so that replicas agree.
    pub fn stamp(&mut self, previous: &Self, now: Timestamp) {
        let now = Value::String(now.to_string());
        for (key, status) in &mut self.objects {
            stamp(status, previous.objects.get(key).unwrap_or(&Value::Null), &now);
        }
    }
}

/// Conditions are in lists called `conditions`, at the root and in the entries of `parents`, `listeners` and `ancestors`.
fn stamp(status: &mut Value, previous: &Value, now: &Value) {
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        for condition in conditions {
            let before = previous["conditions"].as_array().into_iter().flatten().find(|before| {
                before["type"] == condition["type"] && before["status"] == condition["status"]
            });
            let since = before.map_or(now, |before| &before["lastTransitionTime"]);
            condition["lastTransitionTime"] = since.clone();
        }
    }
    for (list, names) in [("parents", "parentRef"), ("listeners", "name"), ("ancestors", "ancestorRef")] {
        for entry in status.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let before = previous[list].as_array().into_iter().flatten().find(|b| b[names] == entry[names]);
            stamp(entry, &before.cloned().unwrap_or_default(), now);
        }
    }
}

/// One condition of an object, a listener, or a route at a parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`…
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it holds.
    #[serde(serialize_with = "as_word")]
    pub status: bool,
    /// Why, in one word of Gateway API's.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
    /// `metadata.generation` of the object this was said of, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serialize_with gives a reference")]
fn as_word<S: serde::Serializer>(holds: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *holds { "True" } else { "False" })
}

/// Says the conditions of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say {
    generation: Option<i64>,
}

impl Say {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { generation: metadata.generation }
    }

    pub(crate) fn yes(self, kind: &'static str, reason: &'static str, message: &str) -> Condition {
        let message = message.to_owned();
        Condition { kind, status: true, reason, message, observed_generation: self.generation }
    }

    pub(crate) fn no(self, kind: &'static str, reason: &'static str, message: String) -> Condition {
        Condition { kind, status: false, reason, message, observed_generation: self.generation }
    }
}

/// A status that is conditions alone.
pub(crate) fn status(conditions: &[Condition]) -> Value {
    json!({ "conditions": conditions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_as_long_as_its_status_is_the_same() {
        let key = ObjectKey { group: "g".into(), kind: "k".into(), namespace: "n".into(), name: "a".into() };
        let conditions = |accepted: bool, attached: bool| {
            let say = Say { generation: None };
            let condition = |kind, holds| match holds {
                true => say.yes(kind, "Yes", ""),
                false => say.no(kind, "No", String::new()),
            };
            let status = json!({
                "conditions": [condition("Accepted", accepted)],
                "listeners": [{ "name": "http", "conditions": [condition("Programmed", attached)] }],
            });
            Conditions { objects: BTreeMap::from([(key.clone(), status)]), ..Conditions::default() }
        };
        let time = |second| Timestamp::from_second(second).unwrap();
        let mut first = conditions(true, true);
        first.stamp(&Conditions::default(), time(1));
        let mut second = conditions(true, false);
        second.stamp(&first, time(2));
        let status = &second.objects[&key];
        assert_eq!(status["conditions"][0]["lastTransitionTime"], time(1).to_string());
        assert_eq!(status["listeners"][0]["conditions"][0]["lastTransitionTime"], time(2).to_string());
        assert_eq!(status["listeners"][0]["conditions"][0]["status"], "False");
    }
}
