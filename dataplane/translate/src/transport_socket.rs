//! Transport sockets: none, TLS, and what is written before the bytes of a connection.

use std::sync::Arc;

use policy::tls::{Label, TransportMatch, Transports, UpstreamTls};
use proto::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{TransportSocket, proxy_protocol_config, transport_socket},
        },
        extensions::transport_sockets::{
            proxy_protocol::v3::ProxyProtocolUpstreamTransport,
            tls::v3::{DownstreamTlsContext, UpstreamTlsContext},
        },
    },
    google::protobuf::{self, value::Kind},
};
use wire::proxy_protocol::Version;

use crate::{
    fields,
    reject::{At, Fault, Reason},
    tls,
};

const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

const DOWNSTREAM_SOCKETS: &[&str] =
    &[RAW_BUFFER, "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"];

const UPSTREAM_SOCKETS: &[&str] = &[
    RAW_BUFFER,
    "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
];

/// Those that may stand below a PROXY protocol header.
const INNER_SOCKETS: &[&str] = &[RAW_BUFFER, "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"];

/// A version of the PROXY protocol.
pub(crate) fn proxy_protocol_version(value: i32, at: &At<'_>) -> Result<Version, Fault> {
    Ok(match fields::enumeration(value, at)? {
        proxy_protocol_config::Version::V1 => Version::V1,
        proxy_protocol_config::Version::V2 => Version::V2,
    })
}

/// What a transport socket of a cluster does.
#[derive(Default)]
struct Upstream {
    proxy_protocol: Option<Version>,
    tls: Option<Arc<UpstreamTls>>,
}

/// The transport sockets of a cluster, and the version of the PROXY protocol header that comes before all else.
pub(crate) fn of_cluster(
    value: &Cluster,
    named: &mut tls::Named,
    at: &At<'_>,
) -> Result<(Transports, Option<Version>), Fault> {
    let socket_at = at.field("transport_socket");
    let default = match &value.transport_socket {
        None => Upstream::default(),
        Some(socket) => upstream(socket, UPSTREAM_SOCKETS, named, &socket_at)?,
    };
    let matches_at = at.field("transport_socket_matches");
    let mut matches = Vec::with_capacity(value.transport_socket_matches.len());
    for (index, of) in value.transport_socket_matches.iter().enumerate() {
        let at = matches_at.index(index);
        let socket_at = at.field("transport_socket");
        let socket = socket_at.require(of.transport_socket.as_ref())?;
        let tls = upstream(socket, INNER_SOCKETS, named, &socket_at)?.tls;
        let labels = of.r#match.as_ref().map(|of| labels(of, &at.field("match"))).transpose()?;
        matches.push(TransportMatch { labels: labels.unwrap_or_default(), tls });
    }
    if default.proxy_protocol.is_some() && !matches.is_empty() {
        let reason =
            "with transport_socket_matches not every connection would begin with a PROXY protocol header";
        return Err(socket_at.fault(Reason::Conflict(reason)));
    }
    Ok((Transports { default: default.tls, matches }, default.proxy_protocol))
}

/// What is read from the metadata of an endpoint, or demanded of it. Values are text, as everybody writes them.
pub(crate) fn labels(value: &protobuf::Struct, at: &At<'_>) -> Result<Vec<Label>, Fault> {
    let label = |(key, value): (&String, &protobuf::Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Ok((key.as_str().into(), text.as_str().into())),
        _ => {
            let reason = Reason::UnsupportedValue { value: key.clone(), supported: "text" };
            Err(at.fault(reason))
        }
    };
    // A map of its own has no order.
    let mut labels = value.fields.iter().map(label).collect::<Result<Vec<Label>, _>>()?;
    labels.sort_unstable();
    Ok(labels)
}

fn upstream(
    socket: &TransportSocket,
    supported: &'static [&'static str],
    named: &mut tls::Named,
    at: &At<'_>,
) -> Result<Upstream, Fault> {
    let at = at.field("typed_config");
    let any = config(socket, &at)?;
    match supported.iter().position(|known| *known == fields::type_name(any)) {
        Some(0) => Ok(Upstream::default()),
        Some(1) => {
            let value: UpstreamTlsContext = fields::unpack(any, &at)?;
            Ok(Upstream { tls: Some(Arc::new(tls::upstream(&value, named, &at)?)), proxy_protocol: None })
        }
        Some(_) => {
            let value: ProxyProtocolUpstreamTransport = fields::unpack(any, &at)?;
            at.refuse_all(&[
                ("allow_unspecified_address", value.allow_unspecified_address),
                ("tlv_as_pool_key", value.tlv_as_pool_key),
            ])?;
            let inner_at = at.field("transport_socket");
            let inner = inner_at.require(value.transport_socket.as_ref())?;
            let inner = upstream(inner, INNER_SOCKETS, named, &inner_at)?;
            let at = at.field("config");
            let config = value.config.unwrap_or_default();
            at.refuse_all(&[
                ("pass_through_tlvs", config.pass_through_tlvs.is_some()),
                ("added_tlvs", !config.added_tlvs.is_empty()),
            ])?;
            let version = proxy_protocol_version(config.version, &at.field("version"))?;
            Ok(Upstream { proxy_protocol: Some(version), ..inner })
        }
        None => Err(fields::unknown_extension(&any.type_url, supported, &at)),
    }
}

/// The transport socket of a filter chain that ends TLS, if it is one.
pub(crate) fn downstream(
    socket: &TransportSocket,
    at: &At<'_>,
) -> Result<Option<DownstreamTlsContext>, Fault> {
    let at = at.field("typed_config");
    let any = config(socket, &at)?;
    match DOWNSTREAM_SOCKETS.iter().position(|known| *known == fields::type_name(any)) {
        Some(0) => Ok(None),
        Some(_) => fields::unpack(any, &at).map(Some),
        None => Err(fields::unknown_extension(&any.type_url, DOWNSTREAM_SOCKETS, &at)),
    }
}

fn config<'a>(socket: &'a TransportSocket, at: &At<'_>) -> Result<&'a protobuf::Any, Fault> {
    match &socket.config_type {
        Some(transport_socket::ConfigType::TypedConfig(any)) => Ok(any),
        None => Err(at.fault(Reason::Missing)),
    }
}
