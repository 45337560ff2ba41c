//! How much memory is taken: by the machine, by this process's control group, by a worker.
//!
//! Invariant: readers are pure functions of the files' text; what cannot be read is not there, and is not a guess.
//! Left out: what follows from it (`core::workers`, `limits`, `reap`).

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::core::workers::Reading;
use crate::shm::{group_files, group_limit, meminfo_field};

/// Of control groups, in both versions, and the files that say the limit.
const CONTROLLER: &str = "memory";
const V2: &str = "memory.max";
const V1: &str = "memory.limit_in_bytes";

/// What a reading is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The machine.
    Machine,
    /// A control group that this process is in, with its limit.
    Group,
}

impl Place {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Place::Machine => "machine",
            Place::Group => "control group",
        }
    }
}

/// The fullest of the machine and the control groups around this process; `None` if nothing can be read.
pub fn fullest() -> Option<(Place, Reading)> {
    let machine = read_to_string("/proc/meminfo")
        .ok()
        .and_then(|t| machine(&t));
    let machine = machine.map(|r| (Place::Machine, r));
    let groups = group_files(CONTROLLER, V2, V1)
        .into_iter()
        .filter_map(|file| Some((Place::Group, group(Path::new(&file))?)));
    machine
        .into_iter()
        .chain(groups)
        .max_by(|(_, a), (_, b)| a.share().total_cmp(&b.share()))
}

/// What the machine has and what of it cannot be had.
fn machine(meminfo: &str) -> Option<Reading> {
    let total = meminfo_field(meminfo, "MemTotal:")?;
    let available = meminfo_field(meminfo, "MemAvailable:")?;
    Some(Reading {
        used: total.saturating_sub(available),
        total,
    })
}

/// What a group holds of its limit, given the file that says the limit. The page cache that the kernel would rather give
/// back is not counted, as with the machine.
fn group(limit_file: &Path) -> Option<Reading> {
    let number = |path: PathBuf| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let total = group_limit(&read_to_string(limit_file).ok()?)?;
    let (used, cache) = match limit_file.file_name()?.to_str()? {
        V2 => ("memory.current", "inactive_file"),
        _ => ("memory.usage_in_bytes", "total_inactive_file"),
    };
    let used = number(limit_file.with_file_name(used))?;
    let stat = read_to_string(limit_file.with_file_name("memory.stat")).unwrap_or_default();
    Some(Reading {
        used: used.saturating_sub(counter(&stat, cache).unwrap_or(0)),
        total,
    })
}

/// The number after a word at the beginning of a line: `oom_kill 3`.
pub fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.strip_prefix(' ')?.trim().parse().ok()
    })
}

/// Memory of a process in pages, from the text of its `statm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages {
    /// In memory and its own: what it shares, as the object store, is not counted.
    own: u64,
    /// Private and writable, whether in memory or not.
    data: u64,
}

fn pages(statm: &str) -> Option<Pages> {
    let mut fields = statm.split_ascii_whitespace().map(str::parse::<u64>);
    let mut nth = |n| fields.nth(n)?.ok();
    let (resident, shared) = (nth(1)?, nth(0)?);
    Some(Pages {
        own: resident.saturating_sub(shared),
        data: nth(2)?,
    })
}

fn of_process(pid: u32) -> Option<Pages> {
    pages(&read_to_string(format!("/proc/{pid}/statm")).ok()?)
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// Bytes that a process holds in memory beside what it shares.
pub fn own_memory(pid: u32) -> Option<u64> {
    Some(of_process(pid)?.own * page())
}

/// Bytes of private writable memory that a process has reserved.
pub fn data_size(pid: u32) -> Option<u64> {
    Some(of_process(pid)?.data * page())
}

/// How many processes the kernel has ended for want of memory: on this machine since it started, or in the control
/// groups around this process. Any change of the sum means one more.
pub fn oom_kills() -> u64 {
    let machine = read_to_string("/proc/vmstat").unwrap_or_default();
    let groups = group_files(CONTROLLER, "memory.events", "memory.oom_control").into_iter();
    let groups = groups.filter_map(|file| counter(&read_to_string(file).ok()?, "oom_kill"));
    groups.fold(
        counter(&machine, "oom_kill").unwrap_or(0),
        u64::wrapping_add,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_counts_what_cannot_be_had() {
        let text = "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\n";
        let expected = Reading {
            used: 600 << 10,
            total: 1000 << 10,
        };
        assert_eq!(machine(text), Some(expected));
        assert_eq!(machine("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_group_counts_its_limit_and_not_its_cache() {
        let folder = std::env::temp_dir().join(format!("mobula-meter-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 1\ninactive_file 200\n");
        let of = |name: &str| group(&folder.join(name));
        let used = 500;
        assert_eq!(of("memory.max"), Some(Reading { used, total: 1000 }));
        write("memory.max", "max\n");
        assert_eq!(of("memory.max"), None, "no limit");
        write("memory.limit_in_bytes", "2000\n");
        write("memory.usage_in_bytes", "900\n");
        let used = 900;
        assert_eq!(
            of("memory.limit_in_bytes"),
            Some(Reading { used, total: 2000 })
        );
        write("memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(of("memory.limit_in_bytes"), None, "no limit either");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_process_is_read_from_its_pages() {
        let read = pages("500 300 100 20 0 250 0\n");
        let expected = Pages {
            own: 200,
            data: 250,
        };
        assert_eq!(read, Some(expected));
        assert_eq!(pages(""), None);
        assert_eq!(pages("1 2 3 4 5"), None);
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 1\noom 2\noom_kill 3\n";
        assert_eq!(counter(text, "oom_kill"), Some(3));
        assert_eq!(counter(text, "oom_group_kill"), None);
    }

    #[cfg(not(miri))]
    #[test]
    fn this_process_has_memory_and_this_machine_is_not_full() {
        let (_, reading) = fullest().unwrap();
        assert!(reading.used > 0 && reading.used <= reading.total);
        let pid = std::process::id();
        assert!(own_memory(pid).unwrap() > 100 << 10);
        assert!(data_size(pid).unwrap() > 100 << 10);
        assert_eq!(own_memory(u32::MAX), None);
    }
}
