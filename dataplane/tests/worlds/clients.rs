//! What clients do: ask and wait, ask several at once, send FIN behind the last, give up in the middle.

use std::{cell::Cell, rc::Rc, time::Duration};

use runtime::{Deadline, Io};
use sim::{Ask, Behind, Client, Peer, Rng, SimIo, StreamConfig, Streams, Verdict, both};

use crate::{
    ledger::{How, Ledger},
    plan::Plan,
};

/// What every client knows.
pub(crate) struct Clients {
    pub(crate) io: SimIo,
    pub(crate) proxy: std::net::SocketAddr,
    pub(crate) plan: Plan,
    pub(crate) ledger: Ledger,
    /// The listener went, or will, or the proxy drains.
    pub(crate) is_leaving: Cell<bool>,
    pub(crate) running: Cell<u64>,
    /// Answers that came from an origin, and others.
    pub(crate) answered: Cell<u64>,
}

impl Clients {
    /// One client's life.
    pub(crate) async fn live(self: Rc<Self>, number: u64) {
        let mut rng = Rng::new(self.plan.seed ^ ((number + 1) << 32));
        if rng.chance(self.plan.stream_clients) {
            self.live_on_streams(number, &mut rng).await;
        } else {
            self.live_on_connections(number, &mut rng).await;
        }
        self.running.set(self.running.get() - 1);
    }

    /// One that speaks HTTP/1.1.
    async fn live_on_connections(&self, number: u64, rng: &mut Rng) {
        let mut connection: Option<Client<SimIo>> = None;
        let mut carried = 0;
        for turn in 0..self.plan.asks {
            self.pause(rng).await;
            if connection.as_ref().is_none_or(Client::is_over) {
                connection = self.connected(Client::try_connect(&self.io, self.proxy).await);
                carried = 0;
            }
            let Some(client) = &mut connection else { continue };
            let count = if rng.chance(150) { 2 + rng.below(3) } else { 1 };
            let asks = self.asks(rng, (number, turn, count));
            if rng.chance(80) {
                self.give_up(&asks, rng).await;
                continue;
            }
            let behind = if rng.chance(70) { Behind::Fin } else { Behind::Nothing };
            let had_left = self.is_leaving.get();
            let verdicts = client.ask_all(&asks, behind).await;
            let how = How { is_reused: carried > 0, had_left, has_left: self.is_leaving.get() };
            carried += count;
            asks.iter().zip(&verdicts).for_each(|(ask, verdict)| self.judge(ask, how, verdict));
        }
    }

    /// One that speaks HTTP/2: some of its requests side by side, some given up in the middle, or with their connection.
    async fn live_on_streams(&self, number: u64, rng: &mut Rng) {
        let mut connection: Option<Streams<SimIo>> = None;
        let mut carried = 0;
        for turn in 0..self.plan.asks {
            self.pause(rng).await;
            if connection.as_ref().is_none_or(Streams::is_over) {
                let window_bytes = rng.pick(&[50, 3000, 65_535]);
                let config = StreamConfig { window_bytes, ..StreamConfig::default() };
                connection = self.connected(Streams::try_connect(&self.io, self.proxy, config).await);
                carried = 0;
            }
            let Some(streams) = &connection else { continue };
            let count = if rng.chance(400) { 2 + rng.below(5) } else { 1 };
            let asks = self.asks(rng, (number, turn, count));
            let had_left = self.is_leaving.get();
            let is_reused = carried > 0;
            carried += count;
            if rng.chance(50) {
                let mut begun = Vec::new();
                for ask in &asks {
                    begun.extend(streams.begin(ask).await.ok());
                }
                self.pass(Duration::from_millis(rng.pick(&[0, 1, 20, 400]))).await;
                self.ledger
                    .tell(self.io.now(), format!("{} and others go with their connection", asks[0].id));
                if rng.chance(500) {
                    streams.reset()
                } else {
                    streams.close()
                }
                continue;
            }
            let plans: Vec<Option<u64>> =
                asks.iter().map(|_| rng.chance(80).then(|| rng.pick(&[0, 1, 20, 400]))).collect();
            self.ask_side_by_side(streams, &asks, &plans, (is_reused, had_left)).await;
        }
        if let Some(streams) = connection {
            streams.close();
        }
    }

    /// Asks all of them at once; those with a time are given up after it.
    async fn ask_side_by_side(
        &self,
        streams: &Streams<SimIo>,
        asks: &[Ask],
        give_up: &[Option<u64>],
        (is_reused, had_left): (bool, bool),
    ) {
        let Some(((ask, asks), (after, give_up))) = asks.split_first().zip(give_up.split_first()) else {
            return;
        };
        let one = async {
            match after {
                None => {
                    let verdict = streams.ask(ask).await;
                    let how = How { is_reused, had_left, has_left: self.is_leaving.get() };
                    self.judge(ask, how, &verdict);
                }
                Some(after) => {
                    let Ok(stream) = streams.begin(ask).await else { return };
                    let part = ask.body.as_deref().unwrap_or_default();
                    let sending = stream.send(&part[..part.len() / 2], false);
                    let resting = async {
                        self.pass(Duration::from_millis(*after)).await;
                        stream.reset(8);
                        self.ledger.tell(self.io.now(), format!("{} is given up", ask.id));
                    };
                    both(sending, resting).await;
                }
            }
        };
        both(one, Box::pin(self.ask_side_by_side(streams, asks, give_up, (is_reused, had_left)))).await;
    }

    async fn pause(&self, rng: &mut Rng) {
        let pause = rng.pick(&[0, 0, 1, 30, 60, 600, 1500]);
        self.pass(Duration::from_millis(rng.below(pause + 1))).await;
    }

    fn connected<T>(&self, connected: std::io::Result<T>) -> Option<T> {
        // Nobody listens, or the network does not let us; in a whole world only the former.
        assert!(connected.is_ok() || !self.plan.is_whole || self.is_leaving.get(), "nobody answers");
        connected.ok()
    }

    fn asks(&self, rng: &mut Rng, (number, turn, count): (u64, u64, u64)) -> Vec<Ask> {
        let asks: Vec<Ask> = (0..count).map(|at| self.ask(rng, format!("{number}.{turn}.{at}"))).collect();
        asks.iter().for_each(|ask| self.ledger.ask(ask));
        asks
    }

    fn judge(&self, ask: &Ask, how: How, verdict: &Verdict) {
        self.tell(ask, verdict);
        self.ledger.judge(&self.plan, ask, how, verdict);
        self.answered.set(self.answered.get() + u64::from(matches!(verdict, Verdict::Ok(_))));
    }

    fn ask(&self, rng: &mut Rng, id: String) -> Ask {
        let target = format!("/{}/x?y", rng.below(self.plan.clusters.len() as u64));
        let mut ask = match rng.below(10) {
            0..4 => Ask::get("shop", &target, id),
            4 => Ask { method: "HEAD".to_owned(), ..Ask::get("shop", &target, id) },
            5 => Ask { method: "DELETE".to_owned(), ..Ask::get("shop", &target, id) },
            6 => Ask { method: "PUT".to_owned(), ..Ask::post("shop", &target, id, self.plan.body(rng)) },
            _ => Ask::post("shop", &target, id, self.plan.body(rng)),
        };
        if ask.body.is_some() && rng.chance(400) {
            ask = ask.chunked(1 + rng.below(500) as usize);
        }
        if ask.body.is_some() && rng.chance(100) {
            ask = ask.header("expect", "100-continue");
        }
        if rng.chance(50) {
            ask = ask.header("connection", "close");
        }
        ask
    }

    /// Sends a part of requests on a connection of its own, and goes away.
    async fn give_up(&self, asks: &[Ask], rng: &mut Rng) {
        let Ok(mut peer) = Peer::try_connect(&self.io, self.proxy).await else { return };
        let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
        let part = &bytes[..rng.below(bytes.len() as u64 + 1) as usize];
        // Broken already, maybe.
        let _ = peer.try_send(part).await;
        self.pass(Duration::from_millis(rng.pick(&[0, 1, 20, 400]))).await;
        let is_reset = rng.chance(500);
        let now = self.io.now();
        self.ledger
            .tell(now, format!("{} gives up after {} bytes, reset: {is_reset}", asks[0].id, part.len()));
        if is_reset {
            peer.reset();
        }
    }

    fn tell(&self, ask: &Ask, verdict: &Verdict) {
        let what = match verdict {
            Verdict::Ok(answer) => format!("ok {}", answer.status()),
            Verdict::Refused(answer) => {
                format!("refused {} {}", answer.status(), answer.header("x-ringway-reason").unwrap_or("-"))
            }
            other => format!("{other:?}"),
        };
        let bytes = ask.body.as_ref().map_or(0, Vec::len);
        self.ledger.tell(
            self.io.now(),
            format!("{} {} {} of {bytes} bytes: {what}", ask.id, ask.method, ask.target),
        );
    }

    async fn pass(&self, time: Duration) {
        self.io.sleep_until(Deadline::after(self.io.now(), time)).await;
    }
}
