//! How a worker process ended while it ran a call: what the error tells.
//!
//! Invariant: as [`Failure`](super::Failure), immutable text and numbers. Left out: finding it out.

use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It ended by itself, with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The kernel did not say.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => match name(*signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Exit::Unknown => f.write_str("a cause the system did not tell"),
        }
    }
}

fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// The end of a worker process, as seen by the call it was running.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerDeath {
    /// The function or method that ran.
    pub function: &'static str,
    /// The worker's process id.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// If it ended for want of memory: which bound it met, in words.
    pub out_of_memory: Option<String>,
    /// The last lines it printed, oldest first.
    pub log: Vec<String>,
    /// How many times the call was tried.
    pub attempts: u32,
}

impl WorkerDeath {
    /// A death without words: the rest is filled in by whoever finds it out.
    pub fn new(function: &'static str, pid: u32, exit: Exit) -> WorkerDeath {
        WorkerDeath {
            function,
            pid,
            exit,
            out_of_memory: None,
            log: Vec::new(),
            attempts: 1,
        }
    }
}

impl WorkerDeath {
    /// As the cause of an actor's end, whatever its process was at.
    pub(crate) fn as_cause(&self) -> String {
        struct Rest<'a>(&'a WorkerDeath);
        impl fmt::Display for Rest<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.rest(f)
            }
        }
        format!("its worker process {} died: {}", self.pid, Rest(self))
    }

    fn rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.exit, f)?;
        if let Some(memory) = &self.out_of_memory {
            write!(f, "; out of memory: {memory}")?;
        }
        if self.attempts > 1 {
            write!(f, "; after {} attempts", self.attempts)?;
        }
        match self.log.as_slice() {
            [] => f.write_str("; it printed nothing"),
            log => {
                f.write_str("; its last lines:")?;
                log.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
        }
    }
}

impl fmt::Display for WorkerDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerDeath { function, pid, .. } = self;
        write!(f, "the worker process {pid} died while it ran {function}: ")?;
        self.rest(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_reads_as_a_sentence() {
        let mut death = WorkerDeath::new("app::crash", 77, Exit::Signal(9));
        assert_eq!(
            death.to_string(),
            "the worker process 77 died while it ran app::crash: signal 9 (SIGKILL); it printed nothing"
        );
        death.out_of_memory = Some("its limit is 2.0 GiB (memory = ..)".into());
        death.attempts = 4;
        death.log = vec!["one".into(), "two".into()];
        let text = death.to_string();
        assert!(
            text.contains("out of memory: its limit is 2.0 GiB"),
            "{text}"
        );
        assert!(
            text.ends_with("after 4 attempts; its last lines:\n    one\n    two"),
            "{text}"
        );
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
    }
}
