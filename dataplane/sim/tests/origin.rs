//! The recording origin and the client with a ledger, against each other: what each behaviour looks like when no
//! proxy is between them.

use std::{cell::Cell, io::ErrorKind, rc::Rc, time::Duration};

use runtime::{
    Io,
    kernel::{Choice, Driver, Kernel, probe, run},
    listen,
    mailbox::Bell,
};
use sim::{
    Ask, Behaviour, Client, End, Ended, Loss, Origin, Peer, Sim, SimIo, Verdict,
    http::Framing,
    origin::{Answer, AnswerFraming, Then},
};

/// Tells a story on calm and rough networks with one origin; nothing must be left behind.
fn with_origin(behaviour: Behaviour, story: impl AsyncFn(&SimIo, &Origin)) {
    Sim::each(|sim| {
        let (app, client) = (sim.io(), sim.io());
        let socket = sim.bind("10.0.0.7:80".parse().unwrap());
        let origin = Origin::start(&app, socket, behaviour.clone());
        sim.run(async {
            story(&client, &origin).await;
            origin.stop();
        });
        sim.settle();
        assert_eq!(sim.leaks(), [], "seed {}", sim.seed());
        assert_eq!(sim.tasks_count(), 0, "seed {}", sim.seed());
    });
}

fn is_ok(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Ok(_))
}

/// Many requests over one connection, and what the origin saw of them.
async fn keep_alive<I: Io>(io: &I, origin: &Origin) {
    let mut client = Client::connect(io, origin.address()).await;
    let body: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    let asks = [
        Ask::get("shop", "/a", 1),
        Ask::post("shop", "/b", 2, body.clone()),
        Ask::post("shop", "/c", 3, body.clone()).chunked(700).header("x-more", "yes"),
        Ask { method: "HEAD".to_owned(), ..Ask::get("shop", "/d", 4) },
        Ask::post("shop", "/e", 5, body).header("expect", "100-continue"),
    ];
    for ask in &asks {
        let verdict = client.ask(ask).await;
        assert!(is_ok(&verdict), "{}: {verdict:?}", ask.target);
    }
    assert!(!client.is_over());
    let requests = origin.requests();
    let seen: Vec<_> = requests.iter().map(|r| (r.method(), r.target(), r.framing, r.body.len())).collect();
    assert_eq!(
        seen,
        [
            ("GET", "/a", Framing::None, 0),
            ("POST", "/b", Framing::Length, 3000),
            ("POST", "/c", Framing::Chunked, 3000),
            ("HEAD", "/d", Framing::None, 0),
            ("POST", "/e", Framing::Length, 3000),
        ]
    );
    assert_eq!(requests[2].header("x-more"), Some("yes"));
    assert_eq!(origin.ledger().into_values().collect::<Vec<_>>(), [1; 5]);
    let connections = origin.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].raw, asks.iter().flat_map(Ask::bytes).collect::<Vec<_>>());
}

#[test]
fn an_origin_answers_and_records_every_request_of_a_connection() {
    for framing in [AnswerFraming::Length, AnswerFraming::Chunked(5)] {
        let body = b"a body of some length".to_vec();
        with_origin(Behaviour { framing, body, ..Behaviour::default() }, keep_alive);
    }
}

#[test]
fn the_same_scripts_run_on_a_kernel() {
    assert_eq!(probe(Choice::IoUring, 1).unwrap().driver, Driver::IoUring);
    for driver in [Driver::IoUring, Driver::Epoll] {
        let (_bell, waited_on) = Bell::new().unwrap();
        run(driver, std::time::Instant::now(), waited_on, async |io: Kernel| {
            let socket = listen::bind("127.0.0.1:0".parse().unwrap(), 1, 0).unwrap().sockets.remove(0);
            let origin = Origin::start(&io, socket, Behaviour::default());
            let (told, story_io) = (Rc::new(Cell::new(false)), io.clone());
            let (tell, story_origin) = (told.clone(), origin.clone());
            io.spawn(async move {
                keep_alive(&story_io, &story_origin).await;
                tell.set(true);
            });
            while !told.get() {
                io.turn().await;
            }
        })
        .unwrap();
    }
}

#[test]
fn an_early_answer_comes_while_the_upload_goes_on() {
    with_origin(Behaviour::answers_early(413), async |io, origin| {
        let mut client = Client::connect(io, origin.address()).await;
        let verdict = client.ask(&Ask::post("shop", "/upload", 1, vec![7; 80_000])).await;
        assert!(matches!(&verdict, Verdict::Ok(answer) if answer.status() == 413), "{verdict:?}");
        assert!(is_ok(&client.ask(&Ask::get("shop", "/next", 2)).await), "the upload was read to its end");
    });
}

#[test]
fn an_early_answer_and_a_close_break_the_upload() {
    with_origin(Behaviour::answers_early_and_closes(413), async |io, origin| {
        let mut client = Client::connect(io, origin.address()).await;
        let verdict = client.ask(&Ask::post("shop", "/upload", 1, vec![7; 80_000])).await;
        // The RST that the unread upload brings may be faster than the reader of the answer.
        let is_answered = matches!(&verdict, Verdict::Ok(answer) if answer.status() == 413);
        assert!(is_answered || matches!(verdict, Verdict::Lost(_)), "{verdict:?}");
        assert!(client.is_over());
        assert_eq!(origin.requests(), []);
    });
}

#[test]
fn an_answer_cut_at_every_byte_is_lost_and_never_truncated() {
    let whole = Behaviour { framing: AnswerFraming::Chunked(2), ..Behaviour::default() };
    let length = {
        let sim = Sim::with_seed(0);
        let (app, client) = (sim.io(), sim.io());
        let origin = Origin::start(&app, sim.bind("10.0.0.7:80".parse().unwrap()), whole.clone());
        sim.run(async {
            let mut peer = Peer::connect(&client, origin.address()).await;
            peer.send(Ask::get("shop", "/", 1).bytes()).await;
            peer.recv_until(b"\r\n0\r\n\r\n").await.len()
        })
    };
    for (bytes, end) in (0..length).flat_map(|bytes| [(bytes, End::Close), (bytes, End::Reset)]) {
        let sim = Sim::rough(bytes as u64);
        let (app, client) = (sim.io(), sim.io());
        let cut = Behaviour::ends_after_answer_bytes(bytes as u64, end).answer_cut;
        let behaviour = Behaviour { answer_cut: cut, ..whole.clone() };
        let origin = Origin::start(&app, sim.bind("10.0.0.7:80".parse().unwrap()), behaviour);
        let verdict = sim.run(async {
            Client::connect(&client, origin.address()).await.ask(&Ask::get("shop", "/", 1)).await
        });
        let expected = match end {
            End::Close => Loss::Closed,
            End::Reset => Loss::Ended(ErrorKind::ConnectionReset),
        };
        assert_eq!(verdict, Verdict::Lost(expected), "{end:?} after {bytes} bytes");
        assert_eq!(origin.ledger().into_values().sum::<usize>(), 1);
    }
}

#[test]
fn an_origin_that_ends_within_a_request_has_read_so_much_and_no_more() {
    let ask = Ask::post("shop", "/upload", 1, vec![b'x'; 50]);
    for (bytes, end) in
        (0..ask.bytes().len() as u64).flat_map(|bytes| [(bytes, End::Close), (bytes, End::Reset)])
    {
        let sim = Sim::rough(bytes);
        let (app, client) = (sim.io(), sim.io());
        let behaviour = Behaviour::ends_after_request_bytes(bytes, end);
        let origin = Origin::start(&app, sim.bind("10.0.0.7:80".parse().unwrap()), behaviour);
        let verdict = sim.run(async { Client::connect(&client, origin.address()).await.ask(&ask).await });
        assert!(matches!(verdict, Verdict::Lost(_)), "{verdict:?}");
        sim.settle();
        let connection = &origin.connections()[0];
        assert_eq!((connection.raw.len() as u64, connection.is_over), (bytes, true));
        assert_eq!(connection.requests, []);
    }
}

#[test]
fn an_origin_that_half_closes_or_waits_for_a_fin_still_answers() {
    with_origin(Behaviour::half_closes(), async |io, origin| {
        let mut peer = Peer::connect(io, origin.address()).await;
        peer.send(Ask::get("shop", "/a", 1).bytes()).await;
        let Ended { bytes, end } = peer.recv_to_end().await;
        assert!(bytes.ends_with(b"ok\n") && end == End::Close);
        peer.send(Ask::get("shop", "/b", 2).bytes()[..9].to_vec()).await;
        peer.shutdown();
    });
    with_origin(Behaviour { answer: Answer::AtFin, ..Behaviour::default() }, async |io, origin| {
        let mut peer = Peer::connect(io, origin.address()).await;
        peer.send(Ask::get("shop", "/a", 1).bytes()).await;
        peer.expect_silence(Duration::from_secs(1)).await;
        peer.shutdown();
        assert!(peer.recv_to_end().await.bytes.ends_with(b"ok\n"));
    });
}

#[test]
fn an_origin_may_be_silent_slow_idle_or_wrong() {
    with_origin(Behaviour::never_answers(), async |io, origin| {
        let mut peer = Peer::connect(io, origin.address()).await;
        peer.send(Ask::get("shop", "/", 1).bytes()).await;
        peer.expect_silence(Duration::from_secs(30)).await;
    });
    with_origin(Behaviour::reads_slowly(100, Duration::from_millis(50)), async |io, origin| {
        let before = io.now();
        let mut client = Client::connect(io, origin.address()).await;
        assert!(is_ok(&client.ask(&Ask::post("shop", "/", 1, vec![1; 1000])).await));
        assert!(io.now() - before > 500_000_000);
    });
    let idle = Behaviour { idle_max: Some(Duration::from_secs(5)), ..Behaviour::default() };
    with_origin(idle, async |io, origin| {
        let mut peer = Peer::connect(io, origin.address()).await;
        peer.expect_close().await;
    });
    with_origin(
        Behaviour::says("HTTP/1.1 200 OK\r\nx-ledger-id: 9\r\ncontent-length: 0\r\n\r\n"),
        async |io, origin| {
            let verdict = Client::connect(io, origin.address()).await.ask(&Ask::get("shop", "/", 1)).await;
            assert!(matches!(verdict, Verdict::Cross(_)), "{verdict:?}");
        },
    );
    let until_close =
        Behaviour { framing: AnswerFraming::UntilClose, then: Then::Close, ..Behaviour::default() };
    with_origin(until_close, async |io, origin| {
        let mut client = Client::connect(io, origin.address()).await;
        assert!(is_ok(&client.ask(&Ask::get("shop", "/", 1)).await));
        assert!(client.is_over());
    });
}

#[test]
#[should_panic(expected = "more than one framing header")]
fn an_origin_does_not_swallow_what_is_no_request() {
    with_origin(Behaviour::default(), async |io, origin| {
        let mut peer = Peer::connect(io, origin.address()).await;
        peer.send(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG",
        )
        .await;
        assert!(peer.recv_to_end().await.bytes.starts_with(b"HTTP/1.1 400"));
        origin.requests();
    });
}
