//! The recording of a node: its memory at the start, its file at the end.
//!
//! Invariant: a recording that cannot be written is an error with the file's name, never a panic. Left out: what is in it
//! (`trace`).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::base::{Error, Result};
use crate::exec::events::Recording;
use crate::shm::Words;
use crate::trace::{self, Mode, Recorder, SMALLEST, Written};

/// The variable that names the file to which a node writes its timeline when it ends.
pub const VARIABLE: &str = "MOBULA_TIMELINE";

/// Memory for events unless told otherwise.
pub const BYTES: usize = 64 << 20;

/// A recorder over fresh shared memory.
pub(super) fn recording(mode: Mode, bytes: usize) -> Result<Option<Recording>> {
    if mode == Mode::Off {
        return Ok(None);
    }
    if bytes < SMALLEST {
        return Err(Error::Config {
            setting: "trace_memory",
            why: format!("is {bytes} bytes: give at least {SMALLEST}, or Trace::Off"),
        });
    }
    let words = Words::create(bytes).map_err(|e| Error::Os {
        what: "creating the memory of the timeline",
        source: Arc::new(e),
    })?;
    let words = Arc::new(words);
    Ok(
        Recorder::create(words.clone(), mode).map(|recorder| Recording {
            recorder: Arc::new(recorder),
            words,
        }),
    )
}

/// Writes what was recorded to a file.
pub fn write(recorder: &Recorder, path: &Path) -> Result<Written> {
    let write = || -> io::Result<Written> { trace::write(recorder, File::create(path)?) };
    write().map_err(|e| Error::Os {
        what: "writing the timeline",
        source: Arc::new(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    })
}

/// Writes the file that the variable names, if it is set.
pub(super) fn write_at_end(recorder: Option<&Arc<Recorder>>) {
    let (Some(recorder), Some(path)) = (recorder, std::env::var_os(VARIABLE)) else {
        return;
    };
    if path.is_empty() {
        return;
    }
    if let Err(e) = write(recorder, Path::new(&path)) {
        eprintln!("mobula: {VARIABLE}: {e}");
    }
}
