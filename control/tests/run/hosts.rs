//! Two machines: a control plane on one, and `ringway join` for the other.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use ringway::ca::SVID_LIFE_MIN;
use rustix::process::Signal;
use tempfile::TempDir;

use super::harness::{Mesh, Run};
use super::process::until;
use super::real::{pay_on, proxy, until_answered, web};

/// A machine that has joined, or is about to.
struct Host {
    folder: TempDir,
    joined: Option<Run>,
}

/// A token for host vm1, on which `allow` may run.
fn token(mesh: &Mesh, allow: &str) -> String {
    let data_dir = mesh.folder.path().join("control");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output =
        command.args(["token", "--host", "vm1", "--allow", allow, "--data-dir"]).arg(data_dir).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

impl Host {
    fn new() -> Host {
        Host { folder: tempfile::tempdir().unwrap(), joined: None }
    }

    fn command(&self, mesh: &Mesh, token: Option<&str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        command
            .args(["join", &mesh.hosts(), "--data-dir"])
            .arg(self.folder.path())
            .env_remove("RINGWAY_TOKEN");
        if let Some(token) = token {
            command.env("RINGWAY_TOKEN", token);
        }
        command
    }

    fn join(&mut self, mesh: &Mesh, token: Option<&str>) {
        self.joined = Some(Run::start(self.command(mesh, token), 0));
        until(|| self.socket().exists());
    }

    fn leave(&mut self) {
        let mut joined = self.joined.take().unwrap();
        joined.signal(Signal::TERM);
        assert_eq!(joined.wait(), 0, "{}", joined.rest());
        assert!(!self.socket().exists());
    }

    /// What it says instead of joining.
    fn refused(&self, mesh: &Mesh, token: Option<&str>) -> String {
        let Output { status, stderr, .. } = self.command(mesh, token).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn control(&self) -> String {
        format!("unix:{}", self.socket().display())
    }
}

#[test]
fn an_application_of_another_host_is_called_as_if_it_were_here() {
    let mesh = Mesh::with_proxy(proxy());
    let mut host = Host::new();
    host.join(&mesh, Some(&token(&mesh, "default/pay,default/web")));
    let mut pay = pay_on(&mesh, mesh.port(), &["--control", &host.control()]);
    pay.until("taking requests");
    let mut here = web(&mesh, &pay);
    until_answered(&mut here, "http://pay.mesh/", "200 pay");

    // Its agent goes away, and comes back without a token.
    host.leave();
    until_answered(&mut here, "http://pay.mesh/", "200 pay");
    host.join(&mesh, None);
    let mut second = pay_on(&mesh, mesh.port(), &["--control", &host.control()]);
    second.until("taking requests");
}

#[test]
fn on_a_host_runs_what_its_token_allows_and_nothing_else() {
    let mesh = Mesh::with_proxy(proxy());
    let mut host = Host::new();
    let token_of_host = token(&mesh, "default/pay");
    host.join(&mesh, Some(&token_of_host));
    let mut other = mesh.run(&["--control", &host.control(), "--control-timeout", "5s"], &["true"]);
    assert_eq!(other.wait(), 125);
    let said = other.rest();
    assert!(said.contains("spiffe://mesh.local/ns/default/sa/web may not run on host vm1"), "{said}");
    assert!(mesh.registered().is_empty());
}

#[test]
fn nobody_joins_without_a_token_of_this_mesh_that_is_still_good() {
    let mesh = Mesh::start();
    let mut host = Host::new();
    let said = host.refused(&mesh, None);
    assert!(said.contains("this host has not joined yet and there is no token"), "{said}");
    let said = host.refused(&mesh, Some("x"));
    assert!(
        said.contains("the token in RINGWAY_TOKEN is none: expected what `ringway token` printed"),
        "{said}"
    );

    let good = token(&mesh, "default/pay");
    let (secret, _) = good.split_once('.').unwrap();
    let of_another_mesh = format!("{secret}.{}", "0".repeat(64));
    let said = host.refused(&mesh, Some(&of_another_mesh));
    assert!(said.contains("cannot reach the control plane") && said.contains("UnknownIssuer"), "{said}");
    // Nobody learned the secret by that.
    host.join(&mesh, Some(&good));
    let said = Host::new().refused(&mesh, Some(&good));
    assert!(said.contains("the token is unknown, spent or expired"), "{said}");
    host.leave();
}

#[test]
fn the_identity_of_a_host_is_renewed_and_its_connections_go_on() {
    let mesh = Mesh::with_svid_life(proxy(), "", SVID_LIFE_MIN);
    let mut host = Host::new();
    host.join(&mesh, Some(&token(&mesh, "default/pay")));
    let mut pay = pay_on(&mesh, mesh.port(), &["--control", &host.control()]);
    pay.until("taking requests");
    let mut here = web(&mesh, &pay);
    let file = host.folder.path().join("host.json");
    for _ in 0..3 {
        let before = fs::read(&file).unwrap();
        until(|| fs::read(&file).unwrap() != before);
        until_answered(&mut here, "http://pay.mesh/", "200 pay");
    }
    mesh.until(|known| known.get("pay").is_some_and(|pay| pay.ready));
}
