//! Which rule takes a request.

use crate::support::{Mesh, route};

/// HTTPRouteSimpleSameNamespace
#[test]
fn a_rule_without_matches_takes_everything() {
    let mesh = Mesh::new(&route("simple", "rules: [{backendRefs: [{name: v1, port: 8080}]}]"));
    mesh.expect("edge", 80, &[("GET any.host/", "v1"), ("POST any.host/a/b?c=d", "v1")]);
    let accepted = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    assert_eq!(mesh.route_conditions("HTTPRoute infra/simple"), [accepted]);
}

/// HTTPRouteExactPathMatching
#[test]
fn an_exact_path_is_that_path_and_no_other() {
    let mesh = Mesh::new(&route(
        "exact",
        "rules:
- {matches: [{path: {type: Exact, value: /one}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {type: Exact, value: /two}}], backendRefs: [{name: v2, port: 8080}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/one", "v1"),
            ("GET h/two", "v2"),
            ("GET h/", "404"),
            ("GET h/one/example", "404"),
            ("GET h/two/", "404"),
            ("GET h/Two", "404"),
        ],
    );
}

/// HTTPRouteMatching
#[test]
fn prefixes_are_matched_element_by_element_and_any_match_of_a_rule_will_do() {
    let mesh = Mesh::new(&route(
        "matching",
        "rules:
- matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}]
  backendRefs: [{name: v2, port: 8080}]",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/", "v1"),
            ("GET h/example", "v1"),
            ("GET h/ Version=one", "v1"),
            ("GET h/v2", "v2"),
            ("GET h/v2/", "v2"),
            ("GET h/v2/example", "v2"),
            ("GET h/v2?q=1", "v2"),
            ("GET h/ Version=two", "v2"),
            ("GET h/v2example", "v1"),
            ("GET h/foo/v2/example", "v1"),
        ],
    );
}

/// HTTPRouteMatchingAcrossRoutes
#[test]
fn rules_of_several_routes_are_tried_as_if_they_were_of_one() {
    let one = route(
        "part1",
        "hostnames: [example.com, example.net]
rules:
- matches: [{path: {value: /}}, {headers: [{name: version, value: one}]}]
  backendRefs: [{name: v1, port: 8080}]",
    );
    let two = route(
        "part2",
        "hostnames: [example.com]
rules:
- matches: [{path: {value: /v2}}, {headers: [{name: version, value: two}]}]
  backendRefs: [{name: v2, port: 8080}]",
    );
    Mesh::new(&(one + &two)).expect(
        "edge",
        80,
        &[
            ("GET example.com/", "v1"),
            ("GET example.com/example", "v1"),
            ("GET example.net/example", "v1"),
            ("GET example.com/example Version=one", "v1"),
            ("GET example.com/v2", "v2"),
            ("GET example.net/v2", "v1"),
            ("GET example.com/v2/example", "v2"),
            ("GET example.com/ Version=two", "v2"),
        ],
    );
}

/// HTTPRoutePathMatchOrder
#[test]
fn exact_paths_come_first_then_the_longest_prefix() {
    let mesh = Mesh::new(&route(
        "order",
        "rules:
- {matches: [{path: {type: Exact, value: /match}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {type: Exact, value: /match/exact}}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{path: {type: Exact, value: /match/exact/one}}], backendRefs: [{name: v3, port: 8080}]}
- {matches: [{path: {value: /match/}}], backendRefs: [{name: v3, port: 8080}]}
- {matches: [{path: {value: /match/prefix/}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{path: {value: /match/prefix/one}}], backendRefs: [{name: v2, port: 8080}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/match/exact/one", "v3"),
            ("GET h/match/exact", "v2"),
            ("GET h/match", "v1"),
            ("GET h/match/prefix/one/any", "v2"),
            ("GET h/match/prefix/any", "v1"),
            ("GET h/match/any", "v3"),
        ],
    );
}

/// HTTPRouteHeaderMatching
#[test]
fn more_headers_come_first_and_header_values_are_exact() {
    let mesh = Mesh::new(&route(
        "headers",
        "rules:
- {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{headers: [{name: version, value: two}]}], backendRefs: [{name: v2, port: 8080}]}
- matches:
  - headers: [{name: version, value: two}, {name: color, value: orange}]
  - headers: [{name: color, value: blue}]
  - headers: [{name: color, value: green}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{headers: [{name: color, value: red}]}, {headers: [{name: color, value: yellow}]}]
  backendRefs: [{name: v2, port: 8080}]",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/ Version=one", "v1"),
            ("GET h/ Version=two", "v2"),
            ("GET h/ Version=two Color=orange", "v1"),
            ("GET h/ Color=blue", "v1"),
            ("GET h/ Color=green", "v1"),
            ("GET h/ Color=red", "v2"),
            ("GET h/ Color=yellow", "v2"),
            ("GET h/ Some-Other-Header=one", "404"),
            ("GET h/ Color=purple", "404"),
            ("GET h/", "404"),
        ],
    );
}

/// HTTPRouteMethodMatching
#[test]
fn a_method_is_worth_less_than_a_path_and_more_than_a_header() {
    let mesh = Mesh::new(&route(
        "methods",
        "rules:
- {matches: [{method: POST}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{method: GET}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{path: {value: /path1}, method: GET}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{headers: [{name: version, value: one}], method: PUT}], backendRefs: [{name: v2, port: 8080}]}
- matches: [{path: {value: /path2}, headers: [{name: version, value: two}], method: POST}]
  backendRefs: [{name: v3, port: 8080}]
- matches:
  - {path: {value: /path3}, method: PATCH}
  - {path: {value: /path4}, headers: [{name: version, value: three}], method: DELETE}
  backendRefs: [{name: v1, port: 8080}]
- {matches: [{path: {value: /path5}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{method: PATCH}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{headers: [{name: version, value: four}]}], backendRefs: [{name: v3, port: 8080}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("POST h/", "v1"),
            ("GET h/", "v2"),
            ("HEAD h/", "404"),
            ("GET h/path1", "v1"),
            ("PUT h/ version=one", "v2"),
            ("POST h/path2 version=two", "v3"),
            ("PATCH h/path3", "v1"),
            ("DELETE h/path4 version=three", "v1"),
            ("PUT h/", "404"),
            ("DELETE h/path4", "404"),
            ("PATCH h/path5", "v1"),
            ("PATCH h/ version=four", "v2"),
        ],
    );
}

/// HTTPRouteQueryParamMatching
#[test]
fn more_query_parameters_come_first_and_a_path_before_them() {
    let mesh = Mesh::new(&route(
        "query",
        "rules:
- {matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{queryParams: [{name: animal, value: dolphin}]}], backendRefs: [{name: v2, port: 8080}]}
- matches:
  - queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]
  - queryParams: [{name: ANIMAL, value: Whale}]
  backendRefs: [{name: v3, port: 8080}]
- matches: [{path: {value: /path1}, queryParams: [{name: animal, value: whale}]}]
  backendRefs: [{name: v1, port: 8080}]
- matches: [{headers: [{name: version, value: one}], queryParams: [{name: animal, value: whale}]}]
  backendRefs: [{name: v2, port: 8080}]
- {matches: [{path: {value: /path5}}], backendRefs: [{name: v1, port: 8080}]}
- {matches: [{queryParams: [{name: animal, value: hydra}]}], backendRefs: [{name: v2, port: 8080}]}
- {matches: [{headers: [{name: version, value: four}]}], backendRefs: [{name: v3, port: 8080}]}",
    ));
    mesh.expect(
        "edge",
        80,
        &[
            ("GET h/?animal=whale", "v1"),
            ("GET h/?animal=dolphin", "v2"),
            ("GET h/?animal=dolphin&color=blue", "v3"),
            ("GET h/?ANIMAL=Whale", "v3"),
            ("GET h/?animal=whale&otherparam=irrelevant", "v1"),
            ("GET h/?animal=dolphin&color=yellow", "v2"),
            ("GET h/?color=blue", "404"),
            ("GET h/?animal=dog", "404"),
            ("GET h/?animal=whaledolphin", "404"),
            ("GET h/", "404"),
            ("GET h/path1?animal=whale", "v1"),
            ("GET h/?animal=whale version=one", "v2"),
            ("GET h/path5?animal=hydra", "v1"),
            ("GET h/?animal=hydra version=four", "v3"),
        ],
    );
}

/// HTTPRouteNamedRule, and Gateway API's tie-breakers: age, then name, then the order of rules.
#[test]
fn of_equal_matches_the_older_route_wins_then_the_first_by_name_then_the_first_rule() {
    let created = |name: &str, created: &str, backend: &str| {
        route(name, &format!("rules: [{{name: first, backendRefs: [{{name: {backend}, port: 8080}}]}}]"))
            .replace("namespace: infra}", &format!("namespace: infra, creationTimestamp: {created}}}"))
    };
    let young = created("a", "2024-02-01T00:00:00Z", "v1");
    let old = created("b", "2024-01-01T00:00:00Z", "v2");
    let unknown = route("c", "rules: [{backendRefs: [{name: v3, port: 8080}]}]");
    Mesh::new(&(young.clone() + &unknown)).expect("edge", 80, &[("GET h/", "v1")]);
    Mesh::new(&(young + &old)).expect("edge", 80, &[("GET h/", "v2")]);
    let first = route(
        "b",
        "rules: [{backendRefs: [{name: v1, port: 8080}]}, {backendRefs: [{name: v2, port: 8080}]}]",
    );
    Mesh::new(&(unknown + &first)).expect("edge", 80, &[("GET h/", "v1")]);
}
