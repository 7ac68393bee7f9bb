//! The same bytes, read by ours and by libraries that others keep in another language: hpack and h2 of PyPI. They are not fast
//! and not strict where ours is, so these are no targets of the long searches; every change is tried with some twenty seconds
//! of each, the same inputs every time (`FUZZ_INPUTS` and `FUZZ_SEED` say otherwise, as for the smoke).
//!
//! `deploy/setup.sh test` fetches them into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If that fails, so
//! do the tests.

mod connection;
mod field_blocks;
mod python;

use std::{env, time::Instant};

use fuzz::{engine, targets::Target};

#[test]
fn field_blocks_as_hpack_reads_and_writes_them() {
    search(&Target { name: "hpack beside hpack", run: field_blocks::run, ..of("hpack") }, 300_000);
}

#[test]
fn connections_as_h2_reads_them() {
    search(&Target { name: "h2_conn beside h2", run: connection::run, ..of("h2_conn") }, 60_000);
}

/// The words and the kept inputs of a target.
fn of(name: &str) -> Target {
    *Target::named(name).expect("a target")
}

#[track_caller]
fn search(target: &Target, inputs: u64) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (inputs, seed) = (number("FUZZ_INPUTS").unwrap_or(inputs), number("FUZZ_SEED").unwrap_or(7));
    let begun = Instant::now();
    engine::replay(target)
        .and_then(|()| engine::search(target, seed, inputs / 2))
        .and_then(|()| engine::tell(target, seed, inputs / 2))
        .unwrap_or_else(|finding| panic!("{finding}"));
    println!("{}: {inputs} inputs in {:.1} s", target.name, begun.elapsed().as_secs_f64());
}
