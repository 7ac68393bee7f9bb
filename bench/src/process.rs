//! The proxy under measurement as a process: started on one core, ended for sure, and what the kernel says it used.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{Child, Command};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Longest time a process may take to leave after it was asked to.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// Longest time a tracer may take to attach.
const TRACED_MAX: Duration = Duration::from_secs(5);

/// A running process. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with all its threads on `cores`, and comes back to `own_cores` with this thread.
    pub(crate) fn start(command: &mut Command, cores: &[usize], own_cores: &[usize]) -> io::Result<Self> {
        // A child inherits the affinity of the thread that starts it.
        pin_to(cores)?;
        let child = command.spawn();
        pin_to(own_cores)?;
        Ok(Self { child: child? })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks the process to leave, and makes it leave when it does not.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32)
            && self.child.try_wait()?.is_none()
        {
            kill_process(pid, Signal::TERM)?;
            let asked = Instant::now();
            while self.child.try_wait()?.is_none() {
                if asked.elapsed() > LEAVE_MAX {
                    self.child.kill()?;
                    self.child.wait()?;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }

    /// Processor time used so far by every thread of the process and of its children.
    pub(crate) fn processor_time(&self) -> io::Result<ProcessorTime> {
        let mut of_thread = HashMap::new();
        for pid in family_of(self.child.id()) {
            for (thread, folder) in threads_of(pid) {
                // A thread may end between the listing and the reading; then it has no time to tell.
                if let Ok(schedstat) = fs::read_to_string(format!("{folder}/schedstat"))
                    && let Some(nanoseconds) = first_number(&schedstat)
                {
                    of_thread.insert(thread, nanoseconds);
                }
            }
        }
        if of_thread.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        }
        Ok(ProcessorTime { of_thread })
    }

    /// Threads of the process whose name begins with `prefix`, in their order.
    pub(crate) fn threads_named(&self, prefix: &str) -> Vec<u32> {
        let named = |(thread, folder): (u32, String)| {
            fs::read_to_string(format!("{folder}/comm")).ok()?.starts_with(prefix).then_some(thread)
        };
        let mut threads: Vec<u32> = threads_of(self.child.id()).into_iter().filter_map(named).collect();
        threads.sort_unstable();
        threads
    }

    /// Ids of the process and of its descendants.
    pub(crate) fn family(&self) -> Vec<u32> {
        family_of(self.child.id())
    }

    /// Waits until every thread of the process and of its children is traced.
    pub(crate) fn wait_until_traced(&self) -> io::Result<()> {
        let asked = Instant::now();
        while !self.family().into_iter().flat_map(threads_of).all(|(_, folder)| is_traced(&folder)) {
            if asked.elapsed() > TRACED_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody traces the process"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Memory of the process and of its children.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let mut memory = Memory::default();
        for pid in family_of(self.child.id()) {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            memory.rss_kb += kilobytes(&rollup, "Rss:");
            memory.pss_kb += kilobytes(&rollup, "Pss:");
        }
        Ok(memory)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do about a process that cannot be ended.
        let _ = self.end();
    }
}

/// Processor time of each thread, in nanoseconds.
pub(crate) struct ProcessorTime {
    of_thread: HashMap<u32, u64>,
}

impl ProcessorTime {
    /// What was used since an earlier reading; threads that ended meanwhile are not counted.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used =
            self.of_thread.iter().map(|(thread, now)| now - earlier.of_thread.get(thread).unwrap_or(&0));
        Duration::from_nanos(used.sum())
    }

    /// What one thread used since an earlier reading.
    pub(crate) fn of_thread_since(&self, thread: u32, earlier: &Self) -> Duration {
        let at = |time: &Self| time.of_thread.get(&thread).copied().unwrap_or_default();
        Duration::from_nanos(at(self).saturating_sub(at(earlier)))
    }
}

/// Memory in units of 1024 bytes: resident, and the proportional share of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) rss_kb: u64,
    pub(crate) pss_kb: u64,
}

/// What all cores did for anybody so far, and what was taken from them; to ten milliseconds.
pub(crate) fn machine_time() -> io::Result<Duration> {
    // Of all cores: user, nice, system, idle, waiting for disks, interrupts, soft interrupts, stolen; in hundredths.
    let text = fs::read_to_string("/proc/stat")?;
    let numbers = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
    let is_busy = |(place, _): &(usize, &str)| ![3, 4].contains(place);
    let busy = numbers.enumerate().filter(is_busy).filter_map(|(_, ticks)| ticks.parse::<u64>().ok());
    Ok(Duration::from_millis(10 * busy.sum::<u64>()))
}

/// Cores of the machine, also those that this process was not given.
pub(crate) fn cores_count() -> io::Result<usize> {
    let text = fs::read_to_string("/proc/stat")?;
    let is_core = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| !rest.starts_with(' '));
    Ok(text.lines().filter(is_core).count().max(1))
}

/// Processor time of all threads of this process, also of those that have ended.
pub(crate) fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Puts this thread, and what it will start, on these cores.
pub(crate) fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// The process and all its descendants.
fn family_of(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut looked_at = 0;
    while let Some(&pid) = family.get(looked_at) {
        looked_at += 1;
        for (_, folder) in threads_of(pid) {
            let children = fs::read_to_string(format!("{folder}/children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| u32::from_str(child).ok()));
        }
    }
    family
}

/// Id and folder of each thread of a process; none when it has ended.
fn threads_of(pid: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Some((name.parse().ok()?, format!("/proc/{pid}/task/{name}")))).collect()
}

fn is_traced(thread_folder: &str) -> bool {
    let status = fs::read_to_string(format!("{thread_folder}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))
        .and_then(first_number)
        .is_some_and(|pid| pid != 0)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn kilobytes(rollup: &str, field: &str) -> u64 {
    rollup.lines().find_map(|line| line.strip_prefix(field)).and_then(first_number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_does_is_a_part_of_what_the_machine_does() {
        let (own, machine) = (own_time(), machine_time().unwrap());
        let started = Instant::now();
        while own_time() - own < Duration::from_millis(200) {
            assert!(started.elapsed() < Duration::from_secs(20), "own time is not counted");
        }
        // Less a tick on each of some cores that the kernel has not told yet.
        assert!(machine_time().unwrap() - machine >= Duration::from_millis(100));
    }

    #[test]
    fn processor_time_counts_children_and_a_process_ends_when_dropped() {
        let mut command = Command::new("sh");
        // The inner shell works, the outer one waits for it; the limit is for a test that fails to end them.
        command.args(["-c", "ulimit -t 30; trap 'kill $!; exit' TERM; sh -c 'while :; do :; done' & wait"]);
        let process = Process::start(&mut command, &[0], &[0]).unwrap();
        let id = process.child.id();
        let before = process.processor_time().unwrap();
        let started = Instant::now();
        while process.processor_time().unwrap().since(&before) < Duration::from_millis(20) {
            assert!(started.elapsed() < Duration::from_secs(20), "the child's time is not counted");
            std::thread::yield_now();
        }
        assert!(process.memory().unwrap().rss_kb > 100);
        assert_eq!(process.threads_named("sh"), [id]);
        assert!(process.threads_named("worker-").is_empty());
        let family = family_of(id);
        assert_eq!(family.len(), 2);
        drop(process);
        assert!(fs::metadata(format!("/proc/{id}")).is_err());
    }
}
