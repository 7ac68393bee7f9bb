//! Counters and histograms that one worker writes and the control thread reads.
//!
//! Each worker has blocks of its own, so counting is a load and a store on a cache line nobody else writes: no
//! read-modify-write, no sharing. Labels are resolved when a block is made, never on a request. Blocks are carried over
//! by name from one snapshot to the next, so counters never fall back. Names are Envoy's (`cluster.*.upstream_rq_total`)
//! so that dashboards move over; what Envoy has no name for begins with `ringway_`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::grpc::GrpcStats;

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`. One writer: the load and the store need not be one operation.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes one away, for gauges.
    pub fn dec(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// Sets it, for gauges.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of Envoy's default histogram buckets, in milliseconds; an open one follows.
pub const BUCKETS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10000.0,
    30000.0,
    60000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
const BUCKETS_NS: [u64; BUCKETS_MS.len()] = {
    let mut ns = [0; BUCKETS_MS.len()];
    let mut at = 0;
    while at < ns.len() {
        ns[at] = (BUCKETS_MS[at] * 1e6) as u64;
        at += 1;
    }
    ns
};

/// Durations in Envoy's default buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_MS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, span: Duration) {
        let ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_NS.iter().position(|bound| ns <= *bound).unwrap_or(BUCKETS_NS.len());
        self.buckets[bucket].inc();
        self.sum_ns.add(ns);
    }

    /// Counts per bucket, not summed up, the open one last.
    pub fn counts(&self) -> [u64; BUCKETS_MS.len() + 1] {
        std::array::from_fn(|at| self.buckets[at].get())
    }

    /// The sum of all durations, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }
}

/// What two workers' blocks never share, in bytes: two cache lines, because processors fetch lines in pairs. What is
/// aligned to it fills it, too.
const SHARED_BY_NONE_BYTES: usize = 128;
const _: () = {
    assert!(align_of::<ClusterStats>() >= SHARED_BY_NONE_BYTES);
    assert!(align_of::<HttpStats>() >= SHARED_BY_NONE_BYTES);
    assert!(align_of::<RbacCounters>() >= SHARED_BY_NONE_BYTES);
    assert!(align_of::<ListenerStats>() >= SHARED_BY_NONE_BYTES);
    assert!(align_of::<TcpCounters>() >= SHARED_BY_NONE_BYTES);
    assert!(align_of::<WorkerStats>() >= SHARED_BY_NONE_BYTES);
};

/// Declares a block of counters and how to walk over it by Envoy's names.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $kind:ident $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: Counter,)*
        }

        impl $name {
            /// Every counter with its name and kind, in declaration order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, Kind, u64)> {
                [$((stringify!($field), Kind::$kind, self.$field.get()),)*].into_iter()
            }
        }
    };
}

/// Prometheus' type of a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

mod plaintext;
mod rbac;
mod tls;

pub use self::{
    plaintext::{PlaintextStats, Source, sources},
    rbac::RbacCounters,
    tls::TlsCounters,
};

block! {
    /// `cluster.<name>.*` of Envoy.
    ClusterCounters {
        /// Connections made or tried.
        Counter upstream_cx_total,
        /// Connections open now.
        Gauge upstream_cx_active,
        /// Connections that speak HTTP/2.
        Counter upstream_cx_http2_total,
        /// Connections that could not be made.
        Counter upstream_cx_connect_fail,
        /// Of these, by timeout.
        Counter upstream_cx_connect_timeout,
        /// Connections ended by us.
        Counter upstream_cx_destroy_local,
        /// Connections ended by upstream.
        Counter upstream_cx_destroy_remote,
        /// Bytes received.
        Counter upstream_cx_rx_bytes_total,
        /// Bytes sent.
        Counter upstream_cx_tx_bytes_total,
        /// Requests that found no endpoint.
        Counter upstream_cx_none_healthy,
        /// Connections that lived as long as they may.
        Counter upstream_cx_max_duration_reached,
        /// Connections that carried as many requests as they may.
        Counter upstream_cx_max_requests,
        /// Connections that upstream broke with a malformed response.
        Counter upstream_cx_protocol_error,
        /// Requests sent.
        Counter upstream_rq_total,
        /// Requests in flight.
        Gauge upstream_rq_active,
        /// Requests whose route timeout passed.
        Counter upstream_rq_timeout,
        /// Requests moved to another connection or endpoint.
        Counter upstream_rq_retry,
        /// Of these, those that then succeeded.
        Counter upstream_rq_retry_success,
        /// Requests that upstream broke before or in the response.
        Counter upstream_rq_rx_reset,
        /// Requests that we broke.
        Counter upstream_rq_tx_reset,
        /// Final responses.
        Counter upstream_rq_completed,
        /// Requests that failed for want of an endpoint.
        Counter upstream_rq_maintenance_mode,
    }
}

/// A cluster's counters with its response codes and times.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ClusterStats {
    /// Plain counters.
    pub counters: ClusterCounters,
    /// `upstream_rq_xx`: responses by class, 1xx first.
    pub classes: [Counter; 5],
    /// `upstream_rq_time`.
    pub rq_time: Histogram,
    /// `upstream_cx_connect_ms`.
    pub cx_connect: Histogram,
    /// `grpc.<service>.<method>.*`.
    pub grpc: GrpcStats,
    /// `ssl.*`.
    pub tls: TlsCounters,
}

impl ClusterStats {
    /// Counts a final response.
    pub fn response(&self, status: u16, took: Duration) {
        self.counters.upstream_rq_completed.inc();
        if let Some(class) = class(&self.classes, status) {
            class.inc();
        }
        self.rq_time.record(took);
    }
}

fn class(classes: &[Counter; 5], status: u16) -> Option<&Counter> {
    classes.get(usize::from(status / 100).checked_sub(1)?)
}

block! {
    /// `http.<stat_prefix>.*` of Envoy.
    HttpCounters {
        /// Connections.
        Counter downstream_cx_total,
        /// Connections open now.
        Gauge downstream_cx_active,
        /// Connections that speak HTTP/2.
        Counter downstream_cx_http2_total,
        /// Of these, those open now.
        Gauge downstream_cx_http2_active,
        /// Connections that ended with an exchange unfinished.
        Counter downstream_cx_destroy_active_rq,
        /// Connections closed for idleness.
        Counter downstream_cx_idle_timeout,
        /// Connections that lived as long as they may.
        Counter downstream_cx_max_duration_reached,
        /// Connections that carried as many requests as they may.
        Counter downstream_cx_max_requests_reached,
        /// Connections closed for a malformed request.
        Counter downstream_cx_protocol_error,
        /// Bytes received.
        Counter downstream_cx_rx_bytes_total,
        /// Bytes sent.
        Counter downstream_cx_tx_bytes_total,
        /// Requests.
        Counter downstream_rq_total,
        /// Requests in flight.
        Gauge downstream_rq_active,
        /// Requests whose head did not come in time.
        Counter downstream_rq_header_timeout,
        /// Requests that did not come in time.
        Counter downstream_rq_timeout,
        /// Requests with a head over the limit.
        Counter downstream_rq_too_large,
        /// Requests refused for want of memory.
        Counter downstream_rq_overload_close,
        /// Requests that downstream broke.
        Counter downstream_rq_rx_reset,
        /// Requests without a route.
        Counter no_route,
        /// Requests whose route names an unknown cluster.
        Counter no_cluster,
        /// Requests answered with a redirect.
        Counter rq_redirect,
        /// Requests answered by a route itself.
        Counter rq_direct_response,
    }
}

/// A connection manager's counters with its response codes and times.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct HttpStats {
    /// Plain counters.
    pub counters: HttpCounters,
    /// `downstream_rq_xx`: responses by class, 1xx first.
    pub classes: [Counter; 5],
    /// `downstream_rq_time`.
    pub rq_time: Histogram,
    /// `ringway_proxy_added_time`: what the exchange took beyond waiting for upstream.
    pub added_time: Histogram,
    /// `rbac.*`.
    pub rbac: RbacCounters,
}

impl HttpStats {
    /// Counts the end of an exchange.
    pub fn response(&self, status: u16, took: Duration, added: Duration) {
        if let Some(class) = class(&self.classes, status) {
            class.inc();
        }
        self.rq_time.record(took);
        self.added_time.record(added);
    }
}

block! {
    /// `listener.<address>.*` of Envoy.
    ListenerCounters {
        /// Connections.
        Counter downstream_cx_total,
        /// Connections open now.
        Gauge downstream_cx_active,
        /// Connections that no filter chain takes.
        Counter no_filter_chain_match,
        /// Connections whose ClientHello did not come in time.
        Counter downstream_pre_cx_timeout,
        /// Connections without a PROXY protocol header, or with a wrong one.
        Counter downstream_cx_proxy_proto_error,
        /// Connections on which the server spoke first.
        Counter downstream_cx_server_first,
        /// Connections that were closed at once, since the process has as many as it may.
        Counter downstream_global_cx_overflow,
        /// Pauses of accepting, since descriptors or memory are short.
        Counter downstream_cx_accept_paused,
        /// Failures to accept.
        Counter downstream_cx_accept_fail,
    }
}

/// A listener's counters.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerStats {
    /// Plain counters.
    pub counters: ListenerCounters,
    /// `ssl.*`.
    pub tls: TlsCounters,
    /// Who comes in plain text where others come secured.
    pub plaintext: PlaintextStats,
}

block! {
    /// `tcp.<stat_prefix>.*` of Envoy.
    #[repr(align(128))]
    TcpCounters {
        /// Connections.
        Counter downstream_cx_total,
        /// Bytes received from downstream.
        Counter downstream_cx_rx_bytes_total,
        /// Bytes sent downstream.
        Counter downstream_cx_tx_bytes_total,
        /// Connections closed for want of memory.
        Counter downstream_cx_overload_close,
        /// Connections for which no cluster was known.
        Counter downstream_cx_no_route,
        /// Connections closed for idleness.
        Counter idle_timeout,
    }
}

block! {
    /// One worker's loop: `/cores`.
    WorkerCounters {
        /// Downstream and upstream connections open now.
        Gauge connections,
        /// Requests and TCP connections begun.
        Counter requests,
        /// Loop turns.
        Counter turns,
        /// Turns in which more had happened than io_uring's queue holds.
        Counter completion_overflows,
        /// Version of the snapshot in use.
        Gauge snapshot_version,
        /// Receive buffers in use.
        Gauge buffers_out,
        /// Receive buffers kept for the next.
        Gauge buffers_kept,
        /// Connections accepted here and given to another worker.
        Counter handed_over,
        /// Connections that another thread accepted: a worker, or the control thread for one that is stuck.
        Counter taken_over,
        /// Idle upstream connections lent to another worker.
        Counter upstream_cx_lent,
        /// Those that another worker lent.
        Counter upstream_cx_borrowed,
    }
}

/// A worker's own figures.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Plain counters.
    pub counters: WorkerCounters,
    /// Busy time per loop turn, by powers of two of microseconds: below 1, 2, 4 … 2^22 and above.
    pub turn_busy_us: [Counter; 24],
    /// Busy time in all, nanoseconds.
    pub busy_ns: Counter,
    /// Receive buffers that there may be, in use or kept for the next.
    pub buffers_allowed: Allowance,
}

/// A bound that the control thread sets and a worker looks at.
#[derive(Debug)]
pub struct Allowance(AtomicU64);

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance(AtomicU64::new(u64::MAX))
    }
}

impl Allowance {
    /// Sets it.
    pub fn set(&self, most: u64) {
        self.0.store(most, Ordering::Relaxed);
    }

    /// As it was set.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether `count` is more than so many percent of it.
    pub fn is_exceeded_by(&self, count: usize, percent: u64) -> bool {
        count as u64 > self.get() / 100 * percent + self.get() % 100 * percent / 100
    }
}

impl WorkerStats {
    /// Counts one turn.
    pub fn turn(&self, busy: Duration) {
        self.counters.turns.inc();
        self.busy_ns.add(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        let micros = u64::try_from(busy.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - micros.leading_zeros() as usize).min(self.turn_busy_us.len() - 1);
        self.turn_busy_us[bucket].inc();
    }

    /// Upper bound, in microseconds, of the turn at `quantile` (0–1); 0 before the first.
    pub fn turn_quantile_us(&self, quantile: f64) -> u64 {
        let counts: Vec<u64> = self.turn_busy_us.iter().map(Counter::get).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return 1 << bucket;
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::default();
        for micros in [1, 500, 501, 1000, 4_000_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[BUCKETS_MS.len()]), (2, 2, 1));
        assert_eq!(histogram.sum_ns(), 4_000_002_002_000);
    }

    #[test]
    fn quantiles_of_turns_are_upper_bounds() {
        let stats = WorkerStats::default();
        (0..99).for_each(|_| stats.turn(Duration::from_micros(3)));
        stats.turn(Duration::from_millis(2));
        assert_eq!((stats.turn_quantile_us(0.5), stats.turn_quantile_us(1.0)), (4, 2048));
    }
}
