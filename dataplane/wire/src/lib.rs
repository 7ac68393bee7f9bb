//! Bytes to events and back: HTTP/1 heads and bodies, paths, the PROXY protocol, the TLS ClientHello sniffer.
//!
//! This crate is pure. It names no socket, clock, thread or file, holds no randomness and no unsafe code;
//! `#![no_std]` makes the compiler prove the first half of that. Everything it reads may be hostile: no input
//! panics, every growth has a bound given by the caller, and every parser gives the same answer however its
//! input is split.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod head;
pub mod http1;
pub mod http2;
pub mod http_sniff;
pub mod path;
pub mod proxy_protocol;
mod tick;
pub mod tls_sniff;

pub use tick::Tick;
