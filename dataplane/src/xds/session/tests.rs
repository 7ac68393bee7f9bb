//! The session as tables: what comes in, what goes out, what is remembered.

use super::*;

const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

fn names(names: &[&str]) -> Wanted {
    names.iter().map(|name| (Arc::from(*name), Some(FETCH_TIMEOUT))).collect()
}

fn session() -> Session {
    Session::new(Node { id: "web-1".into(), ..Node::default() }, Kind::ALL)
}

/// `name=version` for a resource; its body does not matter here.
fn response(kind: Kind, nonce: &str, resources: &[&str], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |text: &&str| {
        let (name, version) = text.split_once('=').unwrap();
        Resource { name: name.into(), version: version.into(), resource: None }
    };
    DeltaDiscoveryResponse {
        system_version_info: "r7".into(),
        resources: resources.iter().map(resource).collect(),
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn judged(batch: &Batch) -> (Vec<&str>, Vec<&str>) {
    let resources = batch.resources.iter().map(|resource| resource.name.as_str()).collect();
    (resources, batch.removed.iter().map(String::as_str).collect())
}

/// Receives a response and refuses the resources in `bad`.
fn take(session: &mut Session, response: DeltaDiscoveryResponse, bad: &[&str]) -> DeltaDiscoveryRequest {
    let batch = session.receive(response);
    let mut refused = batch.faults.clone();
    for resource in batch.resources.iter().filter(|resource| bad.contains(&resource.name.as_str())) {
        refused.push(Refused {
            name: resource.name.clone(),
            version: resource.version.clone(),
            reason: "lb_policy: MAGLEV is not supported by Ringway".into(),
        });
    }
    session.answer(&batch, &refused)
}

fn versions(session: &Session, kind: Kind) -> Vec<String> {
    session.versions(kind).map(|(name, version)| format!("{name}={version}")).collect()
}

fn subscribed(request: &DeltaDiscoveryRequest) -> (Vec<&str>, Vec<&str>) {
    (
        request.resource_names_subscribe.iter().map(String::as_str).collect(),
        request.resource_names_unsubscribe.iter().map(String::as_str).collect(),
    )
}

#[test]
fn a_stream_begins_with_the_wildcard_types_and_the_node_goes_once() {
    let mut session = session();
    let first = session.open(Instant::now());
    let types: Vec<_> = first.iter().map(|request| Kind::of(&request.type_url).unwrap()).collect();
    assert_eq!(types, [Kind::Cluster, Kind::Listener]);
    assert!(first.iter().all(|request| request.resource_names_subscribe.is_empty()));
    assert_eq!(first[0].node.as_ref().unwrap().id, "web-1");
    assert!(first[1].node.is_none());
}

#[test]
fn only_what_was_configured_is_asked_for() {
    let mut session = Session::new(Node::default(), [Kind::Listener, Kind::RouteTable]);
    assert_eq!(session.open(Instant::now()).len(), 1);
    assert!(session.is_answered(Kind::Cluster), "what is not asked for is not waited for");
    assert!(!session.is_answered(Kind::Listener));
}

#[test]
fn a_good_response_is_acked_and_its_versions_are_kept() {
    let mut session = session();
    session.open(Instant::now());
    let ack = take(&mut session, response(Kind::Cluster, "n1", &["a=1", "b=1"], &[]), &[]);
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail.is_none()), ("n1", true));
    assert_eq!(versions(&session, Kind::Cluster), ["a=1", "b=1"]);
    take(&mut session, response(Kind::Cluster, "n2", &["a=2"], &["b"]), &[]);
    assert_eq!(versions(&session, Kind::Cluster), ["a=2"]);
}

#[test]
fn a_poisoned_resource_is_refused_alone_and_its_last_good_version_is_kept() {
    let mut session = session();
    session.open(Instant::now());
    take(&mut session, response(Kind::Cluster, "n1", &["a=1", "b=1"], &[]), &[]);
    let nack = take(&mut session, response(Kind::Cluster, "n2", &["a=2", "b=2"], &[]), &["b"]);
    let detail = nack.error_detail.unwrap();
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(detail.code, 3);
    assert_eq!(detail.message, "b: lb_policy: MAGLEV is not supported by Ringway");
    assert_eq!(versions(&session, Kind::Cluster), ["a=2", "b=1"]);
}

#[test]
fn a_version_that_is_here_is_not_judged_again_unless_another_one_was_refused_since() {
    let mut session = session();
    session.open(Instant::now());
    take(&mut session, response(Kind::Cluster, "n1", &["a=1"], &[]), &[]);
    let again = session.receive(response(Kind::Cluster, "n2", &["a=1"], &[]));
    assert_eq!(judged(&again), (vec![], vec![]));
    assert!(session.answer(&again, &[]).error_detail.is_none());
    take(&mut session, response(Kind::Cluster, "n3", &["a=2"], &[]), &["a"]);
    let back = session.receive(response(Kind::Cluster, "n4", &["a=1"], &[]));
    assert_eq!(judged(&back), (vec!["a"], vec![]));
    // Without a version nothing can be told apart.
    take(&mut session, response(Kind::Cluster, "n5", &["c="], &[]), &[]);
    assert_eq!(judged(&session.receive(response(Kind::Cluster, "n6", &["c="], &[]))), (vec!["c"], vec![]));
}

#[test]
fn the_same_changes_in_any_number_of_responses_lead_to_the_same_state() {
    let whole = [(vec!["a=1", "b=1", "c=1"], vec!["d"])];
    let split = [(vec!["a=1"], vec![]), (vec!["b=1"], vec!["d"]), (vec!["c=1"], vec![])];
    let state = |responses: &[(Vec<&str>, Vec<&str>)]| {
        let mut session = session();
        session.open(Instant::now());
        take(&mut session, response(Kind::Cluster, "n0", &["d=1"], &[]), &[]);
        for (resources, removed) in responses {
            take(&mut session, response(Kind::Cluster, "n1", resources, removed), &[]);
        }
        versions(&session, Kind::Cluster)
    };
    assert_eq!(state(&whole), state(&split));
    assert_eq!(state(&whole), ["a=1", "b=1", "c=1"]);
}

#[test]
fn what_is_wrong_with_a_response_itself_is_a_nack_that_names_it() {
    let unknown = DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".into(),
        ..response(Kind::Cluster, "n1", &["a=1"], &[])
    };
    for (response, accepted, message) in [
        (
            response(Kind::Cluster, "n1", &["a=1", "b=1", "a=2"], &[]),
            vec!["b"],
            "a: it is there twice in one response",
        ),
        (response(Kind::Cluster, "n1", &["a=1", "=1"], &[]), vec!["a"], "resources[1]: it has no name"),
        (unknown, vec![], "type.googleapis.com/envoy.service.runtime.v3.Runtime was not subscribed to"),
    ] {
        let mut session = session();
        session.open(Instant::now());
        let batch = session.receive(response);
        assert_eq!(judged(&batch).0, accepted, "{message}");
        let nack = session.answer(&batch, &batch.faults.clone());
        assert_eq!(nack.error_detail.unwrap().message, message);
        assert_eq!(nack.response_nonce, "n1");
    }
}

#[test]
fn names_are_subscribed_to_when_something_refers_to_them_and_dropped_when_nothing_does() {
    let mut session = session();
    let now = Instant::now();
    assert!(session.subscribe(Kind::Endpoints, names(&["a"]), now).is_none(), "there is no stream yet");
    let first = session.open(now);
    assert_eq!(subscribed(&first[1]), (vec!["a"], vec![]));
    let change = session.subscribe(Kind::Endpoints, names(&["b", "c"]), now).unwrap();
    assert_eq!(subscribed(&change), (vec!["b", "c"], vec!["a"]));
    assert!(change.response_nonce.is_empty() && change.initial_resource_versions.is_empty());
    assert!(session.subscribe(Kind::Endpoints, names(&["b", "c"]), now).is_none(), "nothing changed");
    let first_routes = session.subscribe(Kind::RouteTable, names(&["r"]), now).unwrap();
    assert_eq!(subscribed(&first_routes), (vec!["r"], vec![]));
    assert!(session.subscribe(Kind::Cluster, names(&["x"]), now).is_none(), "clusters come by wildcard");
}

#[test]
fn an_answer_that_comes_after_its_name_was_dropped_is_acked_and_forgotten() {
    let mut session = session();
    let now = Instant::now();
    session.open(now);
    session.subscribe(Kind::Endpoints, names(&["a", "b"]), now);
    session.subscribe(Kind::Endpoints, names(&["b"]), now);
    let batch = session.receive(response(Kind::Endpoints, "n1", &["a=1", "b=1"], &["c"]));
    assert_eq!(judged(&batch), (vec!["b"], vec![]));
    assert!(session.answer(&batch, &[]).error_detail.is_none());
    assert_eq!(versions(&session, Kind::Endpoints), ["b=1"]);
    // Asked for again, it is taken in whatever version it comes.
    session.subscribe(Kind::Endpoints, names(&["a", "b"]), now);
    assert_eq!(judged(&session.receive(response(Kind::Endpoints, "n2", &["a=1"], &[]))).0, ["a"]);
}

#[test]
fn a_new_stream_says_what_is_here_and_uses_no_nonce_of_the_old_one() {
    let mut session = session();
    let now = Instant::now();
    session.open(now);
    session.subscribe(Kind::Endpoints, names(&["a", "b"]), now);
    take(&mut session, response(Kind::Cluster, "n1", &["a=1"], &[]), &[]);
    take(&mut session, response(Kind::Endpoints, "n2", &["a=5"], &[]), &[]);
    take(&mut session, response(Kind::Cluster, "n3", &["a=2"], &[]), &["a"]);
    session.close();
    assert!(!session.is_open() && session.deadline().is_none());
    let first = session.open(now);
    assert!(first.iter().all(|request| request.response_nonce.is_empty()));
    assert!(first[0].node.is_some());
    assert_eq!(first[0].initial_resource_versions, [("a".to_owned(), "1".to_owned())].into());
    assert_eq!(subscribed(&first[1]), (vec!["a", "b"], vec![]));
    assert_eq!(first[1].initial_resource_versions, [("a".to_owned(), "5".to_owned())].into());
}

#[test]
fn what_an_earlier_life_accepted_is_told_to_the_control_plane() {
    let mut session = session();
    session.remember(Kind::Listener, "in", "3");
    assert!(!session.is_answered(Kind::Listener));
    session.remember_answer(Kind::Listener);
    assert!(session.is_answered(Kind::Listener) && !session.is_answered(Kind::Cluster));
    let first = session.open(Instant::now());
    assert_eq!(first[1].initial_resource_versions, [("in".to_owned(), "3".to_owned())].into());
    take(&mut session, response(Kind::Listener, "n1", &[], &["in"]), &[]);
    assert!(versions(&session, Kind::Listener).is_empty());
}

#[test]
fn a_name_that_nobody_answers_counts_as_absent_after_a_while() {
    let mut session = session();
    let now = Instant::now();
    session.subscribe(Kind::RouteTable, names(&["r", "s", "t"]), now);
    assert!(session.deadline().is_none(), "nobody can answer while there is no stream");
    session.open(now);
    assert_eq!(session.deadline(), Some(now + FETCH_TIMEOUT));
    take(&mut session, response(Kind::RouteTable, "n1", &["r=1"], &["s"]), &[]);
    assert!(session.expire(now + FETCH_TIMEOUT - Duration::from_millis(1)).is_empty());
    assert_eq!(session.expire(now + FETCH_TIMEOUT), [(Kind::RouteTable, Some("t".into()))]);
    assert!(session.deadline().is_none());
}

#[test]
fn each_name_is_waited_for_as_long_as_who_needs_it_says() {
    let mut session = session();
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    session.open(now);
    let wanted = |quick| Wanted::from([("quick".into(), quick), ("patient".into(), None)]);
    session.subscribe(Kind::Endpoints, wanted(Some(second)), now);
    assert_eq!(session.deadline(), Some(now + second));
    assert!(session.subscribe(Kind::Endpoints, wanted(Some(second * 9)), now).is_none(), "no name is new");
    assert_eq!(session.expire(now + second), [(Kind::Endpoints, Some("quick".into()))]);
    assert!(session.deadline().is_none());
    // On the next stream it counts as it was said last.
    session.open(now);
    assert_eq!(session.deadline(), Some(now + second * 9));
    session.subscribe(Kind::Endpoints, Wanted::new(), now);
    assert!(session.deadline().is_none());
}

#[test]
fn a_first_state_that_does_not_come_in_time_is_not_waited_for_unless_for_ever() {
    let mut session = session();
    let now = Instant::now();
    session.limit_first(Kind::Cluster, Some(FETCH_TIMEOUT));
    session.limit_first(Kind::Listener, None);
    assert!(session.deadline().is_none(), "nobody can answer while there is no stream");
    session.open(now);
    assert_eq!(session.deadline(), Some(now + FETCH_TIMEOUT));
    assert_eq!(session.expire(now + FETCH_TIMEOUT), [(Kind::Cluster, None)]);
    assert!(session.is_answered(Kind::Cluster) && !session.is_answered(Kind::Listener));
    assert!(session.deadline().is_none());
    session.open(now);
    assert!(session.deadline().is_none(), "what was waited for once is not waited for again");
    session.limit_first(Kind::Listener, Some(FETCH_TIMEOUT));
    session.open(now);
    take(&mut session, response(Kind::Listener, "n1", &[], &[]), &[]);
    assert!(session.deadline().is_none());
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let refused = Refused { name: "a".into(), version: "1".into(), reason: "ä".repeat(REASON_BYTES_MAX) };
    let message = error_detail(&[refused]).unwrap().message;
    assert_eq!(message.chars().filter(|char| *char == 'ä').count(), REASON_BYTES_MAX / 2);
    assert!(message.ends_with('…'));
}
