//! One poisoned resource per rule: what is wrong, where, and why, word for word.
//!
//! Longer than 500 lines: it is one table per resource type, and the tables share what makes a good resource.

use prost::{Message, Name};
use proto::{
    ads, pb,
    pb::{
        envoy::{
            config::{
                bootstrap::v3::Bootstrap,
                cluster::v3::Cluster,
                core::v3 as core,
                endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, lb_endpoint::HostIdentifier},
                listener::v3::{Filter, Listener, ListenerFilter, filter::ConfigType},
                route::v3::{self as route, RouteConfiguration},
            },
            extensions::{
                filters::{
                    listener::proxy_protocol::v3::ProxyProtocol,
                    network::{
                        connection_limit::v3::ConnectionLimit,
                        http_connection_manager::v3::{
                            HttpConnectionManager,
                            http_connection_manager::{RouteSpecifier, SetCurrentClientCertDetails},
                        },
                    },
                },
                transport_sockets::{
                    proxy_protocol::v3::ProxyProtocolUpstreamTransport, raw_buffer::v3::RawBuffer,
                },
            },
            r#type::matcher::v3 as matcher,
        },
        google::protobuf,
    },
    type_url,
};
use translate::{Origin, Rejected};

/// One good resource of each type, which every case spoils a little.
const GOOD: &str = r#"
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 80}}
    listener_filters:
    - name: tls
      typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
    filter_chains:
    - filter_chain_match: {server_names: [a.example]}
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            name: r
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add: [{header: {key: x-a, value: b}}]
              routes:
              - match: {prefix: /, headers: [{name: x-b, string_match: {prefix: c}}], query_parameters: [{name: q}]}
                route:
                  weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}
                  retry_policy: {retry_on: connect-failure}
              - match: {path_separated_prefix: /r}
                redirect: {host_redirect: a.example}
              - match: {safe_regex: {regex: "/d+"}}
                direct_response: {status: 200, body: {inline_string: ok}}
  clusters:
  - name: a
    load_assignment:
      cluster_name: a
      endpoints:
      - priority: 0
        lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}]
"#;

fn good() -> Bootstrap {
    let bytes = proto::bootstrap::parse("good", GOOD).unwrap();
    Bootstrap::decode(&*bytes).unwrap()
}

fn listener() -> Listener {
    good().static_resources.unwrap().listeners.remove(0)
}

fn cluster() -> Cluster {
    good().static_resources.unwrap().clusters.remove(0)
}

fn assignment() -> ClusterLoadAssignment {
    cluster().load_assignment.unwrap()
}

fn with_manager(spoil: impl FnOnce(&mut HttpConnectionManager)) -> Listener {
    let mut listener = listener();
    let Some(ConfigType::TypedConfig(any)) = &mut listener.filter_chains[0].filters[0].config_type else {
        panic!()
    };
    let mut manager = HttpConnectionManager::decode(&*any.value).unwrap();
    spoil(&mut manager);
    any.value = manager.encode_to_vec();
    listener
}

fn routes() -> RouteConfiguration {
    let mut table = None;
    with_manager(|manager| {
        let Some(RouteSpecifier::RouteConfig(config)) = manager.route_specifier.clone() else { panic!() };
        table = Some(config);
    });
    table.unwrap()
}

fn any<M: Message + Name>(message: &M) -> protobuf::Any {
    protobuf::Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn foreign() -> protobuf::Any {
    protobuf::Any { type_url: "type.googleapis.com/foreign.Filter".into(), value: Vec::new() }
}

fn duration(seconds: i64) -> Option<protobuf::Duration> {
    Some(protobuf::Duration { seconds, nanos: 0 })
}

/// What the rejection says, and what spoils a good resource so.
type Case<R> = (&'static str, Box<dyn Fn(&mut R)>);

/// Every case: spoil a good resource, translate it, compare the whole message.
fn check<R, T>(good: impl Fn() -> R, translate: impl Fn(&R) -> Result<T, Rejected>, cases: Vec<Case<R>>) {
    assert!(translate(&good()).is_ok(), "the good one must be good");
    for (expected, spoil) in cases {
        let mut resource = good();
        spoil(&mut resource);
        let is = translate(&resource).err().map(|rejected| rejected.to_string());
        assert_eq!(is.as_deref(), Some(expected));
    }
}

macro_rules! cases {
    ($($expected:expr => $spoil:expr,)*) => { vec![$(($expected, Box::new($spoil) as Box<dyn Fn(&mut _)>)),*] };
}

#[test]
fn a_listener_is_refused_where_it_is_wrong() {
    check(
        listener,
        |listener| translate::listener::translate(listener, Origin::Dynamic),
        cases![
            ": name: required" => |of: &mut Listener| of.name.clear(),
            "web: address: required" => |of: &mut Listener| of.address = None,
            "web: address.socket_address.address: `localhost` is not an IP address" =>
                |of: &mut Listener| socket(&mut of.address).address = "localhost".into(),
            "web: address.socket_address.port_value: required" =>
                |of: &mut Listener| socket(&mut of.address).port_specifier = None,
            "web: address.socket_address.port_value: 70000 is not between 0 and 65535" =>
                |of: &mut Listener| {
                    let port = core::socket_address::PortSpecifier::PortValue(70_000);
                    socket(&mut of.address).port_specifier = Some(port);
                },
            "web: address.socket_address.protocol: not supported by Ringway" =>
                |of: &mut Listener| socket(&mut of.address).protocol = 1,
            "web: use_original_dst: not supported by Ringway" =>
                |of: &mut Listener| of.use_original_dst = Some(protobuf::BoolValue { value: true }),
            "web: filter_chains: required" => |of: &mut Listener| of.filter_chains.clear(),
            "web: filter_chains[0].filters: required" => |of: &mut Listener| of.filter_chains[0].filters.clear(),
            "web: filter_chains[0].filters[0]: this filter must be the last of its chain" =>
                |of: &mut Listener| {
                    let filter = of.filter_chains[0].filters[0].clone();
                    of.filter_chains[0].filters.push(filter);
                },
            "web: filter_chains[0].filters[0].typed_config: type.googleapis.com/foreign.Filter is not supported by \
             Ringway; supported: envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
             envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, \
             envoy.extensions.filters.network.rbac.v3.RBAC" =>
                |of: &mut Listener| {
                    of.filter_chains[0].filters[0].config_type = Some(ConfigType::TypedConfig(foreign()));
                },
            "web: filter_chains[0].filters: required" => |of: &mut Listener| {
                of.filter_chains[0].filters = vec![connection_limit(|_| {})];
            },
            "web: filter_chains[0].filters[1].typed_config: a connection limit comes first, and another filter behind it" =>
                |of: &mut Listener| {
                    of.filter_chains[0].filters = vec![connection_limit(|_| {}), connection_limit(|_| {})];
                },
            "web: filter_chains[0].filters[0].typed_config.max_connections: required" => |of: &mut Listener| {
                of.filter_chains[0].filters.insert(0, connection_limit(|limit| limit.max_connections = None));
            },
            "web: filter_chains[0].filters[0].typed_config.stat_prefix: required" => |of: &mut Listener| {
                of.filter_chains[0].filters.insert(0, connection_limit(|limit| limit.stat_prefix.clear()));
            },
            "web: filter_chains[0].filters[0].typed_config.runtime_enabled: not supported by Ringway" =>
                |of: &mut Listener| {
                    let limit = connection_limit(|limit| limit.runtime_enabled = Some(Default::default()));
                    of.filter_chains[0].filters.insert(0, limit);
                },
            "web: filter_chains[0].transport_socket.typed_config: \
             type.googleapis.com/foreign.Filter is not supported by Ringway; supported: \
             envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer, \
             envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" =>
                |of: &mut Listener| {
                    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(foreign()));
                    let socket = core::TransportSocket { name: "tls".into(), config_type };
                    of.filter_chains[0].transport_socket = Some(socket);
                },
            "web: filter_chains[0].filter_chain_match.source_ports: not supported by Ringway" =>
                |of: &mut Listener| of.filter_chains[0].filter_chain_match.as_mut().unwrap().source_ports.push(1),
            "web: filter_chains[0].filter_chain_match.transport_protocol: quic is not supported by Ringway; \
             supported: tls, raw_buffer" => |of: &mut Listener| {
                of.filter_chains[0].filter_chain_match.as_mut().unwrap().transport_protocol = "quic".into();
            },
            "web: filter_chains: filter chains 0 and 1 have the same matching rules" => |of: &mut Listener| {
                let chain = of.filter_chains[0].clone();
                of.filter_chains.push(chain);
            },
            "web: listener_filters[0].typed_config: type.googleapis.com/foreign.Filter is not supported by Ringway; \
             supported: envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, \
             envoy.extensions.filters.listener.http_inspector.v3.HttpInspector, \
             envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => |of: &mut Listener| {
                let config = pb::envoy::config::listener::v3::listener_filter::ConfigType::TypedConfig(foreign());
                of.listener_filters[0].config_type = Some(config);
            },
            "web: listener_filters[1]: the PROXY protocol header comes first, so its filter must too" =>
                |of: &mut Listener| of.listener_filters.push(proxy_protocol(|_| {})),
            "web: listener_filters[0].typed_config.rules: not supported by Ringway" => |of: &mut Listener| {
                of.listener_filters[0] = proxy_protocol(|filter| filter.rules.push(Default::default()));
            },
            "web: listener_filters[0].typed_config.pass_through_tlvs: not supported by Ringway" =>
                |of: &mut Listener| {
                    of.listener_filters[0] =
                        proxy_protocol(|filter| filter.pass_through_tlvs = Some(Default::default()));
                },
            "web: listener_filters[0].typed_config.disallowed_versions[0]: `7` is not a value of this enum" =>
                |of: &mut Listener| {
                    of.listener_filters[0] = proxy_protocol(|filter| filter.disallowed_versions.push(7));
                },
            "web: listener_filters[0].typed_config.disallowed_versions: no version is left" => |of: &mut Listener| {
                of.listener_filters[0] = proxy_protocol(|filter| filter.disallowed_versions = vec![0, 1]);
            },
        ],
    );
}

fn proxy_protocol(change: impl FnOnce(&mut ProxyProtocol)) -> ListenerFilter {
    let mut filter = ProxyProtocol::default();
    change(&mut filter);
    let config = pb::envoy::config::listener::v3::listener_filter::ConfigType::TypedConfig(any(&filter));
    ListenerFilter { name: "proxy".into(), config_type: Some(config), ..Default::default() }
}

fn connection_limit(spoil: impl FnOnce(&mut ConnectionLimit)) -> Filter {
    let max_connections = Some(protobuf::UInt64Value { value: 10 });
    let mut limit = ConnectionLimit { stat_prefix: "few".into(), max_connections, ..Default::default() };
    spoil(&mut limit);
    Filter { name: "limit".into(), config_type: Some(ConfigType::TypedConfig(any(&limit))) }
}

fn transport_socket(any: protobuf::Any) -> Option<core::TransportSocket> {
    let config_type = Some(core::transport_socket::ConfigType::TypedConfig(any));
    Some(core::TransportSocket { name: "socket".into(), config_type })
}

fn tells_client(spoil: impl FnOnce(&mut ProxyProtocolUpstreamTransport)) -> Option<core::TransportSocket> {
    let mut socket = ProxyProtocolUpstreamTransport {
        transport_socket: transport_socket(any(&RawBuffer::default())),
        ..Default::default()
    };
    spoil(&mut socket);
    transport_socket(any(&socket))
}

fn socket(address: &mut Option<core::Address>) -> &mut core::SocketAddress {
    match address.as_mut().and_then(|address| address.address.as_mut()) {
        Some(core::address::Address::SocketAddress(socket)) => socket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_manager_is_refused_where_it_is_wrong() {
    let at = "web: filter_chains[0].filters[0].typed_config";
    let cases: Vec<Case<HttpConnectionManager>> = cases![
        ".stat_prefix: required" => |of: &mut HttpConnectionManager| of.stat_prefix.clear(),
        ".route_specifier: required" => |of: &mut HttpConnectionManager| of.route_specifier = None,
        ".codec_type: HTTP3 is not supported by Ringway; supported: AUTO, HTTP1, HTTP2" =>
            |of: &mut HttpConnectionManager| of.codec_type = 3,
        ".codec_type: `4` is not a value of this enum" => |of: &mut HttpConnectionManager| of.codec_type = 4,
        ".http_filters: the last filter must be the router" =>
            |of: &mut HttpConnectionManager| of.http_filters.clear(),
        ".http_filters[0]: the router is the last filter" => |of: &mut HttpConnectionManager| {
            let router = of.http_filters[0].clone();
            of.http_filters.push(router);
        },
        ".http_filters[0].typed_config: type.googleapis.com/foreign.Filter is not supported by Ringway; supported: \
         envoy.extensions.filters.http.router.v3.Router, envoy.extensions.filters.http.rbac.v3.RBAC, \
         envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig" => |of: &mut HttpConnectionManager| {
            of.http_filters[0].config_type = Some(
                pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType::TypedConfig(
                    foreign(),
                ),
            );
        },
        ".forward_client_cert_details: `9` is not a value of this enum" =>
            |of: &mut HttpConnectionManager| of.forward_client_cert_details = 9,
        ".set_current_client_cert_details.chain: not supported by Ringway" => |of: &mut HttpConnectionManager| {
            let details = SetCurrentClientCertDetails { chain: true, ..Default::default() };
            of.set_current_client_cert_details = Some(details);
        },
        ".path_with_escaped_slashes_action: `9` is not a value of this enum" =>
            |of: &mut HttpConnectionManager| of.path_with_escaped_slashes_action = 9,
        ".request_timeout: `-1.000000000s` is not a duration of zero or more" =>
            |of: &mut HttpConnectionManager| of.request_timeout = duration(-1),
    ];
    for (expected, spoil) in cases {
        let listener = with_manager(|manager| spoil(manager));
        let rejected = translate::listener::translate(&listener, Origin::Dynamic).unwrap_err();
        assert_eq!(rejected.to_string(), format!("{at}{expected}"));
    }
}

#[test]
fn an_unknown_filter_that_is_optional_or_off_is_dropped() {
    for (is_optional, disabled) in [(true, false), (false, true)] {
        let listener = with_manager(|manager| {
            let mut filter = manager.http_filters[0].clone();
            filter.config_type = Some(
                pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType::TypedConfig(
                    foreign(),
                ),
            );
            (filter.is_optional, filter.disabled) = (is_optional, disabled);
            manager.http_filters.insert(0, filter);
        });
        translate::listener::translate(&listener, Origin::Dynamic).unwrap();
    }
}

#[test]
fn a_limit_beyond_ours_is_refused_in_a_file_and_capped_from_a_control_plane() {
    let at = "web: filter_chains[0].filters[0].typed_config";
    let with = |kilobytes, lines| {
        with_manager(|of| {
            of.max_request_headers_kb = Some(protobuf::UInt32Value { value: kilobytes });
            let max_headers_count = Some(protobuf::UInt32Value { value: lines });
            of.common_http_protocol_options =
                Some(core::HttpProtocolOptions { max_headers_count, ..Default::default() });
        })
    };
    for (kilobytes, lines, refused) in [
        (60, 256, None),
        (61, 256, Some(".max_request_headers_kb: 61 is not between 1 and 60")),
        (0, 256, Some(".max_request_headers_kb: 0 is not between 1 and 60")),
        (1, 257, Some(".common_http_protocol_options.max_headers_count: 257 is not between 1 and 256")),
        (1, 0, Some(".common_http_protocol_options.max_headers_count: 0 is not between 1 and 256")),
    ] {
        let of_file = translate::listener::translate(&with(kilobytes, lines), Origin::Static);
        assert_eq!(of_file.err().map(|e| e.to_string()), refused.map(|refused| format!("{at}{refused}")));
        let listener = translate::listener::translate(&with(kilobytes, lines), Origin::Dynamic).unwrap();
        let chain = listener.value.filter_chains.iter().next().unwrap();
        let policy::network_filter::NetworkFilter::HttpConnectionManager(manager) = &chain.filter else {
            panic!()
        };
        assert_eq!(manager.request_head_bytes_max, kilobytes.clamp(1, 60) as usize * 1024);
        assert_eq!(manager.headers_count_max, lines.clamp(1, 256) as usize);
    }
}

fn weighted(of: &mut RouteConfiguration) -> &mut route::WeightedCluster {
    match &mut forward(of).cluster_specifier {
        Some(route::route_action::ClusterSpecifier::WeightedClusters(clusters)) => clusters,
        other => panic!("{other:?}"),
    }
}

fn forward(of: &mut RouteConfiguration) -> &mut route::RouteAction {
    match &mut of.virtual_hosts[0].routes[0].action {
        Some(route::route::Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn matches(of: &mut RouteConfiguration, position: usize) -> &mut route::RouteMatch {
    of.virtual_hosts[0].routes[position].r#match.as_mut().unwrap()
}

#[test]
fn a_route_table_is_refused_where_it_is_wrong() {
    use route::{
        redirect_action::SchemeRewriteSpecifier, route_action::HostRewriteSpecifier,
        route_match::PathSpecifier,
    };
    check(
        routes,
        |table| translate::route::translate(table, Origin::Dynamic),
        cases![
            "r: vhds: not supported by Ringway" =>
                |of: &mut RouteConfiguration| of.vhds = Some(route::Vhds::default()),
            "r: internal_only_headers: not supported by Ringway" =>
                |of: &mut RouteConfiguration| of.internal_only_headers.push("x".into()),
            "r: virtual_hosts[0].name: required" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].name.clear(),
            "r: virtual_hosts[0].domains: required" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].domains.clear(),
            "r: virtual_hosts[1].domains[0]: `*` is there twice" => |of: &mut RouteConfiguration| {
                let host = of.virtual_hosts[0].clone();
                of.virtual_hosts.push(host);
            },
            "r: virtual_hosts[0].require_tls: not supported by Ringway" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].require_tls = 2,
            "r: virtual_hosts[0].request_headers_to_add[0].header: required" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].request_headers_to_add[0].header = None,
            "r: virtual_hosts[0].request_headers_to_add[0].header: header \"host\" may not be edited" =>
                |of: &mut RouteConfiguration| header(of).key = "host".into(),
            "r: virtual_hosts[0].request_headers_to_add[0].header.value: `%REQ(x)%` is not literal text \
             (`%COMMAND%` is not supported by Ringway)" =>
                |of: &mut RouteConfiguration| header(of).value = "%REQ(x)%".into(),
            "r: virtual_hosts[0].request_headers_to_add[0].header: value of header \"x-a\" has a control character" =>
                |of: &mut RouteConfiguration| header(of).value = "a\r\nb: c".into(),
            "r: virtual_hosts[0].request_headers_to_add[0].append_action: `9` is not a value of this enum" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].request_headers_to_add[0].append_action = 9,
            "r: virtual_hosts[0].routes[0].match: required" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].routes[0].r#match = None,
            "r: virtual_hosts[0].routes[0].match.path_specifier: required" =>
                |of: &mut RouteConfiguration| matches(of, 0).path_specifier = None,
            "r: virtual_hosts[0].routes[1].match.path_separated_prefix: `/r/` is not a path of two characters or more \
             without `?`, `#` or a `/` at its end" => |of: &mut RouteConfiguration| {
                matches(of, 1).path_specifier = Some(PathSpecifier::PathSeparatedPrefix("/r/".into()));
            },
            "r: virtual_hosts[0].routes[0].match.headers[0].name: required" =>
                |of: &mut RouteConfiguration| matches(of, 0).headers[0].name.clear(),
            "r: virtual_hosts[0].routes[0].match.query_parameters[0].name: required" =>
                |of: &mut RouteConfiguration| matches(of, 0).query_parameters[0].name.clear(),
            "r: virtual_hosts[0].routes[0].match.tls_context: not supported by Ringway" =>
                |of: &mut RouteConfiguration| matches(of, 0).tls_context = Some(Default::default()),
            "r: virtual_hosts[0].routes[0].match.runtime_fraction.default_value: required" =>
                |of: &mut RouteConfiguration| matches(of, 0).runtime_fraction = Some(Default::default()),
            "r: virtual_hosts[0].routes[0].action: required" =>
                |of: &mut RouteConfiguration| of.virtual_hosts[0].routes[0].action = None,
            "r: virtual_hosts[0].routes[0].route.cluster_specifier: required" =>
                |of: &mut RouteConfiguration| forward(of).cluster_specifier = None,
            "r: virtual_hosts[0].routes[0].route.weighted_clusters.clusters: required" =>
                |of: &mut RouteConfiguration| weighted(of).clusters.clear(),
            "r: virtual_hosts[0].routes[0].route.weighted_clusters.clusters[1].name: required" =>
                |of: &mut RouteConfiguration| weighted(of).clusters[1].name.clear(),
            "r: virtual_hosts[0].routes[0].route.weighted_clusters.clusters: the sum of the weights is zero" =>
                |of: &mut RouteConfiguration| weighted(of).clusters.iter_mut().for_each(|of| of.weight = None),
            "r: virtual_hosts[0].routes[0].route.weighted_clusters.clusters: 4294967296 is not between 1 and 4294967295" =>
                |of: &mut RouteConfiguration| {
                    weighted(of).clusters[0].weight = Some(protobuf::UInt32Value { value: u32::MAX });
                },
            "r: virtual_hosts[0].routes[0].route.regex_rewrite: prefix_rewrite is set as well" =>
                |of: &mut RouteConfiguration| {
                    let of = forward(of);
                    (of.prefix_rewrite, of.regex_rewrite) = ("/a".into(), Some(Default::default()));
                },
            "r: virtual_hosts[0].routes[0].route.prefix_rewrite: `/a b` is not visible ASCII without `#`" =>
                |of: &mut RouteConfiguration| forward(of).prefix_rewrite = "/a b".into(),
            "r: virtual_hosts[0].routes[0].route.prefix_rewrite: `/a\\r\\nx: y` is not visible ASCII without `#`" =>
                |of: &mut RouteConfiguration| forward(of).prefix_rewrite = "/a\r\nx: y".into(),
            "r: virtual_hosts[0].routes[0].route.regex_rewrite.substitution: `/#` is not visible ASCII without `#`" => |of: &mut RouteConfiguration| {
                forward(of).regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                    pattern: Some(matcher::RegexMatcher { regex: "a".into(), ..Default::default() }),
                    substitution: "/#".into(),
                });
            },
            "r: virtual_hosts[0].routes[0].route.host_rewrite_literal: `a b` is not `host` or `host:port`" =>
                |of: &mut RouteConfiguration| {
                    let literal = HostRewriteSpecifier::HostRewriteLiteral("a b".into());
                    forward(of).host_rewrite_specifier = Some(literal);
                },
            "r: virtual_hosts[0].request_headers_to_add[0].header: header \"expect\" may not be edited" =>
                |of: &mut RouteConfiguration| header(of).key = "expect".into(),
            "r: virtual_hosts[0].routes[0].match.headers[0].name: :scheme is not supported by Ringway; supported: \
             :method, :path, :authority" =>
                |of: &mut RouteConfiguration| matches(of, 0).headers[0].name = ":scheme".into(),
            "r: virtual_hosts[0].routes[0].match.headers[0].name: not supported by Ringway" =>
                |of: &mut RouteConfiguration| {
                    matches(of, 0).headers[0].name = "X-Forwarded-Client-Cert".into();
                },
            "r: virtual_hosts[0].routes[1].redirect.scheme_redirect: `a\\n` is not text without control characters" =>
                |of: &mut RouteConfiguration| {
                    let scheme = SchemeRewriteSpecifier::SchemeRedirect("a\n".into());
                    redirect(of).scheme_rewrite_specifier = Some(scheme);
                },
            "r: virtual_hosts[0].routes[0].route.timeout: `-1.000000000s` is not a duration of zero or more" =>
                |of: &mut RouteConfiguration| forward(of).timeout = duration(-1),
            "r: virtual_hosts[0].routes[0].route.request_mirror_policies: not supported by Ringway" =>
                |of: &mut RouteConfiguration| forward(of).request_mirror_policies.push(Default::default()),
            "r: virtual_hosts[0].routes[0].typed_per_filter_config[\"f\"]: type.googleapis.com/foreign.Filter is not \
             supported by Ringway; supported: envoy.extensions.filters.http.rbac.v3.RBACPerRoute" =>
                |of: &mut RouteConfiguration| {
                of.virtual_hosts[0].routes[0].typed_per_filter_config.insert("f".into(), foreign());
            },
            "r: virtual_hosts[0].routes[1].redirect.port_redirect: 70000 is not between 0 and 65535" =>
                |of: &mut RouteConfiguration| redirect(of).port_redirect = 70_000,
            "r: virtual_hosts[0].routes[1].redirect.host_redirect: `a\\r\\nb` is not text without control characters" =>
                |of: &mut RouteConfiguration| redirect(of).host_redirect = "a\r\nb".into(),
            "r: virtual_hosts[0].routes[2].direct_response.status: 99 is not between 200 and 599" =>
                |of: &mut RouteConfiguration| direct(of).status = 99,
            "r: virtual_hosts[0].routes[2].direct_response.body: 5000 is not between 0 and 4096" =>
                |of: &mut RouteConfiguration| {
                    let specifier = Some(core::data_source::Specifier::InlineBytes(vec![b'x'; 5000]));
                    direct(of).body = Some(core::DataSource { specifier, ..Default::default() });
                },
        ],
    );
}

fn header(of: &mut RouteConfiguration) -> &mut core::HeaderValue {
    of.virtual_hosts[0].request_headers_to_add[0].header.as_mut().unwrap()
}

fn redirect(of: &mut RouteConfiguration) -> &mut route::RedirectAction {
    match &mut of.virtual_hosts[0].routes[1].action {
        Some(route::route::Action::Redirect(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn direct(of: &mut RouteConfiguration) -> &mut route::DirectResponseAction {
    match &mut of.virtual_hosts[0].routes[2].action {
        Some(route::route::Action::DirectResponse(action)) => action,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_regular_expression_that_does_not_compile_refuses_its_route() {
    let mut table = routes();
    let regex = pb::envoy::r#type::matcher::v3::RegexMatcher { regex: "(".into(), ..Default::default() };
    matches(&mut table, 2).path_specifier = Some(route::route_match::PathSpecifier::SafeRegex(regex));
    let rejected = translate::route::translate(&table, Origin::Dynamic).unwrap_err().to_string();
    let at =
        "r: virtual_hosts[0].routes[2].match.safe_regex.regex: regular expression \"(\" does not compile: ";
    assert!(rejected.starts_with(at), "{rejected}");
}

#[test]
fn retries_that_a_control_plane_asks_for_are_fewer_and_in_a_file_are_refused() {
    let mut table = routes();
    forward(&mut table).retry_policy.as_mut().unwrap().retry_on = "connect-failure,5xx".into();
    translate::route::translate(&table, Origin::Dynamic).unwrap();
    assert_eq!(
        translate::route::translate(&table, Origin::Static).unwrap_err().to_string(),
        "r: virtual_hosts[0].routes[0].route.retry_policy.retry_on: 5xx is not supported by Ringway; \
         supported: connect-failure"
    );
}

#[test]
fn a_cluster_is_refused_where_it_is_wrong() {
    use pb::envoy::config::cluster::v3::{
        CircuitBreakers, circuit_breakers::Thresholds, cluster as fields, cluster::ClusterDiscoveryType,
    };
    let kind = |kind: fields::DiscoveryType| Some(ClusterDiscoveryType::Type(kind as i32));
    check(
        cluster,
        |cluster| translate::cluster::translate(cluster, Origin::Dynamic),
        cases![
            ": name: required" => |of: &mut Cluster| of.name.clear(),
            "a: load_assignment: required" => |of: &mut Cluster| of.load_assignment = None,
            "a: connect_timeout: `0s` is not a duration above zero" =>
                |of: &mut Cluster| of.connect_timeout = duration(0),
            "a: health_checks: not supported by Ringway" => |of: &mut Cluster| of.health_checks.push(Default::default()),
            "a: outlier_detection: not supported by Ringway" =>
                |of: &mut Cluster| of.outlier_detection = Some(Default::default()),
            "a: lb_policy: RING_HASH is not supported by Ringway; supported: ROUND_ROBIN, RANDOM, LEAST_REQUEST" =>
                |of: &mut Cluster| of.lb_policy = 2,
            "a: type: ORIGINAL_DST is not supported by Ringway; supported: STATIC, STRICT_DNS, LOGICAL_DNS, EDS" =>
                move |of: &mut Cluster| of.cluster_discovery_type = kind(fields::DiscoveryType::OriginalDst),
            "a: load_assignment: an EDS cluster gets its endpoints by EDS" =>
                move |of: &mut Cluster| of.cluster_discovery_type = kind(fields::DiscoveryType::Eds),
            "a: eds_cluster_config: required" => move |of: &mut Cluster| {
                of.cluster_discovery_type = kind(fields::DiscoveryType::Eds);
                of.load_assignment = None;
            },
            "a: eds_cluster_config.eds_config: required" => move |of: &mut Cluster| {
                of.cluster_discovery_type = kind(fields::DiscoveryType::Eds);
                of.load_assignment = None;
                of.eds_cluster_config = Some(Default::default());
            },
            "a: eds_cluster_config.eds_config.initial_fetch_timeout: `-1.000000000s` is not a duration of zero or more" =>
                move |of: &mut Cluster| {
                    of.cluster_discovery_type = kind(fields::DiscoveryType::Eds);
                    of.load_assignment = None;
                    let ads = core::config_source::ConfigSourceSpecifier::Ads(Default::default());
                    let source = core::ConfigSource {
                        config_source_specifier: Some(ads),
                        initial_fetch_timeout: duration(-1),
                        ..Default::default()
                    };
                    let eds = fields::EdsClusterConfig { eds_config: Some(source), ..Default::default() };
                    of.eds_cluster_config = Some(eds);
                },
            "a: load_assignment: a LOGICAL_DNS cluster has exactly one endpoint" => move |of: &mut Cluster| {
                of.cluster_discovery_type = kind(fields::DiscoveryType::LogicalDns);
                of.load_assignment.as_mut().unwrap().endpoints.clear();
            },
            "a: load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: `a b:c` is not \
             a host name" => move |of: &mut Cluster| {
                of.cluster_discovery_type = kind(fields::DiscoveryType::StrictDns);
                let endpoint = &mut of.load_assignment.as_mut().unwrap().endpoints[0].lb_endpoints[0];
                socket(&mut address_of(endpoint).address).address = "a b:c".into();
            },
            "a: common_http_protocol_options.headers_with_underscores_action: not supported by Ringway" =>
                |of: &mut Cluster| common(of).headers_with_underscores_action = 1,
            "a: common_http_protocol_options.max_stream_duration: not supported by Ringway" =>
                |of: &mut Cluster| common(of).max_stream_duration = duration(1),
            "a: common_http_protocol_options.max_connection_duration: `-1.000000000s` is not a duration of zero or more" =>
                |of: &mut Cluster| common(of).max_connection_duration = duration(-1),
            "a: circuit_breakers.thresholds[0].max_connections: 10 is not between 1024 and 4294967295" =>
                |of: &mut Cluster| {
                    let max_connections = Some(protobuf::UInt32Value { value: 10 });
                    let threshold = Thresholds { max_connections, ..Default::default() };
                    of.circuit_breakers =
                        Some(CircuitBreakers { thresholds: vec![threshold], ..Default::default() });
                },
            "a: common_lb_config.healthy_panic_threshold: `101` is not a percentage" => |of: &mut Cluster| {
                let healthy_panic_threshold = Some(pb::envoy::r#type::v3::Percent { value: 101.0 });
                of.common_lb_config = Some(fields::CommonLbConfig { healthy_panic_threshold, ..Default::default() });
            },
            "a: transport_socket.typed_config: required" =>
                |of: &mut Cluster| of.transport_socket = Some(Default::default()),
            "a: transport_socket.typed_config: type.googleapis.com/foreign.Filter is not supported by Ringway; \
             supported: envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer, \
             envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, \
             envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" =>
                |of: &mut Cluster| of.transport_socket = transport_socket(foreign()),
            "a: transport_socket.typed_config.transport_socket: required" =>
                |of: &mut Cluster| of.transport_socket = tells_client(|of| of.transport_socket = None),
            "a: transport_socket.typed_config.transport_socket.typed_config: type.googleapis.com/foreign.Filter is not \
             supported by Ringway; supported: envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer, \
             envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" =>
                |of: &mut Cluster| {
                    of.transport_socket = tells_client(|of| of.transport_socket = transport_socket(foreign()));
                },
            "a: transport_socket.typed_config.config.version: `2` is not a value of this enum" => |of: &mut Cluster| {
                of.transport_socket = tells_client(|of| of.config.get_or_insert_default().version = 2);
            },
            "a: transport_socket.typed_config.config.added_tlvs: not supported by Ringway" => |of: &mut Cluster| {
                of.transport_socket =
                    tells_client(|of| of.config.get_or_insert_default().added_tlvs.push(Default::default()));
            },
            "a: transport_socket_matches[0].transport_socket: required" =>
                |of: &mut Cluster| of.transport_socket_matches.push(Default::default()),
            "a: typed_extension_protocol_options[\"x\"]: type.googleapis.com/foreign.Filter is not supported by \
             Ringway; supported: envoy.extensions.upstreams.http.v3.HttpProtocolOptions" => |of: &mut Cluster| {
                of.typed_extension_protocol_options.insert("x".into(), foreign());
            },
        ],
    );
}

#[test]
fn of_typed_balancing_policies_the_first_known_one_is_taken() {
    use pb::envoy::{
        config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy},
        extensions::load_balancing_policies::least_request::v3::LeastRequest,
    };
    let policy = |config| Policy {
        typed_extension_config: Some(core::TypedExtensionConfig {
            name: "lb".into(),
            typed_config: Some(config),
        }),
    };
    let mut value = cluster();
    value.load_balancing_policy = Some(LoadBalancingPolicy {
        policies: vec![policy(foreign()), policy(any(&LeastRequest::default()))],
    });
    let config = translate::cluster::translate(&value, Origin::Dynamic).unwrap();
    assert_eq!(config.balance, policy::cluster::Balance::LeastRequest { choices: 2 });

    let choices = |value| Some(protobuf::UInt32Value { value });
    for (wanted, choices) in [(choices(3), 3), (choices(1000), policy::limits::LEAST_REQUEST_CHOICES_MAX)] {
        let least = LeastRequest { choice_count: wanted, ..Default::default() };
        value.load_balancing_policy = Some(LoadBalancingPolicy { policies: vec![policy(any(&least))] });
        let config = translate::cluster::translate(&value, Origin::Dynamic).unwrap();
        assert_eq!(config.balance, policy::cluster::Balance::LeastRequest { choices });
    }

    value.load_balancing_policy = Some(LoadBalancingPolicy { policies: vec![policy(foreign())] });
    let rejected = translate::cluster::translate(&value, Origin::Dynamic).unwrap_err().to_string();
    let at = "a: load_balancing_policy.policies[0].typed_extension_config.typed_config: ";
    assert!(rejected.starts_with(at) && rejected.contains("supported: envoy"), "{rejected}");
}

#[test]
fn an_assignment_is_refused_where_it_is_wrong() {
    fn endpoint(of: &mut ClusterLoadAssignment) -> &mut LbEndpoint {
        &mut of.endpoints[0].lb_endpoints[0]
    }
    check(
        assignment,
        translate::endpoint::translate,
        cases![
            ": cluster_name: required" => |of: &mut ClusterLoadAssignment| of.cluster_name.clear(),
            "a: endpoints[0].priority: 129 is not between 0 and 128" =>
                |of: &mut ClusterLoadAssignment| of.endpoints[0].priority = 129,
            "a: endpoints[0].load_balancing_weight: 0 is not between 1 and 4294967295" =>
                |of: &mut ClusterLoadAssignment| of.endpoints[0].load_balancing_weight = Some(Default::default()),
            "a: endpoints[0].lb_endpoints[0].load_balancing_weight: 0 is not between 1 and 4294967295" =>
                |of: &mut ClusterLoadAssignment| endpoint(of).load_balancing_weight = Some(Default::default()),
            "a: endpoints[0].lb_endpoints[0].health_status: `77` is not a value of this enum" =>
                |of: &mut ClusterLoadAssignment| endpoint(of).health_status = 77,
            "a: endpoints[0].lb_endpoints[0].host_identifier: required" =>
                |of: &mut ClusterLoadAssignment| endpoint(of).host_identifier = None,
            "a: endpoints[0].lb_endpoints[0].endpoint_name: not supported by Ringway" =>
                |of: &mut ClusterLoadAssignment| {
                    endpoint(of).host_identifier = Some(HostIdentifier::EndpointName("x".into()));
                },
            "a: endpoints[0].lb_endpoints[0].endpoint.hostname: `a b` is not `host` or `host:port`" =>
                |of: &mut ClusterLoadAssignment| address_of(endpoint(of)).hostname = "a b".into(),
            "a: endpoints[0].lb_endpoints[0].endpoint.address: required" => |of: &mut ClusterLoadAssignment| {
                endpoint(of).host_identifier = Some(HostIdentifier::Endpoint(Default::default()));
            },
            "a: policy.drop_overloads: not supported by Ringway" => |of: &mut ClusterLoadAssignment| {
                of.policy = Some(Default::default());
                of.policy.as_mut().unwrap().drop_overloads.push(Default::default());
            },
            "a: policy.overprovisioning_factor: 0 is not between 1 and 4294967295" =>
                |of: &mut ClusterLoadAssignment| {
                    of.policy = Some(Default::default());
                    of.policy.as_mut().unwrap().overprovisioning_factor = Some(Default::default());
                },
        ],
    );
}

#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn common(of: &mut Cluster) -> &mut core::HttpProtocolOptions {
    of.common_http_protocol_options.get_or_insert_default()
}

fn address_of(of: &mut LbEndpoint) -> &mut Endpoint {
    match &mut of.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_resource_must_be_what_its_envelope_says() {
    let good =
        ads::Resource { version: "1".into(), name: "a".into(), resource: Some(ads::Any::pack(&cluster())) };
    translate::resource(type_url::CLUSTER, &good).unwrap();
    let broken = ads::Any { type_url: type_url::CLUSTER.into(), value: vec![0xff; 3].into() };
    for (expected, resource) in [
        ("b: the resource is named `a` inside", ads::Resource { name: "b".into(), ..good.clone() }),
        ("a: required", ads::Resource { resource: None, ..good.clone() }),
        (
            "a: a resource of type type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment was not asked for",
            ads::Resource { resource: Some(ads::Any::pack(&assignment())), ..good.clone() },
        ),
        (
            "a: not a valid type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ads::Resource { resource: Some(broken), ..good.clone() },
        ),
    ] {
        assert_eq!(translate::resource(type_url::CLUSTER, &resource).unwrap_err().to_string(), expected);
    }
}

#[test]
fn no_spoiled_byte_makes_translation_panic() {
    let bodies = [
        ads::Any::pack(&listener()),
        ads::Any::pack(&routes()),
        ads::Any::pack(&cluster()),
        ads::Any::pack(&assignment()),
    ];
    let mut refused = 0;
    for body in bodies {
        for position in 0..body.value.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, body.value[position] ^ 1, body.value[position] ^ 8] {
                let mut value = body.value.to_vec();
                value[position] = byte;
                let resource = Some(ads::Any { value: value.into(), ..body.clone() });
                let resource = ads::Resource { resource, ..ads::Resource::default() };
                refused += usize::from(translate::resource(&body.type_url, &resource).is_err());
            }
        }
    }
    assert!(refused > 1000, "{refused} refused: the spoiling reaches the checks");
}
