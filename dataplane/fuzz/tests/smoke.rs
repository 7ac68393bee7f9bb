//! Every target, for every kept input and as many random ones as a build on every change can afford.

use std::{env, time::Instant};

use fuzz::{
    engine,
    targets::{TARGETS, Target},
};

/// Random inputs for each target, unless `FUZZ_INPUTS` says how many. The same ones every time, unless `FUZZ_SEED` says
/// from what: a fault that comes and goes would be a fault of the test.
const INPUTS: u64 = 60_000;

#[test]
fn requests() {
    smoke("h1_req");
}

#[test]
fn chunked_bodies() {
    smoke("chunk");
}

#[test]
fn every_target_is_smoked() {
    let here = include_str!("smoke.rs");
    for Target { name, .. } in TARGETS {
        assert!(here.contains(&format!("smoke({name:?});")), "{name}");
    }
}

#[track_caller]
fn smoke(name: &str) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (inputs, seed) = (number("FUZZ_INPUTS").unwrap_or(INPUTS), number("FUZZ_SEED").unwrap_or(7));
    let target = Target::named(name).expect("a target");
    let begun = Instant::now();
    engine::replay(target)
        .and_then(|()| engine::search(target, seed, inputs))
        .unwrap_or_else(|finding| panic!("{finding}"));
    println!("{name}: {inputs} inputs, {:.0}/s", inputs as f64 / begun.elapsed().as_secs_f64());
}
