//! The kinds of work the subjects are measured with.

use std::net::SocketAddr;

use clap::ValueEnum;

use crate::load::{Load, Pace, Until, request};

/// Every one is HTTP/1.1 keep-alive. All but `Open` are closed loops: they tell cost, not latency.
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
    /// 64 connections, 128-byte answers, --rate requests per second on an absolute schedule: latency
    #[value(name = "open")]
    Open,
}

impl Workload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::Get32 => "get-32",
            Workload::Get128 => "get-128",
            Workload::Post4k => "post-4k",
            Workload::Get64k => "get-64k",
            Workload::Open => "open",
        }
    }

    /// The load of this kind on `target`; `rate` is that of `open`, in requests per second.
    pub(crate) fn load(self, target: SocketAddr, rate: f64, until: Until) -> Load {
        let (connections_count, request) = match self {
            Workload::Get32 => (32, request("/bytes/128", 0)),
            Workload::Get128 => (128, request("/bytes/128", 0)),
            Workload::Post4k => (32, request("/bytes/128", 4096)),
            Workload::Get64k => (32, request("/bytes/65536", 0)),
            Workload::Open => (64, request("/bytes/128", 0)),
        };
        let pace = if self == Workload::Open { Pace::Open(rate) } else { Pace::Closed };
        Load { target, connections_count, request, pace, until }
    }
}
