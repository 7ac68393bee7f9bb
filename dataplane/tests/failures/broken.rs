//! A proxy that does everything wrong which the rows ask for, so that they are seen to find it out.
//!
//! It forwards heads as they come, believes `Content-Length` over `Transfer-Encoding`, takes LF for a line end, keeps an
//! upstream connection whatever is left on it, sends any request again when a connection ends, and ends bodies that broke
//! off cleanly. It waits for ever, accepts until that fails once, counts every path of every host apart, and answers when
//! its log has taken the line. It is this program once more, as a process of its own, so that it can be limited as others.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    process::ExitCode,
    sync::{Arc, Mutex},
    thread,
};

/// The first argument that makes this program the broken proxy. Behind it: the origin, where its metrics can be asked for,
/// and where it logs, if it does.
pub(crate) const ARGUMENT: &str = "--broken";

/// What it says, before its address.
pub(crate) const LISTENING: &str = "listening on ";

struct Broken {
    origin: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    /// Requests by path and host.
    counts: Mutex<BTreeMap<String, u64>>,
    log: Option<Mutex<File>>,
}

/// Takes connections until that fails; ends when nobody holds its standard input any more.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let [origin, admin, log @ ..] = arguments else { return ExitCode::FAILURE };
    let log = log.first().map(|path| {
        Mutex::new(
            OpenOptions::new().create(true).append(true).open(path).expect("a path that can be written"),
        )
    });
    let origin = origin.parse().expect("an address");
    let broken = Arc::new(Broken { origin, idle: Mutex::default(), counts: Mutex::default(), log });
    let (metrics, admin) = (broken.clone(), UnixListener::bind(admin).expect("a path of its own"));
    thread::spawn(move || metrics.tell(&admin));
    thread::spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        eprintln!("{LISTENING}{}", listener.local_addr().expect("bound"));
        for stream in listener.incoming().map_while(Result::ok) {
            let broken = broken.clone();
            thread::spawn(move || broken.serve(stream));
        }
        // Nobody accepts, and whoever connects waits.
        thread::park();
    });
    let _ = io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}

impl Broken {
    /// Its metrics, whatever is asked for.
    fn tell(&self, admin: &UnixListener) {
        for mut stream in admin.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let counts = self.counts.lock().expect("no thread panics");
            let page: String =
                counts.iter().map(|(what, count)| format!("requests{{of=\"{what}\"}} {count}\n")).collect();
            let _ = stream.write_all(page.as_bytes());
        }
    }

    fn serve(&self, mut downstream: TcpStream) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let Some(request) = receive_message(&mut downstream, &mut bytes, false)? else { return Ok(()) };
            let method = request.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
            let Some((upstream, response)) = self.ask(&request, method == b"HEAD")? else {
                return Ok(());
            };
            let text = text(&request);
            let host = text.lines().find(|line| line.starts_with("host:")).unwrap_or_default();
            let what = format!("{} {host}", text.lines().next().unwrap_or_default());
            if let Some(log) = &self.log {
                log.lock().expect("no thread panics").write_all(format!("{what}\n").as_bytes())?;
            }
            *self.counts.lock().expect("no thread panics").entry(what).or_default() += 1;
            downstream.write_all(&response)?;
            self.idle.lock().expect("no thread panics").push(upstream);
        }
    }

    fn ask(&self, request: &[u8], is_bodyless: bool) -> io::Result<Option<(TcpStream, Vec<u8>)>> {
        for _ in 0..ATTEMPTS_MAX {
            let pooled = self.idle.lock().expect("no thread panics").pop();
            let mut upstream = pooled.map_or_else(|| TcpStream::connect(self.origin), Ok)?;
            upstream.write_all(request)?;
            if let Ok(Some(response)) = receive_message(&mut upstream, &mut Vec::new(), is_bodyless) {
                return Ok(Some((upstream, response)));
            }
        }
        Ok(None)
    }
}

/// Whatever the request is and wherever its connection broke: once more.
const ATTEMPTS_MAX: usize = 3;

/// A message as it came, its broken end mended; `None` when none came.
fn receive_message(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    is_bodyless: bool,
) -> io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = message_end(bytes, is_bodyless) {
            return Ok(Some(bytes.drain(..end).collect()));
        }
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend(&buffer[..count]),
            _ if bytes.is_empty() => return Ok(None),
            _ => {
                let end = head_end(bytes).map(|end| text(&bytes[..end]));
                return match end {
                    Some(head) if head.contains("chunked") => {
                        bytes.extend(b"\r\n0\r\n\r\n");
                        Ok(Some(std::mem::take(bytes)))
                    }
                    Some(head) => {
                        // The length that it has is the length that it should have.
                        let body = bytes.split_off(head.len());
                        let lines = head
                            .lines()
                            .filter(|line| !line.starts_with("content-length") && !line.is_empty());
                        let head = lines.collect::<Vec<_>>().join("\r\n");
                        let length = format!("\r\ncontent-length: {}\r\n\r\n", body.len());
                        bytes.clear();
                        Ok(Some([head.as_bytes(), length.as_bytes(), &body].concat()))
                    }
                    None => Ok(None),
                };
            }
        }
    }
}

/// Where the message at the front ends; `None` when that is not there yet.
fn message_end(bytes: &[u8], is_bodyless: bool) -> Option<usize> {
    let end = head_end(bytes)?;
    let head = text(&bytes[..end]);
    if is_bodyless {
        return Some(end);
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    if let Some(length) = length {
        return (bytes.len() >= end + length).then_some(end + length);
    }
    if head.contains("chunked") {
        let last = bytes[end..].windows(5).position(|window| window == b"0\r\n\r\n")?;
        return Some(end + last + 5);
    }
    Some(end)
}

/// Looked for near the front alone: this is done again for every part of a body.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let bytes = &bytes[..bytes.len().min(4096)];
    let crlf = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let lf = bytes.windows(2).position(|window| window == b"\n\n").map(|at| at + 2);
    crlf.into_iter().chain(lf).min()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_ascii_lowercase()
}
