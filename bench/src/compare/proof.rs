//! Equal work, proved before anything is timed: what one connection through the subject sees, and what the origin saw.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::subject::{ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADER, Kind};
use crate::load;
use crate::message;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Length of the bodies that are sent both ways.
const BODY_BYTES: usize = 3000;

/// Why a subject does not do the same work as the others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Difference {
    #[error("no answer to {request}")]
    NoAnswer { request: &'static str, source: io::Error },
    #[error("{request} was answered with {status:?} and {body_bytes} bytes")]
    WrongAnswer { request: &'static str, status: Option<u16>, body_bytes: usize },
    #[error("{what} has {found:?} as its {name}, not {value}")]
    WrongHeader { what: &'static str, name: &'static str, value: &'static str, found: Option<String> },
}

/// The headers of an equal piece of work, by name, for the record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Seen {
    /// Request headers as the origin got them.
    pub(crate) request_headers: Vec<String>,
    /// Response headers as the downstream got them.
    pub(crate) response_headers: Vec<String>,
}

/// Sends two requests over one connection: one that shows the head the origin gets, one with a body both ways.
pub(crate) fn prove(kind: Kind, address: SocketAddr) -> Result<Seen, Difference> {
    let mut stream =
        connect(address).map_err(|source| Difference::NoAnswer { request: "a connect", source })?;
    let echo = ask(&mut stream, "GET /echo", &load::request("/echo", 0))?;
    let (head, upstream_head) = echo.split_at(head_bytes(&echo));
    check("the request at the origin", upstream_head, "host", "bench.test")?;
    if kind.speaks_http() {
        for (name, value) in ADDED_REQUEST_HEADERS {
            check("the request at the origin", upstream_head, name, value)?;
        }
        check("the answer", head, ADDED_RESPONSE_HEADER.0, ADDED_RESPONSE_HEADER.1)?;
    }
    check("the answer", head, "server", "origin")?;
    let path = format!("/bytes/{BODY_BYTES}");
    let answer = ask(&mut stream, "a POST", &load::request(&path, BODY_BYTES))?;
    let body_bytes = answer.len() - head_bytes(&answer);
    if body_bytes != BODY_BYTES {
        return Err(Difference::WrongAnswer {
            request: "a POST",
            status: message::status(&answer),
            body_bytes,
        });
    }
    Ok(Seen { request_headers: names(upstream_head), response_headers: names(head) })
}

/// Whether one request gets a good answer now.
pub(crate) fn answers(address: SocketAddr) -> bool {
    connect(address)
        .is_ok_and(|mut stream| ask(&mut stream, "GET /bytes/1", &load::request("/bytes/1", 0)).is_ok())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

/// The whole answer to a request; it must be a 200.
fn ask(stream: &mut TcpStream, name: &'static str, request: &[u8]) -> Result<Vec<u8>, Difference> {
    let answer =
        exchange(stream, request).map_err(|source| Difference::NoAnswer { request: name, source })?;
    match message::status(&answer) {
        Some(200) => Ok(answer),
        status => {
            let body_bytes = answer.len() - head_bytes(&answer);
            Err(Difference::WrongAnswer { request: name, status, body_bytes })
        }
    }
}

fn exchange(stream: &mut TcpStream, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut received = Vec::new();
    let mut part = [0; 4096];
    loop {
        if message::first_in(&received).is_some_and(|answer| received.len() >= answer.bytes()) {
            return Ok(received);
        }
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => received.extend_from_slice(&part[..n]),
        }
    }
}

fn head_bytes(answer: &[u8]) -> usize {
    message::first_in(answer).map_or(answer.len(), |answer| answer.head_bytes)
}

fn check(what: &'static str, head: &[u8], name: &'static str, value: &'static str) -> Result<(), Difference> {
    match message::header(head, name) {
        Some(found) if found == value => Ok(()),
        found => Err(Difference::WrongHeader { what, name, value, found: found.map(str::to_owned) }),
    }
}

fn names(head: &[u8]) -> Vec<String> {
    let head = String::from_utf8_lossy(head);
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.map(|(name, _)| name.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::origin;

    #[test]
    fn an_origin_without_a_proxy_is_equal_only_for_subjects_that_add_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || origin::serve(&listener, &origin::Counts::default()));
        let seen = prove(Kind::Direct, address).unwrap();
        assert_eq!(seen.request_headers, ["host", "user-agent", "accept"]);
        let difference = prove(Kind::Haproxy, address).unwrap_err();
        assert!(matches!(difference, Difference::WrongHeader { name: "x-forwarded-proto", found: None, .. }));
    }
}
