//! What a user wrote: the document kinds we read, as they are in the file. What they mean together is [`crate::model`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

mod authorization;
mod backend_tls_policy;
mod config_map;
mod core;
mod filter;
mod gateway;
mod gateway_tls;
mod grpc_route;
mod locate;
mod meta;
mod parse;
mod peer_authentication;
pub mod reference;
mod route;
mod secret;
mod validate;
mod workload;

pub use self::core::{
    AddressType, EndpointSlice, Namespace, PortOrName, ServicePort, ServiceSpec, ServiceType,
    SliceConditions, SliceEndpoint, SlicePort, Transport,
};
pub use authorization::{
    AuthorizationAction, AuthorizationPolicySpec, AuthorizationRule, AuthorizationSource,
    AuthorizationSourceType, AuthorizationTarget, AuthorizationTargetKind, CidrText, Enforcement,
    HttpAttributes, IpBlock, NetworkAttributes, SourceServiceAccount,
};
pub use backend_tls_policy::{
    BackendTlsPolicySpec, BackendTlsTarget, BackendTlsValidation, LocalObjectRef, SubjectAltName,
};
pub use config_map::ConfigMap;
pub use filter::{
    FilterType, Header, HeaderModifier, HttpRouteFilter, PathModifier, PathModifierType, RequestRedirect,
    Scheme, UrlRewrite,
};
pub use gateway::{
    AllowedRoutes, FromNamespaces, GatewayClassSpec, GatewayInfrastructure, GatewaySpec, Listener,
    ReferenceGrantFrom, ReferenceGrantSpec, ReferenceGrantTo, RouteGroupKind, RouteNamespaces,
};
pub use gateway_tls::{
    FrontendTls, FrontendTlsConfig, FrontendTlsOfPort, FrontendValidation, FrontendValidationMode,
    GatewayTls, ListenerTls, ObjectRef, SecretRef, TlsMode,
};
pub use grpc_route::{
    GrpcBackendRef, GrpcFilterType, GrpcMethodMatch, GrpcRouteFilter, GrpcRouteMatch, GrpcRouteRule,
    GrpcRouteSpec,
};
pub use meta::{
    Envelope, Ignored, LabelOperator, LabelRequirement, LabelSelector, Metadata, Port, Unused, UnusedField,
};
pub use parse::parse;
pub use peer_authentication::{MtlsMode, PeerAuthenticationSpec, PeerMtls};
pub use route::{
    BackendRef, GatewayDuration, HttpBackendRef, HttpMethod, HttpPathMatch, HttpRouteMatch, HttpRouteRule,
    HttpRouteSpec, HttpRouteTimeouts, HttpValueMatch, ParentRef, PathMatchType, TcpRouteRule, TcpRouteSpec,
    TlsRouteSpec, ValueMatchType,
};
pub use secret::{Hidden, KeyPair, Secret};
pub use workload::{WorkloadPort, WorkloadSpec};

/// API group of Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// API group of our own kinds.
pub const RINGWAY_GROUP: &str = "ringway.io";
/// The namespace of documents that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Names one object: at most one document of a set has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group, empty for Kubernetes' core kinds.
    pub group: Arc<str>,
    /// Kind, as in `kind:`.
    pub kind: Arc<str>,
    /// Namespace; empty for kinds that have none.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(f, "{} {}", self.kind, self.name),
            false => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file, relative to the directory that is read.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A set of documents: the newest good version of each object, and what is wrong with the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Documents {
    /// Every object, by its key.
    pub objects: BTreeMap<ObjectKey, Arc<Document>>,
    /// Documents that could not be used, in order of file and line.
    pub errors: Vec<DocumentError>,
}

/// One document that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which object it is.
    pub key: ObjectKey,
    /// Where it starts.
    pub origin: Origin,
    /// Its content.
    pub object: Object,
    /// What of it Kubernetes defines and we do not use.
    pub unused: Vec<UnusedField>,
    /// Where each of its rules starts, if it is a policy: what decides is shown with its place.
    pub rules: Vec<Origin>,
}

/// The content of a document, by kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// `gateway.networking.k8s.io/v1`.
    GatewayClass(Envelope<GatewayClassSpec>),
    /// `gateway.networking.k8s.io/v1`.
    Gateway(Envelope<GatewaySpec>),
    /// `gateway.networking.k8s.io/v1`.
    HttpRoute(Envelope<HttpRouteSpec>),
    /// `gateway.networking.k8s.io/v1`.
    GrpcRoute(Envelope<GrpcRouteSpec>),
    /// `gateway.networking.k8s.io/v1`.
    TcpRoute(Envelope<TcpRouteSpec>),
    /// `gateway.networking.k8s.io/v1`.
    TlsRoute(Envelope<TlsRouteSpec>),
    /// `gateway.networking.k8s.io/v1`.
    BackendTlsPolicy(Envelope<BackendTlsPolicySpec>),
    /// `gateway.networking.k8s.io/v1`.
    ReferenceGrant(Envelope<ReferenceGrantSpec>),
    /// `v1`.
    Namespace(Namespace),
    /// `v1`.
    Secret(Secret),
    /// `v1`.
    ConfigMap(ConfigMap),
    /// `v1`.
    Service(Envelope<ServiceSpec>),
    /// `discovery.k8s.io/v1`.
    EndpointSlice(EndpointSlice),
    /// `ringway.io/v1alpha1`.
    Workload(Envelope<WorkloadSpec>),
    /// `ringway.io/v1alpha1`.
    AuthorizationPolicy(Envelope<AuthorizationPolicySpec>),
    /// `ringway.io/v1alpha1`.
    PeerAuthentication(Envelope<PeerAuthenticationSpec>),
    /// A kind that nothing is done with, yet or ever: accepted, and said so in its conditions.
    NotUsed(NotUsed),
}

/// A document of a kind that nothing is done with. Only what its conditions need is read.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub struct NotUsed {
    /// As written.
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What it refers to.
    #[serde(default, deserialize_with = "meta::absent_if_null")]
    pub spec: NotUsedSpec,
}

/// What a document of a kind that nothing is done with refers to.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotUsedSpec {
    /// The parents of a route.
    #[serde(default, deserialize_with = "meta::absent_if_null")]
    pub parent_refs: Vec<ParentRef>,
}

impl Object {
    /// `apiVersion`, as written.
    pub fn api_version(&self) -> &str {
        match self {
            Self::GatewayClass(object) => &object.api_version,
            Self::Gateway(object) => &object.api_version,
            Self::HttpRoute(object) => &object.api_version,
            Self::GrpcRoute(object) => &object.api_version,
            Self::TcpRoute(object) => &object.api_version,
            Self::TlsRoute(object) => &object.api_version,
            Self::BackendTlsPolicy(object) => &object.api_version,
            Self::ReferenceGrant(object) => &object.api_version,
            Self::Namespace(object) => &object.api_version,
            Self::Secret(object) => &object.api_version,
            Self::ConfigMap(object) => &object.api_version,
            Self::Service(object) => &object.api_version,
            Self::EndpointSlice(object) => &object.api_version,
            Self::Workload(object) => &object.api_version,
            Self::AuthorizationPolicy(object) => &object.api_version,
            Self::PeerAuthentication(object) => &object.api_version,
            Self::NotUsed(object) => &object.api_version,
        }
    }

    /// Name, namespace, labels.
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::GatewayClass(object) => &object.metadata,
            Self::Gateway(object) => &object.metadata,
            Self::HttpRoute(object) => &object.metadata,
            Self::GrpcRoute(object) => &object.metadata,
            Self::TcpRoute(object) => &object.metadata,
            Self::TlsRoute(object) => &object.metadata,
            Self::BackendTlsPolicy(object) => &object.metadata,
            Self::ReferenceGrant(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::Secret(object) => &object.metadata,
            Self::ConfigMap(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Workload(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
            Self::PeerAuthentication(object) => &object.metadata,
            Self::NotUsed(object) => &object.metadata,
        }
    }
}

/// A document that could not be used. If an earlier version of it was good, that one still is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct DocumentError {
    /// Where it is wrong.
    pub origin: Origin,
    /// Which object, where that much could be read.
    pub key: Option<ObjectKey>,
    /// What is wrong.
    pub reason: String,
    /// The last good version of the object still serves.
    pub last_good_serves: bool,
}
