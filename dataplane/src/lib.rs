//! The proxy: joins bytes (`wire`), decisions (`policy`) and the kernel (`runtime`).
//!
//! One request goes through it forward only: [`worker`] → [`listener`] → [`downstream`] → [`exchange`] → [`upstream`] →
//! [`relay`] → [`respond`] → [`telemetry::access_log`]. Read [`exchange`] first.

pub mod downstream;
pub mod exchange;
pub mod head_edits;
pub mod listener;
pub mod relay;
pub mod respond;
pub mod tcp;
pub mod telemetry;
pub mod upstream;
pub mod worker;
