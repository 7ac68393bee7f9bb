//! Policy types as short text, for expectations that a person reads.

use std::fmt::Write;

use policy::{
    cluster::Cluster,
    filter_chain::FilterChain,
    http_filter::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter},
    http2::Http2Options,
    network_filter::{HttpConnectionManager, NetworkFilter, RouteSource},
    rbac::{Condition, Conditions, Rbac},
    route::{
        Edit, Forward, HeaderEdits, HeaderMatch, HeaderTest, PathMatch, PathRewrite, QueryTest, Redirect,
        RedirectPath, Route, RouteAction, RouteMatch, RouteTable, StreamDuration,
    },
    snapshot::Snapshot,
    string_match::{StringMatch, StringPattern},
    upgrade::{Connect, Upgrades},
};
use translate::bootstrap::Bootstrap;

pub(crate) fn bootstrap(of: &Bootstrap) -> String {
    let admin = of.admin.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut out = format!("node {} of {}, admin at {admin}\n", of.node.id, of.node.cluster);
    if let Some(control_plane) = &of.control_plane {
        writeln!(out, "{control_plane:#?}").unwrap();
    }
    out
}

pub(crate) fn snapshot(of: &Snapshot) -> String {
    let mut out = String::new();
    for (name, listener) in of.listeners.iter() {
        let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
        let bind = if listener.bind_to_port { "" } else { " (not bound)" };
        writeln!(
            out,
            "listener {name} at {}{bind}, stats {}, {} B unsent",
            addresses.join(" "),
            listener.stat_prefix,
            listener.unsent_bytes_max
        )
        .unwrap();
        writeln!(out, "  {:?}", listener.listener_filters).unwrap();
        for chain in listener.filter_chains.iter() {
            filter_chain(&mut out, chain);
        }
    }
    for (_, cluster) in of.clusters.iter() {
        self::cluster(&mut out, cluster);
    }
    out
}

fn cluster(out: &mut String, of: &Cluster) {
    let config = &of.config;
    writeln!(
        out,
        "cluster {}: {:?}, connect {:?}, idle {:?}, panic below {} %{}, life {:?}, {:?} requests, head {} B, {} headers, {} B unsent, PROXY {:?}",
        config.name,
        config.balance,
        config.connect_timeout,
        config.idle_timeout,
        config.panic_threshold_percent,
        if config.locality_weighted { ", localities by weight" } else { "" },
        config.max_connection_duration,
        config.max_requests_per_connection,
        config.response_head_bytes_max,
        config.headers_count_max,
        config.unsent_bytes_max,
        config.proxy_protocol,
    )
    .unwrap();
    writeln!(out, "  speaks {:?}{}", config.protocol, http2(&config.http2, Http2Options::upstream()))
        .unwrap();
    for endpoint in of.endpoints.all() {
        let spec = &endpoint.spec;
        let place = [&*spec.locality.region, &*spec.locality.zone, &*spec.locality.sub_zone].join("/");
        writeln!(
            out,
            "  {} {}: weight {} of {place} {:?}, {:?}, priority {}",
            spec.address,
            spec.hostname.as_deref().unwrap_or("-"),
            spec.weight,
            spec.locality.weight,
            spec.health,
            spec.priority,
        )
        .unwrap();
    }
}

fn filter_chain(out: &mut String, of: &FilterChain) {
    writeln!(out, "  chain {:?} {:?}", of.name, of.matches).unwrap();
    for filter in of.rbac.iter() {
        writeln!(out, "    may connect, {}, delayed {:?}", filter.stat_prefix, filter.delay_deny).unwrap();
        rbac(out, "      ", &filter.rbac);
    }
    match &of.filter {
        NetworkFilter::TcpProxy(proxy) => writeln!(out, "    {proxy:?}").unwrap(),
        NetworkFilter::HttpConnectionManager(manager) => connection_manager(out, manager),
    }
}

fn connection_manager(out: &mut String, of: &HttpConnectionManager) {
    writeln!(
        out,
        "    http {}: head {:?} up to {} B, idle {:?}, stream idle {:?}, request {:?}, server {:?}, log {}\n    \
             {:?}, preserve request id {}, {} headers, underscores {:?}, life {:?}, {:?} requests, drain {:?}, linger {:?}",
        of.stat_prefix,
        of.request_headers_timeout,
        of.request_head_bytes_max,
        of.idle_timeout,
        of.stream_idle_timeout,
        of.request_timeout,
        of.server_header,
        of.access_log,
        of.forwarded,
        of.preserve_external_request_id,
        of.headers_count_max,
        of.underscores,
        of.max_connection_duration,
        of.max_requests_per_connection,
        of.drain_timeout,
        of.delayed_close_timeout,
    )
    .unwrap();
    writeln!(
        out,
        "    speaks {:?}{}, exchange in {:?}{}",
        of.codec,
        http2(&of.http2, Http2Options::downstream()),
        of.max_stream_duration,
        upgrades(&of.upgrades),
    )
    .unwrap();
    for HttpFilter { name, is_disabled, config: FilterConfig::Rbac(config) } in &of.http_filters {
        writeln!(out, "    filter {name}{}", if *is_disabled { " (off)" } else { "" }).unwrap();
        rbac(out, "      ", config);
    }
    match &of.routes {
        RouteSource::Named(name) => writeln!(out, "    routes by RDS: {name}").unwrap(),
        RouteSource::Inline(table) => route_table(out, table),
    }
}

fn route_table(out: &mut String, of: &RouteTable) {
    writeln!(out, "    routes {:?}", of.name).unwrap();
    for host in of.virtual_hosts() {
        writeln!(out, "    host {} {}", host.name, host.domains.join(" ")).unwrap();
        for route in host.routes() {
            self::route(out, route);
        }
    }
}

fn route(out: &mut String, of: &Route) {
    writeln!(out, "      {:?} {}", of.name, matches(&of.matches)).unwrap();
    match &of.action {
        RouteAction::Forward(forward) => self::forward(out, forward),
        RouteAction::Redirect(redirect) => writeln!(out, "        -> {}", self::redirect(redirect)).unwrap(),
        RouteAction::DirectResponse(response) => {
            writeln!(out, "        -> {} {:?}", response.status, text(&response.body)).unwrap();
        }
    }
    edits(out, "own response", &of.response_headers);
    filters(out, "        ", &of.filters);
}

fn forward(out: &mut String, of: &Forward) {
    let rewrite = match &of.path_rewrite {
        None => String::new(),
        Some(PathRewrite::Matched(path)) => format!(", matched to {}", text(path)),
        Some(PathRewrite::Regex(regex)) => format!(", {regex:?}"),
    };
    let host =
        of.host_rewrite.as_ref().map(|host| format!(", host {}", host_rewrite(host))).unwrap_or_default();
    writeln!(
        out,
        "        -> forward in {:?}, idle {:?}, {} connect retries{rewrite}{host}{}",
        of.timeout,
        of.idle_timeout,
        of.connect_retries,
        upgrades(&of.upgrades),
    )
    .unwrap();
    if of.stream_duration != StreamDuration::default() {
        writeln!(out, "           {:?}", of.stream_duration).unwrap();
    }
    for target in of.targets.values() {
        let host = target.host_rewrite.as_ref().map(|host| format!(", host {}", host_rewrite(host)));
        writeln!(out, "        cluster {}{}", target.cluster, host.unwrap_or_default()).unwrap();
        edits(out, "request", &target.request_headers);
        edits(out, "response", &target.response_headers);
        filters(out, "          ", &target.filters);
    }
}

/// Nothing where they are the defaults.
fn http2(of: &Http2Options, default: Http2Options) -> String {
    if *of == default { String::new() } else { format!(" with {of:?}") }
}

fn upgrades(of: &Upgrades) -> String {
    let mut out = String::new();
    for (kind, is_allowed) in of.rules() {
        write!(out, ", {}upgrade {}", if is_allowed { "" } else { "no " }, text(kind)).unwrap();
    }
    if of.connect() == Connect::Terminate {
        out.push_str(", CONNECT ends here");
    }
    out
}

fn host_rewrite(of: &policy::route::HostRewrite) -> String {
    match of {
        policy::route::HostRewrite::Literal(host) => text(host),
        policy::route::HostRewrite::EndpointHostname => "of the endpoint".to_owned(),
    }
}

fn redirect(of: &Redirect) -> String {
    let path = match &of.path {
        RedirectPath::Keep => "same path".to_owned(),
        RedirectPath::Full(path) => format!("path {}", text(path)),
        RedirectPath::Matched(path) => format!("matched to {}", text(path)),
        RedirectPath::Regex(regex) => format!("{regex:?}"),
    };
    let query = if of.strip_query { "without query" } else { "with query" };
    format!("{} to {:?} {:?} {:?}, {path}, {query}", of.status, of.scheme, of.host, of.port)
}

fn matches(of: &RouteMatch) -> String {
    let mut out = match &of.path {
        PathMatch::Exact(path) => format!("is {}", text(path)),
        PathMatch::Prefix(path) => format!("begins {}", text(path)),
        PathMatch::PathSeparatedPrefix(path) => format!("below {}", text(path)),
        PathMatch::Regex(regex) => format!("{regex:?}"),
        PathMatch::Connect => "CONNECT".to_owned(),
    };
    if of.grpc {
        out.push_str(", gRPC");
    }
    if !of.case_sensitive {
        out.push_str(" in any case");
    }
    if let Some(method) = &of.method {
        write!(out, ", method {}", text(method)).unwrap();
    }
    for header in &of.headers {
        write!(out, ", {}", self::header(header)).unwrap();
    }
    for query in &of.query {
        let test = match &query.test {
            QueryTest::Present(is) => format!("present {is}"),
            QueryTest::Value(value) => string(value),
        };
        write!(out, ", query {} {test}", text(&query.name)).unwrap();
    }
    if let Some(fraction) = of.fraction {
        write!(out, ", {} of {}", fraction.numerator, fraction.denominator).unwrap();
    }
    out
}

fn header(of: &HeaderMatch) -> String {
    let test = match &of.test {
        HeaderTest::Present(is) => format!("present {is}"),
        HeaderTest::Value(value) => string(value),
        HeaderTest::Range(range) => format!("in {range:?}"),
    };
    let not = if of.invert { "not " } else { "" };
    let missing = if of.missing_as_empty { " (missing is empty)" } else { "" };
    format!("header {} {not}{test}{missing}", of.name)
}

/// What all levels say of filters.
fn filters(out: &mut String, indent: &str, of: &FilterOverrides) {
    for (name, says) in of.iter() {
        match says {
            FilterOverride::Disabled => writeln!(out, "{indent}filter {name} off").unwrap(),
            FilterOverride::Enabled => writeln!(out, "{indent}filter {name} on").unwrap(),
            FilterOverride::Config(FilterConfig::Rbac(config)) => {
                writeln!(out, "{indent}filter {name} instead").unwrap();
                rbac(out, &format!("{indent}  "), config);
            }
        }
    }
}

fn rbac(out: &mut String, indent: &str, of: &Rbac) {
    for (kind, rules) in [("", &of.rules), ("would ", &of.shadow_rules)] {
        let Some(rules) = rules else { continue };
        writeln!(out, "{indent}{kind}{:?}", rules.action()).unwrap();
        for policy in rules.policies() {
            writeln!(
                out,
                "{indent}  {}: {} by {}",
                policy.name,
                conditions(&policy.permissions, " or "),
                conditions(&policy.principals, " or ")
            )
            .unwrap();
        }
    }
}

fn conditions(of: &Conditions, between: &str) -> String {
    of.iter().map(condition).collect::<Vec<_>>().join(between)
}

fn condition(of: &Condition) -> String {
    match of {
        Condition::Always => "any".to_owned(),
        Condition::All(of) => format!("({})", conditions(of, " and ")),
        Condition::Any(of) => format!("({})", conditions(of, " or ")),
        Condition::Not(of) => format!("not {}", condition(of)),
        Condition::Header(of) => header(of),
        Condition::Path(of) => format!("path {}", string(of)),
        Condition::DestinationIp(of) => format!("to {of}"),
        Condition::DestinationPort(of) => format!("to {of:?}"),
        Condition::RequestedServerName(of) => format!("server name {}", string(of)),
        Condition::Authenticated(None) => "authenticated".to_owned(),
        Condition::Authenticated(Some(of)) => format!("authenticated {}", string(of)),
        Condition::SourceIp(of) => format!("source {of}"),
        Condition::DirectRemoteIp(of) => format!("direct remote {of}"),
        Condition::RemoteIp(of) => format!("remote {of}"),
    }
}

fn string(of: &StringMatch) -> String {
    let case = if of.ignore_case { " in any case" } else { "" };
    match &of.pattern {
        StringPattern::Exact(value) => format!("is {}{case}", text(value)),
        StringPattern::Prefix(value) => format!("begins {}{case}", text(value)),
        StringPattern::Suffix(value) => format!("ends {}{case}", text(value)),
        StringPattern::Contains(value) => format!("has {}{case}", text(value)),
        StringPattern::Regex(regex) => format!("{regex:?}"),
    }
}

/// The edits to a head that has every header.
fn edits(out: &mut String, of: &str, edits: &HeaderEdits) {
    edits.for_each(
        |_| true,
        |edit| match edit {
            Edit::Remove(name) => writeln!(out, "          {of} - {name}").unwrap(),
            Edit::Add(name, value) => writeln!(out, "          {of} + {name}: {}", text(value)).unwrap(),
        },
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
