//! A memory cgroup of its own for a proxy, of whichever version this machine has.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// A group with a limit, removed when dropped; whoever is in it must be gone then.
pub(crate) struct Cgroup {
    folder: PathBuf,
    files: &'static Files,
}

/// What a version calls things.
struct Files {
    version: u8,
    /// Where the hierarchy is mounted.
    mount: &'static str,
    limit: &'static str,
    /// Limits swap, where the kernel accounts for it.
    swap: &'static str,
    used: &'static str,
    peak: &'static str,
    /// Counts kills, as `oom_kill`.
    kills: &'static str,
    /// In `memory.stat`: files that can be dropped.
    cache: &'static str,
}

const VERSIONS: [Files; 2] = [
    Files {
        version: 1,
        mount: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        swap: "memory.memsw.limit_in_bytes",
        used: "memory.usage_in_bytes",
        peak: "memory.max_usage_in_bytes",
        kills: "memory.oom_control",
        cache: "total_cache",
    },
    Files {
        version: 2,
        mount: "/sys/fs/cgroup",
        limit: "memory.max",
        swap: "memory.swap.max",
        used: "memory.current",
        peak: "memory.peak",
        kills: "memory.events",
        cache: "file",
    },
];

impl Cgroup {
    /// A group that may use so many bytes of memory; why there is none when the machine gives none.
    pub(crate) fn new(limit_bytes: u64) -> Result<Cgroup, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ringway-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut why = "no memory controller of cgroups is mounted".to_owned();
        for files in &VERSIONS {
            let mount = Path::new(files.mount);
            // The root of version 2 has no limit of its own, and says which controllers it has.
            let has_memory = mount.join(files.limit).exists()
                || fs::read_to_string(mount.join("cgroup.controllers"))
                    .is_ok_and(|controllers| controllers.split_whitespace().any(|known| known == "memory"));
            if !has_memory {
                continue;
            }
            let group = Cgroup { folder: mount.join(&name), files };
            match group.make(limit_bytes) {
                Ok(()) => return Ok(group),
                Err(error) => why = format!("no memory cgroup in {}: {error}", mount.display()),
            }
        }
        Err(why)
    }

    fn make(&self, limit_bytes: u64) -> io::Result<()> {
        if self.files.version == 2 {
            let switch = Path::new(self.files.mount).join("cgroup.subtree_control");
            fs::write(switch, "+memory")?;
        }
        fs::create_dir(&self.folder)?;
        fs::write(self.folder.join(self.files.limit), limit_bytes.to_string())?;
        let no_swap = if self.files.version == 1 { limit_bytes } else { 0 };
        match fs::write(self.folder.join(self.files.swap), no_swap.to_string()) {
            // Where swap is not accounted for there may be none at all.
            Err(error) if fs::read_to_string("/proc/swaps")?.lines().count() > 1 => Err(error),
            _ => Ok(()),
        }
    }

    /// What starts a program in it.
    pub(crate) fn runner(&self) -> Vec<String> {
        let processes = self.folder.join("cgroup.procs");
        let enter = format!("echo $$ > {} && exec \"$@\"", processes.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }

    pub(crate) fn version(&self) -> u8 {
        self.files.version
    }

    /// What is used, but for files that can be dropped, in bytes.
    pub(crate) fn used_bytes(&self) -> u64 {
        let cache = self.line("memory.stat", self.files.cache).unwrap_or_default();
        self.number(self.files.used).unwrap_or_default().saturating_sub(cache)
    }

    /// The most that was used at a time, with files, in bytes; `None` where the kernel does not tell.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        self.number(self.files.peak)
    }

    /// How often the kernel killed somebody in it for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        self.line(self.files.kills, "oom_kill").expect("the kernel counts them")
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok()
    }

    fn line(&self, file: &str, name: &str) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may need a moment after the last process has gone.
        for _ in 0..1000 {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    thread::park_timeout(Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}
