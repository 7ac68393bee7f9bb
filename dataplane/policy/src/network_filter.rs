//! What is done with a connection once its filter chain is picked: HTTP or plain TCP. Data only.

use alloc::{sync::Arc, vec::Vec};
use core::{num::NonZeroU32, time::Duration};

use wire::path::Normalization;

use crate::{
    client_cert::{ClientCertDetails, ForwardClientCert},
    forwarded::ForwardedTrust,
    http_filter::HttpFilter,
    http2::Http2Options,
    limits,
    rbac::Rbac,
    route::RouteTable,
    upgrade::Upgrades,
    weighted::Weighted,
};

/// The filter that ends a filter chain.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// Speak HTTP (`envoy.filters.network.http_connection_manager`).
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// Forward bytes (`envoy.filters.network.tcp_proxy`).
    TcpProxy(Arc<TcpProxy>),
}

/// How many connections a filter chain takes at a time, over all workers (Envoy: `ConnectionLimit`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionLimit {
    /// Whose connections are counted together: listener and place of the filter chain.
    pub key: Arc<str>,
    /// Names its metrics (`connection_limit.<stat_prefix>.`).
    pub stat_prefix: Arc<str>,
    /// How many.
    pub connections_max: u64,
    /// How long one more is kept before it is closed, so that its client does not come again at once.
    pub delay: Duration,
}

/// Which connections go on to the filter that ends the chain (`envoy.filters.network.rbac`).
#[derive(Clone, Debug)]
pub struct NetworkRbac {
    /// Names its metrics (`<stat_prefix>.rbac.`).
    pub stat_prefix: Arc<str>,
    /// Who may connect. Nothing in it asks for a request.
    pub rbac: Rbac,
    /// How long a connection that may not is kept before it is closed, so that its client does not come again at once.
    pub delay_deny: Duration,
}

/// How HTTP is spoken on a connection (Envoy: `HttpConnectionManager`). A timeout of `None` is off.
#[derive(Clone, Debug)]
pub struct HttpConnectionManager {
    /// Names its metrics (`http.<stat_prefix>.`).
    pub stat_prefix: Arc<str>,
    /// Which versions of HTTP are spoken.
    pub codec: Codec,
    /// How HTTP/2 is.
    pub http2: Http2Options,
    /// Where requests are routed.
    pub routes: RouteSource,
    /// What requests pass before they are forwarded, in order.
    pub http_filters: Vec<HttpFilter>,
    /// From the first byte of a request head to its last.
    pub request_headers_timeout: Option<Duration>,
    /// How long a connection may be without an exchange.
    pub idle_timeout: Option<Duration>,
    /// How long an exchange may pass without a byte in either direction.
    pub stream_idle_timeout: Option<Duration>,
    /// From the first byte of a request to its last, unless its response begins before.
    pub request_timeout: Option<Duration>,
    /// How long an exchange may take as a whole, unless its route says otherwise.
    pub max_stream_duration: Option<Duration>,
    /// How long a connection may live; then it ends with its next response, or when it waits for a request.
    pub max_connection_duration: Option<Duration>,
    /// Requests after which a connection ends, with the response to the last of them.
    pub max_requests_per_connection: Option<NonZeroU32>,
    /// How long a connection that shall end waits for a request that may be on its way already.
    pub drain_timeout: Duration,
    /// How long a connection lingers after its last response while the other end still sends.
    pub delayed_close_timeout: Duration,
    /// What becomes of the `server` header of responses.
    pub server_header: ServerHeader,
    /// Whose word about the client's address and scheme is believed, and what is told of the connection's.
    pub forwarded: ForwardedTrust,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What it tells of who called.
    pub client_cert_details: ClientCertDetails,
    /// Give requests that come without `x-request-id` one; at the edge (`use_remote_address`), all.
    pub generate_request_id: bool,
    /// Leave the `x-request-id` of requests as it is at the edge, too.
    pub preserve_external_request_id: bool,
    /// Whether exchanges are written to the access log.
    pub access_log: bool,
    /// Longest request head, in bytes; at most [`limits::REQUEST_HEAD_BYTES_MAX`].
    pub request_head_bytes_max: usize,
    /// Most header lines of a request head; at most [`limits::HEADERS_COUNT_MAX`].
    pub headers_count_max: usize,
    /// What becomes of header names with an underscore, which some applications take for a hyphen.
    pub underscores: Underscores,
    /// Whether answers of our own carry `x-ringway-reason`.
    pub reason_header: bool,
    /// What is done to paths before anything is decided by them.
    pub path_normalization: Normalization,
    /// Upgrades that are let pass, unless the route says otherwise.
    pub upgrades: Upgrades,
}

impl HttpConnectionManager {
    /// A connection manager with every default.
    pub fn new(stat_prefix: Arc<str>, routes: RouteSource) -> HttpConnectionManager {
        HttpConnectionManager {
            stat_prefix,
            codec: Codec::default(),
            http2: Http2Options::downstream(),
            routes,
            http_filters: Vec::new(),
            request_headers_timeout: Some(limits::REQUEST_HEADERS_TIMEOUT_DEFAULT),
            idle_timeout: Some(limits::DOWNSTREAM_IDLE_TIMEOUT_DEFAULT),
            stream_idle_timeout: Some(limits::STREAM_IDLE_TIMEOUT_DEFAULT),
            request_timeout: None,
            max_stream_duration: None,
            max_connection_duration: None,
            max_requests_per_connection: None,
            drain_timeout: limits::DRAIN_TIMEOUT_DEFAULT,
            delayed_close_timeout: limits::DELAYED_CLOSE_TIMEOUT_DEFAULT,
            server_header: ServerHeader::default(),
            forward_client_cert: ForwardClientCert::default(),
            client_cert_details: ClientCertDetails::default(),
            forwarded: ForwardedTrust::default(),
            generate_request_id: true,
            preserve_external_request_id: false,
            access_log: false,
            request_head_bytes_max: limits::REQUEST_HEAD_BYTES_MAX,
            headers_count_max: limits::HEADERS_COUNT_DEFAULT,
            underscores: Underscores::default(),
            reason_header: true,
            path_normalization: Normalization::default(),
            upgrades: Upgrades::default(),
        }
    }
}

/// Which versions of HTTP are spoken on a connection (Envoy: `codec_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// The one that ALPN chose, else the one that the first bytes are of.
    #[default]
    Auto,
    /// HTTP/1.1 and HTTP/1.0.
    Http1,
    /// HTTP/2, on a connection without TLS by prior knowledge.
    Http2,
}

/// What becomes of request headers whose name has an underscore (Envoy: `headers_with_underscores_action`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Underscores {
    /// They are like others.
    #[default]
    Allow,
    /// The request is refused.
    Refuse,
    /// They are left out before anything looks at them.
    Drop,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// Given with the listener.
    Inline(Arc<RouteTable>),
    /// The route table of this name, by RDS.
    Named(Arc<str>),
}

/// What becomes of the `server` header of a response (Envoy: `server_header_transformation`, `server_name`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ServerHeader {
    /// Replaced by this name.
    Overwrite(Arc<str>),
    /// This name, when the upstream gave none.
    AddIfAbsent(Arc<str>),
    /// Left as it came.
    #[default]
    PassThrough,
}

/// How bytes are forwarded (Envoy: `TcpProxy`).
#[derive(Clone, Debug)]
pub struct TcpProxy {
    /// Names its metrics (`tcp.<stat_prefix>.`).
    pub stat_prefix: Arc<str>,
    /// Names of the clusters that connections go to.
    pub clusters: Weighted<Arc<str>>,
    /// How long a connection may pass without a byte in either direction; `None` is off.
    pub idle_timeout: Option<Duration>,
    /// Whether connections are written to the access log.
    pub access_log: bool,
}
