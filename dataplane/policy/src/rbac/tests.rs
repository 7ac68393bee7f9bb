//! What rules say of requests and connections.

mod oracle;

use std::{string::ToString, vec, vec::Vec};

use super::*;
use crate::{
    cidr::Cidr,
    peer::SpiffeId,
    regex::Regex,
    route::{HeaderMatch, HeaderTest, test_request::TestRequest},
    string_match::{StringMatch, StringPattern},
};

fn exactly(text: &str) -> StringMatch {
    StringMatch { pattern: StringPattern::Exact(text.as_bytes().into()), ignore_case: false }
}

fn matching(regex: &str) -> StringMatch {
    StringMatch { pattern: StringPattern::Regex(Regex::full(regex).unwrap()), ignore_case: false }
}

fn header(name: &str, value: &str) -> HeaderMatch {
    let test = HeaderTest::Value(exactly(value));
    HeaderMatch { name: name.into(), test, invert: false, missing_as_empty: false }
}

fn cidr(block: &str) -> Cidr {
    let (address, bits) = block.split_once('/').unwrap();
    Cidr::new(address.parse().unwrap(), bits.parse().unwrap()).unwrap()
}

fn some(conditions: Vec<Condition>) -> Conditions {
    Conditions::new(conditions).unwrap()
}

fn not(condition: Condition) -> Condition {
    Condition::Not(condition.into())
}

fn policy(name: &str, permission: Condition, principal: Condition) -> Policy {
    Policy { name: name.into(), permissions: some(vec![permission]), principals: some(vec![principal]) }
}

fn rules(action: Action, condition: Condition) -> Rules {
    Rules::new(action, vec![policy("p", condition, Condition::Always)]).unwrap()
}

fn web() -> Peer {
    Peer {
        spiffe: SpiffeId::parse("spiffe://m/ns/shop/sa/web").ok(),
        uri_sans: [Box::from("spiffe://m/ns/shop/sa/web")].into(),
        dns_sans: [Box::from("web.shop")].into(),
        subject: "CN=web".into(),
        ..Peer::default()
    }
}

fn facts<'a>(peer: Option<&'a Peer>, request: Option<&'a TestRequest>) -> Facts<'a> {
    Facts {
        peer,
        direct_remote: "10.0.0.9".parse().unwrap(),
        remote: "10.1.0.1:999".parse().unwrap(),
        local: "10.2.0.1:8080".parse().unwrap(),
        server_name: "Web.Shop",
        request: request.map(|request| (request.view(), ForwardedTrust::default())),
    }
}

fn allowed(rules: &Rules, facts: &Facts<'_>) -> bool {
    rules.evaluate(facts, &mut RouteScratch::default()).is_allowed()
}

#[test]
fn an_action_decides_what_becomes_of_those_that_a_policy_matches() {
    let mut scratch = RouteScratch::default();
    let facts = facts(None, None);
    for (action, matched, unmatched) in
        [(Action::Allow, true, false), (Action::Deny, false, true), (Action::Log, true, true)]
    {
        for (condition, expected) in [(Condition::Always, matched), (not(Condition::Always), unmatched)] {
            let is_matched = matches!(condition, Condition::Always);
            let rules = rules(action, condition);
            let verdict = rules.evaluate(&facts, &mut scratch);
            assert_eq!(verdict.is_allowed(), expected, "{action:?}");
            assert_eq!(verdict.policy.is_some(), is_matched);
        }
        let none = Rules::new(action, Vec::new()).unwrap();
        assert_eq!(none.evaluate(&facts, &mut scratch).is_allowed(), action != Action::Allow);
    }
}

#[test]
fn a_policy_needs_one_of_its_permissions_and_one_of_its_principals() {
    let never = || not(Condition::Always);
    for (permissions, principals, expected) in [
        (vec![Condition::Always], vec![Condition::Always], true),
        (vec![never(), Condition::Always], vec![never(), Condition::Always], true),
        (vec![never()], vec![Condition::Always], false),
        (vec![Condition::Always], vec![never()], false),
    ] {
        let (permissions, principals) = (some(permissions), some(principals));
        let policy = Policy { name: "p".into(), permissions, principals };
        let rules = Rules::new(Action::Allow, vec![policy]).unwrap();
        assert_eq!(allowed(&rules, &facts(None, None)), expected);
    }
    assert!(Conditions::new(Vec::new()).is_none(), "no principal is not every principal");
}

#[test]
fn the_first_policy_by_name_is_the_one_that_is_told() {
    let always = |name| policy(name, Condition::Always, Condition::Always);
    let never = policy("a", not(Condition::Always), Condition::Always);
    let rules = Rules::new(Action::Deny, vec![always("c"), never, always("b")]).unwrap();
    let facts = facts(None, None);
    let mut scratch = RouteScratch::default();
    assert_eq!(rules.evaluate(&facts, &mut scratch).policy.map(|name| &**name), Some("b"));
    let twice = Rules::new(Action::Deny, vec![always("c"), always("b"), always("c")]);
    assert_eq!(twice.unwrap_err(), RulesError::Duplicate { name: "c".into() });
}

#[test]
fn what_would_be_decided_has_no_effect() {
    let deny = rules(Action::Deny, Condition::Always);
    let allow = rules(Action::Allow, Condition::Always);
    for (rules, shadow_rules, expected) in [
        (None, None, true),
        (None, Some(&deny), true),
        (Some(&allow), Some(&deny), true),
        (Some(&deny), Some(&allow), false),
        (Some(&deny), None, false),
    ] {
        let rbac = Rbac { rules: rules.cloned(), shadow_rules: shadow_rules.cloned() };
        let decision = rbac.decide(&facts(None, None), &mut RouteScratch::default());
        assert_eq!(decision.is_allowed(), expected);
        let is_allowed = |verdict: Option<Verdict<'_>>| verdict.map(|verdict| verdict.is_allowed());
        assert_eq!(is_allowed(decision.shadow), shadow_rules.map(|rules| rules.action() == Action::Allow));
    }
}

#[test]
fn conditions_are_combined_as_they_say() {
    let (yes, no) = (|| Condition::Always, || not(Condition::Always));
    for (condition, expected) in [
        (Condition::All(some(vec![yes(), yes()])), true),
        (Condition::All(some(vec![yes(), no()])), false),
        (Condition::Any(some(vec![no(), yes()])), true),
        (Condition::Any(some(vec![no(), no()])), false),
        (not(no()), true),
        (not(Condition::All(some(vec![yes(), no()]))), true),
    ] {
        assert_eq!(allowed(&rules(Action::Allow, condition.clone()), &facts(None, None)), expected);
        assert_eq!(allowed(&rules(Action::Deny, condition), &facts(None, None)), !expected);
    }
}

#[test]
fn addresses_and_ports_are_those_that_each_test_names() {
    let ports = |range| Condition::DestinationPort(Ports::range(range).unwrap());
    let request = TestRequest::get("/").header("x-forwarded-for", "10.3.0.1");
    for (condition, expected) in [
        (Condition::DirectRemoteIp(cidr("10.0.0.0/16")), true),
        (Condition::DirectRemoteIp(cidr("10.1.0.0/16")), false),
        (Condition::SourceIp(cidr("10.1.0.0/16")), true),
        (Condition::SourceIp(cidr("10.0.0.0/16")), false),
        (Condition::RemoteIp(cidr("10.3.0.0/16")), true),
        (Condition::RemoteIp(cidr("10.1.0.0/16")), false),
        (Condition::DestinationIp(cidr("10.2.0.0/16")), true),
        (Condition::DestinationIp(cidr("10.1.0.0/16")), false),
        (Condition::DestinationPort(Ports::one(8080)), true),
        (Condition::DestinationPort(Ports::one(999)), false),
        (ports(8080..8081), true),
        (ports(8000..8080), false),
        (ports(0..65536), true),
    ] {
        let rules = rules(Action::Allow, condition);
        assert_eq!(allowed(&rules, &facts(None, Some(&request))), expected, "{rules:?}");
    }
    let from_connection = rules(Action::Allow, Condition::RemoteIp(cidr("10.1.0.0/16")));
    assert!(allowed(&from_connection, &facts(None, None)));
    for (start, end, is_some) in
        [(0, 1, true), (1, 1, false), (2, 1, false), (0, 65537, false), (0, 0, false), (65535, 65536, true)]
    {
        assert_eq!(Ports::range(start..end).is_some(), is_some, "{start} {end}");
    }
}

#[test]
fn a_name_is_asked_of_a_verified_certificate_only() {
    let (peer, nameless) = (web(), Peer::default());
    let named = |test| Condition::Authenticated(Some(test));
    for (condition, of_web, of_nameless, of_nobody) in [
        (Condition::Authenticated(None), true, true, false),
        (not(Condition::Authenticated(None)), false, false, true),
        (named(exactly("spiffe://m/ns/shop/sa/web")), true, false, false),
        (named(exactly("spiffe://m/ns/shop/sa/We")), false, false, false),
        (named(exactly("web.shop")), true, false, false),
        (named(exactly("CN=web")), true, false, false),
        (named(matching("spiffe://m/.*")), true, false, false),
        // A regular expression is of the whole name, and a dot of it is no part of a longer one.
        (named(matching("m/ns/shop/sa/web")), false, false, false),
        (named(matching(".*")), true, true, false),
        (not(named(exactly("spiffe://m/ns/shop/sa/web"))), false, true, true),
    ] {
        for action in [Action::Allow, Action::Deny] {
            let rules = rules(action, condition.clone());
            for (peer, expected) in [(Some(&peer), of_web), (Some(&nameless), of_nameless), (None, of_nobody)]
            {
                let is_allowed = allowed(&rules, &facts(peer, None));
                assert_eq!(is_allowed, expected == (action == Action::Allow), "{rules:?} {peer:?}");
            }
        }
    }
}

#[test]
fn a_server_name_is_the_same_in_every_case() {
    for (test, expected) in [
        (exactly("web.shop"), true),
        (exactly("WEB.SHOP"), true),
        (exactly("web.sho"), false),
        (matching("web\\..*"), true),
        (matching("Web\\..*"), true),
        (matching("WEB\\..*"), false),
    ] {
        let rules = rules(Action::Deny, Condition::RequestedServerName(test));
        assert_eq!(allowed(&rules, &facts(None, None)), !expected, "{rules:?}");
    }
}

#[test]
fn what_only_a_request_can_answer_is_denied_of_a_connection() {
    for condition in [Condition::Path(exactly("/")), Condition::Header(header("x", "1"))] {
        for condition in [condition.clone(), not(condition)] {
            for action in [Action::Allow, Action::Deny] {
                let rules = rules(action, condition.clone());
                assert!(!allowed(&rules, &facts(None, None)), "{rules:?}");
                let rbac = Rbac { rules: None, shadow_rules: Some(rules) };
                assert!(rbac.asks_for_request());
            }
        }
    }
}

#[test]
fn a_path_is_the_one_without_its_query_and_connect_has_none() {
    let path = |text| Condition::Path(exactly(text));
    let connect = TestRequest::without_path(wire::head::Method::Connect, "CONNECT", "a:1");
    let asterisk = TestRequest::without_path(wire::head::Method::Options, "OPTIONS", "*");
    for (request, condition, expected) in [
        (TestRequest::get("/admin?x=/"), path("/admin"), true),
        (TestRequest::get("/admin?x=/"), path("/admin?x=/"), false),
        (TestRequest::absolute("http://a", "/admin?x"), path("/admin"), true),
        (TestRequest::absolute("http://a", ""), path("/"), true),
        (TestRequest::get("/ADMIN"), path("/admin"), false),
        (asterisk, path("*"), true),
        (connect.clone(), path("/"), false),
        (connect.clone(), path(""), false),
        (connect, Condition::Path(matching(".*")), false),
    ] {
        let rules = rules(Action::Allow, condition);
        assert_eq!(allowed(&rules, &facts(None, Some(&request))), expected, "{rules:?} {request:?}");
    }
}

/// RB-03: each row is a request's lines of `x-role`, whether a policy for `admin` allows it, and whether one denies it.
#[test]
fn every_value_of_a_header_is_checked() {
    for (lines, is_allowed, is_denied) in [
        (&[][..], false, false),
        (&[("x-role", "user")], false, false),
        (&[("x-role", "admin")], true, true),
        (&[("X-ROLE", "admin")], true, true),
        (&[("x-role", "user"), ("x-role", "admin")], false, true),
        (&[("x-role", "admin"), ("X-Role", "user")], false, true),
        (&[("x-role", "admin"), ("x-role", "admin")], false, true),
        (&[("x-role", "user,admin")], false, true),
        (&[("x-role", "user , admin")], false, true),
        (&[("x-role", "admin,")], false, true),
        (&[("x_role", "admin")], false, true),
        (&[("x-role", "user"), ("X_Role", "admin")], false, true),
        (&[("x-role", "admin"), ("x_role", "user")], false, true),
        (&[("x.role", "admin")], false, true),
        (&[("x-role", "user"), ("X~Role", "admin")], false, true),
        (&[("x-role", "\u{a0}admin")], false, true),
        (&[("x-role", "admin\u{2003}\u{85}")], false, true),
        (&[("x-role", "user,\u{3000}admin")], false, true),
        (&[("x-role", "Admin")], false, false),
        (&[("x-roles", "admin"), ("role", "admin")], false, false),
    ] {
        let start = TestRequest::get("/");
        let request = lines.iter().fold(start, |request, (name, value)| request.header(name, value));
        let facts = facts(None, Some(&request));
        let role = || Condition::Header(header("x-role", "admin"));
        assert_eq!(allowed(&rules(Action::Allow, role()), &facts), is_allowed, "{lines:?}");
        assert_eq!(!allowed(&rules(Action::Deny, role()), &facts), is_denied, "{lines:?}");
        // Whoever is not allowed as what is no admin may be one.
        assert_eq!(allowed(&rules(Action::Allow, not(role())), &facts), !is_denied, "not {lines:?}");
        assert_eq!(!allowed(&rules(Action::Deny, not(role())), &facts), !is_allowed, "not {lines:?}");
        let inverted = || Condition::Header(HeaderMatch { invert: true, ..header("x-role", "admin") });
        let is_there = lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-role"));
        let allows = allowed(&rules(Action::Allow, inverted()), &facts);
        assert_eq!(allows, is_there && !is_denied, "inverted {lines:?}");
        let is_like = |name: &str| name.replace(['_', '.', '~'], "-").eq_ignore_ascii_case("x-role");
        let mut like = lines.iter().filter(|(name, _)| is_like(name));
        let is_other = like.clone().any(|(_, value)| *value != "admin") || like.nth(1).is_some();
        assert_eq!(!allowed(&rules(Action::Deny, inverted()), &facts), is_other, "inverted {lines:?}");
    }
}

/// What is white space in Latin-1, which is no text in UTF-8.
#[test]
fn bytes_that_some_take_off_do_not_hide_a_value_from_a_policy_that_denies() {
    for value in [&b"\xa0admin"[..], b"admin\x85", b"user,\xa0 admin\xa0", b"\xc2\xa0\x85admin"] {
        let request = TestRequest::get("/").header("x-role", value);
        let facts = facts(None, Some(&request));
        let role = || Condition::Header(header("x-role", "admin"));
        assert!(!allowed(&rules(Action::Deny, role()), &facts), "{}", value.escape_ascii());
        assert!(!allowed(&rules(Action::Allow, role()), &facts), "{}", value.escape_ascii());
    }
}

/// What surrounds a value goes on as it came: nginx keeps a tab, Python's own server what is behind.
#[test]
fn what_surrounds_a_value_may_be_a_part_of_it() {
    for (line, is_plain) in [
        ("x-role:admin", true),
        ("x-role: admin", true),
        ("x-role:  admin", true),
        ("x-role:\tadmin", false),
        ("x-role: \t admin", false),
        ("x-role: admin ", false),
        ("x-role: admin\t", false),
    ] {
        let request = TestRequest::get("/").header_line(line, "admin");
        let facts = facts(None, Some(&request));
        let role = || Condition::Header(header("x-role", "admin"));
        assert_eq!(allowed(&rules(Action::Allow, role()), &facts), is_plain, "{line:?}");
        assert_eq!(allowed(&rules(Action::Deny, not(role())), &facts), is_plain, "{line:?}");
        assert!(!allowed(&rules(Action::Deny, role()), &facts), "{line:?}");
    }
}

/// H1-20: upstream does not see what `Connection` names.
#[test]
fn what_ends_here_is_not_what_is_allowed() {
    for (option, goes_on) in
        [("x-role", false), ("close, X-ROLE", false), ("x-other", true), ("x_role", true)]
    {
        let request = TestRequest::get("/").header("x-role", "admin").connection(option);
        let facts = facts(None, Some(&request));
        let role = || Condition::Header(header("x-role", "admin"));
        assert_eq!(allowed(&rules(Action::Allow, role()), &facts), goes_on, "{option}");
        assert_eq!(allowed(&rules(Action::Deny, not(role())), &facts), goes_on, "{option}");
        assert!(!allowed(&rules(Action::Deny, role()), &facts), "{option}");
        assert!(!allowed(&rules(Action::Allow, not(role())), &facts), "{option}");
    }
    let request = TestRequest::get("/").header("x-envoy-role", "admin").connection("x-envoy-role");
    let facts = facts(None, Some(&request));
    let role = Condition::Header(header("x-envoy-role", "admin"));
    assert!(allowed(&rules(Action::Allow, role), &facts), "it goes on whatever `Connection` names");
}

#[test]
fn a_header_that_must_not_be_there_is_not_hidden_by_its_spelling() {
    let present = |wanted, invert| {
        let test = HeaderTest::Present(wanted);
        Condition::Header(HeaderMatch { name: "x-a".into(), test, invert, missing_as_empty: false })
    };
    for (name, is_there, is_there_in_doubt) in
        [("x-a", true, true), ("X-A", true, true), ("x_a", false, true), ("x-b", false, false)]
    {
        let request = TestRequest::get("/").header(name, "1");
        let facts = facts(None, Some(&request));
        for (wanted, invert) in [(true, false), (false, true)] {
            assert_eq!(allowed(&rules(Action::Allow, present(wanted, invert)), &facts), is_there, "{name}");
            let denied = !allowed(&rules(Action::Deny, present(wanted, invert)), &facts);
            assert_eq!(denied, is_there_in_doubt, "{name}");
        }
        for (wanted, invert) in [(false, false), (true, true)] {
            let allowed_without = allowed(&rules(Action::Allow, present(wanted, invert)), &facts);
            assert_eq!(allowed_without, !is_there_in_doubt, "{name}");
            assert_eq!(!allowed(&rules(Action::Deny, present(wanted, invert)), &facts), !is_there, "{name}");
        }
    }
}

/// RB-02: which forms of a host a policy for `a.example` allows, and which it denies.
#[test]
fn a_host_is_itself_in_every_form() {
    for (host, is_allowed, is_denied) in [
        ("a.example", true, true),
        ("A.Example", true, true),
        ("a.example:80", false, true),
        ("A.EXAMPLE:65535", false, true),
        ("a.example.", false, true),
        ("a.example.:80", false, true),
        ("a.example.x", false, false),
        ("b.a.example", false, false),
        ("a.example:x", false, false),
        ("", false, false),
    ] {
        let request = TestRequest::get("/").host(host);
        let facts = facts(None, Some(&request));
        for name in [":authority", "host", "Host"] {
            for test in [exactly("a.example"), exactly("A.example"), matching("a[.]example")] {
                let matcher = HeaderMatch { test: HeaderTest::Value(test), ..header(name, "") };
                let host_is = || Condition::Header(matcher.clone());
                assert_eq!(
                    allowed(&rules(Action::Allow, host_is()), &facts),
                    is_allowed,
                    "{host} {matcher:?}"
                );
                assert_eq!(
                    !allowed(&rules(Action::Deny, host_is()), &facts),
                    is_denied,
                    "{host} {matcher:?}"
                );
            }
        }
    }
}

#[test]
fn a_query_does_not_hide_a_path_from_a_policy_that_denies() {
    let request = TestRequest::get("/admin?x");
    let facts = facts(None, Some(&request));
    for (value, is_allowed, is_denied) in
        [("/admin", false, true), ("/admin?x", true, true), ("/admin?", false, false)]
    {
        let path = || Condition::Header(header(":path", value));
        assert_eq!(allowed(&rules(Action::Allow, path()), &facts), is_allowed, "{value}");
        assert_eq!(!allowed(&rules(Action::Deny, path()), &facts), is_denied, "{value}");
    }
}

#[test]
fn rules_have_bounds() {
    let nested = |depth| (0..depth).fold(Condition::Always, |inner, _| not(inner));
    let of = |condition| Rules::new(Action::Allow, vec![policy("p", condition, Condition::Always)]);
    assert!(of(nested(limits::RBAC_DEPTH_MAX - 1)).is_ok());
    let deep = of(nested(limits::RBAC_DEPTH_MAX)).unwrap_err();
    assert_eq!(deep.to_string(), "conditions 33 levels deep are deeper than 32");
    let many = vec![Condition::Always; limits::RBAC_CONDITIONS_MAX];
    let many = of(Condition::Any(some(many))).unwrap_err();
    let conditions = limits::RBAC_CONDITIONS_MAX + 2;
    assert_eq!(many, RulesError::TooMany { conditions, max: limits::RBAC_CONDITIONS_MAX });
}
