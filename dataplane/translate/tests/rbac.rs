//! Rules of authorization that are refused: what is wrong, where, and why, word for word.

use prost::{Message, Name};
use proto::pb::{
    envoy::{
        config::{
            core::v3::CidrRange,
            listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
            rbac::v3::{
                Permission, Policy, Principal, Rbac, permission::Rule, principal, principal::Identifier,
            },
            route::v3::{self as route, HeaderMatcher, RouteConfiguration},
        },
        extensions::filters::{
            http::{rbac::v3 as http, router::v3::Router},
            network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier,
                    http_filter::ConfigType as HttpConfigType,
                },
                rbac::v3 as network,
            },
        },
        r#type::v3::Int32Range,
    },
    google::protobuf::{Any, Duration, UInt32Value},
};
use translate::{Origin, Rejected};

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn permission(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn rules() -> Rbac {
    let policy = Policy {
        permissions: vec![permission(Rule::Any(true))],
        principals: vec![principal(Identifier::Any(true))],
        ..Policy::default()
    };
    Rbac { policies: [("p".to_owned(), policy)].into(), ..Rbac::default() }
}

/// What becomes of a listener with these filters before the one that ends its chain, and before its router.
fn listener(network: Vec<Any>, http: Vec<Any>) -> Result<policy::snapshot::Listener, Rejected> {
    let router = (String::new(), any(&Router::default()));
    let named = http.into_iter().map(|filter| ("rbac".to_owned(), filter));
    let http_filters = named.chain([router]).map(|(name, filter)| HttpFilter {
        name,
        config_type: Some(HttpConfigType::TypedConfig(filter)),
        ..HttpFilter::default()
    });
    let manager = HttpConnectionManager {
        stat_prefix: "web".to_owned(),
        http_filters: http_filters.collect(),
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration::default())),
        ..HttpConnectionManager::default()
    };
    let filters = network.into_iter().chain([any(&manager)]);
    let filters = filters
        .map(|filter| Filter { name: String::new(), config_type: Some(ConfigType::TypedConfig(filter)) });
    let chain = FilterChain { filters: filters.collect(), ..FilterChain::default() };
    let text = r#"{"static_resources": {"listeners": [{"name": "web", "address": {"socket_address":
        {"address": "127.0.0.1", "port_value": 80}}}]}}"#;
    let bytes = proto::bootstrap::parse("b.json", text).unwrap();
    let parsed = proto::pb::envoy::config::bootstrap::v3::Bootstrap::decode(&*bytes).unwrap();
    let start = parsed.static_resources.unwrap().listeners.remove(0);
    let listener = Listener { filter_chains: vec![chain], ..start };
    let referring = translate::listener::translate(&listener, Origin::Dynamic)?;
    Ok(std::sync::Arc::into_inner(referring.value).unwrap())
}

fn refused_as(filter: Any) -> String {
    let rejected = listener(vec![], vec![filter]).unwrap_err().to_string();
    let start = "web: filter_chains[0].filters[0].typed_config.http_filters[0].typed_config";
    rejected.strip_prefix(start).unwrap_or_else(|| panic!("{rejected}")).to_owned()
}

#[test]
fn rules_for_requests_are_refused_where_they_are_wrong() {
    let of = |spoil: &dyn Fn(&mut Policy)| {
        let mut rules = rules();
        spoil(rules.policies.get_mut("p").unwrap());
        http::Rbac { rules: Some(rules), ..http::Rbac::default() }
    };
    let may = |rule: Rule| of(&|policy| policy.permissions = vec![permission(rule.clone())]);
    let is = |id: Identifier| of(&|policy| policy.principals = vec![principal(id.clone())]);
    let with_name = |name: &str| Rule::Header(HeaderMatcher { name: name.into(), ..Default::default() });
    let block = |address: &str, bits| CidrRange {
        address_prefix: address.into(),
        prefix_len: Some(UInt32Value { value: bits }),
    };
    let range = |start, end| Rule::DestinationPortRange(Int32Range { start, end });
    let nested =
        |depth| (0..depth).fold(Identifier::Any(true), |inner, _| Identifier::NotId(principal(inner).into()));
    let p = ".rules.policies[\"p\"]";
    let mut unknown_action = rules();
    unknown_action.action = 9;
    #[allow(deprecated, reason = "a field that Envoy advises against is still one that may be set")]
    let cases = [
        (of(&|policy| policy.principals.clear()), format!("{p}.principals: required")),
        (of(&|policy| policy.permissions.clear()), format!("{p}.permissions: required")),
        (of(&|policy| policy.permissions[0].rule = None), format!("{p}.permissions[0].rule: required")),
        (
            of(&|policy| policy.principals[0].identifier = None),
            format!("{p}.principals[0].identifier: required"),
        ),
        (
            of(&|policy| policy.condition = Some(Default::default())),
            format!("{p}.condition: not supported by Ringway"),
        ),
        (
            of(&|policy| policy.checked_condition = Some(Default::default())),
            format!("{p}.checked_condition: not supported by Ringway"),
        ),
        (
            of(&|policy| policy.cel_config = Some(Default::default())),
            format!("{p}.cel_config: not supported by Ringway"),
        ),
        (may(Rule::Any(false)), format!("{p}.permissions[0].any: `false` is not true")),
        (may(Rule::AndRules(Default::default())), format!("{p}.permissions[0].and_rules.rules: required")),
        (
            may(Rule::Metadata(Default::default())),
            format!("{p}.permissions[0].metadata: not supported by Ringway"),
        ),
        (
            may(Rule::SourcedMetadata(Default::default())),
            format!("{p}.permissions[0].sourced_metadata: not supported by Ringway"),
        ),
        (
            may(Rule::Matcher(Default::default())),
            format!("{p}.permissions[0].matcher: not supported by Ringway"),
        ),
        (
            may(Rule::UriTemplate(Default::default())),
            format!("{p}.permissions[0].uri_template: not supported by Ringway"),
        ),
        (may(Rule::UrlPath(Default::default())), format!("{p}.permissions[0].url_path.path: required")),
        (
            may(Rule::DestinationPort(65536)),
            format!("{p}.permissions[0].destination_port: 65536 is not between 0 and 65535"),
        ),
        (
            may(range(5, 5)),
            format!(
                "{p}.permissions[0].destination_port_range: `5..5` is not a range of ports with at least one in it"
            ),
        ),
        (
            may(range(-1, 5)),
            format!(
                "{p}.permissions[0].destination_port_range: `-1..5` is not a range of ports with at least one in it"
            ),
        ),
        (may(with_name("")), format!("{p}.permissions[0].header.name: required")),
        (
            may(with_name(":scheme")),
            format!(
                "{p}.permissions[0].header.name: :scheme is not supported by Ringway; supported: :method, :path, :authority"
            ),
        ),
        (
            may(with_name("X-Forwarded-For")),
            format!("{p}.permissions[0].header.name: not supported by Ringway"),
        ),
        (
            may(with_name("x-forwarded-client-cert")),
            format!("{p}.permissions[0].header.name: not supported by Ringway"),
        ),
        (
            may(with_name("x-envoy-internal")),
            format!("{p}.permissions[0].header.name: not supported by Ringway"),
        ),
        (is(Identifier::Any(false)), format!("{p}.principals[0].any: `false` is not true")),
        (is(Identifier::OrIds(principal::Set::default())), format!("{p}.principals[0].or_ids.ids: required")),
        (
            is(Identifier::Metadata(Default::default())),
            format!("{p}.principals[0].metadata: not supported by Ringway"),
        ),
        (
            is(Identifier::FilterState(Default::default())),
            format!("{p}.principals[0].filter_state: not supported by Ringway"),
        ),
        (
            is(Identifier::SourcedMetadata(Default::default())),
            format!("{p}.principals[0].sourced_metadata: not supported by Ringway"),
        ),
        (
            is(Identifier::Custom(Default::default())),
            format!("{p}.principals[0].custom: not supported by Ringway"),
        ),
        (
            is(Identifier::Authenticated(principal::Authenticated {
                principal_name: Some(Default::default()),
            })),
            format!("{p}.principals[0].authenticated.principal_name: required"),
        ),
        (
            is(Identifier::RemoteIp(block("10.0.0.0", 33))),
            format!("{p}.principals[0].remote_ip.prefix_len: 33 is not between 0 and 32"),
        ),
        (
            is(Identifier::DirectRemoteIp(block("web", 8))),
            format!("{p}.principals[0].direct_remote_ip.address_prefix: `web` is not an IP address"),
        ),
        (
            is(Identifier::SourceIp(CidrRange::default())),
            format!("{p}.principals[0].source_ip.address_prefix: required"),
        ),
        (is(nested(40)), ".rules.policies: conditions 41 levels deep are deeper than 32".to_owned()),
        (
            http::Rbac { rules: Some(unknown_action), ..Default::default() },
            ".rules.action: `9` is not a value of this enum".to_owned(),
        ),
        (
            http::Rbac { matcher: Some(Default::default()), ..Default::default() },
            ".matcher: not supported by Ringway".to_owned(),
        ),
        (
            http::Rbac { shadow_matcher: Some(Default::default()), ..Default::default() },
            ".shadow_matcher: not supported by Ringway".to_owned(),
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(refused_as(any(&filter)), expected, "{filter:?}");
        let mut shadow = filter;
        (shadow.shadow_rules, shadow.rules) = (shadow.rules, None);
        assert_eq!(refused_as(any(&shadow)), expected.replacen(".rules.", ".shadow_rules.", 1));
    }
    listener(vec![], vec![any(&of(&|_| {}))]).unwrap();
}

/// RB-05: what is not known could be what makes a rule a narrow one.
#[test]
fn what_is_not_known_of_rules_refuses_them() {
    let good = http::Rbac { rules: Some(rules()), ..http::Rbac::default() };
    let mut filter = any(&good);
    // Field 1000, a number.
    filter.value.extend([0xc0, 0x3e, 1]);
    assert_eq!(
        refused_as(filter),
        ": a field of type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC is not known to Ringway, or is there twice"
    );
    // The same deep inside, in a policy of which only the rest would be left.
    let policy = rules().policies.remove("p").unwrap().encode_to_vec();
    let framed = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, bytes.len() as u8], bytes].concat();
    let entry = [framed(1, b"p"), framed(2, &[&policy[..], &[0xc0, 0x3e, 1]].concat())].concat();
    let value = framed(1, &framed(2, &entry));
    let deep = Any { type_url: http::Rbac::type_url(), value };
    assert!(refused_as(deep).starts_with(": a field of "));
    // And what is there twice, of which only the last would count.
    let twice = [
        framed(1, &framed(2, &[framed(1, b"p"), framed(2, &policy)].concat())),
        framed(3, b"a"),
        framed(3, b"b"),
    ];
    let twice = Any { type_url: http::Rbac::type_url(), value: twice.concat() };
    assert!(refused_as(twice).starts_with(": a field of "));
}

#[test]
fn one_name_is_one_filter() {
    let filter = any(&http::Rbac { rules: Some(rules()), ..http::Rbac::default() });
    let rejected = listener(vec![], vec![filter.clone(), filter]).unwrap_err().to_string();
    let expected =
        "web: filter_chains[0].filters[0].typed_config.http_filters[1].name: `rbac` is there twice";
    assert_eq!(rejected, expected);
}

#[test]
fn rules_for_connections_are_refused_where_they_are_wrong() {
    let good = network::Rbac { stat_prefix: "in".into(), rules: Some(rules()), ..network::Rbac::default() };
    let of = |spoil: &dyn Fn(&mut network::Rbac)| {
        let mut filter = good.clone();
        spoil(&mut filter);
        filter
    };
    let may = |rule: Rule| {
        of(&|filter| {
            let policies = &mut filter.rules.as_mut().unwrap().policies;
            policies.get_mut("p").unwrap().permissions = vec![permission(rule.clone())];
        })
    };
    let p = ".rules.policies[\"p\"]";
    for (filter, expected) in [
        (of(&|filter| filter.stat_prefix.clear()), ".stat_prefix: required".to_owned()),
        (
            of(&|filter| filter.matcher = Some(Default::default())),
            ".matcher: not supported by Ringway".to_owned(),
        ),
        (
            of(&|filter| filter.shadow_matcher = Some(Default::default())),
            ".shadow_matcher: not supported by Ringway".to_owned(),
        ),
        (
            of(&|filter| filter.enforcement_type = 9),
            ".enforcement_type: `9` is not a value of this enum".to_owned(),
        ),
        (
            of(&|filter| filter.delay_deny = Some(Duration { seconds: -1, nanos: 0 })),
            ".delay_deny: `-1.000000000s` is not a duration of zero or more".to_owned(),
        ),
        (
            may(Rule::Header(Default::default())),
            format!("{p}.permissions[0].header: a connection is no request"),
        ),
        (
            may(Rule::UrlPath(Default::default())),
            format!("{p}.permissions[0].url_path: a connection is no request"),
        ),
    ] {
        let rejected = listener(vec![any(&filter)], vec![]).unwrap_err().to_string();
        assert_eq!(rejected, format!("web: filter_chains[0].filters[0].typed_config{expected}"));
    }
    let taken = listener(vec![any(&good), any(&good)], vec![]).unwrap();
    assert_eq!(taken.filter_chains.iter().next().unwrap().rbac.len(), 2);
}

#[test]
fn what_a_route_says_of_rules_is_refused_where_it_is_wrong() {
    let refused = |of: Any| {
        let host = route::VirtualHost {
            name: "all".into(),
            domains: vec!["*".into()],
            typed_per_filter_config: [("rbac".to_owned(), of)].into(),
            ..route::VirtualHost::default()
        };
        let table = RouteConfiguration {
            name: "r".into(),
            virtual_hosts: vec![host],
            ..RouteConfiguration::default()
        };
        let rejected =
            translate::route::translate(&table, Origin::Dynamic).map(drop).unwrap_err().to_string();
        let start = "r: virtual_hosts[0].typed_per_filter_config[\"rbac\"]";
        rejected.strip_prefix(start).unwrap_or_else(|| panic!("{rejected}")).to_owned()
    };
    let wrapped =
        |config: Option<Any>, is_optional| any(&route::FilterConfig { config, is_optional, disabled: false });
    let mut bad = rules();
    bad.policies.get_mut("p").unwrap().principals.clear();
    let of_route =
        http::RbacPerRoute { rbac: Some(http::Rbac { rules: Some(bad), ..http::Rbac::default() }) };
    let bad = any(&of_route);
    let path = ".rbac.rules.policies[\"p\"].principals: required";
    let base = any(&http::Rbac::default());
    let supported = "supported by Ringway; supported: envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    let wrong = format!("type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC is not {supported}");
    for (of, expected) in [
        (bad.clone(), path.to_owned()),
        (wrapped(Some(bad.clone()), false), format!(".config{path}")),
        (wrapped(Some(bad), true), format!(".config{path}")),
        (wrapped(None, false), ".config: required".to_owned()),
        (base.clone(), format!(": {wrong}")),
        (wrapped(Some(base), false), format!(".config: {wrong}")),
    ] {
        assert_eq!(refused(of), expected);
    }
}
