//! Build script: Rust code from our own protobufs and the ADS stubs, and the descriptors of the bootstrap parser.
//! No `protoc` is needed.

mod descriptors;
mod services;

fn main() {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=proto");
    services::compile();
    descriptors::prune();
}
