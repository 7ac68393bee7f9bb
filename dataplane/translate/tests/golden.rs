//! Bootstrap files and what they become, as text. `UPDATE=1` rewrites the expectations.

mod describe;

use std::{env, fmt::Write, fs, path::Path};

use prost::Message;
use proto::pb::envoy::config::bootstrap::v3::Bootstrap;
use translate::assemble::{Assembler, Options, Update};

/// The file's own facts, then the snapshot that its static resources make.
fn translated(file: &Path) -> String {
    let name = file.file_name().unwrap().to_string_lossy();
    let bytes = match proto::bootstrap::parse(&name, &fs::read_to_string(file).unwrap()) {
        Ok(bytes) => bytes,
        Err(error) => return format!("{error}\n"),
    };
    let bootstrap = match translate::bootstrap::translate(&Bootstrap::decode(&*bytes).unwrap()) {
        Ok(bootstrap) => bootstrap,
        Err(fault) => return format!("{name}: {fault}\n"),
    };
    let mut out = describe::bootstrap(&bootstrap);
    let mut assembler = Assembler::new(Options { workers: 1, seed: 7 });
    let mut snapshot = assembler.apply(bootstrap.resources);
    let mut looked_up = Vec::new();
    for (name, dns) in assembler.dns_clusters() {
        for endpoint in &dns.assignment.endpoints {
            let host = endpoint.address.host.to_string();
            writeln!(out, "look up {host} for {name} ({:?}) every {:?}", dns.family, dns.refresh_rate)
                .unwrap();
            let addresses = vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
            looked_up.push(Update::Dns { cluster: name.to_string(), host, addresses });
        }
    }
    snapshot = assembler.apply(looked_up).or(snapshot);
    out.push_str(&snapshot.map(|snapshot| describe::snapshot(&snapshot)).unwrap_or_default());
    out
}

#[test]
fn bootstrap_files_become_what_is_written_beside_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|of| of == "yaml")).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let (is, expected) = (translated(&file), file.with_extension("txt"));
        if env::var_os("UPDATE").is_some() {
            fs::write(expected, is).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != is {
            wrong.push(format!("{} is not:\n{is}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
