//! How much memory a store takes when nobody says: 30 % of what this process may have.
//!
//! That is the machine's memory, or the control group's limit where that is lower: in a container
//! the machine's figure would promise memory that the kernel answers with a kill. Who asks for more
//! than there is gets a refusal, for the same reason. The readers are pure functions of the files'
//! text. Left out: changes of the limit later on, and what others use meanwhile (`headroom`).

use std::io;

use crate::shm::{lowest_limit, meminfo_field as field};

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

fn mem_total(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemTotal:")
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

    #[cfg(not(miri))]
    #[test]
    fn this_machine_has_some_memory() {
        assert!(default_capacity(30).unwrap() > 1 << 20);
    }
}
