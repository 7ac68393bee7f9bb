//! What is served on each port of a Gateway, from its listeners and what is attached to them.

use std::collections::BTreeMap;

use super::{ConnectionsAttached, ListenerDraft};
use crate::model::host::HostPattern;
use crate::model::rule::{Backend, older_first};
use crate::model::virtual_host::{hosts_of, virtual_hosts, virtual_hosts_of};
use crate::model::{GatewayPort, TlsListener, TlsTraffic};

pub(super) fn of(listeners: Vec<ListenerDraft<'_>>) -> BTreeMap<u16, GatewayPort> {
    let mut by_port: BTreeMap<u16, Vec<ListenerDraft<'_>>> = BTreeMap::new();
    for listener in listeners.into_iter().filter(ListenerDraft::is_served) {
        by_port.entry(listener.listener.port.get()).or_default().push(listener);
    }
    let ports = by_port.into_iter();
    ports.filter_map(|(number, listeners)| Some((number, port(listeners)?))).collect()
}

/// What is served by the listeners of one port, which are of one family.
fn port(mut listeners: Vec<ListenerDraft<'_>>) -> Option<GatewayPort> {
    for listener in &mut listeners {
        let attached = &mut listener.connections;
        attached.sort_by(|a, b| older_first(a.created, b.created).then_with(|| a.route.cmp(&b.route)));
    }
    let first = listeners.first_mut()?;
    Some(match first.listener.protocol.as_str() {
        "HTTP" => {
            let attached: Vec<_> = listeners.into_iter().map(|listener| listener.http).collect();
            GatewayPort::Http(virtual_hosts(&attached))
        }
        "TCP" => {
            let oldest = first.connections.drain(..).next();
            GatewayPort::Tcp(oldest.map(|route| route.backends).unwrap_or_default())
        }
        _ => GatewayPort::Tls(tls(&listeners)),
    })
}

fn tls(listeners: &[ListenerDraft<'_>]) -> Vec<TlsListener> {
    let hosts: Vec<_> = listeners.iter().map(|listener| &listener.host).collect();
    let of = |(position, draft): (usize, &ListenerDraft<'_>)| TlsListener {
        name: draft.listener.name.as_str().into(),
        host: draft.host.clone(),
        certificates: draft.certificates.clone(),
        clients: draft.clients.clone(),
        traffic: match draft.listener.protocol.as_str() {
            "HTTPS" => TlsTraffic::Http {
                hosts: virtual_hosts_of(&draft.http, position, &hosts),
                misdirected: hosts
                    .iter()
                    .filter(|host| ***host != draft.host)
                    .map(|host| (*host).clone())
                    .collect(),
            },
            _ => TlsTraffic::Tcp(connections(&draft.connections, position, &hosts)),
        },
    };
    listeners.iter().enumerate().map(of).collect()
}

/// Where connections for each host go. Of two routes for one host the older has it.
fn connections(
    routes: &[ConnectionsAttached],
    position: usize,
    listeners: &[&HostPattern],
) -> Vec<(HostPattern, Vec<Backend>)> {
    let mut patterns = hosts_of(routes.iter().flat_map(|route| &route.hosts), position, listeners);
    if patterns.is_empty() {
        // A listener takes connections even if it can only close them.
        patterns.insert(listeners[position]);
    }
    let backends = |host: &HostPattern| {
        let first = routes.iter().find(|route| route.hosts.contains(host));
        first.map(|route| route.backends.clone()).unwrap_or_default()
    };
    patterns.into_iter().map(|host| (host.clone(), backends(host))).collect()
}
