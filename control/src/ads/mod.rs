//! Delta ADS: who is subscribed to what, and what goes out next.
//!
//! [`view`] is what one client should have, [`session`] decides for one stream and does no I/O, [`server`] carries.

pub mod server;
pub mod session;
mod subscription;
pub mod view;
