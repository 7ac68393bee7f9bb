//! The suites of others: every case must pass, and a case that was not tried has not.

use std::fs;

use crate::{
    origin,
    programs::{DRIVERS, fetched, proxy, run, text},
    support::{Home, text_of},
};

/// Cases of h2spec 2.2.1: `generic`, `http2` and `hpack`.
const H2SPEC_CASES: usize = 145;

#[tokio::test]
async fn every_case_of_h2spec_passes() {
    let h2spec = fetched("h2spec");
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "HTTP2", origin::start().await).await;
        for upstream in ["/1/", "/2/"] {
            let (report, port) = (home.path("report.xml"), address.port().to_string());
            let arguments = ["-h", "127.0.0.1", "-p", &port, "-P", upstream, "-j", text_of(&report)];
            let said = text(&run(&h2spec, &arguments).await);
            let report = fs::read_to_string(report).expect("a report");
            let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
            // What passed has nothing inside.
            let failed: Vec<_> = cases.iter().filter(|case| !case.contains("></testcase>")).collect();
            assert!(failed.is_empty(), "{driver}, {upstream}: {failed:#?}\n{said}");
            assert_eq!(cases.len(), H2SPEC_CASES, "{driver}, {upstream}: {said}");
        }
        proxy.stop().await;
    }
}

/// Cases of httpwg 0.2.5.
const HTTPWG_CASES: usize = 107;

/// How long it waits for each frame, in place of 250 ms, which a busy machine may take for itself.
const FRAME_TIMEOUT_MS: &str = "2000";

#[tokio::test]
async fn every_case_of_httpwg_passes() {
    let httpwg = fetched("httpwg");
    for driver in DRIVERS {
        let home = Home::new();
        let (proxy, address) = proxy(&home, driver, "HTTP2", origin::start().await).await;
        let output = run(&httpwg, &["-a", &address.to_string(), "--frame-timeout", FRAME_TIMEOUT_MS]).await;
        let said = plain(&text(&output));
        let of = |mark: &str| -> Vec<&str> {
            said.lines().filter_map(|line| Some(line.split_once(mark)?.1.trim())).collect()
        };
        let (passed, failed) = (of("Test passed: "), of("Test failed: "));
        assert!(failed.is_empty(), "{driver}: {failed:#?}\n{said}");
        assert_eq!(passed.len(), HTTPWG_CASES, "{driver}: {said}");
        proxy.stop().await;
    }
}

/// Without colours.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}
