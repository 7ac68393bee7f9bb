//! An application whose callers join the mesh one after the other, with sidecars that are the real proxy.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use ringway::api::{PlaintextEdges, Verdict};

use super::harness::{Mesh, Run};
use super::process::until;
use super::real::{of_pay, pair, proxy, until_answered, web};

/// Says how callers of pay are taken.
fn mode(mode: &str) -> String {
    format!(
        "apiVersion: ringway.io/v1alpha1\nkind: PeerAuthentication\nmetadata: {{name: of-pay}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: pay}}]\n  mtls: {{mode: {mode}}}\n---\n"
    )
}

/// Asks in plain text: the status and the body, or that there was no answer.
fn plain(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answer = String::new();
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: pay\r\nConnection: close\r\n\r\n");
    if sent.and_then(|()| stream.read_to_string(&mut answer)).is_err() {
        answer.clear();
    }
    let status = answer.split(' ').nth(1).unwrap_or("no answer");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} {body}").trim().to_owned()
}

/// What `ringway edges` knows, and its exit code.
fn edges(mesh: &Mesh, since: &str) -> (PlaintextEdges, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["edges", "--plaintext", "--since", since, "-o", "json", "--api", &mesh.api()]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let known = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (known, output.status.code().unwrap())
}

#[test]
fn callers_in_plain_text_are_let_in_for_as_long_as_it_is_said_and_shown() {
    let mesh = Mesh::with_proxy(proxy());
    let (_pay, mut web) = pair(&mesh);
    let home = "http://pay.mesh/";
    until_answered(&mut web, home, "200 pay");
    let address = mesh.registration("pay").address;

    // Nothing is said, so it is strict.
    assert_eq!(plain(address), "no answer");
    assert_eq!(mesh.metric("pay", "envoy_listener_no_filter_chain_match"), 1);
    let (known, code) = edges(&mesh, "1h");
    assert_eq!((known.edges.len(), known.permissive.len(), code), (0, 0, 0));

    mesh.write(&mode("Permissive"));
    until(|| plain(address) == "200 pay");
    until_answered(&mut web, home, "200 pay");
    until(|| !edges(&mesh, "1h").0.edges.is_empty());
    let (known, code) = edges(&mesh, "1h");
    let [edge] = &known.edges[..] else { panic!("{known:?}") };
    assert_eq!((&*edge.to, &*edge.address, code), ("default/pay", "127.0.0.1", 1));
    assert_eq!(edge.connections, mesh.metric("pay", "ringway_plaintext_connections_total"));
    assert_eq!(edge.connections, mesh.metric("pay", "ringway_plaintext_source_connections_total"));
    assert!(!edge.host.is_empty() && edge.from.is_empty(), "{edge:?}");
    let verdicts: Vec<_> = known.permissive.iter().map(|of| (&*of.service, of.verdict)).collect();
    assert_eq!(verdicts, [("default/pay", Verdict::Needed)]);

    // Whoever asks for an identity does not take those who have none for somebody.
    let is_web = "sources: [{type: ServiceAccount, serviceAccount: {name: web}}]";
    let is_mobile = is_web.replace("web", "mobile");
    mesh.write(&(mode("Permissive") + &of_pay("ALLOW", is_web)));
    until(|| plain(address) == "403 RBAC: access denied");
    until_answered(&mut web, home, "200 pay");
    mesh.write(&mode("Permissive"));
    until(|| plain(address) == "200 pay");
    mesh.write(&(mode("Permissive") + &of_pay("DENY", &is_mobile)));
    until(|| plain(address) == "403 RBAC: access denied");
    until_answered(&mut web, home, "200 pay");

    // Nobody comes so any more.
    mesh.write(&mode("Permissive"));
    until(|| {
        let (known, code) = edges(&mesh, "1s");
        code == 0 && known.permissive.iter().any(|of| of.verdict == Verdict::CanBeStrict)
    });
    mesh.write(&mode("Strict"));
    until(|| plain(address) == "no answer");
    until_answered(&mut web, home, "200 pay");
    let (known, code) = edges(&mesh, "1h");
    assert_eq!((known.edges.len(), known.permissive.len(), code), (1, 0, 1));
}

#[test]
fn a_server_that_speaks_first_is_heard_in_plain_text_and_by_the_others() {
    let mesh = Mesh::with_documents(proxy(), &mode("Permissive"));
    let port = mesh.port();
    let number = port.to_string();
    let options = ["--name", "pay", "--port", &number, "--protocol", "tcp"];
    let mut command = mesh.stand_in(&options, "stand_in_for_one_that_speaks_first");
    command.env("STAND_IN_SPEAKS_FIRST", &number);
    let mut pay = Run::start(command, port);
    pay.until("taking requests");
    let mut web = web(&mesh, &pay);
    let address = mesh.registration("pay").address;
    let by_port = format!("RINGWAY_PAY_{port}_ADDR");
    let hears = || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut said = [0; 11];
        stream.read_exact(&mut said).is_ok_and(|()| said == *b"220 hello\r\n")
    };
    until(hears);
    // Though it is known by now that the server speaks first.
    until_answered(&mut web, &by_port, "hello");
    assert!(hears());
    until_answered(&mut web, &by_port, "hello");
    assert_eq!(mesh.metric("pay", "envoy_listener_no_filter_chain_match"), 0);
}
