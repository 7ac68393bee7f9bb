//! Envoy's bootstrap file, YAML or JSON, as a binary `envoy.config.bootstrap.v3.Bootstrap`.
//!
//! The mapping is proto3's own JSON mapping over descriptors that hold only what Ringway supports
//! (`build/supported.txt`), so everything else is refused here, with its place in the file. Values are checked by
//! `translate`, as for resources from a control plane. The operator is trusted; the file may still be wrong.
//!
//! Loading the descriptors allocates a few megabytes that an allocator may keep: the proxy calls this in a
//! short-lived child process.

mod place;

use std::fmt;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::de::DeserializeSeed;
use serde_path_to_error::{Deserializer, Segment, Track};
use serde_saphyr::MessageFormatter;

pub use place::Place;

const ROOT: &str = "envoy.config.bootstrap.v3.Bootstrap";
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/supported.bin"));
/// The field that holds the `Any`, and a message that may be in it.
const EXTENSIONS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/extensions.rs"));

/// Reads the text of the bootstrap file `file` (the name is only for errors) to a binary `Bootstrap`.
pub fn parse(file: &str, text: &str) -> Result<Vec<u8>, BootstrapError> {
    let pool = DescriptorPool::decode(DESCRIPTORS)
        .map_err(|error| BootstrapError::Descriptors { reason: error.to_string() })?;
    let root = pool
        .get_message_by_name(ROOT)
        .ok_or_else(|| BootstrapError::Descriptors { reason: format!("no message {ROOT}") })?;
    let mut track = Track::new();
    let parsed: Result<DynamicMessage, _> =
        serde_saphyr::with_deserializer_from_str_with_options(text, place::options(), |yaml| {
            root.clone().deserialize(Deserializer::new(yaml, &mut track))
        });
    match parsed {
        Ok(bootstrap) => Ok(bootstrap.encode_to_vec()),
        Err(error) => {
            let path = track.path();
            let path: Vec<_> = path.iter().filter(|step| !matches!(step, Segment::Unknown)).collect();
            Err(explain(file, text, &root, Path::new(&path), &error))
        }
    }
}

/// Where in `text` the field at `path` stands (as [`BootstrapError`] writes paths), or the nearest field above it that is
/// in the text: for faults that are found in the message later. `None` if the text cannot be read.
pub fn place_of(text: &str, path: &str) -> Option<Place> {
    let tree = place::Tree::read(text).ok()?;
    Some(tree.find(&steps(path)))
}

/// `a.b[0]["c.d"]` as steps. What is not a path ends it.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let step = if let Some(key) = rest.strip_prefix("[\"") {
            key.split_once("\"]").map(|(key, rest)| (Step::Field(key), rest))
        } else if let Some(index) = rest.strip_prefix('[') {
            index.split_once(']').and_then(|(index, rest)| Some((Step::Index(index.parse().ok()?), rest)))
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (name, rest) = name.split_at(end);
            Some((Step::Field(name), rest))
        };
        let Some((step, after)) = step else { break };
        steps.push(step);
        rest = after;
    }
    steps
}

/// Why a bootstrap file cannot be used. Displays as `FILE:LINE:COLUMN: FIELD PATH: REASON`.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum BootstrapError {
    /// The text is neither YAML nor JSON.
    #[error("{file}:{place}: {reason}")]
    Syntax {
        /// As given to [`parse`].
        file: String,
        /// Where the parser stopped.
        place: Place,
        /// What it expected.
        reason: String,
    },
    /// A field that is not supported, does not exist, or has a value that its type does not allow.
    #[error("{file}:{place}: {path}: {fault}")]
    Field {
        /// As given to [`parse`].
        file: String,
        /// Where the field or its value begins.
        place: Place,
        /// Fields from the root, as written in the file: `static_resources.clusters[0].name`.
        path: String,
        /// What is wrong with it.
        fault: FieldFault,
    },
    /// The descriptors built into this program cannot be loaded; a bug of ours.
    #[error("cannot load the built-in descriptors: {reason}")]
    Descriptors {
        /// What the loader says.
        reason: String,
    },
}

/// What is wrong with a field of a bootstrap file.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum FieldFault {
    /// Envoy has this field, Ringway does not.
    #[error("not supported by Ringway")]
    Unsupported,
    /// Nobody has this field.
    #[error("no such field; {message} has {}", .fields.join(", "))]
    Unknown {
        /// The message that would hold it.
        message: String,
        /// Its supported fields.
        fields: Vec<String>,
    },
    /// An `Any` of a type that Ringway does not have.
    #[error("{type_name} is not supported by Ringway here; supported: {}", .supported.join(", "))]
    Extension {
        /// Full name of the message.
        type_name: String,
        /// Full names of those that may stand here.
        supported: Vec<String>,
    },
    /// The value does not fit the field's type.
    #[error("{0}")]
    Value(String),
}

/// From the root of the file to a field.
struct Path<'a>(Vec<Step<'a>>);

enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    fn new(segments: &[&'a Segment]) -> Path<'a> {
        Path(
            segments
                .iter()
                .filter_map(|segment| match segment {
                    Segment::Seq { index } => Some(Step::Index(*index)),
                    Segment::Map { key } => Some(Step::Field(key)),
                    Segment::Enum { .. } | Segment::Unknown => None,
                })
                .collect(),
        )
    }

    fn with_field(mut self, name: &'a str) -> Path<'a> {
        self.0.push(Step::Field(name));
        self
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("bootstrap");
        }
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Field(name) if name.contains('.') => write!(f, "[\"{name}\"]")?,
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
            }
        }
        Ok(())
    }
}

/// Puts the parts of the error together. The words of prost-reflect's serde errors are all there is to tell an
/// unknown field and an unknown type from a bad value; the tests pin them.
fn explain(
    file: &str,
    text: &str,
    root: &MessageDescriptor,
    path: Path<'_>,
    error: &serde_saphyr::Error,
) -> BootstrapError {
    let file = file.to_owned();
    let tree = match place::Tree::read(text) {
        Ok(tree) => tree,
        // The text as a whole is not YAML: what the mapping stumbled over before may be only a symptom.
        Err(error) => {
            return BootstrapError::Syntax {
                file,
                place: Place::of(error.location()),
                reason: words(&error),
            };
        }
    };
    let reason = words(error);
    if let Some(name) = quoted(&reason, "unrecognized field name '") {
        let fault = missing_field(&tree, root, &path, name);
        let path = path.with_field(name);
        return BootstrapError::Field { file, place: tree.find(&path.0), path: path.to_string(), fault };
    }
    let fault = match quoted(&reason, "message '") {
        Some(type_name) if reason.ends_with("' not found") => extension(&path, type_name),
        _ => FieldFault::Value(value_fault(&tree, &path, reason)),
    };
    let place = match error {
        serde_saphyr::Error::DuplicateMappingKey { .. } => Place::of(error.location()),
        _ => tree.find(&path.0),
    };
    BootstrapError::Field { file, place, path: path.to_string(), fault }
}

/// The message alone, without a place.
fn words(error: &serde_saphyr::Error) -> String {
    match error.without_snippet() {
        serde_saphyr::Error::Message { msg, .. } => msg.clone(),
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key} is given twice"),
        other => serde_saphyr::UserMessageFormatter.format_message(other).into_owned(),
    }
}

/// What follows `before` in `text`, up to the next quote.
fn quoted<'t>(text: &'t str, before: &str) -> Option<&'t str> {
    text.strip_prefix(before)?.split_once('\'').map(|(inner, _)| inner)
}

/// Whether the field `name` of the message at `path` is one of Envoy's.
fn missing_field(tree: &place::Tree, root: &MessageDescriptor, path: &Path<'_>, name: &str) -> FieldFault {
    let Some(message) = message_at(tree, root, &path.0) else { return FieldFault::Unsupported };
    let snake = snake_case(name);
    if message.reserved_names().any(|reserved| reserved == name || reserved == snake) {
        return FieldFault::Unsupported;
    }
    let mut fields: Vec<_> = message.fields().map(|field| field.name().to_owned()).collect();
    fields.sort_unstable();
    FieldFault::Unknown { message: message.name().to_owned(), fields }
}

/// The type of the message at `steps`, looking into each `Any` by its `@type`.
fn message_at(tree: &place::Tree, root: &MessageDescriptor, steps: &[Step<'_>]) -> Option<MessageDescriptor> {
    let mut message = root.clone();
    for (position, step) in steps.iter().enumerate() {
        let Step::Field(name) = step else { continue };
        let field = message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name));
        // A key of a map is a step as well, below a field whose value type is already in hand.
        let Some(field) = field else { continue };
        let mut kind = field.kind();
        if field.is_map() {
            kind = kind.as_message()?.map_entry_value_field().kind();
        }
        message = kind.as_message()?.clone();
        if message.full_name() == "google.protobuf.Any" {
            let keyed = usize::from(field.is_map());
            let type_url = tree.scalar_in(&steps[..(position + 1 + keyed).min(steps.len())], "@type")?;
            message = root.parent_pool().get_message_by_name(type_url.rsplit('/').next()?)?;
        }
    }
    Some(message)
}

/// The types that may stand at `path`: those of the nearest field that has any.
fn extension(path: &Path<'_>, type_name: &str) -> FieldFault {
    let of_kind = |kind: &str| -> Vec<String> {
        let listed = EXTENSIONS.iter().filter(|(of, _)| *of == kind);
        listed.map(|(_, name)| (*name).to_owned()).collect()
    };
    let fields = path.0.iter().rev().filter_map(|step| match step {
        Step::Field(name) => Some(of_kind(&snake_case(name))),
        Step::Index(_) => None,
    });
    let supported = fields.into_iter().find(|names| !names.is_empty()).unwrap_or_default();
    FieldFault::Extension { type_name: type_name.to_owned(), supported }
}

/// A reason that names the value when it is a scalar.
fn value_fault(tree: &place::Tree, path: &Path<'_>, reason: String) -> String {
    match tree.scalar(&path.0) {
        Some(value) if !reason.contains(value) => format!("{reason} (got `{value}`)"),
        _ => reason,
    }
}

/// The .proto name of a field that is written in its JSON form.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::pb::envoy::{
        config::bootstrap::v3::Bootstrap,
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
    };

    const FRONT: &str = r#"node: {id: front-1, cluster: front}
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 8080}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          # here
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;
    const HCM: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";

    /// The error of FRONT with `line` (indentation is added) below the connection manager's stat_prefix.
    fn error_with(line: &str) -> String {
        let text = FRONT.replace("# here", &line.replace('\n', "\n          "));
        parse("front.yaml", &text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_descriptors_are_pruned_to_the_list_as_it_is_now() {
        let list =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/build/supported.txt")).unwrap();
        let built = include_str!(concat!(env!("OUT_DIR"), "/supported.txt"));
        assert!(list == built, "cargo took an old build for a new one: touch proto/build/supported.txt");
    }

    #[test]
    fn a_bootstrap_file_becomes_the_message_that_envoy_reads() {
        let line = "stream_idle_timeout: 1.5s
          route_config:
            name: r
            virtual_hosts: [{name: all, domains: ['*'], routes: [
              {match: {path_separated_prefix: /a}, route: {cluster: a, timeout: 0s}}]}]";
        let bytes = parse("front.yaml", &FRONT.replace("# here", line)).unwrap();
        let bootstrap = Bootstrap::decode(&*bytes).unwrap();
        assert_eq!(bootstrap.node.unwrap().id, "front-1");
        let listener = &bootstrap.static_resources.unwrap().listeners[0];
        let config = listener.filter_chains[0].filters[0].config_type.clone().unwrap();
        let crate::pb::envoy::config::listener::v3::filter::ConfigType::TypedConfig(any) = config else {
            panic!("{config:?}");
        };
        let manager = HttpConnectionManager::decode(&*any.value).unwrap();
        assert_eq!(manager.stream_idle_timeout.unwrap().nanos, 500_000_000);
        let Some(RouteSpecifier::RouteConfig(table)) = manager.route_specifier else { panic!() };
        assert_eq!(table.virtual_hosts[0].routes.len(), 1);
    }

    #[test]
    fn json_is_accepted_in_both_spellings_and_with_tabs() {
        for text in [
            "{\n\t\"node\": {\"id\": \"a\"},\n\t\"staticResources\": {\"clusters\": [{\"name\": \"c\", \"connectTimeout\": \"1s\"}]}\n}",
            r#"{"node":{"id":"a"},"static_resources":{"clusters":[{"name":"c","connect_timeout":"1s"}]}}"#,
        ] {
            let bootstrap = Bootstrap::decode(&*parse("front.json", text).unwrap()).unwrap();
            let cluster = &bootstrap.static_resources.unwrap().clusters[0];
            assert_eq!((cluster.name.as_str(), cluster.connect_timeout.unwrap().seconds), ("c", 1));
        }
    }

    #[test]
    fn an_error_names_file_place_path_and_value() {
        for (line, place, below, reason) in [
            ("tracing: {}", "14:11", ".tracing", "not supported by Ringway"),
            ("appendXForwardedPort: true", "14:11", ".appendXForwardedPort", "not supported by Ringway"),
            (
                "common_http_protocol_options: {idle: 1s}",
                "14:42",
                ".common_http_protocol_options.idle",
                "no such field; HttpProtocolOptions has headers_with_underscores_action, idle_timeout, \
                 max_connection_duration, max_headers_count, max_requests_per_connection, max_response_headers_kb, \
                 max_stream_duration",
            ),
            (
                "route_config: {virtual_hosts: [{name: a, cors: {}}]}",
                "14:52",
                ".route_config.virtual_hosts[0].cors",
                "not supported by Ringway",
            ),
            ("request_timeout: 5x", "14:11", ".request_timeout", "failed to parse duration (got `5x`)"),
            ("codec_type: FOO", "14:11", ".codec_type", "unrecognized enum value 'FOO'"),
            (
                "generate_request_id: 7",
                "14:11",
                ".generate_request_id",
                "invalid type: integer `7`, expected a boolean",
            ),
            (
                "max_request_headers_kb: -1",
                "14:11",
                ".max_request_headers_kb",
                "out of range integral type conversion attempted (got `-1`)",
            ),
            ("stat_prefix: again", "14:11", "", "stat_prefix is given twice"),
            ("rds: {}\nroute_config: {}", "11:9", "", "multiple fields provided for oneof 'route_specifier'"),
            (
                "access_log: [{name: a, typed_config: {'@type': type.googleapis.com/foo.Bar, x: 1}}]",
                "14:34",
                ".access_log[0].typed_config",
                "foo.Bar is not supported by Ringway here; supported: \
                 envoy.extensions.access_loggers.file.v3.FileAccessLog, \
                 envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
                 envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            ),
        ] {
            assert_eq!(error_with(line), format!("front.yaml:{place}: {HCM}{below}: {reason}"), "{line}");
        }
    }

    #[test]
    fn text_that_is_not_yaml_is_a_syntax_error_at_its_place() {
        assert_eq!(error_with("a: b: c"), "front.yaml:14:15: mapping values are not allowed in this context");
        assert_eq!(parse("f", "[1").map(|_| ()).unwrap_err().to_string(), "f:1:1: unclosed bracket '['");
        assert_eq!(
            parse("f", "node").map(|_| ()).unwrap_err().to_string(),
            "f:1:1: bootstrap: expected mapping start (got `node`)"
        );
    }

    #[test]
    fn an_extension_below_a_map_is_looked_into() {
        let text = "static_resources:
  clusters:
  - name: a
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        upstream_http_protocol_options: {}
";
        assert_eq!(
            parse("c.yaml", text).map(|_| ()).unwrap_err().to_string(),
            "c.yaml:7:9: static_resources.clusters[0].typed_extension_protocol_options\
             [\"envoy.extensions.upstreams.http.v3.HttpProtocolOptions\"].upstream_http_protocol_options: \
             not supported by Ringway"
        );
    }

    #[test]
    fn a_file_may_have_thirty_thousand_routes() {
        let route = "{match: {path: /a}, direct_response: {status: 200}}";
        let routes = vec![route; 30_000].join(", ");
        let line =
            format!("route_config: {{virtual_hosts: [{{name: a, domains: ['*'], routes: [{routes}]}}]}}");
        parse("front.yaml", &FRONT.replace("# here", &line)).unwrap();
    }

    #[test]
    fn a_path_leads_to_its_place_and_a_wrong_one_to_the_nearest() {
        for (path, place) in [
            ("static_resources.listeners[0].name", (6, 5)),
            (&format!("{HCM}.http_filters[0].typed_config"), (17, 13)),
            (&format!("{HCM}.route_specifier"), (11, 9)),
            ("static_resources.listeners[7].name", (5, 3)),
            ("node.id", (1, 8)),
            ("", (1, 1)),
            ("[", (1, 1)),
        ] {
            let (line, column) = place;
            assert_eq!(place_of(FRONT, path), Some(Place { line, column }), "{path}");
        }
        let json = r#"{"staticResources": {"a.b": {"c": 1}}}"#;
        let place = place_of(json, "static_resources[\"a.b\"].c");
        assert_eq!(place, Some(Place { line: 1, column: 30 }));
        assert_eq!(place_of("[1", "a"), None);
    }

    #[test]
    fn every_listed_extension_is_in_the_descriptors() {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        for (kind, name) in EXTENSIONS {
            assert!(pool.get_message_by_name(name).is_some(), "{kind} {name}");
        }
    }
}
