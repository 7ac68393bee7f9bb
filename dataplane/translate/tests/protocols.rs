//! HTTP/2, upgrades, CONNECT and gRPC: what the fields of each mean and what is refused. What all of it becomes is in
//! `golden/protocols.yaml`.

use policy::{
    cluster::{ClusterConfig, UpstreamProtocol},
    http2::{Http2Options, Keepalive},
    limits,
    network_filter::{HttpConnectionManager, NetworkFilter, RouteSource},
    route::{Forward, RouteAction},
};
use prost::Message;
use proto::pb::envoy::config::{bootstrap::v3::Bootstrap, cluster::v3::Cluster, listener::v3::Listener};
use std::{sync::Arc, time::Duration};
use translate::{Origin, Rejected};

const ROUTE: &str = "route_config.virtual_hosts[0].routes[0].";

/// A listener with one route, and a cluster; each argument is fields in YAML's short form.
fn file(manager: &str, matches: &str, route: &str, cluster: &str) -> (Listener, Cluster) {
    let text = format!(
        r#"
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config: {{
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
          stat_prefix: web,
          http_filters: [{{
            name: router,
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          }}],
          route_config: {{virtual_hosts: [{{
            name: all, domains: ["*"],
            routes: [{{match: {{ {matches} }}, route: {{ cluster: a, {route} }} }}]
          }}]}},
          {manager}
        }}
  clusters: [{{ name: a, load_assignment: {{cluster_name: a}}, {cluster} }}]
"#
    );
    let bytes = proto::bootstrap::parse("file", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut resources = Bootstrap::decode(&*bytes).unwrap().static_resources.unwrap();
    (resources.listeners.remove(0), resources.clusters.remove(0))
}

fn cluster_of(cluster: &Cluster, origin: Origin) -> Result<ClusterConfig, Rejected> {
    translate::cluster::translate(cluster, origin)
}

fn cluster(fields: &str) -> ClusterConfig {
    cluster_of(&file("", "prefix: /", "", fields).1, Origin::Static).unwrap()
}

fn manager_of(listener: &Listener, origin: Origin) -> Result<Arc<HttpConnectionManager>, Rejected> {
    let listener = translate::listener::translate(listener, origin)?.value;
    let chain = listener.filter_chains.iter().next().unwrap();
    let NetworkFilter::HttpConnectionManager(manager) = &chain.filter else { panic!() };
    Ok(manager.clone())
}

fn manager(fields: &str) -> Arc<HttpConnectionManager> {
    manager_of(&file(fields, "prefix: /", "", "").0, Origin::Static).unwrap()
}

fn forward<T>(manager: &str, route: &str, of: impl Fn(&HttpConnectionManager, &Forward) -> T) -> T {
    let manager = manager_of(&file(manager, "prefix: /", route, "").0, Origin::Static).unwrap();
    let RouteSource::Inline(table) = &manager.routes else { panic!() };
    let RouteAction::Forward(forward) = &table.virtual_hosts()[0].routes()[0].action else { panic!() };
    of(&manager, forward)
}

fn http2(fields: &str) -> String {
    format!("http2_protocol_options: {{ {fields} }}")
}

fn extension(fields: &str) -> String {
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    format!(
        "typed_extension_protocol_options: {{ {name}: {{ '@type': type.googleapis.com/{name}, {fields} }} }}"
    )
}

#[test]
fn every_option_of_http2_has_its_place() {
    let set = "max_concurrent_streams: 7, initial_stream_window_size: 70000, \
               initial_connection_window_size: 80000, hpack_table_size: 0, allow_connect: true, \
               max_outbound_frames: 11, max_outbound_control_frames: 12, \
               max_consecutive_inbound_frames_with_empty_payload: 0, \
               max_inbound_priority_frames_per_stream: 14, \
               max_inbound_window_update_frames_per_data_frame_sent: 15, \
               stream_reset_burst: 16, stream_reset_rate: 17, \
               connection_keepalive: {interval: 0.5s, timeout: 1s, interval_jitter: {value: 9.6}, \
                                      connection_idle_interval: 2s}";
    let keepalive = Keepalive {
        interval: Some(Duration::from_millis(500)),
        jitter_percent: 10,
        idle_interval: Some(Duration::from_secs(2)),
        timeout: Duration::from_secs(1),
    };
    let expected = Http2Options {
        streams_max: 7,
        stream_window_bytes: 70_000,
        connection_window_bytes: 80_000,
        table_bytes: 0,
        allow_connect: true,
        keepalive: Some(keepalive),
        outbound_frames_max: 11,
        outbound_control_frames_max: 12,
        empty_frames_max: 0,
        priority_frames_per_stream_max: 14,
        window_updates_per_data_frame_max: 15,
        resets_burst: 16,
        resets_per_second: 17,
    };
    assert_eq!(manager(&http2(set)).http2, expected);
    assert_eq!(cluster(&http2(set)).http2, expected);
    assert_eq!(manager(&http2("")).http2, Http2Options::downstream());
    assert_eq!(cluster(&http2("")).http2, Http2Options::upstream());
    // Without an interval nobody is asked, and of ten seconds a share is chance.
    for (settings, expected) in [
        ("timeout: 1s", None),
        ("timeout: 1s, interval: 10s", Some(limits::HTTP2_KEEPALIVE_JITTER_PERCENT_DEFAULT)),
        ("timeout: 1s, interval: 10s, interval_jitter: {value: 0}", Some(0)),
    ] {
        let options = manager(&http2(&format!("connection_keepalive: {{ {settings} }}"))).http2;
        assert_eq!(options.keepalive.map(|of| of.jitter_percent), expected, "{settings}");
    }
}

#[test]
fn an_option_of_http2_is_refused_where_it_is_wrong() {
    let least = 65_535;
    let cases = [
        ("max_concurrent_streams: 0", ".max_concurrent_streams: 0 is not between 1 and 2147483647"),
        (
            "max_concurrent_streams: 2147483648",
            ".max_concurrent_streams: 2147483648 is not between 1 and 2147483647",
        ),
        (
            "initial_stream_window_size: 65534",
            ".initial_stream_window_size: 65534 is not between 65535 and 2147483647",
        ),
        (
            "initial_connection_window_size: 2147483648",
            ".initial_connection_window_size: 2147483648 is not between 65535 and 2147483647",
        ),
        ("max_outbound_frames: 0", ".max_outbound_frames: 0 is not between 1 and 4294967295"),
        ("max_outbound_control_frames: 0", ".max_outbound_control_frames: 0 is not between 1 and 4294967295"),
        (
            "max_inbound_window_update_frames_per_data_frame_sent: 0",
            ".max_inbound_window_update_frames_per_data_frame_sent: 0 is not between 1 and 4294967295",
        ),
        ("connection_keepalive: {interval: 1s}", ".connection_keepalive.timeout: required"),
        (
            "connection_keepalive: {timeout: 0.000999s}",
            ".connection_keepalive.timeout: `999µs` is not a duration of 1ms or more",
        ),
        (
            "connection_keepalive: {timeout: 1s, interval: 0s}",
            ".connection_keepalive.interval: `0ns` is not a duration of 1ms or more",
        ),
        (
            "connection_keepalive: {timeout: 1s, connection_idle_interval: -1s}",
            ".connection_keepalive.connection_idle_interval: `-1.000000000s` is not a duration of zero or more",
        ),
        (
            "connection_keepalive: {timeout: 1s, interval_jitter: {value: 100.5}}",
            ".connection_keepalive.interval_jitter: `100.5` is not a percentage",
        ),
    ];
    assert_eq!(limits::HTTP2_WINDOW_BYTES_FIRST, least);
    for (set, expected) in cases {
        let (listener, cluster) = file(&http2(set), "prefix: /", "", &http2(set));
        let rejected = manager_of(&listener, Origin::Dynamic).unwrap_err();
        let at = "web: filter_chains[0].filters[0].typed_config.http2_protocol_options";
        assert_eq!(rejected.to_string(), format!("{at}{expected}"));
        let rejected = cluster_of(&cluster, Origin::Dynamic).unwrap_err();
        assert_eq!(rejected.to_string(), format!("a: http2_protocol_options{expected}"));
    }
}

#[test]
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn what_a_file_cannot_say_is_refused_from_a_control_plane() {
    use proto::pb::{envoy::config::core::v3::Http2ProtocolOptions, google::protobuf};
    let with = |spoil: fn(&mut Http2ProtocolOptions)| {
        let (_, mut cluster) = file("", "prefix: /", "", &http2(""));
        spoil(cluster.http2_protocol_options.as_mut().unwrap());
        cluster_of(&cluster, Origin::Dynamic).err().map(|rejected| rejected.to_string())
    };
    let refused = |field: &str| Some(format!("a: http2_protocol_options.{field}: not supported by Ringway"));
    assert_eq!(with(|of| of.allow_metadata = true), refused("allow_metadata"));
    assert_eq!(
        with(|of| of.custom_settings_parameters.push(Default::default())),
        refused("custom_settings_parameters")
    );
    let yes = || Some(protobuf::BoolValue { value: true });
    assert_eq!(
        with(|of| of.disallow_obs_text = Some(protobuf::BoolValue { value: true })),
        refused("disallow_obs_text")
    );
    assert_eq!(with(|of| of.disallow_obs_text = Some(protobuf::BoolValue { value: false })), None);
    assert_eq!(with(|of| of.stream_error_on_invalid_http_messaging = true), None);
    let (_, mut cluster) = file("", "prefix: /", "", &http2(""));
    let options = cluster.http2_protocol_options.as_mut().unwrap();
    (options.use_oghttp2_codec, options.override_stream_error_on_invalid_http_message) = (yes(), yes());
    assert_eq!(cluster_of(&cluster, Origin::Dynamic).unwrap().http2, Http2Options::upstream());
}

#[test]
fn more_streams_or_table_than_ours_are_refused_in_a_file_and_capped_from_a_control_plane() {
    for (set, expected, of_file) in [
        ("max_concurrent_streams: 65536", 65_536, None),
        ("max_concurrent_streams: 1073741824", 65_536, Some("max_concurrent_streams: 1073741824")),
        ("hpack_table_size: 65536", 65_536, None),
        ("hpack_table_size: 65537", 65_536, Some("hpack_table_size: 65537")),
    ] {
        let (listener, cluster) = file(&http2(set), "prefix: /", "", &http2(set));
        let manager = manager_of(&listener, Origin::Dynamic).unwrap();
        for options in [manager.http2, cluster_of(&cluster, Origin::Dynamic).unwrap().http2] {
            assert!([options.streams_max, options.table_bytes].contains(&expected), "{set}: {options:?}");
        }
        let rejected = cluster_of(&cluster, Origin::Static).err().map(|rejected| rejected.to_string());
        let refused =
            of_file.map(|of| format!("a: http2_protocol_options.{of} is not between 0 and {expected}"));
        assert_eq!(rejected, refused);
    }
}

#[test]
fn a_cluster_speaks_what_its_options_say_and_the_extension_goes_first() {
    use UpstreamProtocol::{Auto, Downstream, Http1, Http2};
    let few = http2("max_concurrent_streams: 5");
    let explicit = |fields: &str| extension(&format!("explicit_http_config: {{ {fields} }}"));
    let upstream = Http2Options::upstream().streams_max;
    for (fields, protocol, streams) in [
        (String::new(), Http1, upstream),
        (few.clone(), Http2, 5),
        ("protocol_selection: USE_DOWNSTREAM_PROTOCOL".to_owned(), Downstream, upstream),
        (format!("protocol_selection: USE_DOWNSTREAM_PROTOCOL, {few}"), Downstream, 5),
        (explicit("http_protocol_options: {}"), Http1, upstream),
        (explicit(&few), Http2, 5),
        (extension(&format!("use_downstream_protocol_config: {{ {few} }}")), Downstream, 5),
        (extension("use_downstream_protocol_config: {}"), Downstream, upstream),
        (extension(&format!("auto_config: {{ http_protocol_options: {{}}, {few} }}")), Auto, 5),
        (extension("auto_config: {}"), Auto, upstream),
        (format!("{few}, {}", explicit("http_protocol_options: {}")), Http1, upstream),
        (format!("{few}, {}", explicit("http2_protocol_options: {}")), Http2, upstream),
    ] {
        let config = cluster(&fields);
        assert_eq!((config.protocol, config.http2.streams_max), (protocol, streams), "{fields}");
    }
}

#[test]
#[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
fn a_cluster_that_says_two_things_or_none_is_refused() {
    use proto::pb::envoy::{
        config::core::v3 as core,
        extensions::upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{
                AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
                explicit_http_config::ProtocolConfig,
            },
        },
    };
    let refused = |fields: &str| {
        let (_, cluster) = file("", "prefix: /", "", fields);
        cluster_of(&cluster, Origin::Dynamic).unwrap_err().to_string()
    };
    let at =
        "a: typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].";
    assert_eq!(refused(&extension("")), format!("{at}upstream_protocol_options: required"));
    assert_eq!(
        refused(&extension("explicit_http_config: {}")),
        format!("{at}explicit_http_config.protocol_config: required")
    );
    assert_eq!(
        refused(&extension(
            "common_http_protocol_options: {max_stream_duration: 1s}, auto_config: {http2_protocol_options: {}}"
        )),
        format!("{at}common_http_protocol_options.max_stream_duration: not supported by Ringway")
    );
    assert_eq!(
        refused(&extension(&format!("auto_config: {{ {} }}", http2("max_outbound_frames: 0")))),
        format!(
            "{at}auto_config.http2_protocol_options.max_outbound_frames: 0 is not between 1 and 4294967295"
        )
    );

    let (_, mut both) = file("", "prefix: /", "", &http2(""));
    both.http_protocol_options = Some(core::Http1ProtocolOptions::default());
    assert_eq!(
        cluster_of(&both, Origin::Dynamic).unwrap_err().to_string(),
        "a: http2_protocol_options: http_protocol_options is set as well, and protocol_selection chooses neither"
    );
    both.protocol_selection = 1;
    cluster_of(&both, Origin::Dynamic).unwrap();
    both.protocol_selection = 2;
    let rejected = cluster_of(&both, Origin::Dynamic).unwrap_err().to_string();
    assert_eq!(rejected, "a: protocol_selection: `2` is not a value of this enum");

    let http3 = || Some(core::Http3ProtocolOptions::default());
    let explicit = ExplicitHttpConfig {
        protocol_config: Some(ProtocolConfig::Http3ProtocolOptions(Default::default())),
    };
    for (options, expected) in [
        (
            UpstreamProtocolOptions::ExplicitHttpConfig(explicit),
            "explicit_http_config.http3_protocol_options",
        ),
        (
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http3_protocol_options: http3(),
                ..Default::default()
            }),
            "use_downstream_protocol_config.http3_protocol_options",
        ),
        (
            UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
                http3_protocol_options: http3(),
                ..Default::default()
            }),
            "auto_config.http3_protocol_options",
        ),
        (
            UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
                alternate_protocols_cache_options: Some(Default::default()),
                ..Default::default()
            }),
            "auto_config.alternate_protocols_cache_options",
        ),
    ] {
        let (_, mut cluster) = file("", "prefix: /", "", &extension("auto_config: {}"));
        let any = cluster.typed_extension_protocol_options.values_mut().next().unwrap();
        let options = HttpProtocolOptions { upstream_protocol_options: Some(options), ..Default::default() };
        any.value = options.encode_to_vec();
        let rejected = cluster_of(&cluster, Origin::Dynamic).unwrap_err().to_string();
        assert_eq!(rejected, format!("{at}{expected}: not supported by Ringway"));
    }
}

#[test]
fn upgrades_of_a_route_go_before_those_of_its_connection_manager() {
    let manager = "upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: foo, enabled: false}]";
    let allowed = |route: &str| {
        forward(manager, route, |manager, forward| {
            ["websocket", "foo", "CONNECT"]
                .map(|kind| forward.upgrades.allows(&manager.upgrades, kind.as_bytes()))
        })
    };
    assert_eq!(allowed(""), [true, false, false]);
    assert_eq!(allowed("upgrade_configs: [{upgrade_type: websocket, enabled: false}]"), [false; 3]);
    assert_eq!(
        allowed("upgrade_configs: [{upgrade_type: FOO}, {upgrade_type: CONNECT, connect_config: {}}]"),
        [true; 3]
    );
}

#[test]
fn an_upgrade_is_refused_where_it_is_wrong() {
    use proto::pb::envoy::config::route::v3 as route;
    let refused = |manager: &str, of_route: &str| {
        let (listener, _) = file(manager, "prefix: /", of_route, "");
        manager_of(&listener, Origin::Dynamic).unwrap_err().to_string()
    };
    let at = "web: filter_chains[0].filters[0].typed_config.";
    for (configs, expected) in [
        ("{upgrade_type: a}, {upgrade_type: A}", "[1].upgrade_type: `A` is there twice"),
        ("{upgrade_type: ''}", "[0].upgrade_type: required"),
        ("{upgrade_type: \"a\\n\"}", "[0].upgrade_type: `a\\n` is not text without control characters"),
    ] {
        let configs = format!("upgrade_configs: [{configs}]");
        assert_eq!(refused(&configs, ""), format!("{at}upgrade_configs{expected}"));
        assert_eq!(refused("", &configs), format!("{at}{ROUTE}route.upgrade_configs{expected}"));
    }
    assert_eq!(
        refused("", "upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]"),
        format!(
            "{at}{ROUTE}route.upgrade_configs[0].connect_config: only the upgrade type CONNECT may have it"
        )
    );

    // What a file cannot say.
    let with = |connect_config| {
        let upgrade_type = "connect".to_owned();
        let config =
            route::route_action::UpgradeConfig { upgrade_type, connect_config, ..Default::default() };
        let action = route::RouteAction {
            upgrade_configs: vec![config],
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster("a".into())),
            ..Default::default()
        };
        let path_specifier = Some(route::route_match::PathSpecifier::ConnectMatcher(Default::default()));
        let route = route::Route {
            r#match: Some(route::RouteMatch { path_specifier, ..Default::default() }),
            action: Some(route::route::Action::Route(action)),
            ..Default::default()
        };
        let virtual_host = route::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            routes: vec![route],
            ..Default::default()
        };
        let table = route::RouteConfiguration {
            name: "r".into(),
            virtual_hosts: vec![virtual_host],
            ..Default::default()
        };
        let translated = translate::route::translate(&table, Origin::Dynamic);
        translated.err().map(|rejected| rejected.to_string()).unwrap_or_default()
    };
    use route::route_action::upgrade_config::ConnectConfig;
    assert_eq!(with(Some(ConnectConfig::default())), "");
    let proxy_protocol_config = Some(Default::default());
    let at = "r: virtual_hosts[0].routes[0].route.upgrade_configs[0].connect_config.";
    assert_eq!(
        with(Some(ConnectConfig { proxy_protocol_config, allow_post: false })),
        format!("{at}proxy_protocol_config: not supported by Ringway")
    );
    assert_eq!(
        with(Some(ConnectConfig { proxy_protocol_config: None, allow_post: true })),
        format!("{at}allow_post: not supported by Ringway")
    );
}

#[test]
fn filters_of_an_upgrade_are_refused() {
    use proto::pb::envoy::{
        config::listener::v3::filter::ConfigType,
        extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Manager,
    };
    let (mut listener, _) = file("upgrade_configs: [{upgrade_type: a}]", "prefix: /", "", "");
    let Some(ConfigType::TypedConfig(any)) = &mut listener.filter_chains[0].filters[0].config_type else {
        panic!()
    };
    let mut manager = Manager::decode(&*any.value).unwrap();
    manager.upgrade_configs[0].filters = manager.http_filters.clone();
    any.value = manager.encode_to_vec();
    assert_eq!(
        manager_of(&listener, Origin::Dynamic).unwrap_err().to_string(),
        "web: filter_chains[0].filters[0].typed_config.upgrade_configs[0].filters: not supported by Ringway"
    );
}

#[test]
fn a_stream_duration_takes_the_place_of_the_timeout() {
    let limit = |manager: &str, route: &str, asked: Option<u64>| {
        forward(manager, route, |manager, forward| {
            let limit =
                forward.stream_duration.limit(manager.max_stream_duration, asked.map(Duration::from_secs));
            (forward.timeout.map(|of| of.as_secs()), limit.map(|of| of.as_secs()))
        })
    };
    let common = "common_http_protocol_options: {max_stream_duration: 60s}";
    let off = "common_http_protocol_options: {max_stream_duration: 0s}";
    let route = |fields: &str| format!("timeout: 5s, max_stream_duration: {{ {fields} }}");
    for (manager, route, asked, expected) in [
        ("", "timeout: 5s".to_owned(), Some(9), (Some(5), None)),
        (common, "timeout: 5s".to_owned(), Some(9), (Some(5), Some(60))),
        (off, "timeout: 5s".to_owned(), None, (Some(5), None)),
        (common, route(""), Some(9), (None, Some(60))),
        (common, route("max_stream_duration: 0s"), Some(9), (None, None)),
        (common, route("max_stream_duration: 7s"), Some(9), (None, Some(7))),
        (common, route("grpc_timeout_header_max: 0s"), Some(90), (None, Some(90))),
        (common, route("grpc_timeout_header_max: 8s"), Some(9), (None, Some(8))),
        (
            common,
            route("grpc_timeout_header_max: 8s, grpc_timeout_header_offset: 1s"),
            Some(9),
            (None, Some(7)),
        ),
        (common, route("grpc_timeout_header_offset: 1s"), Some(9), (None, Some(60))),
    ] {
        assert_eq!(limit(manager, &route, asked), expected, "{manager} {route} {asked:?}");
    }
    for field in ["max_stream_duration", "grpc_timeout_header_max", "grpc_timeout_header_offset"] {
        let (listener, _) = file("", "prefix: /", &route(&format!("{field}: -1s")), "");
        assert_eq!(
            manager_of(&listener, Origin::Dynamic).unwrap_err().to_string(),
            format!(
                "web: filter_chains[0].filters[0].typed_config.{ROUTE}route.max_stream_duration.{field}: \
                 `-1.000000000s` is not a duration of zero or more"
            )
        );
    }
}
