//! gRPC clients and servers: `ringway.control.v1` from its .proto files, aggregated discovery by hand.

use std::{env, fs, path::PathBuf};

use tonic_prost_build::manual;

const OURS: [&str; 3] = [
    "ringway/control/v1/identity.proto",
    "ringway/control/v1/proxy.proto",
    "ringway/control/v1/registry.proto",
];
const CODEC: &str = "tonic_prost::ProstCodec";

pub(crate) fn compile() {
    let descriptors = protox::compile(OURS, ["proto"]).unwrap_or_else(|error| panic!("{error:?}"));
    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap_or_else(|error| panic!("cannot write the code of our protobufs: {error}"));
    aggregated_discovery();
}

/// Only the delta method: a server answers UNIMPLEMENTED to the state-of-the-world one, which is what a client
/// that tries it must see. The client and the server differ in the response type: one reads resources, the other
/// writes bytes that were encoded before (`ads::EncodedDeltaResponse`).
fn aggregated_discovery() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (side, response) in [("client", "DeltaDiscoveryResponse"), ("server", "EncodedDeltaResponse")] {
        let delta = manual::Method::builder()
            .name("delta_aggregated_resources")
            .route_name("DeltaAggregatedResources")
            .input_type("crate::ads::DeltaDiscoveryRequest")
            .output_type(format!("crate::ads::{response}"))
            .codec_path(CODEC)
            .client_streaming()
            .server_streaming()
            .build();
        let service = manual::Service::builder()
            .name("AggregatedDiscoveryService")
            .package("envoy.service.discovery.v3")
            .method(delta)
            .build();
        let dir = out.join(side);
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("cannot create {}: {error}", dir.display()));
        manual::Builder::new()
            .out_dir(&dir)
            .build_client(side == "client")
            .build_server(side == "server")
            .compile(&[service]);
    }
}
