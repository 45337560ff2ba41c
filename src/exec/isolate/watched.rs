//! What the node keeps of one worker beside the way to it: what it runs, what it prints, its bound, and how it ended.
//!
//! Invariant: what is said about a death was known when the process had ended and everything it printed was read; it does
//! not change after. Left out: calls (`driver`) and the process itself (`process`).

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use super::care::Care;
use super::limits::Limit;
use super::meter;
use super::output::{Captured, Output};
use super::reap::{self, Evidence};
use crate::base::{Error, Exit, WorkerDeath};
use crate::core::workers::{Running, Work};

/// What a worker runs.
#[derive(Clone, Debug)]
pub struct Job {
    /// A function's name, or an actor's type with its name.
    pub name: Cow<'static, str>,
    /// What becomes of it if the worker dies.
    pub work: Work,
    /// Attempts or lives before this one.
    pub before: u32,
    /// Bytes that it may take.
    pub memory: Option<u64>,
}

impl Job {
    /// A call of the function, at its so-manieth attempt, from 1, of `retries` more.
    pub fn call(function: &'static str, attempt: u32, retries: u32, memory: Option<u64>) -> Job {
        let retried = attempt <= retries;
        Job {
            name: Cow::Borrowed(last_part(function)),
            work: Work::Call { retried },
            before: attempt.saturating_sub(1),
            memory,
        }
    }

    /// The life of an actor, after so many restarts of `most`.
    pub fn actor(
        entry: &'static str,
        name: Option<&str>,
        (restarts, most): (u32, u32),
        memory: Option<u64>,
    ) -> Job {
        let entry = last_part(entry);
        Job {
            name: match name {
                Some(name) => Cow::Owned(format!("{entry} \"{name}\"")),
                None => Cow::Borrowed(entry),
            },
            work: Work::Actor {
                restarts: restarts < most,
            },
            before: restarts,
            memory,
        }
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// A job that runs.
struct Now {
    job: Job,
    run: u64,
    since: Instant,
}

/// What a worker does, or did last.
struct Doing {
    now: Option<Now>,
    /// The name of what it ran last: what it prints after an answer is still that call's.
    name: Cow<'static, str>,
    /// Why the memory monitor ended it.
    sentence: Option<String>,
}

/// How it ended.
#[derive(Debug)]
struct Death {
    exit: Exit,
    out_of_memory: Option<String>,
    log: Vec<String>,
}

/// What is told of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub pid: u32,
    pub runs: Option<Arc<str>>,
    pub actor: bool,
    pub since: Option<Duration>,
    pub before: u32,
    pub memory: Option<u64>,
    pub bound: Option<u64>,
}

/// See the file.
pub struct Watched {
    pid: Pid,
    doing: Arc<Mutex<Doing>>,
    captured: Mutex<Option<Captured>>,
    /// Its number, and its group's, are no longer its own.
    reaped: Mutex<bool>,
    limit: Mutex<Limit>,
    death: OnceLock<Death>,
}

impl Watched {
    /// Begins to watch a process that prints into these pipes.
    pub fn new(
        pid: Pid,
        output: &Output,
        (stdout, stderr): (OwnedFd, OwnedFd),
    ) -> std::io::Result<Watched> {
        let doing = Arc::new(Mutex::new(Doing {
            now: None,
            name: Cow::Borrowed("worker"),
            sentence: None,
        }));
        let name = Arc::clone(&doing);
        let name = move || Arc::from(&*name.lock().name);
        let raw = pid.as_raw_nonzero().get().cast_unsigned();
        let captured = output.capture(raw, name, stdout, stderr)?;
        Ok(Watched {
            pid,
            doing,
            captured: Mutex::new(Some(captured)),
            reaped: Mutex::new(false),
            limit: Mutex::default(),
            death: OnceLock::new(),
        })
    }

    /// The worker gets this to run. An error if its bound cannot be kept; a worker that is dead is none.
    pub fn begin(&self, care: &Care, job: Job) -> Result<(), Error> {
        /// Later ones have higher numbers.
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let bound = job.memory.map(|bytes| {
            let mut limit = self.limit.lock();
            let reaped = self.reaped.lock();
            if *reaped {
                return Ok(()); // the number may be another process's by now
            }
            limit.set(care.limiter(), self.pid, bytes)
        });
        let mut doing = self.doing.lock();
        if doing.name != job.name {
            drop(doing);
            if let Some(captured) = &*self.captured.lock() {
                captured.catch_up();
            }
            doing = self.doing.lock();
            doing.name.clone_from(&job.name);
        }
        doing.now = Some(Now {
            job,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            since: Instant::now(),
        });
        drop(doing);
        care.woken();
        match bound {
            Some(Err(e)) if !is_gone(&e) => Err(Error::Os {
                what: "bounding the memory of a worker process",
                source: Arc::new(e),
            }),
            _ => Ok(()),
        }
    }

    /// It has run it. Whether it can be given another: a bound that cannot be lifted stays.
    pub fn end(&self, care: &Care) -> bool {
        let bounded = {
            let mut doing = self.doing.lock();
            let now = doing.now.take();
            now.is_some_and(|n| n.job.memory.is_some())
        };
        if !bounded {
            return true;
        }
        let mut limit = self.limit.lock();
        let reaped = self.reaped.lock();
        !*reaped && limit.lift(care.limiter(), self.pid).is_ok()
    }

    /// What it runs, for the memory monitor.
    pub fn running(&self) -> Option<(Running, u32)> {
        let doing = self.doing.lock();
        let now = doing.now.as_ref()?;
        let work = now.job.work;
        Some((Running { run: now.run, work }, self.raw_pid()))
    }

    /// Ends it for this reason if it is at this run; whether it was.
    pub fn sentence(&self, run: u64, why: &str, kill: impl FnOnce()) -> bool {
        let mut doing = self.doing.lock();
        let here = doing.now.as_ref().is_some_and(|n| n.run == run);
        if here {
            doing.sentence = Some(why.to_owned());
            // Under the lock: it cannot begin another run meanwhile.
            kill();
        }
        here
    }

    /// Ends what it started, and it, now: the node may not be there to do that once it has ended.
    pub fn kill_group(&self) {
        let reaped = self.reaped.lock();
        if !*reaped {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// The process has ended, or is about to: finds out how. `ours` if the node killed it.
    pub fn bury(&self, care: &Care, pidfd: BorrowedFd<'_>, ours: bool) {
        let exit = {
            let mut reaped = self.reaped.lock();
            *reaped = true;
            reap::collect(pidfd, self.pid)
        };
        let captured = self.captured.lock().take();
        let last = captured.map(Captured::finish).unwrap_or_default();
        let sentence = self.doing.lock().sentence.take();
        let limit = self.limit.lock();
        let killed = exit == Exit::Signal(reap::SIGKILL) && !ours;
        let out_of_memory = reap::out_of_memory(
            exit,
            &Evidence {
                monitor: sentence.as_deref(),
                bound: limit.bound(),
                group_killed: limit.group_killed(),
                kernel_killed: killed && care.kernel_killed(),
                failed_allocation: last.failed_allocation(),
            },
        );
        let _ = self.death.set(Death {
            exit,
            out_of_memory,
            log: last.into_lines(),
        });
    }

    /// How it ended; unknown while it has not.
    pub fn exit(&self) -> Exit {
        self.death.get().map_or(Exit::Unknown, |d| d.exit)
    }

    /// Its end, as the error of what it ran.
    pub fn report(&self, function: &'static str, attempts: u32) -> WorkerDeath {
        let mut death = WorkerDeath::new(function, self.raw_pid(), self.exit());
        death.attempts = attempts;
        if let Some(known) = self.death.get() {
            death.out_of_memory.clone_from(&known.out_of_memory);
            death.log.clone_from(&known.log);
        }
        death
    }

    /// The last `n` lines that it printed, oldest first, and how many there have been; `None` if that cannot be told now.
    pub fn last_lines(&self, n: usize) -> Option<(Vec<String>, u64)> {
        self.captured.lock().as_ref()?.last(n)
    }

    /// What is told of it.
    pub fn told(&self) -> Told {
        let pid = self.raw_pid();
        let doing = self.doing.lock();
        let now = doing.now.as_ref();
        let mut told = Told {
            pid,
            runs: now.map(|n| Arc::from(&*n.job.name)),
            actor: now.is_some_and(|n| matches!(n.job.work, Work::Actor { .. })),
            since: now.map(|n| n.since.elapsed()),
            before: now.map_or(0, |n| n.job.before),
            memory: None,
            bound: now.and_then(|n| n.job.memory),
        };
        drop(doing);
        told.memory = meter::own_memory(pid);
        told
    }

    fn raw_pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }
}

fn is_gone(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_people_gave() {
        let call = Job::call("app::jobs::square", 2, 3, None);
        assert_eq!((&*call.name, call.before), ("square", 1));
        assert_eq!(call.work, Work::Call { retried: true });
        let last = Job::call("norm", 4, 3, Some(1));
        assert_eq!(last.work, Work::Call { retried: false });
        let actor = Job::actor("app::Counter", Some("hits"), (1, 1), None);
        assert_eq!(&*actor.name, "Counter \"hits\"");
        assert_eq!(actor.work, Work::Actor { restarts: false });
        let plain = Job::actor("app::Counter", None, (0, 1), None);
        assert_eq!(&*plain.name, "Counter");
        assert_eq!(plain.work, Work::Actor { restarts: true });
    }
}
