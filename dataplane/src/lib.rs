//! The proxy: joins bytes (`wire`), decisions (`policy`) and the kernel (`runtime`).
//!
//! One request goes through it forward only: [`worker`] → [`listener`] → [`downstream`] → [`exchange`] → [`upstream`] →
//! [`relay`] → [`respond`] → [`telemetry::access_log`]. Read [`exchange`] first.
//!
//! One configuration change goes through it forward only, too: [`bootstrap`] or [`xds`] → `translate` →
//! [`control_thread`] → [`xds::publish`] → [`worker`].

pub mod admin;
pub mod admission;
pub mod args;
pub mod bootstrap;
mod by_number;
pub mod colleagues;
pub mod control_thread;
pub mod dns;
pub mod downstream;
pub mod drain;
pub mod dynamic_host;
pub mod exchange;
mod filter;
pub mod head_edits;
pub mod http2;
pub mod identity;
pub mod listener;
mod listener_filters;
pub mod live;
pub mod memory;
pub mod origin;
mod place;
pub mod relay;
pub mod report;
pub mod respond;
pub mod retry;
pub mod server_first;
pub mod state;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod transport;
pub mod upgrade;
pub mod upstream;
pub mod watchdog;
pub mod worker;
pub mod workers;
pub mod xds;

#[cfg(test)]
mod sizes;
