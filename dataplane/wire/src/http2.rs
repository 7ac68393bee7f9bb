//! HTTP/2 on both sides of the proxy, without I/O.

pub mod field;
pub mod hpack;
