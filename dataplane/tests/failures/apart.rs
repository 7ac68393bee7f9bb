//! What a row has for itself: a network, a part of the file system, the stop of one thread. All of it needs root; where it is
//! refused the row says so.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A process that is there so that its network is.
struct Holder(Child);

impl Holder {
    fn start() -> Result<Holder, String> {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let holder = Holder(child);
        let mut line = String::new();
        match BufReader::new(stdout).read_line(&mut line) {
            Ok(count) if count > 0 => Ok(holder),
            _ => {
                let mut why = String::new();
                let _ = stderr.read_to_string(&mut why);
                Err(why.trim().to_owned())
            }
        }
    }

    /// Has this thread live in its network, and all threads and processes that this one starts from now on.
    fn enter(&self) -> Result<(), String> {
        let network =
            File::open(format!("/proc/{}/ns/net", self.0.id())).map_err(|error| error.to_string())?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("setns: {error}"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs this in a network that has nothing but loopback; an error says why there is none.
pub(crate) fn in_a_network<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, String> {
    let holder = Holder::start()?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| holder.enter().map(|()| run()));
        inside.join().expect("no trial panics")
    })
}

/// A runner that becomes its program when this shell script has changed what the program sees of the file system. `$0` is
/// `argument`. An error says why that cannot be.
pub(crate) fn with_mounts(script: &str, argument: &Path) -> Result<Vec<String>, String> {
    let tried = Command::new("unshare").args(["--mount", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => return Err(format!("unshare: {error}")),
    }
    let script = format!("{script} && exec \"$@\"");
    let argument = argument.display().to_string();
    Ok(["unshare", "--mount", "sh", "-c", &script, &argument].map(str::to_owned).to_vec())
}

/// How often a cgroup is tried to be removed; what is left of a machine that does not let go of it is an empty folder.
const REMOVALS_MAX: u32 = 1_000;

/// A thread that is stopped: a cgroup of its own that is frozen. It goes on when this is dropped.
pub(crate) struct Stopped {
    folder: PathBuf,
    thread: u32,
}

impl Stopped {
    pub(crate) fn thread(thread: u32) -> Result<Stopped, String> {
        let at = |path: &Path| format!("{}: ", path.display());
        let parent = own_cgroup()?;
        let folder = parent.join(format!("thread-{thread}"));
        fs::create_dir(&folder).map_err(|error| at(&folder) + &error.to_string())?;
        let stopped = Stopped { folder, thread };
        let texts =
            [("cgroup.type", "threaded"), ("cgroup.threads", &thread.to_string()), ("cgroup.freeze", "1")];
        for (name, text) in texts {
            let path = stopped.folder.join(name);
            fs::write(&path, text).map_err(|error| at(&path) + &error.to_string())?;
        }
        // It is told when the thread has stopped, which it does at the end of a system call.
        while !fs::read_to_string(stopped.folder.join("cgroup.events"))
            .is_ok_and(|text| text.contains("frozen 1"))
        {
            thread::yield_now();
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.freeze"), "0");
        if let Some(parent) = self.folder.parent() {
            let _ = fs::write(parent.join("cgroup.threads"), self.thread.to_string());
        }
        // For a moment it counts as one that has a thread still.
        let is_removed = |_: &u32| match fs::remove_dir(&self.folder) {
            Ok(()) => true,
            Err(_) => {
                thread::park_timeout(Duration::from_millis(1));
                false
            }
        };
        let _ = (0..REMOVALS_MAX).find(is_removed);
    }
}

/// Where this process stands in the second version's tree of cgroups.
fn own_cgroup() -> Result<PathBuf, String> {
    let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no cgroups of version 2")?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(|mount| Path::new(mount).join(own))
        .into_iter()
        .find(|path| path.join("cgroup.threads").exists())
        .ok_or("no cgroups of version 2".to_owned())
}
