//! The binary as a user meets it: what it prints, how it ends.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use support::{Ads, Plane, gateway, wildcard};

fn ringway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(arguments).env_remove("RINGWAY_API").env_remove("RINGWAY_CONTROL");
    command
}

async fn output(arguments: &[&str]) -> Output {
    let mut command = ringway(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// `ringway serve` on chosen ports, ended when dropped.
struct Serving {
    child: Child,
    /// What it printed at start, by its first word.
    lines: Vec<(String, String)>,
}

impl Serving {
    fn start(config: &Path, data_dir: &Path) -> Serving {
        let mut command = ringway(&["serve", "--api", "127.0.0.1:0"]);
        command.arg("--config").arg(config).arg("--data-dir").arg(data_dir);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.as_mut().unwrap());
        let lines = out.lines().take(4).map(|line| {
            let line = line.unwrap();
            let (what, value) = line.split_at(15);
            (what.trim().to_owned(), value.trim().to_owned())
        });
        let lines = lines.collect();
        Serving { child, lines }
    }

    fn printed(&self, what: &str) -> &str {
        &self.lines.iter().find(|(name, _)| name == what).unwrap().1
    }

    /// Ends it with a signal; its exit code and what it said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Only matters when a test failed before `end`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BAD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: pay}\nspec:\n  portz: []\n";

#[test]
fn serve_prints_its_ports_says_what_is_wrong_and_ends_cleanly_on_either_signal() {
    for signal in ["INT", "TERM"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.yaml"), BAD).unwrap();
        let data = tempfile::tempdir().unwrap();
        let serving = Serving::start(dir.path(), data.path());
        let socket = data.path().join("control.sock");
        assert_eq!(serving.printed("control plane"), format!("unix:{}", socket.display()));
        assert!(serving.printed("config").ends_with("0 documents, 1 errors"), "{:?}", serving.lines);
        let api = serving.printed("api").to_owned();
        assert!(api.starts_with("http://127.0.0.1:"), "{api}");
        let status = ringway(&["status", "--api", &api]).output().unwrap();
        assert_eq!(status.status.code(), Some(1), "a document is wrong");
        assert!(text(&status.stdout).contains("no proxy is connected"), "{}", text(&status.stdout));
        let (code, said) = serving.end(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("bad.yaml:5:"), "{said}");
        assert!(!said.contains('\x1b'), "colour without a terminal: {said}");
        assert_eq!(ringway(&["status", "--api", &api]).output().unwrap().status.code(), Some(2));
    }
}

#[test]
fn serve_refuses_what_it_cannot_serve_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().to_str().unwrap();
    let missing = format!("{config}/missing");
    let file = format!("{config}/file");
    std::fs::write(&file, "").unwrap();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    let socket = &format!("{config}/control.sock");
    let nowhere = &format!("{config}/no/folder/control.sock");
    let long = &format!("{config}/{}", "x".repeat(108));
    let table = [
        ([&missing, socket, any, config], format!("error: cannot read the directory {missing}: ")),
        (
            [config, socket, "192.0.2.1:0", config],
            "error: the API's address 192.0.2.1:0 is not loopback".into(),
        ),
        ([config, nowhere, any, config], format!("error: cannot listen on {nowhere} (--socket): ")),
        (
            [config, long, any, config],
            format!("error: cannot listen on {long} (--socket): path must be shorter than SUN_LEN"),
        ),
        ([config, socket, &taken, config], format!("error: cannot listen on {taken} (--api): ")),
        ([config, socket, any, &file], format!("error: cannot use the data directory {file}: ")),
    ];
    for ([config, socket, api, data], start) in table {
        let arguments = [
            "serve",
            "--config",
            config,
            "--socket",
            socket,
            "--api",
            api,
            "--data-dir",
            data,
            "--log",
            "off",
        ];
        let output = ringway(&arguments).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with(&start) && said.lines().count() == 1, "{start:?} {said:?}");
    }
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_waits_until_the_newest_revision_is_active_and_not_longer() {
    let plane = Plane::start(&[]).await;
    let url = plane.api_url();
    let status = output(&["status", "--wait", "--api", &url]).await;
    assert_eq!(status.status.code(), Some(0), "nobody is behind: {}", text(&status.stdout));

    // A gateway that exists nowhere gets nothing; having said so for every type it is synced.
    let node = gateway("edge-1", "shop", "edge", "envoy");
    let mut ads = Ads::open(plane.socket(), node, wildcard(proto::type_url::CLUSTER)).await;
    let first = ads.next().await;
    let pending = output(&["status", "--wait", "--timeout", "400ms", "--api", &url]).await;
    assert_eq!(pending.status.code(), Some(1));
    assert!(text(&pending.stdout).contains("pending"), "{}", text(&pending.stdout));
    let waiting = tokio::spawn({
        let url = url.clone();
        async move { output(&["status", "--wait", "-o", "json", "--api", &url]).await }
    });
    ads.ack(&first).await;
    let waited = waiting.await.unwrap();
    assert_eq!(waited.status.code(), Some(0));
    let shown: serde_json::Value = serde_json::from_slice(&waited.stdout).unwrap();
    assert_eq!(shown["synced"], true);
    assert_eq!(shown["proxies"][0]["state"], "synced");
    assert_eq!(shown["proxies"][0]["app"], "shop/edge");

    drop(ads);
    plane.status(|status| status.proxies[0].state == ringway::report::SyncState::Offline).await;
    let offline = output(&["status", "--api", &url]).await;
    assert_eq!(offline.status.code(), Some(1));
    assert!(text(&offline.stdout).contains("offline"), "{}", text(&offline.stdout));
}

#[test]
fn the_command_line_says_who_it_is_and_completes_itself() {
    let version = ringway(&["--version"]).output().unwrap();
    assert_eq!(text(&version.stdout), format!("ringway {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        let script = ringway(&["completion", shell]).output().unwrap();
        assert!(script.status.success() && text(&script.stdout).contains("ringway"), "{shell}");
    }
    assert_eq!(ringway(&["status", "--api", "nonsense"]).output().unwrap().status.code(), Some(2));
    assert_eq!(ringway(&["status", "--timeout", "soon"]).output().unwrap().status.code(), Some(2));
}
