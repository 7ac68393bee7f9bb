//! Many requests, one connection on each side.

use sim::{Ask, Behaviour, Verdict};

use crate::mesh::{Ground, Mesh, Setup};

async fn many_requests<I: Ground>(mesh: &Mesh<I>) {
    let mut client = mesh.client().await;
    for id in 0..20 {
        let verdict = client.ask(&Ask::get("shop", "/a", id)).await;
        assert!(matches!(verdict, Verdict::Ok(_)), "{verdict:?}");
    }
    assert!(!client.is_over());
    assert_eq!(mesh.origin().connections().len(), 1, "one upstream connection carries them all");
    assert!(mesh.ledger().into_values().eq([1; 20]));
}

#[test]
fn requests_of_one_connection_share_one_upstream_connection() {
    Setup::new(Behaviour::default()).on_sim(many_requests);
}

#[test]
fn requests_of_one_connection_share_one_upstream_connection_on_a_kernel() {
    Setup::new(Behaviour::default()).on_kernel(many_requests);
}
