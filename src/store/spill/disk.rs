//! The disk, or whatever stands for it: where segments of objects go, and come back from.
//!
//! Every operation blocks the caller until it is done. Invariant: what [`read`](Disk::read) accepts is what [`write`](Disk::write) was
//! given; a segment is never begun that by the disk's own account cannot end. Left out: which objects, and when, and how
//! bytes go ([`Backend`]).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
#[cfg(test)]
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;

use super::super::backend::{Backend, TRIES};
use super::super::failed::Failed;
use super::super::stored::Moving;
use super::SpillTo;
use super::folder::{self, Folder};
use super::format::{HEADER, check, checksum, header};
use crate::base::Loss;

/// Objects up to this size are copied together.
const GATHER: usize = 64 << 10;

/// Where objects go.
pub struct Disk {
    to: To,
    ready: Mutex<Option<Arc<Ready>>>,
}

enum To {
    Folder(PathBuf),
    Url(String),
    #[cfg(test)]
    Given(Arc<dyn ObjectStore>),
}

/// The disk in use.
struct Ready {
    backend: Backend,
    prefix: Path,
    folder: Option<Folder>,
}

/// Where one object is.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Which segment.
    pub segment: u64,
    /// Where its header begins.
    pub at: u64,
    /// The checksum of its bytes.
    pub sum: u64,
}

impl Disk {
    /// Finds out where to spill; touches nothing yet but what dead processes left.
    pub fn find(to: &SpillTo) -> Result<Disk, Arc<str>> {
        let to = match to {
            SpillTo::Off => return Err("it was turned off with Config::no_spill".into()),
            SpillTo::Usual => To::Folder(folder::usual()?),
            SpillTo::To(place) => match place.to_str() {
                Some(url) if url.contains("://") => To::Url(url.to_owned()),
                _ => To::Folder(place.clone()),
            },
            #[cfg(test)]
            SpillTo::Given(store) => To::Given(Arc::clone(store)),
        };
        if let To::Folder(parent) = &to {
            let dead = folder::dead(parent);
            if !dead.is_empty() {
                // Best effort: the next start finds what this one leaves.
                let _ = std::thread::Builder::new()
                    .name("mobula-sweep".into())
                    .spawn(move || dead.into_iter().for_each(folder::Dead::remove));
            }
        }
        Ok(Disk {
            to,
            ready: Mutex::new(None),
        })
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        if let Some(ready) = &*self.ready.lock()
            && let Some(folder) = &ready.folder
        {
            return folder.path().display().to_string();
        }
        match &self.to {
            To::Folder(parent) => parent.display().to_string(),
            To::Url(url) => url.clone(),
            #[cfg(test)]
            To::Given(store) => store.to_string(),
        }
    }

    fn ready(&self) -> Result<Arc<Ready>, Failed> {
        let mut ready = self.ready.lock();
        if let Some(ready) = &*ready {
            return Ok(Arc::clone(ready));
        }
        let made = Arc::new(self.make()?);
        *ready = Some(Arc::clone(&made));
        Ok(made)
    }

    fn make(&self) -> Result<Ready, Failed> {
        match &self.to {
            To::Folder(parent) => {
                let folder = Folder::create(parent)
                    .map_err(|e| Failed::hard(format!("{}: {e}", parent.display())))?;
                Ok(Ready {
                    backend: Backend::folder(folder.path())?,
                    prefix: Path::default(),
                    folder: Some(folder),
                })
            }
            To::Url(text) => {
                let (backend, path) = Backend::url(text)?;
                let unique = format!("{}-{}", std::process::id(), nanos());
                Ok(Ready {
                    backend,
                    prefix: path.join(format!("mobula-spill-{unique}")),
                    folder: None,
                })
            }
            #[cfg(test)]
            To::Given(store) => Ok(Ready {
                backend: Backend::of(Arc::clone(store)),
                prefix: Path::default(),
                folder: None,
            }),
        }
    }

    /// Writes a segment of these objects, one after the other; returns where each is. `each` is
    /// called after every part of the work and says whether to go on.
    pub fn write(
        &self,
        segment: u64,
        objects: Vec<Moving>,
        each: &dyn Fn() -> bool,
    ) -> Result<Vec<Spot>, Failed> {
        let ready = self.ready()?;
        let (spots, pieces) = pieces(segment, objects, each);
        // Who sends over a network may look at the bytes for a moment after it has failed.
        let own = ready.folder.is_none();
        let bytes: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        if let Some(folder) = &ready.folder {
            let left = folder::left(folder.path()).map_err(|e| Failed::hard(e.to_string()))?;
            if left < bytes {
                let at = folder.path().display();
                return Err(Failed::soft(format!(
                    "{at} has {left} bytes to spare, {bytes} are needed"
                )));
            }
        }
        let path = ready.path(segment);
        match ready.backend.write(&path, &pieces, own, each) {
            Ok(true) => Ok(spots),
            Ok(false) => Err(Failed::soft("the store is shutting down".into())),
            Err(failed) => {
                // The segment's name is nobody else's: what may be there of it is of no use.
                let _ = ready.backend.delete(&path);
                Err(failed)
            }
        }
    }

    /// Reads an object back, into as many bytes as it has, and checks it.
    pub fn read(&self, spot: Spot, into: &mut [u8]) -> Result<(), Loss> {
        let ready = self
            .ready()
            .map_err(|e| Loss::Unreadable(e.why.as_str().into()))?;
        let path = ready.path(spot.segment);
        let expected = header(spot.segment, spot.at, into.len() as u64, spot.sum);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut found = [0; HEADER];
            let backend = &ready.backend;
            let read = backend
                .read(&path, spot.at, &mut found)
                .and_then(|()| backend.read(&path, spot.at + HEADER as u64, into));
            match read {
                Ok(()) => return check(&found, &expected, spot.sum, into),
                Err(Loss::Unreadable(_)) if tries < TRIES => {
                    std::thread::sleep(Duration::from_millis(5 << (2 * tries)));
                }
                Err(loss) => return Err(loss),
            }
        }
    }

    /// Deletes a segment; what cannot be deleted now goes with the folder.
    pub fn delete(&self, segment: u64) {
        if let Ok(ready) = self.ready() {
            let _ = ready.backend.delete(&ready.path(segment));
        }
    }

    /// Gives the folder back, once nothing is in it any more.
    pub fn close(&self) {
        self.ready.lock().take();
    }
}

impl Ready {
    fn path(&self, segment: u64) -> Path {
        self.prefix.clone().join(format!("{segment}.seg"))
    }
}

/// Headers and bytes. Large objects are written from where they lie; small ones are gathered, since every piece
/// is a call to the system.
fn pieces(segment: u64, objects: Vec<Moving>, each: &dyn Fn() -> bool) -> (Vec<Spot>, Vec<Bytes>) {
    let (mut spots, mut pieces, mut gathered) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    for object in objects {
        let (len, sum) = (object.as_ref().len(), checksum(object.as_ref()));
        spots.push(Spot { segment, at, sum });
        gathered.extend_from_slice(&header(segment, at, len as u64, sum));
        at += (HEADER + len) as u64;
        if len <= GATHER {
            gathered.extend_from_slice(object.as_ref());
        } else {
            pieces.push(Bytes::from(std::mem::take(&mut gathered)));
            pieces.push(Bytes::from_owner(object));
            each();
        }
    }
    if !gathered.is_empty() {
        pieces.push(Bytes::from(gathered));
    }
    (spots, pieces)
}

fn nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos())
}
