//! Decisions on an immutable snapshot: which filter chain, which route, which endpoint.
//!
//! This crate is pure: it names no socket, clock, thread or file, and `#![no_std]` makes the compiler prove it.
//! Randomness, worker-local memory (regex caches, round robin positions) and buffers are arguments. `translate`
//! builds these types from xDS and may fail; nothing here fails afterwards, except a rewrite that would outgrow its
//! bound.
//!
//! What it faces: configuration that is authenticated but may be wrong (constructors return errors), and requests
//! that are hostile (no input panics, no lookup grows with what a request says beyond the length of its head).
//!
//! Read [`snapshot`] first, then [`route`] and [`cluster`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod alpn;
pub mod balance;
pub mod cidr;
pub mod client_cert;
pub mod cluster;
pub mod dynamic_host;
pub mod endpoint;
pub mod filter_chain;
pub mod forwarded;
pub mod grpc;
pub mod hand_off;
pub mod http2;
pub mod http_filter;
pub mod lending;
pub mod limits;
pub mod network_filter;
pub mod peer;
pub mod rbac;
pub mod regex;
pub mod route;
pub mod snapshot;
pub mod string_match;
pub mod tls;
pub mod upgrade;

mod address;
mod named;
mod prefix_tree;
mod rng;
mod weighted;

pub use rng::Rng;
pub use weighted::{NoWeight, Weighted};
