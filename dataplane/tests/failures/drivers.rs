//! IU-07: what goes upstream is the same on both drivers, byte by byte.

use std::collections::BTreeMap;

use crate::{
    ledger::{Tally, Unsafe, Verdict},
    recorder::Recorded,
};

/// Its name in the catalogue.
pub(crate) const ROW: &str = "IU-07";
/// What is compared.
pub(crate) const ABOUT: &str = "the bytes of every whole request of H1-* on one driver and on the other";

/// The whole requests that one proxy sent upstream.
#[derive(Default)]
pub(crate) struct Upstream {
    /// By id: the row, and each arrival.
    requests: BTreeMap<u64, (&'static str, Vec<Vec<u8>>)>,
}

impl Upstream {
    /// Takes note of what a row brought.
    pub(crate) fn take(&mut self, row: &'static str, recorded: &[Recorded]) {
        for (id, recorded) in recorded.iter().filter_map(|recorded| Some((recorded.id?, recorded))) {
            if recorded.message.is_whole {
                self.requests.entry(id).or_insert((row, Vec::new())).1.push(without_random(&recorded.bytes));
            }
        }
    }
}

/// The id that the proxy gives a request is the one thing in it that is drawn.
fn without_random(bytes: &[u8]) -> Vec<u8> {
    const LINE: &[u8] = b"\r\nx-request-id: ";
    const DRAWN: usize = "00000000-0000-4000-8000-000000000000".len();
    let mut bytes = bytes.to_vec();
    let line = bytes.windows(LINE.len()).position(|window| window == LINE);
    let drawn = line.and_then(|at| bytes.get_mut(at + LINE.len()..)?.get_mut(..DRAWN));
    if let Some(drawn) =
        drawn.filter(|drawn| drawn.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-'))
    {
        drawn.fill(b'?');
    }
    bytes
}

/// Ids follow from the order of trials, so equal ones are of the same input.
pub(crate) fn compare([one, other]: [&Upstream; 2]) -> Tally {
    let mut tally = Tally::begin();
    let ids = one.requests.keys().chain(other.requests.keys().filter(|id| !one.requests.contains_key(id)));
    for id in ids {
        let mut verdict = Verdict::default();
        let [one, other] =
            [one, other].map(|of| of.requests.get(id).map(|(_, bytes)| &bytes[..]).unwrap_or_default());
        if one != other {
            verdict.found.push((Unsafe::Altered, format!("{} and {}", text(one), text(other))));
        }
        tally.count(&format!("request {id}"), verdict);
    }
    tally
}

fn text(arrivals: &[Vec<u8>]) -> String {
    let shown = |bytes: &Vec<u8>| bytes[..bytes.len().min(400)].escape_ascii().to_string();
    if arrivals.is_empty() {
        "nothing".to_owned()
    } else {
        arrivals.iter().map(shown).collect::<Vec<_>>().join(" | ")
    }
}
