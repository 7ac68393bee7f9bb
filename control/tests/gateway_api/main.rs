//! Gateway API's own conformance tests for the core of HTTPRoute (and what of it is extended and served), as tables.
//!
//! Documents are compiled to the resources of a gateway, translated by the proxy's own code, and requests are parsed
//! and routed by it: what these tables say is what the proxy does. The documents are ours; the expectations are those
//! of `sigs.k8s.io/gateway-api/conformance` v1.6.1, named at each test.

mod attachment;
mod backends;
mod filters;
mod grpc;
mod hostnames;
mod matching;
mod mesh;
mod support;
