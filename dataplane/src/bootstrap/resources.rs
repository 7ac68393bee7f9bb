//! The static resources of the file.

use std::{collections::BTreeSet, sync::Arc};

use policy::cluster::Discovery;
use proto::pb::envoy::{
    config::{bootstrap::v3::bootstrap::StaticResources, cluster::v3::Cluster, listener::v3::Listener},
    extensions::transport_sockets::tls::v3::Secret,
};
use translate::{
    Fault, Origin,
    assemble::{Accepted, Update},
};

use super::Wrong;
use crate::xds::Kind;

/// All of them but `carrier`, the cluster that carries the connection to the control plane.
pub(super) fn read(resources: &StaticResources, carrier: Option<&str>) -> Result<Vec<Update>, Wrong> {
    let mut updates = secrets(&resources.secrets)?;
    updates.extend(clusters(&resources.clusters, carrier)?);
    updates.extend(listeners(&resources.listeners)?);
    Ok(updates)
}

/// The kinds of what they refer to by name and is not here.
pub(super) fn needed(updates: &[Update]) -> Vec<Kind> {
    let any = |needs: &dyn Fn(&Update) -> bool| updates.iter().any(needs);
    let needs = [
        (Kind::Endpoints, any(&needs_endpoints)),
        (Kind::RouteTable, any(&needs_route_tables)),
        (Kind::Secret, any(&|update| needs_secrets(update, updates))),
    ];
    needs.into_iter().filter_map(|(kind, is_needed)| is_needed.then_some(kind)).collect()
}

/// Whether it names a secret that is not in the file.
fn needs_secrets(update: &Update, all: &[Update]) -> bool {
    let wanted = match update {
        Update::Listener(listener) => &listener.value.secrets,
        Update::Cluster(cluster) => &cluster.value.secrets,
        _ => return false,
    };
    let is_here = |name: &Arc<str>| {
        all.iter().any(|update| matches!(update, Update::Secret(secret) if secret.name == *name))
    };
    !wanted.keys().all(is_here)
}

fn needs_endpoints(update: &Update) -> bool {
    matches!(update, Update::Cluster(cluster) if matches!(cluster.value.discovery, Discovery::Eds { .. }))
}

fn needs_route_tables(update: &Update) -> bool {
    matches!(update, Update::Listener(listener) if !listener.value.route_tables.is_empty())
}

fn clusters(clusters: &[Cluster], carrier: Option<&str>) -> Result<Vec<Update>, Wrong> {
    let mut names = BTreeSet::new();
    let mut updates = Vec::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let path = format!("static_resources.clusters[{index}]");
        if !names.insert(cluster.name.as_str()) {
            return Err(Wrong::new(format!("{path}.name"), format!("`{}` is there twice", cluster.name)));
        }
        if Some(cluster.name.as_str()) == carrier {
            continue;
        }
        let value = translate::cluster::translate(cluster, Origin::Static);
        let value = value.map_err(|rejected| below(&path, &rejected.fault))?;
        updates.push(Update::Cluster(accepted(&cluster.name, value)));
    }
    Ok(updates)
}

fn listeners(listeners: &[Listener]) -> Result<Vec<Update>, Wrong> {
    let mut names = BTreeSet::new();
    let mut updates = Vec::new();
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("static_resources.listeners[{index}]");
        let mut listener = listener.clone();
        // Only a control plane needs the name. Envoy makes one up, too.
        if listener.name.is_empty() {
            listener.name = format!("listener_{index}");
        }
        if !names.insert(listener.name.clone()) {
            return Err(Wrong::new(format!("{path}.name"), format!("`{}` is there twice", listener.name)));
        }
        let value = translate::listener::translate(&listener, Origin::Static)
            .map_err(|rejected| below(&path, &rejected.fault))?;
        updates.push(Update::Listener(accepted(&listener.name, value)));
    }
    Ok(updates)
}

fn secrets(secrets: &[Secret]) -> Result<Vec<Update>, Wrong> {
    let mut names = BTreeSet::new();
    let mut updates = Vec::new();
    for (index, secret) in secrets.iter().enumerate() {
        let path = format!("static_resources.secrets[{index}]");
        if !names.insert(secret.name.as_str()) {
            return Err(Wrong::new(format!("{path}.name"), format!("`{}` is there twice", secret.name)));
        }
        let value = translate::tls::secret(secret).map_err(|rejected| below(&path, &rejected.fault))?;
        updates.push(Update::Secret(accepted(&secret.name, value)));
    }
    Ok(updates)
}

fn accepted<T>(name: &str, value: T) -> Accepted<T> {
    Accepted { name: name.into(), version: "".into(), origin: Origin::Static, value: Arc::new(value) }
}

/// A fault of a resource, from the root of the file.
fn below(path: &str, fault: &Fault) -> Wrong {
    let path = if fault.path.is_empty() { path.to_owned() } else { format!("{path}.{}", fault.path) };
    Wrong::new(path, fault.reason.to_string())
}
