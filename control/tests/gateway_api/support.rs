//! A mesh of documents that can be asked what becomes of a request.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proto::ads;
use ringway::compile::{Client, GatewayClient, ResourceType, Shared, Sidecar, View, compile, refusal};
use ringway::conditions::Conditions;
use ringway::document::{Documents, parse};
use ringway::model::{self, Registrations};
use serde_json::Value;
use translate::assemble::Update;
use wire::head::{RequestHead, RequestView};
use wire::http1::parse::{Limits, Parsed, request};

/// Services `v1`, `v2`, `v3` in namespace `infra`, `web` in namespace `web`, and Gateways `edge` (port 80) and
/// `high` (port 8080) in `infra` that take routes of their namespace.
pub(crate) const BASE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: v1, namespace: infra}, spec: {ports: [{port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: v2, namespace: infra}, spec: {ports: [{port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: v3, namespace: infra}, spec: {ports: [{port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: web}, spec: {ports: [{port: 8080}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec: {gatewayClassName: ringway, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: high, namespace: infra}
spec: {gatewayClassName: ringway, listeners: [{name: http, port: 8080, protocol: HTTP}]}
";

/// An HTTPRoute of namespace `infra` at Gateway `edge`: its name and the rest of its `spec`.
pub(crate) fn route(name: &str, spec: &str) -> String {
    route_at(name, "{name: edge}", spec)
}

/// An HTTPRoute of namespace `infra` with this parent.
pub(crate) fn route_at(name: &str, parent: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: infra}}\nspec:\n  parentRefs: [{parent}]\n  {spec}\n"
    )
}

/// A GRPCRoute of namespace `infra` at Gateway `edge`: its name and the rest of its `spec`.
pub(crate) fn grpc_route(name: &str, spec: &str) -> String {
    grpc_route_at(name, "{name: edge}", spec)
}

/// A GRPCRoute of namespace `infra` with this parent.
pub(crate) fn grpc_route_at(name: &str, parent: &str, spec: &str) -> String {
    route_at(name, parent, spec).replace("kind: HTTPRoute", "kind: GRPCRoute")
}

/// Documents with what they mean.
pub(crate) struct Mesh {
    model: model::Model,
    pub(crate) conditions: Conditions,
}

impl Mesh {
    /// [`BASE`] and `documents`, all of which must be readable.
    pub(crate) fn new(documents: &str) -> Self {
        let mut set = Documents::default();
        for document in parse(&"mesh.yaml".into(), &format!("{BASE}---\n{documents}")) {
            let document = document.unwrap_or_else(|error| panic!("{error}"));
            let before = set.objects.insert(document.key.clone(), document.into());
            assert!(before.is_none(), "the same object twice");
        }
        let (model, conditions) = model::build(&set, &Registrations::new(), refusal);
        Self { model, conditions }
    }

    /// What becomes of each of `asked` at a Gateway of `infra`.
    pub(crate) fn expect(&self, gateway: &str, port: u16, asked: &[(&str, &str)]) {
        let routes = Routes::of_gateway(&self.gateway(gateway), gateway, port);
        let wrong: Vec<_> = asked
            .iter()
            .map(|(request, expected)| (*request, *expected, routes.ask(request, 0)))
            .filter(|(_, expected, answer)| expected != answer)
            .collect();
        assert!(wrong.is_empty(), "(request, expected, answer): {wrong:#?}");
    }

    /// How many in a thousand requests have each fate.
    pub(crate) fn shares(&self, gateway: &str, port: u16, request: &str) -> BTreeMap<String, u32> {
        let routes = Routes::of_gateway(&self.gateway(gateway), gateway, port);
        let mut shares = BTreeMap::new();
        // A full-period multiplicative sequence: every share comes out the same on every run.
        let randoms = (1..=100_000u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8);
        for random in randoms {
            *shares.entry(routes.ask(request, random)).or_insert(0u32) += 1;
        }
        shares.into_iter().map(|(answer, count)| (answer, (count + 50) / 100)).collect()
    }

    /// What becomes of requests of an application in `namespace` through its sidecar.
    pub(crate) fn sidecar(&self, namespace: &str) -> Routes {
        Routes::of(&self.sidecar_view(namespace), &format!("outbound|http|{namespace}"))
    }

    /// Whether a sidecar speaks HTTP/2 to a cluster, if it has that.
    pub(crate) fn speaks_http2_in_sidecar(&self, cluster: &str) -> Option<bool> {
        speaks_http2(&self.sidecar_view("infra"), cluster)
    }

    /// The same of a Gateway of `infra`.
    pub(crate) fn speaks_http2_at_gateway(&self, gateway: &str, cluster: &str) -> Option<bool> {
        speaks_http2(&self.gateway(gateway), cluster)
    }

    fn sidecar_view(&self, namespace: &str) -> View {
        let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let sidecar = Client::Sidecar(Sidecar {
            namespace: namespace.to_owned(),
            service: "app".to_owned(),
            instance: "app-1".to_owned(),
            inbound: address(1),
            app: address(2),
            app_protocol: String::new(),
            outbound: Some(address(3)),
            to: Vec::new(),
            identity: None,
        });
        compile(&self.model, &Shared::default(), &sidecar)
    }

    fn gateway(&self, name: &str) -> View {
        let client = GatewayClient {
            namespace: "infra".to_owned(),
            name: name.to_owned(),
            bind: std::net::Ipv4Addr::LOCALHOST.into(),
            identity: None,
        };
        compile(&self.model, &Shared::default(), &Client::Gateway(client))
    }

    /// The status of an object: `KIND NAMESPACE/NAME`.
    pub(crate) fn status(&self, object: &str) -> &Value {
        let found = self.conditions.objects.iter().find(|(key, _)| key.to_string() == object);
        found.unwrap_or_else(|| panic!("no {object}")).1
    }

    /// The conditions of a route at its parents, in order: `Accepted=True/Accepted ResolvedRefs=…`.
    pub(crate) fn route_conditions(&self, route: &str) -> Vec<String> {
        let parents = self.status(route)["parents"].as_array().cloned().unwrap_or_default();
        parents.iter().map(conditions).collect()
    }

    /// The conditions of a listener, and how many routes are attached.
    pub(crate) fn listener(&self, gateway: &str, listener: &str) -> (String, u64) {
        let listeners = self.status(gateway)["listeners"].as_array().cloned().unwrap_or_default();
        let listener = listeners.iter().find(|status| status["name"] == listener).unwrap();
        (conditions(listener), listener["attachedRoutes"].as_u64().unwrap())
    }
}

/// `Type=Status/Reason` of each condition.
pub(crate) fn conditions(of: &Value) -> String {
    let mut text = String::new();
    for condition in of["conditions"].as_array().unwrap() {
        let field = |name: &str| condition[name].as_str().unwrap().to_owned();
        write!(text, "{}={}/{} ", field("type"), field("status"), field("reason")).unwrap();
    }
    text.trim_end().to_owned()
}

fn speaks_http2(view: &View, cluster: &str) -> Option<bool> {
    match translated(proto::type_url::CLUSTER, view.clusters.get(cluster)?) {
        Update::Cluster(accepted) => {
            Some(accepted.value.protocol == policy::cluster::UpstreamProtocol::Http2)
        }
        other => panic!("the cluster became {other:?}"),
    }
}

/// A route table as the proxy has it.
pub(crate) struct Routes {
    table: std::sync::Arc<policy::route::RouteTable>,
}

impl Routes {
    fn of_gateway(view: &View, gateway: &str, port: u16) -> Self {
        Self::of(view, &format!("gateway|infra/{gateway}|{port}"))
    }

    fn of(view: &View, name: &str) -> Self {
        // Everything the client gets must be to the proxy's liking.
        for kind in ResourceType::ALL {
            for resource in view.of(kind).values() {
                translated(kind.type_url(), resource);
            }
        }
        let resource = &view.routes[name];
        match translated(proto::type_url::ROUTE_CONFIGURATION, resource) {
            Update::RouteTable(accepted) => Self { table: std::sync::Arc::clone(&accepted.value.value) },
            other => panic!("{name} became {other:?}"),
        }
    }

    /// What becomes of `METHOD HOST/PATH NAME=VALUE…` (headers): the service it goes to with the changes that are
    /// made on the way, or the status with the location.
    pub(crate) fn ask(&self, asked: &str, random: u64) -> String {
        let mut words = asked.split(' ');
        let (method, url) = (words.next().unwrap(), words.next().unwrap());
        let (host, path) = url.split_at(url.find('/').unwrap());
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in words.map(|header| header.split_once('=').unwrap()) {
            write!(text, "{name}: {value}\r\n").unwrap();
        }
        text.push_str("\r\n");
        let limits = Limits { head_bytes_max: 8192, headers_count_max: 64, target_bytes_max: 4096 };
        let mut head = RequestHead::default();
        assert_eq!(request(text.as_bytes(), &limits, &mut head), Ok(Parsed::Complete));
        self.fate(&RequestView { head: &head, bytes: text.as_bytes() }, random)
    }

    fn fate(&self, request: &RequestView<'_>, random: u64) -> String {
        use policy::route::{HostRewrite, RouteAction};
        let mut scratch = policy::route::RouteScratch::default();
        let Some(route) = self.table.pick(request, &mut scratch, random) else { return "404".to_owned() };
        let mut out = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        match &route.action {
            RouteAction::DirectResponse(answer) => answer.status.to_string(),
            RouteAction::Redirect(redirect) => {
                redirect.location(&route.matches.path, request, "http", &mut scratch, &mut out).unwrap();
                format!("{} {}", redirect.status, text(&out)) + &edits(&route.response_headers)
            }
            RouteAction::Forward(forward) => {
                let target = forward.target(random);
                // `outbound|PORT|SERVICE.NAMESPACE`
                let service = target.cluster.rsplit('|').next().unwrap();
                let mut fate = service.strip_suffix(".infra").unwrap_or(service).to_owned();
                if forward.rewrite_target(&route.matches.path, request, &mut scratch, &mut out).unwrap() {
                    write!(fate, " {}", text(&out)).unwrap();
                }
                if let Some(HostRewrite::Literal(host)) = forward.host_rewrite_of(target) {
                    write!(fate, " host={}", text(host)).unwrap();
                }
                if let Some(timeout) = forward.timeout {
                    write!(fate, " within={timeout:?}").unwrap();
                }
                fate += &edits(&target.request_headers);
                let response = edits(&target.response_headers);
                if !response.is_empty() {
                    write!(fate, " answer{response}").unwrap();
                }
                fate
            }
        }
    }
}

/// ` +name=value` for each line that is added, ` -name` for each that is removed first.
fn edits(edits: &policy::route::HeaderEdits) -> String {
    let mut text = String::new();
    edits.for_each(
        |_| true,
        |edit| match edit {
            policy::route::Edit::Remove(name) => write!(text, " -{name}").unwrap(),
            policy::route::Edit::Add(name, value) => {
                write!(text, " +{name}={}", String::from_utf8_lossy(value)).unwrap();
            }
        },
    );
    text
}

fn translated(type_url: &str, resource: &ringway::compile::Resource) -> Update {
    let body = prost::Message::decode(&resource.bytes[..]).unwrap();
    let resource = ads::Resource {
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        resource: Some(body),
    };
    translate::resource(type_url, &resource).unwrap_or_else(|refused| panic!("{refused}"))
}

impl Mesh {
    /// The clusters that a TCP port of a Gateway of `infra` leads to.
    pub(crate) fn tcp_clusters(&self, gateway: &str, port: u16) -> Vec<String> {
        let view = self.gateway(gateway);
        let listener = &view.listeners[format!("gateway|infra/{gateway}|{port}").as_str()];
        match translated(proto::type_url::LISTENER, listener) {
            Update::Listener(accepted) => accepted.value.clusters.iter().map(ToString::to_string).collect(),
            other => panic!("the listener became {other:?}"),
        }
    }
}
