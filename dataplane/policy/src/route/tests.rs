//! Tests of the whole look-up: virtual host, index, first match. Parts are tested in their own files.

use std::{format, string::String, vec};

use alloc::{sync::Arc, vec::Vec};
use wire::head::Method;

use super::{test_request::TestRequest, *};
use crate::{Rng, Weighted, regex::Regex, string_match::*};

fn route(name: String, matches: RouteMatch) -> RouteSpec {
    let target = TargetSpec { cluster: name.as_str().into(), ..TargetSpec::default() };
    RouteSpec {
        name: name.into(),
        matches,
        action: RouteActionSpec::Forward(Forward::new(Weighted::one(target))),
        request_headers: HeaderOps::default(),
        response_headers: HeaderOps::default(),
        filters: FilterOverrides::default(),
    }
}

/// A table with one virtual host for every domain; routes are named by their position.
fn table(matches: impl IntoIterator<Item = RouteMatch>) -> RouteTable {
    let routes = (0..).zip(matches).map(|(position, matches)| route(format!("{position}"), matches));
    let host = VirtualHostSpec {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: routes.collect(),
        ..VirtualHostSpec::default()
    };
    RouteTable::new(RouteTableSpec { virtual_hosts: vec![host], ..RouteTableSpec::default() }).unwrap()
}

fn exact(path: &str) -> RouteMatch {
    RouteMatch::path(PathMatch::Exact(path.as_bytes().into()))
}

fn prefix(path: &str) -> RouteMatch {
    RouteMatch::path(PathMatch::Prefix(path.as_bytes().into()))
}

fn separated(path: &str) -> RouteMatch {
    RouteMatch::path(PathMatch::PathSeparatedPrefix(path.as_bytes().into()))
}

fn regex(pattern: &str) -> RouteMatch {
    RouteMatch::path(PathMatch::Regex(Regex::full(pattern).unwrap()))
}

fn ignoring_case(mut matches: RouteMatch) -> RouteMatch {
    matches.case_sensitive = false;
    matches
}

/// The position of the picked route.
fn picked(table: &RouteTable, request: &TestRequest) -> Option<usize> {
    let mut scratch = RouteScratch::default();
    table.pick(&request.view(), &mut scratch, 0).map(|route| route.name.parse().unwrap())
}

#[test]
fn the_first_route_that_matches_wins_whatever_its_kind() {
    let table = table([
        exact("/a/b"),
        separated("/a"),
        prefix("/ab"),
        regex("/x/[0-9]+"),
        prefix("/x/"),
        ignoring_case(exact("/Y")),
        exact("/y"),
        ignoring_case(prefix("/Z/")),
        ignoring_case(separated("/W")),
        prefix("/z/"),
        prefix("/"),
        exact("/never"),
    ]);
    let cases = [
        ("/a/b", 0),
        ("/a/b?q=1", 0),
        ("/a/bc", 1),
        ("/a", 1),
        ("/a/", 1),
        ("/ac", 10),
        ("/ab", 2),
        ("/abc", 2),
        ("/x/17", 3),
        ("/x/17a", 4),
        ("/y", 5),
        ("/Y", 5),
        ("/z/1", 7),
        ("/Z/1", 7),
        ("/w", 8),
        ("/W/1", 8),
        ("/wx", 10),
        ("/never", 10),
        ("/", 10),
        ("/\u{fe}", 10),
    ];
    for (target, expected) in cases {
        assert_eq!(picked(&table, &TestRequest::get(target)), Some(expected), "{target}");
    }
    assert_eq!(picked(&table, &TestRequest::get("*")), None);
}

#[test]
fn an_earlier_route_whose_conditions_fail_leaves_the_request_to_a_later_one() {
    let mut post = prefix("/");
    post.method = Some(b"POST"[..].into());
    let mut canary = exact("/a");
    canary.headers.push(HeaderMatch {
        name: "x-canary".into(),
        test: HeaderTest::Present(true),
        invert: false,
        missing_as_empty: false,
    });
    let table = table([post, canary, exact("/a"), prefix("/a")]);
    let get = TestRequest::get("/a");
    assert_eq!(picked(&table, &get), Some(2));
    assert_eq!(picked(&table, &get.clone().header("X-Canary", "")), Some(1));
    assert_eq!(picked(&table, &get.clone().method(Method::Post, "POST")), Some(0));
    assert_eq!(picked(&table, &TestRequest::get("/ab")), Some(3));
    assert_eq!(picked(&table, &TestRequest::get("/b")), None);
}

#[test]
fn connect_matches_no_path_and_a_target_without_path_is_the_root() {
    let paths = [exact("/"), exact("*"), prefix(""), regex(".*")];
    let connect = TestRequest::without_path(Method::Connect, "CONNECT", "example.com:443");
    assert_eq!(picked(&table(paths.clone()), &connect), None);
    let table = table(paths.into_iter().chain([RouteMatch::path(PathMatch::Connect)]));
    assert_eq!(picked(&table, &connect), Some(4));
    // With `:protocol` it has a path (RFC 8441), and what takes paths takes it.
    let extended = TestRequest::get("/").method(Method::Connect, "CONNECT");
    assert_eq!(picked(&table, &extended), Some(0));
    let options = TestRequest::without_path(Method::Options, "OPTIONS", "*");
    assert_eq!(picked(&table, &options), Some(1));
    let absolute = TestRequest::without_path(Method::Get, "GET", "http://example.com");
    assert_eq!(picked(&table, &absolute), Some(0));
}

#[test]
fn grpc_is_told_by_one_type() {
    let mut grpc = prefix("/");
    grpc.grpc = true;
    let table = table([grpc, prefix("/")]);
    let request = |types: &[&str]| {
        types.iter().fold(TestRequest::get("/a.B/c"), |request, of| request.header("Content-Type", of))
    };
    for (types, expected) in [
        (&["application/grpc"][..], 0),
        (&["application/grpc+proto"], 0),
        (&["application/json"], 1),
        (&["application/grpc", "application/grpc"], 1),
        (&[], 1),
    ] {
        assert_eq!(picked(&table, &request(types)), Some(expected), "{types:?}");
    }
}

#[test]
fn the_index_answers_like_a_scan_of_the_routes_in_order() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(24);
        let matches: Vec<RouteMatch> = (0..count).map(|_| random_match(&mut rng)).collect();
        let table = table(matches.clone());
        let mut scratch = RouteScratch::default();
        for _ in 0..40 {
            let request = random_request(&mut rng);
            let random = rng.next_u64();
            let view = request.view();
            let scan = matches.iter().position(|matches| matches.matches(&view, &mut scratch, random));
            let index =
                table.pick(&view, &mut scratch, random).map(|route| route.name.parse::<usize>().unwrap());
            assert_eq!(index, scan, "seed {seed}: {} over {matches:?}", String::from_utf8_lossy(view.path()));
        }
    }
}

/// A path of few letters, so that equal and nested ones are common.
fn random_path(rng: &mut Rng) -> String {
    let letters = ["a", "b", "/", "/", "A", "é"];
    let path: String = (0..rng.below(6)).map(|_| letters[rng.below(6) as usize]).collect();
    format!("/{path}")
}

fn random_match(rng: &mut Rng) -> RouteMatch {
    let path = random_path(rng);
    let mut matches = match rng.below(8) {
        0 | 1 => exact(&path),
        2 | 3 => prefix(&path),
        4 | 5 => separated(path.trim_end_matches('/')),
        6 if rng.below(2) == 0 => RouteMatch::path(PathMatch::Connect),
        6 => prefix(""),
        _ => regex(["/a.*", "/(a|b)/?", ".*b", "/[^/]+/.*"][rng.below(4) as usize]),
    };
    matches.case_sensitive = rng.below(4) > 0;
    if rng.below(5) == 0 {
        matches.method = Some(b"POST"[..].into());
    }
    matches.grpc = rng.below(8) == 0;
    if rng.below(4) == 0 {
        let pattern = match rng.below(3) {
            0 => StringPattern::Exact(b"1"[..].into()),
            1 => StringPattern::Prefix(b"1"[..].into()),
            _ => StringPattern::Regex(Regex::full("[12]").unwrap()),
        };
        let test = match rng.below(3) {
            0 => HeaderTest::Present(rng.below(2) == 0),
            1 => HeaderTest::Range(0..2),
            _ => HeaderTest::Value(StringMatch { pattern, ignore_case: false }),
        };
        let (invert, missing_as_empty) = (rng.below(3) == 0, rng.below(3) == 0);
        matches.headers.push(HeaderMatch { name: "x".into(), test, invert, missing_as_empty });
    }
    if rng.below(6) == 0 {
        matches.query.push(QueryMatch { name: b"q"[..].into(), test: QueryTest::Present(rng.below(2) == 0) });
    }
    if rng.below(6) == 0 {
        matches.fraction = Some(Fraction { numerator: 1, denominator: 2 });
    }
    matches
}

fn random_request(rng: &mut Rng) -> TestRequest {
    let mut target = random_path(rng).into_bytes();
    if rng.below(8) == 0 {
        target.push(0xff);
    }
    if rng.below(4) == 0 {
        target.extend_from_slice(b"?q=1");
    }
    let mut request = match rng.below(10) {
        0 => TestRequest::without_path(Method::Connect, "CONNECT", "example.com:443"),
        1 => TestRequest::get(target).method(Method::Connect, "CONNECT"),
        _ => TestRequest::get(target),
    };
    if rng.below(4) == 0 {
        request = request.header("Content-Type", "application/grpc");
    }
    if rng.below(3) == 0 {
        request = request.method(Method::Post, "POST");
    }
    for _ in 0..rng.below(3) {
        request = request.header("X", ["1", "2", "", "12"][rng.below(4) as usize]);
    }
    request
}

#[test]
fn a_thousand_routes_try_no_more_routes_than_one() {
    let tries = |count: usize, target: &str| {
        let matches: Vec<RouteMatch> = (0..count).map(|i| prefix(&format!("/service-{i}/"))).collect();
        let index = path_index::PathIndex::new(matches.iter());
        let mut tried = Vec::new();
        let found = index.first(Some(target.as_bytes()), &mut Vec::new(), |position| {
            tried.push(position);
            true
        });
        (found, tried)
    };
    assert_eq!(tries(1, "/service-0/x"), (Some(0), vec![0]));
    assert_eq!(tries(1_000, "/service-999/x"), (Some(999), vec![999]));
    assert_eq!(tries(1_000, "/service-1000/x"), (None, vec![]));
    // Walking the tree takes one step per branching byte, whatever the count: see `prefix_tree`.
}

#[test]
fn regular_expressions_behind_the_best_match_are_not_tried() {
    let mut matches: Vec<RouteMatch> = (0..100).map(|_| regex("/a.*")).collect();
    matches.insert(1, exact("/b"));
    let index = path_index::PathIndex::new(matches.iter());
    let mut tried = Vec::new();
    let found = index.first(Some(b"/b"), &mut Vec::new(), |position| {
        tried.push(position);
        position == 1
    });
    assert_eq!((found, tried), (Some(1), vec![1, 0]));
}

#[test]
fn virtual_hosts_are_found_by_domain_with_or_without_port() {
    let host = |domain: &str| VirtualHostSpec {
        name: domain.into(),
        domains: vec![domain.into()],
        ..VirtualHostSpec::default()
    };
    let build = |ignore_port_in_host_matching| {
        let virtual_hosts = vec![host("a.example"), host("a.example:8080"), host("*.example"), host("[::1]")];
        let spec =
            RouteTableSpec { virtual_hosts, ignore_port_in_host_matching, ..RouteTableSpec::default() };
        RouteTable::new(spec).unwrap()
    };
    let name = |table: &RouteTable, authority: &str| {
        let found = table.virtual_host(authority.as_bytes(), &mut RouteScratch::default());
        found.map_or(String::from("-"), |host| String::from(&*host.name))
    };
    let (keeping, ignoring) = (build(false), build(true));
    // (authority, port kept, port ignored)
    for (authority, kept, ignored) in [
        ("a.example", "a.example", "a.example"),
        ("A.Example", "a.example", "a.example"),
        ("a.example:8080", "a.example:8080", "a.example"),
        ("a.example:81", "-", "a.example"),
        ("b.example", "*.example", "*.example"),
        ("b.example:81", "-", "*.example"),
        ("[::1]", "[::1]", "[::1]"),
        ("[::1]:80", "-", "[::1]"),
        ("", "-", "-"),
    ] {
        assert_eq!(name(&keeping, authority), kept, "{authority}, port kept");
        assert_eq!(name(&ignoring, authority), ignored, "{authority}, port ignored");
    }
}

#[test]
fn header_edits_of_all_levels_reach_the_target_in_envoys_order() {
    let ops = |value: &str| {
        let mut ops = HeaderOps::default();
        ops.add("x", value.as_bytes(), AppendAction::Append).unwrap();
        ops.add("who", value.as_bytes(), AppendAction::Overwrite).unwrap();
        ops
    };
    let build = |most_specific_header_mutations_wins| {
        let target = TargetSpec {
            cluster: "c".into(),
            request_headers: ops("target"),
            response_headers: ops("target"),
            host_rewrite: None,
            ..TargetSpec::default()
        };
        let mut spec = route("0".into(), prefix("/"));
        spec.action = RouteActionSpec::Forward(Forward::new(Weighted::one(target)));
        (spec.request_headers, spec.response_headers) = (ops("route"), ops("route"));
        let answer = DirectResponse { status: 404, body: Arc::default() };
        let mut direct = route("1".into(), prefix("/"));
        direct.action = RouteActionSpec::DirectResponse(answer);
        direct.response_headers = ops("route");
        let host = VirtualHostSpec {
            domains: vec!["*".into()],
            routes: vec![spec, direct, route("2".into(), prefix("/"))],
            request_headers: ops("host"),
            response_headers: ops("host"),
            ..VirtualHostSpec::default()
        };
        RouteTable::new(RouteTableSpec {
            virtual_hosts: vec![host],
            most_specific_header_mutations_wins,
            request_headers: ops("table"),
            response_headers: ops("table"),
            ..RouteTableSpec::default()
        })
        .unwrap()
    };
    let edits = |edits: &HeaderEdits| {
        let mut made = Vec::new();
        edits.for_each(|_| false, |edit| made.push(format!("{edit:?}")));
        made
    };
    let text = |names: [&str; 4], winner: &str| {
        let mut expected: Vec<String> =
            names.iter().map(|name| format!("{:?}", Edit::Add("x", name.as_bytes()))).collect();
        expected.push(format!("{:?}", Edit::Remove("who")));
        expected.push(format!("{:?}", Edit::Add("who", winner.as_bytes())));
        expected
    };
    for (specific_wins, order, winner) in [
        (false, ["target", "route", "host", "table"], "table"),
        (true, ["table", "host", "route", "target"], "target"),
    ] {
        let table = build(specific_wins);
        let routes = table.virtual_hosts()[0].routes();
        let RouteAction::Forward(forward) = &routes[0].action else { panic!("a forward stays one") };
        assert_eq!(edits(&forward.target(0).request_headers), text(order, winner));
        assert_eq!(edits(&forward.target(0).response_headers), text(order, winner));
        let own = edits(&routes[1].response_headers);
        assert_eq!(own.len(), 5, "an answer of our own has the edits of three levels: {own:?}");
        let RouteAction::Forward(forward) = &routes[2].action else { panic!("a forward stays one") };
        let above: Vec<&str> = order.into_iter().filter(|level| ["host", "table"].contains(level)).collect();
        let inherited = edits(&forward.target(0).request_headers);
        let expected = [Edit::Add("x", above[0].as_bytes()), Edit::Add("x", above[1].as_bytes())];
        assert_eq!(inherited[..2], expected.map(|edit| format!("{edit:?}")));
        assert_eq!(table.clusters().map(|name| &**name).collect::<Vec<_>>(), ["c", "2"]);
    }
}
