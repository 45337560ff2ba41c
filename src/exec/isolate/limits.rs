//! The bound of memory that one call or actor puts on its worker.
//!
//! A bound is what the call may take on top of what its worker holds when the call begins: a worker is used again, and what
//! an earlier call left behind is not this one's doing. Two ways:
//!
//! - A control group of its own, where version 2 lets us make one with the memory controller ([`cgroup`](super::cgroup)).
//!   It counts memory as it is touched, of the worker and of all it starts, and its kernel counter says that it was met.
//! - Else `RLIMIT_DATA`, set from here by `prlimit`. It counts private writable mappings as they are reserved, touched or
//!   not. The arena, mapped shared, is not among them: results do not count, and the store is counted once, by its own
//!   bound. An allocation beyond the limit fails, and Rust's answer to that is to say so and abort, which is how it is
//!   told from other deaths. Processes that the worker starts inherit the limit, each for itself.
//!
//! Invariant: a bound is set before its call begins and lifted after it ended; it is never left on a worker that another
//! call gets. Left out: what a death means (`reap`).

use std::fmt;
use std::io;

use rustix::process::{Pid, Resource, Rlimit};

use super::cgroup::{Group, Groups};
use super::meter;
use crate::base::show_bytes;

/// What keeps a worker within its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A control group.
    Group,
    /// A limit on what it reserves.
    Reserved,
}

/// A bound that a worker runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// As it was asked for.
    pub bytes: u64,
    /// How it is kept.
    pub how: How,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = show_bytes(self.bytes);
        write!(f, "its bound of {size} (memory = ..), kept by ")?;
        f.write_str(match self.how {
            How::Group => "a control group",
            How::Reserved => "a limit on the private memory it reserves",
        })
    }
}

/// What this node can bound workers with.
#[derive(Debug)]
pub struct Limiter {
    groups: Result<Groups, String>,
    /// What workers have of themselves.
    free: Rlimit,
}

impl Limiter {
    /// Finds out.
    pub fn new() -> Limiter {
        Limiter {
            groups: Groups::find(),
            free: rustix::process::getrlimit(Resource::Data),
        }
    }
}

/// The bounds that one worker has had, and has.
#[derive(Debug, Default)]
pub struct Limit {
    now: Option<Bound>,
    group: Option<Group>,
}

impl Limit {
    /// Bounds what the worker takes from here on.
    pub fn set(&mut self, limiter: &Limiter, pid: Pid, bytes: u64) -> io::Result<()> {
        let how = match self.set_group(limiter, pid, bytes) {
            true => How::Group,
            false => {
                let raw = pid.as_raw_nonzero().get().cast_unsigned();
                let held = meter::data_size(raw).ok_or(io::ErrorKind::NotFound)?;
                let own = limiter.free.current.unwrap_or(u64::MAX);
                let most = held.saturating_add(bytes).min(own);
                reserve(pid, limiter, Some(most))?;
                How::Reserved
            }
        };
        self.now = Some(Bound { bytes, how });
        Ok(())
    }

    /// Whether a group bounds it now; if anything about groups is refused, the other way is left.
    fn set_group(&mut self, limiter: &Limiter, pid: Pid, bytes: u64) -> bool {
        let Ok(groups) = &limiter.groups else {
            return false;
        };
        if self.group.is_none() {
            self.group = groups.join(pid).ok();
        }
        self.group.as_ref().is_some_and(|g| g.bound(bytes).is_ok())
    }

    /// The call has ended: its bound too.
    pub fn lift(&mut self, limiter: &Limiter, pid: Pid) -> io::Result<()> {
        match self.now.take().map(|b| b.how) {
            None => Ok(()),
            Some(How::Group) => self.group.as_ref().map_or(Ok(()), Group::lift),
            Some(How::Reserved) => reserve(pid, limiter, limiter.free.current),
        }
    }

    /// The bound it runs under.
    pub fn bound(&self) -> Option<Bound> {
        self.now
    }

    /// Whether its control group has counted a kill for want of memory.
    pub fn group_killed(&self) -> bool {
        self.group.as_ref().is_some_and(Group::killed)
    }
}

fn reserve(pid: Pid, limiter: &Limiter, current: Option<u64>) -> io::Result<()> {
    let limit = Rlimit {
        current,
        maximum: limiter.free.maximum,
    };
    rustix::process::prlimit(Some(pid), Resource::Data, limit)?;
    Ok(())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

    /// A shell that takes memory when told: `x=$(..)` holds what the command prints.
    struct Shell(Child, ChildStdin, BufReader<ChildStdout>);

    impl Shell {
        fn start() -> Shell {
            let mut child = Command::new("bash")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("bash is there");
            let (input, output) = (child.stdin.take(), child.stdout.take());
            Shell(child, input.unwrap(), BufReader::new(output.unwrap()))
        }

        fn says(&mut self, command: &str) -> String {
            let _ = writeln!(self.1, "{command}");
            let mut line = String::new();
            self.2.read_line(&mut line).unwrap();
            line.trim().to_owned()
        }

        fn take(&mut self, mib: u32) -> String {
            self.says(&format!(
                "x=$(head -c {mib}M /dev/zero | tr '\\0' x); echo ${{#x}}"
            ))
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn without_groups() -> Limiter {
        Limiter {
            groups: Err("not asked for".into()),
            ..Limiter::new()
        }
    }

    #[test]
    fn a_reservation_beyond_the_bound_fails_and_a_lifted_one_does_not() {
        let limiter = without_groups();
        let mut shell = Shell::start();
        let pid = Pid::from_child(&shell.0);
        let mut limit = Limit::default();
        assert_eq!(shell.says("echo ready"), "ready");
        limit.set(&limiter, pid, 256 << 20).unwrap();
        let expected = Bound {
            bytes: 256 << 20,
            how: How::Reserved,
        };
        assert_eq!(limit.bound(), Some(expected));
        assert_eq!(shell.take(1), (1 << 20).to_string());
        limit.lift(&limiter, pid).unwrap();
        assert_eq!(limit.bound(), None);
        assert_eq!(shell.take(16), (16 << 20).to_string());
        // What it holds does not count against a later bound, but 16 MiB more are beyond 1.
        limit.set(&limiter, pid, 1 << 20).unwrap();
        assert_eq!(shell.says("echo $((1 + 1))"), "2");
        assert_ne!(shell.take(64), (64 << 20).to_string());
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let limiter = without_groups();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        child.wait().unwrap();
        assert!(Limit::default().set(&limiter, pid, 1 << 20).is_err());
    }

    #[test]
    fn a_bound_reads_as_words() {
        let mut bound = Bound {
            bytes: 3 << 29,
            how: How::Group,
        };
        assert_eq!(
            bound.to_string(),
            "its bound of 1.5 GiB (memory = ..), kept by a control group"
        );
        bound.how = How::Reserved;
        assert!(bound.to_string().ends_with("private memory it reserves"));
    }
}
