//! Envoy's dynamic forward proxy, cluster and filter: what is taken of it, and what is refused where.

use std::time::Duration;

use policy::cluster::{ClusterConfig, Discovery, DnsCache, DnsFamily};
use prost::{Message, Name};
use proto::pb::{
    envoy::{
        config::{
            bootstrap::v3::Bootstrap,
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType},
            core::v3::SocketAddress,
        },
        extensions::{
            clusters::dynamic_forward_proxy::v3::{
                ClusterConfig as Config, SubClustersConfig,
                cluster_config::ClusterImplementationSpecifier as Specifier,
            },
            common::dynamic_forward_proxy::v3::DnsCacheConfig,
        },
    },
    google::protobuf::{self, Any, UInt32Value},
};
use translate::Rejected;

/// A bootstrap file with `cluster` as the one cluster.
fn cluster(cluster: &str) -> Cluster {
    let file = format!("static_resources: {{clusters: [{cluster}]}}");
    let bytes = proto::bootstrap::parse("good", &file).unwrap();
    Bootstrap::decode(&*bytes).unwrap().static_resources.unwrap().clusters.remove(0)
}

fn good(cache: &str) -> Cluster {
    cluster(&format!(
        r#"{{name: out, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: envoy.clusters.dynamic_forward_proxy,
             typed_config: {{"@type": type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig,
             dns_cache_config: {{{cache}}}}}}}}}"#
    ))
}

fn cache_of(config: &ClusterConfig) -> &DnsCache {
    match &config.discovery {
        Discovery::DynamicForward(cache) => cache,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cache_has_envoys_defaults_and_whatever_is_set() {
    let config = translate::cluster::translate(&good("name: c"), translate::Origin::Dynamic).unwrap();
    let defaults = DnsCache {
        refresh_rate: Duration::from_secs(60),
        family: DnsFamily::V6Preferred,
        host_ttl: Duration::from_secs(300),
        hosts_max: 1024,
        query_timeout: Duration::from_secs(5),
    };
    assert_eq!(*cache_of(&config), defaults);
    let all = "name: c, dns_lookup_family: V4_ONLY, dns_refresh_rate: 7s, host_ttl: 8s, max_hosts: 9, dns_query_timeout: 0.5s";
    let config = translate::cluster::translate(&good(all), translate::Origin::Dynamic).unwrap();
    let set = DnsCache {
        refresh_rate: Duration::from_secs(7),
        family: DnsFamily::V4Only,
        host_ttl: Duration::from_secs(8),
        hosts_max: 9,
        query_timeout: Duration::from_millis(500),
    };
    assert_eq!(*cache_of(&config), set);
}

/// Changes the configuration of the cluster's type.
fn config(of: &mut Cluster, spoil: impl FnOnce(&mut Config)) {
    let Some(ClusterDiscoveryType::ClusterType(custom)) = &mut of.cluster_discovery_type else { panic!() };
    let any = custom.typed_config.as_mut().unwrap();
    let mut config = Config::decode(&*any.value).unwrap();
    spoil(&mut config);
    *any = Any { type_url: Config::type_url(), value: config.encode_to_vec() };
}

/// What the rejection says, and what spoils a good cluster so.
type Case = (&'static str, fn(&mut Cluster));

#[test]
fn a_cluster_is_refused_where_it_is_wrong() {
    const AT: &str = "out: cluster_type.typed_config";
    fn cache(of: &mut Cluster, spoil: impl FnOnce(&mut DnsCacheConfig)) {
        config(of, |config| match &mut config.cluster_implementation_specifier {
            Some(Specifier::DnsCacheConfig(cache)) => spoil(cache),
            _ => panic!(),
        });
    }
    let cases: [Case; 13] = [
        (
            ": type.googleapis.com/foreign.Cluster is not supported by Ringway; supported: \
          envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            |of| {
                let Some(ClusterDiscoveryType::ClusterType(custom)) = &mut of.cluster_discovery_type else {
                    panic!()
                };
                custom.typed_config.as_mut().unwrap().type_url = "type.googleapis.com/foreign.Cluster".into();
            },
        ),
        (": required", |of| {
            let Some(ClusterDiscoveryType::ClusterType(custom)) = &mut of.cluster_discovery_type else {
                panic!()
            };
            custom.typed_config = None;
        }),
        (".dns_cache_config: required", |of| {
            config(of, |config| config.cluster_implementation_specifier = None)
        }),
        (".sub_clusters_config: not supported by Ringway", |of| {
            config(of, |config| {
                let sub_clusters = Specifier::SubClustersConfig(SubClustersConfig::default());
                config.cluster_implementation_specifier = Some(sub_clusters);
            });
        }),
        (".allow_coalesced_connections: not supported by Ringway", |of| {
            config(of, |config| config.allow_coalesced_connections = true);
        }),
        (".dns_cache_config.name: required", |of| cache(of, |cache| cache.name.clear())),
        (".dns_cache_config.dns_refresh_rate: `0s` is not a duration above zero", |of| {
            cache(of, |cache| cache.dns_refresh_rate = Some(protobuf::Duration::default()));
        }),
        (".dns_cache_config.host_ttl: `0s` is not a duration above zero", |of| {
            cache(of, |cache| cache.host_ttl = Some(protobuf::Duration::default()));
        }),
        (".dns_cache_config.max_hosts: 0 is not between 1 and 16384", |of| {
            cache(of, |cache| cache.max_hosts = Some(UInt32Value { value: 0 }));
        }),
        (".dns_cache_config.max_hosts: 16385 is not between 1 and 16384", |of| {
            cache(of, |cache| cache.max_hosts = Some(UInt32Value { value: 16_385 }));
        }),
        (".dns_cache_config.preresolve_hostnames: not supported by Ringway", |of| {
            cache(of, |cache| cache.preresolve_hostnames.push(SocketAddress::default()));
        }),
        (".dns_cache_config.disable_dns_refresh_on_failure: not supported by Ringway", |of| {
            cache(of, |cache| cache.disable_dns_refresh_on_failure = true);
        }),
        (".dns_cache_config.resolved_address_filter: not supported by Ringway", |of| {
            cache(of, |cache| cache.resolved_address_filter = Some(Default::default()));
        }),
    ];
    let refused = |spoil: fn(&mut Cluster)| {
        let mut cluster = good("name: c");
        spoil(&mut cluster);
        translate::cluster::translate(&cluster, translate::Origin::Dynamic)
            .map_err(|rejected: Rejected| rejected.to_string())
            .unwrap_err()
    };
    for (expected, spoil) in cases {
        assert_eq!(refused(spoil), format!("{AT}{expected}"));
    }
    assert_eq!(
        refused(|of| of.load_assignment = Some(Default::default())),
        "out: load_assignment: a dynamic forward cluster gets its endpoints from requests"
    );
    assert_eq!(
        refused(|of| of.lb_policy = 0),
        "out: lb_policy: a dynamic forward cluster has lb_policy CLUSTER_PROVIDED"
    );
    let fixed = "{name: out, lb_policy: CLUSTER_PROVIDED, load_assignment: {cluster_name: out}}";
    let rejected =
        translate::cluster::translate(&cluster(fixed), translate::Origin::Dynamic).unwrap_err().to_string();
    assert!(rejected.starts_with("out: lb_policy: CLUSTER_PROVIDED is not supported"), "{rejected}");
}

#[test]
fn over_tls_not_anybodys_certificate_does_for_whatever_host_a_request_names() {
    let translated = |validation: &str, options: &str| {
        let mut of = good("name: c");
        let with_tls = cluster(&format!(
            r#"{{name: out, transport_socket: {{name: tls, typed_config: {{
                 "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
                 common_tls_context: {{combined_validation_context: {{
                   validation_context_sds_secret_config: {{name: public}},
                   default_validation_context: {{{validation}}}}}}}}}}}}}"#
        ));
        of.transport_socket = with_tls.transport_socket;
        config(&mut of, |config| config.allow_insecure_cluster_options = !options.is_empty());
        translate::cluster::translate(&of, translate::Origin::Dynamic).map(drop)
    };
    let names = "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: a.example}}]";
    let hash = format!("verify_certificate_hash: ['{}']", "ab".repeat(32));
    let anybody = format!("{names}, trust_chain_verification: ACCEPT_UNTRUSTED");
    for good in [names, &hash] {
        assert_eq!(translated(good, ""), Ok(()), "{good}");
    }
    for bad in ["", &anybody] {
        let refused = translated(bad, "").unwrap_err().to_string();
        let at =
            "out: cluster_type.typed_config.allow_insecure_cluster_options: anybody's certificate would do";
        assert!(refused.starts_with(at), "{refused}");
        assert_eq!(translated(bad, "allowed"), Ok(()), "{bad}");
    }
}

/// The listener of a file whose connection manager has this filter before the router; `is` is further fields of it.
fn with_filter(is: &str, config: &str) -> Result<(), String> {
    let file = format!(
        r#"
static_resources:
  listeners:
  - name: web
    address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config: {{name: r}}
          http_filters:
          - name: outside
            {is}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig
              {config}
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    );
    let bytes = proto::bootstrap::parse("file", &file).map_err(|error| error.to_string())?;
    let listener = Bootstrap::decode(&*bytes).unwrap().static_resources.unwrap().listeners.remove(0);
    let translated = translate::listener::translate(&listener, translate::Origin::Static);
    translated.map(drop).map_err(|rejected| rejected.to_string())
}

#[test]
fn the_filter_that_envoy_needs_is_checked_and_taken() {
    const NO_HOSTS: &str = "dns_cache_config: {name: c, max_hosts: 0}";
    assert_eq!(with_filter("", "dns_cache_config: {name: c}"), Ok(()));
    let at = "web: filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.dns_cache_config";
    assert_eq!(with_filter("", NO_HOSTS), Err(format!("{at}.max_hosts: 0 is not between 1 and 16384")));
    for is in ["is_optional: true", "disabled: true"] {
        assert_eq!(with_filter(is, NO_HOSTS), Ok(()), "{is}: it is dropped, as every such filter");
    }
    let unknown = with_filter("", "save_upstream_address: true").unwrap_err();
    assert!(unknown.contains("save_upstream_address"), "{unknown}");
}
