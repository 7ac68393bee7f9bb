//! How much memory the process may use, how much it uses, and how many receive buffers that leaves each worker.
//!
//! What connections hold is buffers, and where a cgroup counts it what the kernel holds for each of them. So there is one
//! bound: of what is left beside everything else, each buffer is given as much as it may come to cost, used or not. How many
//! that are does not depend on how fast memory fills; nothing has to be noticed in time. The kernel's part is bounded where it
//! counts ([`Budget::held_bytes_max`]).

use std::{
    fs,
    path::{Path, PathBuf},
};

use policy::limits;

/// A bound on memory, in bytes, and what is measured against it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Above this, no connection is accepted.
    pub limit_bytes: u64,
    of: Of,
    counts_sockets: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Of {
    /// What is resident of the process.
    Process,
    /// What the kernel accounts to a cgroup, but for files that it can drop.
    Cgroup { used: PathBuf, stat: PathBuf, files: &'static str },
}

/// Where a version of cgroups keeps things.
struct Layout {
    /// Of the line in `/proc/self/cgroup` that names our group.
    controller: &'static str,
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: files that the kernel can drop, and that were not used lately. All files would be too many: those in
    /// a tmpfs can only be swapped, and the program is one.
    files: &'static str,
    /// Version 1 has an account of its own for what the kernel holds of connections, which nobody limits.
    counts_sockets: bool,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        controller: "",
        root: "",
        limit: "memory.max",
        used: "memory.current",
        files: "inactive_file",
        counts_sockets: true,
    },
    Layout {
        controller: "memory",
        root: "memory",
        limit: "memory.limit_in_bytes",
        used: "memory.usage_in_bytes",
        files: "total_inactive_file",
        counts_sockets: false,
    },
];

impl Budget {
    /// The configured limit, else a share of what the kernel allows; `None` where there is no limit.
    pub fn find(configured: Option<u64>) -> Option<Budget> {
        if let Some(limit_bytes) = configured {
            return Some(Budget { limit_bytes, of: Of::Process, counts_sockets: false });
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Budget::of_cgroups(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// The smallest limit of our group and those around it. A container may see its own group as the root.
    fn of_cgroups(groups: &str, mount: &Path) -> Option<Budget> {
        let mut found: Option<(u64, Of, bool)> = None;
        for layout in &LAYOUTS {
            let Some(path) = groups.lines().find_map(|line| group_of(line, layout.controller)) else {
                continue;
            };
            let root = mount.join(layout.root);
            let inner = root.join(path.trim_start_matches('/'));
            for folder in inner.ancestors().take_while(|folder| folder.starts_with(&root)) {
                let Some(limit) = number(&folder.join(layout.limit)) else { continue };
                if limit < NO_LIMIT && found.as_ref().is_none_or(|(least, ..)| limit < *least) {
                    let (used, stat) = (folder.join(layout.used), folder.join("memory.stat"));
                    let of = Of::Cgroup { used, stat, files: layout.files };
                    found = Some((limit, of, layout.counts_sockets));
                }
            }
        }
        found.map(|(limit, of, counts_sockets)| Budget {
            limit_bytes: limit / 100 * limits::MEMORY_SHARE_PERCENT,
            of,
            counts_sockets,
        })
    }

    /// What is used now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        match &self.of {
            Of::Process => resident_bytes(),
            Of::Cgroup { used, stat, files } => {
                let stat = fs::read_to_string(stat).unwrap_or_default();
                let value = |line: &str| line.strip_prefix(files)?.strip_prefix(' ')?.trim().parse().ok();
                let of_files: Option<u64> = stat.lines().find_map(value);
                number(used).unwrap_or_default().saturating_sub(of_files.unwrap_or_default())
            }
        }
    }
}

/// What version 1 tells for no limit is a page less than 2^63.
const NO_LIMIT: u64 = 1 << 60;

fn group_of<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let mut parts = line.splitn(3, ':').skip(1);
    parts.next().filter(|controllers| controllers.split(',').any(|known| known == controller))?;
    parts.next()
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What is resident of this process, in bytes.
pub fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}

impl Budget {
    /// What the kernel may hold of a connection each way, in bytes, where that is a part of what is used.
    pub fn held_bytes_max(&self) -> Option<u32> {
        let share = self.limit_bytes / limits::HELD_SHARE;
        let bytes = share.clamp(limits::HELD_BYTES_MIN, limits::HELD_BYTES_MAX);
        self.counts_sockets.then(|| u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Buffers that io_uring may receive into, of each of so many workers.
    pub fn provided_max(&self, workers: usize) -> u16 {
        let all = self.limit_bytes / limits::PROVIDED_SHARE / limits::RECV_BUFFER_BYTES as u64;
        u16::try_from(all / (workers as u64).max(1)).unwrap_or(u16::MAX)
    }

    /// How many connections may be added before it is looked again what is used, now `used_bytes`. They bring what the kernel
    /// has received for them already.
    pub fn more_connections(&self, used_bytes: u64) -> u64 {
        let left = self.limit_bytes.saturating_sub(used_bytes) / limits::NEW_CONNECTIONS_SHARE;
        let held = self.held_bytes_max().map_or(0, |bytes| 2 * u64::from(bytes));
        left / (limits::CONNECTION_BYTES + held)
    }

    /// What a buffer may come to cost, in bytes. A body on its way has one; before it and behind it the kernel holds what one
    /// connection received and the other does not send, and counts both twice.
    fn buffer_bytes(&self) -> u64 {
        let held = self.held_bytes_max().map_or(0, |bytes| 2 * 2 * u64::from(bytes));
        limits::RECV_BUFFER_BYTES as u64 + limits::BYTES_BESIDE_BUFFER + held
    }
}

/// What is used beside buffers.
///
/// Nobody can tell how much of the buffers is used, so it lies between what is used without all of them and what is used
/// with none. Of what is possible, what is nearest to what was known before is taken.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    bytes: u64,
    /// What io_uring's own buffers may come to cost, in bytes.
    provided_bytes: u64,
}

impl Beside {
    /// When nobody has a buffer yet, nor io_uring those that it may have of each worker.
    pub fn begin(budget: &Budget, workers: usize) -> Beside {
        let provided = u64::from(budget.provided_max(workers)) * workers as u64;
        let provided_bytes = provided * limits::RECV_BUFFER_BYTES as u64;
        Beside { bytes: budget.used_bytes() + provided_bytes, provided_bytes }
    }

    /// How many buffers there may be when `used_bytes` are used and there are `count` of them.
    pub fn buffers(&mut self, budget: &Budget, used_bytes: u64, count: u64) -> u64 {
        let cost = budget.buffer_bytes();
        let (least, most) = (used_bytes.saturating_sub(count * cost), used_bytes + self.provided_bytes);
        self.bytes = self.bytes.clamp(least, most);
        budget.limit_bytes.saturating_sub(self.bytes) / cost
    }
}

/// How many buffers each worker may have of `all` that there may be, from how many it has taken and how many are free: those it
/// has, and of what is left each gets the same. When there are too many, each has to give up the same share.
pub fn allowances<'a>(
    all: u64,
    workers: impl ExactSizeIterator<Item = u64> + Clone + 'a,
) -> impl Iterator<Item = u64> + 'a {
    let (count, have) = ((workers.len() as u64).max(1), workers.clone().sum::<u64>());
    workers.map(move |own| {
        let allowed = match all.checked_sub(have) {
            Some(left) => own + left / count,
            None => own.saturating_mul(all) / have,
        };
        allowed.max(limits::BUFFERS_ALWAYS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_all_groups_around_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let limit = |groups: &str| {
            let budget = Budget::of_cgroups(groups, folder.path());
            budget.map(|budget| (budget.limit_bytes, budget.used_bytes(), budget.counts_sockets))
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "500\n");
        write("a/memory.stat", "anon 300\nfile 230\nfile_mapped 50\ninactive_file 200\n");
        write("a/b/memory.max", "max\n");
        write("a/b/c/memory.max", "2000\n");
        write("memory/x/memory.limit_in_bytes", "900\n");
        write("memory/x/memory.usage_in_bytes", "700\n");
        write("memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (groups, expected) in [
            ("", None),
            ("0::/\n", None),
            ("0::/a\n", Some((800, 300, true))),
            ("0::/a/b\n", Some((800, 300, true))),
            ("0::/a/b/c\n", Some((800, 300, true))),
            ("0::/gone/a\n", None),
            ("4:cpu,memory:/x/y\n", Some((720, 600, false))),
            ("4:memory:/\n", None),
            ("4:memory:/x\n0::/a/b/c\n", Some((720, 600, false))),
        ] {
            assert_eq!(limit(groups), expected, "{groups:?}");
        }
    }

    #[test]
    fn a_configured_limit_is_of_what_is_resident() {
        let budget = Budget::find(Some(7)).unwrap();
        assert_eq!(budget.limit_bytes, 7);
        assert!(budget.used_bytes() > 1 << 20);
    }

    #[test]
    fn what_is_left_is_shared_and_what_a_worker_has_stays_its_own_unless_there_are_too_many() {
        for (all, workers, expected) in [
            (0, vec![0], vec![16]),
            (200, vec![0], vec![200]),
            (105, vec![100, 5], vec![100, 16]),
            (305, vec![100, 5], vec![200, 105]),
            (60, vec![100, 20], vec![50, 16]),
            (0, vec![100, 20], vec![16, 16]),
        ] {
            let allowed: Vec<u64> = allowances(all, workers.iter().copied()).collect();
            assert_eq!(allowed, expected, "{all} for {workers:?}");
        }
    }

    #[test]
    fn buffers_that_are_not_used_yet_count_as_if_they_were() {
        const MIB: u64 = 1 << 20;
        let budget = |counts_sockets| Budget { limit_bytes: 110 * MIB, of: Of::Process, counts_sockets };
        assert_eq!((budget(false).buffer_bytes(), budget(false).held_bytes_max()), (80 << 10, None));
        assert_eq!((budget(true).buffer_bytes(), budget(true).held_bytes_max()), (208 << 10, Some(32 << 10)));
        let large = Budget { limit_bytes: 4096 * MIB, ..budget(true) };
        assert_eq!((large.held_bytes_max(), large.provided_max(2)), (Some(64 << 10), 2048));
        assert_eq!((budget(true).provided_max(1), budget(true).provided_max(2)), (110, 55));
        assert_eq!(budget(false).more_connections(78 * MIB), 1024);
        assert_eq!(budget(true).more_connections(74 * MIB), 128);
        assert_eq!(budget(true).more_connections(111 * MIB), 0);
        let mut beside = Beside { bytes: 10 * MIB, provided_bytes: MIB };
        for (used_mib, count, expected) in [
            (10, 0, 1280),
            // However much of them is used.
            (10, 500, 1280),
            (40, 500, 1280),
            (49, 500, 1280),
            // More than they can be: something else is more, and stays so.
            (60, 512, 1152),
            (30, 512, 1152),
            (9, 0, 1280),
            (200, 0, 0),
        ] {
            assert_eq!(beside.buffers(&budget(false), used_mib * MIB, count), expected, "{used_mib} {count}");
        }
    }
}
