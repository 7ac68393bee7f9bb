//! Two applications that know nothing of a mesh, each with a sidecar that is the real proxy.

use std::path::PathBuf;

use rustix::process::{Signal, kill_process};

use super::harness::{Mesh, Run, free_port};

/// The proxy of this build: beside the folder of this executable.
fn proxy() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let proxy = this.parent().and_then(|deps| deps.parent()).unwrap().join("ringway-proxy");
    assert!(proxy.exists(), "{} is missing; `cargo build -p dataplane` makes it", proxy.display());
    proxy
}

/// Service `pay`, that says so.
fn pay(mesh: &Mesh) -> Run {
    let mut run = pay_on(mesh, free_port(), &[]);
    run.until("taking requests");
    run
}

fn pay_on(mesh: &Mesh, port: u16, options: &[&str]) -> Run {
    let named = ["--name", "pay", "--port", &port.to_string()];
    let mut command = mesh.stand_in(&[&named, options].concat(), "stand_in_for_a_server");
    command.env("STAND_IN_FOR_SERVER", port.to_string()).env("STAND_IN_IS", "pay");
    Run::start(command, port)
}

/// Service `web`, that calls pay.
fn web(mesh: &Mesh, pay: &Run) -> Run {
    let to = format!("pay:{}", pay.port);
    let mut command = mesh.stand_in(&["--to", &to], "stand_in_for_a_caller");
    command.env("STAND_IN_FOR_CALLER", "yes");
    // It listens on nothing, which is its own affair for as long as this.
    Run::start(command, 0)
}

fn pair(mesh: &Mesh) -> (Run, Run) {
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
    let (mut pay, mut web) = pair(&mesh);
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
    mesh.until_stored(2);
    let control = mesh.control();
    mesh.stop_control_plane();
    // Killed, so that nobody has unregistered it: the other proxy still sends requests where it was.
    pay.signal(Signal::KILL);
    pay.wait();
    let mut again = pay_on(&mesh, pay.port, &["--control", &control]);
    again.until("taking requests");
    assert_eq!(calls(&mut web, "http://pay.mesh/"), "http://pay.mesh/: 200 pay");
}
