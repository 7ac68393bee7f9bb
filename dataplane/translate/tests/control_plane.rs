//! What our control plane serves, the proxy takes: the golden resources of `control/` translate, every one, and together
//! they make a snapshot in which nothing waits.

use std::{fs, path::Path, sync::Arc};

use policy::tls::Secret;
use prost::Message;
use proto::{
    ads,
    pb::envoy::{
        config::{bootstrap::v3::Bootstrap, listener::v3::filter::ConfigType},
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
    },
    type_url,
};
use serde_json::{Value, json};
use translate::{
    Origin,
    assemble::{Accepted, Assembler, Options, Update},
};

/// Reads resources of one type by standing them where a bootstrap file may have them.
fn messages(kind: &str, resources: &[Value]) -> Vec<ads::Any> {
    const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let manager =
        |table: &Value| json!({"@type": format!("type.googleapis.com/{MANAGER}"), "routeConfig": table});
    let statics = match kind {
        "clusters" => json!({"clusters": resources}),
        "endpoints" => {
            json!({"clusters": resources.iter().map(|of| json!({"loadAssignment": of})).collect::<Vec<_>>()})
        }
        "listeners" => json!({"listeners": resources}),
        "routes" => {
            let chain = |table| json!({"filters": [{"typedConfig": manager(table)}]});
            json!({"listeners": [{"filterChains": resources.iter().map(chain).collect::<Vec<_>>()}]})
        }
        other => panic!("resources of an unknown kind {other}"),
    };
    let text = json!({"staticResources": statics}).to_string();
    let bytes = proto::bootstrap::parse(kind, &text).unwrap_or_else(|error| panic!("{error}"));
    let statics = Bootstrap::decode(&*bytes).unwrap().static_resources.unwrap();
    match kind {
        "clusters" => statics.clusters.iter().map(ads::Any::pack).collect(),
        "listeners" => statics.listeners.iter().map(ads::Any::pack).collect(),
        "endpoints" => {
            let assignments = statics.clusters.iter().flat_map(|cluster| &cluster.load_assignment);
            assignments.map(ads::Any::pack).collect()
        }
        _ => {
            let chains = statics.listeners.iter().flat_map(|listener| &listener.filter_chains);
            let table = |config: &Option<ConfigType>| {
                let Some(ConfigType::TypedConfig(any)) = config else { panic!("{config:?}") };
                match HttpConnectionManager::decode(&*any.value).unwrap().route_specifier {
                    Some(RouteSpecifier::RouteConfig(table)) => ads::Any::pack(&table),
                    other => panic!("{other:?}"),
                }
            };
            chains.map(|chain| table(&chain.filters[0].config_type)).collect()
        }
    }
}

fn updates(resources: &Value) -> Vec<Update> {
    let kinds = resources.as_object().unwrap().iter().filter(|(kind, _)| *kind != "secrets");
    let all = kinds.flat_map(|(kind, of)| messages(kind, of.as_array().unwrap()));
    all.map(|body| {
        let resource =
            ads::Resource { version: "1".into(), name: String::new(), resource: Some(body.clone()) };
        translate::resource(&body.type_url, &resource).unwrap_or_else(|rejected| panic!("{rejected}"))
    })
    .collect()
}

/// What a proxy that is somebody has by itself, and what it is sent, of which the golden files have the names alone.
fn secrets(resources: &Value) -> Vec<Update> {
    let secret = |name: &str, origin| {
        let value = Arc::new(Secret::Trust(Arc::default()));
        Update::Secret(Accepted { name: name.into(), version: "".into(), origin, value })
    };
    let own = ["default", "ROOTCA"].map(|name| secret(name, Origin::Static));
    let sent = resources["secrets"].as_array().unwrap().iter();
    own.into_iter().chain(sent.map(|name| secret(name.as_str().unwrap(), Origin::Dynamic))).collect()
}

#[test]
fn every_resource_of_the_control_plane_is_accepted_and_all_become_active() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../control/tests/golden");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (mut clients, mut names) = (0, 0);
    for file in files.filter(|file| file.to_string_lossy().ends_with(".resources.json")) {
        let golden: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        for (client, resources) in golden["resources"].as_object().unwrap() {
            let mut assembler = Assembler::new(Options { workers: 1, seed: 7 });
            assembler.apply(updates(resources));
            // Once they are asked for.
            assembler.apply(secrets(resources));
            for type_url in type_url::MAKE_ORDER {
                let warming = assembler.status(type_url).warming;
                assert_eq!(warming, Vec::<Arc<str>>::new(), "{} {client} {type_url}", file.display());
            }
            // It answers for every name sooner or later, and says so.
            for type_url in [type_url::ROUTE_CONFIGURATION, type_url::CLUSTER_LOAD_ASSIGNMENT] {
                let wanted = assembler.wanted(type_url);
                assert!(wanted.values().all(Option::is_none), "{} {client} {wanted:?}", file.display());
                names += wanted.len();
            }
            clients += 1;
        }
    }
    assert!(clients > 1 && names > 1, "the golden files are elsewhere");
}

#[test]
fn the_bootstrap_files_that_our_commands_write_are_understood() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../control/tests/golden/bootstrap");
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "the golden files are elsewhere");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let bytes =
            proto::bootstrap::parse(&file.to_string_lossy(), &text).unwrap_or_else(|error| panic!("{error}"));
        let bootstrap = translate::bootstrap::translate(&Bootstrap::decode(&*bytes).unwrap());
        let bootstrap = bootstrap.unwrap_or_else(|fault| panic!("{}: {fault}", file.display()));
        let control_plane = bootstrap.control_plane.unwrap();
        assert!(control_plane.listeners && control_plane.clusters, "{}", file.display());
    }
}
