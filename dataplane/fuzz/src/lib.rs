//! Fuzz targets: what must hold for any bytes, as plain functions that panic when it does not.
//!
//! Two engines drive them. `libfuzzer/` is coverage-guided, needs the nightly toolchain and is a workspace of its own:
//! `make fuzz`. [`engine`] is seeded and random, starts from the inputs that the other one found worth keeping
//! ([`corpus`]), and runs with all tests. `LEDGER.md` says how long each target was searched and at which commit.
//!
//! What a parser gives is held against a reader written for this crate ([`mod@reference`]): slow, over whole messages, from
//! the text of the RFCs and of the proxy's own rules, sharing no code with what it judges.
//!
//! `tests/oracles` holds HTTP/2 against what others have written besides.
//!
//! A finding becomes a unit test in the crate it concerns.

pub mod connection;
pub mod corpus;
pub mod engine;
pub mod frames;
pub mod message;
pub mod reference;
pub mod targets;
