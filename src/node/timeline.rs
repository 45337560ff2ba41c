//! The recording of a node: its memory at the start, its file at the end.
//!
//! Invariant: a recording that cannot be written is an error with the file's name, never a panic. Left out: what is in it
//! (`trace`).

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::OFlags;

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
    let write = || trace::write(recorder, create(path)?);
    write().map_err(|e| Error::Os {
        what: "writing the timeline",
        source: Arc::new(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    })
}

/// As [`File::create`], but an error for a pipe that nobody reads, where that would wait for somebody to come, and for a file
/// to which another writes its timeline, which would be of both.
fn create(path: &Path) -> io::Result<File> {
    let at_once = OFlags::NONBLOCK.bits() as i32;
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.custom_flags(at_once).open(path)?;
    if file.metadata()?.is_file() {
        // Where there are no locks it goes without.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another timeline is being written there",
            ));
        }
        file.set_len(0)?;
    }
    // A reader that is there may be slow.
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_timelines_are_not_written_to_one_file_at_once() {
        let recorder = recording(Mode::Full, SMALLEST).unwrap().unwrap().recorder;
        let path = std::env::temp_dir().join(format!("mobula-twice-{}", std::process::id()));
        std::fs::write(&path, "half of the other").unwrap();
        let other = File::options().write(true).open(&path).unwrap();
        other.lock().unwrap();
        let e = write(&recorder, &path).unwrap_err();
        assert!(e.to_string().contains("another timeline"), "{e}");
        assert_eq!(std::fs::read(&path).unwrap(), b"half of the other");
        drop(other);
        let written = write(&recorder, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len() as u64, written.bytes);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_pipe_without_a_reader_is_an_error_and_one_with_a_slow_reader_gets_all() {
        let recording = recording(Mode::Full, SMALLEST).unwrap().unwrap();
        let path = std::env::temp_dir().join(format!("mobula-pipe-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let (done, wait) = channel();
        let (recorder, to) = (Arc::clone(&recording.recorder), path.clone());
        std::thread::spawn(move || done.send(write(&recorder, &to)));
        let alone = wait.recv_timeout(Duration::from_secs(60));
        let alone = alone.expect("it does not wait for a reader").unwrap_err();
        assert!(alone.to_string().contains("mobula-pipe"), "{alone}");

        let lane = trace::Lane::new(&recording.recorder, trace::Part::Driver);
        let pen = lane.pen().unwrap();
        for call in 0..5000 {
            pen.enter(0, call, 0, 1);
            pen.exit(call, trace::Outcome::Done, 0, None);
        }
        // A reader is there, but reads nothing before the pipe is full.
        let mut reader = File::options().read(true).write(true).open(&path).unwrap();
        let (done, wait) = channel();
        let (recorder, to) = (Arc::clone(&recording.recorder), path.clone());
        std::thread::spawn(move || done.send(write(&recorder, &to)));
        let (mut read, mut piece) = (0, [0; 4096]);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let written = loop {
            assert!(std::time::Instant::now() < deadline, "{read} bytes came");
            if let Ok(written) = wait.try_recv() {
                break written.unwrap();
            }
            if rustix::io::ioctl_fionread(&reader).unwrap() > 0 {
                read += reader.read(&mut piece).unwrap() as u64;
            }
        };
        while rustix::io::ioctl_fionread(&reader).unwrap() > 0 {
            read += reader.read(&mut piece).unwrap() as u64;
        }
        assert!(written.bytes > 1 << 17 && read == written.bytes, "{read}");
        std::fs::remove_file(&path).unwrap();
    }
}
