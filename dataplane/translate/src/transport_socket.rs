//! Transport sockets: none, and what is written before the bytes of a connection.

use proto::pb::envoy::{
    config::core::v3::{TransportSocket, proxy_protocol_config, transport_socket},
    extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
};
use wire::proxy_protocol::Version;

use crate::{
    fields,
    reject::{At, Fault, Reason},
};

const RAW_BUFFER: &[&str] = &["envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"];

const UPSTREAM_SOCKETS: &[&str] = &[
    "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
];

/// A version of the PROXY protocol.
pub(crate) fn proxy_protocol_version(value: i32, at: &At<'_>) -> Result<Version, Fault> {
    Ok(match fields::enumeration(value, at)? {
        proxy_protocol_config::Version::V1 => Version::V1,
        proxy_protocol_config::Version::V2 => Version::V2,
    })
}

/// The transport socket of a cluster: none, or one that writes a PROXY protocol header before none.
pub(crate) fn upstream(socket: &TransportSocket, at: &At<'_>) -> Result<Option<Version>, Fault> {
    let config_at = at.field("typed_config");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Err(config_at.fault(Reason::Missing));
    };
    match UPSTREAM_SOCKETS.iter().position(|known| *known == fields::type_name(any)) {
        Some(0) => Ok(None),
        Some(_) => {
            let at = config_at;
            let value: ProxyProtocolUpstreamTransport = fields::unpack(any, &at)?;
            at.refuse_all(&[
                ("allow_unspecified_address", value.allow_unspecified_address),
                ("tlv_as_pool_key", value.tlv_as_pool_key),
            ])?;
            let inner_at = at.field("transport_socket");
            raw(inner_at.require(value.transport_socket.as_ref())?, &inner_at)?;
            let at = at.field("config");
            let config = value.config.unwrap_or_default();
            at.refuse_all(&[
                ("pass_through_tlvs", config.pass_through_tlvs.is_some()),
                ("added_tlvs", !config.added_tlvs.is_empty()),
            ])?;
            proxy_protocol_version(config.version, &at.field("version")).map(Some)
        }
        None => Err(fields::unknown_extension(&any.type_url, UPSTREAM_SOCKETS, &config_at)),
    }
}

/// Only the transport socket that is none.
pub(crate) fn raw(socket: &TransportSocket, at: &At<'_>) -> Result<(), Fault> {
    let at = at.field("typed_config");
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return Err(at.fault(Reason::Missing));
    };
    if RAW_BUFFER.contains(&fields::type_name(any)) {
        return Ok(());
    }
    Err(fields::unknown_extension(&any.type_url, RAW_BUFFER, &at))
}
