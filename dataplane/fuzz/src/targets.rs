//! The targets. Each faces what its parser faces: bytes of a peer, or an operator's file.

pub mod chunk;
pub mod h1_req;

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
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "h1_req",
        run: h1_req::run,
        words: h1_req::WORDS,
        kept: include_str!("../corpus/h1_req.txt"),
    },
    Target { name: "chunk", run: chunk::run, words: chunk::WORDS, kept: include_str!("../corpus/chunk.txt") },
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
