//! What a world is made of, drawn from its seed.

use std::time::Duration;

use policy::network_filter::HttpConnectionManager;
use sim::{
    Behaviour, Cut, End, Faults, Pieces, Rng, Sim, StreamBehaviour, StreamConfig, Way,
    origin::{Answer, AnswerFraming, Then},
};

const MS: Duration = Duration::from_millis(1);

/// A world.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Nothing breaks but what HTTP has rules for: every request gets its answer.
    pub(crate) is_whole: bool,
    /// Bytes are forwarded as they are, whatever they mean.
    pub(crate) is_tcp: bool,
    /// The clock jumps, so that waits have no bound.
    pub(crate) clock_jumps: bool,
    /// How many of 1000 operations of the proxy's kernel fail.
    kernel_failures: u16,
    /// How many of 1000 connections the network breaks.
    cuts: u16,
    /// How many of 1000 completions of the proxy's kernel are the last that is seen for a while.
    overflows: u16,
    /// How many of 1000 of its receives find no buffer.
    short_of_buffers: u16,
    /// How many of 1000 rings of its bells are heard late.
    late_bells: u16,
    lost_syns: u16,
    late: u16,
    late_cancels: u16,
    /// Connections that move bytes one by one are many, or few.
    is_slow: bool,
    /// How many of 1000 clients speak HTTP/2.
    pub(crate) stream_clients: u16,
    /// The clusters whose origins do.
    pub(crate) stream_clusters: Vec<bool>,
    /// Origins of each cluster.
    pub(crate) clusters: Vec<usize>,
    /// Workers of the proxy.
    pub(crate) workers: usize,
    pub(crate) clients: u64,
    pub(crate) asks: u64,
    /// Changes of behaviour and configuration, each some time after the one before.
    pub(crate) changes: u64,
    /// Whether the listener goes for a while, or for ever by a drain.
    pub(crate) departures: bool,
    pub(crate) timeouts: Timeouts,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) route: Option<Duration>,
    pub(crate) connect: Duration,
    pub(crate) stream_idle: Duration,
    pub(crate) downstream_idle: Option<Duration>,
    pub(crate) upstream_idle: Option<Duration>,
    headers: Duration,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x0070_6c61_6e00);
        let is_tcp = rng.chance(150);
        let is_whole = !is_tcp && rng.chance(400);
        let mut sometimes = |per_mille: u16, amounts: &[u16]| match is_whole {
            true => 0,
            false if rng.chance(per_mille) => rng.pick(amounts),
            false => 0,
        };
        let (kernel_failures, cuts) = (sometimes(400, &[1, 5, 30]), sometimes(400, &[50, 300]));
        let (lost_syns, jumps) = (sometimes(200, &[50, 300]), sometimes(150, &[1]));
        let clusters = if is_tcp { 1 } else { 1 + rng.below(3) };
        let (stream_clients, stream_clusters) = match is_tcp {
            true => (0, 0),
            false => (rng.pick(&[0, 500, 1000]), rng.pick(&[0, 500, 1000])),
        };
        Plan {
            seed,
            is_whole,
            is_tcp,
            clock_jumps: jumps > 0,
            kernel_failures,
            cuts,
            overflows: rng.pick(&[0, 0, 5, 50]),
            short_of_buffers: rng.pick(&[0, 0, 50, 500]),
            late_bells: rng.pick(&[0, 0, 300]),
            lost_syns,
            late: rng.pick(&[0, 50, 150, 400]),
            late_cancels: rng.pick(&[0, 200, 900]),
            is_slow: rng.chance(300),
            stream_clients,
            stream_clusters: (0..clusters).map(|_| rng.chance(stream_clusters)).collect(),
            clusters: (0..clusters).map(|_| 1 + rng.below(3) as usize).collect(),
            workers: rng.pick(&[1, 1, 2, 3]),
            clients: 1 + rng.below(4),
            asks: 2 + rng.below(6),
            changes: rng.below(6),
            departures: rng.chance(300),
            timeouts: Timeouts::draw(&mut rng, is_whole),
        }
    }

    /// Makes a network of it.
    pub(crate) fn network(&self) -> Sim {
        let sim = Sim::with_seed(self.seed);
        sim.shuffle_tasks(true);
        sim.late_completions(self.late);
        sim.late_cancels(self.late_cancels);
        sim.lost_syns(self.lost_syns);
        if self.clock_jumps {
            sim.clock_jumps(1, Duration::from_secs(5));
        }
        let (cuts, is_slow) = (self.cuts, self.is_slow);
        sim.faults(move |_, rng| {
            let mut faults = Faults { up: way(rng, is_slow), down: way(rng, is_slow) };
            if rng.chance(cuts) {
                // A network breaks connections; only who is at the end of one closes it.
                let bytes = rng.below(3000);
                let way = if rng.chance(500) { &mut faults.up } else { &mut faults.down };
                way.cut = Some(Cut { bytes, end: End::Reset });
            }
            faults
        });
        sim
    }

    /// What the kernel of one of the proxy's workers does from now on.
    pub(crate) fn kernel(&self, proxy: &sim::SimIo) {
        proxy.fail_operations(self.kernel_failures);
        proxy.overflows(self.overflows, 15 * MS);
        proxy.short_of_buffers(self.short_of_buffers);
        proxy.late_bells(self.late_bells, 15 * MS);
    }

    /// What an origin does.
    pub(crate) fn behaviour(&self, rng: &mut Rng) -> Behaviour {
        let status = rng.pick(&[200, 200, 200, 200, 404, 500, 204]);
        let chunk_bytes = 1 + rng.below(700) as usize;
        let framing = rng.pick(&[
            AnswerFraming::Length,
            AnswerFraming::Length,
            AnswerFraming::Chunked(chunk_bytes),
            AnswerFraming::UntilClose,
        ]);
        let is_bodyless = status == 204;
        let framing = if is_bodyless { AnswerFraming::Length } else { framing };
        let then = match framing {
            AnswerFraming::UntilClose => rng.pick(&[Then::CloseUnannounced, Then::Close]),
            _ => rng.pick(&[
                Then::KeepAlive,
                Then::KeepAlive,
                Then::KeepAlive,
                Then::Close,
                Then::CloseUnannounced,
            ]),
        };
        let behaviour = Behaviour {
            answer: if rng.chance(150) { Answer::AtHead } else { Answer::AtRequest },
            think: rng.pick(&[Duration::ZERO, Duration::ZERO, MS, 50 * MS, 400 * MS]),
            status,
            body: if is_bodyless { Vec::new() } else { self.body(rng) },
            framing,
            then,
            continues: rng.chance(700),
            read_bytes: rng.pick(&[64, 1000, 16 * 1024]),
            read_pause: rng.pick(&[Duration::ZERO, Duration::ZERO, MS]),
            idle_max: rng.pick(&[None, None, Some(100 * MS), Some(700 * MS)]),
            ..Behaviour::default()
        };
        if self.is_whole {
            // One that closes before it has read the request may break its own answer.
            let answer = if behaviour.then == Then::KeepAlive { behaviour.answer } else { Answer::AtRequest };
            // Nor one that ends a new connection before the proxy has seen that it is there.
            let unseen = if self.overflows > 0 { 700 * MS } else { Duration::ZERO };
            let idle_max = behaviour.idle_max.map(|max| max.max(unseen));
            return Behaviour { answer, idle_max, ..behaviour };
        }
        self.misbehaving(behaviour, rng)
    }

    /// What an origin does that speaks HTTP/2.
    pub(crate) fn stream_behaviour(&self, rng: &mut Rng) -> StreamBehaviour {
        let status = rng.pick(&[200, 200, 200, 200, 404, 500, 204]);
        let trailer = ("x-sum".to_owned(), "12".to_owned());
        let is_bodyless = status == 204;
        let mut behaviour = StreamBehaviour {
            config: StreamConfig {
                // Streams that were reset count until who serves them knows: an origin may refuse one more.
                streams_max: if self.is_whole { 100 } else { rng.pick(&[1, 3, 100]) },
                window_bytes: rng.pick(&[65_535, 200_000]),
                ..StreamConfig::default()
            },
            answer: if rng.chance(150) { Answer::AtHead } else { Answer::AtRequest },
            think: rng.pick(&[Duration::ZERO, Duration::ZERO, MS, 50 * MS, 400 * MS]),
            interims: rng.pick(&[&[][..], &[][..], &[103]]).to_vec(),
            status,
            body: if is_bodyless { Vec::new() } else { self.body(rng) },
            has_length: rng.chance(500),
            trailers: if rng.chance(200) && !is_bodyless { vec![trailer] } else { Vec::new() },
            leaves_after: rng.chance(300).then(|| 1 + rng.below(4) as usize),
            ..StreamBehaviour::default()
        };
        if self.is_whole {
            return behaviour;
        }
        let bytes = rng.below(600) as usize;
        let end = if rng.chance(500) { End::Close } else { End::Reset };
        match rng.below(10) {
            0 => behaviour.answer = Answer::Never,
            1 => behaviour.refuses = Some(rng.pick(&[2, 7, 7, 8])),
            2 => behaviour.resets = Some((bytes, rng.pick(&[2, 8]))),
            3 => behaviour.ends = Some((bytes, end)),
            4 => behaviour.holds = true,
            _ => {}
        }
        behaviour
    }

    fn misbehaving(&self, mut behaviour: Behaviour, rng: &mut Rng) -> Behaviour {
        let end = if rng.chance(500) { End::Close } else { End::Reset };
        match rng.below(10) {
            0 => behaviour.answer = Answer::Never,
            1 => behaviour.request_cut = Some(Cut { bytes: 1 + rng.below(600), end }),
            2 => {
                // A close is how a body until close ends: nobody could tell.
                let end = if behaviour.framing == AnswerFraming::UntilClose { End::Reset } else { end };
                behaviour.answer_cut = Some(Cut { bytes: rng.below(600), end });
            }
            // Which TCP would bring to the client as it is.
            3 if !self.is_tcp => behaviour.raw = Some(rng.pick(&SAID).to_vec()),
            4 => behaviour.then = Then::HalfClose,
            _ => {}
        }
        behaviour
    }

    /// A body of some length. What fills it differs from byte to byte, so that a piece that is missing or doubled shows.
    pub(crate) fn body(&self, rng: &mut Rng) -> Vec<u8> {
        let most = if self.is_slow { 600 } else { 5000 };
        let len = rng.pick(&[0, 1, 9, 100, most, most, if self.is_slow { 600 } else { 40_000 }]);
        let first = rng.below(256);
        (0..rng.below(len + 1)).map(|at| (first + at * 7) as u8).collect()
    }

    /// The connection manager's timeouts.
    pub(crate) fn manager(&self, manager: &mut HttpConnectionManager) {
        manager.idle_timeout = self.timeouts.downstream_idle;
        manager.stream_idle_timeout = Some(self.timeouts.stream_idle);
        manager.request_headers_timeout = Some(self.timeouts.headers);
    }
}

/// What upstreams say that is no answer, or more than one. But no second answer that could be one: when the network brings it
/// after the next request went out, nobody can tell.
const SAID: [&[u8]; 6] = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: +0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n",
    b"220 mail.example ESMTP\r\n",
];

impl Timeouts {
    fn draw(rng: &mut Rng, is_whole: bool) -> Timeouts {
        let second = 1000 * MS;
        if is_whole {
            return Timeouts {
                route: rng.pick(&[None, Some(60 * second)]),
                connect: second,
                stream_idle: 60 * second,
                downstream_idle: None,
                upstream_idle: rng.pick(&[None, Some(50 * MS), Some(second)]),
                headers: 60 * second,
            };
        }
        Timeouts {
            route: rng.pick(&[None, Some(100 * MS), Some(second), Some(5 * second)]),
            connect: rng.pick(&[20 * MS, second]),
            stream_idle: rng.pick(&[200 * MS, 3 * second]),
            downstream_idle: rng.pick(&[None, Some(50 * MS), Some(second)]),
            upstream_idle: rng.pick(&[None, Some(50 * MS), Some(second)]),
            headers: rng.pick(&[50 * MS, 5 * second]),
        }
    }
}

/// A direction of a connection: rough, and unbroken.
fn way(rng: &mut Rng, is_slow: bool) -> Way {
    let split = Pieces::SplitAt(rng.below(400));
    let latency = Duration::from_micros(rng.below(3000));
    let pieces = [Pieces::Whole, split, Pieces::UpTo(300), Pieces::UpTo(2000)];
    let slow = [Pieces::Every(1), Pieces::UpTo(7), split];
    let mut pieces = || if is_slow { rng.pick(&slow) } else { rng.pick(&pieces) };
    let (recv, send) = (pieces(), pieces());
    Way {
        latency_min: latency / 4,
        latency_max: latency,
        buffer_bytes: rng.pick(&[512, 4096, 64 * 1024]),
        recv,
        send,
        cut: None,
    }
}
