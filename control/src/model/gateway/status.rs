//! The conditions of a Gateway and of its listeners.

use serde_json::{Value, json};

use super::{Draft, ListenerDraft, Problem};
use crate::conditions::{Condition, Say};
use crate::document::{FrontendValidationMode, GATEWAY_GROUP};

pub(super) fn of(draft: &Draft<'_>) -> Value {
    let say = Say::of(&draft.document.metadata);
    let served = draft.listeners.iter().filter(|listener| listener.is_served()).count();
    let valid = draft.listeners.iter().filter(|listener| listener.is_valid()).count();
    let unserved: Vec<_> = draft
        .listeners
        .iter()
        .filter(|listener| !listener.is_served())
        .map(|listener| listener.listener.name.as_str())
        .collect();
    let unserved = match unserved.is_empty() {
        true => "a listener is served in part, and says what is wrong".to_owned(),
        false => format!("not served: {}", unserved.join(", ")),
    };
    let accepted = match (served, valid == draft.listeners.len()) {
        _ if draft.wants_parameters() => {
            say.no("Accepted", "InvalidParameters", "there are no parameters for a Gateway".to_owned())
        }
        (0, _) => say.no("Accepted", "ListenersNotValid", unserved),
        (_, true) => say.yes("Accepted", "Accepted", "every listener is valid"),
        (_, false) => say.yes("Accepted", "ListenersNotValid", &unserved),
    };
    let programmed = match served {
        0 => say.no("Programmed", "Invalid", "no listener can be served".to_owned()),
        _ => say.yes("Programmed", "Programmed", "the configuration for its proxies is made"),
    };
    let listeners: Vec<_> = draft.listeners.iter().map(|listener| listener_status(listener, say)).collect();
    let mut conditions = vec![accepted, programmed];
    let is_lax = |draft: &&ListenerDraft<'_>| {
        let clients = draft.clients.as_ref().filter(|_| draft.is_served());
        clients.is_some_and(|clients| clients.mode == FrontendValidationMode::AllowInsecureFallback)
    };
    if let Some(draft) = draft.listeners.iter().find(is_lax) {
        let message = format!(
            "listener {} serves clients that nobody vouches for, and shows it nowhere",
            draft.listener.name
        );
        conditions.push(say.yes("InsecureFrontendValidationMode", "ConfigurationChanged", &message));
    }
    json!({ "conditions": conditions, "listeners": listeners })
}

fn listener_status(draft: &ListenerDraft<'_>, say: Say) -> Value {
    let kinds: Vec<_> = match draft.problem {
        Some(Problem::Protocol) => Vec::new(),
        _ => draft.kinds.iter().map(|kind| json!({ "group": GATEWAY_GROUP, "kind": kind })).collect(),
    };
    json!({
        "name": draft.listener.name,
        "supportedKinds": kinds,
        "attachedRoutes": draft.attached.len(),
        "conditions": listener_conditions(draft, say),
    })
}

fn listener_conditions(draft: &ListenerDraft<'_>, say: Say) -> Vec<Condition> {
    let (accepted, conflicted) = match &draft.problem {
        None | Some(Problem::Gateway) => (
            say.yes("Accepted", "Accepted", "the listener is valid"),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Protocol) => (
            say.no(
                "Accepted",
                "UnsupportedProtocol",
                format!("protocol {} is not served yet", draft.listener.protocol),
            ),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Options(option)) => (
            say.no("Accepted", "UnsupportedValue", format!("the option {option} is not known")),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Authorities) => (
            say.no("Accepted", "NoValidCACertificate", "nobody is left to vouch for clients".to_owned()),
            say.no("Conflicted", "NoConflicts", String::new()),
        ),
        Some(Problem::Conflict { reason, with }) => {
            let message = format!("port {} cannot tell it from listener {with}", draft.listener.port);
            (say.no("Accepted", reason, message.clone()), say.yes("Conflicted", reason, &message))
        }
    };
    let resolved = match (draft.invalid_kinds.is_empty(), draft.broken.first()) {
        (true, None) => {
            say.yes("ResolvedRefs", "ResolvedRefs", "every reference and kind of route is supported")
        }
        (false, _) => say.no(
            "ResolvedRefs",
            "InvalidRouteKinds",
            format!("protocol {} has no {}", draft.listener.protocol, draft.invalid_kinds.join(", ")),
        ),
        (true, Some(first)) => {
            let messages: Vec<_> = draft.broken.iter().map(|broken| broken.message.as_str()).collect();
            say.no("ResolvedRefs", first.reason, messages.join("; "))
        }
    };
    let programmed = match draft.is_served() {
        true => say.yes("Programmed", "Programmed", "the configuration for its proxies is made"),
        false => say.no("Programmed", "Invalid", "the listener is not served".to_owned()),
    };
    vec![accepted, resolved, programmed, conflicted]
}
