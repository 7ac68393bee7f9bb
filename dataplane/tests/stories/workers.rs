//! Several workers: who serves a connection.

use sim::{Ask, Behaviour};

use crate::mesh::{Setup, ok};

#[test]
fn connections_are_even_among_workers_whoever_accepts_them() {
    Setup::new(Behaviour::default()).workers(2).on_sim(async |mesh| {
        let mut clients = Vec::new();
        for id in 0..8 {
            let mut client = mesh.client().await;
            ok(client.ask(&Ask::get("shop", "/", id)).await);
            clients.push(client);
        }
        let connections = mesh.workers.iter().map(|worker| worker.stats.counters.connections.get());
        assert_eq!(connections.collect::<Vec<_>>(), [4, 4]);
        for (id, client) in (8..).zip(&mut clients) {
            ok(client.ask(&Ask::get("shop", "/", id)).await);
        }
        assert!(mesh.ledger().into_values().eq([1; 16]));
    });
}
