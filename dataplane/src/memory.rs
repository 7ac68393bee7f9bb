//! How much memory the process may use, how much it uses, and how many receive buffers that leaves each worker.
//!
//! What connections hold is buffers, so refusing requests while all buffers that may be are in use keeps the kernel from
//! killing the process. What is used is looked at now and then; between two looks a worker counts for itself, each new
//! buffer as if all of it were touched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use policy::limits;

/// A bound on memory, in bytes, and what is measured against it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Above this, requests are refused.
    pub limit_bytes: u64,
    of: Of,
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
    files: &'static str,
}

const LAYOUTS: [Layout; 2] = [
    Layout { controller: "", root: "", limit: "memory.max", used: "memory.current", files: "file" },
    Layout {
        controller: "memory",
        root: "memory",
        limit: "memory.limit_in_bytes",
        used: "memory.usage_in_bytes",
        files: "total_cache",
    },
];

impl Budget {
    /// The configured limit, else a share of what the kernel allows; `None` where there is no limit.
    pub fn find(configured: Option<u64>) -> Option<Budget> {
        if let Some(limit_bytes) = configured {
            return Some(Budget { limit_bytes, of: Of::Process });
        }
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Budget::of_cgroups(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// The smallest limit of our group and those around it. A container may see its own group as the root.
    fn of_cgroups(groups: &str, mount: &Path) -> Option<Budget> {
        let mut found: Option<(u64, Of)> = None;
        for layout in &LAYOUTS {
            let Some(path) = groups.lines().find_map(|line| group_of(line, layout.controller)) else {
                continue;
            };
            let root = mount.join(layout.root);
            let inner = root.join(path.trim_start_matches('/'));
            for folder in inner.ancestors().take_while(|folder| folder.starts_with(&root)) {
                let Some(limit) = number(&folder.join(layout.limit)) else { continue };
                if limit < NO_LIMIT && found.as_ref().is_none_or(|(least, _)| limit < *least) {
                    let (used, stat) = (folder.join(layout.used), folder.join("memory.stat"));
                    found = Some((limit, Of::Cgroup { used, stat, files: layout.files }));
                }
            }
        }
        found.map(|(limit, of)| Budget { limit_bytes: limit / 100 * limits::MEMORY_SHARE_PERCENT, of })
    }

    /// What is used now, in bytes.
    pub fn used_bytes(&self) -> u64 {
        match &self.of {
            Of::Process => resident_bytes(),
            Of::Cgroup { used, stat, files } => {
                let stat = fs::read_to_string(stat).unwrap_or_default();
                let of_files = stat.lines().find_map(|line| line.strip_prefix(files)?.trim().parse().ok());
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

/// How many buffers each worker may have in use, from how many it has in use and how many it keeps for the next: those it
/// has cost nothing more, and of what is left each gets the same.
pub fn allowances<'a>(
    left_bytes: u64,
    workers: impl ExactSizeIterator<Item = (u64, u64)> + 'a,
) -> impl Iterator<Item = u64> + 'a {
    let more = left_bytes / limits::RECV_BUFFER_BYTES as u64 / (workers.len() as u64).max(1);
    workers.map(move |(out, kept)| (out + kept + more).max(limits::BUFFERS_ALWAYS))
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
            budget.map(|budget| (budget.limit_bytes, budget.used_bytes()))
        };
        write("a/memory.max", "1000\n");
        write("a/memory.current", "500\n");
        write("a/memory.stat", "anon 300\nfile 200\nfile_mapped 50\n");
        write("a/b/memory.max", "max\n");
        write("a/b/c/memory.max", "2000\n");
        write("memory/x/memory.limit_in_bytes", "900\n");
        write("memory/x/memory.usage_in_bytes", "700\n");
        write("memory/x/memory.stat", "cache 1\ntotal_cache 100\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (groups, expected) in [
            ("", None),
            ("0::/\n", None),
            ("0::/a\n", Some((800, 300))),
            ("0::/a/b\n", Some((800, 300))),
            ("0::/a/b/c\n", Some((800, 300))),
            ("0::/gone/a\n", None),
            ("4:cpu,memory:/x/y\n", Some((720, 600))),
            ("4:memory:/\n", None),
            ("4:memory:/x\n0::/a/b/c\n", Some((720, 600))),
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
    fn what_is_left_is_shared_and_what_a_worker_has_stays_its_own() {
        let buffer = limits::RECV_BUFFER_BYTES as u64;
        for (left, workers, expected) in [
            (0, vec![(0, 0)], vec![16]),
            (0, vec![(100, 0), (5, 30)], vec![100, 35]),
            (200 * buffer, vec![(100, 0), (5, 30)], vec![200, 135]),
            (buffer - 1, vec![(20, 0)], vec![20]),
        ] {
            assert_eq!(allowances(left, workers.into_iter()).collect::<Vec<_>>(), expected);
        }
    }
}
