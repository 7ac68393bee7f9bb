//! What becomes of a request once its route is picked. Data; the rewrites are carried out in `rewrite`.

use alloc::sync::Arc;
use core::time::Duration;

use super::{header_edit::HeaderEdits, stream_duration::StreamDuration};
use crate::{
    http_filter::FilterOverrides, limits, regex::RegexRewrite, upgrade::Upgrades, weighted::Weighted,
};

/// What becomes of a request.
#[derive(Debug)]
pub enum RouteAction {
    /// It is forwarded to a cluster.
    Forward(Forward),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered at once.
    DirectResponse(DirectResponse),
}

/// How a request is forwarded (Envoy: `RouteAction`).
#[derive(Clone, Debug)]
pub struct Forward<T = ForwardTarget> {
    /// Where to, by weight.
    pub targets: Weighted<T>,
    /// A new path.
    pub path_rewrite: Option<PathRewrite>,
    /// A new host.
    pub host_rewrite: Option<HostRewrite>,
    /// From the end of the request to the end of the response, retries included; `None` is off (Envoy: 0).
    pub timeout: Option<Duration>,
    /// How long the exchange may pass without a byte.
    pub idle_timeout: IdleTimeout,
    /// How long the exchange may take as a whole.
    pub stream_duration: StreamDuration,
    /// Upgrades that are let pass or not, whatever the connection manager says.
    pub upgrades: Upgrades,
    /// How often a connect failure is tried again, each time on another endpoint; below
    /// [`limits::CONNECT_ATTEMPTS_MAX`]. Nothing of the request was sent then, so this is safe for every method.
    pub connect_retries: u8,
}

/// A cluster to forward to, with the header edits of all levels merged.
#[derive(Clone, Debug)]
pub struct ForwardTarget {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// A new host; goes before the one of [`Forward`].
    pub host_rewrite: Option<HostRewrite>,
    /// Edits to the head of the request.
    pub request_headers: HeaderEdits,
    /// Edits to the head of the response.
    pub response_headers: HeaderEdits,
    /// What all levels say of filters.
    pub filters: FilterOverrides,
}

impl<T> Forward<T> {
    /// Forwards to `targets` with every default.
    pub fn new(targets: Weighted<T>) -> Forward<T> {
        Forward {
            targets,
            path_rewrite: None,
            host_rewrite: None,
            timeout: Some(limits::ROUTE_TIMEOUT_DEFAULT),
            idle_timeout: IdleTimeout::Inherit,
            stream_duration: StreamDuration::default(),
            upgrades: Upgrades::default(),
            connect_retries: limits::CONNECT_RETRIES_DEFAULT,
        }
    }

    /// The same with other targets.
    pub(super) fn map_targets<U>(self, map: impl FnMut(T) -> U) -> Forward<U> {
        Forward {
            targets: self.targets.map(map),
            path_rewrite: self.path_rewrite,
            host_rewrite: self.host_rewrite,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            stream_duration: self.stream_duration,
            upgrades: self.upgrades,
            connect_retries: self.connect_retries,
        }
    }
}

impl Forward {
    /// The target that `random` falls on.
    pub fn target(&self, random: u64) -> &ForwardTarget {
        self.targets.pick(random)
    }

    /// The host rewrite that holds for `target`.
    pub fn host_rewrite_of<'a>(&'a self, target: &'a ForwardTarget) -> Option<&'a HostRewrite> {
        target.host_rewrite.as_ref().or(self.host_rewrite.as_ref())
    }
}

/// How long an exchange may pass without a byte in either direction (Envoy: route `idle_timeout`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IdleTimeout {
    /// What the connection manager's `stream_idle_timeout` says.
    #[default]
    Inherit,
    /// For ever (Envoy: 0).
    Off,
    /// This long.
    After(Duration),
}

/// How the path is rewritten; the query stays.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// What the route's matcher matched is replaced: the prefix, or the whole path when the matcher is no prefix
    /// (Envoy: `prefix_rewrite`).
    Matched(Arc<[u8]>),
    /// Every match of an expression in the path is replaced (Envoy: `regex_rewrite`).
    Regex(RegexRewrite),
}

/// How the host is rewritten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostRewrite {
    /// To this (Envoy: `host_rewrite_literal`).
    Literal(Arc<[u8]>),
    /// To the hostname of the endpoint, if it has one (Envoy: `auto_host_rewrite`).
    EndpointHostname,
}

/// A redirect (Envoy: `RedirectAction`).
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// A new scheme.
    pub scheme: Option<Arc<str>>,
    /// A new host.
    pub host: Option<Arc<str>>,
    /// A new port.
    pub port: Option<u16>,
    /// A new path.
    pub path: RedirectPath,
    /// Leave the query away.
    pub strip_query: bool,
}

/// The path of a redirect.
#[derive(Clone, Debug, Default)]
pub enum RedirectPath {
    /// The request's.
    #[default]
    Keep,
    /// This. If it has a query, the request's is dropped (Envoy: `path_redirect`).
    Full(Arc<[u8]>),
    /// What the route's matcher matched is replaced (Envoy: `prefix_rewrite`).
    Matched(Arc<[u8]>),
    /// Every match of an expression in the path is replaced (Envoy: `regex_rewrite`).
    Regex(RegexRewrite),
}

/// An answer that is ready.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its body, at most [`limits::DIRECT_RESPONSE_BODY_BYTES_MAX`] bytes; may be empty.
    pub body: Arc<[u8]>,
}
