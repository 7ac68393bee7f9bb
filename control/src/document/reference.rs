//! The reference of every document kind, and a JSON Schema of each for editors: made of the types themselves, so that
//! they cannot say anything else than the code does.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::{Value, json};

use super::{
    AuthorizationPolicySpec, BackendTlsPolicySpec, ConfigMap, EndpointSlice, Envelope, GatewayClassSpec,
    GatewaySpec, GrpcRouteSpec, HttpRouteSpec, Metadata, Namespace, PeerAuthenticationSpec,
    ReferenceGrantSpec, Secret, ServiceSpec, TcpRouteSpec, TlsRouteSpec, WorkloadSpec,
};

/// A kind of document.
#[derive(Debug, Clone)]
pub struct Kind {
    /// As in `kind:`.
    pub name: &'static str,
    /// As in `apiVersion:`; older versions of Gateway API's kinds are accepted, too.
    pub api_version: &'static str,
    /// Its JSON Schema.
    pub schema: Value,
}

/// Every kind that is read, in the order in which a newcomer meets them.
pub fn kinds() -> Vec<Kind> {
    const GATEWAY: &str = "gateway.networking.k8s.io/v1";
    vec![
        kind::<Envelope<ServiceSpec>>("Service", "v1"),
        kind::<Envelope<WorkloadSpec>>("Workload", "ringway.io/v1alpha1"),
        kind::<EndpointSlice>("EndpointSlice", "discovery.k8s.io/v1"),
        kind::<Envelope<HttpRouteSpec>>("HTTPRoute", GATEWAY),
        kind::<Envelope<GrpcRouteSpec>>("GRPCRoute", GATEWAY),
        kind::<Envelope<TcpRouteSpec>>("TCPRoute", GATEWAY),
        kind::<Envelope<TlsRouteSpec>>("TLSRoute", GATEWAY),
        kind::<Envelope<AuthorizationPolicySpec>>("AuthorizationPolicy", "ringway.io/v1alpha1"),
        kind::<Envelope<PeerAuthenticationSpec>>("PeerAuthentication", "ringway.io/v1alpha1"),
        kind::<Envelope<GatewaySpec>>("Gateway", GATEWAY),
        kind::<Envelope<GatewayClassSpec>>("GatewayClass", GATEWAY),
        kind::<Secret>("Secret", "v1"),
        kind::<ConfigMap>("ConfigMap", "v1"),
        kind::<Envelope<BackendTlsPolicySpec>>("BackendTLSPolicy", GATEWAY),
        kind::<Envelope<ReferenceGrantSpec>>("ReferenceGrant", GATEWAY),
        kind::<Namespace>("Namespace", "v1"),
    ]
}

/// The schemas by file name: one for each kind, and `ringway.json` that chooses among them by `kind`.
pub fn schema_files() -> Vec<(String, String)> {
    let text = |schema: &Value| format!("{schema:#}\n");
    let kinds = kinds();
    let by_kind = kinds.iter().map(|kind| {
        json!({
            "if": { "properties": { "kind": { "const": kind.name } } },
            "then": { "$ref": file_name(kind) },
        })
    });
    let any = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A document of a mesh",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "allOf": by_kind.collect::<Vec<_>>(),
    });
    let each = kinds.iter().map(|kind| (file_name(kind), text(&kind.schema)));
    each.chain([("ringway.json".to_owned(), text(&any))]).collect()
}

fn file_name(kind: &Kind) -> String {
    format!("{}.json", kind.name.to_lowercase())
}

fn kind<T: JsonSchema>(name: &'static str, api_version: &'static str) -> Kind {
    let mut schema = schema_for!(T);
    let description = description_of(&schema);
    let object = schema.ensure_object();
    object.insert("title".to_owned(), name.into());
    object.insert("description".to_owned(), description.into());
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("kind".to_owned(), json!({ "const": name }));
        // Versions of Gateway API before the first stable one mean the same.
        properties.insert(
            "apiVersion".to_owned(),
            match api_version.strip_suffix("/v1") {
                Some(group) if group.starts_with("gateway.") => {
                    json!({ "type": "string", "pattern": format!("^{}/v1", group.replace('.', "\\.")) })
                }
                _ => json!({ "const": api_version }),
            },
        );
    }
    Kind { name, api_version, schema: schema.to_value() }
}

/// What a kind is for is said at its `spec`, or at itself where it has none.
fn description_of(schema: &Schema) -> String {
    let root = schema.as_value();
    let spec = &root["properties"]["spec"];
    let described = if spec["$ref"].is_string() { resolve(root, spec) } else { root };
    described["description"].as_str().unwrap_or_default().to_owned()
}

/// The reference as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    let metadata = schema_for!(Metadata).to_value();
    out += "\n## metadata\n\nEvery kind has it.\n";
    Fields::of(&metadata, "metadata").write(&mut out);
    for kind in kinds() {
        let description = kind.schema["description"].as_str().unwrap_or_default();
        let (name, version, file) = (kind.name, kind.api_version, file_name(&kind));
        let _ = write!(
            out,
            "\n## {name}\n\n`apiVersion: {version}` · [schema](schema/{file})\n\n{description}\n"
        );
        Fields::of(&kind.schema, "").write(&mut out);
    }
    out
}

const INTRODUCTION: &str = "\
# Documents

<!-- Made by `ringway reference`; a test keeps it current. -->

What a directory given to `ringway serve --config` may hold: YAML or JSON, in files `*.yaml`, `*.yml` or `*.json` at
any depth, several documents in a file separated by `---`. A field that is not listed here is an error with its
place; fields that Kubernetes defines and Ringway does not use are accepted and named below each kind. Other kinds
of Gateway API, of Kubernetes and of later versions of Ringway are accepted, and their conditions say that nothing
is done with them.

An editor that knows JSON Schema completes and checks documents as they are written: put
`# yaml-language-server: $schema=PATH/control/reference/schema/ringway.json` at the top of a file.
";

struct Row {
    path: String,
    value: String,
    meaning: String,
}

/// The fields of a kind, with all that is below them.
struct Fields<'a> {
    rows: Vec<Row>,
    /// Fields that are accepted without effect, with what is to be said of them.
    unused: Vec<(String, &'a str)>,
    root: &'a Value,
    /// Where each type is described: at the shortest path that leads to it.
    described_at: BTreeMap<&'a str, String>,
}

impl<'a> Fields<'a> {
    fn of(root: &'a Value, path: &str) -> Self {
        let described_at = shortest_paths(root);
        let mut fields = Fields { rows: Vec::new(), unused: Vec::new(), root, described_at };
        fields.of_object(root, path);
        fields
    }

    fn of_object(&mut self, schema: &'a Value, path: &str) {
        let required = |name: &str| {
            schema["required"].as_array().is_some_and(|required| required.iter().any(|r| r == name))
        };
        for (name, field) in properties(schema) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match path.as_str() {
                "apiVersion" | "kind" | "metadata" => {}
                _ if is_unused(field) => {
                    self.unused.push((path, field["description"].as_str().unwrap_or_default()));
                }
                _ => self.of_field(field, path, required(name)),
            }
        }
    }

    fn of_field(&mut self, field: &'a Value, path: String, required: bool) {
        let place = Place::of(self.root, field, path);
        let item = resolve(self.root, place.item);
        let mut meaning =
            field["description"].as_str().or(item["description"].as_str()).unwrap_or_default().to_owned();
        let elsewhere =
            place.type_name().and_then(|name| self.described_at.get(name)).filter(|at| **at != place.path);
        if let Some(at) = elsewhere {
            let _ = write!(meaning, " As `{at}`.");
        }
        let expand = elsewhere.is_none();
        let words = [value_of(item), if required { "required".to_owned() } else { String::new() }];
        let value = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ");
        self.rows.push(Row { path: place.path.clone(), value, meaning });
        if expand {
            self.of_object(item, &place.path);
        }
    }

    fn write(self, out: &mut String) {
        if !self.rows.is_empty() {
            *out += "\n| field | value | meaning |\n|---|---|---|\n";
        }
        for Row { path, value, meaning } in self.rows {
            let meaning = meaning.replace('|', "\\|").replace('\n', " ");
            let _ = writeln!(out, "| `{path}` | {value} | {meaning} |");
        }
        if !self.unused.is_empty() {
            // What is left out is said where leaving it out makes a difference.
            let unused = self.unused.iter().map(|(path, meaning)| match meaning.contains("; ") {
                true => format!("`{path}` ({})", meaning.trim_end_matches('.')),
                false => format!("`{path}`"),
            });
            let _ = write!(out, "\nKnown and without effect: {}.\n", unused.collect::<Vec<_>>().join(", "));
        }
    }
}

/// A field with the type of its value, or of the items of its list.
struct Place<'a> {
    path: String,
    /// May be a reference.
    item: &'a Value,
}

impl<'a> Place<'a> {
    fn of(root: &'a Value, field: &'a Value, path: String) -> Self {
        let inner = without_null(field);
        match resolve(root, inner) {
            list if is_list(list) => Self { path: format!("{path}[]"), item: &list["items"] },
            _ => Self { path, item: inner },
        }
    }

    fn type_name(&self) -> Option<&'a str> {
        self.item["$ref"].as_str()
    }
}

/// One that may be absent has two types.
fn is_list(schema: &Value) -> bool {
    match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == "array"),
        one => one == "array",
    }
}

/// For each type with fields the shortest path that leads to it.
fn shortest_paths(root: &Value) -> BTreeMap<&str, String> {
    let mut found = BTreeMap::new();
    let mut open = VecDeque::from([(root, String::new())]);
    while let Some((schema, path)) = open.pop_front() {
        for (name, field) in properties(schema) {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let place = Place::of(root, field, path);
            let item = resolve(root, place.item);
            let Some(type_name) = place.type_name().filter(|_| item["properties"].is_object()) else {
                continue;
            };
            if !found.contains_key(type_name) {
                found.insert(type_name, place.path.clone());
                open.push_back((item, place.path));
            }
        }
    }
    found
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// What may be written there, in a word or a list of words.
fn value_of(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(choices) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let each: Vec<_> = choices
            .iter()
            .map(|choice| match choice["const"].as_str() {
                Some(word) => format!("`{word}`"),
                None => value_of(choice),
            })
            .collect();
        return each.join(", ");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| *kind != "null").and_then(Value::as_str),
        kind => kind.as_str(),
    };
    match (kind, schema["format"].as_str()) {
        (Some("integer"), _) => match (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            _ => "number".to_owned(),
        },
        (Some("string"), Some(format)) => format.to_owned(),
        (Some("string"), None) if schema["pattern"].is_string() => "duration".to_owned(),
        (Some("object"), _) if schema["additionalProperties"]["type"].is_string() => {
            "map of strings".to_owned()
        }
        (Some("object"), _) => String::new(),
        (Some(kind), _) => kind.to_owned(),
        (None, _) => "any".to_owned(),
    }
}

fn is_unused(field: &Value) -> bool {
    field["x-ringway-unused"] == true
        || field["anyOf"].as_array().is_some_and(|choices| choices.iter().any(is_unused))
}

fn without_null(schema: &Value) -> &Value {
    let choices = schema["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    match choices {
        [choice, null] if null["type"] == "null" => choice,
        _ => schema,
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}
