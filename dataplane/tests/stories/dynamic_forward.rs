//! Requests to hosts that only they name.

use std::time::Duration;

use policy::cluster::{Discovery, DnsCache, DnsFamily};
use runtime::Io;
use sim::{Ask, Behaviour, both};

use crate::mesh::{APP, Ground, Mesh, Setup, ok, refused};

const MS: Duration = Duration::from_millis(1);

/// Two origins behind a dynamic forward cluster that knows no host yet.
pub(crate) fn mesh() -> Setup {
    Setup::new(Behaviour::default()).origin(Behaviour::default()).cluster(|cluster| {
        cluster.discovery = Discovery::DynamicForward(DnsCache {
            refresh_rate: 60_000 * MS,
            family: DnsFamily::V4Preferred,
            host_ttl: 300_000 * MS,
            hosts_max: 2,
            query_timeout: 5000 * MS,
        });
    })
}

async fn learn<I: Ground>(mesh: &Mesh<I>, host: &str, origins: &[usize]) {
    let addresses = origins.iter().map(|origin| mesh.origins[*origin].address()).collect();
    mesh.adopt(|config| drop(config.hosts.insert(host.into(), addresses))).await;
}

pub(crate) async fn is_looked_up_once<I: Ground>(mesh: &Mesh<I>) {
    let (mut one, mut two) = (mesh.client().await, mesh.client().await);
    let (get, post) = (Ask::get("Shop.example", "/", 0), Ask::post("shop.example:80", "/", 1, "pay"));
    let asks = both(one.ask(&get), two.ask(&post));
    let answers = both(asks, async {
        assert_eq!([mesh.wanted().await, mesh.wanted().await], ["shop.example:80"; 2]);
        learn(mesh, "shop.example:80", &[0]).await;
    });
    let ((first, second), ()) = answers.await;
    ok(first);
    ok(second);
    for id in 2..5 {
        ok(one.ask(&Ask::get("SHOP.example:80", "/", id)).await);
    }
    assert!(mesh.wants_nothing(), "it is known");
    assert!(mesh.ledger().into_values().eq([1; 5]));
    let host = mesh.origin().requests()[0].header("host").map(str::to_owned);
    assert!(host.is_some_and(|host| host.eq_ignore_ascii_case("shop.example") || host == "shop.example:80"));
}

#[test]
fn a_host_is_looked_up_when_it_is_first_named_and_whoever_waits_is_served() {
    mesh().on_sim(is_looked_up_once);
}

#[test]
fn hosts_at_one_address_share_no_connection() {
    mesh().on_sim(async |mesh| {
        learn(mesh, "a.example:80", &[0]).await;
        learn(mesh, "b.example:80", &[0]).await;
        let mut client = mesh.client().await;
        for (id, host) in ["a.example", "b.example", "a.example", "b.example"].into_iter().enumerate() {
            ok(client.ask(&Ask::get(host, "/", id)).await);
        }
        assert_eq!(mesh.origin().connections().len(), 2);
    });
}

#[test]
fn a_connect_that_fails_moves_to_another_address_of_the_host() {
    mesh().on_sim(async |mesh| {
        let (nobody, _) = mesh.origins_io.nobody(0);
        let origin = mesh.origin().address();
        mesh.adopt(|config| drop(config.hosts.insert("a.example:80".into(), vec![nobody, origin]))).await;
        let mut client = mesh.client().await;
        for id in 0..10 {
            ok(client.ask(&Ask::post("a.example", "/", id, "pay")).await);
        }
        assert!(mesh.ledger().into_values().eq([1; 10]));
    });
}

#[test]
fn every_request_that_cannot_be_sent_is_answered_with_its_reason_and_the_connection_goes_on() {
    mesh().on_sim(async |mesh| {
        learn(mesh, "nowhere.example:80", &[]).await;
        let proxy = mesh.proxy;
        mesh.adopt(|config| drop(config.hosts.insert("us.example:80".into(), vec![proxy]))).await;
        let mut client = mesh.client().await;
        for (host, status, reason) in [
            ("nowhere.example", 503, "host-not-found"),
            ("us.example", 508, "forwarding-loop"),
            ("third.example", 503, "too-many-hosts"),
            ("no..name", 400, "authority-no-host"),
        ] {
            let answer = refused(client.ask(&Ask::get(host, "/", 0)).await);
            assert_eq!(answer, (status, reason.to_owned()), "{host}");
        }
        assert!(mesh.wants_nothing());
    });
}

#[test]
fn a_look_up_that_takes_too_long_is_given_up() {
    for (route_timeout, gives_up_after) in [(None, 5000 * MS), (Some(1000 * MS), 1000 * MS)] {
        mesh().forward(move |forward| forward.timeout = route_timeout).on_sim(async |mesh| {
            let mut client = mesh.client().await;
            let begun = mesh.io.now();
            let answer = refused(client.ask(&Ask::get("slow.example", "/", 0)).await);
            assert_eq!(answer, (503, "look-up-timeout".to_owned()));
            let waited = Duration::from_nanos(mesh.io.now() - begun);
            assert!(waited >= gives_up_after && waited < gives_up_after + 500 * MS, "{waited:?}");
            learn(mesh, "slow.example:80", &[1]).await;
            ok(client.ask(&Ask::get("slow.example", "/", 1)).await);
        });
    }
}

#[test]
fn who_waits_for_a_host_when_others_take_the_last_places_is_told_at_once() {
    mesh().on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let get = Ask::get("third.example", "/", 0);
        let (answer, ()) = both(client.ask(&get), async {
            mesh.wanted().await;
            learn(mesh, "a.example:80", &[0]).await;
            learn(mesh, "b.example:80", &[0]).await;
        })
        .await;
        assert_eq!(refused(answer), (503, "too-many-hosts".to_owned()));
    });
}

#[test]
fn who_waits_for_a_host_of_a_cluster_that_goes_is_told() {
    mesh().on_sim(async |mesh| {
        let mut client = mesh.client().await;
        let get = Ask::get("shop.example", "/", 0);
        let (answer, ()) = both(client.ask(&get), async {
            mesh.wanted().await;
            mesh.adopt(|config| drop(config.clusters.remove(APP))).await;
        })
        .await;
        assert_eq!(refused(answer), (503, "unknown-cluster".to_owned()));
    });
}
