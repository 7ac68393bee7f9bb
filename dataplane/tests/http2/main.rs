//! HTTP/2 and gRPC as others speak them, through the program: the suites of others, their clients and servers, and what a
//! message must carry from HTTP/1.1 to HTTP/2 and back. Each test is a story, told on both I/O drivers.
//!
//! `deploy/setup.sh test` fetches the programs into `.cache/` at the root of the repository (`RINGWAY_CACHE` moves it). If
//! that fails, so does the test.

mod ask;
mod grpc;
#[allow(dead_code, reason = "the rows of failures ask for more of it")]
#[path = "../failures/http.rs"]
mod http1;
mod leaving;
mod messages;
mod origin;
mod programs;
mod suites;
#[allow(dead_code, reason = "the tests of the program ask for more of it")]
#[path = "../proxy/support.rs"]
mod support;
