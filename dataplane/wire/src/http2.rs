//! HTTP/2 on both sides of the proxy, without I/O: frames, field compression, streams and flow control (RFC 9113).
//!
//! One [`Connection`] is one end of a connection, of either role. The contract:
//! - *Inputs.* The caller owns sockets, buffers and time. [`Connection::receive`] takes received bytes and gives at most one
//!   event and how many of the bytes it is done with; the caller keeps the others, appends what the next receive brings,
//!   and calls again until there is no event. Its buffer must hold a whole frame
//!   ([`FRAME_HEAD_BYTES`](frame::FRAME_HEAD_BYTES) + [`PAYLOAD_BYTES_MAX`](frame::PAYLOAD_BYTES_MAX)). However the input was
//!   cut, the events are the same, but that the data of one DATA frame may come in several.
//! - *Outputs.* Whatever is to be sent is appended to one run of bytes, frames of all streams in the order in which they were
//!   made; [`Connection::take_output`] takes it away. Calls that send say at once how much of it the peer allows. A caller
//!   that cannot get rid of the output stops to call `receive`: so a peer that does not read is not read from. What a peer
//!   can make us say between two times is bounded by [`budget::FrameBounds::answers_max`]; DATA is, by bytes
//!   ([`OUTPUT_BYTES_MAX`](conn::OUTPUT_BYTES_MAX)), and with it the number of frames of all kinds.
//! - *Time.* [`Connection::deadline`] says when [`Connection::on_timeout`] wants to be called.
//! - *Order.* Any, after [`Connection::new`]. A [`StreamKey`] comes from an event or from [`Connection::open`] and is given
//!   back with [`Connection::release`], once, whatever became of the stream; that ends it on the wire, too, where it has
//!   not ended.
//! - *Errors.* What is wrong with one stream ends it ([`Event::Reset`]); what is wrong with the connection is the error of
//!   `receive`: then GOAWAY is the last of the output, and nothing but taking it is left to do.
//! - Input is hostile. Nothing panics, everything that grows has a bound, and work that serves no purpose is counted
//!   ([`budget`]).

pub mod budget;
pub mod conn;
mod control;
mod encode;
pub mod error;
pub mod field;
pub mod flow;
pub mod frame;
mod head;
pub mod hpack;
mod receive;
mod send;
pub mod settings;
pub mod stream;
#[cfg(test)]
mod tests;

pub use conn::{Config, Connection, Event, Keepalive};
pub use stream::StreamKey;
