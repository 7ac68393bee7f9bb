//! Equal work, proved on every subject when it has started and before anything is timed: what a connection through it
//! sees, and what the origin saw.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bench::http2::{GRPC_GOOD, grpc_message};
use bench::load::request;
use bench::origin::{self, ENDPOINT};
use bench::{http2, message};

use super::config::{ADDED_REQUEST_HEADERS, ADDED_RESPONSE_HEADER};
use super::plan::{Mode, Plan};
use super::subject::Kind;
use super::workload;

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Lengths of the bodies that are sent both ways: shorter and longer than buffers and socket buffers.
const BODY_BYTES: [usize; 4] = [1, 4096, 65_536, 1_000_000];

/// Why a subject does not do the same work as the others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Difference {
    #[error("no answer to {request}")]
    NoAnswer { request: &'static str, source: io::Error },
    #[error("{request} was answered with {status:?} and {body_bytes} bytes")]
    WrongAnswer { request: &'static str, status: Option<u16>, body_bytes: usize },
    #[error("a body of {body_bytes} bytes was another one when it arrived {at}")]
    WrongBody { body_bytes: usize, at: &'static str },
    #[error("{what} has {found:?} as its {name}, not {value}")]
    WrongHeader { what: &'static str, name: &'static str, value: String, found: Option<String> },
    #[error("{path} went to {found}, not to one of {expected}")]
    WrongCluster { path: String, found: String, expected: String },
    #[error("of {expected} endpoints of one cluster, {found} were used")]
    UnusedEndpoints { expected: usize, found: usize },
    #[error("a call of gRPC ended with {found:?}")]
    WrongEnd { found: String },
    #[error("the connection stayed open after an answer to `connection: close`")]
    StillOpen,
    #[error("a TCP proxy changed what it carried, or did not carry a half-close on")]
    NotOpaque,
}

/// The headers of an equal piece of work, by name, for the record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Seen {
    /// Request headers as the origin got them.
    pub(super) request_headers: Vec<String>,
    /// Response headers as the downstream got them.
    pub(super) response_headers: Vec<String>,
}

/// Proves what the plan asks of a kind. On one connection: the heads at both ends, bodies both ways, and as many more
/// requests as there are endpoints.
pub(super) fn prove(kind: Kind, address: SocketAddr, plan: &Plan) -> Result<Seen, Difference> {
    let mut stream = Line::connect(address, plan)?;
    let edits = kind.speaks_http() && plan.mode == Mode::Http;
    let sent = request::get(&plan.path("echo"));
    let echo = ask(&mut stream, "GET /echo", &sent)?;
    let (head, upstream_head) = echo.split_at(head_bytes(&echo));
    check("the request at the origin", upstream_head, "host", "bench.test")?;
    check("the answer", head, "server", "origin")?;
    if edits {
        for (name, value) in ADDED_REQUEST_HEADERS {
            check("the request at the origin", upstream_head, name, value)?;
        }
        check("the answer", head, ADDED_RESPONSE_HEADER.0, ADDED_RESPONSE_HEADER.1)?;
        prove_routes(&mut stream, plan)?;
    } else if upstream_head != sent {
        return Err(Difference::NotOpaque);
    }
    for length in BODY_BYTES {
        prove_bodies(&mut stream, plan, length)?;
    }
    if plan.has_grpc {
        prove_call(&mut stream, plan, edits)?;
    }
    match plan.mode {
        Mode::Tcp => prove_half_close(address, plan)?,
        // HTTP/2 has no last request.
        Mode::Http if plan.is_http2 => {}
        Mode::Http => prove_end(address, plan)?,
    }
    Ok(Seen { request_headers: names(upstream_head), response_headers: names(head) })
}

/// Whether one request gets a good answer now.
pub(super) fn answers(address: SocketAddr, plan: &Plan) -> bool {
    Line::connect(address, plan).is_ok_and(|mut stream| {
        ask(&mut stream, "GET /bytes/1", &request::get(&plan.path("bytes/1"))).is_ok()
    })
}

/// The first route, one in the middle and the last go to their clusters, and to every endpoint there.
fn prove_routes(stream: &mut Line, plan: &Plan) -> Result<(), Difference> {
    let last = plan.routes.len() - 1;
    for route in [0, last / 2, last] {
        let path = plan.path_of(route, "echo");
        let endpoints = &plan.clusters[plan.routes[route].cluster].endpoints;
        let mut used = HashSet::new();
        for _ in endpoints {
            let echo = ask(stream, "GET /echo", &request::get(&path))?;
            let found = message::header(&echo[..head_bytes(&echo)], ENDPOINT).unwrap_or_default();
            if !endpoints.iter().any(|endpoint| endpoint.to_string() == found) {
                let expected = endpoints.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
                return Err(Difference::WrongCluster { path, found: found.to_owned(), expected });
            }
            used.insert(found.to_owned());
        }
        if used.len() < endpoints.len() {
            return Err(Difference::UnusedEndpoints { expected: endpoints.len(), found: used.len() });
        }
    }
    Ok(())
}

/// A body passes whole, byte for byte, each way.
fn prove_bodies(stream: &mut Line, plan: &Plan, length: usize) -> Result<(), Difference> {
    let body: Vec<u8> = (0..length).map(origin::body_byte).collect();
    let got = ask(stream, "GET /bytes", &request::get(&plan.path(&format!("bytes/{length}"))))?;
    if got[head_bytes(&got)..] != body {
        return Err(Difference::WrongBody { body_bytes: length, at: "downstream" });
    }
    let summed = ask(stream, "POST /sum", &request::post(&plan.path("sum"), &body))?;
    if summed[head_bytes(&summed)..] != *format!("{:016x}", origin::sum_of(&body)).as_bytes() {
        return Err(Difference::WrongBody { body_bytes: length, at: "at the origin" });
    }
    Ok(())
}

/// A call of gRPC arrives as one, and its answer with the trailers that end it.
fn prove_call(line: &mut Line, plan: &Plan, edits: bool) -> Result<(), Difference> {
    let echo = ask(line, "a call to echo", &request::grpc(&plan.path("echo"), &workload::grpc_message()))?;
    let upstream_head = &echo[head_bytes(&echo)..];
    check("the call at the origin", upstream_head, "te", "trailers")?;
    check("the call at the origin", upstream_head, "content-type", "application/grpc")?;
    let Line::Http2(client) = line else { return Ok(()) };
    let cannot = |source| Difference::NoAnswer { request: "a call", source };
    let answer = client.ask(&workload::grpc_call(plan)).map_err(cannot)?;
    let whole = good("a call", Ok(answer.whole))?;
    check("the answer to a call", &whole, "content-type", "application/grpc")?;
    if edits {
        check("the answer to a call", &whole, ADDED_RESPONSE_HEADER.0, ADDED_RESPONSE_HEADER.1)?;
    }
    let message = grpc_message(&(0..origin::UNARY_BYTES).map(origin::body_byte).collect::<Vec<u8>>());
    if whole[head_bytes(&whole)..] != message {
        return Err(Difference::WrongBody { body_bytes: message.len(), at: "downstream" });
    }
    if answer.trailers != GRPC_GOOD {
        return Err(Difference::WrongEnd { found: String::from_utf8_lossy(&answer.trailers).into_owned() });
    }
    Ok(())
}

/// After `connection: close` the answer is whole and the connection ends.
fn prove_end(address: SocketAddr, plan: &Plan) -> Result<(), Difference> {
    let mut stream = connect(address)?;
    let last = request::last_on_its_connection(&plan.path("bytes/128"));
    good("a last request", exchange(&mut stream, &last))?;
    match stream.read(&mut [0; 1]) {
        Ok(0) => Ok(()),
        _ => Err(Difference::StillOpen),
    }
}

/// An answer arrives although this side has said its last word.
fn prove_half_close(address: SocketAddr, plan: &Plan) -> Result<(), Difference> {
    let mut stream = connect(address)?;
    let cannot = |source| Difference::NoAnswer { request: "a half-closed request", source };
    stream.write_all(&request::last_on_its_connection(&plan.path("bytes/300000"))).map_err(cannot)?;
    stream.shutdown(Shutdown::Write).map_err(cannot)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(cannot)?;
    if answer.len() - head_bytes(&answer) == 300_000 { Ok(()) } else { Err(Difference::NotOpaque) }
}

fn connect(address: SocketAddr) -> Result<TcpStream, Difference> {
    let connected = TcpStream::connect_timeout(&address, ANSWER_MAX)
        .and_then(|stream| stream.set_read_timeout(Some(ANSWER_MAX)).map(|()| stream));
    connected.map_err(|source| Difference::NoAnswer { request: "a connect", source })
}

/// A connection with one request at a time, on which answers are read as HTTP/1.1 would have them.
enum Line {
    Http1(TcpStream),
    Http2(Box<http2::Client>),
}

impl Line {
    fn connect(address: SocketAddr, plan: &Plan) -> Result<Self, Difference> {
        let stream = connect(address)?;
        Ok(match plan.is_http2 {
            true => Self::Http2(Box::new(http2::Client::new(stream))),
            false => Self::Http1(stream),
        })
    }
}

/// The whole answer to a request; it must be a 200.
fn ask(line: &mut Line, name: &'static str, request: &[u8]) -> Result<Vec<u8>, Difference> {
    let answer = match line {
        Line::Http1(stream) => exchange(stream, request),
        Line::Http2(client) => client.ask(request).map(|answer| answer.whole),
    };
    good(name, answer)
}

fn good(name: &'static str, answer: io::Result<Vec<u8>>) -> Result<Vec<u8>, Difference> {
    let answer = answer.map_err(|source| Difference::NoAnswer { request: name, source })?;
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
    let mut part = vec![0; 64 * 1024];
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

fn check(what: &'static str, head: &[u8], name: &'static str, value: &str) -> Result<(), Difference> {
    match message::header(head, name) {
        Some(found) if found == value => Ok(()),
        found => {
            let (value, found) = (value.to_owned(), found.map(str::to_owned));
            Err(Difference::WrongHeader { what, name, value, found })
        }
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
    use crate::compare::plan::Origin;
    use crate::compare::workload::Setup;

    /// An origin by itself, and the plan that names it.
    fn origin(setup: Setup) -> (SocketAddr, Plan) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || origin::serve(&[listener], &origin::Counts::default()));
        (address, Plan::new(setup, Origin { plain: address, many: 1 }, 3, 100))
    }

    #[test]
    fn an_origin_without_a_proxy_is_equal_only_for_subjects_that_add_nothing() {
        let (address, plan) = origin(Setup::One);
        let seen = prove(Kind::Direct, address, &plan).unwrap();
        assert_eq!(seen.request_headers, ["host", "user-agent", "accept"]);
        let difference = prove(Kind::Haproxy, address, &plan).unwrap_err();
        assert!(matches!(difference, Difference::WrongHeader { name: "x-forwarded-proto", found: None, .. }));
    }

    #[test]
    fn over_http2_an_origin_gives_what_it_gives_over_http1_and_answers_calls() {
        for setup in [Setup::Http2, Setup::Grpc] {
            let (address, plan) = origin(setup);
            let seen = prove(Kind::Relay, address, &plan).unwrap();
            assert_eq!(seen.request_headers, ["host", "user-agent", "accept"]);
            let difference = prove(Kind::Haproxy, address, &plan).unwrap_err();
            assert!(matches!(difference, Difference::WrongHeader { name: "x-forwarded-proto", .. }));
        }
    }

    #[test]
    fn bytes_that_pass_unchanged_are_what_a_tcp_proxy_is_for() {
        let (address, plan) = origin(Setup::Tcp);
        prove(Kind::Haproxy, address, &plan).unwrap();
    }

    #[test]
    fn a_route_to_another_cluster_than_its_own_is_a_difference() {
        let (address, plan) = origin(Setup::Prefixes);
        let mut stream = Line::connect(address, &plan).unwrap();
        // Everything ends at the one origin, so the first route, which belongs to the other cluster, is wrong.
        let difference = prove_routes(&mut stream, &plan).unwrap_err();
        assert!(matches!(difference, Difference::WrongCluster { .. }), "{difference}");
        let (address, mut plan) = origin(Setup::One);
        let twice = plan.clusters[0].endpoints[0];
        plan.clusters[0].endpoints.push(twice);
        let difference = prove_routes(&mut Line::connect(address, &plan).unwrap(), &plan).unwrap_err();
        assert!(matches!(difference, Difference::UnusedEndpoints { expected: 2, found: 1 }), "{difference}");
    }
}
