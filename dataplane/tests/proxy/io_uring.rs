//! A proxy on a kernel that refuses io_uring, from the beginning or later.

use std::{
    io::Error,
    os::unix::process::ExitStatusExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use runtime::refusing::Call;
use rustix::io::Errno;

use crate::{
    static_file::bootstrap,
    support::{Home, Proxy, origin},
};

const ERRORS: [Errno; 6] =
    [Errno::PERM, Errno::NOSYS, Errno::INVAL, Errno::NOMEM, Errno::MFILE, Errno::AGAIN];

async fn text(home: &Home) -> String {
    bootstrap(home, "127.0.0.1:0", origin("app").await)
}

async fn serves(proxy: &Proxy) {
    let mut client = proxy.connect("in").await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().0, 200);
    }
}

/// The driver, and why it is not the other.
async fn driver(proxy: &Proxy) -> (String, String) {
    let page = proxy.json("/cores").await;
    let text = |field: &str| page[field].as_str().unwrap().to_owned();
    let (driver, reason) = (text("io_driver"), text("io_driver_reason"));
    assert_eq!(
        proxy.metric(&format!("ringway_io_driver{{driver=\"{driver}\",reason=\"{reason}\"}}")).await,
        1.0
    );
    (driver, reason)
}

async fn serves_on_epoll_and_says_why(call: Call) {
    for error in ERRORS.map(Errno::raw_os_error) {
        let home = Home::new();
        let decide = move |_| Some(error);
        let mut proxy = home.start_refused(call, decide, &text(&home).await, &["--workers", "2"]);
        proxy.is_ready().await;
        serves(&proxy).await;
        let (driver, reason) = driver(&proxy).await;
        assert_eq!(driver, "epoll");
        // Of a ring that cannot be entered for want of memory, and later perhaps can, the check says what it does not do.
        let why = match (call, Errno::from_raw_os_error(error)) {
            (Call::Enter, Errno::AGAIN) => "tried on a pair of sockets, a send does not send".to_owned(),
            _ => Error::from_raw_os_error(error).to_string(),
        };
        assert!(reason.starts_with(&format!("io_uring: {why}: ")), "{call:?} {error}: {reason}");
        proxy.signal(rustix::process::Signal::TERM);
        let (status, log) = proxy.end().await;
        assert!(status.success(), "{status}");
        let told: Vec<_> = log.iter().filter(|line| line.contains("workers run on epoll")).collect();
        assert_eq!(told.len(), 1, "{log:?}");
        assert!(told[0].contains(&why), "{told:?}");
    }
}

#[tokio::test]
async fn res_04_a_proxy_without_io_uring_setup_serves_on_epoll_and_says_why() {
    serves_on_epoll_and_says_why(Call::Setup).await;
}

#[tokio::test]
async fn res_04_a_proxy_without_io_uring_register_serves_on_epoll_and_says_why() {
    serves_on_epoll_and_says_why(Call::Register).await;
}

#[tokio::test]
async fn res_04_a_proxy_without_io_uring_enter_serves_on_epoll_and_says_why() {
    serves_on_epoll_and_says_why(Call::Enter).await;
}

#[tokio::test]
async fn res_04_a_proxy_that_may_lock_no_memory_serves() {
    let home = Home::new();
    let runner = ["prlimit", "--memlock=0:0"];
    let mut proxy = home.start_under(&runner, &text(&home).await, &["--workers", "2"]);
    proxy.is_ready().await;
    serves(&proxy).await;
    // Since Linux 5.12 a ring's memory is the control group's, so it is granted.
    assert_eq!(driver(&proxy).await, ("io_uring".to_owned(), String::new()));
    proxy.stop().await;
}

#[tokio::test]
async fn res_04_a_proxy_with_too_few_descriptors_serves_or_says_that_it_cannot() {
    let (mut serving, mut ended) = (0, 0);
    for count in (10..60).step_by(5) {
        let home = Home::new();
        let runner = ["prlimit", &format!("--nofile={count}:{count}")];
        let mut proxy = home.start_under(&runner, &text(&home).await, &["--workers", "2"]);
        match proxy.is_ready_or_ends().await {
            true => {
                serving += 1;
                proxy.stop().await;
            }
            false => {
                ended += 1;
                let (status, log) = proxy.end().await;
                assert_eq!(status.code(), Some(1), "{count} descriptors: {log:?}");
                assert!(log.last().unwrap().contains("Too many open files"), "{count} descriptors: {log:?}");
            }
        }
    }
    assert!(serving > 0 && ended > 0, "{serving} serve, {ended} ended");
}

#[tokio::test]
async fn res_04_who_asks_for_io_uring_is_told_that_it_is_refused() {
    let home = Home::new();
    let decide = |_| Some(Errno::PERM.raw_os_error());
    let proxy = home.start_refused(Call::Setup, decide, &text(&home).await, &["--io", "io_uring"]);
    let (status, log) = proxy.end().await;
    let line = "ringway-proxy: --io io_uring does not work here: Operation not permitted (os error 1)";
    assert_eq!((status.code(), log), (Some(1), vec![line.to_owned()]));
}

#[tokio::test]
async fn res_04_a_ring_that_one_worker_cannot_have_is_told() {
    // Two of the probe, which are over, and one of the first worker.
    let decide = |count| (count == 3).then_some(Errno::NOMEM.raw_os_error());
    let home = Home::new();
    let proxy = home.start_refused(Call::Setup, decide, &text(&home).await, &["--workers", "2"]);
    let (status, log) = proxy.end().await;
    assert_eq!(status.code(), Some(1));
    let last = log.last().unwrap();
    let why = "Cannot allocate memory (os error 12)";
    assert!(
        last.starts_with("ringway-proxy: cannot start the loop of worker ") && last.ends_with(why),
        "{last}"
    );
}

#[tokio::test]
async fn res_04_a_ring_that_fails_while_it_runs_ends_the_process_with_a_report() {
    let is_refused = Arc::new(AtomicBool::new(false));
    let decides = is_refused.clone();
    let decide = move |_| decides.load(Ordering::SeqCst).then_some(Errno::BADFD.raw_os_error());
    let home = Home::new();
    let mut proxy = home.start_refused(Call::Enter, decide, &text(&home).await, &["--workers", "2"]);
    proxy.is_ready().await;
    assert_eq!(driver(&proxy).await.0, "io_uring");
    serves(&proxy).await;
    let mut last = proxy.connect("in").await;
    // The next call of either worker fails, and no later than this request brings one.
    is_refused.store(true, Ordering::SeqCst);
    while last.get("/").await.is_some() {}
    let (status, log) = proxy.end().await;
    assert_eq!(status.signal(), Some(6), "SIGABRT: {status}");
    let report = log.iter().find(|line| line.contains("the loop failed"));
    assert!(report.is_some_and(|line| line.contains("File descriptor in bad state")), "{log:?}");
}

#[tokio::test]
async fn res_04_a_ring_that_is_short_of_memory_for_a_moment_loses_nothing() {
    let decide = |count| (count % 3 == 0).then_some(Errno::AGAIN.raw_os_error());
    let home = Home::new();
    let mut proxy = home.start_refused(Call::Enter, decide, &text(&home).await, &["--workers", "2"]);
    proxy.is_ready().await;
    assert_eq!(driver(&proxy).await.0, "io_uring");
    for _ in 0..20 {
        serves(&proxy).await;
    }
    proxy.stop().await;
}
