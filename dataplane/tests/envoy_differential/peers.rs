//! Envoy and Ringway as processes, an origin, and how they are asked and compared.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::net::TcpSocket;

/// Method, target, host (`ORIGIN` in it is the origin's port), further headers.
pub(crate) type Request<'a> = (&'static str, &'static str, &'a str, &'static [(&'static str, &'static str)]);

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
    _ports: [TcpSocket; 3],
}

impl Proxy {
    pub(crate) fn envoy(dir: &Path, origin: SocketAddr, bootstrap: &dyn Fn(Ports) -> String) -> Proxy {
        let mut command = Command::new(envoy_program());
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]);
        Proxy::start(command, &dir.join("envoy.yaml"), origin, bootstrap)
    }

    pub(crate) fn ringway(dir: &Path, origin: SocketAddr, bootstrap: &dyn Fn(Ports) -> String) -> Proxy {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway-proxy"));
        command.args(["--workers", "1", "--log", "warn", "--data-dir"]).arg(dir.join("data"));
        Proxy::start(command, &dir.join("ringway.yaml"), origin, bootstrap)
    }

    fn start(
        mut command: Command,
        file: &Path,
        origin: SocketAddr,
        bootstrap: &dyn Fn(Ports) -> String,
    ) -> Proxy {
        let [(first, address), (second, admin), (third, refused)] = [reserve(), reserve(), reserve()];
        let ports = Ports {
            port: address.port(),
            admin: admin.port(),
            refused: refused.port(),
            origin: origin.port(),
        };
        std::fs::write(file, bootstrap(ports)).unwrap();
        let process = command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut proxy = Proxy { process, address, _ports: [first, second, third] };
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

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, fetched if it is not there yet.
fn envoy_program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let cache = std::env::var_os("RINGWAY_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from);
    let program = cache.join("peers/bin/envoy");
    if !program.exists() {
        let setup = Command::new(root.join("deploy/setup.sh")).arg("test").status().unwrap();
        assert!(setup.success(), "Envoy could not be fetched");
    }
    program
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

pub(crate) fn ask(proxy: SocketAddr, request: &Request<'_>) -> Answer {
    try_ask(proxy, request).unwrap_or_else(|| panic!("{proxy} gave no answer to {request:?}"))
}

fn try_ask(proxy: SocketAddr, (method, target, host, headers): &Request<'_>) -> Option<Answer> {
    let mut connection = TcpStream::connect(proxy).ok()?;
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
