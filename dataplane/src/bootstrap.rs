//! The bootstrap file → [`Bootstrap`], parsed once into what the process needs.
//!
//! The descriptors of Envoy's API cost megabytes that an allocator keeps, so the text is parsed by a short-lived child
//! of the same executable, which hands back binary protobuf ([`parse_in_child`], [`run_child`]). Everything after that is
//! a pure function of the message ([`Bootstrap::from_message`]). The operator is trusted; the file may still be wrong,
//! and then nothing starts.

mod control_plane;
mod resources;

use std::{
    fs, io,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use policy::{
    limits,
    peer::{NotSpiffe, SpiffeId},
};
use prost::Message;
use proto::{
    pb::envoy::config::{
        bootstrap::v3 as envoy,
        core::v3::{Address, Node, address, config_source::ConfigSourceSpecifier, socket_address},
    },
    well_known,
};
use translate::{assemble::Update, overload::Overload};

use crate::xds::Kind;

pub use control_plane::{ControlPlane, Pem, Place, Tls};

/// What the bootstrap file says.
#[derive(Debug)]
pub struct Bootstrap {
    /// Who this proxy is.
    pub node: Node,
    /// What it is for, if it was started by Ringway.
    pub role: Role,
    /// Where the admin listener is; without one there is none.
    pub admin: Option<AdminAddress>,
    /// When it has too much to do.
    pub overload: Overload,
    /// Listeners and clusters of the file itself.
    pub resources: Vec<Update>,
    /// Where other configuration comes from.
    pub control_plane: Option<ControlPlane>,
    /// The types that the control plane is asked for.
    pub kinds: Vec<Kind>,
    /// How long the first answers for listeners and clusters are waited for before the proxy counts as ready without
    /// them; `None` is for ever (Envoy: `initial_fetch_timeout`).
    pub fetch_timeouts: Vec<(Kind, Option<Duration>)>,
    /// Who it is towards others, as the control plane shall certify; `None` is nobody.
    pub identity: Option<SpiffeId>,
}

/// `node.metadata.ringway.role`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Beside one application, which shall have the CPUs.
    Sidecar,
    /// A gateway, or a proxy that nobody of Ringway's started.
    Gateway,
}

/// Where the admin listener is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdminAddress {
    /// On TCP.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

/// Why the process cannot start with this file. Displays as one line.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file is not there or may not be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The text is refused.
    #[error(transparent)]
    Text(#[from] proto::bootstrap::BootstrapError),
    /// The child found the file wrong, in its own words, which are one of the above.
    #[error("{0}")]
    Child(String),
    /// The child could not be run, or did not hand back what it should.
    #[error("cannot parse {} in a process of its own: {reason}", file.display())]
    NoChild {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A field has a value that Ringway cannot use.
    #[error("{file}: {path}: {reason}")]
    Field {
        /// The file.
        file: String,
        /// Fields from the root.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the file to a `Bootstrap` message in a child process.
pub fn parse_in_child(file: &Path) -> Result<envoy::Bootstrap, BootstrapError> {
    let no_child = |reason: String| BootstrapError::NoChild { file: file.to_owned(), reason };
    let output = Command::new(own_program())
        .arg("--parse-bootstrap")
        .arg("-c")
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| no_child(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(if words.is_empty() {
            no_child(output.status.to_string())
        } else {
            BootstrapError::Child(words)
        });
    }
    envoy::Bootstrap::decode(&*output.stdout).map_err(|error| no_child(error.to_string()))
}

/// This program, to run once more. By its path, since valgrind runs another one behind `/proc/self/exe`; unless the file
/// was replaced since, as an upgrade does, and the path leads to another version or nowhere.
fn own_program() -> PathBuf {
    std::env::current_exe().ok().filter(|path| path.exists()).unwrap_or_else(|| "/proc/self/exe".into())
}

/// What the child does: the message on standard output, or one line on standard error.
pub fn run_child(file: &Path) -> ExitCode {
    let written = parse(file).map_err(|error| error.to_string()).and_then(|message| {
        let mut out = io::stdout().lock();
        out.write_all(&message).and_then(|()| out.flush()).map_err(|error| error.to_string())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(file: &Path) -> Result<Vec<u8>, BootstrapError> {
    let text =
        fs::read_to_string(file).map_err(|source| BootstrapError::Read { file: file.to_owned(), source })?;
    Ok(proto::bootstrap::parse(&file.display().to_string(), &text)?)
}

impl Bootstrap {
    /// Checks and translates all of the message. `file` is only for errors.
    pub fn from_message(file: &str, message: &envoy::Bootstrap) -> Result<Bootstrap, BootstrapError> {
        read(message).map_err(|wrong| BootstrapError::Field {
            file: file.to_owned(),
            path: wrong.path,
            reason: wrong.reason,
        })
    }
}

/// A field that cannot be used.
#[derive(Debug)]
struct Wrong {
    path: String,
    reason: String,
}

impl Wrong {
    fn new(path: impl Into<String>, reason: impl Into<String>) -> Wrong {
        Wrong { path: path.into(), reason: reason.into() }
    }
}

fn read(message: &envoy::Bootstrap) -> Result<Bootstrap, Wrong> {
    let node = message.node.clone().unwrap_or_default();
    let dynamic = message.dynamic_resources.clone().unwrap_or_default();
    let none = envoy::bootstrap::StaticResources::default();
    let resources = message.static_resources.as_ref().unwrap_or(&none);
    let control_plane = match &dynamic.ads_config {
        None => None,
        Some(ads) => Some(control_plane::read(ads, &resources.clusters)?),
    };
    if control_plane.is_some() {
        for (field, value) in [("id", &node.id), ("cluster", &node.cluster)] {
            if value.is_empty() {
                return Err(Wrong::new(format!("node.{field}"), "required with dynamic_resources"));
            }
        }
    }
    let (mut kinds, mut fetch_timeouts) = (Vec::new(), Vec::new());
    for (field, source, of_field) in [
        ("cds_config", &dynamic.cds_config, [Kind::Cluster, Kind::Endpoints, Kind::Secret]),
        ("lds_config", &dynamic.lds_config, [Kind::Listener, Kind::RouteTable, Kind::Secret]),
    ] {
        let Some(source) = source else { continue };
        let path = format!("dynamic_resources.{field}");
        let timeout = match &source.initial_fetch_timeout {
            None => limits::INITIAL_FETCH_TIMEOUT_DEFAULT,
            Some(timeout) => well_known::duration(timeout).ok_or_else(|| {
                Wrong::new(format!("{path}.initial_fetch_timeout"), "not a duration of zero or more")
            })?,
        };
        fetch_timeouts.push((of_field[0], Some(timeout).filter(|timeout| !timeout.is_zero())));
        match source.config_source_specifier {
            Some(ConfigSourceSpecifier::Ads(_)) if control_plane.is_some() => {
                kinds.extend(of_field.into_iter().filter(|kind| !kinds.contains(kind)).collect::<Vec<_>>());
            }
            Some(ConfigSourceSpecifier::Ads(_)) => {
                return Err(Wrong::new(path, "ads needs dynamic_resources.ads_config"));
            }
            _ => return Err(Wrong::new(path, "only ads is supported by Ringway")),
        }
    }
    let carrier = control_plane.as_ref().map(|control_plane| control_plane.cluster.as_str());
    let updates = resources::read(resources, carrier)?;
    // What the file's own resources refer to by name comes from the control plane, too.
    for kind in resources::needed(&updates) {
        if control_plane.is_none() {
            let reason = format!("{} by ads, which needs dynamic_resources.ads_config", kind.word());
            return Err(Wrong::new("static_resources", reason));
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let overload = message.overload_manager.as_ref().map(translate::overload::translate).transpose();
    let overload = overload.map_err(|fault| Wrong::new(fault.path.to_string(), fault.reason.to_string()))?;
    Ok(Bootstrap {
        role: role(&node),
        identity: identity(&node)?,
        admin: admin(message)?,
        overload: overload.unwrap_or_default(),
        resources: updates,
        control_plane,
        kinds,
        fetch_timeouts,
        node,
    })
}

fn identity(node: &Node) -> Result<Option<SpiffeId>, Wrong> {
    let wanted =
        node.metadata.as_ref().and_then(|metadata| well_known::string_at(metadata, &["ringway", "identity"]));
    let wrong = |error: NotSpiffe| Wrong::new("node.metadata.ringway.identity", error.to_string());
    wanted.map(|text| SpiffeId::parse(text).map_err(wrong)).transpose()
}

fn role(node: &Node) -> Role {
    let role =
        node.metadata.as_ref().and_then(|metadata| well_known::string_at(metadata, &["ringway", "role"]));
    if role == Some("sidecar") { Role::Sidecar } else { Role::Gateway }
}

fn admin(message: &envoy::Bootstrap) -> Result<Option<AdminAddress>, Wrong> {
    let Some(admin) = &message.admin else { return Ok(None) };
    let place = place(admin.address.as_ref(), "admin.address")?;
    match place {
        Place::Unix(path) => Ok(Some(AdminAddress::Unix(path))),
        Place::Tcp { host, port } => match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Some(AdminAddress::Tcp(SocketAddr::new(ip, port)))),
            Err(_) => {
                let reason = format!("`{host}` is not an IP address");
                Err(Wrong::new("admin.address.socket_address.address", reason))
            }
        },
    }
}

/// A transport address, its host unresolved.
fn place(value: Option<&Address>, path: &str) -> Result<Place, Wrong> {
    match value.and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let path = format!("{path}.socket_address");
            let port = match &socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(*port).ok(),
                _ => None,
            };
            let Some(port) = port else {
                return Err(Wrong::new(format!("{path}.port_value"), "a port from 0 to 65535 is required"));
            };
            if socket.address.is_empty() {
                return Err(Wrong::new(format!("{path}.address"), "required"));
            }
            Ok(Place::Tcp { host: socket.address.clone(), port })
        }
        Some(address::Address::Pipe(pipe)) if !pipe.path.is_empty() => {
            Ok(Place::Unix(pipe.path.clone().into()))
        }
        Some(address::Address::Pipe(_)) => Err(Wrong::new(format!("{path}.pipe.path"), "required")),
        _ => Err(Wrong::new(path, "required")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Bootstrap, String> {
        let message = proto::bootstrap::parse("b.yaml", text).map_err(|error| error.to_string())?;
        let message = envoy::Bootstrap::decode(&*message).unwrap();
        Bootstrap::from_message("b.yaml", &message).map_err(|error| error.to_string())
    }

    const MESH: &str = r#"
node: {id: web-1, cluster: web, metadata: {ringway: {role: sidecar}}}
admin: {address: {pipe: {path: /run/web/admin.sock}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {cluster_name: control, authority: control.mesh}
      initial_metadata: [{key: authorization, value: Bearer x}]
  lds_config: {ads: {}, resource_api_version: V3}
  cds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control
    type: STRICT_DNS
    connect_timeout: 2s
    load_assignment:
      cluster_name: control
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: cp.example, port_value: 15010}}}
        - endpoint: {address: {pipe: {path: /run/cp.sock}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 7s, timeout: 3s}}}
"#;

    #[test]
    fn a_sidecars_file_gives_node_admin_and_control_plane() {
        let bootstrap = read_text(MESH).unwrap();
        assert_eq!(bootstrap.role, Role::Sidecar);
        assert_eq!(bootstrap.admin, Some(AdminAddress::Unix("/run/web/admin.sock".into())));
        assert!(bootstrap.resources.is_empty(), "the carrier is no cluster for requests");
        let of_file = [Kind::Cluster, Kind::Endpoints, Kind::Secret, Kind::Listener, Kind::RouteTable];
        assert_eq!(bootstrap.kinds, of_file);
        let control_plane = bootstrap.control_plane.unwrap();
        let places: Vec<_> = control_plane.places.iter().map(ToString::to_string).collect();
        assert_eq!(places, ["cp.example:15010", "unix:/run/cp.sock"]);
        assert_eq!(control_plane.authority.as_deref(), Some("control.mesh"));
        assert_eq!(control_plane.metadata, [("authorization".to_owned(), "Bearer x".to_owned())]);
        let times = [
            control_plane.connect_timeout,
            control_plane.keep_alive_interval,
            control_plane.keep_alive_timeout,
        ];
        assert_eq!(times.map(|time| time.as_secs()), [2, 7, 3]);
        assert_eq!(control_plane.tls, None);
    }

    #[test]
    fn a_file_without_a_control_plane_asks_for_nothing() {
        let text = "
admin: {address: {socket_address: {address: '::1', port_value: 0}}}
static_resources:
  clusters: [{name: a, load_assignment: {cluster_name: a}}]
";
        let bootstrap = read_text(text).unwrap();
        assert_eq!(bootstrap.role, Role::Gateway);
        assert_eq!(bootstrap.admin, Some(AdminAddress::Tcp("[::1]:0".parse().unwrap())));
        assert_eq!((bootstrap.resources.len(), bootstrap.kinds.len()), (1, 0));
        assert!(bootstrap.control_plane.is_none());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_file_path_and_value() {
        let tls = |context: &str| {
            MESH.replace(
                "    connect_timeout: 2s",
                &format!(
                    "    transport_socket: {{name: tls, typed_config: {{'@type': \
                     type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, {context}}}}}"
                ),
            )
        };
        for (text, error) in [
            (
                "static_resources: {clusters: [{name: a, load_assignment: {cluster_name: a}}, {name: a}]}".to_owned(),
                "b.yaml: static_resources.clusters[1].name: `a` is there twice",
            ),
            (
                "static_resources: {clusters: [{name: a, lb_policy: MAGLEV, load_assignment: {cluster_name: a}}]}".into(),
                "b.yaml: static_resources.clusters[0].lb_policy: MAGLEV is not supported by Ringway; supported: \
                 ROUND_ROBIN, RANDOM, LEAST_REQUEST",
            ),
            (
                "static_resources: {clusters: [{name: a, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}]}".into(),
                "b.yaml: static_resources: endpoints by ads, which needs dynamic_resources.ads_config",
            ),
            (
                "dynamic_resources: {lds_config: {ads: {}}}".into(),
                "b.yaml: dynamic_resources.lds_config: ads needs dynamic_resources.ads_config",
            ),
            (
                "admin: {address: {socket_address: {address: localhost, port_value: 1}}}".into(),
                "b.yaml: admin.address.socket_address.address: `localhost` is not an IP address",
            ),
            (
                "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 70000}}}".into(),
                "b.yaml: admin.address.socket_address.port_value: a port from 0 to 65535 is required",
            ),
            (MESH.replace("id: web-1, ", ""), "b.yaml: node.id: required with dynamic_resources"),
            (
                MESH.replace("DELTA_GRPC", "GRPC"),
                "b.yaml: dynamic_resources.ads_config.api_type: GRPC is not supported by Ringway; supported: DELTA_GRPC",
            ),
            (
                MESH.replace("cluster_name: control,", "cluster_name: other,"),
                "b.yaml: dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: `other` is not a static \
                 cluster",
            ),
            (
                tls("sni: cp.example"),
                "b.yaml: static_resources.clusters[0].transport_socket.typed_config.common_tls_context.\
                 validation_context.trusted_ca: required: a control plane is never trusted without",
            ),
        ] {
            assert_eq!(read_text(&text).unwrap_err(), error);
        }
    }
}
