//! `Listener` with its filter chains and network filters.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use policy::{
    Weighted,
    filter_chain::{FilterChain, FilterChainMatch, FilterChains, TransportProtocol},
    limits,
    network_filter::{ConnectionLimit, NetworkFilter, NetworkRbac, TcpProxy},
    snapshot::{Listener, ListenerFilters},
    tls::DownstreamTls,
};
use proto::pb::envoy::{
    config::listener::v3 as listener,
    extensions::filters::{
        listener::{
            http_inspector::v3::HttpInspector, proxy_protocol::v3 as proxy_protocol,
            tls_inspector::v3::TlsInspector,
        },
        network::{
            connection_limit::v3 as connection_limit,
            http_connection_manager::v3::HttpConnectionManager,
            tcp_proxy::v3::{self as tcp_proxy, UpstreamConnectMode},
        },
    },
};

use wire::proxy_protocol::{Accepted, Version};

use crate::{
    Origin, Referring, Rejected, Wanted, fields, http, rbac,
    reject::{At, Fault, Reason},
    taken, tls, transport_socket, want,
};

/// Those that end a filter chain, and those that may come before.
const NETWORK_FILTERS: &[&str] = &[
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    CONNECTION_LIMIT,
    rbac::NETWORK,
];
const CONNECTION_LIMIT: &str = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
const LISTENER_FILTERS: &[&str] = &[
    "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
];

/// Translates a listener.
pub fn translate(value: &listener::Listener, origin: Origin) -> Result<Referring<Listener>, Rejected> {
    self::listener(value, origin, &At::ROOT).map_err(|fault| fault.of(&value.name))
}

/// Accepted without effect: how sockets are tuned (`enable_reuse_port`, `connection_balance_config`,
/// `tcp_backlog_size`, `tcp_keepalive`, `tcp_fast_open_queue_length`), `drain_type`, `traffic_direction`, `metadata`,
/// `stats_matcher`, and the listener's own `access_log` from a control plane (connections that no filter chain took;
/// telemetry fails open).
pub(crate) fn listener(
    value: &listener::Listener,
    origin: Origin,
    at: &At<'_>,
) -> Result<Referring<Listener>, Fault> {
    let name = fields::name(&value.name, &at.field("name"))?;
    let is_on = |value: &Option<proto::pb::google::protobuf::BoolValue>| value.is_some_and(|on| on.value);
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    at.refuse_all(&[
        ("fcds_config", value.fcds_config.is_some()),
        ("filter_chain_matcher", value.filter_chain_matcher.is_some()),
        ("use_original_dst", is_on(&value.use_original_dst)),
        ("deprecated_v1", value.deprecated_v1.is_some()),
        ("transparent", is_on(&value.transparent)),
        ("freebind", is_on(&value.freebind)),
        ("socket_options", !value.socket_options.is_empty()),
        ("udp_listener_config", value.udp_listener_config.is_some()),
        ("api_listener", value.api_listener.is_some()),
        ("internal_listener", value.listener_specifier.is_some()),
        ("enable_mptcp", value.enable_mptcp),
    ])?;
    let mut addresses = vec![fields::address(value.address.as_ref(), &at.field("address"))?];
    let additional_at = at.field("additional_addresses");
    for (index, additional) in value.additional_addresses.iter().enumerate() {
        let at = additional_at.index(index);
        at.refuse("socket_options", additional.socket_options.is_some())?;
        addresses.push(fields::address(additional.address.as_ref(), &at.field("address"))?);
    }
    let mut translated =
        Chains { origin, clusters: BTreeSet::new(), route_tables: Wanted::new(), secrets: Wanted::new() };
    let chains_at = at.field("filter_chains");
    if value.filter_chains.is_empty() && value.default_filter_chain.is_none() {
        return Err(chains_at.fault(Reason::Missing));
    }
    let chains = value.filter_chains.iter().enumerate();
    let chains = chains
        .map(|(index, of)| translated.chain(of, format!("{name}[{index}]"), &chains_at.index(index)))
        .collect::<Result<Vec<_>, _>>()?;
    let default = match &value.default_filter_chain {
        None => None,
        Some(chain) => {
            let at = at.field("default_filter_chain");
            if chain.filter_chain_match.as_ref().is_some_and(|of| *of != Default::default()) {
                let reason = Reason::Conflict("the default filter chain takes what no other does");
                return Err(at.field("filter_chain_match").fault(reason));
            }
            Some(translated.chain(chain, format!("{name}[default]"), &at)?)
        }
    };
    let listener_filters = listener_filters(value, &chains, at)?;
    let stat_prefix = match &*value.stat_prefix {
        "" => addresses.first().map(ToString::to_string).unwrap_or_default().into(),
        prefix => prefix.into(),
    };
    let filter_chains =
        FilterChains::new(chains, default).map_err(|error| chains_at.fault(Reason::FilterChains(error)))?;
    let listener = Listener {
        name: name.into(),
        addresses,
        bind_to_port: value.bind_to_port.is_none_or(|bind| bind.value),
        unsent_bytes_max: value
            .per_connection_buffer_limit_bytes
            .map_or(limits::UNSENT_BYTES_DEFAULT, |limit| limit.value),
        stat_prefix,
        listener_filters,
        filter_chains,
    };
    let Chains { clusters, route_tables, secrets, .. } = translated;
    Ok(Referring { value: Arc::new(listener), clusters, route_tables, secrets })
}

/// The TLS inspector is on when it is configured, and when a filter chain asks what only it can tell, as in Envoy.
/// Its options tune it or compute fingerprints that nobody reads.
fn listener_filters(
    value: &listener::Listener,
    chains: &[FilterChain],
    at: &At<'_>,
) -> Result<ListenerFilters, Fault> {
    use listener::listener_filter::ConfigType;
    let needs_tls = |of: &FilterChainMatch| {
        !of.server_names.is_empty()
            || !of.application_protocols.is_empty()
            || of.transport_protocol == Some(TransportProtocol::Tls)
    };
    let mut tls_inspector = chains.iter().any(|chain| needs_tls(&chain.matches));
    let mut http_inspector = false;
    let mut proxy_protocol = None;
    let filters_at = at.field("listener_filters");
    for (index, filter) in value.listener_filters.iter().enumerate() {
        let at = filters_at.index(index);
        at.refuse("filter_disabled", filter.filter_disabled.is_some())?;
        let any = match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => return Err(at.field("config_discovery").unsupported()),
            None => return Err(at.field("typed_config").fault(Reason::Missing)),
        };
        let config_at = at.field("typed_config");
        match LISTENER_FILTERS.iter().position(|known| *known == fields::type_name(any)) {
            Some(0) => {
                fields::unpack::<TlsInspector>(any, &config_at)?;
                tls_inspector = true;
            }
            Some(1) => {
                fields::unpack::<HttpInspector>(any, &config_at)?;
                http_inspector = true;
            }
            // Behind another filter it would find what that one did not take for its own.
            Some(_) if index > 0 => {
                let reason =
                    Reason::Conflict("the PROXY protocol header comes first, so its filter must too");
                return Err(at.fault(reason));
            }
            Some(_) => {
                let value = fields::unpack(any, &config_at)?;
                proxy_protocol = Some(proxy_protocol_header(&value, &config_at)?);
            }
            None => return Err(fields::unknown_extension(&any.type_url, LISTENER_FILTERS, &config_at)),
        }
    }
    let timeout_at = at.field("listener_filters_timeout");
    let timeout = value.listener_filters_timeout.as_ref();
    Ok(ListenerFilters {
        proxy_protocol,
        tls_inspector,
        http_inspector,
        timeout: fields::timeout(timeout, Some(limits::LISTENER_FILTERS_TIMEOUT_DEFAULT), &timeout_at)?,
        continue_on_timeout: value.continue_on_listener_filters_timeout,
    })
}

/// Which headers a listener takes. Accepted without effect: `stat_prefix`; one counter per listener tells of the failures.
fn proxy_protocol_header(value: &proxy_protocol::ProxyProtocol, at: &At<'_>) -> Result<Accepted, Fault> {
    at.refuse_all(&[
        ("rules", !value.rules.is_empty()),
        ("pass_through_tlvs", value.pass_through_tlvs.is_some()),
        ("tlv_location", value.tlv_location != 0),
    ])?;
    let mut accepted = Accepted { absent: value.allow_requests_without_proxy_protocol, ..Accepted::ALL };
    let disallowed_at = at.field("disallowed_versions");
    for (index, version) in value.disallowed_versions.iter().enumerate() {
        match transport_socket::proxy_protocol_version(*version, &disallowed_at.index(index))? {
            Version::V1 => accepted.v1 = false,
            Version::V2 => accepted.v2 = false,
        }
    }
    if !accepted.v1 && !accepted.v2 {
        return Err(disallowed_at.fault(Reason::Conflict("no version is left")));
    }
    Ok(accepted)
}

/// Collects what the filter chains of a listener refer to.
struct Chains {
    origin: Origin,
    clusters: BTreeSet<Arc<str>>,
    route_tables: Wanted,
    secrets: Wanted,
}

impl Chains {
    /// Accepted without effect: `metadata`.
    fn chain(
        &mut self,
        value: &listener::FilterChain,
        key: String,
        at: &At<'_>,
    ) -> Result<FilterChain, Fault> {
        #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
        at.refuse("use_proxy_proto", value.use_proxy_proto.is_some_and(|on| on.value))?;
        let tls = self.tls(value, at)?;
        let matches = match &value.filter_chain_match {
            None => FilterChainMatch::default(),
            Some(matches) => chain_match(matches, &at.field("filter_chain_match"))?,
        };
        let filters_at = at.field("filters");
        let (limit, mut at_first) = match value.filters.first() {
            Some(filter) if is_a(filter, CONNECTION_LIMIT) => {
                let limit = connection_limit(filter, key, &filters_at.index(0))?;
                (Some(limit), 1)
            }
            _ => (None, 0),
        };
        let mut rbac = Vec::new();
        while let Some(filter) = value.filters.get(at_first).filter(|of| is_a(of, rbac::NETWORK)) {
            rbac.push(network_rbac(filter, &filters_at.index(at_first))?);
            at_first += 1;
        }
        let filter = match value.filters.get(at_first..).unwrap_or_default() {
            [] => return Err(filters_at.fault(Reason::Missing)),
            [filter] => self.filter(filter, &filters_at.index(at_first))?,
            // Every other supported filter ends its chain, so the first of several is wrong in itself or by its place.
            [first, ..] => {
                let at = filters_at.index(at_first);
                self.filter(first, &at)?;
                return Err(at.fault(Reason::Conflict("this filter must be the last of its chain")));
            }
        };
        let name = value.name.as_str().into();
        Ok(FilterChain { name, matches, connection_limit: limit, rbac: rbac.into(), tls, filter })
    }

    fn tls(
        &mut self,
        value: &listener::FilterChain,
        at: &At<'_>,
    ) -> Result<Option<Arc<DownstreamTls>>, Fault> {
        let timeout_at = at.field("transport_socket_connect_timeout");
        let timeout = value.transport_socket_connect_timeout.as_ref();
        let timeout = fields::timeout(timeout, None, &timeout_at)?;
        let Some(socket) = &value.transport_socket else { return Ok(None) };
        let at = at.field("transport_socket");
        let Some(context) = transport_socket::downstream(socket, &at)? else { return Ok(None) };
        let at = at.field("typed_config");
        Ok(Some(Arc::new(tls::downstream(&context, timeout, &mut self.secrets, &at)?)))
    }

    fn filter(&mut self, value: &listener::Filter, at: &At<'_>) -> Result<NetworkFilter, Fault> {
        use listener::filter::ConfigType;
        let any = match &value.config_type {
            Some(ConfigType::TypedConfig(any)) => any,
            Some(ConfigType::ConfigDiscovery(_)) => return Err(at.field("config_discovery").unsupported()),
            None => return Err(at.field("typed_config").fault(Reason::Missing)),
        };
        let at = at.field("typed_config");
        match NETWORK_FILTERS.iter().position(|known| *known == fields::type_name(any)) {
            Some(0) => {
                let (value, taken) =
                    taken::decode::<HttpConnectionManager>(&any.value, taken::IN_CONNECTION_MANAGER)
                        .map_err(|_| fields::undecodable(any, &at))?;
                let manager = http::connection_manager(&value, &taken, self.origin, &at)?;
                self.clusters.extend(manager.clusters);
                for (name, timeout) in &manager.route_tables {
                    want(&mut self.route_tables, name, *timeout);
                }
                Ok(NetworkFilter::HttpConnectionManager(manager.value))
            }
            Some(1) => {
                let value: tcp_proxy::TcpProxy = fields::unpack(any, &at)?;
                let proxy = tcp_proxy(&value, self.origin, &at)?;
                self.clusters.extend(proxy.clusters.values().cloned());
                Ok(NetworkFilter::TcpProxy(Arc::new(proxy)))
            }
            Some(_) => {
                Err(at
                    .fault(Reason::Conflict("a connection limit comes first, and another filter behind it")))
            }
            None => Err(fields::unknown_extension(&any.type_url, NETWORK_FILTERS, &at)),
        }
    }
}

fn is_a(filter: &listener::Filter, type_name: &str) -> bool {
    use listener::filter::ConfigType;
    matches!(&filter.config_type, Some(ConfigType::TypedConfig(any)) if fields::type_name(any) == type_name)
}

fn network_rbac(filter: &listener::Filter, at: &At<'_>) -> Result<NetworkRbac, Fault> {
    let at = at.field("typed_config");
    let Some(listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(at.fault(Reason::Missing));
    };
    rbac::network_filter(any, &at)
}

fn connection_limit(filter: &listener::Filter, key: String, at: &At<'_>) -> Result<ConnectionLimit, Fault> {
    let at = at.field("typed_config");
    let Some(listener::filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        return Err(at.fault(Reason::Missing));
    };
    let value: connection_limit::ConnectionLimit = fields::unpack(any, &at)?;
    at.refuse("runtime_enabled", value.runtime_enabled.is_some())?;
    let max_at = at.field("max_connections");
    let max = max_at.require(value.max_connections.as_ref())?.value;
    Ok(ConnectionLimit {
        key: key.into(),
        stat_prefix: fields::name(&value.stat_prefix, &at.field("stat_prefix"))?.into(),
        // One at least, as in Envoy.
        connections_max: max_at.require(Some(max).filter(|max| *max > 0))?,
        delay: match &value.delay {
            None => Duration::ZERO,
            Some(delay) => fields::duration(delay, &at.field("delay"))?,
        },
    })
}

fn chain_match(value: &listener::FilterChainMatch, at: &At<'_>) -> Result<FilterChainMatch, Fault> {
    at.refuse_all(&[
        ("prefix_ranges", !value.prefix_ranges.is_empty()),
        ("address_suffix", !value.address_suffix.is_empty()),
        ("suffix_len", value.suffix_len.is_some()),
        ("direct_source_prefix_ranges", !value.direct_source_prefix_ranges.is_empty()),
        ("source_type", value.source_type != 0),
        ("source_prefix_ranges", !value.source_prefix_ranges.is_empty()),
        ("source_ports", !value.source_ports.is_empty()),
    ])?;
    let destination_port = match &value.destination_port {
        None => None,
        Some(port) => {
            Some(fields::between(port.value, 1, u16::MAX.into(), &at.field("destination_port"))? as u16)
        }
    };
    let transport_protocol = match &*value.transport_protocol {
        "" => None,
        "raw_buffer" => Some(TransportProtocol::RawBuffer),
        "tls" => Some(TransportProtocol::Tls),
        other => {
            let reason = Reason::UnsupportedValue { value: other.to_owned(), supported: "tls, raw_buffer" };
            return Err(at.field("transport_protocol").fault(reason));
        }
    };
    let protocols_at = at.field("application_protocols");
    let protocols = value.application_protocols.iter().enumerate();
    let application_protocols = protocols
        .map(|(index, of)| Ok(fields::name(of, &protocols_at.index(index))?.as_bytes().into()))
        .collect::<Result<_, Fault>>()?;
    Ok(FilterChainMatch {
        destination_port,
        server_names: value.server_names.iter().map(|name| name.as_str().into()).collect(),
        transport_protocol,
        application_protocols,
    })
}

/// Accepted without effect: `hash_policy` (the balancers that use it are refused with their cluster), log flushing,
/// `backoff_options` and `max_connect_attempts` (ours are bounds of the program), `proxy_protocol_tlvs`.
fn tcp_proxy(value: &tcp_proxy::TcpProxy, origin: Origin, at: &At<'_>) -> Result<TcpProxy, Fault> {
    use tcp_proxy::tcp_proxy::ClusterSpecifier;
    at.refuse_all(&[
        ("on_demand", value.on_demand.is_some()),
        ("metadata_match", value.metadata_match.is_some()),
        ("downstream_idle_timeout", value.downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", value.upstream_idle_timeout.is_some()),
        ("tunneling_config", value.tunneling_config.is_some()),
        ("max_downstream_connection_duration", value.max_downstream_connection_duration.is_some()),
        ("upstream_connect_mode", value.upstream_connect_mode != UpstreamConnectMode::Immediate as i32),
    ])?;
    let clusters = match at.field("cluster_specifier").require(value.cluster_specifier.as_ref())? {
        ClusterSpecifier::Cluster(cluster) => {
            Weighted::one(fields::name(cluster, &at.field("cluster"))?.into())
        }
        ClusterSpecifier::WeightedClusters(weighted) => {
            let at = at.field("weighted_clusters");
            let at = at.field("clusters");
            let mut clusters = Vec::with_capacity(weighted.clusters.len());
            for (index, cluster) in weighted.clusters.iter().enumerate() {
                let at = at.index(index);
                at.refuse("metadata_match", cluster.metadata_match.is_some())?;
                let weight = fields::between(cluster.weight, 1, u32::MAX, &at.field("weight"))?;
                clusters.push((weight, fields::name(&cluster.name, &at.field("name"))?.into()));
            }
            Weighted::new(clusters).map_err(|_| at.fault(Reason::Missing))?
        }
    };
    let idle_timeout_at = at.field("idle_timeout");
    let idle_timeout = value.idle_timeout.as_ref();
    Ok(TcpProxy {
        stat_prefix: fields::name(&value.stat_prefix, &at.field("stat_prefix"))?.into(),
        clusters,
        idle_timeout: fields::timeout(
            idle_timeout,
            Some(limits::TCP_IDLE_TIMEOUT_DEFAULT),
            &idle_timeout_at,
        )?,
        access_log: http::access_logs(&value.access_log, origin, &at.field("access_log"))?,
    })
}
