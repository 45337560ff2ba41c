//! Attaching to a running program: the socket on which it listens, and the client that finds it.
//!
//! A question is one line of JSON, and so is its answer; only a recording comes as a file beside it. Programs of one user find each other in a folder that only that
//! user can enter; whoever connects is checked besides, by what the kernel says of it.
//!
//! Invariant: whatever comes through the socket costs bounded memory and time, and nothing that a client does ends or
//! stops the program. Left out: other machines; nothing here leaves this one.

mod client;
mod connection;
mod folder;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod recorded;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{Client, Running, running};
#[cfg(feature = "cluster")]
pub(super) use folder::{places, prepare};
pub use recorded::Recorded;
pub use server::Server;

use crate::base::query::Query;
use crate::base::snapshot::{Program, Snapshot};

/// The most bytes of one question.
const QUESTION_MAX: usize = 64 << 10;
/// The most bytes of one answer that a client takes.
const ANSWER_MAX: u64 = 512 << 20;

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Question {
    /// Who are you?
    Hello,
    /// What do you look like?
    Snapshot(Query),
    /// What did you record? The answer has the memory's file beside it.
    Recording,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Hello(Program),
    Snapshot(Box<Snapshot>),
    /// Its file, opened for reading, comes beside the first byte.
    Recording(Program),
    /// The question was not understood, or cannot be answered now.
    Error(String),
}

/// Why a program could not be looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// No program of this user runs Mobula, or none that lets others attach.
    NothingRuns,
    /// The program with this process id does not.
    NotRunning {
        /// The process id.
        pid: u32,
        /// Those that do.
        others: Vec<u32>,
    },
    /// The folder of the sockets cannot be trusted, or not be used.
    Folder {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The connection failed or ended.
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The program refused to answer, and said this.
    Refused(String),
    /// The program answered something that is no answer: its version of Mobula may be another.
    Answer(String),
    /// The dashboard of the program could not be served.
    #[cfg(feature = "dashboard")]
    Dashboard(Box<crate::base::Error>),
}

impl AttachError {
    /// Whether it says that the program has ended.
    pub fn has_ended(&self) -> bool {
        use io::ErrorKind::{
            BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof,
        };
        let gone = [
            UnexpectedEof,
            BrokenPipe,
            ConnectionReset,
            ConnectionRefused,
            NotFound,
        ];
        matches!(self, AttachError::Io { source, .. } if gone.contains(&source.kind()))
    }
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::NothingRuns => f.write_str(
                "no running program of this user uses Mobula (or it was told not to let others attach)",
            ),
            AttachError::NotRunning { pid, others } => {
                write!(f, "process {pid} is not a program to attach to")?;
                match others.as_slice() {
                    [] => f.write_str("; none runs"),
                    others => {
                        let others: Vec<_> = others.iter().map(u32::to_string).collect();
                        write!(f, "; these are: {}", others.join(", "))
                    }
                }
            }
            AttachError::Folder { path, why } => write!(f, "{}: {why}", path.display()),
            AttachError::Io { what, source } => write!(f, "{what}: {source}"),
            AttachError::Refused(why) => write!(f, "the program refused: {why}"),
            #[cfg(feature = "dashboard")]
            AttachError::Dashboard(e) => e.fmt(f),
            AttachError::Answer(why) => write!(
                f,
                "the program's answer makes no sense: {why} (it may use another version of Mobula)"
            ),
        }
    }
}

impl std::error::Error for AttachError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AttachError::Io { source, .. } => Some(source),
            #[cfg(feature = "dashboard")]
            AttachError::Dashboard(e) => e.source(),
            _ => None,
        }
    }
}
