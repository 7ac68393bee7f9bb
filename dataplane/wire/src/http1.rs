//! HTTP/1.1 on both sides of the proxy, without I/O: heads, bodies, and when a connection may be used again.
//!
//! The contract of every function and type here:
//! - The caller owns sockets, buffers and time, and hands in the bytes it has. `Partial` and `NeedMore` mean: keep
//!   these bytes, append what the next receive brings, ask again. Nothing else is remembered between calls than
//!   what the head or the decoder holds.
//! - However the input was cut by the network, the answer is the same, byte for byte.
//! - Input is hostile. It is refused in the strict reading of RFC 9110 and RFC 9112: whatever two readers could take
//!   differently is an error here, so that what goes on has one meaning. No input panics.
//! - Nothing allocates once a connection has seen its largest head: heads are cleared, not rebuilt, and output is
//!   described as runs of the input plus small inserts.
//!
//! Order of use: [`parse::request`] → policy → [`encode::request`] with [`body::Decoder`] for what follows the head →
//! [`parse::response`] → [`conn::Interim`] → [`encode::response`] → [`conn::Finished`].

pub(crate) mod answer;
pub mod body;
mod chunk_extension;
pub mod conn;
pub(crate) mod edits;
pub mod encode;
mod fields;
mod lines;
pub mod parse;
mod refusal;
mod target;

pub use target::split_authority;

pub(crate) use {fields::classify, lines::text, target::same as same_authority};
