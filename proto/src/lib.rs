//! xDS types and Ringway's own protobufs, nothing else.
//!
//! - [`pb`]: Envoy's whole API as the `envoy-types` crate generates it.
//! - [`ads`]: the discovery envelopes with shared bytes as bodies, client and server.
//! - [`control`]: what our proxies and workloads tell our control plane.
//! - [`bootstrap`]: a bootstrap file's text to a binary `Bootstrap`.
//! - [`json`]: resources as JSON, for people and tests.
//! - [`type_url`]: the resource types we speak.
//! - [`well_known`]: from and to google.protobuf types.
//!
//! Nothing here checks `validate.rules` of the protobufs; `translate` does.

pub mod ads;
pub mod bootstrap;
pub mod json;
pub mod type_url;
pub mod well_known;

pub use envoy_types::pb;

/// `ringway.control.v1`: reports of proxies and registrations of workloads; see `proto/ringway/control/v1`.
pub mod control {
    #![allow(missing_docs, clippy::all, reason = "generated; the .proto files have the documentation")]
    tonic::include_proto!("ringway.control.v1");
}
