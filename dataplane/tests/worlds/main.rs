//! Random worlds: a proxy among clients, origins, a network and a kernel that all follow from one number, with a
//! configuration that changes under them. No story is told; what must hold in every world is asserted of each.
//!
//! - The ledger: no answer goes to another request or lacks a byte, no POST runs twice, and what an origin gets is what was
//!   asked. In a world where nothing breaks ([`plan::Plan::is_whole`]), nothing is lost either.
//! - Liveness: every request ends, with an answer or with its connection, in a time that the timeouts bound.
//! - Conservation: when all is over, every buffer, connection, exchange, task and gauge is back to nothing.
//!
//! `make sim SEEDS=10000` tries more of them than every change does, `make sim SEEDS=17..18` one again, with a trace.

mod clients;
mod ledger;
#[path = "../support/mesh.rs"]
mod mesh;
mod plan;
mod world;

use std::{
    panic,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

/// Worlds that every change is tried in.
const WORLDS: u64 = 2000;

#[test]
fn in_no_world_is_anything_lost_doubled_crossed_or_kept() {
    let seeds = match std::env::var("SIM_SEEDS") {
        Ok(seeds) => range(&seeds).unwrap_or_else(|| panic!("SIM_SEEDS is END or FIRST..END, not `{seeds}`")),
        Err(_) => 0..WORLDS,
    };
    let (begun, count) = (Instant::now(), seeds.end - seeds.start);
    let next = AtomicU64::new(seeds.start);
    let failed = thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let run = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return None;
                }
                if panic::catch_unwind(|| world::run(seed)).is_err() {
                    // Whoever else runs stops soon, too.
                    next.store(seeds.end, Ordering::Relaxed);
                    return Some(seed);
                }
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok().flatten()).min()
    });
    if let Some(seed) = failed {
        panic!("world {seed} fails; to see it alone: make sim SEEDS={seed}..{}", seed + 1);
    }
    println!("{count} worlds in {:.1} s", begun.elapsed().as_secs_f64());
}

#[test]
fn a_world_is_a_function_of_its_seed() {
    for seed in 0..40 {
        assert_eq!(world::run(seed), world::run(seed), "world {seed}");
    }
}

fn range(text: &str) -> Option<std::ops::Range<u64>> {
    match text.split_once("..") {
        Some((first, end)) => Some(first.parse().ok()?..end.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    }
}
