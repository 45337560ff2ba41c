//! How much memory a store takes when nobody says: 30 % of what this process may have.
//!
//! That is the machine's memory, or the control group's limit where that is lower: in a container
//! the machine's figure would promise memory that the kernel answers with a kill. The readers are
//! pure functions of the files' text. Left out: changes of the limit later on.

use std::io;

use crate::shm::lowest_limit;

/// The share of memory, in percent.
const PERCENT: u64 = 30;

/// 30 % of this process's memory, in bytes. Reads a few small files; fails only if the machine's
/// memory cannot be told.
pub fn default_capacity() -> io::Result<u64> {
    let total = mem_total(&std::fs::read_to_string("/proc/meminfo")?);
    let total = total.ok_or_else(|| io::Error::other("no MemTotal in /proc/meminfo"))?;
    Ok(total.min(group_limit().unwrap_or(u64::MAX)) / 100 * PERCENT)
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
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

    #[cfg(not(miri))]
    #[test]
    fn this_machine_has_some_memory() {
        assert!(default_capacity().unwrap() > 1 << 20);
    }
}
