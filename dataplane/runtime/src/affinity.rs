//! Which CPUs this process may use, and pinning a thread to one.

use std::fs;

/// The CPUs of the affinity mask, in order; `[0]` when the kernel does not say.
pub fn allowed_cpus() -> Vec<usize> {
    match core_affinity::get_core_ids() {
        Some(ids) if !ids.is_empty() => ids.into_iter().map(|id| id.id).collect(),
        _ => vec![0],
    }
}

/// Pins the calling thread; false when the kernel refuses.
pub fn pin_to(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// How many workers keep the machine busy and no more: the CPUs of the affinity mask, cut down to the cgroup's
/// quota (version 2 `cpu.max` of the process's own group), rounded up, at least one.
pub fn worker_count() -> usize {
    let allowed = allowed_cpus().len();
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    let quota = fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.max")).ok();
    match quota.as_deref().and_then(quota_cpus) {
        Some(quota) => allowed.min(quota).max(1),
        None => allowed,
    }
}

/// `"150000 100000"` is one and a half CPUs, so two workers; `"max 100000"` is no quota.
fn quota_cpus(cpu_max: &str) -> Option<usize> {
    let mut words = cpu_max.split_whitespace();
    let quota: usize = words.next()?.parse().ok()?;
    let period: usize = words.next()?.parse().ok()?;
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_to_whole_cpus() {
        for (text, cpus) in [
            ("max 100000\n", None),
            ("100000 100000\n", Some(1)),
            ("150000 100000\n", Some(2)),
            ("1000 100000\n", Some(1)),
            ("1000 0\n", None),
            ("", None),
        ] {
            assert_eq!(quota_cpus(text), cpus, "{text:?}");
        }
        assert!(worker_count() >= 1);
    }
}
