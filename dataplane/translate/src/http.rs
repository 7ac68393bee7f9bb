//! `HttpConnectionManager` and its filters.

use std::{collections::BTreeSet, sync::Arc};

use policy::{
    client_cert::{ClientCertDetails, ForwardClientCert},
    forwarded::ForwardedTrust,
    http_filter::{FilterConfig, HttpFilter},
    limits,
    network_filter::{Codec, HttpConnectionManager, RouteSource, ServerHeader, Underscores},
};
use proto::pb::envoy::{
    config::{
        accesslog::v3::{AccessLog, access_log},
        core::v3::{HttpProtocolOptions, http_protocol_options},
    },
    extensions::{
        access_loggers::file::v3::FileAccessLog,
        filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                self as hcm, http_connection_manager as fields_of, http_filter,
            },
        },
    },
};
use wire::path::{EscapedSlashes, Normalization};

use crate::{
    Origin, Referring, Wanted, config_source, dynamic_forward, fields, http2, protocol_options, rbac,
    reject::{At, Fault, Reason},
    route,
    taken::TakenRoutes,
    upgrade,
};

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const FILTERS: &[&str] = &[ROUTER, rbac::HTTP, dynamic_forward::FILTER];
const ACCESS_LOGS: &[&str] = &[
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
];

/// The connection manager and what it refers to. `taken` are the routes of its own table that are not in `value` any more.
///
/// Accepted without effect: telemetry (`tracing`, request id extensions, `proxy_status_config`, log flushing), buffer limits
/// (ours bound every buffer), HTTP/3 options (it is not spoken), `stream_error_on_invalid_http_message` (see [`http2::options`]),
/// `add_user_agent` and `server_name` without a transformation that uses it. The `server` header without a name is left alone
/// where Envoy would write its own.
pub(crate) fn connection_manager(
    value: &hcm::HttpConnectionManager,
    taken: &TakenRoutes<'_>,
    origin: Origin,
    at: &At<'_>,
) -> Result<Referring<HttpConnectionManager>, Fault> {
    refuse(value, at)?;
    let (routes, clusters, route_tables) = routes(value, taken, origin, at)?;
    let http_filters = filters(&value.http_filters, &at.field("http_filters"))?;
    let stat_prefix = fields::name(&value.stat_prefix, &at.field("stat_prefix"))?;
    let mut manager = HttpConnectionManager::new(stat_prefix.into(), routes);
    manager.http_filters = http_filters;
    manager.codec = codec(value, at)?;
    manager.upgrades = upgrade::of_manager(&value.upgrade_configs, &at.field("upgrade_configs"))?;
    if let Some(options) = &value.http2_protocol_options {
        manager.http2 = http2::options(options, manager.http2, origin, &at.field("http2_protocol_options"))?;
    }
    if let Some(options) = &value.common_http_protocol_options {
        let at = at.field("common_http_protocol_options");
        let common = protocol_options::common(options, origin, &at)?;
        manager.idle_timeout = common.idle_timeout.unwrap_or(manager.idle_timeout);
        let max = options.max_stream_duration.as_ref();
        manager.max_stream_duration = fields::timeout(max, None, &at.field("max_stream_duration"))?;
        manager.max_connection_duration = common.max_connection_duration;
        manager.max_requests_per_connection = common.max_requests_per_connection;
        manager.headers_count_max = common.headers_count_max;
        manager.underscores = underscores(options, &at)?;
    }
    if let Some(options) = &value.http_protocol_options {
        protocol_options::http1(options, &at.field("http_protocol_options"))?;
    }
    for (name, timeout, into) in [
        ("stream_idle_timeout", &value.stream_idle_timeout, &mut manager.stream_idle_timeout),
        ("request_timeout", &value.request_timeout, &mut manager.request_timeout),
        ("request_headers_timeout", &value.request_headers_timeout, &mut manager.request_headers_timeout),
    ] {
        *into = fields::timeout(timeout.as_ref(), *into, &at.field(name))?;
    }
    for (name, wait, into) in [
        ("drain_timeout", &value.drain_timeout, &mut manager.drain_timeout),
        ("delayed_close_timeout", &value.delayed_close_timeout, &mut manager.delayed_close_timeout),
    ] {
        if let Some(wait) = wait {
            *into = fields::duration(wait, &at.field(name))?;
        }
    }
    if let Some(max) = &value.max_request_headers_kb {
        let at = at.field("max_request_headers_kb");
        manager.request_head_bytes_max =
            1024 * protocol_options::bound(max.value, limits::REQUEST_HEAD_BYTES_MAX / 1024, origin, &at)?;
    }
    manager.server_header = server_header(value, at)?;
    manager.forwarded = ForwardedTrust {
        use_remote_address: value.use_remote_address.is_some_and(|on| on.value),
        hops: value.xff_num_trusted_hops,
        skip_append: value.skip_xff_append,
    };
    manager.generate_request_id = value.generate_request_id.is_none_or(|on| on.value);
    manager.preserve_external_request_id = value.preserve_external_request_id;
    manager.path_normalization = Normalization {
        dot_segments: value.normalize_path.is_some_and(|on| on.value),
        merge_slashes: value.merge_slashes,
        escaped_slashes: escaped_slashes(value, at)?,
    };
    (manager.forward_client_cert, manager.client_cert_details) = client_cert(value, at)?;
    manager.access_log = access_logs(&value.access_log, origin, &at.field("access_log"))?;
    Ok(Referring { value: Arc::new(manager), clusters, route_tables, secrets: Wanted::new() })
}

fn refuse(value: &hcm::HttpConnectionManager, at: &At<'_>) -> Result<(), Fault> {
    at.refuse_all(&[
        ("http1_safe_max_connection_duration", value.http1_safe_max_connection_duration),
        ("scheme_header_transformation", value.scheme_header_transformation.is_some()),
        ("original_ip_detection_extensions", !value.original_ip_detection_extensions.is_empty()),
        ("early_header_mutation_extensions", !value.early_header_mutation_extensions.is_empty()),
        ("internal_address_config", value.internal_address_config.is_some()),
        ("via", !value.via.is_empty()),
        ("forward_client_cert_matcher", value.forward_client_cert_matcher.is_some()),
        ("path_normalization_options", value.path_normalization_options.is_some()),
        ("local_reply_config", value.local_reply_config.is_some()),
        ("strip_matching_host_port", value.strip_matching_host_port),
        ("strip_port_mode", value.strip_port_mode.is_some()),
        ("strip_trailing_host_dot", value.strip_trailing_host_dot),
        ("typed_header_validation_config", value.typed_header_validation_config.is_some()),
        ("append_x_forwarded_port", value.append_x_forwarded_port),
        ("forward_proto_config", value.forward_proto_config.is_some()),
    ])
}

/// Not told: the certificate itself and its chain, which are longer than a head may be.
fn client_cert(
    value: &hcm::HttpConnectionManager,
    at: &At<'_>,
) -> Result<(ForwardClientCert, ClientCertDetails), Fault> {
    use fields_of::ForwardClientCertDetails as Details;
    let forward_at = at.field("forward_client_cert_details");
    let forward = match fields::enumeration(value.forward_client_cert_details, &forward_at)? {
        Details::Sanitize => ForwardClientCert::Sanitize,
        Details::ForwardOnly => ForwardClientCert::ForwardOnly,
        Details::AppendForward => ForwardClientCert::AppendForward,
        Details::SanitizeSet => ForwardClientCert::SanitizeSet,
        Details::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    };
    let Some(set) = &value.set_current_client_cert_details else {
        return Ok((forward, ClientCertDetails::default()));
    };
    let at = at.field("set_current_client_cert_details");
    at.refuse_all(&[
        ("cert", set.cert),
        ("chain", set.chain),
        ("issuer", set.issuer),
        ("format", set.format != 0),
    ])?;
    let subject = set.subject.is_some_and(|on| on.value);
    Ok((forward, ClientCertDetails { subject, uri: set.uri, dns: set.dns }))
}

fn codec(value: &hcm::HttpConnectionManager, at: &At<'_>) -> Result<Codec, Fault> {
    use fields_of::CodecType;
    let at = at.field("codec_type");
    Ok(match fields::enumeration(value.codec_type, &at)? {
        CodecType::Auto => Codec::Auto,
        CodecType::Http1 => Codec::Http1,
        CodecType::Http2 => Codec::Http2,
        CodecType::Http3 => {
            let reason =
                Reason::UnsupportedValue { value: "HTTP3".to_owned(), supported: "AUTO, HTTP1, HTTP2" };
            return Err(at.fault(reason));
        }
    })
}

type Routes = (RouteSource, BTreeSet<Arc<str>>, Wanted);

fn routes(
    value: &hcm::HttpConnectionManager,
    taken: &TakenRoutes<'_>,
    origin: Origin,
    at: &At<'_>,
) -> Result<Routes, Fault> {
    use fields_of::RouteSpecifier;
    match at.field("route_specifier").require(value.route_specifier.as_ref())? {
        RouteSpecifier::RouteConfig(table) => {
            let table = route::table(table, taken, origin, &at.field("route_config"))?;
            Ok((RouteSource::Inline(table.value), table.clusters, Wanted::new()))
        }
        RouteSpecifier::Rds(rds) => {
            let at = at.field("rds");
            let (source, source_at) = (rds.config_source.as_ref(), at.field("config_source"));
            config_source::check(source, &source_at)?;
            let timeout = config_source::fetch_timeout(source, &source_at)?;
            let name: Arc<str> = fields::name(&rds.route_config_name, &at.field("route_config_name"))?.into();
            Ok((RouteSource::Named(name.clone()), BTreeSet::new(), Wanted::from([(name, timeout)])))
        }
        RouteSpecifier::ScopedRoutes(_) => Err(at.field("scoped_routes").unsupported()),
    }
}

/// The router, last, alone, and before it those that do something, or that Envoy needs for dynamic forward clusters. Others
/// that may be ignored, and those that are off, are dropped; what a route does to turn one on is refused there. Of the
/// router's options none has an effect: they are about headers and telemetry that Ringway does not add, except those refused.
fn filters(filters: &[hcm::HttpFilter], at: &At<'_>) -> Result<Vec<HttpFilter>, Fault> {
    let mut routers = 0;
    let mut translated: Vec<HttpFilter> = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let at = at.index(index);
        let any = match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(any)) => any,
            Some(http_filter::ConfigType::ConfigDiscovery(_)) if filter.is_optional || filter.disabled => {
                continue;
            }
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(at.field("config_discovery").unsupported());
            }
            None => return Err(at.field("typed_config").fault(Reason::Missing)),
        };
        let config_at = at.field("typed_config");
        match fields::type_name(any) {
            ROUTER => {}
            rbac::HTTP => {
                let config = FilterConfig::Rbac(rbac::http_filter(any, &config_at)?);
                let name = fields::name(&filter.name, &at.field("name"))?;
                // Routes speak of it by its name.
                if translated.iter().any(|of| *of.name == *name) {
                    return Err(at.field("name").fault(Reason::Duplicate { value: name.to_owned() }));
                }
                translated.push(HttpFilter { name: name.into(), is_disabled: filter.disabled, config });
                continue;
            }
            _ if filter.is_optional || filter.disabled => continue,
            dynamic_forward::FILTER => {
                dynamic_forward::filter(any, &config_at)?;
                continue;
            }
            _ => return Err(fields::unknown_extension(&any.type_url, FILTERS, &config_at)),
        }
        at.refuse("disabled", filter.disabled)?;
        let router: Router = fields::unpack(any, &config_at)?;
        config_at.refuse_all(&[
            ("strict_check_headers", !router.strict_check_headers.is_empty()),
            ("respect_expected_rq_timeout", router.respect_expected_rq_timeout),
            ("upstream_http_filters", !router.upstream_http_filters.is_empty()),
        ])?;
        routers += 1;
        if routers > 1 || index + 1 != filters.len() {
            return Err(at.fault(Reason::Conflict("the router is the last filter")));
        }
    }
    match routers {
        0 => Err(at.fault(Reason::Conflict("the last filter must be the router"))),
        _ => Ok(translated),
    }
}

fn escaped_slashes(value: &hcm::HttpConnectionManager, at: &At<'_>) -> Result<EscapedSlashes, Fault> {
    use fields_of::PathWithEscapedSlashesAction as Action;
    let at = at.field("path_with_escaped_slashes_action");
    Ok(match fields::enumeration(value.path_with_escaped_slashes_action, &at)? {
        // Envoy's default, unless its runtime says otherwise.
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

fn server_header(value: &hcm::HttpConnectionManager, at: &At<'_>) -> Result<ServerHeader, Fault> {
    use fields_of::ServerHeaderTransformation;
    let name = fields::single_line(&value.server_name, &at.field("server_name"))?;
    let transformation_at = at.field("server_header_transformation");
    Ok(match fields::enumeration(value.server_header_transformation, &transformation_at)? {
        _ if name.is_empty() => ServerHeader::PassThrough,
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite(name.into()),
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AddIfAbsent(name.into()),
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    })
}

/// Whether exchanges or connections are logged: to the one access log of the process, whose place and format are the
/// operator's. So a file of the bootstrap must be one that this can be. Loggers of a control plane that Ringway does not
/// have are not worth losing the listener for: telemetry fails open.
pub(crate) fn access_logs(logs: &[AccessLog], origin: Origin, at: &At<'_>) -> Result<bool, Fault> {
    let mut is_on = false;
    for (index, log) in logs.iter().enumerate() {
        let at = at.index(index);
        let Some(access_log::ConfigType::TypedConfig(any)) = &log.config_type else {
            return Err(at.field("typed_config").fault(Reason::Missing));
        };
        let at = at.field("typed_config");
        match (ACCESS_LOGS.iter().position(|known| *known == fields::type_name(any)), origin) {
            (Some(0), Origin::Static) => {
                let file: FileAccessLog = fields::unpack(any, &at)?;
                match &*file.path {
                    "/dev/stdout" | "/dev/stderr" => is_on = true,
                    "/dev/null" => {}
                    other => {
                        let supported = "/dev/stdout, /dev/stderr, /dev/null";
                        let reason = Reason::UnsupportedValue { value: other.to_owned(), supported };
                        return Err(at.field("path").fault(reason));
                    }
                }
            }
            (Some(_), _) => is_on = true,
            (None, Origin::Static) => return Err(fields::unknown_extension(&any.type_url, ACCESS_LOGS, &at)),
            (None, Origin::Dynamic) => {}
        }
    }
    Ok(is_on)
}

fn underscores(options: &HttpProtocolOptions, at: &At<'_>) -> Result<Underscores, Fault> {
    use http_protocol_options::HeadersWithUnderscoresAction as Action;
    let at = at.field("headers_with_underscores_action");
    Ok(match fields::enumeration(options.headers_with_underscores_action, &at)? {
        Action::Allow => Underscores::Allow,
        Action::RejectRequest => Underscores::Refuse,
        Action::DropHeader => Underscores::Drop,
    })
}
