//! Documents in, resources and conditions out: `golden/*.yaml` and beside each its `*.resources.json`. `UPDATE=1`
//! rewrites them.
//!
//! The clients and registrations of a case are in comments at its top: `# sidecar: {…}`, `# gateway: {…}` (the fields
//! of node metadata) and `# registration: {…}`.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use prost::Message;
use proto::pb::google::protobuf::Any;
use ringway::compile::{Client, Resources, Shared, View, compile, refusal};
use ringway::document::{Documents, parse};
use ringway::model::{self, Registration, Registrations};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRegistration {
    instance: String,
    #[serde(default)]
    namespace: String,
    service: String,
    address: std::net::SocketAddr,
    port: u16,
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    app_protocol: String,
}

/// What a case says in its comments and documents.
struct Case {
    documents: Documents,
    errors: Vec<String>,
    registrations: Registrations,
    clients: Vec<(String, Client)>,
}

fn read(name: &str, text: &str) -> Case {
    let mut case = Case {
        documents: Documents::default(),
        errors: Vec::new(),
        registrations: Registrations::new(),
        clients: Vec::new(),
    };
    for line in text.lines().filter_map(|line| line.strip_prefix("# ")) {
        if let Some(written) = line.strip_prefix("sidecar: ") {
            case.clients.push((line.to_owned(), Client::Sidecar(serde_saphyr::from_str(written).unwrap())));
        } else if let Some(written) = line.strip_prefix("gateway: ") {
            case.clients.push((line.to_owned(), Client::Gateway(serde_saphyr::from_str(written).unwrap())));
        } else if let Some(written) = line.strip_prefix("registration: ") {
            let written: WrittenRegistration = serde_saphyr::from_str(written).unwrap();
            let registration = Registration {
                instance: written.instance.clone(),
                namespace: written.namespace,
                service: written.service,
                address: written.address,
                port: written.port,
                labels: BTreeMap::new(),
                ready: true,
                draining: written.draining,
                host: "vm".to_owned(),
                app_protocol: written.app_protocol,
            };
            case.registrations.insert(written.instance, registration);
        }
    }
    for document in parse(&name.into(), text) {
        match document {
            Ok(document) => {
                case.documents.objects.insert(document.key.clone(), document.into());
            }
            Err(error) => case.errors.push(error.to_string()),
        }
    }
    case
}

/// A view as people read it. Also checks that every resource says the name it goes by.
fn shown(view: &View) -> Value {
    let list = |resources: &Resources| -> Value {
        let shown = resources.iter().map(|(name, resource)| {
            assert_eq!(*name, resource.name);
            let any = Any::decode(&resource.bytes[..]).unwrap();
            let value = proto::json::of(&any.type_url, &any.value).unwrap();
            let own = value["name"].as_str().or(value["clusterName"].as_str());
            assert_eq!(own, Some(&**name));
            value
        });
        shown.collect()
    };
    json!({
        "clusters": list(&view.clusters),
        "endpoints": list(&view.endpoints),
        "listeners": list(&view.listeners),
        "routes": list(&view.routes),
        // What is in them is for nobody's eyes.
        "secrets": view.secrets.keys().map(|name| &**name).collect::<Vec<_>>(),
    })
}

/// Every case with the path of its documents.
fn cases() -> Vec<(PathBuf, Case)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    documents
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let case = read(name, &fs::read_to_string(&path).unwrap());
            (path, case)
        })
        .collect()
}

/// A view as the bootstrap file of an Envoy that asks nobody: its routes where its listeners name them, and its secrets.
fn bootstrap(compiled: &View) -> Value {
    let view = shown(compiled);
    let mut listeners = view["listeners"].clone();
    let chains =
        listeners.as_array_mut().unwrap().iter_mut().flat_map(|l| l["filterChains"].as_array_mut().unwrap());
    for filter in chains.flat_map(|chain| chain["filters"].as_array_mut().unwrap()) {
        let config = filter["typedConfig"].as_object_mut().unwrap();
        if let Some(rds) = config.remove("rds") {
            let table =
                view["routes"].as_array().unwrap().iter().find(|t| t["name"] == rds["routeConfigName"]);
            let mut table = table.unwrap().clone();
            // Routes that come by themselves may name clusters that do not exist (yet).
            table["validateClusters"] = false.into();
            config.insert("routeConfig".to_owned(), table);
        }
    }
    let address = json!({ "socketAddress": { "address": "127.0.0.1", "portValue": 1 } });
    let control = json!({
        "name": "control",
        "loadAssignment": {
            "clusterName": "control",
            "endpoints": [{ "lbEndpoints": [{ "endpoint": { "address": address } }] }],
        },
        "typedExtensionProtocolOptions": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicitHttpConfig": { "http2ProtocolOptions": {} },
        } },
    });
    let mut clusters = view["clusters"].clone();
    clusters.as_array_mut().unwrap().push(control);
    json!({
        "node": { "id": "golden", "cluster": "golden" },
        "dynamicResources": { "adsConfig": {
            "apiType": "DELTA_GRPC",
            "transportApiVersion": "V3",
            "grpcServices": [{ "envoyGrpc": { "clusterName": "control" } }],
        } },
        "staticResources": { "listeners": listeners, "clusters": clusters, "secrets": secrets(compiled) },
    })
}

/// What a proxy gets, and what it has by itself: a certificate of its own and whom to trust.
fn secrets(compiled: &View) -> Value {
    let sent = compiled.secrets.values().map(|resource| {
        let any = Any::decode(&resource.bytes[..]).unwrap();
        proto::json::of(&any.type_url, &any.value).unwrap()
    });
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    let own = [
        json!({ "name": "default", "tlsCertificate": {
            "certificateChain": { "inlineString": certificate },
            "privateKey": { "inlineString": key.serialize_pem() },
        } }),
        json!({ "name": "ROOTCA", "validationContext": { "trustedCa": { "inlineString": certificate } } }),
    ];
    own.into_iter().chain(sent).collect()
}

#[test]
fn envoy_accepts_everything_that_is_compiled() {
    let directory = tempfile::tempdir().unwrap();
    for (path, case) in cases() {
        let (model, _) = model::build(&case.documents, &case.registrations, refusal);
        for (line, client) in &case.clients {
            let file = directory.path().join("envoy.json");
            fs::write(&file, bootstrap(&compile(&model, &Shared::default(), client)).to_string()).unwrap();
            let mut envoy = Command::new(support::envoy_program::envoy_program());
            let output = envoy.args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}, {line}: {said}", path.display());
        }
    }
}

#[test]
fn documents_become_the_resources_beside_them() {
    for (path, case) in cases() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let (model, conditions) = model::build(&case.documents, &case.registrations, refusal);
        let clients: BTreeMap<_, _> = case
            .clients
            .iter()
            .map(|(line, client)| (line.clone(), shown(&compile(&model, &Shared::default(), client))))
            .collect();
        let status: BTreeMap<_, _> =
            conditions.objects.iter().map(|(key, status)| (key.to_string(), status)).collect();
        let all = json!({
            "errors": case.errors,
            "refusedRegistrations": conditions.refused_registrations,
            "status": status,
            "resources": clients,
        });
        let text = serde_json::to_string_pretty(&all).unwrap() + "\n";
        let golden = path.with_extension("resources.json");
        if env::var_os("UPDATE").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(text == expected, "{name}: not as in {}; UPDATE=1 rewrites it", golden.display());
    }
}

#[test]
fn the_same_documents_make_the_same_bytes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read_to_string(directory.join("sidecar.yaml")).unwrap();
    let view = || {
        let case = read("sidecar.yaml", &text);
        let (model, _) = model::build(&case.documents, &case.registrations, refusal);
        case.clients.iter().map(|(_, client)| compile(&model, &Shared::default(), client)).collect::<Vec<_>>()
    };
    assert_eq!(view(), view());
}

#[test]
fn what_does_not_depend_on_the_client_is_encoded_once() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let case = read("sidecar.yaml", &fs::read_to_string(directory.join("sidecar.yaml")).unwrap());
    let (model, _) = model::build(&case.documents, &case.registrations, refusal);
    let [(_, web), (_, other), ..] = &case.clients[..] else { panic!("the case has two sidecars") };
    let encoded = Shared::default();
    let (web, other) = (compile(&model, &encoded, web), compile(&model, &encoded, other));
    let mut shared = 0;
    for (mine, theirs) in [(&web.clusters, &other.clusters), (&web.endpoints, &other.endpoints)] {
        for (name, resource) in mine {
            let Some(other) = theirs.get(name) else { continue };
            assert!(std::sync::Arc::ptr_eq(resource, other), "{name} is encoded twice");
            shared += 1;
        }
    }
    assert!(shared > 0);
}
