//! Build script: Rust code from our own protobufs and the ADS stubs. No `protoc` is needed.

mod services;

fn main() {
    services::compile();
}
