//! How much memory this process may still take: what the machine has left, or its control groups.
//!
//! Readers of a few small files, with pure functions of their text. Left out: acting on it, and what
//! others take in the next moment.

use super::groups::group_files;

/// What memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLeft {
    /// Bytes that could be taken now without pressing anybody.
    pub left: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What this process may have now: the machine's, or the least that its control groups leave it.
/// Reads a few small files.
pub fn memory_left() -> Option<MemoryLeft> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = MemoryLeft {
        left: meminfo_field(&meminfo, "MemAvailable:")?,
        total: meminfo_field(&meminfo, "MemTotal:")?,
    };
    let limits = group_files("memory", "memory.max", "memory.limit_in_bytes");
    Some(limits.iter().fold(machine, |least, file| {
        group_reading(file).map_or(least, |group| MemoryLeft {
            left: least.left.min(group.left),
            total: least.total.min(group.total),
        })
    }))
}

/// What one control group leaves, by the path of its limit; `None` if it sets none.
fn group_reading(limit_file: &str) -> Option<MemoryLeft> {
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
fn group_left(limit: u64, usage: u64, stat: &str) -> MemoryLeft {
    let cached = |name: &str| {
        let line = stat.lines().find_map(|line| {
            let (key, value) = line.split_once(' ')?;
            (key == name || key.strip_prefix("total_") == Some(name)).then_some(value)
        });
        line.and_then(|value| value.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    let files = cached("inactive_file") + cached("active_file");
    MemoryLeft {
        left: limit.saturating_sub(usage.saturating_sub(files)),
        total: limit,
    }
}

/// A field of /proc/meminfo, in bytes.
pub fn meminfo_field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_files_are_left_to_a_group() {
        let stat = "anon 100\nfile 900\nshmem 500\ninactive_file 300\nactive_file 100\n";
        let left = group_left(1000, 950, stat);
        assert_eq!((left.left, left.total), (450, 1000));
        let v1 = "cache 1\ntotal_inactive_file 7\ntotal_active_file 3\n";
        assert_eq!(group_left(1000, 950, v1).left, 60);
        assert_eq!(group_left(100, 200, "").left, 0, "over its limit");
    }

    #[cfg(not(miri))]
    #[test]
    fn this_machine_has_some_memory_left() {
        let left = memory_left().unwrap();
        assert!(left.left > 1 << 20 && left.left <= left.total);
    }
}
