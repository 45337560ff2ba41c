//! The disk, or whatever stands for it, behind the `object_store` crate.
//!
//! Every operation blocks the caller until it is done. On a local disk the work is done right on the
//! calling thread, or beside it if that thread belongs to somebody's tokio runtime; for a store
//! reached by network there is a small runtime that starts with it. Invariant: what
//! [`read`](Disk::read) accepts is what [`write`](Disk::write) was given; a segment is never begun that by the
//! disk's own account cannot end. Left out: which objects, and when.

use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, PutPayload,
};
use parking_lot::Mutex;

use super::super::stored::Moving;
use super::folder::{self, Folder};
use super::format::{HEADER, check, checksum, header};
use super::{Failed, SpillTo};
use crate::base::Loss;

/// Larger segments are written in parts of this size.
const PART: usize = 16 << 20;
/// Read in one piece from what is not a local file.
const PIECE: usize = 8 << 20;
/// Objects up to this size are copied together.
const GATHER: usize = 64 << 10;
/// How often something is tried that may work the next time.
const TRIES: u32 = 3;

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
    store: Arc<dyn ObjectStore>,
    prefix: String,
    folder: Option<Folder>,
    runtime: Option<tokio::runtime::Runtime>,
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
                let store = LocalFileSystem::new_with_prefix(folder.path())
                    .map_err(|e| Failed::hard(e.to_string()))?;
                Ok(Ready {
                    store: Arc::new(store),
                    prefix: String::new(),
                    folder: Some(folder),
                    runtime: None,
                })
            }
            To::Url(text) => {
                let bad = |e: &dyn std::fmt::Display| Failed::hard(format!("{text}: {e}"));
                let url = url::Url::parse(text).map_err(|e| bad(&e))?;
                let (store, path) =
                    object_store::parse_url_opts(&url, std::env::vars()).map_err(|e| bad(&e))?;
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("mobula-spill-io")
                    .enable_all()
                    .build()
                    .map_err(|e| bad(&e))?;
                let unique = format!("{}-{}", std::process::id(), nanos());
                Ok(Ready {
                    store: Arc::from(store),
                    prefix: format!("{path}/mobula-spill-{unique}/"),
                    folder: None,
                    runtime: Some(runtime),
                })
            }
            #[cfg(test)]
            To::Given(store) => Ok(Ready {
                store: Arc::clone(store),
                prefix: String::new(),
                folder: None,
                runtime: None,
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
        let mut tries = 0;
        loop {
            tries += 1;
            let written = ready.run(ready.put(&path, &pieces, own, each));
            let e = match written {
                Ok(true) => return Ok(spots),
                Ok(false) => return Err(Failed::soft("the store is shutting down".into())),
                Err(e) => e,
            };
            let failed = failure(&e);
            if failed.hard || tries == TRIES {
                // What was written of it is of no use.
                let _ = ready.run(ready.store.delete(&path));
                return Err(failed);
            }
            std::thread::sleep(Duration::from_millis(10 << (2 * tries)));
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
            let read = ready
                .get(&path, spot.at, &mut found)
                .and_then(|()| ready.get(&path, spot.at + HEADER as u64, into));
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
            let _ = ready.run(ready.store.delete(&ready.path(segment)));
        }
    }

    /// Gives the folder back, once nothing is in it any more.
    pub fn close(&self) {
        self.ready.lock().take();
    }
}

impl Ready {
    fn path(&self, segment: u64) -> Path {
        Path::from(format!("{}{segment}.seg", self.prefix))
    }

    /// Runs to its end on this thread.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let _entered = self.runtime.as_ref().map(|r| r.enter());
        // Inside somebody's task the budget of that task must not starve this one.
        block_on(tokio::task::unconstrained(future))
    }

    /// Whether all of it was written, rather than given up.
    async fn put(
        &self,
        path: &Path,
        pieces: &[Bytes],
        own: bool,
        each: &dyn Fn() -> bool,
    ) -> object_store::Result<bool> {
        let payload = |part: Vec<Bytes>| -> PutPayload {
            let copied = |b: Bytes| if own { Bytes::copy_from_slice(&b) } else { b };
            part.into_iter().map(copied).collect()
        };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        if bytes <= PART {
            self.store.put(path, payload(pieces.to_vec())).await?;
            each();
            return Ok(true);
        }
        let mut upload = self.store.put_multipart(path).await?;
        for part in parts(pieces) {
            let part = payload(part);
            if let Err(e) = upload.put_part(part).await {
                let _ = upload.abort().await;
                return Err(e);
            }
            if !each() {
                let _ = upload.abort().await;
                return Ok(false);
            }
        }
        match upload.complete().await {
            Ok(_) => Ok(true),
            Err(e) => {
                let _ = upload.abort().await;
                Err(e)
            }
        }
    }

    fn get(&self, path: &Path, at: u64, into: &mut [u8]) -> Result<(), Loss> {
        let mut done = 0;
        while done < into.len() {
            let (from, end) = (at + done as u64, (done + PIECE).min(into.len()));
            let options =
                GetOptions::default().with_range(Some(GetRange::Bounded(from..at + end as u64)));
            let got = self.run(self.store.get_opts(path, options));
            let piece = got.map_err(|e| loss(&e))?;
            // A local file is read straight to where the bytes belong, all of them.
            if let GetResultPayload::File(file, _) = &piece.payload {
                return read_exact(file, &mut into[done..], from);
            }
            let bytes = self.run(piece.bytes()).map_err(|e| loss(&e))?;
            if bytes.len() != end - done {
                return Err(Loss::Truncated);
            }
            into[done..end].copy_from_slice(&bytes);
            done = end;
        }
        Ok(())
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

fn read_exact(file: &File, into: &mut [u8], from: u64) -> Result<(), Loss> {
    file.read_exact_at(into, from).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Loss::Truncated,
        _ => Loss::Unreadable(e.to_string().into()),
    })
}

/// The pieces in parts of [`PART`] bytes, the last one shorter.
fn parts(pieces: &[Bytes]) -> Vec<Vec<Bytes>> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), PART);
    for piece in pieces {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let now = rest.split_to(rest.len().min(room));
            room -= now.len();
            part.push(now);
            if room == 0 {
                parts.push(std::mem::take(&mut part));
                room = PART;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// What the system said, if it was the system.
fn os_error(e: &object_store::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = e.source();
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = e.source();
    }
    None
}

fn failure(e: &object_store::Error) -> Failed {
    let kind = os_error(e).map(io::Error::kind);
    let hard = matches!(
        kind,
        Some(
            io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotFound
        )
    ) || matches!(
        e,
        object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. }
            | object_store::Error::NotFound { .. }
    );
    Failed {
        why: os_error(e).map_or_else(|| e.to_string(), |io| format!("{io} ({e})")),
        hard,
    }
}

fn loss(e: &object_store::Error) -> Loss {
    match e {
        object_store::Error::NotFound { .. } => Loss::Deleted,
        _ if format!("{e:?}").contains("InvalidRange") => Loss::Truncated,
        _ => Loss::Unreadable(failure(e).why.into()),
    }
}

fn nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos())
}

/// Polls a future on this thread until it is ready.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(out) => return out,
            Poll::Pending => std::thread::park(),
        }
    }
}
