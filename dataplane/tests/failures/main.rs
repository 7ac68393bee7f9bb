//! Every row of the catalogue of failures (HTTP/1, HTTP/2 and what lies between them, upstreams, resources), tried on the
//! real program, on both I/O drivers.
//!
//! `make failures`, or `cargo test -p dataplane --test failures -- [--in-turn] [ROW…]`; `RINGWAY_PROXY` names another build of the
//! program, such as the one for release, whose times mean something with `--in-turn`. It prints what was tried, how often, and how
//! often the outcome was unsafe; that is never to be. So that this means something, the same rows are tried on a proxy
//! that is broken on purpose, which must be found out, and with `--peers` on HAProxy, which is printed as it is.
//!
//! Bytes are the input, in tables ([`rows`]). What came of them is seen from both ends: by a client, and by a recorder in
//! the place of the origin. The ledger judges ([`ledger`]).

mod apart;
mod broken;
mod cgroup;
mod client;
mod drivers;
mod http;
mod http2;
mod ledger;
mod name_server;
mod recorder;
mod rows;
mod subject;
mod trial;
mod world;

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use drivers::Upstream;
use ledger::{Ledger, Tally, Unsafe, Verdict};
use rows::{ROWS, Row};
use subject::{Kind, Setting, Subject};
use trial::Trials;
use world::World;

/// A trial that takes longer is named.
const SLOW: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, behind @ ..] = &arguments[..]
        && first == broken::ARGUMENT
    {
        return broken::main(behind);
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |row: &&Row| {
        wanted.iter().any(|want| **want == row.id || *want == drivers::ROW && row.is_deterministic())
    };
    let rows: Vec<&Row> = ROWS.iter().filter(|row| wanted.is_empty() || is_wanted(row)).collect();
    let begun = Instant::now();
    let with_peers = arguments.iter().any(|argument| argument == "--peers");
    // Side by side, since they mostly wait; or one after the other, where times shall mean something.
    let in_turn = arguments.iter().any(|argument| argument == "--in-turn");
    let (ours, broken, haproxy) = thread::scope(|scope| {
        let rows = &rows;
        let join = |thread: thread::ScopedJoinHandle<'_, Tried>| thread.join().expect("no trial panics");
        let all = |kind| {
            let thread = scope.spawn(move || try_all(rows, kind));
            if in_turn { Ok(join(thread)) } else { Err(thread) }
        };
        let ours = [Kind::IoUring, Kind::Epoll].map(all);
        let broken = all(Kind::Broken);
        let haproxy = with_peers.then(|| all(Kind::Haproxy));
        let tried = |tried: Result<Tried, _>| tried.unwrap_or_else(join);
        (ours.map(tried), tried(broken), haproxy.map(tried))
    });
    let mut is_good = true;
    let (mut trials, mut unsafe_trials) = (0, 0);
    let mut not_tried = Vec::new();
    println!("\nrow     trials  unsafe     s  what is tried");
    for (at, row) in rows.iter().enumerate() {
        let both = ours.each_ref().map(|tried| &tried.tallies[at]);
        let sum = |count: fn(&Tally) -> usize| both.iter().map(|tally| count(tally)).sum::<usize>();
        let (tried, bad) = (sum(|tally| tally.trials), sum(|tally| tally.unsafe_trials));
        let took = both.iter().map(|tally| tally.took).max().unwrap_or_default().as_secs_f32();
        println!("{:7} {tried:6}  {bad:6}  {took:4.1}  {}", row.id, row.about);
        for Tried { kind, tallies, .. } in &ours {
            let subject = kind.name();
            tallies[at].notes.iter().for_each(|note| println!("{:25}{subject}: {note}", ""));
            tallies[at].not_tried.iter().for_each(|what| println!("    {subject}: NOT TRIED {what}"));
            let Tally { unsafe_findings, unexpected_findings, slowest, .. } = &tallies[at];
            if let Some((took, trial)) = slowest.as_ref().filter(|(took, _)| *took > SLOW) {
                println!("    {subject}: {took:.1?} for {trial}");
            }
            let findings = unsafe_findings.iter().chain(unexpected_findings);
            findings.for_each(|finding| println!("    {subject}: {finding}"));
        }
        let is_refused = both.iter().any(|tally| !tally.not_tried.is_empty());
        is_good &= bad == 0 && sum(|tally| tally.unexpected_trials) == 0 && (tried > 0 || is_refused);
        not_tried.extend(is_refused.then_some(row.id));
        (trials, unsafe_trials) = (trials + tried, unsafe_trials + bad);
    }
    let alike = drivers::compare(ours.each_ref().map(|tried| &tried.upstream));
    println!("{:7} {:6}  {:6}        {}", drivers::ROW, alike.trials, alike.unsafe_trials, drivers::ABOUT);
    alike.unsafe_findings.iter().for_each(|finding| println!("    {finding}"));
    is_good &=
        alike.unsafe_trials == 0 && (alike.trials > 0 || !rows.iter().any(|row| row.is_deterministic()));
    let count = rows.len();
    println!("\n{unsafe_trials} unsafe outcomes of {trials} trials in {count} rows on 2 drivers");

    if !not_tried.is_empty() {
        println!("NOT TRIED, or not all of it, for what this machine refuses: {}", not_tried.join(" "));
    }
    let found: Vec<&str> = rows
        .iter()
        .zip(&broken.tallies)
        .filter(|(_, tally)| tally.unsafe_trials > 0)
        .map(|(row, _)| row.id)
        .collect();
    println!("a proxy that is broken on purpose was found out on {}: {}", found.len(), found.join(" "));
    let refused = |row: &&&Row| not_tried.contains(&row.id);
    for row in rows.iter().filter(|row| row.finds_out && !found.contains(&row.id) && !refused(row)) {
        println!("    and not on {}, where it should have been", row.id);
        is_good = false;
    }
    if let Some(Tried { kind, tallies, .. }) = haproxy {
        println!(
            "\n{} by the same rules, of which it breaks some by choice: it tunnels CONNECT, say",
            kind.name()
        );
        println!("row     trials  unsafe  other than ringway");
        for (row, tally) in rows.iter().zip(&tallies) {
            let Tally { trials, unsafe_trials, unexpected_trials, .. } = tally;
            println!("{:7} {trials:6}  {unsafe_trials:6}  {unexpected_trials:6}", row.id);
            tally.unsafe_findings.iter().take(2).for_each(|finding| println!("    {finding}"));
        }
    }
    println!("\n{:.1} s", begun.elapsed().as_secs_f32());
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How it went with one proxy.
struct Tried {
    kind: Kind,
    /// By row.
    tallies: Vec<Tally>,
    /// What the rows that are deterministic brought upstream.
    upstream: Upstream,
}

/// Tries these rows on one proxy.
fn try_all(rows: &[&Row], kind: Kind) -> Tried {
    let world = World::start();
    let origin = &world.origin;
    let mut subject = Subject::start(kind, &Setting::default(), &world);
    let mut ledger = Ledger::default();
    let mut tallies: Vec<Tally> = Vec::new();
    let mut upstream = Upstream::default();
    for row in rows {
        let before = origin.log().requests.len();
        let mut trials =
            Trials { subject: &subject, world: &world, origin, ledger: &mut ledger, tally: Tally::begin() };
        if row.needs_routes && !kind.has_routes() {
            tallies.push(trials.tally);
            continue;
        }
        let begun = Instant::now();
        (row.run)(&mut trials);
        let mut tally = trials.tally;
        tally.took = begun.elapsed();
        let open = origin.log().open();
        if let Some(trouble) = subject.trouble(open) {
            let found = vec![(Unsafe::Broken, trouble)];
            tally.count("the process", Verdict { found, unexpected: None });
        }
        tallies.push(tally);
        if row.is_deterministic() {
            upstream.take(row.id, &origin.log().requests[before..]);
        }
    }
    let mut last = Verdict::default();
    last.found.extend(subject.stop().map(|trouble| (Unsafe::Broken, trouble)));
    last.found.extend(ledger.judge(&origin.log()));
    if let (Some(tally), false) = (tallies.last_mut(), last.found.is_empty()) {
        tally.count("after the end of the proxy", last);
    }
    Tried { kind, tallies, upstream }
}
