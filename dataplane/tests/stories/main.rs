//! Stories of the request path: clients, workers, origins, on simulated networks of many seeds and on both drivers.

#[path = "../support/mesh.rs"]
mod mesh;
#[path = "../support/secured.rs"]
mod secured;

mod access_log;
mod adoption;
mod authorization;
mod authorization_connections;
mod bodies;
mod connection_limits;
mod departures;
mod dynamic_forward;
mod endings;
mod keep_alive;
mod kernel;
mod lending;
mod limits;
mod memory;
mod paths;
mod permissive;
mod proxy_protocol;
mod refusals;
mod sniffing;
mod streams;
mod streams_connections;
mod streams_endings;
mod streams_flow;
mod streams_timeouts;
mod tcp;
mod timeouts;
mod tls;
mod tls_terms;
mod tls_trust;
mod upgrade;
mod workers;
