//! A proxy whose workers have nothing to do. What it does with too few descriptors is a row of `make failures`.

use crate::{
    static_file::bootstrap,
    support::{Home, origin, soon},
};

#[tokio::test]
async fn workers_with_nothing_to_do_end_turns_when_asked_and_none_counts_as_stuck() {
    let home = Home::new();
    let mut proxy = home.start(&bootstrap(&home, "127.0.0.1:0", origin("app").await), &["--workers", "2"]);
    proxy.is_ready().await;
    let turns =
        async |worker: usize| proxy.metric(&format!("ringway_worker_turns{{worker=\"{worker}\"}}")).await;
    for worker in [0, 1] {
        let before = turns(worker).await;
        soon("turns without traffic", async { while turns(worker).await < before + 3.0 {} }).await;
    }
    assert_eq!(proxy.metric("envoy_server_watchdog_miss{}").await, 0.0);
    proxy.stop().await;
}
