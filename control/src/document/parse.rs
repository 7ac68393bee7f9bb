//! From the text of a file to its documents. Each document stands for itself: one that is wrong says where, and the
//! others of the file are read.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::meta::unused_fields;
use super::validate::{Violation, validate};
use super::{
    DEFAULT_NAMESPACE, Document, DocumentError, GATEWAY_GROUP, NotUsed, Object, ObjectKey, Origin,
    RINGWAY_GROUP,
};

/// Every document of a file, in order. `file` is only its name.
pub fn parse(file: &Arc<str>, text: &str) -> Vec<Result<Document, Box<DocumentError>>> {
    split(text).into_iter().map(|part| Reader { file, part }.document()).collect()
}

/// The text of one document and where in its file it starts.
struct Part<'a> {
    /// Lines before it in the file.
    lines_before: u32,
    text: &'a str,
}

/// Splits at the lines that begin with `---`, which YAML allows nowhere inside a document.
fn split(text: &str) -> Vec<Part<'_>> {
    let mut starts = vec![(0u32, 0)];
    let mut offset = 0;
    for (number, line) in (0u32..).zip(text.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t']));
        if marker && offset > 0 {
            starts.push((number, offset));
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).map(|(_, start)| *start).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&(lines_before, start), end)| Part { lines_before, text: &text[start..end] })
        .filter(|part| !part.is_empty())
        .collect()
}

impl Part<'_> {
    /// Only comments and markers.
    fn is_empty(&self) -> bool {
        self.text.lines().all(|line| {
            let line = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
            line.is_empty() || line.starts_with('#')
        })
    }

    /// Line of the first word, counted from 1 in the file.
    fn first_line(&self) -> u64 {
        let blank = self.text.lines().take_while(|line| {
            let line = line.strip_prefix("---").unwrap_or(line).trim();
            line.is_empty() || line.starts_with('#')
        });
        u64::from(self.lines_before) + blank.count() as u64 + 1
    }
}

/// What is read first: enough to know which object it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
    metadata: HeaderMetadata,
}

#[derive(Deserialize)]
struct HeaderMetadata {
    name: String,
    namespace: Option<String>,
}

struct Reader<'a> {
    file: &'a Arc<str>,
    part: Part<'a>,
}

impl Reader<'_> {
    fn document(&self) -> Result<Document, Box<DocumentError>> {
        let header: Header = self.typed(None)?;
        let (group, _) = header.api_version.split_once('/').unwrap_or(("", &header.api_version));
        let namespace = match (group, header.kind.as_str()) {
            (GATEWAY_GROUP, "GatewayClass") | ("", "Namespace") => "",
            _ => header.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
        };
        let key = ObjectKey {
            group: group.into(),
            kind: header.kind.as_str().into(),
            namespace: namespace.into(),
            name: header.metadata.name.as_str().into(),
        };
        let version = header.api_version.rsplit('/').next().unwrap_or_default();
        if let Some(known) = versions(group)
            && !known.contains(&version)
        {
            let reason =
                format!("version `{version}` of {} is not known, expected {}", header.kind, known.join(", "));
            return Err(self.refusal(Some(&key), "apiVersion", reason));
        }
        let (object, unused) = match (group, header.kind.as_str()) {
            (GATEWAY_GROUP, "GatewayClass") => self.object(&key, Object::GatewayClass),
            (GATEWAY_GROUP, "Gateway") => self.object(&key, Object::Gateway),
            (GATEWAY_GROUP, "HTTPRoute") => self.object(&key, Object::HttpRoute),
            (GATEWAY_GROUP, "GRPCRoute") => self.object(&key, Object::GrpcRoute),
            (GATEWAY_GROUP, "TCPRoute") => self.object(&key, Object::TcpRoute),
            (GATEWAY_GROUP, "TLSRoute") => self.object(&key, Object::TlsRoute),
            (GATEWAY_GROUP, "BackendTLSPolicy") => self.object(&key, Object::BackendTlsPolicy),
            (GATEWAY_GROUP, "ReferenceGrant") => self.object(&key, Object::ReferenceGrant),
            ("", "Namespace") => self.object(&key, Object::Namespace),
            ("", "Secret") => self.object(&key, Object::Secret),
            ("", "ConfigMap") => self.object(&key, Object::ConfigMap),
            ("", "Service") => self.object(&key, Object::Service),
            ("discovery.k8s.io", "EndpointSlice") => self.object(&key, Object::EndpointSlice),
            (RINGWAY_GROUP, "Workload") => self.object(&key, Object::Workload),
            (RINGWAY_GROUP, "AuthorizationPolicy") => self.object(&key, Object::AuthorizationPolicy),
            (RINGWAY_GROUP, "PeerAuthentication") => self.object(&key, Object::PeerAuthentication),
            _ if is_not_used(&key) => {
                self.typed::<NotUsed>(Some(&key)).map(|object| (Object::NotUsed(object), Vec::new()))
            }
            _ => Err(self.refusal(
                Some(&key),
                "kind",
                format!(
                    "kind `{}` of `{}` is not known; `ringway reference` lists those that are",
                    header.kind, header.api_version
                ),
            )),
        }?;
        if let Err(Violation { path, reason }) = validate(&object) {
            return Err(self.refusal(Some(&key), &path, format!("{path}: {reason}")));
        }
        let origin = self.origin(self.part.first_line(), 1);
        let rules = match &object {
            Object::AuthorizationPolicy(_) => self.places("spec.rules"),
            _ => Vec::new(),
        };
        Ok(Document { key, origin, object, unused, rules })
    }

    fn object<T: DeserializeOwned + Serialize>(
        &self,
        key: &ObjectKey,
        wrap: fn(T) -> Object,
    ) -> Result<(Object, Vec<super::UnusedField>), Box<DocumentError>> {
        let object: T = self.typed(Some(key))?;
        let mut unused = unused_fields(&object);
        for field in &mut unused {
            field.at.line += self.part.lines_before;
        }
        Ok((wrap(object), unused))
    }

    fn typed<T: DeserializeOwned>(&self, key: Option<&ObjectKey>) -> Result<T, Box<DocumentError>> {
        serde_saphyr::from_str(self.part.text).map_err(|error| {
            let error = error.without_snippet();
            let origin = match error.location() {
                Some(at) => self.origin(u64::from(self.part.lines_before) + at.line(), at.column()),
                None => self.origin(self.part.first_line(), 1),
            };
            refused(origin, key, plain(&error.to_string()))
        })
    }

    fn refusal(&self, key: Option<&ObjectKey>, path: &str, reason: String) -> Box<DocumentError> {
        let origin = match super::locate::locate(self.part.text, path) {
            Some((line, column)) => self.origin(u64::from(self.part.lines_before) + line, column),
            None => self.origin(self.part.first_line(), 1),
        };
        refused(origin, key, reason)
    }

    /// Where each element of a list starts.
    fn places(&self, list: &str) -> Vec<Origin> {
        let places = super::locate::elements(self.part.text, list).into_iter();
        places.map(|(line, column)| self.origin(u64::from(self.part.lines_before) + line, column)).collect()
    }

    fn origin(&self, line: u64, column: u64) -> Origin {
        Origin { file: Arc::clone(self.file), line, column }
    }
}

fn refused(origin: Origin, key: Option<&ObjectKey>, reason: String) -> Box<DocumentError> {
    Box::new(DocumentError { origin, key: key.cloned(), reason, last_good_serves: false })
}

/// The versions of an API group whose kinds we read. They do not differ in what we read.
fn versions(group: &str) -> Option<&'static [&'static str]> {
    match group {
        "" | "discovery.k8s.io" => Some(&["v1"]),
        GATEWAY_GROUP => Some(&["v1", "v1beta1", "v1alpha2", "v1alpha3"]),
        RINGWAY_GROUP => Some(&["v1alpha1"]),
        _ => None,
    }
}

/// Kinds that are accepted though nothing is done with them: those of a later version, and Kubernetes' own, which
/// stand beside ours in many a directory.
fn is_not_used(key: &ObjectKey) -> bool {
    match &*key.group {
        GATEWAY_GROUP => {
            matches!(&*key.kind, "UDPRoute" | "ListenerSet")
        }
        "gateway.networking.x-k8s.io" => true,
        RINGWAY_GROUP => matches!(
            &*key.kind,
            "BackendPolicy" | "TrafficPolicy" | "MeshScope" | "ProxyPolicy" | "WorkloadGroup"
        ),
        "" => {
            matches!(&*key.kind, "ServiceAccount" | "Pod" | "PersistentVolumeClaim")
        }
        "apps" | "batch" | "autoscaling" | "policy" | "networking.k8s.io" | "rbac.authorization.k8s.io" => {
            true
        }
        _ => false,
    }
}

/// The message without the place, which the origin tells.
fn plain(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(reason, _)| reason).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<Document, Box<DocumentError>>> {
        parse(&"mesh.yaml".into(), text)
    }

    #[test]
    fn each_document_of_a_file_stands_for_itself() {
        let text = "\
# a comment before everything
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 80}]}
---
this is: [not closed
---
# only a comment
--- # with a comment
kind: Service
apiVersion: v1
metadata: {name: b, namespace: shop}
spec: {ports: [{port: 81}]}
...
";
        let read = read(text);
        let shown: Vec<String> = read
            .iter()
            .map(|document| match document {
                Ok(document) => format!("{} at {}", document.key, document.origin),
                Err(error) => error.to_string(),
            })
            .collect();
        let expected = [
            "Service default/a at mesh.yaml:3:1",
            "mesh.yaml:8:10: unclosed bracket '['",
            "Service shop/b at mesh.yaml:12:1",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_explicit_null_counts_as_absent() {
        // As Kubernetes writes a slice without endpoints, and as people leave a field open.
        let cases = [
            (
                "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, labels: null, \
                 creationTimestamp: null}, addressType: IPv4, endpoints: null, ports: null}",
                "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4}",
            ),
            (
                "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: null, clusterIP: null, \
                 ports: [{port: 80, protocol: null, targetPort: null}]}, status: null}",
                "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}",
            ),
            (
                "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}, spec: {infrastructure: null, \
                 gatewayClassName: c, listeners: [{name: b, port: 1, protocol: TCP, hostname: null, allowedRoutes: null}]}}",
                "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: a}, spec: {\
                 gatewayClassName: c, listeners: [{name: b, port: 1, protocol: TCP}]}}",
            ),
            (
                "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}, spec: {parentRefs: null, \
                 hostnames: null, rules: [{matches: null, filters: null, backendRefs: null, timeouts: null}]}}",
                "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}, spec: {rules: [{}]}}",
            ),
        ];
        for (null, absent) in cases {
            let object = |text| read(text).remove(0).map(|document| document.object);
            assert_eq!(object(null), object(absent), "{null}");
            assert!(object(null).is_ok(), "{null}: {:?}", object(null));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_column() {
        let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\nspec:\n";
        let grpc = route.replace("HTTPRoute", "GRPCRoute");
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n";
        let cases = [
            (format!("{route}  rules:\n  - nme: x\n"), "mesh.yaml:6:5: unknown field `nme`, expected one of"),
            (
                format!("{service}  ports: [{{port: 70000}}]\n"),
                "mesh.yaml:5:18: 70000 is not a port, which is 1 to 65535",
            ),
            (format!("{service}  ports: []\n"), "mesh.yaml:5:10: spec.ports: a Service needs a port"),
            (
                format!("{route}  hostnames: [a.example, 'B.example']\n"),
                "mesh.yaml:5:26: spec.hostnames[1]: ",
            ),
            (
                format!("{route}  rules: [{{timeouts: {{request: 1x}}}}]\n"),
                "mesh.yaml:5:32: `1x` is not a duration",
            ),
            (format!("{route}  rules: []\n  rules: []\n"), "mesh.yaml:6:3: duplicate mapping key"),
            (
                format!("{route}  rules:\n  - filters:\n    - type: URLRewrite\n"),
                "mesh.yaml:7:7: spec.rules[0].filters[0]: type URLRewrite needs `urlRewrite`",
            ),
            (
                format!("{route}  rules:\n  - matches:\n    - path: {{value: a}}\n"),
                "mesh.yaml:7:21: spec.rules[0].matches[0].path.value: `a` does not start with `/`",
            ),
            (
                format!("{grpc}  rules:\n  - matches:\n    - {{method: {{service: 'a..B'}}}}\n"),
                "mesh.yaml:7:26: spec.rules[0].matches[0].method.service: `a..B` is not the name of a service",
            ),
            (
                format!("{grpc}  rules:\n  - matches:\n    - method: {{method: a/b}}\n"),
                "mesh.yaml:7:24: spec.rules[0].matches[0].method.method: `a/b` is not the name of a method",
            ),
            (
                format!("{grpc}  rules:\n  - matches:\n    - method: {{service: '', type: Exact}}\n"),
                "mesh.yaml:7:15: spec.rules[0].matches[0].method: needs `service`, `method` or both",
            ),
            (
                format!("{grpc}  rules:\n  - matches: [{{path: {{value: /}}}}]\n"),
                "mesh.yaml:6:16: unknown field `path`, expected one of method, headers",
            ),
            (
                format!("{grpc}  rules:\n  - filters: [{{type: URLRewrite}}]\n"),
                "mesh.yaml:6:22: unknown variant `URLRewrite`, expected one of",
            ),
            (
                format!("{grpc}  rules:\n  - filters: [{{type: RequestHeaderModifier}}]\n"),
                "mesh.yaml:6:15: spec.rules[0].filters[0]: type RequestHeaderModifier needs `requestHeaderModifier`",
            ),
            (
                format!("{grpc}  rules:\n  - backendRefs: [{{name: a}}]\n"),
                "mesh.yaml:6:19: spec.rules[0].backendRefs[0]: a reference to a Service needs a port",
            ),
            (
                "apiVersion: v2\nkind: Service\nmetadata: {name: a}\n".to_owned(),
                "mesh.yaml:1:13: version `v2` of Service is not known, expected v1",
            ),
            ("kind: Service\nmetadata: {name: a}\n".to_owned(), "mesh.yaml:2:1: missing field `apiVersion`"),
        ];
        for (text, expected) in cases {
            let Some(Err(error)) = read(&text).pop() else { panic!("accepted: {text}") };
            let error = error.to_string();
            assert!(error.starts_with(expected), "{error:?} is not {expected:?}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
    }

    #[test]
    fn fields_of_kubernetes_that_are_not_used_are_listed_with_their_place() {
        let text = "\
---
apiVersion: v1
kind: Service
metadata: {name: a, creationTimestamp: null, annotations: {note: x}}
spec:
  clusterIP: None
  externalIPs: null
  ports: [{port: 80, nodePort: 30080}]
status: {loadBalancer: {}}
";
        let Some(Ok(document)) = read(text).pop() else { panic!("refused") };
        let unused: Vec<_> = document
            .unused
            .iter()
            .map(|field| (field.path.as_str(), field.at.line, field.at.column))
            .collect();
        let mut expected = [
            ("metadata.annotations", 4, 59),
            ("spec.clusterIP", 6, 14),
            ("spec.ports[0].nodePort", 8, 32),
            ("status", 9, 9),
        ];
        expected.sort_unstable();
        let mut sorted = unused;
        sorted.sort_unstable();
        assert_eq!(sorted, expected);
    }

    #[test]
    fn a_kind_of_a_later_version_is_accepted_as_it_is() {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {name: a}\n\
                    spec: {parentRefs: [{name: edge}], rules: [{anything: {at: all}}]}\n";
        let Some(Ok(Document { object: Object::NotUsed(object), .. })) = read(text).pop() else { panic!() };
        assert_eq!(object.spec.parent_refs[0].name, "edge");
    }
}
