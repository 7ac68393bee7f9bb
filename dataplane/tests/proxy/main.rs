//! The program as its users run it: a process, a file, sockets on loopback. Few tests, each a story; what can be tested
//! without a process is tested beside the code.

mod control_plane;
mod discovery;
mod io_uring;
mod lending;
mod overload;
mod proxy_protocol;
mod static_file;
mod support;
mod tls;
