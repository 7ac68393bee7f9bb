//! The proxies that are compared: what each is called, and which program it is.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;

use clap::ValueEnum;

/// What is measured: one kind of proxy, run from one program, under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    /// As records and tables call it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Another program than the usual one: a second build beside the first.
    program: Option<PathBuf>,
}

/// What can be measured: how it is configured and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// ringway-proxy on io_uring
    Ringway,
    /// ringway-proxy on epoll
    RingwayEpoll,
    /// HAProxy 2.8
    Haproxy,
    /// nginx
    Nginx,
    /// Envoy
    Envoy,
    /// Bytes without a look at them: the floor
    Relay,
    /// The same on the glommio runtime
    Glommio,
    /// No proxy at all
    Direct,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) ringway_proxy: PathBuf,
    /// The folder with `envoy`, `haproxy` and `nginx`.
    pub(crate) peers: PathBuf,
    pub(crate) relay_on_glommio: PathBuf,
}

/// Why a text names no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSubject {
    #[error("`{kind}` is none of {kinds}; a subject is [NAME=]KIND[@PROGRAM]")]
    UnknownKind { kind: String, kinds: String },
    #[error(
        "the name of a subject is made of letters, digits, `.`, `-` and `_`, not `{name}`; say NAME=KIND in `{text}`"
    )]
    BadName { name: String, text: String },
}

impl FromStr for Subject {
    type Err = NoSubject;

    /// `[NAME=]KIND[@PROGRAM]`. Without a name it goes by its kind, and by its program's file name too if that is given.
    fn from_str(text: &str) -> Result<Self, NoSubject> {
        let (words, program) = text
            .split_once('@')
            .map_or((text, None), |(words, program)| (words, Some(PathBuf::from(program))));
        let (name, kind) = words.split_once('=').map_or((None, words), |(name, kind)| (Some(name), kind));
        let kind = Kind::from_str(kind, false).map_err(|_| NoSubject::UnknownKind {
            kind: kind.to_owned(),
            kinds: Kind::value_variants().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
        })?;
        let name = match (name, program.as_ref().and_then(|program| program.file_name())) {
            (Some(name), _) => name.to_owned(),
            (None, Some(file)) => format!("{}_{}", kind.name(), file.to_string_lossy()),
            (None, None) => kind.name().to_owned(),
        };
        // It becomes the name of a folder.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(NoSubject::BadName { name, text: text.to_owned() });
        }
        Ok(Self { name, kind, program })
    }
}

impl Subject {
    /// The program that is run; `None` when there is no process to run.
    pub(crate) fn program(&self, programs: &Programs) -> io::Result<Option<PathBuf>> {
        match &self.program {
            Some(program) => std::path::absolute(program).map(Some),
            None => self.kind.program(programs),
        }
    }

    /// The subject's own word on its version, in one line.
    pub(crate) fn version(&self, programs: &Programs) -> io::Result<String> {
        let flag = match self.kind {
            Kind::Haproxy | Kind::Nginx => "-v",
            Kind::Relay | Kind::Glommio | Kind::Direct => return Ok(String::from("of this bench")),
            _ => "--version",
        };
        let Some(program) = self.program(programs)? else { return Ok(String::new()) };
        let output = Command::new(program).arg(flag).stdin(Stdio::null()).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").trim();
        // Envoy puts its own path before it.
        Ok(line.split_once(" version: ").map_or(line, |(_, version)| version).to_owned())
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Ringway => "ringway",
            Kind::RingwayEpoll => "ringway-epoll",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::Envoy => "envoy",
            Kind::Relay => "relay",
            Kind::Glommio => "glommio",
            Kind::Direct => "direct",
        }
    }

    /// Whether it reads requests, and so must show the added headers and reuse upstream connections.
    pub(crate) fn speaks_http(self) -> bool {
        !matches!(self, Kind::Relay | Kind::Glommio | Kind::Direct)
    }

    /// What the names of its threads that serve connections begin with; `None` where it has but one of them.
    pub(crate) fn worker_threads(self) -> Option<&'static str> {
        match self {
            Kind::Ringway | Kind::RingwayEpoll => Some("worker-"),
            Kind::Haproxy => Some("haproxy"),
            Kind::Envoy => Some("wrk:worker_"),
            Kind::Nginx | Kind::Relay | Kind::Glommio | Kind::Direct => None,
        }
    }

    fn program(self, programs: &Programs) -> io::Result<Option<PathBuf>> {
        Ok(Some(match self {
            Kind::Ringway | Kind::RingwayEpoll => programs.ringway_proxy.clone(),
            Kind::Haproxy | Kind::Nginx | Kind::Envoy => programs.peers.join(self.name()),
            Kind::Relay => std::env::current_exe()?,
            Kind::Glommio => programs.relay_on_glommio.clone(),
            Kind::Direct => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_kind_and_perhaps_a_name_and_a_program() {
        let parsed = |text: &str| {
            let subject = Subject::from_str(text).unwrap();
            (subject.name, subject.kind, subject.program)
        };
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(parsed("ringway-epoll"), ("ringway-epoll".to_owned(), Kind::RingwayEpoll, None));
        assert_eq!(parsed("new=ringway@../b/p"), ("new".to_owned(), Kind::Ringway, path("../b/p")));
        assert_eq!(parsed("ha=haproxy@/x/ha=3"), ("ha".to_owned(), Kind::Haproxy, path("/x/ha=3")));
        assert_eq!(parsed("ringway@/b/new"), ("ringway_new".to_owned(), Kind::Ringway, path("/b/new")));
        for wrong in ["squid", "new=", "a b=relay", "../up=relay", "=relay", "new=/path/without/kind"] {
            assert!(Subject::from_str(wrong).is_err(), "{wrong}");
        }
    }
}
