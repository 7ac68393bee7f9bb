//! One record per exchange: counted always, written where configured, exactly once, also when the exchange is dropped.
//!
//! A line is one JSON object with a fixed order of fields. Lines go through a bounded queue to a thread of their own; when
//! the queue is full, or the sink takes no line, the line is dropped and counted, so that a full disk or a stalled pipe never
//! holds a worker.

use std::{
    fmt::{Display, Write as _},
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use policy::{
    rbac::{Action, Decision},
    route::Route,
};
use runtime::Io;

use crate::{
    downstream::{Downstream, Manager},
    origin::Origin,
    respond::Row,
    telemetry::metrics::WorkerStats,
    worker::{BoundCluster, Worker},
};

/// Lines that wait to be written.
const QUEUE_LINES_MAX: usize = 4096;

/// Where lines go; clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    queue: Option<SyncSender<Vec<u8>>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Nothing is written.
    pub fn off() -> AccessLog {
        AccessLog::default()
    }

    /// Appends to a file, or writes to standard output for `-`.
    pub fn start(path: &Path) -> io::Result<AccessLog> {
        let out = match path.to_str() {
            // Not `io::stdout()`, which keeps a part of what it could not write.
            Some("-") => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            _ => OpenOptions::new().create(true).append(true).open(path)?,
        };
        let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let counter = dropped.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_lines(out, &lines, &counter))?;
        Ok(AccessLog { queue: Some(queue), dropped })
    }

    /// Lines that found the queue full, or that the sink did not take.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// A connection that was refused before anything was asked on it: a word for why, and what there is to say of that.
    pub fn refused(&self, origin: &Origin, reason: &str, detail: &dyn Display) {
        if self.queue.is_none() {
            return;
        }
        let mut line = String::with_capacity(256);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let _ = write!(line, "{{\"time\":{}.{:03}", now.as_secs(), now.subsec_millis());
        text(&mut line, "listener", origin.listener.as_bytes());
        let _ = write!(line, ",\"downstream\":\"{}\"", origin.remote);
        let identity = origin.identity().and_then(|peer| peer.principals().next());
        if let Some(identity) = identity {
            text(&mut line, "downstream_identity", identity.as_bytes());
        }
        text(&mut line, "reason", reason.as_bytes());
        // The name of a stranger's certificate may be in it.
        text(&mut line, "detail", detail.to_string().as_bytes());
        line.push_str("}\n");
        self.push(line.into_bytes());
    }

    fn push(&self, line: Vec<u8>) {
        if let Some(queue) = &self.queue
            && queue.try_send(line).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(mut out: impl Write, lines: &Receiver<Vec<u8>>, dropped: &AtomicU64) {
    // The sink ends with a part of a line, which no other line shall be added to.
    let mut is_torn = false;
    while let Ok(mut line) = lines.recv() {
        if is_torn {
            line.insert(0, b'\n');
        }
        let left = unwritten(&mut out, &line);
        if left > 0 {
            // There is nobody to tell who could do more.
            dropped.fetch_add(1, Ordering::Relaxed);
        }
        is_torn = if left == line.len() { is_torn } else { left > 0 };
    }
}

/// Writes a line; how many of its bytes the sink did not take.
fn unwritten(out: &mut impl Write, mut line: &[u8]) -> usize {
    while !line.is_empty() {
        match out.write(line) {
            Ok(0) => break,
            Ok(count) => line = line.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    line.len()
}

/// What happened in one exchange.
pub struct Record<'a> {
    manager: &'a Manager,
    cluster: Option<&'a BoundCluster>,
    route: Option<&'a Route>,
    begun: u64,
    sent: Option<u64>,
    response_at: Option<u64>,
    status: u16,
    row: Option<Row>,
    upstream: Option<SocketAddr>,
    retries: u32,
    bytes_sent: u64,
    /// What rules decided, if any did.
    decided: Option<Decided<'a>>,
    /// It is a gRPC call, with the status that it ended with, if one was told.
    grpc: Option<Option<u8>>,
    is_finished: bool,
}

impl<'a> Record<'a> {
    /// Counts the beginning of an exchange.
    pub fn begin(worker: &WorkerStats, manager: &'a Manager, now: u64) -> Record<'a> {
        worker.counters.requests.inc();
        manager.stats.counters.downstream_rq_total.inc();
        manager.stats.counters.downstream_rq_active.inc();
        Record {
            manager,
            cluster: None,
            route: None,
            begun: now,
            sent: None,
            response_at: None,
            status: 0,
            row: None,
            upstream: None,
            retries: 0,
            bytes_sent: 0,
            decided: None,
            grpc: None,
            is_finished: false,
        }
    }

    /// When it began.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// The route that takes it.
    pub fn route(&mut self, route: &'a Route) {
        self.route = Some(route);
    }

    /// The cluster that it goes to.
    pub fn cluster(&mut self, cluster: &'a BoundCluster) {
        self.cluster = Some(cluster);
        cluster.stats.counters.upstream_rq_active.inc();
    }

    /// The endpoint of the attempt that begins.
    pub fn upstream(&mut self, address: SocketAddr) {
        self.upstream = Some(address);
    }

    /// Another attempt will be made.
    pub fn retry(&mut self) {
        self.retries += 1;
        if let Some(cluster) = self.cluster {
            cluster.stats.counters.upstream_rq_retry.inc();
        }
    }

    /// The request head, and what was there of its body, went upstream.
    pub fn request_sent(&mut self, now: u64) {
        self.sent = Some(now);
    }

    /// A final response head is about to go downstream.
    pub fn response_started(&mut self, status: u16, now: u64) {
        self.status = status;
        self.response_at = Some(now);
    }

    /// Whether it is.
    pub fn has_response_started(&self) -> bool {
        self.response_at.is_some()
    }

    /// Bytes that went downstream.
    pub fn sent_down(&mut self, count: u64) {
        self.bytes_sent += count;
    }

    /// A filter decided about it. Of several the last counts that names a policy, or denies.
    pub fn decided(&mut self, decision: &Decision<'a>) {
        let decided = self.decided.get_or_insert_default();
        if let Some(verdict) = decision.enforced {
            match verdict.action {
                Action::Log => decided.noted = verdict.policy.or(decided.noted),
                Action::Allow | Action::Deny if verdict.is_allowed() => {
                    decided.policy = verdict.policy.or(decided.policy);
                }
                Action::Allow | Action::Deny => decided.policy = verdict.policy,
            }
        }
        if let Some(verdict) = decision.shadow.filter(|verdict| !verdict.is_allowed()) {
            decided.shadow_denied = Some(verdict.policy);
        }
    }

    /// It is a gRPC call.
    pub fn grpc_call(&mut self) {
        self.grpc = Some(None);
    }

    /// The status of a call was told.
    pub fn grpc_status(&mut self, status: Option<u8>) {
        if let (Some(known), Some(_)) = (&mut self.grpc, status) {
            *known = status;
        }
    }

    /// Whether it is a gRPC call.
    pub fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    /// It ended early.
    pub fn failed(&mut self, row: Row) {
        self.row = Some(row);
        if self.response_at.is_none() {
            self.status = row.status;
        }
    }

    /// Counts the end, and writes the line if one is wanted. The request head lies at the front of the buffer still.
    pub fn finish<I: Io>(mut self, worker: &Worker<I>, downstream: &Downstream<'_, I>) {
        self.is_finished = true;
        let took = Duration::from_nanos(worker.io.now().saturating_sub(self.begun));
        let waited = match (self.sent, self.response_at) {
            (Some(sent), Some(response)) => Duration::from_nanos(response.saturating_sub(sent)),
            _ => Duration::ZERO,
        };
        self.manager.stats.response(self.status, took, took.saturating_sub(waited));
        if let Some(cluster) = self.cluster {
            if let (Some(_), Some(_)) = (self.sent, self.response_at) {
                cluster.stats.response(self.status, took);
            }
            if let Some(status) = self.grpc {
                cluster.stats.grpc.count(downstream.view().path(), status);
            }
            if self.retries > 0 && self.row.is_none() {
                cluster.stats.counters.upstream_rq_retry_success.inc();
            }
        }
        let is_wanted = self.manager.config.access_log
            || self.row.is_some()
            || self.decided.is_some_and(|of| of.noted.is_some() || of.shadow_denied.is_some());
        if worker.access_log.queue.is_some() && is_wanted {
            worker.access_log.push(self.line(downstream, took, waited).into_bytes());
        }
    }

    /// Allocates; only for exchanges that are logged.
    fn line<I: Io>(&self, downstream: &Downstream<'_, I>, took: Duration, waited: Duration) -> String {
        let view = downstream.view();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = String::with_capacity(512);
        let (flag, reason) = self.row.map_or(("-", "-"), |row| (row.flag, row.reason));
        let begun_ms = since_epoch.saturating_sub(took).as_millis();
        let _ = write!(line, "{{\"time_unix_ms\":{begun_ms}");
        text(&mut line, "method", view.method());
        text(&mut line, "authority", view.authority());
        text(&mut line, "target", view.head.target.of(view.bytes));
        let _ = write!(line, ",\"status\":{}", self.status);
        text(&mut line, "flags", flag.as_bytes());
        text(&mut line, "reason", reason.as_bytes());
        let _ = write!(line, ",\"retries\":{},\"bytes_sent\":{}", self.retries, self.bytes_sent);
        let _ = write!(line, ",\"duration_us\":{},\"upstream_us\":{}", took.as_micros(), waited.as_micros());
        if let Some(status) = self.grpc {
            let _ = write!(line, ",\"grpc_status\":{}", status.map_or(-1, i16::from));
        }
        let origin = downstream.side.origin();
        let client = self.manager.config.forwarded.client(&view, origin.remote);
        text(&mut line, "downstream", client.to_string().as_bytes());
        text(&mut line, "downstream_direct", origin.peer().to_string().as_bytes());
        let name = origin.identity().and_then(|peer| peer.principals().next());
        text(&mut line, "downstream_identity", name.unwrap_or("-").as_bytes());
        text(
            &mut line,
            "upstream",
            self.upstream.map_or("-".into(), |address| address.to_string()).as_bytes(),
        );
        text(&mut line, "route", self.route.map_or("-", |route| &route.name).as_bytes());
        if let Some(decided) = self.decided {
            decided.write(&mut line);
        }
        line.push_str("}\n");
        line
    }
}

/// What rules decided about an exchange: names of policies.
#[derive(Clone, Copy, Debug, Default)]
struct Decided<'a> {
    /// The one that allowed it, or denied it. Nobody is named where none allowed it, or none had to.
    policy: Option<&'a Arc<str>>,
    /// The one that notes it.
    noted: Option<&'a Arc<str>>,
    /// It would have been denied, by this one.
    shadow_denied: Option<Option<&'a Arc<str>>>,
}

impl Decided<'_> {
    fn write(&self, line: &mut String) {
        let policies = [
            ("policy", Some(self.policy)),
            ("noted_by", self.noted.map(Some)),
            ("shadow_denied_by", self.shadow_denied),
        ];
        for (field, policy) in policies {
            if let Some(policy) = policy {
                text(line, field, policy.map_or("-", |name| &**name).as_bytes());
            }
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.manager.stats.counters.downstream_rq_active.dec();
        if let Some(cluster) = self.cluster {
            cluster.stats.counters.upstream_rq_active.dec();
        }
        if !self.is_finished {
            self.manager.stats.counters.downstream_cx_destroy_active_rq.inc();
        }
    }
}

/// Appends `,"name":"value"`. The value is hostile: what JSON or a terminal could take for more than text is escaped.
fn text(line: &mut String, name: &str, value: &[u8]) {
    let _ = write!(line, ",\"{name}\":\"");
    for byte in value {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            0x20..=0x7e => line.push(char::from(*byte)),
            _ => {
                let _ = write!(line, "\\u{byte:04x}");
            }
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn hostile_bytes_cannot_end_a_field_or_a_line() {
        let mut line = String::new();
        text(&mut line, "target", b"/\"\\\r\n\x1b[31m\xff");
        assert_eq!(line, r#","target":"/\"\\\u000d\u000a\u001b[31m\u00ff""#);
    }

    #[test]
    fn a_stalled_sink_drops_lines_and_counts_them() {
        let (queue, _stalled) = sync_channel(1);
        let log = AccessLog { queue: Some(queue), dropped: Arc::default() };
        (0..3).for_each(|_| log.push(b"line\n".to_vec()));
        assert_eq!(log.dropped(), 2);
    }

    /// Takes so many bytes, then none, then so many.
    struct Sink {
        written: Vec<u8>,
        room: VecDeque<usize>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.room.pop_front().unwrap_or(usize::MAX).min(bytes.len());
            self.written.extend_from_slice(bytes.get(..room).unwrap_or_default());
            if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_a_torn_one_stays_alone() {
        for (room, written, dropped) in [
            (&[][..], "one\ntwo\nthree\n", 0),
            (&[2, 2], "one\ntwo\nthree\n", 0),
            (&[0], "two\nthree\n", 1),
            (&[2, 0], "on\ntwo\nthree\n", 1),
            (&[2, 0, 0], "on\nthree\n", 2),
            (&[2, 0, 3, 0], "on\ntw\nthree\n", 2),
            (&[4, 3, 0], "one\ntwo\nthree\n", 1),
            (&[0, 0, 0], "", 3),
        ] {
            let (queue, lines) = sync_channel(3);
            ["one\n", "two\n", "three\n"]
                .iter()
                .for_each(|line| queue.send(line.as_bytes().to_vec()).unwrap());
            drop(queue);
            let mut sink = Sink { written: Vec::new(), room: room.iter().copied().collect() };
            let count = AtomicU64::new(0);
            write_lines(&mut sink, &lines, &count);
            let text = String::from_utf8(sink.written).unwrap();
            assert_eq!((&*text, count.into_inner()), (written, dropped), "{room:?}");
        }
    }
}
