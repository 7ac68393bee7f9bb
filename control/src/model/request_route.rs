//! Routes of requests, of either kind. A rule of a GRPCRoute says less than one of an HTTPRoute and says it in the same
//! words, but for which requests it means.

use std::borrow::Cow;

use jiff::Timestamp;

use super::Refusal;
use super::backend::{Backends, Referrer};
use super::http_route::{self, Rules, WrittenRule};
use super::rule::RequestMatch;
use crate::document::{
    Envelope, FilterType, GrpcBackendRef, GrpcFilterType, GrpcRouteFilter, GrpcRouteRule, GrpcRouteSpec,
    HttpBackendRef, HttpRouteFilter, HttpRouteRule, HttpRouteSpec, Metadata, Object, ParentRef,
};

/// A GRPCRoute's kind.
pub(super) const GRPC_ROUTE: &str = "GRPCRoute";
/// An HTTPRoute's kind.
pub(super) const HTTP_ROUTE: &str = "HTTPRoute";

/// A route of requests as it is written.
#[derive(Clone, Copy)]
pub(super) enum RequestRoute<'a> {
    Http(&'a Envelope<HttpRouteSpec>),
    Grpc(&'a Envelope<GrpcRouteSpec>),
}

impl<'a> RequestRoute<'a> {
    /// `None` for any other kind of document.
    pub(super) fn of(object: &'a Object) -> Option<Self> {
        match object {
            Object::HttpRoute(route) => Some(Self::Http(route)),
            Object::GrpcRoute(route) => Some(Self::Grpc(route)),
            _ => None,
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Http(_) => HTTP_ROUTE,
            Self::Grpc(_) => GRPC_ROUTE,
        }
    }

    pub(super) fn metadata(self) -> &'a Metadata {
        match self {
            Self::Http(route) => &route.metadata,
            Self::Grpc(route) => &route.metadata,
        }
    }

    pub(super) fn created(self) -> Option<Timestamp> {
        self.metadata().creation_timestamp
    }

    pub(super) fn parents(self) -> &'a [ParentRef] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
        }
    }

    pub(super) fn hostnames(self) -> &'a [String] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
        }
    }

    /// How many rules it has.
    pub(super) fn rules_count(self) -> usize {
        match self {
            Self::Http(route) => route.spec.rules.len(),
            Self::Grpc(route) => route.spec.rules.len(),
        }
    }

    /// Its rules for one side.
    pub(super) fn rules(self, referrer: Referrer<'_>, backends: &Backends<'_>, refusal: Refusal) -> Rules {
        let rules = |written: &mut dyn Iterator<Item = WrittenRule<'a>>| {
            http_route::rules(referrer, self.created(), written, backends, refusal)
        };
        match self {
            Self::Http(route) => rules(&mut route.spec.rules.iter().map(http_rule)),
            Self::Grpc(route) => rules(&mut route.spec.rules.iter().map(grpc_rule)),
        }
    }
}

fn http_rule(rule: &HttpRouteRule) -> WrittenRule<'_> {
    let matches = match rule.matches.is_empty() {
        true => vec![RequestMatch::all()],
        false => rule.matches.iter().map(RequestMatch::from_document).collect(),
    };
    WrittenRule { matches, rule: Cow::Borrowed(rule) }
}

fn grpc_rule(rule: &GrpcRouteRule) -> WrittenRule<'_> {
    let matches = match rule.matches.is_empty() {
        true => vec![RequestMatch::all_grpc()],
        false => rule.matches.iter().map(RequestMatch::from_grpc_document).collect(),
    };
    let rule = HttpRouteRule {
        filters: rule.filters.iter().map(as_http_filter).collect(),
        backend_refs: rule.backend_refs.iter().map(as_http_backend).collect(),
        ..HttpRouteRule::default()
    };
    WrittenRule { matches, rule: Cow::Owned(rule) }
}

fn as_http_filter(filter: &GrpcRouteFilter) -> HttpRouteFilter {
    HttpRouteFilter {
        kind: match filter.kind {
            GrpcFilterType::RequestHeaderModifier => FilterType::RequestHeaderModifier,
            GrpcFilterType::ResponseHeaderModifier => FilterType::ResponseHeaderModifier,
            GrpcFilterType::RequestMirror => FilterType::RequestMirror,
            GrpcFilterType::ExtensionRef => FilterType::ExtensionRef,
        },
        request_header_modifier: filter.request_header_modifier.clone(),
        response_header_modifier: filter.response_header_modifier.clone(),
        request_redirect: None,
        url_rewrite: None,
        request_mirror: filter.request_mirror,
        cors: None,
        external_auth: None,
        extension_ref: filter.extension_ref,
    }
}

fn as_http_backend(backend: &GrpcBackendRef) -> HttpBackendRef {
    HttpBackendRef {
        group: backend.group.clone(),
        kind: backend.kind.clone(),
        name: backend.name.clone(),
        namespace: backend.namespace.clone(),
        port: backend.port,
        weight: backend.weight,
        filters: backend.filters.iter().map(as_http_filter).collect(),
    }
}
