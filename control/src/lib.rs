//! The control plane and the command line of Ringway, as a library so that tests and tools call the same code.
//!
//! One configuration change, forward only: [`source`] reads files into [`document`]s (what a user wrote) → with what
//! the [`registry`] holds, [`model`] (services, gateways, routes; Gateway API's semantics and conditions) → [`compile`]
//! (xDS resources) → [`ads`] (the streams that serve them). [`world`] is all of it at one moment, [`world_maker`] the
//! task that makes the next; [`server`] joins everything, [`report`] hears what came of it.
//!
//! On the other side of those streams, [`sidecar`] starts and keeps proxies; [`cli`] and [`demo`] are what a person runs.

mod address;
pub mod ads;
pub mod api;
pub mod authorize;
pub mod ca;
mod caller;
pub mod cli;
pub mod compile;
pub mod conditions;
pub mod demo;
pub mod document;
mod files;
pub mod host;
mod identity;
pub mod metrics;
pub mod model;
pub mod registry;
pub mod report;
pub mod server;
pub mod sidecar;
pub mod source;
pub mod store;
mod svid;
mod transport;
pub mod world;
pub mod world_maker;
