//! A bootstrap file's content: who the proxy is, its admin listener, its control plane, its static resources.
//!
//! The parser has refused what Ringway does not support ([`proto::bootstrap`]); here the values are checked. The cluster
//! that `ads_config` names is not for traffic: it may speak TLS and HTTP/2, and becomes [`ControlPlane`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use policy::{cluster::Discovery, limits, snapshot::Address};
use proto::pb::envoy::{
    config::{
        bootstrap::v3 as bootstrap,
        cluster::v3 as cluster,
        core::v3::{
            ApiConfigSource, ApiVersion, DataSource, Node, api_config_source::ApiType,
            data_source::Specifier, grpc_service::TargetSpecifier, transport_socket,
        },
    },
    extensions::{
        transport_sockets::tls::v3::{UpstreamTlsContext, common_tls_context::ValidationContextType},
        upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
        },
    },
};

use crate::{
    Origin, Referring,
    assemble::{Accepted, Update},
    cluster as traffic_cluster, config_source, endpoint, fields, listener,
    overload::{self, Overload},
    reject::{At, Fault, Reason},
};

const TLS: &[&str] = &[
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
];

/// A bootstrap file, understood.
#[derive(Debug)]
pub struct Bootstrap {
    /// Who this proxy is, as it tells the control plane.
    pub node: Node,
    /// Where the admin listener is; a proxy without one has none.
    pub admin: Option<Address>,
    /// Where configuration comes from, if not from the file alone.
    pub control_plane: Option<ControlPlane>,
    /// When it has too much to do.
    pub overload: Overload,
    /// The static resources, ready for the assembler.
    pub resources: Vec<Update>,
}

/// The control plane of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPlane {
    /// Name of the cluster in the file.
    pub cluster: Arc<str>,
    /// Its endpoints, at least one.
    pub targets: Vec<Target>,
    /// Time for one connect.
    pub connect_timeout: Duration,
    /// TLS, or plain text.
    pub tls: Option<Tls>,
    /// Pings on an idle connection.
    pub keepalive: Option<Keepalive>,
    /// `:authority` of the stream; the cluster's name if empty, as in Envoy.
    pub authority: String,
    /// Metadata of the stream.
    pub metadata: Vec<(String, String)>,
    /// Whether listeners come from it (`lds_config`).
    pub listeners: bool,
    /// Whether clusters come from it (`cds_config`).
    pub clusters: bool,
}

/// Where a connection to a control plane goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(Address),
    /// A name to look up, and a port.
    Name(String, u16),
}

/// TLS to a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificates that the control plane's must descend from.
    pub trusted_ca: Pem,
    /// Our certificate chain and its key.
    pub identity: Option<(Pem, Pem)>,
    /// The name the certificate must have; that of the endpoint if empty.
    pub sni: String,
}

/// PEM text, or where to read it. The text may be a key, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// A file.
    File(String),
    /// The text.
    Inline(Vec<u8>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => f.debug_tuple("File").field(path).finish(),
            Pem::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
        }
    }
}

/// HTTP/2 pings on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Time between two.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
}

/// Understands a bootstrap file. The fault's path begins at the file's root.
pub fn translate(value: &bootstrap::Bootstrap) -> Result<Bootstrap, Fault> {
    let at = At::ROOT;
    let admin = match value.admin.as_ref().and_then(|admin| admin.address.as_ref()) {
        None => None,
        Some(address) => Some(fields::address(Some(address), &at.field("admin").field("address"))?),
    };
    let none = bootstrap::bootstrap::StaticResources::default();
    let resources = value.static_resources.as_ref().unwrap_or(&none);
    let static_at = at.field("static_resources");
    let control_plane = control_plane(value, &resources.clusters, &static_at, &at)?;
    let node = value.node.clone().unwrap_or_default();
    if control_plane.is_some() {
        let at = at.field("node");
        fields::name(&node.id, &at.field("id"))?;
        fields::name(&node.cluster, &at.field("cluster"))?;
    }
    let resources = static_resources(resources, control_plane.as_ref(), &static_at)?;
    let overload = match &value.overload_manager {
        None => Overload::default(),
        Some(manager) => overload::overload(manager, &at.field("overload_manager"))?,
    };
    Ok(Bootstrap { node, admin, control_plane, overload, resources })
}

/// Clusters before listeners, so that one batch makes all of them active.
fn static_resources(
    value: &bootstrap::bootstrap::StaticResources,
    control_plane: Option<&ControlPlane>,
    at: &At<'_>,
) -> Result<Vec<Update>, Fault> {
    let mut updates = Vec::new();
    let mut clusters = BTreeSet::new();
    let clusters_at = at.field("clusters");
    for (index, cluster) in value.clusters.iter().enumerate() {
        let at = clusters_at.index(index);
        if !clusters.insert(cluster.name.as_str()) {
            return Err(at.field("name").fault(Reason::Duplicate { value: cluster.name.clone() }));
        }
        if control_plane.is_some_and(|of| *of.cluster == cluster.name) {
            continue;
        }
        let config = traffic_cluster::cluster(cluster, Origin::Static, &at)?;
        if matches!(config.discovery, Discovery::Eds { .. }) && control_plane.is_none() {
            return Err(at.field("eds_cluster_config").fault(NO_ADS));
        }
        updates.push(Update::Cluster(of_file(&cluster.name, config)));
    }
    if let Some(control_plane) = control_plane {
        clusters.remove(&*control_plane.cluster);
    }
    let mut names = BTreeSet::new();
    let listeners_at = at.field("listeners");
    for (index, value) in value.listeners.iter().enumerate() {
        let at = listeners_at.index(index);
        if !names.insert(value.name.as_str()) {
            return Err(at.field("name").fault(Reason::Duplicate { value: value.name.clone() }));
        }
        let listener = listener::listener(value, Origin::Static, &at)?;
        check_references(&listener, &clusters, control_plane, &at)?;
        updates.push(Update::Listener(of_file(&value.name, listener)));
    }
    Ok(updates)
}

const NO_ADS: Reason = Reason::Conflict("dynamic_resources.ads_config is missing");

/// What a listener names must be able to come. Without CDS a cluster that is not in the file never will, whatever
/// `validate_clusters` says.
fn check_references<T>(
    listener: &Referring<T>,
    clusters: &BTreeSet<&str>,
    control_plane: Option<&ControlPlane>,
    at: &At<'_>,
) -> Result<(), Fault> {
    if control_plane.is_none() && !listener.route_tables.is_empty() {
        return Err(at.fault(NO_ADS));
    }
    if control_plane.is_some_and(|of| of.clusters) {
        return Ok(());
    }
    match listener.clusters.iter().find(|name| !clusters.contains(&***name)) {
        None => Ok(()),
        Some(name) => Err(at.fault(Reason::UnknownCluster { name: name.to_string() })),
    }
}

fn of_file<T>(name: &str, value: T) -> Accepted<T> {
    Accepted { name: name.into(), version: "".into(), origin: Origin::Static, value: Arc::new(value) }
}

fn control_plane(
    value: &bootstrap::Bootstrap,
    clusters: &[cluster::Cluster],
    static_at: &At<'_>,
    at: &At<'_>,
) -> Result<Option<ControlPlane>, Fault> {
    let Some(dynamic) = &value.dynamic_resources else { return Ok(None) };
    let at = at.field("dynamic_resources");
    for (name, source) in [("lds_config", &dynamic.lds_config), ("cds_config", &dynamic.cds_config)] {
        if source.is_some() {
            config_source::check(source.as_ref(), &at.field(name))?;
        }
    }
    let (listeners, of_clusters) = (dynamic.lds_config.is_some(), dynamic.cds_config.is_some());
    let at = at.field("ads_config");
    let Some(ads) = &dynamic.ads_config else {
        return if listeners || of_clusters { Err(at.fault(Reason::Missing)) } else { Ok(None) };
    };
    let service = stream(ads, &at)?;
    let services_at = at.field("grpc_services");
    let service_at = services_at.index(0);
    let Some(TargetSpecifier::EnvoyGrpc(grpc)) = &service.target_specifier else {
        return Err(service_at.field("envoy_grpc").fault(Reason::Missing));
    };
    let grpc_at = service_at.field("envoy_grpc");
    let name_at = grpc_at.field("cluster_name");
    let name = fields::name(&grpc.cluster_name, &name_at)?;
    let Some(position) = clusters.iter().position(|cluster| cluster.name == name) else {
        return Err(name_at.fault(Reason::UnknownCluster { name: name.to_owned() }));
    };
    let metadata = service.initial_metadata.iter().map(|header| (header.key.clone(), header.value.clone()));
    let of = ControlPlane {
        cluster: name.into(),
        targets: Vec::new(),
        connect_timeout: limits::CONNECT_TIMEOUT_DEFAULT,
        tls: None,
        keepalive: None,
        authority: grpc.authority.clone(),
        metadata: metadata.collect(),
        listeners,
        clusters: of_clusters,
    };
    let clusters_at = static_at.field("clusters");
    match clusters.get(position) {
        Some(cluster) => connection(cluster, of, &clusters_at.index(position)).map(Some),
        None => Ok(None),
    }
}

/// The node is always sent with the first message only, which a server must be able to bear, so
/// `set_node_on_first_message_only` has no effect.
fn stream<'a>(
    value: &'a ApiConfigSource,
    at: &At<'_>,
) -> Result<&'a proto::pb::envoy::config::core::v3::GrpcService, Fault> {
    if value.api_type != ApiType::DeltaGrpc as i32 {
        let value = value.api_type().as_str_name().to_owned();
        return Err(at.field("api_type").fault(Reason::UnsupportedValue { value, supported: "DELTA_GRPC" }));
    }
    if value.transport_api_version != ApiVersion::V3 as i32 {
        let value = value.transport_api_version().as_str_name().to_owned();
        let reason = Reason::UnsupportedValue { value, supported: "V3" };
        return Err(at.field("transport_api_version").fault(reason));
    }
    match &value.grpc_services[..] {
        [service] => Ok(service),
        _ => Err(at.field("grpc_services").fault(Reason::Conflict("exactly one is needed"))),
    }
}

/// The cluster of the control plane. How it balances does not matter: one connection is open at a time.
fn connection(value: &cluster::Cluster, mut of: ControlPlane, at: &At<'_>) -> Result<ControlPlane, Fault> {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match &value.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => fields::enumeration(*kind, &at.field("type"))?,
        _ => DiscoveryType::Static,
    };
    let assignment_at = at.field("load_assignment");
    let assignment = assignment_at.require(value.load_assignment.as_ref())?;
    of.targets = match kind {
        DiscoveryType::Static => {
            let endpoints = endpoint::addresses(assignment, &assignment_at)?.endpoints;
            endpoints.into_iter().map(|endpoint| Target::Address(endpoint.address)).collect()
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => targets(assignment, &assignment_at)?,
        other => {
            let value = other.as_str_name().to_owned();
            let supported = "STATIC, STRICT_DNS, LOGICAL_DNS";
            return Err(at.field("type").fault(Reason::UnsupportedValue { value, supported }));
        }
    };
    if of.targets.is_empty() {
        return Err(assignment_at.field("endpoints").fault(Reason::Missing));
    }
    if let Some(timeout) = &value.connect_timeout {
        of.connect_timeout = fields::positive(timeout, &at.field("connect_timeout"))?;
    }
    of.keepalive = keepalive(value, at)?;
    if let Some(socket) = &value.transport_socket {
        let at = at.field("transport_socket");
        let at = at.field("typed_config");
        let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
            return Err(at.fault(Reason::Missing));
        };
        of.tls = match TLS.iter().position(|known| *known == fields::type_name(any)) {
            Some(0) => Some(tls(&fields::unpack(any, &at)?, &at)?),
            Some(_) => None,
            None => return Err(fields::unknown_extension(&any.type_url, TLS, &at)),
        };
    }
    Ok(of)
}

fn targets(
    assignment: &proto::pb::envoy::config::endpoint::v3::ClusterLoadAssignment,
    at: &At<'_>,
) -> Result<Vec<Target>, Fault> {
    let names = endpoint::names(assignment, at)?.endpoints.into_iter().map(|endpoint| endpoint.address);
    Ok(names.map(|name| Target::Name(name.host.to_string(), name.port)).collect())
}

/// HTTP/2 is always spoken, so of its options only the pings matter; there is one connection, so no jitter.
fn keepalive(value: &cluster::Cluster, at: &At<'_>) -> Result<Option<Keepalive>, Fault> {
    let options_at = at.field("typed_extension_protocol_options");
    let options: BTreeMap<_, _> = value.typed_extension_protocol_options.iter().collect();
    for (key, any) in options {
        let at = options_at.key(key);
        let options: HttpProtocolOptions = fields::unpack(any, &at)?;
        let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) = options.upstream_protocol_options
        else {
            continue;
        };
        let at = at.field("explicit_http_config");
        match explicit.protocol_config {
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                let Some(settings) = http2.connection_keepalive else { continue };
                let at = at.field("http2_protocol_options");
                let at = at.field("connection_keepalive");
                at.refuse("connection_idle_interval", settings.connection_idle_interval.is_some())?;
                let part = |name, value: Option<&_>| {
                    let at = at.field(name);
                    fields::positive(at.require(value)?, &at)
                };
                return Ok(Some(Keepalive {
                    interval: part("interval", settings.interval.as_ref())?,
                    timeout: part("timeout", settings.timeout.as_ref())?,
                }));
            }
            Some(ProtocolConfig::HttpProtocolOptions(_)) => {
                let reason = Reason::Conflict("the control plane's cluster speaks HTTP/2");
                return Err(at.field("http_protocol_options").fault(reason));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A control plane whose certificate is not checked is anybody; Envoy would allow it.
fn tls(value: &UpstreamTlsContext, at: &At<'_>) -> Result<Tls, Fault> {
    let at = at.field("common_tls_context");
    let common = at.require(value.common_tls_context.as_ref())?;
    let identity = match &common.tls_certificates[..] {
        [] => None,
        [certificate] => {
            let at = at.field("tls_certificates");
            let at = at.index(0);
            let chain = pem(certificate.certificate_chain.as_ref(), &at.field("certificate_chain"))?;
            Some((chain, pem(certificate.private_key.as_ref(), &at.field("private_key"))?))
        }
        _ => return Err(at.field("tls_certificates").fault(Reason::Conflict("at most one is supported"))),
    };
    let validation_at = at.field("validation_context");
    let trusted_ca = match &common.validation_context_type {
        Some(ValidationContextType::ValidationContext(context)) => context.trusted_ca.as_ref(),
        _ => None,
    };
    let trusted_ca = pem(trusted_ca, &validation_at.field("trusted_ca"))?;
    Ok(Tls { trusted_ca, identity, sni: value.sni.clone() })
}

fn pem(value: Option<&DataSource>, at: &At<'_>) -> Result<Pem, Fault> {
    match at.require(value.and_then(|source| source.specifier.as_ref()))? {
        Specifier::Filename(path) => Ok(Pem::File(fields::name(path, &at.field("filename"))?.to_owned())),
        Specifier::InlineString(text) => Ok(Pem::Inline(text.clone().into_bytes())),
        Specifier::InlineBytes(bytes) => Ok(Pem::Inline(bytes.clone())),
        Specifier::EnvironmentVariable(_) => Err(at.field("environment_variable").unsupported()),
    }
}
