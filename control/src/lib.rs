//! The control plane and the command line of Ringway, as a library so that tests and tools call the same code.
//!
//! One configuration change, forward only: [`source`] (files, registrations) → [`document`] (what a user wrote)
//! → [`model`] (services, gateways, routes; Gateway API's semantics and conditions) → [`compile`] (xDS resources)
//! → [`ads`] (the streams that serve them).

pub mod ads;
pub mod compile;
pub mod conditions;
pub mod document;
pub mod model;
pub mod source;
