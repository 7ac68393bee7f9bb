//! Envoy and Ringway as processes, an origin, and how they are asked and compared.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;

use crate::envoy_program::envoy_program;

/// Method, target, host (`ORIGIN` in it is the origin's port), further headers.
pub(crate) type Request<'a> = (&'static str, &'static str, &'a str, &'static [(&'static str, &'static str)]);

/// Where a bootstrap file says how Envoy logs; Ringway has one format.
const LOG_FORMAT: &str = "LOG_FORMAT";
const ENVOY_LOG_FORMAT: &str =
    r#", log_format: {json_format: {downstream: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}"#;

/// What a bootstrap file names.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// Where the proxy takes requests.
    pub(crate) port: u16,
    /// Where it is administered.
    pub(crate) admin: u16,
    /// Where nobody listens.
    pub(crate) refused: u16,
    /// Where the origin is.
    pub(crate) origin: u16,
}

/// A port of 127.0.0.1 for a bootstrap file, which must name one before anybody listens on it. Bound and not listening: the
/// kernel refuses connections to it and gives it to no other test; a proxy listens beside it, as SO_REUSEADDR allows.
fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A running proxy.
pub(crate) struct Proxy {
    process: Child,
    /// Where it takes requests.
    pub(crate) address: SocketAddr,
    access_log: Option<PathBuf>,
    _ports: [TcpSocket; 3],
}

impl Proxy {
    pub(crate) fn envoy(dir: &Path, origin: SocketAddr, bootstrap: &dyn Fn(Ports) -> String) -> Proxy {
        let mut command = Command::new(envoy_program());
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]);
        command.args(["--file-flush-interval-msec", "20"]);
        let log = dir.join("envoy.log");
        command.stdout(File::create(&log).unwrap());
        let bootstrap = |ports| bootstrap(ports).replace(LOG_FORMAT, ENVOY_LOG_FORMAT);
        Proxy::start(command, &dir.join("envoy.yaml"), origin, (&bootstrap, log))
    }

    pub(crate) fn ringway(dir: &Path, origin: SocketAddr, bootstrap: &dyn Fn(Ports) -> String) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-proxy"));
        command.args(["--workers", "1", "--log", "warn", "--data-dir"]).arg(dir.join("data"));
        let log = dir.join("ringway.log");
        command.arg("--access-log").arg(&log).stdout(Stdio::null());
        let bootstrap = |ports| bootstrap(ports).replace(LOG_FORMAT, "");
        Proxy::start(command, &dir.join("ringway.yaml"), origin, (&bootstrap, log))
    }

    fn start(
        mut command: Command,
        file: &Path,
        origin: SocketAddr,
        (bootstrap, log): (&dyn Fn(Ports) -> String, PathBuf),
    ) -> Proxy {
        let [(first, address), (second, admin), (third, refused)] = [reserve(), reserve(), reserve()];
        let ports = Ports {
            port: address.port(),
            admin: admin.port(),
            refused: refused.port(),
            origin: origin.port(),
        };
        let text = bootstrap(ports);
        std::fs::write(file, &text).unwrap();
        let process = command.arg("-c").arg(file).stdin(Stdio::null()).spawn().unwrap();
        let access_log = text.contains("access_log").then_some(log);
        let mut proxy = Proxy { process, address, access_log, _ports: [first, second, third] };
        let ready = ("GET", "/ready", "localhost", &[][..]);
        while try_ask(admin, &ready).is_none_or(|answer| answer.status != 200) {
            if let Some(status) = proxy.process.try_wait().unwrap() {
                panic!("{command:?} ended: {status}");
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        proxy
    }
}

impl Proxy {
    /// The clients of its first requests as its access log tells them, without ports; `None` when the bootstrap file logs
    /// nothing.
    pub(crate) fn logged_clients(&self, count: usize) -> Option<Vec<String>> {
        let path = self.access_log.as_ref()?;
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            if lines.len() >= count && text.ends_with('\n') {
                return Some(lines.into_iter().map(client_of).collect());
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{count} lines are not logged: {text}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Both log one JSON object per exchange.
fn client_of(line: &str) -> String {
    let line: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let client = line["downstream"].as_str().unwrap();
    client.parse::<SocketAddr>().map_or(client.to_owned(), |address| address.ip().to_string())
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers every request with what it saw of it.
pub(crate) fn start_origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(connection));
        }
    });
    address
}

fn serve(connection: TcpStream) {
    let mut out = connection.try_clone().unwrap();
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let seen: BTreeSet<String> =
            head.iter().filter_map(|line| compared(line, &NOT_FORWARDED_ALIKE)).collect();
        let body = format!("{first}\n{}", Vec::from_iter(seen).join("\n"));
        let shown = if first.starts_with("HEAD ") { "" } else { &body };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-internal: 1\r\nx-from: origin\r\n\r\n{shown}"
        );
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What the two add differently on purpose, or at random.
const NOT_FORWARDED_ALIKE: [&str; 2] = ["x-request-id", "connection"];
const NOT_ANSWERED_ALIKE: [&str; 8] = [
    "server",
    "date",
    "connection",
    "x-ringway-reason",
    "content-length",
    "content-type",
    "transfer-encoding",
    "x-envoy-upstream-service-time",
];

/// A header line as it is compared: the case of names is Envoy's to change and ours to keep.
fn compared(line: &str, left_out: &[&str]) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    let name = name.to_ascii_lowercase();
    (!left_out.contains(&&*name)).then(|| format!("{name}: {}", value.trim()))
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: BTreeSet<String>,
    /// Of the origin or of a route; the words of errors are each proxy's own.
    body: String,
}

/// Where requests come from.
const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0);

pub(crate) fn ask(proxy: SocketAddr, request: &Request<'_>) -> Answer {
    try_ask(proxy, request).unwrap_or_else(|| panic!("{proxy} gave no answer to {request:?}"))
}

fn try_ask(proxy: SocketAddr, (method, target, host, headers): &Request<'_>) -> Option<Answer> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&CLIENT.into()).unwrap();
    socket.connect(&proxy.into()).ok()?;
    let mut connection = TcpStream::from(socket);
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    if !headers.iter().any(|(name, _)| *name == "connection") {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    connection.write_all(text.as_bytes()).ok()?;
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let status = line()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = BTreeSet::new();
    let mut length = 0;
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers.extend(compared(&header, &NOT_ANSWERED_ALIKE));
    }
    let mut body = vec![0; if *method == "HEAD" { 0 } else { length }];
    reader.read_exact(&mut body).ok()?;
    let body = if status == 200 { String::from_utf8(body).ok()? } else { String::new() };
    Some(Answer { status, headers, body })
}
