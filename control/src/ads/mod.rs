//! Delta ADS: who is subscribed to what, and what goes out next.
//!
//! [`view`] is what one client should have, [`session`] decides for one stream and does no I/O.

pub mod session;
pub mod view;
