//! What happens in the demo's mesh, measured by its toys: every call, by edge, for the last seconds and in all.
//!
//! The caller measures the whole call and hears from the other end how long that one worked; the difference is what
//! lies between the two applications: two proxies, the loopback device, the caller's client.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Seconds that are looked at.
pub(super) const WINDOW: usize = 5;

/// Longest call that is told from longer ones, in microseconds.
const CALL_MICROS_MAX: u64 = 10_000_000;

/// One call between two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// From the load, through the gateway.
    GatewayWeb,
    /// Messages that come back, through the gateway; WebSocket.
    GatewayChat,
    /// To show what is in the cart.
    WebCart,
    /// To check out.
    WebOrders,
    /// To be paid; gRPC.
    OrdersPay,
    /// To be written down; TCP, and the ledger speaks first.
    PayLedger,
}

/// Every edge, in the order of the view.
pub(super) const EDGES: [Edge; 6] =
    [Edge::GatewayWeb, Edge::GatewayChat, Edge::WebCart, Edge::WebOrders, Edge::OrdersPay, Edge::PayLedger];

impl Edge {
    /// `web -> cart`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Edge::GatewayWeb => "gateway -> web",
            Edge::GatewayChat => "gateway -> chat",
            Edge::WebCart => "web -> cart",
            Edge::WebOrders => "web -> orders",
            Edge::OrdersPay => "orders -> pay",
            Edge::PayLedger => "pay -> ledger",
        }
    }

    /// What is spoken on it.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Edge::GatewayChat => "WebSocket",
            Edge::OrdersPay => "gRPC",
            Edge::PayLedger => "TCP",
            _ => "HTTP/1.1",
        }
    }
}

/// Everything measured. One for the whole demo.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// When the load began; what happens before is only to see whether it can.
    began: OnceLock<Instant>,
    edges: [Mutex<Calls>; EDGES.len()],
}

#[derive(Debug, Default)]
struct Calls {
    total: Totals,
    last_failure: Option<Instant>,
    /// The youngest second first.
    seconds: VecDeque<Second>,
}

#[derive(Debug)]
struct Second {
    number: u64,
    totals: Totals,
    took_micros: Histogram<u32>,
    added_micros: Histogram<u32>,
}

/// Calls since the start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    /// All of them.
    pub(super) calls: u64,
    /// Of these, those that failed.
    pub(super) failed: u64,
}

/// What an edge does now.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Now {
    /// Calls per second.
    pub(super) rate: f64,
    /// Share that succeeded, 0 to 1; `None` without calls.
    pub(super) success: Option<f64>,
    /// Whole calls: median and 99th percentile.
    pub(super) took: [Duration; 2],
    /// What lies between the applications: median and 99th percentile.
    pub(super) added: [Duration; 2],
}

impl Board {
    /// From now on everything counts.
    pub(super) fn begin(&self) {
        self.began.get_or_init(Instant::now);
    }

    /// A call that succeeded; `worked` is what the other end says of itself.
    pub(super) fn succeeded(&self, edge: Edge, took: Duration, worked: Option<Duration>) {
        self.record(edge, |calls, second| {
            second.took_micros.saturating_record(micros(took));
            if let Some(worked) = worked {
                second.added_micros.saturating_record(micros(took.saturating_sub(worked)));
            }
            calls.total.calls += 1;
            second.totals.calls += 1;
        });
    }

    /// A call that failed.
    pub(super) fn failed(&self, edge: Edge) {
        self.record(edge, |calls, second| {
            calls.last_failure = Some(Instant::now());
            for totals in [&mut calls.total, &mut second.totals] {
                totals.calls += 1;
                totals.failed += 1;
            }
        });
    }

    /// Calls since the start.
    pub(super) fn totals(&self, edge: Edge) -> Totals {
        self.calls(edge, |calls| calls.total)
    }

    /// When a call last failed.
    pub(super) fn last_failure(&self, edge: Edge) -> Option<Instant> {
        self.calls(edge, |calls| calls.last_failure)
    }

    /// What an edge does now: the last whole seconds, not the one that has just begun.
    pub(super) fn now(&self, edge: Edge) -> Now {
        let current = self.began.get().map_or(0, |began| began.elapsed().as_secs());
        let first = current.saturating_sub(WINDOW as u64);
        self.calls(edge, |calls| {
            let seconds = calls.seconds.iter().filter(|second| (first..current).contains(&second.number));
            Now::of(seconds, current - first)
        })
    }

    /// What lies between the applications, over all edges: median and 99th percentile.
    pub(super) fn added(&self) -> [Duration; 2] {
        let mut all = histogram();
        for edge in EDGES {
            self.calls(edge, |calls| {
                // Both have the same bounds.
                calls.seconds.iter().for_each(|second| all.add(&second.added_micros).unwrap_or_default());
            });
        }
        quantiles(&all)
    }

    fn record(&self, edge: Edge, record: impl FnOnce(&mut Calls, &mut Second)) {
        let Some(number) = self.began.get().map(|began| began.elapsed().as_secs()) else { return };
        self.calls(edge, |calls| {
            if calls.seconds.front().is_none_or(|second| second.number != number) {
                calls.seconds.truncate(WINDOW);
                calls.seconds.push_front(Second::new(number));
            }
            if let Some(mut second) = calls.seconds.pop_front() {
                record(calls, &mut second);
                calls.seconds.push_front(second);
            }
        });
    }

    fn calls<T>(&self, edge: Edge, look: impl FnOnce(&mut Calls) -> T) -> T {
        look(&mut self.edges[edge as usize].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Now {
    fn of<'a>(seconds: impl Iterator<Item = &'a Second>, count: u64) -> Now {
        let (mut took, mut added, mut totals) = (histogram(), histogram(), Totals::default());
        for second in seconds {
            totals.calls += second.totals.calls;
            totals.failed += second.totals.failed;
            // All have the same bounds.
            took.add(&second.took_micros).unwrap_or_default();
            added.add(&second.added_micros).unwrap_or_default();
        }
        let share = |part: u64, of: u64| (of > 0).then(|| part as f64 / of as f64);
        Now {
            rate: share(totals.calls, count).unwrap_or_default(),
            success: share(totals.calls - totals.failed, totals.calls),
            took: quantiles(&took),
            added: quantiles(&added),
        }
    }
}

impl Second {
    fn new(number: u64) -> Second {
        let (took_micros, added_micros) = (histogram(), histogram());
        Second { number, totals: Totals::default(), took_micros, added_micros }
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, CALL_MICROS_MAX, 2).expect("the bounds are constant and valid")
}

fn quantiles(histogram: &Histogram<u32>) -> [Duration; 2] {
    [0.5, 0.99].map(|quantile| Duration::from_micros(histogram.value_at_quantile(quantile)))
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_make_the_rate_and_failures_the_success() {
        let ms = Duration::from_millis;
        let mut seconds = [Second::new(0), Second::new(1)];
        for second in &mut seconds {
            second.totals = Totals { calls: 100, failed: 5 };
            second.took_micros.record_n(2_000, 94).unwrap();
            second.took_micros.record(40_000).unwrap();
            second.added_micros.record_n(300, 95).unwrap();
        }
        let now = Now::of(seconds.iter(), 2);
        assert_eq!((now.rate, now.success), (100.0, Some(0.95)));
        assert!(now.took[0] >= ms(2) && now.took[0] < Duration::from_micros(2_050), "{now:?}");
        assert!(now.took[1] >= ms(40) && now.added[1] < ms(1), "{now:?}");
        assert_eq!(Now::of([].iter(), 0), Now::default());
    }

    #[test]
    fn a_failure_counts_as_a_call_and_is_remembered() {
        let board = Board::default();
        board.failed(Edge::WebCart);
        assert_eq!(board.totals(Edge::WebCart), Totals::default(), "it has not begun");
        board.begin();
        board.succeeded(Edge::WebCart, Duration::from_millis(1), None);
        assert_eq!(board.last_failure(Edge::WebCart), None);
        board.failed(Edge::WebCart);
        assert_eq!(board.totals(Edge::WebCart), Totals { calls: 2, failed: 1 });
        assert_eq!(board.totals(Edge::WebOrders), Totals::default());
        assert!(board.last_failure(Edge::WebCart).is_some());
    }
}
