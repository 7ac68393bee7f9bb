//! Code that measures: what the programs `bench` and `ringway-load` are made of. Nothing depends on it.
//!
//! [`load`] puts requests on an address and times the answers; [`origin`] is what answers them at the other end; [`relay`]
//! is the cheapest thing that can be between the two.

pub mod http2;
pub mod load;
pub mod message;
pub mod origin;
mod poll;
pub mod relay;
