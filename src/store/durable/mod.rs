//! Copies that outlive this process: of objects, at a URL that others reach too.
//!
//! A copy is written and read by whoever waits for it; deleted by threads of low priority. What this
//! process has written is its own until it is forgotten, or left to others; at the end all that is still its own is deleted.
//!
//! Room map: [`copies`] those at one place; [`sweep`] the threads that delete. Invariant: a copy of this process's own is deleted when it is forgotten, or at the end, if
//! its place can be reached then; what was left is not. Left out: what is copied, and who needs it.

#[cfg(feature = "object-store")]
mod copies;
#[cfg(not(feature = "object-store"))]
mod no_copies;
mod sweep;
#[cfg(all(test, feature = "object-store", not(miri)))]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::{CopyLost, Error, Loss, NotDurable, NotWritten};
#[cfg(feature = "object-store")]
use copies::Copies;
#[cfg(not(feature = "object-store"))]
use no_copies::Copies;
use sweep::Sweep;

/// How long the end waits for copies to be deleted.
const END: Duration = Duration::from_secs(5);
/// How many places are kept open: another one closes the one that was used longest ago.
const OPEN: usize = 64;

/// See the module.
pub(crate) struct Durables {
    /// Where they go unless told otherwise.
    usual: OnceLock<Arc<str>>,
    /// Tells this process's copies from all others.
    space: OnceLock<u64>,
    opened: Mutex<Opened>,
    books: Mutex<Books>,
    sweep: Sweep,
}

/// The places in use, and when each was used, counted in uses.
#[derive(Default)]
struct Opened {
    places: HashMap<Arc<str>, (Arc<Copies>, u64)>,
    uses: u64,
}

#[derive(Default)]
struct Books {
    /// Names and places of this process's own.
    ours: HashMap<Arc<str>, Arc<str>>,
    ended: bool,
}

/// A place, as a URL: a folder becomes one.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn place(dir_or_url: &Path) -> Result<Arc<str>, String> {
    let text = dir_or_url.to_str().filter(|text| text.contains("://"));
    #[cfg(feature = "object-store")]
    let made = match text {
        Some(url) => Ok(url.to_owned()),
        None => std::path::absolute(dir_or_url)
            .map_err(|e| format!("{}: {e}", dir_or_url.display()))
            .and_then(|folder| {
                url::Url::from_directory_path(&folder)
                    .map(String::from)
                    .map_err(|()| format!("{} is no folder's path", folder.display()))
            }),
    };
    #[cfg(not(feature = "object-store"))]
    let made = Ok(text.map_or_else(|| dir_or_url.display().to_string(), str::to_owned));
    made.map(Arc::from)
}

impl Durables {
    /// None yet.
    pub fn new() -> Durables {
        Durables {
            usual: OnceLock::new(),
            space: OnceLock::new(),
            opened: Mutex::default(),
            books: Mutex::default(),
            sweep: Sweep::default(),
        }
    }

    /// Where copies go unless told otherwise; a folder is made. Blocks while that does not answer, half a minute at most.
    ///
    /// # Errors
    /// That copies cannot be there.
    pub fn set_usual(&self, dir_or_url: &Path) -> Result<(), String> {
        let place = place(dir_or_url)?;
        self.open(&place)?.make()?;
        let _ = self.usual.set(place);
        Ok(())
    }

    /// Where copies go unless told otherwise, if that was said.
    pub fn usual(&self) -> Option<&Arc<str>> {
        self.usual.get()
    }

    /// This process is known to others by this number, before it has copies.
    pub fn set_space(&self, number: u64) {
        let _ = self.space.set(number);
    }

    /// What the copy of an object of this process is called.
    pub fn own(&self, number: u64) -> Arc<str> {
        name(*self.space.get_or_init(random), number)
    }

    fn open(&self, place: &Arc<str>) -> Result<Arc<Copies>, String> {
        let mut opened = self.opened.lock();
        opened.uses += 1;
        let now = opened.uses;
        if let Some((copies, used)) = opened.places.get_mut(place) {
            *used = now;
            return Ok(Arc::clone(copies));
        }
        let copies = Arc::new(Copies::open(place)?);
        if opened.places.len() >= OPEN {
            let others = opened.places.iter();
            let others = others.filter(|(place, _)| Some(*place) != self.usual.get());
            let oldest = others.min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(place, _)| Arc::clone(place)) {
                opened.places.remove(&oldest);
            }
        }
        let open = (Arc::clone(&copies), now);
        opened.places.insert(Arc::clone(place), open);
        Ok(copies)
    }

    /// Writes a copy of this process's own, and says where. Blocks, about as long as this at most.
    ///
    /// # Errors
    /// [`Error::NotDurable`].
    pub fn write<B: AsRef<[u8]> + Send + 'static>(
        &self,
        at: Option<&Path>,
        name: &Arc<str>,
        bytes: B,
        timeout: Duration,
    ) -> Result<Arc<str>, Error> {
        let len = bytes.as_ref().len() as u64;
        let mut at = at.map(place).transpose();
        let refused = |why: String| NotWritten::Refused(why.into());
        let written = match &mut at {
            Ok(at) => {
                if at.is_none() {
                    *at = self.usual.get().cloned();
                }
                self.write_at(at.as_ref(), name, bytes, timeout)
            }
            Err(why) => Err(refused(std::mem::take(why))),
        };
        let place = at.ok().flatten();
        match (written, place) {
            (Ok(()), Some(place)) => Ok(place),
            (written, place) => Err(Error::NotDurable(Arc::new(NotDurable {
                copy: Arc::clone(name),
                bytes: len,
                place,
                why: written.err().unwrap_or(NotWritten::NoPlace),
            }))),
        }
    }

    fn write_at<B: AsRef<[u8]> + Send + 'static>(
        &self,
        place: Option<&Arc<str>>,
        name: &Arc<str>,
        bytes: B,
        timeout: Duration,
    ) -> Result<(), NotWritten> {
        let refused = |why: String| NotWritten::Refused(why.into());
        let place = place.ok_or(NotWritten::NoPlace)?;
        let copies = self.open(place).map_err(refused)?;
        {
            let mut books = self.books.lock();
            if books.ended {
                return Err(refused("the runtime was shut down".to_owned()));
            }
            // Before it is there: whatever happens, somebody deletes it.
            books.ours.insert(Arc::clone(name), Arc::clone(place));
        }
        let written = copies.write(name, bytes, timeout);
        if written.is_err() {
            // The name is of this process's own and new: what may be there of it is of no use.
            self.forget(name);
        } else if self.books.lock().ended {
            // The end may have looked for it before it was there.
            let _ = copies.delete(name);
            return Err(refused("the runtime was shut down".to_owned()));
        }
        written
    }

    /// Reads a copy, of whomever, into as many bytes as it has. Blocks.
    ///
    /// # Errors
    /// [`Error::CopyLost`].
    pub fn read(&self, place: &Arc<str>, name: &str, into: &mut [u8]) -> Result<(), Error> {
        let copies = self.open(place);
        let read = copies
            .map_err(|why| Loss::Unreadable(why.into()))
            .and_then(|copies| copies.read(name, into));
        read.map_err(|why| {
            Error::CopyLost(Arc::new(CopyLost {
                copy: name.into(),
                bytes: into.len() as u64,
                place: Arc::clone(place),
                why,
            }))
        })
    }

    /// Writes what is nobody's own, at the usual place: who needs it no more deletes it. Blocks, about as long as this at most.
    ///
    /// # Errors
    /// [`Error::NotDurable`].
    pub fn save<B: AsRef<[u8]> + Send + 'static>(
        &self,
        name: &Arc<str>,
        bytes: B,
        timeout: Duration,
    ) -> Result<(), Error> {
        let (len, place) = (bytes.as_ref().len() as u64, self.usual.get());
        let written = place.ok_or(NotWritten::NoPlace).and_then(|place| {
            let copies = self.open(place);
            let copies = copies.map_err(|why| NotWritten::Refused(why.into()))?;
            copies.write(name, bytes, timeout)
        });
        written.map_err(|why| {
            Error::NotDurable(Arc::new(NotDurable {
                copy: Arc::clone(name),
                bytes: len,
                place: place.cloned(),
                why,
            }))
        })
    }

    /// The names of all that is at the usual place; none if there is no such place. Blocks.
    ///
    /// # Errors
    /// What the place said.
    pub fn saved(&self) -> Result<Vec<String>, String> {
        match self.usual.get() {
            Some(place) => self.open(place)?.list(),
            None => Ok(Vec::new()),
        }
    }

    /// What is there under this name. Blocks.
    ///
    /// # Errors
    /// [`Error::CopyLost`].
    pub fn saved_bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let place = self.usual.get().cloned().unwrap_or_else(|| "".into());
        let copies = self.open(&place);
        let read = copies
            .map_err(|why| Loss::Unreadable(why.into()))
            .and_then(|copies| copies.read_whole(name));
        read.map_err(|why| {
            Error::CopyLost(Arc::new(CopyLost {
                copy: name.into(),
                bytes: 0,
                place,
                why,
            }))
        })
    }

    /// Deletes what is there under this name, soon.
    pub fn unsave(&self, name: Arc<str>) {
        if let Some(place) = self.usual.get() {
            self.delete(place, name);
        }
    }

    /// Nobody needs a copy of this process's own any more.
    pub fn forget(&self, name: &str) {
        let place = self.books.lock().ours.remove(name);
        if let Some(place) = place {
            self.delete(&place, name.into());
        }
    }

    /// Others need it, and delete it.
    pub fn leave(&self, name: &str) {
        self.books.lock().ours.remove(name);
    }

    /// Deletes a copy, soon: of whomever, whether it is there or not.
    pub fn delete(&self, place: &Arc<str>, name: Arc<str>) {
        let Ok(copies) = self.open(place) else {
            return;
        };
        self.sweep.delete(place, copies, name);
    }

    /// Deletes all that is still this process's own, and waits for that a while.
    pub fn end(&self) {
        let ours = {
            let mut books = self.books.lock();
            books.ended = true;
            std::mem::take(&mut books.ours)
        };
        for (name, place) in ours {
            self.delete(&place, name);
        }
        self.sweep.end(END);
    }

    /// How many copies are this process's own.
    #[cfg(test)]
    fn own_copies(&self) -> usize {
        self.books.lock().ours.len()
    }
}

/// What the copy of an object is called, of whom it is and under which number there.
pub(crate) fn name(owner: u64, number: u64) -> Arc<str> {
    format!("put-{owner:016x}-{number:016x}").into()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_le_bytes(bytes),
        // Two starts at one moment on one machine differ in the process.
        _ => {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let nanos = since.map_or(0, |d| d.as_nanos() as u64);
            nanos ^ (u64::from(std::process::id()) << 40)
        }
    }
}
