//! The load against an origin of ours and against servers that do something wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::*;
use crate::origin::{self, Counts};

fn load(target: SocketAddr, pace: Pace, until: Until) -> Load {
    Load {
        target,
        connections_count: 4,
        protocol: Protocol::Http1,
        requests: Requests::one(request::post("/bytes/100000", &[b'x'; 70_000])),
        pace,
        until,
        is_connecting_anew: false,
        answer_max: Duration::from_secs(10),
    }
}

/// An origin on a thread of its own, which ends with the test's process.
fn origin() -> (SocketAddr, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let theirs = Arc::clone(&counts);
    std::thread::spawn(move || origin::serve(&[listener], &theirs));
    (address, counts)
}

/// A server that does the same on each of so many connections, one after another.
fn server(
    connections: usize,
    serve: impl Fn(std::net::TcpStream) + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        for _ in 0..connections {
            serve(listener.accept().unwrap().0);
        }
    });
    (address, thread)
}

/// Reads until the end, so that closing sends no reset before the answer is read.
fn read_to_end(mut stream: std::net::TcpStream) {
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = io::copy(&mut stream, &mut io::sink());
}

#[test]
fn every_request_of_a_load_has_its_answer_when_the_load_is_over() {
    let (address, counts) = origin();
    for (pace, until, answers) in [
        (Pace::Closed, Until::Requests(50), 50..=50),
        (Pace::Open(500.0), Until::Requests(50), 50..=50),
        (Pace::Open(500.0), Until::Elapsed(Duration::from_millis(100)), 50..=50),
        (Pace::Closed, Until::Elapsed(Duration::from_millis(50)), 1..=u64::MAX),
    ] {
        for is_connecting_anew in [false, true] {
            let (requests, connections) = (counts.requests(), counts.connections());
            let outcome = run(&Load { is_connecting_anew, ..load(address, pace, until) }).unwrap();
            let case = format!("{pace:?} {until:?} {is_connecting_anew}");
            assert!(outcome.is_all(200), "{case}: {:?}", outcome.errors);
            assert!(answers.contains(&outcome.answers), "{case}: {}", outcome.answers);
            assert_eq!(counts.requests() - requests, outcome.answers, "{case}");
            assert_eq!((outcome.latency.len(), outcome.late.len()), (outcome.answers, outcome.answers));
            let expected = if is_connecting_anew { outcome.answers } else { 4 };
            assert_eq!((counts.connections() - connections, outcome.closed_by_peer), (expected, 0), "{case}");
        }
    }
}

#[test]
fn a_connection_that_the_other_side_closes_after_an_answer_is_replaced_without_an_error() {
    let (address, counts) = origin();
    let requests = Requests::one(request::last_on_its_connection("/bytes/10"));
    for (is_connecting_anew, closed) in [(false, 40), (true, 0)] {
        let before = counts.connections();
        let load = Load {
            requests: requests.clone(),
            is_connecting_anew,
            ..load(address, Pace::Closed, Until::Requests(40))
        };
        let outcome = run(&load).unwrap();
        assert!(outcome.is_all(200), "{:?}", outcome.errors);
        assert_eq!((outcome.answers, counts.connections() - before), (40, 40));
        // The last ones of each connection may not have been seen to close.
        assert!((closed.max(4) - 4..=closed).contains(&outcome.closed_by_peer), "{}", outcome.closed_by_peer);
    }
}

#[test]
fn a_bad_answer_and_a_broken_connection_are_errors_and_the_load_goes_on() {
    let cases: [(&'static [u8], Errors); 4] = [
        (
            b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            Errors { status: 9, ..Errors::default() },
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab", Errors { malformed: 9, ..Errors::default() }),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", Errors { broken: 9, ..Errors::default() }),
        (b"", Errors { broken: 9, ..Errors::default() }),
    ];
    for (answer, errors) in cases {
        let (address, _thread) = server(usize::MAX, move |mut stream| {
            // A connection of the load's that has nothing to send when the load is over.
            if stream.read(&mut [0; 4096]).unwrap_or(0) > 0 {
                stream.write_all(answer).unwrap();
                read_to_end(stream);
            }
        });
        let load = Load {
            requests: Requests::one(request::get("/")),
            connections_count: 1,
            ..load(address, Pace::Closed, Until::Requests(9))
        };
        let outcome = run(&load).unwrap();
        let case = String::from_utf8_lossy(answer);
        assert_eq!((outcome.answers, outcome.errors), (0, errors), "{case}");
    }
}

#[test]
fn a_server_that_stalls_shows_in_the_latency_of_every_request_it_held_up() {
    let stall = Duration::from_millis(200);
    let (address, thread) = server(1, move |mut stream| {
        let mut is_first = true;
        while stream.read(&mut [0; 4096]).unwrap() > 0 {
            if std::mem::take(&mut is_first) {
                // The stall is what is measured, not something waited for.
                let until = Instant::now() + stall;
                while let Some(left) = until.checked_duration_since(Instant::now()) {
                    std::thread::park_timeout(left);
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    });
    // One connection, 100 requests meant to be sent in 200 ms: the first is answered after 200 ms, the last at once.
    let load = Load {
        requests: Requests::one(request::get("/")),
        connections_count: 1,
        ..load(address, Pace::Open(500.0), Until::Requests(100))
    };
    let outcome = run(&load).unwrap();
    thread.join().unwrap();
    assert_eq!((outcome.answers, outcome.errors.all()), (100, 0));
    // A closed loop would have seen one slow answer among 100. Here the median is half the stall, less nothing.
    assert!(outcome.latency_us(0.5) > 90e3, "{}", outcome.latency_us(0.5));
    assert!(outcome.late.value_at_quantile(0.5) > 90_000_000);
}

#[test]
fn what_is_never_answered_and_never_sent_is_counted() {
    let (address, _thread) = server(usize::MAX, |mut stream| {
        // It listens and says nothing.
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let load = Load {
        requests: Requests::one(request::get("/")),
        connections_count: 1,
        answer_max: Duration::from_millis(150),
        ..load(address, Pace::Open(1000.0), Until::Elapsed(Duration::from_millis(10)))
    };
    let outcome = run(&load).unwrap();
    let Errors { unanswered, unsent, .. } = outcome.errors;
    assert!(unanswered >= 1, "{:?}", outcome.errors);
    assert_eq!((outcome.answers, unanswered + unsent), (0, 10), "{:?}", outcome.errors);
}

#[test]
fn a_target_that_is_not_there_is_an_error_at_once_and_one_that_goes_away_is_counted() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    // One request is answered, then the listener goes.
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = held.accept().unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
        drop(held);
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let load = Load {
        requests: Requests::one(request::get("/")),
        connections_count: 1,
        ..load(address, Pace::Closed, Until::Requests(3))
    };
    let outcome = run(&load).unwrap();
    thread.join().unwrap();
    assert_eq!((outcome.answers, outcome.errors), (1, Errors { connect: 2, ..Errors::default() }));
    assert_eq!(run(&load).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
