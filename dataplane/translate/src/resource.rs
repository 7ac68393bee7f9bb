//! One resource as it came from a control plane: decoded, checked to be what it says, translated.

use std::sync::Arc;

use prost::Message;
use proto::{
    ads,
    pb::envoy::{
        config::{
            cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret,
    },
    type_url,
};

use crate::{
    Origin, Rejected,
    assemble::{Accepted, Update},
    cluster, endpoint, listener,
    reject::{At, Reason},
    route, taken, tls,
};

/// Translates a resource of a response of `type_url` to the update it is. A resource without a body is none.
pub fn resource(type_url: &str, resource: &ads::Resource) -> Result<Update, Rejected> {
    let reject = |reason| At::ROOT.fault(reason).of(&resource.name);
    let Some(body) = &resource.resource else { return Err(reject(Reason::Missing)) };
    if body.type_url != type_url {
        return Err(reject(Reason::Type { type_url: body.type_url.clone() }));
    }
    match type_url {
        type_url::LISTENER => {
            let value: Listener = decode(resource, body)?;
            let translated = listener::translate(&value, Origin::Dynamic)?;
            Ok(Update::Listener(accepted(resource, &value.name, translated)?))
        }
        type_url::ROUTE_CONFIGURATION => {
            let (value, taken) =
                taken::decode::<RouteConfiguration>(&body.value, taken::IN_ROUTE_CONFIGURATION)
                    .map_err(|_| undecodable(resource, body))?;
            let translated = route::table(&value, &taken, Origin::Dynamic, &At::ROOT)
                .map_err(|fault| fault.of(&value.name))?;
            Ok(Update::RouteTable(accepted(resource, &value.name, translated)?))
        }
        type_url::CLUSTER => {
            let value: Cluster = decode(resource, body)?;
            let translated = cluster::translate(&value, Origin::Dynamic)?;
            Ok(Update::Cluster(accepted(resource, &value.name, translated)?))
        }
        type_url::SECRET => {
            let value: Secret = decode(resource, body)?;
            let translated = tls::secret(&value)?;
            Ok(Update::Secret(accepted(resource, &value.name, translated)?))
        }
        type_url::CLUSTER_LOAD_ASSIGNMENT => {
            let value: ClusterLoadAssignment = decode(resource, body)?;
            let translated = endpoint::translate(&value)?;
            Ok(Update::Assignment(accepted(resource, &value.cluster_name, translated)?))
        }
        _ => Err(reject(Reason::Type { type_url: body.type_url.clone() })),
    }
}

fn decode<M: Message + Default>(resource: &ads::Resource, body: &ads::Any) -> Result<M, Rejected> {
    M::decode(body.value.clone()).map_err(|_| undecodable(resource, body))
}

fn undecodable(resource: &ads::Resource, body: &ads::Any) -> Rejected {
    let reason = Reason::Undecodable { type_url: body.type_url.clone() };
    At::ROOT.fault(reason).of(&resource.name)
}

/// `name` is what the message calls itself. The envelope's name is what was subscribed to; servers may leave it out.
fn accepted<T>(resource: &ads::Resource, name: &str, value: T) -> Result<Accepted<T>, Rejected> {
    if !resource.name.is_empty() && resource.name != name {
        let reason = Reason::Name { name: name.to_owned() };
        return Err(At::ROOT.fault(reason).of(&resource.name));
    }
    Ok(Accepted {
        name: name.into(),
        version: resource.version.as_str().into(),
        origin: Origin::Dynamic,
        value: Arc::new(value),
    })
}
