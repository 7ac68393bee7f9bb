//! How orders asks pay: one method of gRPC, and both ends of it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, client, server};
use tonic_prost::ProstCodec;

use super::client::{SERVER_TIMING, parse_timing, timing};

/// `rpc Charge(Charge) returns (Receipt)` of `shop.Pay`.
const CHARGE: &str = "/shop.Pay/Charge";

/// Longest wait for an answer; pay's proxies are told, too.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What pay is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Charge {
    /// How much.
    #[prost(uint32, tag = "1")]
    pub(super) cents: u32,
}

/// What it says when it has the money.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Receipt {
    /// How much it got.
    #[prost(uint32, tag = "1")]
    pub(super) cents: u32,
}

/// Makes calls over one connection, which is made at the first and made again when it is gone.
#[derive(Debug)]
pub(super) struct PayClient {
    channel: Channel,
}

/// A call that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charged {
    /// From the first byte sent to the status received.
    pub(super) took: Duration,
    /// Of this, how long pay worked, if it said so.
    pub(super) worked: Option<Duration>,
}

impl PayClient {
    /// For the calls of a toy that found `address` in RINGWAY_PAY_80_ADDR. Needs a runtime.
    pub(super) fn new(address: SocketAddr) -> PayClient {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).expect("an address is an authority");
        PayClient { channel: endpoint.connect_timeout(TIMEOUT).connect_lazy() }
    }

    pub(super) async fn charge(&self, cents: u32) -> Result<Charged, Status> {
        let started = Instant::now();
        let mut pay = client::Grpc::new(self.channel.clone());
        let mut request = tonic::Request::new(Charge { cents });
        request.set_timeout(TIMEOUT);
        let answer = async {
            pay.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<Charge, Receipt>::default();
            pay.unary(request, PathAndQuery::from_static(CHARGE), codec).await
        };
        let late = |_| Err(Status::deadline_exceeded("no answer in time"));
        let answer = tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(late)?;
        if answer.get_ref().cents != cents {
            return Err(Status::data_loss("another amount was paid"));
        }
        let timing = answer.metadata().get(SERVER_TIMING).and_then(|value| value.to_str().ok());
        Ok(Charged { took: started.elapsed(), worked: timing.and_then(parse_timing) })
    }
}

/// Answers a request to pay. `charge` does the work; false if it failed.
pub(super) async fn answer<F>(request: Request<Incoming>, charge: impl Fn() -> F) -> Response<Body>
where
    F: Future<Output = bool>,
{
    if request.uri().path() != CHARGE {
        return Status::unimplemented("pay charges, and nothing else").into_http();
    }
    let method = tower::service_fn(|request: tonic::Request<Charge>| {
        let charged = charge();
        async move {
            let started = Instant::now();
            if !charged.await {
                return Err(Status::unavailable("the ledger does not answer"));
            }
            let mut response = tonic::Response::new(Receipt { cents: request.get_ref().cents });
            if let Ok(timing) = timing(started.elapsed()).parse() {
                response.metadata_mut().insert(SERVER_TIMING, timing);
            }
            Ok(response)
        }
    });
    server::Grpc::new(ProstCodec::<Receipt, Charge>::default()).unary(method, request).await
}
