//! Processes and ports as stories with real processes need them: ends that are waited for, ports that stay the test's.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a part of each test binary, which uses a part of it"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use socket2::{Domain, Socket, Type};

/// Nothing here takes this long on a busy machine; it bounds a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at what tells nobody.
const LOOK: Duration = Duration::from_millis(2);

/// Looks again and again at something that tells nobody when it changes.
#[track_caller]
pub fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        std::thread::park_timeout(LOOK);
    }
}

/// Waits for the end of a process, whoever's child it is: of all its threads, so that its files and ports are free.
#[track_caller]
pub fn until_gone(pid: Pid) {
    // An error says that there is none.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let patience = Timespec::try_from(PATIENCE).unwrap();
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience)).unwrap();
    assert_eq!(ended, 1, "process {} goes on", pid.as_raw_nonzero());
}

/// A process that has ended and waits for its parent's question is gone, too.
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
}

/// The children of every thread of a process.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())).unwrap();
    let files = tasks.flatten().map(|task: fs::DirEntry| -> PathBuf { task.path().join("children") });
    let children: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
    let pids = children.iter().flat_map(|children| children.split_whitespace());
    pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// A port of 127.0.0.1 for a command line or a document, which must name one before anybody listens on it.
///
/// A port that is found free and given back may be another test's a moment later. This one stays bound, by a socket that
/// does not listen: the kernel gives it to nobody who asks for any port, refuses connections to it, and lets whoever the
/// test tells of it listen beside this socket, as SO_REUSEADDR allows.
pub struct Port(Socket);

impl Port {
    pub fn any() -> Port {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Port(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    pub fn number(&self) -> u16 {
        self.address().port()
    }
}
