//! The kinds of work the subjects are measured with.

use std::net::SocketAddr;
use std::time::Duration;

use bench::load::{Load, Pace, Protocol, Requests, Until, request};
use bench::origin;
use clap::ValueEnum;

use super::plan::Plan;
use super::subject::Kind;

/// Every one is a closed loop, but `latency` and those of workers: they tell cost, not latency. And every one is HTTP/1.1
/// that does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Workload {
    /// 32 connections, 128-byte answers
    #[value(name = "get-32")]
    Get32,
    /// 128 connections, 128-byte answers
    #[value(name = "get-128")]
    Get128,
    /// 32 connections, 4 KiB requests, 128-byte answers
    #[value(name = "post-4k")]
    Post4k,
    /// 32 connections, 64 KiB answers
    #[value(name = "get-64k")]
    Get64k,
    /// 32 at a time, each request on a connection of its own; the upstream ones are kept
    #[value(name = "new-connection")]
    NewConnection,
    /// get-32 with --routes prefix routes, the last one hit
    #[value(name = "prefixes")]
    Prefixes,
    /// 64 connections, 1,000 prefix routes to clusters of 10 endpoints, paths by Zipf's law
    #[value(name = "zipf")]
    Zipf,
    /// 64 connections beside --idle ones that have had one answer and say nothing: memory
    #[value(name = "idle")]
    Idle,
    /// get-32 through a TCP proxy that does not look at the bytes
    #[value(name = "tcp-32")]
    Tcp32,
    /// get-128 through a TCP proxy
    #[value(name = "tcp-128")]
    Tcp128,
    /// HTTP/2, 8 connections with 16 streams each, 128-byte answers
    #[value(name = "h2-8x16")]
    Http2Shared,
    /// HTTP/2, 32 connections with one stream each, 128-byte answers
    #[value(name = "h2-32x1")]
    Http2Alone,
    /// gRPC, 8 connections with 16 calls each, messages of 128 bytes both ways
    #[value(name = "grpc-unary")]
    GrpcUnary,
    /// 64 connections, open loop at --share of what the subject can do, less the same load without a proxy: added latency
    #[value(name = "latency")]
    Latency,
    /// --workers: 8 connections that stay, opened one after another, all with the same rate: how even are the workers?
    #[value(name = "workers-even")]
    WorkersEven,
    /// --workers: the same, and one of the 8 does 8/20 of the requests, the last four 1/20 each, in random order
    #[value(name = "workers-uneven")]
    WorkersUneven,
    /// --workers: each request on a connection of its own
    #[value(name = "workers-short")]
    WorkersShort,
}

/// What a subject is configured for; one start of it serves all workloads of one setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setup {
    /// HTTP, one route to one endpoint.
    One,
    /// HTTP, many prefix routes, of which the last is hit.
    Prefixes,
    /// HTTP, a thousand routes, each to a cluster of its own with ten endpoints.
    Mesh,
    /// As `One`, with room for many connections, and in a process of its own: it is about memory.
    Idle,
    /// TCP, one endpoint.
    Tcp,
    /// As `One`, with HTTP/2 on both sides.
    Http2,
    /// The same, with calls of gRPC.
    Grpc,
    /// As `One`, with `--workers` workers, on all cores.
    Workers,
}

/// Longest time that an answer may take under any of these loads.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Bytes of a body of `post-4k`.
const POST_BYTES: usize = 4096;
/// The path of a call of gRPC, behind the route's own; `service/method`, as gRPC has it.
pub(crate) const GRPC_PATH: &str = "bench.Bench/unary";

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn setup(self) -> Setup {
        match self {
            Workload::Get32
            | Workload::Get128
            | Workload::Post4k
            | Workload::Get64k
            | Workload::NewConnection
            | Workload::Latency => Setup::One,
            Workload::Prefixes => Setup::Prefixes,
            Workload::Zipf => Setup::Mesh,
            Workload::Idle => Setup::Idle,
            Workload::Tcp32 | Workload::Tcp128 => Setup::Tcp,
            Workload::Http2Shared | Workload::Http2Alone => Setup::Http2,
            Workload::GrpcUnary => Setup::Grpc,
            Workload::WorkersEven | Workload::WorkersUneven | Workload::WorkersShort => Setup::Workers,
        }
    }

    /// Whether a kind can take part.
    pub(crate) fn is_for(self, kind: Kind) -> bool {
        match self.setup() {
            Setup::Workers => kind.worker_threads().is_some(),
            // Latency is what a subject adds to `direct`.
            _ => !(self == Workload::Latency && kind == Kind::Direct),
        }
    }

    pub(crate) fn connections_count(self) -> usize {
        match self {
            Workload::Get128 | Workload::Tcp128 => 128,
            Workload::Zipf | Workload::Idle | Workload::Latency => 64,
            Workload::WorkersEven | Workload::WorkersUneven => 8,
            Workload::Http2Shared | Workload::GrpcUnary => 8,
            _ => 32,
        }
    }

    /// Requests at a time on each connection.
    pub(crate) fn streams_count(self) -> usize {
        if matches!(self, Workload::Http2Shared | Workload::GrpcUnary) { 16 } else { 1 }
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self.setup(), Setup::Http2 | Setup::Grpc)
    }

    fn protocol(self) -> Protocol {
        match self.is_http2() {
            true => Protocol::Http2 { streams_count: self.streams_count() },
            false => Protocol::Http1,
        }
    }

    /// Whether a handful of upstream connections must do for all requests. Ten thousand endpoints need one each.
    pub(crate) fn keeps_upstream_connections(self) -> bool {
        !matches!(self, Workload::Zipf | Workload::Tcp32 | Workload::Tcp128)
    }

    /// The load of this kind on a subject, as fast as it can.
    pub(crate) fn load(self, target: SocketAddr, plan: &Plan, until: Until) -> Load {
        let small = || request::get(&plan.path("bytes/128"));
        let requests = match self {
            Workload::Get64k => Requests::one(request::get(&plan.path("bytes/65536"))),
            Workload::Post4k => {
                let body: Vec<u8> = (0..POST_BYTES).map(origin::body_byte).collect();
                Requests::one(request::post(&plan.path("bytes/128"), &body))
            }
            Workload::NewConnection | Workload::WorkersShort => {
                Requests::one(request::last_on_its_connection(&plan.path("bytes/128")))
            }
            Workload::GrpcUnary => Requests::calls(grpc_call(plan)),
            Workload::Zipf => {
                let paths = 0..plan.routes.len();
                Requests::zipf(&paths.map(|route| plan.path_of(route, "bytes/128")).collect::<Vec<_>>())
            }
            _ => Requests::one(small()),
        };
        Load {
            target,
            connections_count: self.connections_count(),
            protocol: self.protocol(),
            requests,
            pace: Pace::Closed,
            until,
            is_connecting_anew: matches!(self, Workload::NewConnection | Workload::WorkersShort),
            answer_max: ANSWER_MAX,
        }
    }
}

/// A call of gRPC through the plan's last route.
pub(crate) fn grpc_call(plan: &Plan) -> Vec<u8> {
    request::grpc(&plan.path(GRPC_PATH), &grpc_message())
}

/// The message of one.
pub(crate) fn grpc_message() -> Vec<u8> {
    (0..origin::UNARY_BYTES).map(origin::body_byte).collect()
}
