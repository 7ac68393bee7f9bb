//! A proxy process, an origin, an HTTP client, and waiting for things that happen.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use runtime::refusing::{Call, refusing};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, ChildStdin, Command},
    runtime::Handle,
    sync::mpsc,
};

/// Longer than anything here takes on a busy machine; what waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that will happen.
pub(crate) async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(PATIENCE, happens).await;
    happened.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A running `ringway-proxy`, killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    log: mpsc::UnboundedReceiver<String>,
    heard: Vec<String>,
    admin: PathBuf,
    pub(crate) stdin: Option<ChildStdin>,
}

/// A folder for one test with everything a proxy keeps on disk.
#[derive(Clone)]
pub(crate) struct Home(Arc<TempDir>);

impl Home {
    pub(crate) fn new() -> Home {
        Home(Arc::new(tempfile::tempdir().unwrap()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `admin:` of a bootstrap file.
    pub(crate) fn admin(&self) -> String {
        format!("admin: {{address: {{pipe: {{path: {}}}}}}}\n", self.path("admin.sock").display())
    }

    /// Starts a proxy with this bootstrap text.
    pub(crate) fn start(&self, bootstrap: &str, arguments: &[&str]) -> Proxy {
        self.start_under(&[], bootstrap, arguments)
    }

    /// Starts it where the kernel is asked for `call` in vain when `decide` says so; see [`refusing`].
    pub(crate) fn start_refused(
        &self,
        call: Call,
        decide: impl FnMut(u64) -> Option<i32> + Send + 'static,
        bootstrap: &str,
        arguments: &[&str],
    ) -> Proxy {
        let here = Handle::current();
        let start = || {
            let _here = here.enter();
            self.start(bootstrap, arguments)
        };
        refusing(call, decide, start).unwrap()
    }

    /// Starts it by a program that limits it and then becomes it.
    pub(crate) fn start_under(&self, runner: &[&str], bootstrap: &str, arguments: &[&str]) -> Proxy {
        let file = self.path("bootstrap.yaml");
        std::fs::write(&file, bootstrap).unwrap();
        let mut words = runner.iter().copied().chain([env!("CARGO_BIN_EXE_ringway-proxy")]);
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .arg("-c")
            .arg(file)
            .arg("--data-dir")
            .arg(self.path("data"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Always read, so that the proxy never waits for us.
        let (lines, log) = mpsc::unbounded_channel();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Proxy { child, log, heard: Vec::new(), admin: self.path("admin.sock"), stdin }
    }
}

impl Proxy {
    /// Waits until the log says this, and gives the line.
    pub(crate) async fn says(&mut self, text: &str) -> String {
        loop {
            let line = soon(text, self.log.recv()).await;
            let Some(line) = line else {
                panic!("the proxy ended without saying {text:?}:\n{}", self.heard.join("\n"))
            };
            self.heard.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) async fn is_ready(&mut self) {
        self.says("control_thread: ready").await;
        assert_eq!(self.ask("/ready").await, (200, "LIVE\n".to_owned()));
    }

    /// Whether it becomes ready; else it ends.
    pub(crate) async fn is_ready_or_ends(&mut self) -> bool {
        while let Some(line) = soon("ready, or an end", self.log.recv()).await {
            self.heard.push(line.clone());
            if line.contains("control_thread: ready") {
                return true;
            }
        }
        false
    }

    /// GET on the admin listener.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let stream = soon("the admin listener", UnixStream::connect(&self.admin)).await.unwrap();
        let (status, body, _) = Client::over(stream).get(path).await.unwrap();
        (status, body)
    }

    pub(crate) async fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_str(&self.ask(path).await.1).unwrap()
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name_and_labels: &str) -> f64 {
        let (_, page) = self.ask("/stats/prometheus").await;
        let value = page.lines().find_map(|line| line.strip_prefix(name_and_labels)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name_and_labels} in\n{page}"))
    }

    /// Where a listener listens.
    pub(crate) async fn address(&self, listener: &str) -> SocketAddr {
        let (_, page) = self.ask("/listeners").await;
        let address =
            page.lines().find_map(|line| line.strip_prefix(listener)?.strip_prefix("::")?.parse().ok());
        address.unwrap_or_else(|| panic!("no {listener} in {page:?}"))
    }

    pub(crate) async fn connect(&self, listener: &str) -> Client<TcpStream> {
        Client::to(self.address(listener).await).await
    }

    /// Memory that is resident and no file's, in kB.
    pub(crate) fn own_memory_kb(&self) -> u64 {
        let id = self.child.id().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; gives its status and what it logged.
    pub(crate) async fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = soon("the end of the proxy", self.child.wait()).await.unwrap();
        while let Some(line) = soon("the end of its log", self.log.recv()).await {
            self.heard.push(line);
        }
        (status, self.heard)
    }

    /// SIGTERM, and exit code 0.
    pub(crate) async fn stop(self) {
        self.signal(Signal::TERM);
        let (status, log) = self.end().await;
        assert!(status.success(), "{status}:\n{}", log.join("\n"));
    }
}

/// Waits until nobody listens there any more.
pub(crate) async fn refuses(address: SocketAddr) {
    soon("a refusal", async { while TcpStream::connect(address).await.is_ok() {} }).await;
}

/// A keep-alive HTTP/1.1 connection.
pub(crate) struct Client<S>(BufReader<S>);

impl Client<TcpStream> {
    pub(crate) async fn to(address: SocketAddr) -> Client<TcpStream> {
        Client::over(soon("a connection", TcpStream::connect(address)).await.unwrap())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Client<S> {
        Client(BufReader::new(stream))
    }

    /// Asks until this is the body, always on this connection.
    pub(crate) async fn until_answered(&mut self, body: &str) {
        soon(body, async { while self.get("/").await.expect("the connection was closed").1 != body {} })
            .await;
    }

    /// Status, body and head; `None` when the connection ended instead.
    pub(crate) async fn get(&mut self, path: &str) -> Option<(u16, String, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await.ok()?;
        soon("a response", self.response()).await
    }

    async fn response(&mut self) -> Option<(u16, String, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
        }
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().unwrap())
        });
        let mut body = vec![0; length.unwrap_or_else(|| panic!("no content-length in {head}"))];
        self.0.read_exact(&mut body).await.ok()?;
        Some((status, String::from_utf8(body).unwrap(), head))
    }
}

/// An HTTP/1.1 server that answers everything with its name.
pub(crate) async fn origin(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, name));
        }
    });
    address
}

async fn answer_all(stream: TcpStream, name: &'static str) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(stream.read_line(&mut head).await, Ok(count) if count > 0) {
                return;
            }
        }
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.get_mut().write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// `FILE` with its text, for arguments.
pub(crate) fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
