//! `dynamic_resources.ads_config` with the static cluster that it names.
//!
//! That cluster carries the connection to the control plane and no request: unlike those of `translate` it speaks HTTP/2
//! and may speak TLS.

mod tls;

use std::{fmt, path::PathBuf, time::Duration};

use prost::{Message, Name};
use proto::{
    pb::{
        envoy::{
            config::{
                cluster::v3::Cluster,
                core::v3::{
                    ApiConfigSource, ApiVersion, DataSource, Http2ProtocolOptions,
                    api_config_source::ApiType, data_source::Specifier, grpc_service::TargetSpecifier,
                },
                endpoint::v3::lb_endpoint::HostIdentifier,
            },
            extensions::upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
            },
        },
        google::protobuf,
    },
    well_known,
};
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};

use super::{Wrong, place};

/// Time to connect when the cluster says nothing (Envoy: `connect_timeout`).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is tried, and how long it may take to answer, when the cluster says nothing. A control
/// plane that vanished without a FIN would otherwise be believed for hours.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where configuration comes from, and how to get there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlPlane {
    /// Name of the static cluster that carries the connection.
    pub cluster: String,
    /// Its addresses, tried in turn. At least one.
    pub places: Vec<Place>,
    /// `:authority` of the calls, when it is not the address.
    pub authority: Option<String>,
    /// Metadata of every call, such as a token.
    pub metadata: Vec<(String, String)>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// How often an HTTP/2 PING is sent.
    pub keep_alive_interval: Duration,
    /// How long it may stay unanswered.
    pub keep_alive_timeout: Duration,
    /// TLS settings; `None` is plain text.
    pub tls: Option<Tls>,
}

/// An address, its name unresolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Host and port.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Path of a unix socket.
    Unix(PathBuf),
}

/// TLS towards the control plane. Its certificate is always checked, and its name too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// The name it must have, when it is not the address' host.
    pub server_name: Option<String>,
    /// The authorities it may be signed by, PEM.
    pub trusted_ca: Pem,
    /// Our own certificate chain and key, PEM.
    pub identity: Option<(Pem, Pem)>,
}

/// PEM text.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file that is read anew for each connection.
    File(PathBuf),
    /// In the bootstrap file itself.
    Inline(Vec<u8>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "{host}:{port}"),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Pem {
    /// Without the text, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{}", path.display()),
            Pem::Inline(_) => f.write_str("inline"),
        }
    }
}

const ADS: &str = "dynamic_resources.ads_config";

/// Reads `ads_config`; the cluster it names must be one of `clusters`, which are the file's own.
pub(super) fn read(ads: &ApiConfigSource, clusters: &[Cluster]) -> Result<ControlPlane, Wrong> {
    let kind = ApiType::try_from(ads.api_type)
        .map_or_else(|_| ads.api_type.to_string(), |of| of.as_str_name().to_owned());
    if ads.api_type != ApiType::DeltaGrpc as i32 {
        let reason = format!("{kind} is not supported by Ringway; supported: DELTA_GRPC");
        return Err(Wrong::new(format!("{ADS}.api_type"), reason));
    }
    if ads.transport_api_version != ApiVersion::V3 as i32 {
        return Err(Wrong::new(format!("{ADS}.transport_api_version"), "only V3 is supported by Ringway"));
    }
    let [service] = &ads.grpc_services[..] else {
        let reason = format!("exactly one is supported by Ringway, there are {}", ads.grpc_services.len());
        return Err(Wrong::new(format!("{ADS}.grpc_services"), reason));
    };
    let path = format!("{ADS}.grpc_services[0]");
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return Err(Wrong::new(path, "envoy_grpc is required"));
    };
    let mut metadata = Vec::new();
    for (index, header) in service.initial_metadata.iter().enumerate() {
        let path = format!("{path}.initial_metadata[{index}]");
        if MetadataKey::<Ascii>::from_bytes(header.key.as_bytes()).is_err() {
            return Err(Wrong::new(format!("{path}.key"), format!("`{}` is not a metadata key", header.key)));
        }
        if MetadataValue::try_from(&header.value).is_err() {
            return Err(Wrong::new(format!("{path}.value"), "not a metadata value"));
        }
        metadata.push((header.key.clone(), header.value.clone()));
    }
    let Some(index) = clusters.iter().position(|cluster| cluster.name == target.cluster_name) else {
        let reason = format!("`{}` is not a static cluster", target.cluster_name);
        return Err(Wrong::new(format!("{path}.envoy_grpc.cluster_name"), reason));
    };
    let carrier = carrier(&clusters[index], &format!("static_resources.clusters[{index}]"))?;
    let authority = Some(target.authority.clone()).filter(|authority| !authority.is_empty());
    Ok(ControlPlane { authority, metadata, ..carrier })
}

fn carrier(cluster: &Cluster, path: &str) -> Result<ControlPlane, Wrong> {
    let time = |value: Option<&protobuf::Duration>, field: &str, default| match value {
        None => Ok(default),
        Some(value) => well_known::duration(value)
            .filter(|time| !time.is_zero())
            .ok_or_else(|| Wrong::new(format!("{path}.{field}"), "not a duration above zero")),
    };
    let keep_alive =
        http2_options(cluster, path)?.and_then(|options| options.connection_keepalive).unwrap_or_default();
    let keep_alive_path = "typed_extension_protocol_options.connection_keepalive";
    Ok(ControlPlane {
        cluster: cluster.name.clone(),
        places: places(cluster, path)?,
        authority: None,
        metadata: Vec::new(),
        connect_timeout: time(cluster.connect_timeout.as_ref(), "connect_timeout", CONNECT_TIMEOUT)?,
        keep_alive_interval: time(keep_alive.interval.as_ref(), keep_alive_path, KEEP_ALIVE_INTERVAL)?,
        keep_alive_timeout: time(keep_alive.timeout.as_ref(), keep_alive_path, KEEP_ALIVE_TIMEOUT)?,
        tls: tls::read(cluster, path)?,
    })
}

fn places(cluster: &Cluster, path: &str) -> Result<Vec<Place>, Wrong> {
    let path = format!("{path}.load_assignment");
    let mut places = Vec::new();
    let localities = cluster.load_assignment.iter().flat_map(|assignment| &assignment.endpoints);
    for (locality, group) in localities.enumerate() {
        for (index, endpoint) in group.lb_endpoints.iter().enumerate() {
            let path = format!("{path}.endpoints[{locality}].lb_endpoints[{index}].endpoint");
            match &endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => {
                    places.push(place(endpoint.address.as_ref(), &format!("{path}.address"))?);
                }
                _ => return Err(Wrong::new(path, "required")),
            }
        }
    }
    if places.is_empty() {
        return Err(Wrong::new(path, "at least one endpoint is required"));
    }
    Ok(places)
}

fn http2_options(cluster: &Cluster, path: &str) -> Result<Option<Http2ProtocolOptions>, Wrong> {
    for (key, any) in &cluster.typed_extension_protocol_options {
        let path = format!("{path}.typed_extension_protocol_options[\"{key}\"]");
        let options: HttpProtocolOptions = unpack(any, &path)?;
        if let Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) = options.upstream_protocol_options {
            return match config.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => Ok(Some(options)),
                _ => Err(Wrong::new(path, "gRPC needs explicit_http_config.http2_protocol_options")),
            };
        }
    }
    Ok(None)
}

fn pem(source: &DataSource, path: &str) -> Result<Pem, Wrong> {
    match &source.specifier {
        Some(Specifier::Filename(file)) => Ok(Pem::File(file.into())),
        Some(Specifier::InlineString(text)) => Ok(Pem::Inline(text.clone().into_bytes())),
        Some(Specifier::InlineBytes(bytes)) => Ok(Pem::Inline(bytes.clone())),
        Some(Specifier::EnvironmentVariable(_)) | None => {
            Err(Wrong::new(path, "filename, inline_string or inline_bytes is required"))
        }
    }
}

fn unpack<M: Message + Name + Default>(any: &protobuf::Any, path: &str) -> Result<M, Wrong> {
    if any.type_url != M::type_url() {
        return Err(Wrong::new(
            path,
            format!("{} is not supported by Ringway; supported: {}", any.type_url, M::full_name()),
        ));
    }
    M::decode(&*any.value).map_err(|_| Wrong::new(path, format!("not a valid {}", M::full_name())))
}
