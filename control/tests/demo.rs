//! `ringway demo` as its users see it, from its first line to the nothing that it leaves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};

use futures::{SinkExt as _, StreamExt as _};
use process::{PATIENCE, children_of, is_gone, until, until_gone};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

#[path = "support/process.rs"]
mod process;

#[test]
fn the_demo_moves_gives_its_lessons_and_leaves_nothing() {
    let mut demo = Demo::start();
    let head = demo.until("mesh up in ");
    let ports = ["api http://", "gateway http://"].map(|name| address(&head, name));
    let summary = demo.until("plaintext ");
    assert!(summary.starts_with("plaintext 6/6 edges   ") && summary.contains(" rps   p99 "), "{summary}");
    demo.until("try:  ringway status");
    assert_eq!(charge(ports[1], 250), 250, "through the gateway and a sidecar to pay");
    assert_eq!(chat(ports[1], "coffee?"), "coffee?", "through the gateway and a sidecar to the chat");
    let children = children_of(demo.pid());
    assert_eq!(children.len(), 13, "a proxy for the gateway and for each replica");

    let second = demo.ask(&["--plain", "--for", "1s"]);
    assert!(said(&second).contains("a demo of yours runs already"), "{}", said(&second));

    let lesson = demo.ask(&["break", "dead-replica"]);
    assert!(lesson.status.success(), "{}", said(&lesson));
    for words in
        ["orders-2 dies", "orders-1 took ", "the endpoint is gone from every proxy", "took its first request"]
    {
        assert!(said(&lesson).contains(words), "{words:?} is not in {}", said(&lesson));
    }
    let lesson = demo.ask(&["kill", "control-plane"]);
    assert!(lesson.status.success(), "{}", said(&lesson));
    for words in ["8.0 s without it: ", " requests, 0 failed", "13 of 13 proxies in sync after"] {
        assert!(said(&lesson).contains(words), "{words:?} is not in {}", said(&lesson));
    }

    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Some(0), "{:#?}", demo.seen);
    assert!(children.into_iter().all(is_gone), "a proxy outlived the demo");
    for port in ports {
        drop(TcpListener::bind(port).expect("the port is free again"));
    }
    assert_eq!(fs::read_dir(demo.temporary.path()).unwrap().count(), 0, "a file was left");
    let nobody = demo.ask(&["kill", "control-plane"]);
    assert!(said(&nobody).contains("no demo runs here"), "{}", said(&nobody));
}

#[test]
fn a_killed_demo_leaves_no_process_and_the_next_one_clears_its_files() {
    let mut killed = Demo::start();
    killed.until("mesh up in ");
    let children = children_of(killed.pid());
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait(), None);
    children.into_iter().for_each(until_gone);
    assert_eq!(fs::read_dir(killed.temporary.path()).unwrap().count(), 2, "its folder and the socket");
    let mut next = Demo::start_in(killed.temporary.clone(), &["--for", "1s"]);
    assert_eq!(next.wait(), Some(0), "{:#?}", next.seen);
    assert_eq!(fs::read_dir(next.temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_demo_that_is_ended_before_it_moves_leaves_nothing() {
    let mut demo = Demo::start();
    until(|| fs::read_dir(demo.temporary.path()).unwrap().count() > 0);
    let children = children_of(demo.pid());
    demo.signal(Signal::TERM);
    assert_eq!(demo.wait(), Some(0), "{:#?}", demo.seen);
    assert!(children.into_iter().all(is_gone));
    assert_eq!(fs::read_dir(demo.temporary.path()).unwrap().count(), 0);
}

static TURN: Mutex<()> = Mutex::new(());

/// A running demo, with a folder for temporary files of its own: that is also what the demo is found by.
struct Demo {
    // One at a time: each is a dozen processes under load.
    turn: Option<MutexGuard<'static, ()>>,
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
    temporary: Rc<TempDir>,
}

impl Demo {
    fn start() -> Demo {
        // A test that failed while it had its turn is no reason for others to fail.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut demo = Demo::start_in(Rc::new(tempfile::tempdir().unwrap()), &[]);
        demo.turn = Some(turn);
        demo
    }

    fn start_in(temporary: Rc<TempDir>, options: &[&str]) -> Demo {
        let this = std::env::current_exe().unwrap();
        let proxy = this.parent().and_then(|deps| deps.parent()).unwrap().join("ringway-proxy");
        assert!(proxy.exists(), "{} is missing; `cargo build -p dataplane` makes it", proxy.display());
        let mut command = demo(&temporary);
        // On addresses of their own, so that nobody else takes their ports when they are free again; and less load than
        // usual, which a machine that is busy with other things can carry, too.
        command.args([
            "--plain",
            "--rate",
            "40",
            "--api",
            "127.0.0.2:0",
            "--gateway",
            "127.0.0.2:0",
            "--proxy-bin",
        ]);
        command.arg(proxy).arg("--socket").arg(temporary.path().join("control.sock"));
        command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Demo { turn: None, child, lines, seen: Vec::new(), temporary }
    }

    /// Waits for a line that begins so.
    fn until(&mut self, start: &str) -> String {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
        let mut error = String::new();
        let _ = self.child.kill();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        panic!("no {start:?} in {:#?}\n{error}", self.seen);
    }

    /// Another `ringway demo` beside it, to its end.
    fn ask(&self, arguments: &[&str]) -> Output {
        demo(&self.temporary).args(arguments).output().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its exit code; `None` if a signal killed it.
    fn wait(&mut self) -> Option<i32> {
        until_gone(self.pid());
        self.seen.extend(self.lines.iter());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn demo(temporary: &TempDir) -> Command {
    // Whoever started the tests may have had them ignore Ctrl-C, as shells do with what runs in the background.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", env!("CARGO_BIN_EXE_ringway"), "demo"]);
    command.env("TMPDIR", temporary.path());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Cents {
    #[prost(uint32, tag = "1")]
    cents: u32,
}

/// Calls `shop.Pay/Charge`, as whoever has its proto file would; the status is OK, or this panics.
#[tokio::main(flavor = "current_thread")]
async fn charge(gateway: SocketAddr, cents: u32) -> u32 {
    let endpoint = Endpoint::from_shared(format!("http://{gateway}")).unwrap();
    let endpoint = endpoint.origin("http://shop.demo".parse().unwrap());
    let mut pay = Grpc::new(endpoint.connect().await.unwrap());
    pay.ready().await.unwrap();
    let codec = ProstCodec::<Cents, Cents>::default();
    let path = "/shop.Pay/Charge".parse().unwrap();
    pay.unary(tonic::Request::new(Cents { cents }), path, codec).await.unwrap().into_inner().cents
}

/// Opens the chat's WebSocket and says something; what comes back.
#[tokio::main(flavor = "current_thread")]
async fn chat(gateway: SocketAddr, text: &str) -> String {
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (mut socket, _) = client_async("ws://shop.demo/chat", stream).await.unwrap();
    socket.send(Message::text(text)).await.unwrap();
    let back = socket.next().await.unwrap().unwrap().into_text().unwrap();
    socket.close(None).await.unwrap();
    back.to_string()
}

/// The address behind `name` in a line.
fn address(line: &str, name: &str) -> SocketAddr {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name:?} in {line}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}
