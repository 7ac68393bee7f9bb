//! What the documents and registrations mean together: services with their endpoints, gateways with their virtual
//! hosts, rules in the order they are tried. Immutable; built anew from its inputs, and by nothing else: no clock,
//! no file, no order of arrival, so that replicas agree.
//!
//! The semantics are Gateway API's. [`build`] is the story; each step says the conditions of the objects it judges.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::conditions::Conditions;
use crate::document::{Documents, FrontendValidationMode, KeyPair, ObjectKey, SubjectAltName};

mod attach;
mod authorities;
mod authorization;
mod backend;
mod backend_tls;
mod certificate;
mod gateway;
mod grant;
mod host;
mod http_route;
mod others;
mod peer_authentication;
mod request_route;
mod rule;
mod service;
mod virtual_host;

pub use authorization::{Authorization, AuthorizationPolicy};
pub use host::HostPattern;
pub use peer_authentication::PeerAuthentications;
pub use rule::{
    Action, Backend, Forward, GrpcMethod, PathMatch, PathRewrite, RequestMatch, Rule, Target, ValueMatch,
};
pub use virtual_host::VirtualHost;

/// What the documents and registrations mean together.
#[derive(Debug, Default, PartialEq)]
pub struct Model {
    /// Every service by its name.
    pub services: BTreeMap<Name, Service>,
    /// Every Gateway that we serve, by its name.
    pub gateways: BTreeMap<Name, Gateway>,
    /// Who may call whom.
    pub authorization: Authorization,
    /// How callers are taken.
    pub peer_authentications: PeerAuthentications,
}

/// Asked of each rule of an HTTPRoute or a GRPCRoute: why the proxies would not take it, if they would not.
pub type Refusal = fn(&Rule) -> Option<String>;

/// The model of `documents` and `registrations`, and what became of each of them. What proxies take is not known
/// here but asked of `refusal`.
pub fn build(documents: &Documents, registrations: &Registrations, refusal: Refusal) -> (Model, Conditions) {
    let mut conditions = Conditions::default();
    others::judge(documents, &mut conditions);
    let mut services = service::collect(documents, registrations, &mut conditions);
    let grants = grant::Grants::new(documents);
    let certificates = certificate::Certificates::new(documents, &grants);
    let authorities = authorities::Authorities::new(documents, &grants);
    let mut gateways = gateway::collect(documents, &certificates, &authorities);
    let backends = backend::Backends::new(&services, &grants);
    let routes = attach::attach(documents, &services, &backends, &mut gateways, refusal, &mut conditions);
    for target in routes.called_by_grpc {
        let port = services.get_mut(&target.service).and_then(|service| service.port_mut(target.port));
        if let Some(port) = port.filter(|port| port.protocol == Protocol::Http) {
            port.protocol = Protocol::Http2;
        }
    }
    for (target, scope, rules) in routes.mesh {
        let port = services.get_mut(&target.service).and_then(|service| service.port_mut(target.port));
        if let Some(port) = port {
            port.add_rules(&scope, rules);
        }
    }
    services.values_mut().flat_map(|service| &mut service.ports).for_each(ServicePort::sort_rules);
    let gateways = gateway::finish(gateways, &mut conditions);
    backend_tls::attach(documents, &authorities, &mut services, &gateways, &mut conditions);
    let authorization = authorization::collect(documents, &services, &mut conditions);
    let peer_authentications = peer_authentication::collect(documents, &services, &mut conditions);
    (Model { services, gateways, authorization, peer_authentications }, conditions)
}

/// Namespace and name of an object whose kind is clear.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name in it.
    pub name: Arc<str>,
}

impl Name {
    /// From strings of any kind.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl From<&ObjectKey> for Name {
    fn from(key: &ObjectKey) -> Self {
        Self { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A service: ports, and who is behind each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Its ports, in the order of their numbers.
    pub ports: Vec<ServicePort>,
    /// It has no endpoints of its own (`ExternalName`): nothing can be forwarded to it.
    pub external: bool,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    /// The port callers name.
    pub port: u16,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// What it carries.
    pub protocol: Protocol,
    /// Who takes the traffic, in the order of their addresses.
    pub endpoints: Vec<Endpoint>,
    /// Rules for callers of every namespace, if any route is attached to the port.
    pub producer_rules: Option<Vec<Rule>>,
    /// Rules for callers of one namespace; they take the place of the producer's.
    pub consumer_rules: BTreeMap<Arc<str>, Vec<Rule>>,
    /// TLS that those behind it end themselves, where no proxy of the mesh is before them.
    pub tls: Option<PortTls>,
}

/// TLS that a port of a service speaks itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortTls {
    /// It is known by its certificate.
    Verified(Arc<BackendTls>),
    /// Nothing can be known of it, so nobody speaks to it.
    Nobody,
}

/// How a port of a service is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// The host that is asked for, and that its certificate is for if there are no `names`.
    pub host: String,
    /// Who vouches for it: certificates in PEM.
    pub authorities: String,
    /// Names of which its certificate must have one.
    pub names: Vec<SubjectAltName>,
}

impl Service {
    /// The port of this number.
    pub fn port(&self, port: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|known| known.port == port)
    }

    fn port_mut(&mut self, port: u16) -> Option<&mut ServicePort> {
        self.ports.iter_mut().find(|known| known.port == port)
    }
}

impl ServicePort {
    /// The rules that hold for callers in `namespace`; `None` where requests go to the endpoints as they are.
    pub fn rules_for(&self, namespace: &str) -> Option<&[Rule]> {
        self.consumer_rules.get(namespace).or(self.producer_rules.as_ref()).map(Vec::as_slice)
    }

    /// Several routes may be attached to one port: their rules are tried as if they were of one.
    fn sort_rules(&mut self) {
        for rules in self.producer_rules.iter_mut().chain(self.consumer_rules.values_mut()) {
            rules.sort_by(Rule::precedence);
        }
    }

    fn add_rules(&mut self, scope: &Scope, rules: Vec<Rule>) {
        match scope {
            Scope::Producer => self.producer_rules.get_or_insert_default().extend(rules),
            Scope::Consumer(namespace) => {
                self.consumer_rules.entry(Arc::clone(namespace)).or_default().extend(rules);
            }
        }
    }
}

/// Whose calls to a service a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    /// Everyone's: the route is in the service's namespace.
    Producer,
    /// Those from the route's own namespace.
    Consumer(Arc<str>),
}

/// One address of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it is reached.
    pub address: SocketAddr,
    /// Finishes what it has; takes nothing new.
    pub draining: bool,
    /// Share of the traffic in proportion to the others.
    pub weight: u16,
    /// Zone it is in; empty if not said.
    pub zone: Arc<str>,
    /// A proxy of the mesh is before it, with the identity of the service.
    pub speaks_mesh_tls: bool,
}

/// A Gateway as it is served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gateway {
    /// What is served on each port.
    pub ports: BTreeMap<u16, GatewayPort>,
}

/// What is served on one port of a Gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum GatewayPort {
    /// Requests, by host and rule.
    Http(Vec<VirtualHost>),
    /// Connections, in proportion of the weights. Connections for a broken reference are closed.
    Tcp(Vec<Backend>),
    /// TLS, by the host that a connection asks for: the listener that means the least besides takes it alone. A
    /// connection that asks for a host of none is closed.
    Tls(Vec<TlsListener>),
}

/// What is served to connections that ask for certain hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsListener {
    /// Its name, unique in the Gateway.
    pub name: Arc<str>,
    /// The hosts. No two listeners of a port have the same pattern.
    pub host: HostPattern,
    /// What is shown; with several, each to whom it suits. None if TLS is ended by those behind.
    pub certificates: Vec<Certificate>,
    /// What clients have to show.
    pub clients: Option<ClientValidation>,
    /// What is in it.
    pub traffic: TlsTraffic,
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientValidation {
    /// Who vouches for them: certificates in PEM.
    pub authorities: Arc<str>,
    /// What becomes of clients that nobody vouches for.
    pub mode: FrontendValidationMode,
}

impl ClientValidation {
    /// Whether clients that nobody vouches for are refused.
    pub fn is_strict(&self) -> bool {
        self.mode == FrontendValidationMode::AllowValidOnly
    }
}

/// What is done with TLS connections.
#[derive(Debug, Clone, PartialEq)]
pub enum TlsTraffic {
    /// Requests.
    Http {
        /// By host and rule.
        hosts: Vec<VirtualHost>,
        /// The hosts of the other listeners of the port, as far as they are in none of `hosts`: a connection asked for one
        /// of ours, and this request should not have come on it (RFC 9110 §15.5.20).
        misdirected: Vec<HostPattern>,
    },
    /// Connections, by the host they ask for and in proportion of the weights. One that asks for none of these hosts is
    /// closed.
    Tcp(Vec<(HostPattern, Vec<Backend>)>),
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Where it is from.
    pub secret: Name,
    /// The certificate and the key.
    pub pair: KeyPair,
}

/// What a port of a service carries, as far as we tell protocols apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP, and nothing says which version: HTTP/1.1 is spoken, unless a GRPCRoute leads there.
    Http,
    /// HTTP/1.1, as is declared.
    Http1,
    /// HTTP/2, as is declared or because a GRPCRoute leads there.
    Http2,
    /// Anything else: forwarded per connection.
    Tcp,
}

impl Protocol {
    /// What `appProtocol` of a Service port, or a registration, declares; `None` if it declares nothing we know.
    pub fn from_app_protocol(declared: &str) -> Option<Self> {
        match declared {
            "http" | "http/1.1" | "kubernetes.io/ws" | "ws" | "grpc-web" => Some(Self::Http1),
            "http2" | "h2c" | "kubernetes.io/h2c" | "grpc" => Some(Self::Http2),
            "tcp" | "tls" | "https" | "kubernetes.io/wss" | "wss" => Some(Self::Tcp),
            _ => None,
        }
    }

    /// Whether requests are routed, one by one.
    pub fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// A workload that `ringway run` keeps registered; `ringway.control.v1.Registration` after its fields are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Unique per process of the application.
    pub instance: String,
    /// Namespace of the service.
    pub namespace: String,
    /// The service it adds an endpoint to; created if there is none.
    pub service: String,
    /// Where other proxies reach it.
    pub address: SocketAddr,
    /// The application's own port.
    pub port: u16,
    /// What selectors of Services match.
    pub labels: BTreeMap<String, String>,
    /// Only a ready endpoint is routable.
    pub ready: bool,
    /// Finishing what it has.
    pub draining: bool,
    /// Name of the machine.
    pub host: String,
    /// What the application speaks; empty means HTTP.
    pub app_protocol: String,
}

/// Every registration whose lease holds, by instance.
pub type Registrations = BTreeMap<String, Registration>;
