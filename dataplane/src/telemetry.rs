//! What operators see of the traffic: counters and the access log. Fails open: losing telemetry loses no request.

pub mod access_log;
pub mod grpc;
pub mod metrics;
pub mod registry;
pub mod render;
