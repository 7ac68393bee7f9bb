//! Listeners that look at the first bytes of a connection before they know what to do with it.

use std::time::Duration;

use policy::snapshot::ListenerFilters;
use sim::{Ask, Behaviour, End};

use crate::mesh::{Setup, answers};

const MS: Duration = Duration::from_millis(1);

fn setup(continue_on_timeout: bool) -> Setup {
    let mut setup = Setup::new(Behaviour::default());
    setup.config.listener_filters = ListenerFilters {
        tls_inspector: true,
        timeout: Some(500 * MS),
        continue_on_timeout,
        ..ListenerFilters::default()
    };
    setup
}

#[test]
fn plain_http_passes_a_listener_that_looks_for_tls() {
    setup(false).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        peer.send([Ask::get("shop", "/", 1).bytes(), Ask::get("shop", "/", 2).bytes()].concat()).await;
        let answers = answers(&mut peer, &["GET", "GET"]).await;
        assert!(answers.iter().all(|answer| answer.status() == 200));
    });
}

#[test]
fn a_connection_that_says_nothing_is_closed_in_time_or_goes_on_as_configured() {
    setup(false).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        assert!(peer.recv_to_end().await.bytes.is_empty());
    });
    setup(true).on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        mesh.pass(700 * MS).await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        assert_eq!(answers(&mut peer, &["GET"]).await[0].status(), 200);
    });
}

#[test]
fn a_request_on_its_way_when_its_listener_goes_is_answered_and_the_connection_ends() {
    let mut setup = setup(false);
    setup.config.listener_filters.timeout = None;
    setup.on_sim(async |mesh| {
        let mut peer = mesh.peer().await;
        mesh.until("it is being looked at", |mesh| !mesh.worker.is_idle()).await;
        mesh.adopt(|config| config.is_listening = false).await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        let answer = &answers(&mut peer, &["GET"]).await[0];
        assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
        peer.expect_close().await;
    });
}

#[test]
fn a_connection_that_ends_before_it_is_known_leaves_nothing_behind() {
    for end in [End::Close, End::Reset] {
        setup(false).on_sim(async |mesh| {
            let mut peer = mesh.peer().await;
            // The start of a record of TLS.
            peer.send([0x16, 3, 1]).await;
            match end {
                End::Close => peer.shutdown(),
                End::Reset => return peer.reset(),
            }
            assert!(peer.recv_to_end().await.bytes.is_empty());
        });
    }
}
