//! How much memory a store takes when nobody says: 30 % of what this process may have.
//!
//! That is the machine's memory, or the control group's limit where that is lower: in a container
//! the machine's figure would promise memory that the kernel answers with a kill. The readers are
//! pure functions of the files' text. What is left at a moment is read here too; see `headroom`.
//! Left out: acting on it.

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

/// What memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes that could be taken now without pressing anybody.
    pub left: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What this process may have now: the machine's, or the least that its control groups leave it.
/// Reads a few small files.
pub fn reading() -> Option<Reading> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = Reading {
        left: field(&meminfo, "MemAvailable:")?,
        total: mem_total(&meminfo)?,
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups);
    Some(limits.iter().fold(machine, |least, file| {
        group_reading(file).map_or(least, |group| Reading {
            left: least.left.min(group.left),
            total: least.total.min(group.total),
        })
    }))
}

/// What one control group leaves, by the path of its limit; `None` if it sets none.
fn group_reading(limit_file: &str) -> Option<Reading> {
    let (folder, name) = limit_file.rsplit_once('/')?;
    let number = |file: &str| {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let limit = number(name)?;
    let usage = match name {
        "memory.max" => "memory.current",
        _ => "memory.usage_in_bytes",
    };
    let usage = number(usage)?;
    let stat = std::fs::read_to_string(format!("{folder}/memory.stat")).unwrap_or_default();
    Some(group_left(limit, usage, &stat))
}

/// What a group with this limit, usage and memory.stat leaves: the kernel drops cached files when
/// the group needs their memory, so they count as left. Shared memory is not among them.
fn group_left(limit: u64, usage: u64, stat: &str) -> Reading {
    let cached = |name: &str| {
        let line = stat.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == name || key.strip_prefix("total_") == Some(name)).then_some(value)
        });
        line.and_then(|value| value.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let files = cached("inactive_file") + cached("active_file");
    Reading {
        left: limit.saturating_sub(usage.saturating_sub(files)),
        total: limit,
    }
}

fn mem_total(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemTotal:")
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
fn limit_files(groups: &str) -> Vec<String> {
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

    #[test]
    fn cached_files_are_left_to_a_group() {
        let stat = "anon 100\nfile 900\nshmem 500\ninactive_file 300\nactive_file 100\n";
        let reading = group_left(1000, 950, stat);
        assert_eq!((reading.left, reading.total), (450, 1000));
        let v1 = "cache 1\ntotal_inactive_file 7\ntotal_active_file 3\n";
        assert_eq!(group_left(1000, 950, v1).left, 60);
        assert_eq!(group_left(100, 200, "").left, 0, "over its limit");
    }

    #[cfg(not(miri))]
    #[test]
    fn this_machine_has_some_memory() {
        assert!(default_capacity().unwrap() > 1 << 20);
        let reading = reading().unwrap();
        assert!(reading.left > 1 << 20 && reading.left <= reading.total);
    }
}
