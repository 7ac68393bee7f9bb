//! `ringway run` as its users see it: a real process with a real control plane, and applications that are shell
//! one-liners or this very executable. Here the proxy is a stand-in; in [`real`] it is the real one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use self::harness::{Mesh, Run, files_below};
use self::process::{children_of, is_gone, until_gone};

mod gateways;
mod harness;
mod hosts;
mod permissive;
#[path = "../support/process.rs"]
mod process;
mod real;
mod stand_in;

#[test]
fn the_exit_code_is_the_applications() {
    let mesh = Mesh::start();
    for (app, code) in [
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "kill -9 $$"], 128 + 9),
        (vec!["true"], 0),
        (vec!["/nowhere/my-app"], 127),
        (vec!["/etc/passwd"], 126),
    ] {
        let mut run = mesh.run(&[], &app);
        assert_eq!(run.wait(), code, "{app:?}: {}", run.rest());
    }
}

#[test]
fn the_application_is_told_where_the_mesh_is() {
    let mesh = Mesh::start();
    let script = "echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy $RINGWAY_PAY_80_ADDR $RINGWAY_BIG_LEDGER_SHOP_7000_ADDR";
    let local = mesh.port();
    let to = format!("big-ledger.shop:7000={local}");
    let mut run = mesh.run(&["--to", "pay:80", "--to", &to], &["sh", "-c", script]);
    assert_eq!(run.wait(), 0, "{}", run.rest());
    let mut told = String::new();
    run.child.stdout.take().unwrap().read_to_string(&mut told).unwrap();
    let told: Vec<&str> = told.split_whitespace().collect();
    let [upper, lower, no_upper, no_lower, pay, ledger] = told[..] else { panic!("{told:?}") };
    assert!(upper.starts_with("http://127.0.0.1:"), "{told:?}");
    assert_eq!((upper, no_upper), (lower, no_lower));
    assert_eq!(no_upper, "localhost,127.0.0.1,::1");
    assert!(pay.starts_with("127.0.0.1:") && pay != ledger, "{told:?}");
    assert_eq!(ledger, format!("127.0.0.1:{local}"));
}

#[test]
fn an_endpoint_takes_requests_only_while_the_application_accepts() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    mesh.until(|registered| registered.contains_key("web"));
    assert!(!mesh.registration("web").ready, "ready before its port accepts");
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.get("web").is_some_and(|web| web.ready));
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
    mesh.until(HashMap::is_empty);
}

#[test]
fn a_signal_to_end_reaches_the_mesh_first_and_then_the_application() {
    let mesh = Mesh::start();
    let app = "trap 'echo told; read line; exit 42' TERM; echo up; while :; do sleep 0.01; done";
    let mut run = mesh.run(&[], &["sh", "-c", app]);
    let mut lines = BufReader::new(run.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "up");
    mesh.until(|registered| registered.contains_key("web"));
    run.signal(Signal::TERM);
    assert_eq!(lines.next().unwrap(), "told");
    assert!(mesh.registration("web").draining, "the application knows before the mesh does");
    run.say("end");
    assert_eq!(run.wait(), 42, "{}", run.rest());
}

#[test]
fn a_second_signal_to_end_waits_for_nobody() {
    let mesh = Mesh::start();
    // It takes connections and says nothing, so it is waited for.
    let socket = mesh.folder.path().join("mute.sock");
    let _mute = UnixListener::bind(&socket).unwrap();
    let control = format!("unix:{}", socket.display());
    let app = "trap 'term=told' TERM; trap 'int=told' INT; echo up; \
               while [ \"$term$int\" != toldtold ]; do sleep 0.01; done; exit 42";
    let mut run = mesh.run(&["--control", &control], &["sh", "-c", app]);
    let mut lines = BufReader::new(run.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(lines.next().unwrap(), "up");
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.signal(Signal::INT);
    drop(lines);
    assert_eq!(run.wait(), 42, "{}", run.rest());
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[test]
fn ctrl_c_in_a_terminal_reaches_the_application_once() {
    let mesh = Mesh::start();
    let app = mesh.folder.path().join("app");
    // The traps only note what came: one may interrupt the other, and the shell then forgets the exit code of the inner.
    let text = "n=0\ntrap 'n=$((n+1)); echo interrupted' INT\ntrap 'asked=yes' USR1\necho up $PPID\n\
                while [ -z \"$asked\" ]; do sleep 0.01; done\necho counted $n\nexit 3\n";
    fs::write(&app, text).unwrap();
    let run = mesh.command(&[], &["sh", app.to_str().unwrap()]);
    let words: Vec<_> = std::iter::once(run.get_program()).chain(run.get_args()).collect();
    // `exec`: a shell that stayed between would get Ctrl-C, too, and end by it where we look for the exit code.
    let words: Vec<_> = std::iter::once(OsStr::new("exec")).chain(words).collect();
    // A terminal of its own, with the command in its foreground, and Ctrl-C not ignored even if our own parent does.
    let mut terminal = Command::new("env");
    terminal
        .args(["--default-signal=INT", "script", "--quiet", "--return", "--command"])
        .arg(words.join(OsStr::new(" ")))
        .arg("/dev/null")
        .envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = Run::start(terminal, 0);
    let mut screen = BufReader::new(terminal.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut on_screen =
        |part: &str| screen.find_map(|line| line.split_once(part).map(|(_, rest)| rest.to_owned()));
    let ringway = on_screen("up ").unwrap();
    mesh.until(|registered| registered.contains_key("web"));
    terminal.write("\x03");
    on_screen("interrupted").unwrap();
    // Signals are passed on in their order: an interrupt that was passed on, too, would come before this.
    kill_process(Pid::from_raw(ringway.trim().parse().unwrap()).unwrap(), Signal::USR1).unwrap();
    assert_eq!(on_screen("counted ").unwrap().trim(), "1");
    assert_eq!(terminal.wait(), 3);
}

#[test]
fn a_dead_proxy_is_started_again_on_the_same_ports() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.get("web").is_some_and(|web| web.ready));
    let before = mesh.registration("web");
    let first = run.proxy();
    kill_process(first, Signal::KILL).unwrap();
    run.until("was killed by signal 9; starting it again");
    run.until("proxy ready again");
    assert_ne!(run.proxy(), first);
    assert_eq!(mesh.registration("web"), before, "the outage changed the registration");
    // The stand-in listens where its bootstrap file says that the inbound listener is.
    drop(TcpStream::connect(before.address).unwrap());
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
}

#[test]
fn nothing_outlives_a_killed_ringway() {
    let mesh = Mesh::start();
    let port = mesh.port();
    // On an address of its own: on the usual one somebody else may take the inbound port while nobody has it.
    let mut run = mesh.run_listener_on(port, &["--advertise", "127.0.0.2"]);
    run.say("listen");
    run.until("taking requests");
    mesh.until(|registered| registered.contains_key("web"));
    let children = children_of(run.pid());
    assert_eq!(children.len(), 2, "the application and the proxy");
    let inbound = mesh.registration("web").address;
    run.signal(Signal::KILL);
    assert_eq!(run.wait(), -1);
    children.into_iter().for_each(until_gone);
    TcpListener::bind(inbound).unwrap();

    // The next one takes over name and ports instead of fighting with the lease that still holds.
    let mut next = mesh.run_listener_on(port, &["--advertise", "127.0.0.2"]);
    next.until("ringway: registered");
    assert_eq!(mesh.registration("web").address, inbound);
    next.say("end");
    assert_eq!(next.wait(), 0, "{}", next.rest());
}

#[test]
fn nothing_is_left_when_the_application_has_ended() {
    let mesh = Mesh::start();
    let mut run = mesh.run_listener(&[]);
    run.say("listen");
    run.until("taking requests");
    let children = children_of(run.pid());
    run.say("end");
    assert_eq!(run.wait(), 0, "{}", run.rest());
    assert!(children.into_iter().all(is_gone));
    mesh.until(HashMap::is_empty);
    let left = files_below(&mesh.folder.path().join("data/run"));
    let names: Vec<_> = left.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    assert_eq!(names, ["lock", "sidecar.json"]);
}

#[test]
fn what_cannot_work_is_said_and_nothing_is_started() {
    let mesh = Mesh::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let nobody = format!("unix:{}", mesh.folder.path().join("nobody.sock").display());
    let away = ["--control", &nobody, "--control-timeout", "200ms"];
    for (options, never_ready, code, said) in [
        (&["--port", &port][..], false, 125, "is taken: stop what listens there"),
        (
            &["--to", "pay:80", "--to", "pay:80=81"],
            false,
            125,
            "two dependencies would both be RINGWAY_PAY_80_ADDR",
        ),
        (&["--proxy-bin", "/etc/passwd"], false, 125, "cannot run /etc/passwd --version: Permission denied"),
        (
            &away,
            true,
            125,
            &format!(
                "no control plane at {nobody} for 200ms (`ringway serve` is one; --control names another): No such file or directory"
            ),
        ),
        (
            &["--to", &format!("pay:80={port}")],
            false,
            125,
            &format!("--to pay:80={port}: cannot reserve 127.0.0.1:{port}"),
        ),
        (&["--proxy-log", "loud"], false, 2, "expected error, warn, info, debug"),
        (&["--control-timeout", "200ms"], true, 125, "the proxy was not ready within 200ms"),
        (&["--ready-timeout", "100ms"], false, 125, "nothing accepts on 127.0.0.1:"),
        (&["--control", "10.0.0.1:1"], false, 2, "expected unix:PATH, an absolute path without spaces"),
        (&["--to", "pay=1"], false, 2, "expected SERVICE:PORT or SERVICE:PORT=LOCALPORT"),
        (&["--label", "x"], false, 2, "expected KEY=VALUE"),
        (&["--name", "Web"], false, 2, "not a DNS label"),
    ] {
        let mut command = mesh.command(options, &["sleep", "60"]);
        if never_ready {
            command.env("STAND_IN_IS", "never ready");
        }
        let mut run = Run::start(command, 0);
        assert_eq!(run.wait(), code, "{options:?}");
        let rest = run.rest();
        assert!(rest.contains(said), "{options:?}: {said:?} not in {rest}");
    }
}

#[test]
fn an_application_starts_without_a_control_plane_when_the_proxy_is_ready_without() {
    let mesh = Mesh::start();
    let nobody = format!("unix:{}", mesh.folder.path().join("nobody.sock").display());
    let mut run = mesh.run(&["--control", &nobody], &["sh", "-c", "read line; exit 3"]);
    run.until("the control plane is away (No such file or directory");
    run.say("end");
    assert_eq!(run.wait(), 3, "{}", run.rest());
}
