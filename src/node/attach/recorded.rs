//! The recording of another program: its memory, mapped here for looking.
//!
//! The program hands over the file of that memory, opened for reading, and has no more to do with what is made of it: no
//! thread of it writes a trace, and when it dies in the middle the memory stays.
//!
//! Invariant: looking writes nothing into the program's memory, and whatever that memory holds is a claim. Left out: what
//! events mean (`trace`).

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::AttachError;
use crate::base::snapshot::Program;
use crate::shm::Words;
use crate::trace::{self, Recorder, Written};

/// What another program recorded, up to this moment and on: see [`Client::recorded`](super::Client::recorded).
#[derive(Debug)]
pub struct Recorded {
    program: Program,
    recorder: Recorder,
}

impl Recorded {
    pub(super) fn new(program: Program, file: OwnedFd) -> Result<Recorded, AttachError> {
        let words = Words::look(file).map_err(|source| AttachError::Io {
            what: format!("mapping the recording of process {}", program.pid),
            source,
        })?;
        let recorder = Recorder::of(program.name.clone(), Arc::new(words)).ok_or_else(|| {
            AttachError::Answer(format!(
                "its recording is none that this version reads; it uses Mobula {}",
                program.version
            ))
        })?;
        Ok(Recorded { program, recorder })
    }

    /// The program as it was when it handed the recording over.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Writes what was recorded as a Chrome trace, as [`timeline`](crate::timeline()) does: all of it, or only the `last`
    /// so much. `progress` is told how much of the memory has been read, and how much there is to read.
    ///
    /// The program goes on meanwhile, and is not asked for anything. Some million events a second; takes memory of about
    /// half of what is recorded.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(
        &self,
        last: Option<Duration>,
        to: impl Write,
        progress: impl FnMut(u64, u64),
    ) -> io::Result<Written> {
        let from = last.map_or(0, |last| {
            let last = u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
            self.recorder.now().saturating_sub(last)
        });
        trace::write_within(&self.recorder, from..=u64::MAX, to, progress)
    }

    #[cfg(feature = "dashboard")]
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}
