//! A proxy that does everything wrong which the rows ask for, so that they are seen to find it out.
//!
//! It forwards heads as they come, believes `Content-Length` over `Transfer-Encoding`, takes LF for a line end, keeps an
//! upstream connection whatever is left on it, sends any request again when a connection ends, and ends bodies that broke
//! off cleanly.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

type Idle = Arc<Mutex<Vec<TcpStream>>>;

/// Takes connections for ever.
pub(crate) fn run(listener: &TcpListener, origin: SocketAddr) {
    let idle = Idle::default();
    for stream in listener.incoming().map_while(Result::ok) {
        let idle = idle.clone();
        thread::spawn(move || serve(stream, origin, &idle));
    }
}

fn serve(mut downstream: TcpStream, origin: SocketAddr, idle: &Idle) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let Some(request) = receive_message(&mut downstream, &mut bytes, false)? else { return Ok(()) };
        let method = request.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec();
        let Some((upstream, response)) = ask(&request, method == b"HEAD", origin, idle)? else {
            return Ok(());
        };
        downstream.write_all(&response)?;
        idle.lock().expect("no thread panics").push(upstream);
    }
}

/// Whatever the request is and wherever its connection broke: once more.
const ATTEMPTS_MAX: usize = 3;

fn ask(
    request: &[u8],
    is_bodyless: bool,
    origin: SocketAddr,
    idle: &Idle,
) -> io::Result<Option<(TcpStream, Vec<u8>)>> {
    for _ in 0..ATTEMPTS_MAX {
        let pooled = idle.lock().expect("no thread panics").pop();
        let mut upstream = pooled.map_or_else(|| TcpStream::connect(origin), Ok)?;
        upstream.write_all(request)?;
        if let Ok(Some(response)) = receive_message(&mut upstream, &mut Vec::new(), is_bodyless) {
            return Ok(Some((upstream, response)));
        }
    }
    Ok(None)
}

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
