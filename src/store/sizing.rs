//! How much memory a store takes when nobody says: 30 % of what this process may have.
//!
//! That is the machine's memory, or the control group's limit where that is lower: in a container
//! the machine's figure would promise memory that the kernel answers with a kill. The readers are
//! pure functions of the files' text. Left out: changes of the limit later on.

use std::io;

/// The share of memory, in percent.
const PERCENT: u64 = 30;

/// 30 % of this process's memory, in bytes. Reads a few small files; fails only if the machine's
/// memory cannot be told.
pub fn default_capacity() -> io::Result<u64> {
    let total = mem_total(&std::fs::read_to_string("/proc/meminfo")?);
    let total = total.ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))?;
    Ok(total.min(group_limit().unwrap_or(u64::MAX)) / 100 * PERCENT)
}

/// What the machine has, from the text of /proc/meminfo.
pub fn mem_total(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemTotal:")
}

/// What of it could be had without swapping.
pub fn mem_available(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemAvailable:")
}

fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The lowest limit of this process's control group and those around it.
fn group_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = limit_files(&groups).into_iter().filter_map(|path| {
        // "max" (no limit) does not parse, and neither counts.
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    });
    limits.min()
}

/// Where the limits of these groups (the text of /proc/self/cgroup) would stand: version 2 and the
/// memory controller of version 1, each with all its ancestors.
pub fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            let Some((parent, _)) = path.rsplit_once('/') else {
                break;
            };
            path = parent;
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total() {
        assert_eq!(
            mem_total("MemTotal:       24683940 kB\nMemFree: 1 kB\n"),
            Some(24683940 << 10)
        );
        assert_eq!(mem_total("MemFree: 1 kB\n"), None);
        assert_eq!(mem_total("MemTotal: lots\n"), None);
    }

    #[test]
    fn finds_limits_of_both_versions() {
        assert_eq!(
            limit_files("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            limit_files("3:cpuset:/\n8:memory,x:/j\n"),
            [
                "/sys/fs/cgroup/memory/j/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert!(limit_files("nonsense\n").is_empty());
    }

    #[cfg(not(miri))]
    #[test]
    fn this_machine_has_some_memory() {
        assert!(default_capacity().unwrap() > 1 << 20);
    }
}
