//! Documents that decide nothing alone: they are accepted, or said not to be served yet.

use serde_json::json;

use super::attach::parent_status;
use super::authorities;
use crate::conditions::{CONTROLLER, Conditions, Say, status};
use crate::document::{Documents, GATEWAY_GROUP, Object, RINGWAY_GROUP};

/// Says the conditions of everything but Gateways, routes, and what services are made of.
pub(super) fn judge(documents: &Documents, conditions: &mut Conditions) {
    for (key, document) in &documents.objects {
        let say = Say::of(document.object.metadata());
        let status = match &document.object {
            Object::GatewayClass(class) if class.spec.controller_name != CONTROLLER => continue,
            Object::GatewayClass(class) => status(&[match class.spec.parameters_ref {
                None => say.yes("Accepted", "Accepted", "Gateways of the class are served"),
                Some(_) => say.no("Accepted", "InvalidParameters", "the class has no parameters".to_owned()),
            }]),
            Object::ReferenceGrant(_) | Object::Namespace(_) => {
                status(&[say.yes("Accepted", "Accepted", "")])
            }
            Object::Secret(secret) => status(&[match secret.key_pair() {
                Ok(_) => say.yes("Accepted", "Accepted", "a certificate that listeners may show"),
                Err(what) => say.no("Accepted", "UnsupportedValue", format!("the Secret {what}")),
            }]),
            Object::ConfigMap(map) => status(&[match authorities::read(map) {
                Ok(_) => say.yes("Accepted", "Accepted", "authorities that listeners may believe"),
                Err(what) => say.no("Accepted", "UnsupportedValue", format!("the ConfigMap {what}")),
            }]),
            Object::NotUsed(object) => {
                let message = match &*key.group {
                    GATEWAY_GROUP | RINGWAY_GROUP => format!("{} is not served yet", key.kind),
                    _ => format!("Ringway does not use documents of kind {}", key.kind),
                };
                let conditions = [say.no("Accepted", "UnsupportedValue", message)];
                match object.spec.parent_refs.is_empty() {
                    true => status(&conditions),
                    false => {
                        let parents =
                            object.spec.parent_refs.iter().map(|parent| parent_status(parent, &conditions));
                        json!({ "parents": parents.collect::<Vec<_>>() })
                    }
                }
            }
            Object::Gateway(_)
            | Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TcpRoute(_)
            | Object::TlsRoute(_)
            | Object::BackendTlsPolicy(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Workload(_)
            | Object::AuthorizationPolicy(_)
            | Object::PeerAuthentication(_) => continue,
        };
        conditions.objects.insert(key.clone(), status);
    }
}
