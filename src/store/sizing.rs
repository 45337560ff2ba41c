//! How much memory a store takes when nobody says: 30 % of what this process may have.
//!
//! That is the machine's memory, or the control group's limit where that is lower: in a container
//! the machine's figure would promise memory that the kernel answers with a kill. Who asks for more
//! than there is gets a refusal, for the same reason. The readers are pure functions of the files'
//! text. What is left at a moment is read here too; see `headroom`. Left out: acting on it.

use std::io;

use crate::shm::{group_files, lowest_limit};

/// The share of memory that a store takes when nobody says, in percent.
pub(super) const DEFAULT_PERCENT: u64 = 30;

/// A share of this process's memory, in bytes: of the machine's, or of the container's limit where that
/// is lower. A store takes 30 percent when nobody says. Reads a few small files.
///
/// # Errors
/// Only if the machine's memory cannot be told.
pub fn default_capacity(percent: u64) -> io::Result<u64> {
    let total = mem_total(&std::fs::read_to_string("/proc/meminfo")?);
    let total = total.ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))?;
    Ok(total.min(group_limit().unwrap_or(u64::MAX)) / 100 * percent.min(100))
}

/// Why a store of this many bytes could never be filled: it is more than the memory and swap space
/// of the machine, so writing it would end in a kill. `None` if it could, as far as is known.
pub fn more_than_the_machine_has(capacity: u64) -> Option<String> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    too_much(capacity, &meminfo, None)
}

/// As [`more_than_the_machine_has`], and what this process's control groups allow; reserved pages do
/// not count there.
pub fn more_than_is_allowed(capacity: u64) -> Option<String> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    too_much(capacity, &meminfo, group_limit())
}

fn too_much(capacity: u64, meminfo: &str, limit: Option<u64>) -> Option<String> {
    let swap = field(meminfo, "SwapTotal:").unwrap_or(0);
    let total = mem_total(meminfo)?;
    let (memory, whose) = match limit {
        Some(limit) if limit < total => (limit, "this process's control group may use"),
        _ => (total, "the machine has"),
    };
    if capacity <= memory.saturating_add(swap) {
        return None;
    }
    let mib = |bytes: u64| bytes >> 20;
    Some(format!(
        "is {} MiB, but {whose} {} MiB of memory and {} MiB of swap space: give less (the default is {DEFAULT_PERCENT} % of memory)",
        mib(capacity),
        mib(memory),
        mib(swap)
    ))
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
    let limits = group_files("memory", "memory.max", "memory.limit_in_bytes");
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

/// A field of /proc/meminfo, in bytes.
pub fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// The lowest memory limit of this process's control groups.
fn group_limit() -> Option<u64> {
    lowest_limit("memory", "memory.max", "memory.limit_in_bytes")
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
    fn more_than_there_is_is_refused_with_the_numbers() {
        const MIB: u64 = 1 << 20;
        let meminfo = "MemTotal: 8192 kB\nMemFree: 1 kB\nSwapTotal: 2048 kB\n";
        assert_eq!(too_much(10 * MIB, meminfo, None), None);
        let why = too_much(11 * MIB, meminfo, None).unwrap();
        let start = "is 11 MiB, but the machine has 8 MiB of memory and 2 MiB of swap";
        assert!(why.starts_with(start), "{why}");
        assert_eq!(too_much(3 * MIB, meminfo, Some(MIB)), None);
        let why = too_much(4 * MIB, meminfo, Some(MIB)).unwrap();
        assert!(why.contains("control group may use 1 MiB"), "{why}");
        assert_eq!(too_much(10 * MIB, meminfo, Some(u64::MAX)), None);
        assert_eq!(too_much(u64::MAX, "nothing known", None), None);
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
        assert!(default_capacity(30).unwrap() > 1 << 20);
        let reading = reading().unwrap();
        assert!(reading.left > 1 << 20 && reading.left <= reading.total);
    }
}
