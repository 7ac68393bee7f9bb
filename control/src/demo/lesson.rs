//! The lessons: something is broken in the running mesh, what the mesh does about it is said in words, and afterwards
//! all is well again.

use std::error::Error as _;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::board::{Board, Edge, Totals};
use super::mesh::{LEASE, Mesh};
use super::place::MeshError;
use super::toy::Service;
use crate::sidecar::admin;

/// How long the control plane stays away.
const AWAY: Duration = Duration::from_secs(8);

/// Longest wait for what should take a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// A replica dies with its proxy, without a word.
    DeadReplica,
    /// The control plane dies.
    KillControlPlane,
}

/// Why a lesson did not end as it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum LessonError {
    /// Something could not be started again.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// It did not recover.
    #[error("{what} did not happen within 30 s")]
    Never {
        /// What was waited for.
        what: &'static str,
    },
}

/// There is no such lesson.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown lesson")]
pub struct UnknownLesson;

impl LessonError {
    /// With everything that led to it: whoever asked for the lesson gets a line of text.
    pub(super) fn with_causes(&self) -> String {
        let mut line = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            line += &format!(": {cause}");
            source = cause.source();
        }
        line
    }
}

impl Lesson {
    /// Its name, as the demo's socket hears it.
    pub fn name(self) -> &'static str {
        match self {
            Lesson::DeadReplica => "break dead-replica",
            Lesson::KillControlPlane => "kill control-plane",
        }
    }
}

impl FromStr for Lesson {
    type Err = UnknownLesson;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lessons = [Lesson::DeadReplica, Lesson::KillControlPlane];
        lessons.into_iter().find(|lesson| lesson.name() == text).ok_or(UnknownLesson)
    }
}

/// What a lesson says goes line by line to whoever asked for it.
pub(super) type Words = mpsc::UnboundedSender<String>;

/// Gives a lesson to the mesh. What it breaks is started again, or the error says what was not.
pub(super) async fn give(
    lesson: Lesson,
    mesh: &Mesh,
    board: &Board,
    words: &Words,
) -> Result<(), LessonError> {
    match lesson {
        Lesson::DeadReplica => dead_replica(mesh, board, words).await,
        Lesson::KillControlPlane => kill_control_plane(mesh, board, words).await,
    }
}

async fn dead_replica(mesh: &Mesh, board: &Board, words: &Words) -> Result<(), LessonError> {
    let say = |line: String| words.send(line).unwrap_or_default();
    let mut of_orders = mesh.replicas().iter().filter(|replica| replica.service == Service::Orders);
    let (Some(other), Some(victim)) = (of_orders.next(), of_orders.next()) else { return Ok(()) };
    let (name, other_name) = (victim.name(), other.name());
    let moved_before = moved(mesh).await;
    let before = Counts::of(board);
    let other_before = other.now().served;
    let started = Instant::now();
    say(format!("{name} dies: application and proxy are killed, nobody is told"));
    victim.kill().await;

    let left = tokio::time::timeout(PATIENCE, until_registered(mesh, mesh.replicas().len() - 1)).await;
    let left = left.map(|()| started.elapsed());
    let calls = before.until_now(board);
    let taken = other.now().served.saturating_sub(other_before);
    let moved = moved(mesh).await.zip(moved_before).map(|(now, before)| now.saturating_sub(before));
    say(format!(
        "  {} requests came through the gateway meanwhile, {} failed{}",
        calls.all.calls,
        calls.all.failed,
        match (calls.all.failed, board.last_failure(Edge::GatewayWeb)) {
            (0, _) | (_, None) => String::new(),
            (_, Some(last)) => {
                let after = last.saturating_duration_since(started);
                format!(", the last {} after the death", seconds(after))
            }
        }
    ));
    say(format!("  {other_name} took {taken} of {} calls of orders", calls.orders.calls));
    if let Some(moved) = moved {
        say(format!("  {moved} calls met the dead replica before a byte was sent and went to the other"));
    }
    match left {
        Ok(left) => say(format!(
            "  after {} its lease of {} had ended: the endpoint is gone from every proxy",
            seconds(left),
            seconds(LEASE)
        )),
        Err(_) => say("  its endpoint is still there".to_owned()),
    }

    let restarted = Instant::now();
    victim.start(mesh.place()).await?;
    let first = async {
        while victim.now().served == 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    let took = tokio::time::timeout(PATIENCE, first).await;
    took.map_err(|_| LessonError::Never { what: "a request to the replica that was started again" })?;
    say(format!(
        "{name} was started again and took its first request {} later",
        seconds(restarted.elapsed())
    ));
    Ok(())
}

async fn kill_control_plane(mesh: &Mesh, board: &Board, words: &Words) -> Result<(), LessonError> {
    let say = |line: String| words.send(line).unwrap_or_default();
    let before = Counts::of(board);
    if !mesh.kill_control_plane().await {
        say("the control plane is dead already".to_owned());
        return Ok(());
    }
    say("the control plane dies: no configuration, no registration, no API".to_owned());
    tokio::time::sleep(AWAY).await;
    let calls = before.until_now(board);
    say(format!("  {} without it: {} requests, {} failed", seconds(AWAY), calls.all.calls, calls.all.failed));
    say("  every proxy goes on with the configuration it has, and would start again with it".to_owned());

    let restarted = Instant::now();
    mesh.start_control_plane().await?;
    let synced = async {
        until_registered(mesh, mesh.replicas().len()).await;
        loop {
            match mesh.in_sync().await {
                Some((synced, all)) if synced == all => return all,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    };
    let proxies = tokio::time::timeout(PATIENCE, synced).await;
    let proxies =
        proxies.map_err(|_| LessonError::Never { what: "the return of every proxy to the control plane" })?;
    let calls = before.until_now(board);
    say(format!("it is back: {proxies} of {proxies} proxies in sync after {}", seconds(restarted.elapsed())));
    say(format!("  {} requests in all, {} failed", calls.all.calls, calls.all.failed));
    Ok(())
}

/// Until so many replicas are registered and ready.
async fn until_registered(mesh: &Mesh, count: usize) {
    while mesh.registered().await != Some(count) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Connections of web's proxies to orders that failed and made way for another; `None` if no proxy says.
async fn moved(mesh: &Mesh) -> Option<u64> {
    let mut sum = None;
    for replica in mesh.replicas().iter().filter(|replica| replica.service == Service::Web) {
        if let Some(admin) = replica.admin().await
            && let Ok((_, text)) = admin::ask(admin, "/metrics").await
            && let Some(count) = connect_failures(&text)
        {
            sum = Some(sum.unwrap_or_default() + count);
        }
    }
    sum
}

fn connect_failures(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find(|line| {
        line.starts_with("envoy_cluster_upstream_cx_connect_fail{")
            && line.contains("\"outbound|80|orders.default\"")
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Calls since a moment.
#[derive(Debug, Clone, Copy)]
struct Counts {
    all: Totals,
    orders: Totals,
}

impl Counts {
    fn of(board: &Board) -> Counts {
        Counts { all: board.totals(Edge::GatewayWeb), orders: board.totals(Edge::WebOrders) }
    }

    fn until_now(self, board: &Board) -> Counts {
        let now = Counts::of(board);
        let since = |now: Totals, then: Totals| Totals {
            calls: now.calls - then.calls,
            failed: now.failed - then.failed,
        };
        Counts { all: since(now.all, self.all), orders: since(now.orders, self.orders) }
    }
}

/// `0.4 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lesson_is_known_by_its_name_only() {
        for lesson in [Lesson::DeadReplica, Lesson::KillControlPlane] {
            assert_eq!(lesson.name().parse(), Ok(lesson));
        }
        assert_eq!("break everything".parse::<Lesson>(), Err(UnknownLesson));
    }

    #[test]
    fn failed_connections_to_orders_are_read_from_the_metrics() {
        let metrics = "# TYPE envoy_cluster_upstream_cx_connect_fail counter\n\
            envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"outbound|80|cart.default\"} 7\n\
            envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=\"outbound|80|orders.default\"} 3\n";
        assert_eq!(connect_failures(metrics), Some(3));
        assert_eq!(connect_failures(""), None);
    }
}
