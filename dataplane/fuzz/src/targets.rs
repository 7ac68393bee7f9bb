//! The targets. Each faces what its parser faces: bytes of a peer, or an operator's file.

pub mod bootstrap;
pub mod chunk;
pub mod downgrade;
pub mod h1_req;
pub mod h1_resp;
pub mod h2_conn;
pub mod hpack;
pub mod path_norm;
pub mod proxy_proto;
pub mod tls_sniff;

use std::fmt;

/// A function that panics when something is wrong, and what it is searched with.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the module, the kept inputs, and the program of the guided engine.
    pub name: &'static str,
    /// Judges one input.
    pub run: fn(&[u8]),
    /// Words of the grammar, which random bytes would never hit.
    pub words: &'static [&'static str],
    /// The inputs worth keeping, see [`crate::corpus`].
    pub kept: &'static str,
    /// Random inputs that every change is tried with: as many as a debug build runs in a few seconds.
    pub smoke: u64,
}

/// One for each parser.
pub const TARGETS: &[Target] = &[
    Target {
        name: "h1_req",
        run: h1_req::run,
        words: h1_req::WORDS,
        kept: include_str!("../corpus/h1_req.txt"),
        smoke: 60_000,
    },
    Target {
        name: "h1_resp",
        run: h1_resp::run,
        words: h1_resp::WORDS,
        kept: include_str!("../corpus/h1_resp.txt"),
        smoke: 40_000,
    },
    Target {
        name: "chunk",
        run: chunk::run,
        words: chunk::WORDS,
        kept: include_str!("../corpus/chunk.txt"),
        smoke: 200_000,
    },
    Target {
        name: "path_norm",
        run: path_norm::run,
        words: path_norm::WORDS,
        kept: include_str!("../corpus/path_norm.txt"),
        smoke: 40_000,
    },
    Target {
        name: "bootstrap",
        run: bootstrap::run,
        words: bootstrap::WORDS,
        kept: include_str!("../corpus/bootstrap.txt"),
        smoke: 200,
    },
    Target {
        name: "proxy_proto",
        run: proxy_proto::run,
        words: proxy_proto::WORDS,
        kept: include_str!("../corpus/proxy_proto.txt"),
        smoke: 100_000,
    },
    Target {
        name: "tls_sniff",
        run: tls_sniff::run,
        words: tls_sniff::WORDS,
        kept: include_str!("../corpus/tls_sniff.txt"),
        smoke: 100_000,
    },
    Target {
        name: "h2_conn",
        run: h2_conn::run,
        words: h2_conn::WORDS,
        kept: include_str!("../corpus/h2_conn.txt"),
        smoke: 15_000,
    },
    Target {
        name: "hpack",
        run: hpack::run,
        words: hpack::WORDS,
        kept: include_str!("../corpus/hpack.txt"),
        smoke: 15_000,
    },
    Target {
        name: "downgrade",
        run: downgrade::run,
        words: downgrade::WORDS,
        kept: include_str!("../corpus/downgrade.txt"),
        smoke: 150_000,
    },
];

impl Target {
    /// The target of a name.
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
