//! Stories of one stream. A request is a line of words, a response is shown as a line, so a story reads as what
//! went over the wire.

use bytes::Bytes;

use super::super::subscription::RESPONSE_BYTES_MAX;
use super::*;
use crate::compile::{self, Resources};
use ResourceType::{Cluster, Endpoint, Listener, Route};

mod random;
mod secrets;

/// A client, its session and the clock.
struct Stream {
    session: Session,
    view: Arc<View>,
    now: Instant,
}

/// `cart=1>cart` is the resource `cart` in version 1 with the child `cart`.
fn resources(words: &str) -> Resources {
    let resource = |word: &str| {
        let (name, rest) = word.split_once('=').unwrap();
        let (version, children) = rest.split_once('>').unwrap_or((rest, ""));
        let children = children.split(',').filter(|name| !name.is_empty()).map(Arc::from).collect();
        let (bytes, envelope) = (Bytes::new(), Bytes::from_static(&[0; 100]));
        let resource = Resource { name: name.into(), version: version.into(), bytes, envelope, children };
        (resource.name.clone(), Arc::new(resource))
    };
    words.split_whitespace().map(resource).collect()
}

/// Clusters, endpoints, listeners and routes.
fn view([clusters, endpoints, listeners, routes]: [&str; 4], before: Option<&View>) -> Arc<View> {
    let compiled = compile::View {
        clusters: resources(clusters),
        endpoints: resources(endpoints),
        listeners: resources(listeners),
        routes: resources(routes),
        secrets: Resources::new(),
    };
    Arc::new(View::new("r1".into(), compiled, before))
}

impl Stream {
    fn new(parts: [&str; 4], resend_children: bool) -> Stream {
        let (view, now) = (view(parts, None), Instant::now());
        Stream { session: Session::new(view.clone(), resend_children, now), view, now }
    }

    fn change(&mut self, parts: [&str; 4]) -> Vec<String> {
        self.view = view(parts, Some(&self.view));
        self.session.adopt(self.view.clone());
        self.drain()
    }

    /// Words: `+name` subscribes, `-name` unsubscribes, `name=version` is an initial version, `ack:N`, `nack:N:reason`.
    fn send(&mut self, kind: ResourceType, words: &str) -> Vec<String> {
        self.try_send(kind, words).unwrap()
    }

    fn try_send(&mut self, kind: ResourceType, words: &str) -> Result<Vec<String>, SessionError> {
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        let mut request = Request::default();
        for word in words.split_whitespace() {
            if let Some(name) = word.strip_prefix('+') {
                subscribe.push(name.to_owned());
            } else if let Some(name) = word.strip_prefix('-') {
                unsubscribe.push(name.to_owned());
            } else if let Some(nonce) = word.strip_prefix("ack:") {
                request.nonce = nonce;
            } else if let Some(rest) = word.strip_prefix("nack:") {
                let (nonce, reason) = rest.split_once(':').unwrap();
                (request.nonce, request.error) = (nonce, Some(reason));
            } else {
                request.initial_versions.push(word.split_once('=').unwrap());
            }
        }
        let request = Request { subscribe: &subscribe, unsubscribe: &unsubscribe, ..request };
        self.session.receive(kind, &request)?;
        Ok(self.drain())
    }

    /// What goes out now, as `cds#1 cart=1 -gone`.
    fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(response) = self.session.next_response(self.now) {
            let mut line = format!("{}#{}", response.kind.short(), response.nonce);
            for resource in &response.resources {
                line += &format!(" {}={}", resource.name, resource.version);
            }
            for name in &response.removed {
                line += &format!(" -{name}");
            }
            lines.push(line);
        }
        lines
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.drain()
    }

    /// A client of every type that has taken `parts`; the next nonce is 5.
    fn settled(parts: [&str; 4], resend_children: bool) -> Stream {
        let mut stream = Stream::new(parts, resend_children);
        let named = |words: &str| {
            words
                .split_whitespace()
                .map(|w| format!("+{} ", w.split_once('=').unwrap().0))
                .collect::<String>()
        };
        stream.send(Cluster, "");
        stream.send(Endpoint, &named(parts[1]));
        stream.send(Cluster, "ack:1");
        stream.send(Endpoint, "ack:2");
        stream.send(Listener, "");
        stream.send(Route, &named(parts[3]));
        stream.send(Listener, "ack:3");
        stream.send(Route, "ack:4");
        assert!(stream.session.is_settled(), "{:?}", stream.session);
        stream
    }
}

const SHOP: [&str; 4] = ["cart=1>cart pay=1>pay", "cart=1 pay=1", "in=1 out=1>http", "http=1"];

#[test]
fn a_first_connection_gets_everything_in_order_as_it_asks_and_acknowledges() {
    let mut stream = Stream::new(SHOP, false);
    assert_eq!(stream.send(Cluster, ""), ["cds#1 cart=1 pay=1"]);
    assert_eq!(stream.send(Listener, ""), [""; 0], "listeners wait for clusters");
    assert_eq!(stream.send(Cluster, "ack:1"), [""; 0], "and for the endpoints the client will ask for");
    assert_eq!(stream.send(Endpoint, "+cart"), ["eds#2 cart=1"]);
    assert_eq!(stream.send(Endpoint, "ack:2"), [""; 0], "pay is still missing");
    assert_eq!(stream.send(Endpoint, "+pay"), ["eds#3 pay=1"]);
    assert_eq!(stream.send(Endpoint, "ack:3"), ["lds#4 in=1 out=1"]);
    assert_eq!(stream.send(Route, "+http"), [""; 0], "routes wait for listeners");
    assert_eq!(stream.send(Listener, "ack:4"), ["rds#5 http=1"]);
    assert!(!stream.session.is_settled());
    assert_eq!(stream.send(Route, "ack:5"), [""; 0]);
    assert!(stream.session.is_settled());
}

#[test]
fn a_reconnect_with_its_versions_gets_nothing() {
    let mut stream = Stream::new(SHOP, true);
    for (kind, request) in [
        (Cluster, "cart=1 pay=1"),
        (Endpoint, "+cart +pay cart=1 pay=1"),
        (Listener, "in=1 out=1"),
        (Route, "+http http=1"),
    ] {
        assert_eq!(stream.send(kind, request), [""; 0], "{kind:?}");
    }
    assert!(stream.session.is_settled());
}

#[test]
fn a_reconnect_gets_what_changed_meanwhile_and_loses_old_clusters_last() {
    let mut stream = Stream::new(SHOP, false);
    assert_eq!(
        stream.send(Cluster, "cart=1 old=7 pay=1"),
        [""; 0],
        "its routes may still name the old cluster"
    );
    assert_eq!(stream.send(Endpoint, "+cart +old +pay cart=1 old=7 pay=foreign-version"), ["eds#1 pay=1"]);
    assert_eq!(stream.send(Endpoint, "ack:1"), [""; 0]);
    assert_eq!(stream.send(Listener, "in=1 out=1"), [""; 0]);
    assert_eq!(stream.send(Route, "+http http=0"), ["rds#2 http=1"]);
    assert_eq!(stream.send(Route, "ack:2"), ["cds#3 -old"]);
    assert_eq!(stream.send(Endpoint, "-old"), [""; 0]);
    assert_eq!(stream.send(Cluster, "ack:3"), [""; 0]);
    assert!(stream.session.is_settled());
}

#[test]
fn a_client_that_asks_for_clusters_only_loses_old_ones_after_a_while() {
    let mut stream = Stream::new(SHOP, false);
    assert_eq!(stream.send(Cluster, "cart=1 old=7 pay=1"), [""; 0]);
    assert!(stream.session.deadline().is_some());
    assert_eq!(stream.pass(CHILD_WAIT_MAX), ["cds#1 -old"]);
    assert_eq!(stream.session.deadline(), None);
}

#[test]
fn a_client_that_asks_for_nothing_else_is_settled_at_once_if_nothing_has_to_go() {
    let mut stream = Stream::new(SHOP, false);
    stream.send(Endpoint, "+cart");
    assert_eq!(stream.send(Endpoint, "ack:1"), [""; 0]);
    assert!(stream.session.is_settled());
    let mut empty = Stream::new(["", "", "", ""], true);
    empty.send(Cluster, "");
    empty.send(Cluster, "ack:1");
    assert!(empty.session.is_settled());
}

#[test]
fn every_subscription_is_answered_by_the_rules_of_the_protocol() {
    // (what, type, requests with the responses they must get)
    type Story = &'static [(&'static str, &'static [&'static str])];
    let table: &[(&str, ResourceType, Story)] = &[
        ("an empty first request is *", Cluster, &[("", &["cds#1 cart=1 pay=1"])]),
        ("an explicit *", Cluster, &[("+*", &["cds#1 cart=1 pay=1"])]),
        ("an empty first request is nothing for endpoints", Endpoint, &[("", &[])]),
        ("an explicit * for endpoints", Endpoint, &[("+*", &["eds#1 cart=1 pay=1"])]),
        ("a name", Cluster, &[("+pay", &["cds#1 pay=1"])]),
        ("an unknown name is answered at once", Endpoint, &[("+no", &["eds#1 -no"]), ("ack:1", &[])]),
        ("known and unknown in one answer", Endpoint, &[("+no +pay", &["eds#1 pay=1 -no"])]),
        (
            "a name asked for again is sent again",
            Cluster,
            &[("+pay", &["cds#1 pay=1"]), ("ack:1", &[]), ("+pay", &["cds#2 pay=1"])],
        ),
        (
            "an unknown name asked for again is answered again",
            Endpoint,
            &[("+no", &["eds#1 -no"]), ("ack:1 +no", &["eds#2 -no"])],
        ),
        (
            "a name that * covers is sent again when it is asked for",
            Cluster,
            &[("", &["cds#1 cart=1 pay=1"]), ("ack:1 +pay", &["cds#2 pay=1"])],
        ),
        (
            "after a name, losing every name is not *",
            Cluster,
            &[("+pay", &["cds#1 pay=1"]), ("ack:1 -pay", &[]), ("", &[])],
        ),
        (
            "* stays beside a name until it is given up",
            Cluster,
            &[
                ("", &["cds#1 cart=1 pay=1"]),
                ("ack:1 +pay -*", &["cds#2 pay=1"]),
                ("ack:2 +cart", &["cds#3 cart=1"]),
            ],
        ),
        (
            "a name given up that * covers is answered with the resource",
            Cluster,
            &[("+* +pay", &["cds#1 cart=1 pay=1"]), ("ack:1 -pay", &["cds#2 pay=1"])],
        ),
        (
            "and with a removal if there is none",
            Cluster,
            &[("+* +no", &["cds#1 cart=1 pay=1 -no"]), ("ack:1 -no", &["cds#2 -no"])],
        ),
        (
            "a name given up that nothing covers is forgotten",
            Endpoint,
            &[("+pay +cart", &["eds#1 cart=1 pay=1"]), ("ack:1 -pay", &[]), ("+pay", &["eds#2 pay=1"])],
        ),
        (
            "a stale nonce acknowledges nothing, its subscription counts",
            Endpoint,
            &[
                ("+cart", &["eds#1 cart=1"]),
                ("ack:77 +pay", &[]),
                ("ack:1", &["eds#2 pay=1"]),
                ("ack:1", &[]),
                ("ack:2", &[]),
            ],
        ),
        (
            "a request without a nonce acknowledges nothing",
            Endpoint,
            &[("+cart", &["eds#1 cart=1"]), ("+pay", &[]), ("ack:1", &["eds#2 pay=1"])],
        ),
        (
            "a refused resource is not sent again",
            Endpoint,
            &[("+cart", &["eds#1 cart=1"]), ("nack:1:no", &[]), ("+pay", &["eds#2 pay=1"])],
        ),
        (
            "versions of names that are not asked for are ignored",
            Endpoint,
            &[("+cart cart=1 old=1 pay=1", &[]), ("+pay", &["eds#1 pay=1"])],
        ),
        (
            "versions count in the first request only",
            Endpoint,
            &[("+cart", &["eds#1 cart=1"]), ("ack:1 +pay pay=1", &["eds#2 pay=1"])],
        ),
    ];
    for (what, kind, story) in table {
        let mut stream = Stream::new(SHOP, false);
        for (request, responses) in *story {
            assert_eq!(stream.send(*kind, request), *responses, "{what}: {request:?}");
        }
    }
}

#[test]
fn a_wildcard_over_nothing_is_answered_with_nothing_once() {
    let mut stream = Stream::new(["", "", "", ""], false);
    assert_eq!(stream.send(Cluster, ""), ["cds#1"]);
    assert_eq!(stream.send(Cluster, "ack:1"), [""; 0]);
    assert_eq!(stream.send(Listener, ""), ["lds#2"]);
    let mut kept = Stream::new(["", "", "", ""], false);
    assert_eq!(kept.send(Listener, "in=1"), ["lds#1 -in"], "what it kept is gone");
}

#[test]
fn changes_behind_an_unanswered_response_are_sent_as_one() {
    let mut stream = Stream::settled(SHOP, false);
    assert_eq!(stream.change([SHOP[0], "cart=2 pay=1", SHOP[2], SHOP[3]]), ["eds#5 cart=2"]);
    assert_eq!(stream.change([SHOP[0], "cart=3 pay=2", SHOP[2], SHOP[3]]), [""; 0]);
    assert_eq!(stream.change([SHOP[0], "cart=4 pay=1", SHOP[2], SHOP[3]]), [""; 0]);
    assert_eq!(stream.send(Endpoint, "ack:5"), ["eds#6 cart=4"], "pay came back to what the client has");
}

#[test]
fn a_change_is_made_before_the_old_is_broken() {
    let mut stream = Stream::settled(SHOP, false);
    // `pay` is replaced by `pay2`; the listener moves to a new route configuration.
    let after = ["cart=1>cart pay2=1>pay2", "cart=1 pay2=1", "in=1 out=2>http2", "http2=1"];
    assert_eq!(stream.change(after), ["cds#5 pay2=1"]);
    assert_eq!(stream.send(Cluster, "ack:5"), [""; 0]);
    assert_eq!(stream.send(Endpoint, "+pay2"), ["eds#6 pay2=1"]);
    assert_eq!(stream.send(Endpoint, "ack:6"), ["lds#7 out=2"]);
    assert_eq!(stream.send(Route, "+http2"), [""; 0]);
    assert_eq!(stream.send(Listener, "ack:7"), ["rds#8 http2=1 -http"]);
    assert_eq!(stream.send(Route, "ack:8"), ["cds#9 -pay"]);
    assert_eq!(stream.send(Endpoint, "-pay"), [""; 0]);
    assert_eq!(stream.send(Cluster, "ack:9"), [""; 0]);
    assert_eq!(stream.send(Route, "-http"), [""; 0]);
    assert!(stream.session.is_settled());
}

#[test]
fn a_removed_cluster_waits_until_the_new_routes_of_a_listener_are_asked_for() {
    let mut stream = Stream::settled(SHOP, false);
    stream.change(["cart=1>cart", "cart=1", "in=1 out=2>http2", "http2=1"]);
    assert_eq!(stream.send(Listener, "ack:5"), ["rds#6 -http"]);
    assert_eq!(stream.send(Route, "ack:6"), [""; 0], "http2 was not asked for yet");
    assert_eq!(stream.send(Route, "+http2"), ["rds#7 http2=1"]);
    assert_eq!(stream.send(Route, "ack:7"), ["cds#8 -pay"]);
}

#[test]
fn endpoints_that_a_new_route_relies_on_go_first_even_if_their_cluster_is_old() {
    let mut stream = Stream::settled(SHOP, false);
    assert_eq!(stream.change([SHOP[0], "cart=1 pay=2", SHOP[2], "http=2"]), ["eds#5 pay=2"]);
    // Churn by the fast lane does not move the goal.
    assert_eq!(stream.change([SHOP[0], "cart=2 pay=2", SHOP[2], "http=2"]), [""; 0]);
    assert_eq!(stream.send(Endpoint, "ack:5"), ["eds#6 cart=2", "rds#7 http=2"]);
}

#[test]
fn endpoints_do_not_wait_for_clusters_they_do_not_belong_to() {
    let mut stream = Stream::settled(SHOP, true);
    assert_eq!(stream.change(["cart=2>cart pay=1>pay", SHOP[1], SHOP[2], SHOP[3]]), ["cds#5 cart=2"]);
    let after = ["cart=2>cart pay=1>pay", "cart=2 pay=2", SHOP[2], SHOP[3]];
    assert_eq!(stream.change(after), ["eds#6 pay=2"], "cart's belong after its cluster");
    assert_eq!(stream.send(Endpoint, "ack:6"), [""; 0]);
    assert_eq!(stream.send(Cluster, "ack:5"), ["eds#7 cart=2"]);
}

#[test]
fn envoy_gets_unchanged_endpoints_again_after_their_cluster_and_ours_does_not() {
    let after = ["cart=2>cart pay=1>pay", SHOP[1], SHOP[2], "http=2"];
    let mut envoy = Stream::settled(SHOP, true);
    assert_eq!(envoy.change(after), ["cds#5 cart=2"]);
    assert_eq!(envoy.send(Cluster, "ack:5"), ["eds#6 cart=1"]);
    assert_eq!(envoy.send(Endpoint, "ack:6"), ["rds#7 http=2"], "routes wait for a warm cluster");
    let mut ours = Stream::settled(SHOP, false);
    assert_eq!(ours.change(after), ["cds#5 cart=2"]);
    assert_eq!(ours.send(Cluster, "ack:5"), ["rds#6 http=2"]);
}

#[test]
fn a_refusal_releases_what_waits_and_names_what_was_refused() {
    let mut stream = Stream::settled(SHOP, false);
    assert_eq!(stream.change(["cart=2>cart pay=2>pay", SHOP[1], SHOP[2], "http=2"]), ["cds#5 cart=2 pay=2"]);
    assert_eq!(stream.send(Cluster, "nack:5:pay/lb_policy:unsupported"), ["rds#6 http=2"]);
    stream.send(Route, "ack:6");
    let refused: Vec<_> = stream.session.refused().cloned().collect();
    let reason = "pay/lb_policy:unsupported".into();
    assert_eq!(refused, [Refused { kind: Cluster, name: "pay".into(), version: "2".into(), reason }]);
    assert!(!stream.session.is_settled());
    // A reconnect or a new version may repeat it; the good old version, sent again, clears it.
    assert_eq!(stream.change(["cart=2>cart pay=1>pay", SHOP[1], SHOP[2], "http=2"]), ["cds#7 pay=1"]);
    stream.send(Cluster, "ack:7");
    assert!(stream.session.is_settled());
}

#[test]
fn a_refused_route_keeps_the_clusters_that_the_old_one_uses() {
    let mut stream = Stream::settled(SHOP, false);
    assert_eq!(stream.change(["cart=1>cart", "cart=1", SHOP[2], "http=2"]), ["rds#5 http=2"]);
    assert_eq!(stream.send(Route, "nack:5:bad"), [""; 0], "the old routes still name pay");
    assert_eq!(stream.change(["cart=1>cart", "cart=1", SHOP[2], "http=3"]), ["rds#6 http=3"]);
    assert_eq!(stream.send(Route, "ack:6"), ["cds#7 -pay"]);
}

#[test]
fn the_same_refusal_is_news_once() {
    let mut stream = Stream::settled(SHOP, false);
    let refuse = |stream: &mut Stream, nonce: &str| {
        let request = Request { nonce, error: Some("bad"), ..Request::default() };
        match stream.session.receive(Endpoint, &request).unwrap() {
            Answer::Nack(new) => new.len(),
            other => panic!("{other:?}"),
        }
    };
    stream.change([SHOP[0], "cart=2 pay=2", SHOP[2], SHOP[3]]);
    assert_eq!(refuse(&mut stream, "5"), 2, "without a name in the reason all are taken to be refused");
    assert_eq!(stream.send(Endpoint, "+cart"), ["eds#6 cart=2"]);
    assert_eq!(refuse(&mut stream, "6"), 0);
}

#[test]
fn a_client_that_never_asks_for_endpoints_gets_its_listeners_after_a_while() {
    let mut stream = Stream::new(SHOP, false);
    stream.send(Cluster, "");
    stream.send(Listener, "");
    assert_eq!(stream.send(Cluster, "ack:1"), [""; 0]);
    assert_eq!(stream.pass(CHILD_WAIT_MAX - Duration::from_millis(1)), [""; 0]);
    assert_eq!(stream.pass(Duration::from_millis(1)), ["lds#2 in=1 out=1"]);
}

#[test]
fn a_cluster_whose_endpoints_do_not_exist_holds_nothing_back() {
    let mut stream = Stream::new(["cart=1>cart", "", "in=1", ""], false);
    stream.send(Cluster, "");
    assert_eq!(stream.send(Listener, ""), [""; 0]);
    assert_eq!(stream.send(Cluster, "ack:1"), ["lds#2 in=1"]);
}

#[test]
fn a_large_answer_is_split_and_the_parts_wait_for_each_other() {
    let size = RESPONSE_BYTES_MAX / 4;
    let mut clusters = resources("a=1 b=1 c=1 d=1 e=1 huge=1");
    for resource in clusters.values_mut() {
        let bytes = if resource.name.as_ref() == "huge" { 2 * RESPONSE_BYTES_MAX } else { size };
        Arc::make_mut(resource).envelope = vec![0; bytes].into();
    }
    let mut stream = Stream::new(["", "", "", ""], false);
    let compiled = compile::View { clusters, ..compile::View::default() };
    stream.session.adopt(Arc::new(View::new("r2".into(), compiled, None)));
    assert_eq!(stream.send(Cluster, ""), ["cds#1 a=1 b=1 c=1 d=1"]);
    assert_eq!(stream.send(Cluster, "ack:1"), ["cds#2 e=1"]);
    assert_eq!(stream.send(Cluster, "ack:2"), ["cds#3 huge=1"]);
    assert_eq!(stream.send(Cluster, "ack:3"), [""; 0]);
}

#[test]
fn a_resource_that_comes_back_before_its_removal_went_out_is_kept() {
    let mut stream = Stream::settled(SHOP, false);
    assert_eq!(stream.change(["cart=1>cart", "cart=1", SHOP[2], "http=2"]), ["rds#5 http=2"]);
    assert_eq!(stream.change([SHOP[0], SHOP[1], SHOP[2], "http=2"]), [""; 0]);
    assert_eq!(stream.send(Route, "ack:5"), [""; 0]);
    assert!(stream.session.is_settled());
}

#[test]
fn a_resource_that_appears_is_sent_to_a_client_that_asked_before() {
    let mut stream = Stream::new(SHOP, false);
    stream.send(Endpoint, "+later");
    stream.send(Endpoint, "ack:1");
    assert_eq!(stream.change([SHOP[0], "cart=1 later=1", SHOP[2], SHOP[3]]), ["eds#2 later=1"]);
}

#[test]
fn what_a_client_may_name_is_bounded() {
    let mut stream = Stream::new(SHOP, false);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let error = stream.try_send(Endpoint, &format!("+{long}")).unwrap_err();
    assert_eq!(error, SessionError::NameTooLong { kind: Endpoint, bytes: NAME_BYTES_MAX + 1 });
    let many: String = (0..=NAMES_COUNT_MAX).map(|n| format!("+{n} ")).collect();
    assert_eq!(stream.try_send(Endpoint, &many).unwrap_err(), SessionError::TooManyNames { kind: Endpoint });
}
