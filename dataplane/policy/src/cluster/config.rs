//! What the configuration says of a cluster, its endpoints aside.

use alloc::{collections::BTreeMap, sync::Arc};
use core::{num::NonZeroU32, time::Duration};

use wire::proxy_protocol::Version;

use crate::{
    endpoint::{Assignment, DnsName},
    http2::Http2Options,
    limits,
    tls::Transports,
};

/// What the configuration says of a cluster, its endpoints aside (Envoy: `Cluster`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Its name.
    pub name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Time for one connect.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Which version of HTTP its endpoints are spoken to in.
    pub protocol: UpstreamProtocol,
    /// How HTTP/2 is spoken, where it is.
    pub http2: Http2Options,
    /// Share of healthy endpoints below which health is ignored, in percent; 0 is never.
    pub panic_threshold_percent: u8,
    /// Whether load is shared among localities by their weights (Envoy: `locality_weighted_lb_config`).
    pub locality_weighted: bool,
    /// How long an upstream connection may wait in the pool; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long an upstream connection may live; it ends when it is idle then, or becomes so.
    pub max_connection_duration: Option<Duration>,
    /// Requests that an upstream connection carries at most.
    pub max_requests_per_connection: Option<NonZeroU32>,
    /// What the kernel may hold of an upstream connection that it has not sent yet, in bytes; 0 is no limit (Envoy:
    /// `per_connection_buffer_limit_bytes`).
    pub unsent_bytes_max: u32,
    /// Longest response head, in bytes; at most [`limits::RESPONSE_HEAD_BYTES_MAX`].
    pub response_head_bytes_max: usize,
    /// Most header lines of a response head; at most [`limits::HEADERS_COUNT_MAX`].
    pub headers_count_max: usize,
    /// Begin connections with a PROXY protocol header that says whom they are for
    /// (`envoy.transport_sockets.upstream_proxy_protocol`).
    pub proxy_protocol: Option<Version>,
    /// What carries the bytes of its connections.
    pub transport: Transports,
    /// Secrets that it needs by SDS, each with how long its first version is waited for; `None` is for ever.
    pub secrets: BTreeMap<Arc<str>, Option<Duration>>,
    /// How long its first endpoints are waited for where they come by EDS; `None` is for ever.
    pub fetch_timeout: Option<Duration>,
}

/// Where a cluster's endpoints come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// From the cluster itself.
    Static(Assignment),
    /// From EDS, under this name.
    Eds {
        /// The name to ask for; the cluster's own unless configured otherwise.
        service_name: Arc<str>,
    },
    /// From DNS: every address of every name is an endpoint.
    StrictDns(Dns),
    /// From DNS: the one address that was answered first is the endpoint.
    LogicalDns(Dns),
    /// From the requests: each goes to the host that it names (Envoy: `dynamic_forward_proxy`).
    DynamicForward(DnsCache),
}

/// How hosts that requests name are looked up and kept (Envoy: `DnsCacheConfig`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsCache {
    /// Time between two look-ups of a host.
    pub refresh_rate: Duration,
    /// Which addresses are wanted.
    pub family: DnsFamily,
    /// How long a host that no request names is kept.
    pub host_ttl: Duration,
    /// Hosts that are known at a time; requests for one more are refused.
    pub hosts_max: usize,
    /// How long a request waits for a look-up.
    pub query_timeout: Duration,
}

/// How names are resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// The names.
    pub assignment: Assignment<DnsName>,
    /// Time between two look-ups.
    pub refresh_rate: Duration,
    /// Use the time to live of the answer instead.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: DnsFamily,
}

/// Which addresses of a name are wanted (Envoy: `DnsLookupFamily`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DnsFamily {
    /// IPv6, and IPv4 only if there is none (Envoy: `AUTO`, its default).
    #[default]
    V6Preferred,
    /// IPv4, and IPv6 only if there is none.
    V4Preferred,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// Both.
    All,
}

/// Which version of HTTP is spoken to the endpoints of a cluster (Envoy: `upstream_protocol_options`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, without TLS by prior knowledge.
    Http2,
    /// The one that the request came in.
    Downstream,
    /// The one that ALPN chooses; HTTP/1.1 where there is none, so on every connection without TLS.
    Auto,
}

/// How an endpoint is chosen. All of them honour the endpoints' weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// At random.
    Random,
    /// The one with the fewest exchanges in flight of this many different ones, chosen at random.
    LeastRequest {
        /// From 2 to [`limits::LEAST_REQUEST_CHOICES_MAX`].
        choices: usize,
    },
}

impl ClusterConfig {
    /// A cluster with every default.
    pub fn new(name: Arc<str>, discovery: Discovery) -> ClusterConfig {
        ClusterConfig {
            name,
            discovery,
            connect_timeout: limits::CONNECT_TIMEOUT_DEFAULT,
            balance: Balance::default(),
            protocol: UpstreamProtocol::default(),
            http2: Http2Options::upstream(),
            panic_threshold_percent: limits::PANIC_THRESHOLD_PERCENT_DEFAULT,
            locality_weighted: false,
            idle_timeout: Some(limits::UPSTREAM_IDLE_TIMEOUT_DEFAULT),
            max_connection_duration: None,
            max_requests_per_connection: None,
            unsent_bytes_max: limits::UNSENT_BYTES_DEFAULT,
            response_head_bytes_max: limits::RESPONSE_HEAD_BYTES_MAX,
            headers_count_max: limits::HEADERS_COUNT_DEFAULT,
            proxy_protocol: None,
            transport: Transports::default(),
            secrets: BTreeMap::new(),
            fetch_timeout: Some(limits::INITIAL_FETCH_TIMEOUT_DEFAULT),
        }
    }
}
