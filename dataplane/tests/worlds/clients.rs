//! What clients do: ask and wait, ask several at once, send FIN behind the last, give up in the middle.

use std::{cell::Cell, rc::Rc, time::Duration};

use runtime::{Deadline, Io};
use sim::{Ask, Behind, Client, Peer, Rng, SimIo, Verdict};

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
        let mut connection: Option<Client<SimIo>> = None;
        let mut carried = 0;
        for turn in 0..self.plan.asks {
            let pause = rng.pick(&[0, 0, 1, 30, 60, 600, 1500]);
            self.pass(Duration::from_millis(rng.below(pause + 1))).await;
            if connection.as_ref().is_none_or(Client::is_over) {
                let connected = Client::try_connect(&self.io, self.proxy).await;
                let is_refused = connected.is_err();
                // Nobody listens, or the network does not let us; in a whole world only the former.
                assert!(!is_refused || !self.plan.is_whole || self.is_leaving.get(), "nobody answers");
                (connection, carried) = (connected.ok(), 0);
            }
            let Some(client) = &mut connection else { continue };
            let count = if rng.chance(150) { 2 + rng.below(3) } else { 1 };
            let asks: Vec<Ask> =
                (0..count).map(|at| self.ask(&mut rng, format!("{number}.{turn}.{at}"))).collect();
            asks.iter().for_each(|ask| self.ledger.ask(ask));
            if rng.chance(80) {
                self.give_up(&asks, &mut rng).await;
                continue;
            }
            let behind = if rng.chance(70) { Behind::Fin } else { Behind::Nothing };
            let had_left = self.is_leaving.get();
            let verdicts = client.ask_all(&asks, behind).await;
            let how = How { is_reused: carried > 0, had_left, has_left: self.is_leaving.get() };
            carried += count;
            for (ask, verdict) in asks.iter().zip(&verdicts) {
                self.tell(ask, verdict);
                self.ledger.judge(&self.plan, ask, how, verdict);
                self.answered.set(self.answered.get() + u64::from(matches!(verdict, Verdict::Ok(_))));
            }
        }
        self.running.set(self.running.get() - 1);
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
