//! Two applications that know nothing of a mesh, each with a sidecar that is the real proxy.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use ringway::ca::SVID_LIFE_MIN;
use rustix::process::{Signal, kill_process};

use super::harness::{Mesh, Run, files_below};
use super::process::{children_of, until_gone};
use super::stand_in::serve;

/// The proxy of this build: beside the folder of this executable.
pub(super) fn proxy() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let proxy = this.parent().and_then(|deps| deps.parent()).unwrap().join("ringway-proxy");
    assert!(proxy.exists(), "{} is missing; `cargo build -p dataplane` makes it", proxy.display());
    proxy
}

/// Service `pay`, that says so.
pub(super) fn pay(mesh: &Mesh) -> Run {
    let mut run = pay_on(mesh, mesh.port(), &[]);
    run.until("taking requests");
    run
}

pub(super) fn pay_on(mesh: &Mesh, port: u16, options: &[&str]) -> Run {
    pay_by(mesh, port, options, &[])
}

/// It ends only when its input says so.
fn pay_that_ignores(mesh: &Mesh, signal: &str) -> Run {
    let script = format!("trap '' {signal}; exec \"$@\"");
    let mut run = pay_by(mesh, mesh.port(), &[], &["sh", "-c", &script, "sh"]);
    run.until("taking requests");
    run
}

/// With words before the application's.
fn pay_by(mesh: &Mesh, port: u16, options: &[&str], words: &[&str]) -> Run {
    let named = ["--name", "pay", "--port", &port.to_string()];
    let this = std::env::current_exe().unwrap();
    let app = [this.to_str().unwrap(), "--exact", "stand_in::stand_in_for_a_server", "--nocapture"];
    let mut command = mesh.command(&[&named, options].concat(), &[words, &app].concat());
    command.env("STAND_IN_FOR_SERVER", port.to_string()).env("STAND_IN_IS", "pay");
    Run::start(command, port)
}

/// Service `web`, that calls pay.
pub(super) fn web(mesh: &Mesh, pay: &Run) -> Run {
    web_to(mesh, &format!("pay:{}", pay.port))
}

fn web_to(mesh: &Mesh, to: &str) -> Run {
    let mut command = mesh.stand_in(&["--to", to], "stand_in_for_a_caller");
    command.env("STAND_IN_FOR_CALLER", "yes");
    // It listens on nothing, which is its own affair for as long as this.
    Run::start(command, 0)
}

pub(super) fn pair(mesh: &Mesh) -> (Run, Run) {
    let pay = pay(mesh);
    let web = web(mesh, &pay);
    (pay, web)
}

/// Calls until the first answer that is not that of a mesh which does not know the service yet.
fn calls(web: &mut Run, target: &str) -> String {
    loop {
        web.say(target);
        let said = web.until(&format!("{target}: "));
        if !said.contains(": 503 ") && !said.contains(": 404 ") {
            return said;
        }
    }
}

#[test]
fn an_application_reaches_another_by_name_and_by_a_local_port() {
    let mesh = Mesh::with_proxy(proxy());
    let (mut pay, mut web) = pair(&mesh);
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
    let variable = format!("RINGWAY_PAY_{}_ADDR", pay.port);
    assert_eq!(calls(&mut web, &variable), format!("{variable}: 200 pay"));
    web.close();
    assert_eq!(web.wait(), 0, "{}", web.rest());
    pay.signal(Signal::TERM);
    assert_eq!(pay.wait(), 128 + 15, "{}", pay.rest());
}

/// The identity of a service's proxy, as it is kept on disk.
fn kept_identity(mesh: &Mesh, service: &str) -> Option<Vec<u8>> {
    let is_its = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.contains(&format!("/{service}-")) && path.contains("/identity-") && path.ends_with(".bin")
    };
    let file = files_below(&mesh.folder.path().join("data")).into_iter().find(is_its)?;
    fs::read(file).ok()
}

#[test]
fn certificates_change_every_few_seconds_and_no_call_fails() {
    let mesh = Mesh::with_svid_life(proxy(), "", SVID_LIFE_MIN);
    // Plain TCP, so that every call is a connection, and a handshake, of its own.
    let mut pay = pay_on(&mesh, mesh.port(), &["--protocol", "tcp"]);
    pay.until("taking requests");
    let mut web = web(&mesh, &pay);
    let variable = format!("RINGWAY_PAY_{}_ADDR", pay.port);
    let answer = format!("{variable}: 200 pay");
    web.say(&variable);
    while web.until(&format!("{variable}: ")) != answer {
        web.say(&variable);
    }
    let mut identities = BTreeSet::new();
    while identities.len() < 8 {
        web.say(&variable);
        assert_eq!(web.until(&format!("{variable}: ")), answer, "after {} certificates", identities.len());
        identities.extend(["pay", "web"].into_iter().filter_map(|service| kept_identity(&mesh, service)));
    }
}

#[test]
fn an_application_reaches_hosts_outside_the_mesh() {
    let mesh = Mesh::with_proxy(proxy());
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    std::thread::spawn(move || serve(&outside, "outside"));
    let mut web = web_to(&mesh, "pay:80");
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("http://{host}:{port}/");
        assert_eq!(calls(&mut web, &url), format!("{url}: 200 outside"));
    }
    // One letter more than a label may have: no name server needs to be asked that it does not exist.
    let impossible = format!("http://{}.invalid/", "x".repeat(64));
    for (url, status) in [
        ("http://nobody.mesh/", "404 no service of the mesh has this name"),
        (&*impossible, "503 no address found for the host of the request"),
    ] {
        web.say(url);
        assert_eq!(web.until(url).trim(), format!("{url}: {status}"));
    }
}

#[test]
fn traffic_flows_again_when_a_proxy_died_and_the_control_plane_is_away() {
    let mut mesh = Mesh::with_proxy(proxy());
    let (mut pay, mut web) = pair(&mesh);
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
    mesh.until_stored(2);
    mesh.stop_control_plane();
    for run in [&mut pay, &mut web] {
        kill_process(run.proxy(), Signal::KILL).unwrap();
        run.until("proxy ready again");
    }
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
}

#[test]
fn a_workload_starts_again_on_its_addresses_while_the_control_plane_is_away() {
    let mut mesh = Mesh::with_proxy(proxy());
    // On an address of its own: on the usual one somebody else may take the inbound port while nobody has it.
    let mut pay = pay_on(&mesh, mesh.port(), &["--advertise", "127.0.0.2"]);
    pay.until("taking requests");
    let mut web = web(&mesh, &pay);
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
    mesh.until_stored(2);
    let control = mesh.control();
    mesh.stop_control_plane();
    // Killed, so that nobody has unregistered it: the other proxy still sends requests where it was.
    let children = children_of(pay.pid());
    pay.signal(Signal::KILL);
    pay.wait();
    children.into_iter().for_each(until_gone);
    let mut again = pay_on(&mesh, pay.port, &["--advertise", "127.0.0.2", "--control", &control]);
    again.until("taking requests");
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
}

#[test]
fn no_call_is_lost_when_one_of_two_replicas_is_ended() {
    // A target port by name takes whatever port a replica registers.
    let documents = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: default}\n\
                     spec: {ports: [{name: http, port: 80, targetPort: http}]}\n";
    let mesh = Mesh::with_documents(proxy(), documents);
    let (mut first, _second) = (pay_that_ignores(&mesh, "TERM"), pay(&mesh));
    let mut web = web_to(&mesh, "pay:80");
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
    let mut call = || {
        web.say("http://pay.mesh/");
        assert_eq!(web.until("http://pay.mesh/: "), "http://pay.mesh/: 200 pay");
    };
    // As a server that ends gracefully: told to end, it goes on for as long as it may be called.
    first.signal(Signal::TERM);
    while !mesh.everyone_knows_who_drains() {
        call();
    }
    first.say("end");
    while first.child.try_wait().unwrap().is_none() {
        call();
    }
}

/// Asks until the answer is what it should be.
pub(super) fn until_answered(web: &mut Run, target: &str, wanted: &str) {
    let answer = format!("{target}: {wanted}");
    web.say(target);
    while web.until(&format!("{target}: ")) != answer {
        web.say(target);
    }
}

/// A policy of the workloads of pay.
pub(super) fn of_pay(action: &str, rules: &str) -> String {
    format!(
        "apiVersion: ringway.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: of-pay}}\nspec:\n  \
         targetRefs: [{{kind: Service, name: pay}}]\n  action: {action}\n  rules:\n  - {rules}\n"
    )
}

/// What `ringway id can` answers, and its exit code.
fn can(mesh: &Mesh, words: &str) -> (String, i32) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output =
        command.args(["id", "can"]).args(words.split(' ')).args(["--api", &mesh.api()]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (said.lines().take(2).map(str::trim).collect::<Vec<_>>().join(" "), output.status.code().unwrap())
}

#[test]
fn who_may_call_is_what_the_documents_say_from_one_moment_to_the_next() {
    let mesh = Mesh::with_proxy(proxy());
    let (pay, mut web) = pair(&mesh);
    let (home, admin) = ("http://pay.mesh/", "http://pay.mesh/admin/keys");
    let by_port = format!("RINGWAY_PAY_{}_ADDR", pay.port);
    until_answered(&mut web, home, "200 pay");
    assert_eq!(
        can(&mesh, "web pay"),
        (
            "allowed: no policy is about it, or none forbids it \
        spiffe://mesh.local/ns/default/sa/web calls default/pay, port PORT, http"
                .replace("PORT", &pay.port.to_string()),
            0
        )
    );

    let is_web = "sources: [{type: ServiceAccount, serviceAccount: {name: web}}]";
    mesh.write(&of_pay("ALLOW", "sources: [{type: ServiceAccount, serviceAccount: {name: mobile}}]"));
    until_answered(&mut web, home, "403 RBAC: access denied");
    until_answered(&mut web, &by_port, "403 RBAC: access denied");
    assert_eq!(can(&mesh, "web pay").1, 1);
    assert_eq!(
        can(&mesh, "mobile pay"),
        (
            "allowed: a rule allows it mesh.yaml:8:5: AuthorizationPolicy default/of-pay, spec.rules[0]"
                .to_owned(),
            0
        )
    );

    mesh.write(&of_pay("ALLOW", is_web));
    until_answered(&mut web, home, "200 pay");
    until_answered(&mut web, admin, "200 pay");

    let is_admin = "httpAttributes: {paths: [{type: PathPrefix, value: /admin}]}";
    mesh.write(&of_pay("DENY", &format!("{is_web}\n    {is_admin}")));
    until_answered(&mut web, admin, "403 RBAC: access denied");
    until_answered(&mut web, home, "200 pay");
    assert_eq!(
        can(&mesh, "web pay GET /%61dmin//keys"),
        (
            "denied: a rule denies it mesh.yaml:8:5: AuthorizationPolicy default/of-pay, spec.rules[0]"
                .to_owned(),
            1
        )
    );

    // What cannot be used changes nothing.
    mesh.write(&of_pay("DENIED", is_admin));
    assert_eq!(can(&mesh, "web pay GET /admin").1, 1);
    until_answered(&mut web, admin, "403 RBAC: access denied");
    mesh.write("");
    until_answered(&mut web, admin, "200 pay");
    assert_eq!(can(&mesh, "web nobody").1, 2);
}

#[test]
fn a_connection_of_no_protocol_is_ended_when_a_policy_comes_that_does_not_allow_it() {
    let mesh = Mesh::with_proxy(proxy());
    let mut pay = pay_on(&mesh, mesh.port(), &["--protocol", "tcp"]);
    pay.until("taking requests");
    let mut web = web(&mesh, &pay);
    let by_port = format!("RINGWAY_PAY_{}_ADDR", pay.port);
    until_answered(&mut web, &by_port, "200 pay");
    mesh.write(&of_pay("ALLOW", "sources: [{type: ServiceAccount, serviceAccount: {name: mobile}}]"));
    until_answered(&mut web, &by_port, "no answer ");
    mesh.write("");
    until_answered(&mut web, &by_port, "200 pay");
}
