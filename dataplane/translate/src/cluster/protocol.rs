//! Which HTTP is spoken to a cluster's endpoints and how: `typed_extension_protocol_options` and the fields it replaced.

use std::num::NonZeroU32;

use policy::{
    cluster::{ClusterConfig, UpstreamProtocol},
    http2::Http2Options,
    limits,
};
use proto::pb::envoy::{
    config::{
        cluster::v3::{self as cluster, cluster::ClusterProtocolSelection},
        core::v3 as core,
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
    },
};

use crate::{
    Origin, fields, http2, protocol_options,
    reject::{At, Fault, Reason},
};

/// The one extension that `typed_extension_protocol_options` may hold.
const PROTOCOL_OPTIONS: &[&str] = &["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];

/// Sets everything of `config` that speaking HTTP needs. The extension goes before the fields of the cluster that it replaced.
pub(super) fn apply(
    value: &cluster::Cluster,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    replaced_fields(value, origin, config, at)?;
    let options_at = at.field("typed_extension_protocol_options");
    for (key, any) in &value.typed_extension_protocol_options {
        let at = options_at.key(key);
        if !PROTOCOL_OPTIONS.contains(&fields::type_name(any)) {
            return Err(fields::unknown_extension(&any.type_url, PROTOCOL_OPTIONS, &at));
        }
        let options: HttpProtocolOptions = fields::unpack(any, &at)?;
        at.refuse_all(&[
            ("http_filters", !options.http_filters.is_empty()),
            ("outlier_detection", options.outlier_detection.is_some()),
            ("request_mirror_policies", !options.request_mirror_policies.is_empty()),
            ("retry_policy", options.retry_policy.is_some()),
        ])?;
        if let Some(names) = &options.upstream_http_protocol_options {
            server_names(names, config, &at.field("upstream_http_protocol_options"))?;
        }
        if let Some(common) = &options.common_http_protocol_options {
            common_options(common, origin, config, &at.field("common_http_protocol_options"))?;
        }
        let protocol = at.field("upstream_protocol_options").require(options.upstream_protocol_options)?;
        upstream_protocol(&protocol, origin, config, &at)?;
    }
    Ok(())
}

#[allow(deprecated, reason = "fields that Envoy advises against are still ones that may be set")]
fn replaced_fields(
    value: &cluster::Cluster,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    if let Some(max) = &value.max_requests_per_connection {
        config.max_requests_per_connection = NonZeroU32::new(max.value);
    }
    if let Some(options) = &value.common_http_protocol_options {
        common_options(options, origin, config, &at.field("common_http_protocol_options"))?;
    }
    if let Some(names) = &value.upstream_http_protocol_options {
        server_names(names, config, &at.field("upstream_http_protocol_options"))?;
    }
    let selection = fields::enumeration(value.protocol_selection, &at.field("protocol_selection"))?;
    config.protocol = match (selection, &value.http_protocol_options, &value.http2_protocol_options) {
        (ClusterProtocolSelection::UseDownstreamProtocol, ..) => UpstreamProtocol::Downstream,
        (ClusterProtocolSelection::UseConfiguredProtocol, Some(_), Some(_)) => {
            let reason = Reason::Conflict(
                "http_protocol_options is set as well, and protocol_selection chooses neither",
            );
            return Err(at.field("http2_protocol_options").fault(reason));
        }
        (ClusterProtocolSelection::UseConfiguredProtocol, None, Some(_)) => UpstreamProtocol::Http2,
        (ClusterProtocolSelection::UseConfiguredProtocol, _, None) => UpstreamProtocol::Http1,
    };
    both(value.http_protocol_options.as_ref(), value.http2_protocol_options.as_ref(), origin, config, at)
}

/// Server names that each request brings; without TLS nobody is told one.
fn server_names(
    value: &core::UpstreamHttpProtocolOptions,
    config: &ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    if config.transport.all().next().is_none() {
        return Ok(());
    }
    at.refuse_all(&[
        ("auto_sni", value.auto_sni),
        ("auto_san_validation", value.auto_san_validation),
        ("override_auto_sni_header", !value.override_auto_sni_header.is_empty()),
    ])
}

/// `auto_config` is taken on connections without TLS, too, where Envoy refuses it: there is no ALPN then, and what is spoken
/// is what Envoy documents for upstreams that have none.
fn upstream_protocol(
    value: &UpstreamProtocolOptions,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    match value {
        UpstreamProtocolOptions::ExplicitHttpConfig(explicit) => {
            let at = at.field("explicit_http_config");
            match at.field("protocol_config").require(explicit.protocol_config.as_ref())? {
                ProtocolConfig::HttpProtocolOptions(options) => {
                    config.protocol = UpstreamProtocol::Http1;
                    both(Some(options), None, origin, config, &at)
                }
                ProtocolConfig::Http2ProtocolOptions(options) => {
                    config.protocol = UpstreamProtocol::Http2;
                    both(None, Some(options), origin, config, &at)
                }
                ProtocolConfig::Http3ProtocolOptions(_) => {
                    Err(at.field("http3_protocol_options").unsupported())
                }
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(options) => {
            let at = at.field("use_downstream_protocol_config");
            at.refuse("http3_protocol_options", options.http3_protocol_options.is_some())?;
            config.protocol = UpstreamProtocol::Downstream;
            let (http1, http2) = (&options.http_protocol_options, &options.http2_protocol_options);
            both(http1.as_ref(), http2.as_ref(), origin, config, &at)
        }
        UpstreamProtocolOptions::AutoConfig(options) => {
            let at = at.field("auto_config");
            at.refuse_all(&[
                ("http3_protocol_options", options.http3_protocol_options.is_some()),
                ("alternate_protocols_cache_options", options.alternate_protocols_cache_options.is_some()),
            ])?;
            config.protocol = UpstreamProtocol::Auto;
            let (http1, http2) = (&options.http_protocol_options, &options.http2_protocol_options);
            both(http1.as_ref(), http2.as_ref(), origin, config, &at)
        }
    }
}

/// Options of both versions, wherever they stand: their fields have the same names everywhere. They are all the options that
/// the cluster has, whatever stood in a place that this one goes before.
fn both(
    http1: Option<&core::Http1ProtocolOptions>,
    http2: Option<&core::Http2ProtocolOptions>,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    if let Some(options) = http1 {
        protocol_options::http1(options, &at.field("http_protocol_options"))?;
    }
    config.http2 = Http2Options::upstream();
    if let Some(options) = http2 {
        config.http2 = http2::options(options, config.http2, origin, &at.field("http2_protocol_options"))?;
    }
    Ok(())
}

fn common_options(
    options: &core::HttpProtocolOptions,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    // Of Envoy's two kinds of requests these are the ones that it makes itself.
    at.refuse_all(&[
        ("headers_with_underscores_action", options.headers_with_underscores_action != 0),
        ("max_stream_duration", options.max_stream_duration.is_some()),
    ])?;
    let common = protocol_options::common(options, origin, at)?;
    config.idle_timeout = common.idle_timeout.unwrap_or(config.idle_timeout);
    config.max_connection_duration = common.max_connection_duration;
    config.max_requests_per_connection = common.max_requests_per_connection;
    config.headers_count_max = common.headers_count_max;
    if let Some(max) = options.max_response_headers_kb {
        let at = at.field("max_response_headers_kb");
        config.response_head_bytes_max =
            1024 * protocol_options::bound(max.value, limits::RESPONSE_HEAD_BYTES_MAX / 1024, origin, &at)?;
    }
    Ok(())
}
