//! The rows of the catalogue, in its order.

mod answers;
mod downgrade;
mod framing;
mod heads;
mod health;
mod http2_floods;
mod http2_streams;
mod http2_upstream;
mod logs;
mod memory;
mod names;
mod outages;
mod series;
mod shortages;
mod slow;
mod storms;
mod stuck;
mod tcp;
mod turns;
mod upstream;
mod websocket;

use crate::trial::Trials;

/// One row: a class of bad input or bad luck.
pub(crate) struct Row {
    /// As in the catalogue.
    pub(crate) id: &'static str,
    /// What is tried.
    pub(crate) about: &'static str,
    pub(crate) run: fn(&mut Trials<'_>),
    /// Whether it needs more than one route; the broken proxy has no more.
    pub(crate) needs_routes: bool,
    /// Whether the broken proxy must be found out on it.
    pub(crate) finds_out: bool,
}

const fn row(id: &'static str, about: &'static str, run: fn(&mut Trials<'_>)) -> Row {
    Row { id, about, run, needs_routes: false, finds_out: true }
}

const fn with_routes(row: Row) -> Row {
    Row { needs_routes: true, finds_out: false, ..row }
}

/// Where the broken proxy is slow and does nothing wrong.
const fn borne_by_all(row: Row) -> Row {
    Row { finds_out: false, ..row }
}

impl Row {
    /// Whether what goes upstream follows from what the clients send: not so where ends of connections race with it.
    pub(crate) fn is_deterministic(&self) -> bool {
        self.id.starts_with("H1-")
    }
}

/// All rows. UP-07 is tried as far as there is ejection: an endpoint is unwell when its control plane says so, and never by
/// what it answers. RES-10 likewise without retries on statuses. UP-09 needs hedging and mirroring, which this proxy does
/// not have yet. H2-10 is `tests/http2/grpc`, and DG-07 in all pairings `tests/http2/messages`; DG-05, DG-06, DG-09 and DG-10
/// need certificates, TLS or bodies that are rewritten; a `u` is the same from upstream, a `w` the same in a tunnel. IU-07
/// compares what the first of these brought upstream ([`crate::drivers`]); IU-01 to IU-06 and RES-04 are the tests that are
/// named so, of the driver (`runtime/src/kernel`, `runtime/tests/drivers`), of a worker (`tests/stories`) and of the program
/// (`tests/proxy`).
pub(crate) const ROWS: &[Row] = &[
    row("H1-01", "Content-Length beside Transfer-Encoding", framing::length_and_coding),
    row("H1-02", "other transfer codings than chunked", framing::codings),
    row("H1-03", "Transfer-Encoding in HTTP/1.0", framing::old_version),
    row("H1-04", "lengths that are not one number", framing::lengths),
    row("H1-05", "folded lines", heads::folds),
    row("H1-06", "header names that are none", heads::names),
    row("H1-07", "line ends without CR or without LF", heads::line_ends),
    row("H1-08", "chunks that are none; extensions; a million of one byte", framing::chunk_framing),
    row("H1-09", "trailers that frame, route, or are too many", framing::trailers),
    row("H1-10", "control bytes, and bytes from 0x80 on", heads::odd_bytes),
    row("H1-11", "targets of every form", heads::targets),
    row("H1-12", "hosts that are none, or not one", heads::hosts),
    row("H1-13", "other versions", heads::versions),
    row("H1-14", "bodies of every method; answers that come before them", turns::bodies_of_any_method),
    row("H1-15", "Expect, met, not met, and met too late", turns::expectations),
    row("H1-16", "Upgrade, and answers of every kind to it", turns::upgrades),
    row("H1-17", "CONNECT, with bytes behind it", heads::connect),
    row("H1-18", "answers that have no body, whatever they say", answers::bodyless),
    row("H1-19", "answers that can be read in two ways; bytes behind answers", answers::ambiguous),
    row("H1-20", "headers that end here, and those that nobody may take away", heads::hop_by_hop),
    row("H1-21", "every limit of a head, below and above", heads::limits),
    row("H1-22", "half-closes behind and inside a request", turns::half_closes),
    with_routes(row("H2-01", "streams that are reset at once, from their client", http2_floods::rapid_reset)),
    with_routes(row("H2-01u", "streams that are reset at once, from upstream", http2_upstream::resetting)),
    with_routes(row("H2-02", "streams that the proxy is made to reset", http2_floods::made_to_reset)),
    with_routes(row("H2-03", "heads that do not end", http2_floods::endless_heads)),
    with_routes(row("H2-04", "few bytes that mean many", http2_floods::compressed_bombs)),
    with_routes(row("H2-05", "a million frames that mean nothing", http2_floods::control_floods)),
    with_routes(row("H2-06", "windows of nothing, of one byte, and below", http2_streams::small_windows)),
    with_routes(row("H2-07", "bodies and trailers that end wrongly", http2_streams::ends)),
    with_routes(row("H2-07u", "responses that are none, or end wrongly", http2_upstream::wrong_responses)),
    with_routes(row("H2-08", "upstreams that leave with requests on their way", http2_upstream::leaving)),
    with_routes(row("H2-09", "ids, lengths and windows at their limits", http2_streams::limits)),
    with_routes(row("H2-11", "one stream that nobody reads beside 99", http2_streams::slow_beside_fast)),
    with_routes(row("DG-01", "CR, LF and NUL in HTTP/2, on its way to HTTP/1.1", downgrade::forged_lines)),
    with_routes(row(
        "DG-02",
        "framing of HTTP/1.1 in HTTP/2; lengths that are not the body's",
        downgrade::framing,
    )),
    with_routes(row("DG-03", "authorities and hosts", downgrade::hosts)),
    with_routes(row("DG-04", "names that are none; pseudo fields out of place", downgrade::names)),
    with_routes(row(
        "DG-07",
        "interim responses, trailers and broken bodies on their way to HTTP/2",
        downgrade::responses,
    )),
    with_routes(row("DG-08", "schemes", downgrade::schemes)),
    row("UP-01", "requests in the face of an end of an idle connection", upstream::keep_alive_race),
    row("UP-02", "answers that end anywhere, in FIN or RST", upstream::cuts),
    borne_by_all(row("UP-03", "answers while a large body is on its way", upstream::answers_during_uploads)),
    borne_by_all(row("UP-04", "1 MB each way through small buffers", upstream::partial_writes)),
    with_routes(row("UP-05", "origins that are silent, slow, or not there", outages::silence)),
    with_routes(row("UP-06", "one of three origins killed, again and again", outages::kills)),
    with_routes(row(
        "UP-07",
        "endpoints that are said to be unwell, down to all of them",
        health::panic_threshold,
    )),
    with_routes(row("UP-08", "names that are not found, not answered, or answered wrongly", names::look_ups)),
    with_routes(row("UP-10", "bytes without HTTP: every end in every order", tcp::passthrough)),
    with_routes(row("UP-10w", "WebSocket over either HTTP: every end in every order", websocket::tunnels)),
    row("RES-01", "a thousand and more that send, or read, as slowly as they may", slow::slow),
    row("RES-02", "more connections than descriptors, and none at all", shortages::descriptors),
    with_routes(row("RES-03", "128 MiB, and more bodies than fit", memory::shortage)),
    borne_by_all(row("RES-05", "no port left towards one upstream", shortages::ports)),
    row("RES-10", "upstreams that fail for everything, and then do not", storms::storm),
    row("RES-11", "logs that nobody reads, or that do not fit", logs::stalled_sinks),
    row("RES-12", "10,000 hosts, paths and ids", series::distinct_names),
    with_routes(row("RES-13", "one of two workers stopped", stuck::stuck_worker)),
];
