//! From a dead process to what its error says.
//!
//! Invariant: a cause is named only on evidence: our own kill, the group's counter, the words of a failed allocation, or a
//! rise of the kernel's counter; else the report gives the bare exit. A worker's process group ends with it.
//! Left out: seeing that it died (`pool`), and reading what it printed (`output`).

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::limits::Bound;
use crate::base::{Exit, show_bytes};

const SIGABRT: i32 = 6;
/// What nothing survives.
pub const SIGKILL: i32 = 9;

/// Takes the status of a process that has ended, or waits until it has. The processes that it started go with it: they are
/// of its group, whose number stays taken until the status is.
pub fn collect(pidfd: BorrowedFd<'_>, pid: Pid) -> Exit {
    let wait = |options| {
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), options))
    };
    if wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_ok() {
        // None are left, or all have the signal.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    match wait(WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        // The program has made its children vanish unseen, or took the status itself.
        _ => Exit::Unknown,
    }
}

/// What is known about a death.
#[derive(Debug, Default)]
pub struct Evidence<'a> {
    /// Why the memory monitor ended it, if it did.
    pub monitor: Option<&'a str>,
    /// The bound it ran under.
    pub bound: Option<Bound>,
    /// Its control group counted a kill for want of memory.
    pub group_killed: bool,
    /// The kernel ended some process of this machine for want of memory just then.
    pub kernel_killed: bool,
    /// The bytes of the allocation that it said had failed, at its end.
    pub failed_allocation: Option<u64>,
}

/// Which bound of memory a dead worker met, in words; `None` if it died of something else.
pub fn out_of_memory(exit: Exit, evidence: &Evidence<'_>) -> Option<String> {
    if let Some(why) = evidence.monitor {
        return Some(why.to_owned());
    }
    let bound = evidence.bound.map(|b| b.to_string());
    if evidence.group_killed {
        return Some(bound.unwrap_or_else(|| "the bound of its control group".to_owned()));
    }
    if exit == Exit::Signal(SIGABRT)
        && let Some(bytes) = evidence.failed_allocation
    {
        let size = show_bytes(bytes);
        return Some(match bound {
            Some(bound) => format!("an allocation of {size} failed at {bound}"),
            None => format!("an allocation of {size} failed: the system granted no more"),
        });
    }
    if exit == Exit::Signal(SIGKILL) && evidence.kernel_killed {
        return Some(
            "the kernel ended a process of this machine for want of memory just then, most likely this one"
                .to_owned(),
        );
    }
    None
}

/// Whether the kernel has ended a process for want of memory lately.
#[derive(Debug)]
pub struct KernelKills(Mutex<Kills>);

#[derive(Debug)]
struct Kills {
    count: u64,
    rose: Option<Instant>,
}

impl KernelKills {
    /// How long after such a kill a death is put down to it: the killed may take a while to give its memory back.
    const LATELY: Duration = Duration::from_secs(2);

    /// Begins with what was counted so far.
    pub fn new(count: u64) -> KernelKills {
        let rose = None;
        KernelKills(Mutex::new(Kills { count, rose }))
    }

    /// The count after a time without looking: what happened meanwhile does not matter.
    pub fn resume(&self, count: u64) {
        self.0.lock().count = count;
    }

    /// The count now; whether it rose lately.
    pub fn lately(&self, count: u64, now: Instant) -> bool {
        let mut kills = self.0.lock();
        if std::mem::replace(&mut kills.count, count) != count {
            kills.rose = Some(now);
        }
        kills
            .rose
            .is_some_and(|rose| now.saturating_duration_since(rose) <= Self::LATELY)
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::How;
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    const ABORT: Exit = Exit::Signal(SIGABRT);
    const KILL: Exit = Exit::Signal(SIGKILL);

    fn bound() -> Option<Bound> {
        Some(Bound {
            bytes: 64 << 20,
            how: How::Reserved,
        })
    }

    #[test]
    fn a_cause_needs_evidence() {
        let nothing = Evidence::default();
        let said = Some(1 << 20);
        for exit in [ABORT, KILL, Exit::Code(3), Exit::Unknown] {
            assert_eq!(out_of_memory(exit, &nothing), None);
        }
        // Killed from outside, or aborted, under a bound: not its fault.
        let bounded = Evidence {
            bound: bound(),
            ..Evidence::default()
        };
        assert_eq!(out_of_memory(KILL, &bounded), None);
        assert_eq!(out_of_memory(ABORT, &bounded), None);
        // It printed such words once, but ended otherwise.
        let said_only = Evidence {
            failed_allocation: said,
            ..Evidence::default()
        };
        assert_eq!(out_of_memory(Exit::Code(1), &said_only), None);
        let kernel = Evidence {
            kernel_killed: true,
            ..Evidence::default()
        };
        assert_eq!(out_of_memory(ABORT, &kernel), None);
        assert!(
            out_of_memory(KILL, &kernel)
                .unwrap()
                .contains("most likely")
        );
    }

    #[test]
    fn the_bound_is_named() {
        let said = Some(1 << 20);
        let mut evidence = Evidence {
            failed_allocation: said,
            ..Evidence::default()
        };
        let text = out_of_memory(ABORT, &evidence).unwrap();
        assert!(text.contains("1.0 MiB failed: the system"), "{text}");
        evidence.bound = bound();
        let text = out_of_memory(ABORT, &evidence).unwrap();
        assert!(text.contains("1.0 MiB failed at"), "{text}");
        assert!(text.contains("64.0 MiB"), "{text}");
        evidence.group_killed = true;
        let text = out_of_memory(KILL, &evidence).unwrap();
        assert!(
            text.contains("64.0 MiB") && !text.contains("1.0 MiB failed"),
            "{text}"
        );
        evidence.monitor = Some("the machine was full");
        assert_eq!(
            out_of_memory(KILL, &evidence).as_deref(),
            Some("the machine was full")
        );
    }

    #[test]
    fn a_kernel_kill_counts_for_a_short_while() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let kills = KernelKills::new(5);
        assert!(!kills.lately(5, at(0)));
        assert!(kills.lately(6, at(10)));
        assert!(kills.lately(6, at(1500)));
        assert!(!kills.lately(6, at(2500)));
        kills.resume(9);
        assert!(!kills.lately(9, at(3000)), "before it looked");
    }

    #[cfg(not(miri))]
    #[test]
    fn a_status_is_read_and_the_group_goes_too() {
        let collect = |script: &str| {
            let mut child = Command::new("sh");
            child.args(["-c", script]).process_group(0);
            child.stdout(std::process::Stdio::piped());
            #[expect(clippy::zombie_processes, reason = "waited for by its pidfd")]
            let mut child = child.spawn().unwrap();
            let pid = Pid::from_child(&child);
            let flags = rustix::process::PidfdFlags::empty();
            let pidfd = rustix::process::pidfd_open(pid, flags).unwrap();
            let exit = super::collect(pidfd.as_fd(), pid);
            // Ends when the last process that could write is gone.
            let mut left = String::new();
            let mut out = child.stdout.take().unwrap();
            std::io::Read::read_to_string(&mut out, &mut left).unwrap();
            exit
        };
        assert_eq!(collect("exit 3"), Exit::Code(3));
        assert_eq!(collect("kill -KILL $$"), KILL);
        assert_eq!(collect("kill -SEGV $$"), Exit::Signal(11));
        // A grandchild that would hold the pipe for an hour.
        assert_eq!(collect("sleep 3600 & exit 0"), Exit::Code(0));
    }
}
