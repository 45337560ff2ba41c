//! Copies at one place, behind the `object_store` crate: each a header and the bytes, written as a whole.
//!
//! Invariant: what [`read`](Copies::read) accepts is what was written under this name, to the last bit; a copy is there whole or
//! not at all; each step at the place ends within [`STEP`]; a folder is made once: one that is gone later is an error, since files in its
//! place may be on another disk. Left out: which copies there are, and for how long.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::path::Path;

use super::super::backend::{Backend, TRIES};
use crate::base::{Loss, NotWritten};

/// How long one step may take: to write or read some MiB, to delete.
const STEP: Duration = Duration::from_secs(30);
/// Bytes before a copy's own.
const HEADER: usize = 48;
const MAGIC: [u8; 8] = *b"MOBCOPY1";

/// See the file.
pub struct Copies {
    backend: Backend,
    prefix: Path,
    folder: Option<PathBuf>,
    /// The folder was there.
    made: AtomicBool,
}

impl Copies {
    /// Those at a URL. Asks nothing of it yet.
    pub fn open(place: &str) -> Result<Copies, String> {
        let (backend, prefix, folder) = Backend::lasting(place).map_err(|failed| failed.why)?;
        let made = AtomicBool::new(false);
        Ok(Copies {
            backend,
            prefix,
            folder,
            made,
        })
    }

    /// Those of a store that somebody made.
    #[cfg(test)]
    pub fn of(backend: Backend) -> Copies {
        Copies {
            backend,
            prefix: Path::default(),
            folder: None,
            made: AtomicBool::new(false),
        }
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// Makes the folder, if they are in one.
    pub fn make(&self) -> Result<(), String> {
        let backend = self.backend.within(STEP).map_err(|e| e.to_string())?;
        self.have_folder(&backend)
    }

    /// Makes the folder the first time, and sees that it is there from then on.
    fn have_folder(&self, backend: &Backend) -> Result<(), String> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let said = |why: String| format!("{}: {why}", folder.display());
        if !self.made.load(Relaxed) {
            let made = backend.make_folder(folder.clone());
            made.map_err(|failed| said(failed.why))?;
            self.made.store(true, Relaxed);
            return Ok(());
        }
        match backend.has_folder(folder.clone()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(said(
                "the folder was there and is gone: is its disk still mounted?".to_owned(),
            )),
            Err(failed) => Err(said(failed.why)),
        }
    }

    /// Writes one, within about so long.
    pub fn write<B: AsRef<[u8]> + Send + 'static>(
        &self,
        name: &str,
        bytes: B,
        timeout: Duration,
    ) -> Result<(), NotWritten> {
        let refused = |why: String| NotWritten::Refused(why.into());
        let deadline = Instant::now().checked_add(timeout);
        let in_time = || deadline.is_none_or(|at| Instant::now() < at);
        if !in_time() {
            return Err(NotWritten::TimedOut(timeout));
        }
        let bytes = Bytes::from_owner(bytes);
        let header = header(name, &bytes);
        let backend = self.backend.within(timeout.min(STEP));
        let backend = backend.map_err(|e| refused(e.to_string()))?;
        match self.have_folder(&backend) {
            Ok(()) => {}
            Err(_) if !in_time() => return Err(NotWritten::TimedOut(timeout)),
            Err(why) => return Err(refused(why)),
        }
        let pieces = [Bytes::copy_from_slice(&header), bytes];
        match backend.write(&self.path(name), &pieces, false, &in_time) {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotWritten::TimedOut(timeout)),
            Err(_) if !in_time() => Err(NotWritten::TimedOut(timeout)),
            Err(failed) => Err(refused(failed.why)),
        }
    }

    /// Reads one of which the length is known, and checks it.
    pub fn read(&self, name: &str, into: &mut [u8]) -> Result<(), Loss> {
        let path = self.path(name);
        let unreadable = |e: std::io::Error| Loss::Unreadable(e.to_string().into());
        let backend = self.backend.within(STEP).map_err(unreadable)?;
        again(|| {
            let mut found = [0; HEADER];
            backend.read(&path, 0, &mut found)?;
            backend.read(&path, HEADER as u64, into)?;
            match found == header(name, into) {
                true => Ok(()),
                false => Err(Loss::Corrupted),
            }
        })
    }

    /// Reads one of whatever length, and checks it.
    pub fn read_whole(&self, name: &str) -> Result<Vec<u8>, Loss> {
        let backend = self.backend.within(STEP);
        let backend = backend.map_err(|e| Loss::Unreadable(e.to_string().into()))?;
        let (size, _) = again(|| backend.head(&self.path(name), HEADER as u64))?;
        let len = size.checked_sub(HEADER as u64).ok_or(Loss::Truncated)?;
        let len = usize::try_from(len).map_err(|_| Loss::Corrupted)?;
        let mut bytes = vec![0; len];
        self.read(name, &mut bytes)?;
        Ok(bytes)
    }

    /// The names of all.
    pub fn list(&self) -> Result<Vec<String>, String> {
        let backend = self.backend.within(STEP).map_err(|e| e.to_string())?;
        backend.list(&self.prefix).map_err(|failed| failed.why)
    }

    /// Deletes one; it may be gone already.
    pub fn delete(&self, name: &str) -> Result<(), String> {
        let backend = self.backend.within(STEP).map_err(|e| e.to_string())?;
        backend
            .delete(&self.path(name))
            .map_err(|failed| failed.why)
    }
}

/// Tries again what may work the next time.
fn again<T>(mut read: impl FnMut() -> Result<T, Loss>) -> Result<T, Loss> {
    let mut tries = 0;
    loop {
        tries += 1;
        match read() {
            Err(Loss::Unreadable(_)) if tries < TRIES => {
                std::thread::sleep(Duration::from_millis(5 << (2 * tries)));
            }
            end => return end,
        }
    }
}

/// What stands before these bytes under this name.
fn header(name: &str, bytes: &[u8]) -> [u8; HEADER] {
    let sum = xxhash_rust::xxh3::xxh3_64;
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    let fields = [sum(name.as_bytes()), bytes.len() as u64, sum(bytes)];
    for (i, field) in fields.into_iter().enumerate() {
        header[8 * (i + 1)..][..8].copy_from_slice(&field.to_le_bytes());
    }
    let own = sum(&header[..HEADER - 8]);
    header[HEADER - 8..].copy_from_slice(&own.to_le_bytes());
    header
}
