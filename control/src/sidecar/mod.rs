//! A proxy process beside an application, or before a mesh: its ports, its bootstrap file, its life, its registration.
//!
//! [`Sidecar`] joins the parts for an application without an orchestrator: [`port`] reserves, [`folder`] remembers,
//! [`bootstrap`] writes, [`process`] starts and supervises, [`lease`] registers, [`environment`] tells the application.
//! [`start_gateway`] needs the same parts without the last two; [`Proxy`] is what both start. [`tied`] sees to it that
//! nothing outlives its parent.
//!
//! Trusted: the command line, the control plane's address, the proxy binary. Nothing here reads traffic.

pub mod admin;
pub mod backoff;
pub mod binary;
pub mod bootstrap;
pub mod control;
pub mod environment;
pub mod folder;
mod gateway;
pub mod lease;
pub mod port;
pub mod process;
mod proxy;
pub mod signals;
pub mod tied;
mod workload;

pub use gateway::{GatewayOptions, start_gateway};
pub use proxy::{Proxy, ProxyOptions, SetupError, StartError};
pub use workload::{Sidecar, SidecarOptions};
