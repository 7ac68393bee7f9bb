//! Every target, for every kept input and for [`Target::smoke`] random ones, unless `FUZZ_INPUTS` says how many. The same
//! ones every time, unless `FUZZ_SEED` says from what: a fault that comes and goes would be a fault of the test.

use std::{env, time::Instant};

use fuzz::{
    corpus, engine,
    targets::{TARGETS, Target},
};

#[test]
fn requests() {
    smoke("h1_req");
}

#[test]
fn responses() {
    smoke("h1_resp");
}

#[test]
fn paths() {
    smoke("path_norm");
}

#[test]
fn proxy_protocol_headers() {
    smoke("proxy_proto");
}

#[test]
fn client_hellos() {
    smoke("tls_sniff");
}

#[test]
fn bootstrap_files() {
    smoke("bootstrap");
}

#[test]
fn chunked_bodies() {
    smoke("chunk");
}

#[test]
fn http2_connections() {
    smoke("h2_conn");
}

#[test]
fn field_blocks() {
    smoke("hpack");
}

#[test]
fn fields_that_become_heads() {
    smoke("downgrade");
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
    let target = Target::named(name).expect("a target");
    let (inputs, seed) = (number("FUZZ_INPUTS").unwrap_or(target.smoke), number("FUZZ_SEED").unwrap_or(7));
    let begun = Instant::now();
    engine::replay(target)
        .and_then(|()| engine::search(target, seed, inputs))
        .unwrap_or_else(|finding| panic!("{finding}"));
    println!("{name}: {inputs} inputs, {:.0}/s", inputs as f64 / begun.elapsed().as_secs_f64());
}

#[test]
fn the_ledger_speaks_of_the_inputs_that_are_kept() {
    let ledger = include_str!("../LEDGER.md");
    for Target { name, kept, .. } in TARGETS {
        let row = ledger.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_default();
        assert!(row.contains(&corpus::hash(kept)), "{name} {}: {row}", corpus::hash(kept));
    }
}
