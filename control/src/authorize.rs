//! Whether one workload may call another, and which rule decides: answered by what a proxy would be sent, translated and
//! evaluated by the very code that a proxy has. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use policy::filter_chain::FilterChain;
use policy::http_filter::FilterConfig;
use policy::limits;
use policy::network_filter::NetworkFilter;
use policy::peer::{Peer, SpiffeId};
use policy::rbac::{Facts, Rbac, Verdict};
use policy::route::RouteScratch;
use prost::Message as _;
use proto::ads;
use proto::pb::envoy::config::listener::v3::Listener;
use serde::{Deserialize, Serialize};
use wire::head::{Method, RequestHead, RequestView};
use wire::http1::parse::{self, Limits, Parsed};
use wire::path;

use crate::compile::{self, Client, Sidecar};
use crate::document::{Object, ObjectKey, PortOrName, RINGWAY_GROUP};
use crate::model::{Name, Protocol};
use crate::world::World;

/// As a proxy has them if nobody says otherwise.
const LIMITS: Limits = Limits {
    head_bytes_max: limits::REQUEST_HEAD_BYTES_MAX,
    headers_count_max: limits::HEADERS_COUNT_DEFAULT,
    target_bytes_max: limits::REQUEST_HEAD_BYTES_MAX,
};

/// A call that somebody wants to make.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Who calls.
    pub from: SpiffeId,
    /// From where.
    pub address: IpAddr,
    /// The service whose workload is called.
    pub to: Name,
    /// The application's port; its first one if nobody says.
    pub port: Option<u16>,
    /// What is asked, if the application speaks HTTP.
    pub request: CallRequest,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct CallRequest {
    /// The method.
    pub method: String,
    /// The path, with or without a query.
    pub path: String,
    /// The host; `<service>.<namespace>.mesh` if nobody says.
    pub host: Option<String>,
    /// Headers.
    pub headers: Vec<(String, String)>,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Who was asked about.
    pub from: String,
    /// `namespace/service`.
    pub to: String,
    /// The application's port.
    pub port: u16,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The rule that decides; there is none where nothing forbids it, or nothing allows it.
    pub rule: Option<DecidingRule>,
    /// What policies that are only tried would do instead, if they differ.
    pub audit: Option<AuditAnswer>,
    /// The path that rules see, where that is another than what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidingRule {
    /// `namespace/name` of the AuthorizationPolicy.
    pub policy: String,
    /// Which of `spec.rules`, from 0.
    pub index: usize,
    /// `file:line:column` of the rule.
    pub origin: String,
}

/// What policies that are only tried would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditAnswer {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// By which rule.
    pub rule: Option<DecidingRule>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotTell {
    /// Nobody is called.
    #[error("there is no service {0}; `ringway status --documents` lists what there is")]
    NoService(Name),
    /// The request is none.
    #[error("this is no request: {0}")]
    NoRequest(String),
    /// Proxies would not take what they are sent. It is a fault of the control plane.
    #[error("a proxy would refuse its listener: {0}")]
    Refused(String),
}

/// Whether `call` is allowed in `world`, for identities that begin with `trust_domain`.
pub fn answer(world: &World, trust_domain: &str, call: &Call) -> Result<Answer, CannotTell> {
    let sidecar = stand_in(world, trust_domain, call)?;
    let view = world.compile(&Client::Sidecar(sidecar.clone()));
    // A stand-in has no outbound side.
    let listener = view.listeners.values().next().ok_or(CannotTell::Refused("there is none".to_owned()))?;
    let any = ads::Any::decode(&*listener.bytes).map_err(|error| CannotTell::Refused(error.to_string()))?;
    let message = Listener::decode(&*any.value).map_err(|error| CannotTell::Refused(error.to_string()))?;
    let translated = translate::listener::translate(&message, translate::Origin::Dynamic)
        .map_err(|rejected| CannotTell::Refused(rejected.to_string()))?;
    let chain = translated.value.filter_chains.iter().next();
    let chain = chain.ok_or(CannotTell::Refused("it has no filter chain".to_owned()))?;
    let asked = Asked::of(call, chain)?;
    let (decisions, is_http) = asked.decisions(call, &sidecar, chain);

    let rule = |verdict: &Verdict<'_>| verdict.policy.and_then(|name| deciding_rule(world, name));
    let denied = decisions.iter().find(|of| !of.is_allowed());
    let enforced = denied.or(decisions.last()).and_then(|of| of.enforced);
    let shadow_denied = decisions.iter().filter_map(|of| of.shadow).find(|verdict| !verdict.is_allowed());
    let allowed = denied.is_none();
    let rule_of = enforced.as_ref().and_then(rule);
    let reason = match (allowed, &rule_of) {
        (true, Some(_)) => "a rule allows it",
        (true, None) => "no policy is about it, or none forbids it",
        (false, Some(_)) => "a rule denies it",
        (false, None) => "there are policies that allow, and none of them allows this",
    };
    let audit = shadow_denied
        .filter(|_| allowed)
        .map(|verdict| AuditAnswer { allowed: verdict.is_allowed(), rule: rule(&verdict) });
    Ok(Answer {
        allowed,
        from: call.from.to_string(),
        to: call.to.to_string(),
        port: sidecar.app.port(),
        protocol: if is_http { "http" } else { "tcp" }.to_owned(),
        reason: reason.to_owned(),
        rule: rule_of,
        audit,
        path: asked.path().filter(|path| is_http && *path != call.request.path),
    })
}

/// A sidecar as one before a workload of the service is, or would be.
fn stand_in(world: &World, trust_domain: &str, call: &Call) -> Result<Sidecar, CannotTell> {
    let is_wanted = |port: u16| call.port.is_none_or(|wanted| wanted == port);
    let registrations = world.registrations.values();
    let of_service =
        registrations.filter(|of| of.namespace == *call.to.namespace && of.service == *call.to.name);
    let registered = of_service.min_by_key(|of| (!is_wanted(of.port), of.address));
    let (port, protocol) = match registered {
        Some(of) => (of.port, of.app_protocol.clone()),
        None => {
            let mut ports = declared(world, &call.to);
            ports.sort_by_key(|(port, _)| !is_wanted(*port));
            let first = ports.into_iter().next();
            let (port, protocol) = first.ok_or_else(|| CannotTell::NoService(call.to.clone()))?;
            (port, protocol_name(protocol).to_owned())
        }
    };
    let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    Ok(Sidecar {
        namespace: call.to.namespace.to_string(),
        service: call.to.name.to_string(),
        instance: "asked".to_owned(),
        inbound: local(1),
        app: local(call.port.unwrap_or(port)),
        app_protocol: protocol,
        identity: SpiffeId::parse(&compile::identity(trust_domain, &call.to)).ok(),
        outbound: None,
        to: Vec::new(),
    })
}

/// The ports of the application behind each port of a service, and what they carry.
fn declared(world: &World, service: &Name) -> Vec<(u16, Protocol)> {
    let of_model = world.model.services.get(service).map(|service| &*service.ports).unwrap_or_default();
    let document = world.documents.objects.get(&key_of("", "Service", service));
    let spec = document.and_then(|document| match &document.object {
        Object::Service(service) => Some(&service.spec),
        _ => None,
    });
    let target = |port: u16| {
        let port = spec?.ports.iter().find(|of| of.port.get() == port)?;
        match port.target_port.as_ref()? {
            PortOrName::Port(number) => Some(number.get()),
            PortOrName::Name(_) => None,
        }
    };
    of_model.iter().map(|of| (target(of.port).unwrap_or(of.port), of.protocol)).collect()
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http | Protocol::Http1 => "http",
        Protocol::Http2 => "http2",
        Protocol::Tcp => "tcp",
    }
}

/// A request as the proxy has it when rules are asked.
struct Asked {
    head: RequestHead,
    bytes: Vec<u8>,
}

impl Asked {
    fn of(call: &Call, chain: &FilterChain) -> Result<Asked, CannotTell> {
        let CallRequest { method, path, host, headers } = &call.request;
        let own = format!("{}.{}.mesh", call.to.name, call.to.namespace);
        let host = host.as_deref().unwrap_or(&own);
        let target = if method == "CONNECT" { host } else { path };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n").into_bytes();
        let mut head = RequestHead::default();
        let no_request = |error: &dyn std::fmt::Display| CannotTell::NoRequest(error.to_string());
        let parsed = parse::request(&bytes, &LIMITS, &mut head).map_err(|error| no_request(&error))?;
        if parsed != Parsed::Complete || head.end as usize != bytes.len() {
            return Err(no_request(&"a line ends within the method, the path, the host or a header"));
        }
        if let NetworkFilter::HttpConnectionManager(manager) = &chain.filter
            && head.method != Method::Connect
        {
            path::normalize(&mut head, &mut bytes, manager.path_normalization).map_err(|e| no_request(&e))?;
        }
        Ok(Asked { head, bytes })
    }

    fn view(&self) -> RequestView<'_> {
        RequestView { head: &self.head, bytes: &self.bytes }
    }

    fn path(&self) -> Option<String> {
        let target = self.head.path.of(&self.bytes);
        Some(String::from_utf8_lossy(target).into_owned())
    }

    /// What each filter says, in order, and whether they were asked about a request.
    fn decisions<'c>(
        &self,
        call: &Call,
        sidecar: &Sidecar,
        chain: &'c FilterChain,
    ) -> (Vec<policy::rbac::Decision<'c>>, bool) {
        let peer = Peer {
            uri_sans: vec![call.from.as_str().into()],
            spiffe: Some(call.from.clone()),
            dns_sans: Vec::new(),
            subject: "".into(),
            fingerprint: [0; 32],
        };
        let mut facts = Facts {
            peer: Some(&peer),
            direct_remote: call.address,
            remote: SocketAddr::new(call.address, 0),
            local: sidecar.inbound,
            server_name: "",
            request: None,
        };
        let mut scratch = RouteScratch::default();
        let of_connection: Vec<&Rbac> = chain.rbac.iter().map(|filter| &filter.rbac).collect();
        let (rbac, is_http) = match &chain.filter {
            NetworkFilter::HttpConnectionManager(manager) => {
                facts.request = Some((self.view(), manager.forwarded));
                let configs = manager.http_filters.iter().filter_map(|filter| filter.config_for(None));
                let rbac = configs.map(|FilterConfig::Rbac(rbac)| &**rbac).collect();
                (rbac, true)
            }
            NetworkFilter::TcpProxy(_) => (of_connection, false),
        };
        (rbac.into_iter().map(|rbac| rbac.decide(&facts, &mut scratch)).collect(), is_http)
    }
}

fn key_of(group: &str, kind: &str, name: &Name) -> ObjectKey {
    ObjectKey {
        group: group.into(),
        kind: kind.into(),
        namespace: Arc::clone(&name.namespace),
        name: Arc::clone(&name.name),
    }
}

fn deciding_rule(world: &World, name: &str) -> Option<DecidingRule> {
    let (policy, index) = compile::rule_of_name(name)?;
    let key = key_of(RINGWAY_GROUP, "AuthorizationPolicy", &policy);
    let origin = world.documents.objects.get(&key).and_then(|document| document.rules.get(index));
    Some(DecidingRule {
        policy: policy.to_string(),
        index,
        origin: origin.map(ToString::to_string).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::compile::Shared;
    use crate::document::{Documents, parse};
    use crate::model::{self, Registrations};
    use crate::world::Trail;

    fn world(text: &str) -> World {
        let mut documents = Documents::default();
        for document in parse(&"mesh.yaml".into(), text) {
            let document = document.unwrap();
            documents.objects.insert(document.key.clone(), document.into());
        }
        let registrations = Registrations::new();
        let (model, conditions) = model::build(&documents, &registrations, compile::refusal);
        World {
            sequence: 1,
            revision: "r1".into(),
            documents: documents.into(),
            registrations: registrations.into(),
            model,
            shared: Shared::default(),
            conditions,
            since: Instant::now(),
            revision_since: SystemTime::now(),
            trail: Trail::start(1),
        }
    }

    const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{port: 5432, appProtocol: tcp}]}
---
";

    const POLICIES: &str = "
apiVersion: ringway.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: orders}, {kind: Service, name: db}]
  action: ALLOW
  rules:
  - sources: [{type: ServiceAccount, serviceAccount: {name: web}}]
  - sources: [{type: ServiceAccount, serviceAccount: {name: '*', namespace: ops}}]
    httpAttributes: {methods: [GET]}
---
apiVersion: ringway.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: orders}]
  action: DENY
  rules:
  - httpAttributes: {paths: [{type: Exact, value: /admin}], headers: [{name: x-break, value: 'no'}]}
  - httpAttributes: {paths: [{type: PathPrefix, value: /admin}]}
";

    fn ask(world: &World, from: &str, to: &str, method: &str, path: &str) -> Result<Answer, CannotTell> {
        let identity = SpiffeId::parse(&format!("spiffe://mesh.local/ns/{from}")).unwrap();
        let call = Call {
            from: identity,
            address: Ipv4Addr::LOCALHOST.into(),
            to: Name::new("shop", to),
            port: None,
            request: CallRequest {
                method: method.into(),
                path: path.into(),
                host: None,
                headers: Vec::new(),
            },
        };
        answer(world, "mesh.local", &call)
    }

    #[test]
    fn a_call_is_judged_as_its_proxy_would() {
        let world = world(&format!("{SERVICES}{POLICIES}"));
        // Policies begin at the 13th line.
        let table = [
            ("shop/sa/web", "orders", "POST /v1", "allowed callers 0 mesh.yaml:20:5"),
            ("shop/sa/web", "orders", "GET /admin", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /admin/x", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /administrators", "allowed callers 0 mesh.yaml:20:5"),
            ("shop/sa/web", "orders", "GET /a/../admin", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET //admin", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /%61dmin", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /x%2f..%2fadmin", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /admin;a=b", "denied no-admin 1 mesh.yaml:32:5"),
            ("shop/sa/web", "orders", "GET /admin?a=b", "denied no-admin 1 mesh.yaml:32:5"),
            ("ops/sa/any", "orders", "GET /v1", "allowed callers 1 mesh.yaml:21:5"),
            ("ops/sa/any", "orders", "POST /v1", "denied"),
            ("shop/sa/webs", "orders", "GET /v1", "denied"),
            ("other/sa/web", "orders", "GET /v1", "denied"),
            ("shop/sa/web", "db", "GET /", "allowed callers 0 mesh.yaml:20:5"),
            // Which of its connections carry only GET nobody knows.
            ("ops/sa/any", "db", "GET /", "denied"),
        ];
        for (from, to, request, wanted) in table {
            let (method, path) = request.split_once(' ').unwrap();
            let answer = ask(&world, from, to, method, path).unwrap();
            let mut told = if answer.allowed { "allowed" } else { "denied" }.to_owned();
            if let Some(DecidingRule { policy, index, origin }) = &answer.rule {
                told += &format!(" {} {index} {origin}", policy.strip_prefix("shop/").unwrap());
            }
            assert_eq!(told, wanted, "{from} {to} {request}");
        }
    }

    #[test]
    fn without_policies_everybody_may_do_everything() {
        let answer = ask(&world(SERVICES), "any/sa/body", "orders", "GET", "/").unwrap();
        assert_eq!((answer.allowed, answer.rule, answer.port), (true, None, 8080));
    }

    #[test]
    fn what_is_only_tried_is_told_beside() {
        let tried = POLICIES.replace("action: ALLOW", "action: ALLOW\n  enforcement: Audit");
        let world = world(&format!("{SERVICES}{tried}"));
        let answer = ask(&world, "other/sa/web", "orders", "GET", "/").unwrap();
        assert_eq!((answer.allowed, answer.audit), (true, Some(AuditAnswer { allowed: false, rule: None })));
        let answer = ask(&world, "shop/sa/web", "orders", "GET", "/").unwrap();
        assert_eq!((answer.allowed, answer.audit), (true, None));
    }

    #[test]
    fn what_is_no_call_has_no_answer() {
        let world = world(SERVICES);
        assert_eq!(
            ask(&world, "a/sa/b", "none", "GET", "/"),
            Err(CannotTell::NoService(Name::new("shop", "none")))
        );
        for (method, path) in
            [("GET", "/a b"), ("G T", "/"), ("GET", "/\r\nx: y"), ("GET", "/%00"), ("", "/")]
        {
            let answer = ask(&world, "a/sa/b", "orders", method, path);
            assert!(matches!(answer, Err(CannotTell::NoRequest(_))), "{method:?} {path:?}: {answer:?}");
        }
    }
}
