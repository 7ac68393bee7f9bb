//! Which HTTP is spoken to a cluster's endpoints and how: `typed_extension_protocol_options` and the fields it replaced.

use std::num::NonZeroU32;

use policy::{cluster::ClusterConfig, limits};
use proto::pb::envoy::{
    config::{cluster::v3 as cluster, core::v3 as core},
    extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options::UpstreamProtocolOptions},
};

use crate::{
    Origin, fields, protocol_options,
    reject::{At, Fault},
};

/// The one extension that `typed_extension_protocol_options` may hold.
const PROTOCOL_OPTIONS: &[&str] = &["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];

/// Sets everything of `config` that speaking HTTP needs.
pub(super) fn apply(
    value: &cluster::Cluster,
    origin: Origin,
    config: &mut ClusterConfig,
    at: &At<'_>,
) -> Result<(), Fault> {
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    let (common, http1) = (&value.common_http_protocol_options, &value.http_protocol_options);
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    if let Some(max) = &value.max_requests_per_connection {
        config.max_requests_per_connection = NonZeroU32::new(max.value);
    }
    if let Some(options) = common {
        common_options(options, origin, config, &at.field("common_http_protocol_options"))?;
    }
    if let Some(options) = http1 {
        protocol_options::http1(options, &at.field("http_protocol_options"))?;
    }
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
        if let Some(common) = &options.common_http_protocol_options {
            common_options(common, origin, config, &at.field("common_http_protocol_options"))?;
        }
        match &options.upstream_protocol_options {
            None => {}
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
                use proto::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
                let at = at.field("explicit_http_config");
                match at.field("protocol_config").require(explicit.protocol_config.as_ref())? {
                    ProtocolConfig::HttpProtocolOptions(options) => {
                        protocol_options::http1(options, &at.field("http_protocol_options"))?;
                    }
                    ProtocolConfig::Http2ProtocolOptions(_) => {
                        return Err(at.field("http2_protocol_options").unsupported());
                    }
                    ProtocolConfig::Http3ProtocolOptions(_) => {
                        return Err(at.field("http3_protocol_options").unsupported());
                    }
                }
            }
            // What is HTTP/1 downstream is HTTP/1 upstream, and nothing else comes in.
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(options)) => {
                let at = at.field("use_downstream_protocol_config");
                if let Some(options) = &options.http_protocol_options {
                    protocol_options::http1(options, &at.field("http_protocol_options"))?;
                }
            }
            Some(UpstreamProtocolOptions::AutoConfig(_)) => {
                return Err(at.field("auto_config").unsupported());
            }
        }
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
    at.refuse("headers_with_underscores_action", options.headers_with_underscores_action != 0)?;
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
