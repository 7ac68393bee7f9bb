//! One plan in the words of each proxy: equivalent configurations.
//!
//! Ringway and Envoy read the very same file (but for many routes, see [`envoy`]). What every HTTP subject does: HTTP/1.1
//! keep-alive on both sides, or HTTP/2 on both, the `host` kept, two request headers set ([`ADDED_REQUEST_HEADERS`]), one response header
//! added ([`ADDED_RESPONSE_HEADER`]), counters on, access log off, one worker. `proof` checks the part of it that can be
//! seen from outside.

mod envoy;
mod haproxy;
mod nginx;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::plan::Plan;
use super::subject::Kind;

/// Request headers that every HTTP subject sets on its way upstream. Envoy sets the first by itself.
pub(crate) const ADDED_REQUEST_HEADERS: [(&str, &str); 2] = [("x-forwarded-proto", "http"), ("x-bench", "1")];
/// Response header that every HTTP subject adds.
pub(crate) const ADDED_RESPONSE_HEADER: (&str, &str) = ("x-served-by", "bench");

/// Where a subject lives.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// A folder of the subject's own, for its files.
    pub(crate) folder: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Threads that serve connections.
    pub(crate) workers: usize,
}

/// Writes the files of a subject into its folder. Gives the arguments that make its program use them.
pub(crate) fn write(kind: Kind, place: &Place, plan: &Plan) -> io::Result<Vec<String>> {
    let folder = place.folder.to_string_lossy();
    let workers = place.workers;
    let (file, text, arguments) = match kind {
        Kind::Ringway | Kind::RingwayEpoll => {
            let io = if kind == Kind::Ringway { "io_uring" } else { "epoll" };
            let arguments =
                format!("-c {folder}/bootstrap.yaml --workers {workers} --io {io} --data-dir {folder}/data");
            ("bootstrap.yaml", envoy::bootstrap(place, plan, envoy::Form::SHARED), arguments)
        }
        Kind::Envoy => {
            let arguments = format!(
                "-c {folder}/bootstrap.yaml --concurrency {workers} --disable-hot-restart --log-level error"
            );
            ("bootstrap.yaml", envoy::bootstrap(place, plan, envoy::Form::best(plan, workers)), arguments)
        }
        Kind::Haproxy => {
            fs::write(place.folder.join("routes.map"), haproxy::map(plan))?;
            ("haproxy.cfg", haproxy::configuration(place, plan), format!("-db -f {folder}/haproxy.cfg"))
        }
        Kind::Nginx => {
            ("nginx.conf", nginx::configuration(place, plan), format!("-p {folder} -c nginx.conf"))
        }
        Kind::Relay | Kind::Glommio => {
            let part = if kind == Kind::Relay { "relay " } else { "" };
            let upstream = plan.clusters[0].endpoints[0];
            return Ok(words(&format!("{part}--listen {} --upstream {upstream}", place.listen)));
        }
        Kind::Direct => return Ok(Vec::new()),
    };
    fs::create_dir_all(place.folder.join("data"))?;
    fs::write(place.folder.join(file), text)?;
    Ok(words(&arguments))
}

/// Splits arguments at spaces: no path of ours has one, for the folder is a fresh one under the system's own.
fn words(arguments: &str) -> Vec<String> {
    arguments.split(' ').map(str::to_owned).collect()
}
