//! Workloads that register, over a real stream to a control plane in this process.

mod support;

use std::time::{Duration, Instant};

use proto::control::{Registration, register_request::Message};
use ringway::registry::RegistrationRow;
use support::{Plane, Workload, eventually, registration};

async fn rows(plane: &Plane) -> Vec<RegistrationRow> {
    plane.api().json("/api/v1/registrations").await.unwrap()
}

/// The instances and whether they are connected, as soon as they are these.
async fn until_rows(plane: &Plane, wanted: &[(&str, bool)]) {
    eventually(async || {
        let rows = rows(plane).await;
        let now: Vec<_> = rows.iter().map(|row| (row.instance.as_str(), row.connected)).collect();
        if now == wanted { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_workload_is_there_while_its_stream_is_and_for_one_lease_after() {
    let plane = Plane::start(&[]).await;
    let (workload, told) =
        Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    assert_eq!((told.lease_ms, told.refused.as_str()), (60_000, ""));
    drop(workload);
    until_rows(&plane, &[("a", false)]).await;
    // A lease that is long enough to be looked at is too long to be waited for.
    let plane = plane.restart_with_lease(Duration::from_millis(100)).await;
    until_rows(&plane, &[]).await;
}

#[tokio::test]
async fn a_sign_of_life_renews_the_lease() {
    let plane = Plane::start(&[]).await;
    let (workload, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    let left = async || Duration::from_millis(rows(&plane).await[0].lease_left_ms);
    let (first, since) = (left().await, Instant::now());
    eventually(async || {
        workload.keep_alive().await;
        // What is left of a lease that nobody renewed; a millisecond for the rounding of the first.
        let unrenewed = first.saturating_sub(since.elapsed()) + Duration::from_millis(1);
        let left = left().await;
        if left > unrenewed { Ok(()) } else { Err((left, unrenewed)) }
    })
    .await;
}

#[tokio::test]
async fn a_workload_that_falls_silent_goes_although_its_stream_is_open() {
    let plane = Plane::with_lease(Duration::from_millis(200), &[]).await;
    let (_workload, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    until_rows(&plane, &[]).await;
}

#[tokio::test]
async fn a_workload_that_drains_hears_when_proxies_are_told() {
    let plane = Plane::start(&[]).await;
    let serving = registration("a", "pay", "127.0.0.1:7001");
    let (mut workload, told) = Workload::register(plane.socket(), serving.clone()).await;
    assert!(!told.draining);
    workload.send(Message::Registration(Registration { ready: false, draining: true, ..serving })).await;
    while !workload.next().await.draining {}
    assert!(plane.server.worlds().borrow().registrations["a"].draining);
}

#[tokio::test]
async fn a_workload_that_leaves_is_gone_at_once() {
    let plane = Plane::start(&[]).await;
    let (workload, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    workload.unregister().await;
    until_rows(&plane, &[]).await;
}

#[tokio::test]
async fn a_reconnect_renews_and_does_not_add() {
    let plane = Plane::start(&[]).await;
    let (first, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    let (_second, told) =
        Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    assert_eq!(told.refused, "");
    drop(first);
    until_rows(&plane, &[("a", true)]).await;
}

#[tokio::test]
async fn the_later_of_two_on_one_address_is_refused_and_takes_over_when_the_first_leaves() {
    let plane = Plane::start(&[]).await;
    let (first, _) = Workload::register(plane.socket(), registration("b", "pay", "127.0.0.1:7001")).await;
    let (mut second, told) =
        Workload::register(plane.socket(), registration("a", "cart", "127.0.0.1:7001")).await;
    assert_eq!(told.refused, "address 127.0.0.1:7001 is already registered by b (shop/pay)");
    let rows = rows(&plane).await;
    let shown: Vec<_> = rows.iter().map(|row| (row.refused.is_empty(), row.conflict.as_str())).collect();
    let also = |other: &str| format!("address 127.0.0.1:7001 is also registered by {other}");
    assert_eq!(shown, [(false, also("b").as_str()), (true, also("a").as_str())]);
    first.unregister().await;
    assert_eq!(second.next().await.refused, "");
}

#[tokio::test]
async fn what_cannot_be_an_endpoint_is_refused_with_the_reason() {
    let plane = Plane::start(&[]).await;
    let wrong = Registration { address: "pay:80".into(), ..registration("a", "pay", "") };
    let (mut workload, told) = Workload::register(plane.socket(), wrong).await;
    assert_eq!(told.refused, "address: \"pay:80\" is not IP:PORT");
    until_rows(&plane, &[]).await;
    workload.send(Message::Registration(registration("a", "pay", "127.0.0.1:7001"))).await;
    assert_eq!(workload.next().await.refused, "");
    until_rows(&plane, &[("a", true)]).await;
}

#[tokio::test]
async fn a_restart_of_the_control_plane_removes_nobody() {
    let plane = Plane::start(&[]).await;
    let (_workload, _) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    let plane = plane.restart().await;
    until_rows(&plane, &[("a", false)]).await;
    let (_again, told) = Workload::register(plane.socket(), registration("a", "pay", "127.0.0.1:7001")).await;
    assert_eq!(told.refused, "");
    until_rows(&plane, &[("a", true)]).await;
}
