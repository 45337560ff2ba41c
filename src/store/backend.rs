//! Something that the `object_store` crate reaches, for threads that wait: a folder, or a store behind a network.
//!
//! Every operation blocks the caller until it is done. On a local disk without a bound on its time the work is done right on the
//! calling thread, or beside it if that thread belongs to somebody's tokio runtime; else a small runtime does it, one for
//! all backends of the process. Invariant: an operation of a backend with a bound ends within that, for each part of what it carries.
//! Left out: what is written, and under which names.

use std::error::Error as _;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResultPayload, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    PutPayload,
};
use parking_lot::Mutex;

use super::failed::Failed;
use crate::base::Loss;

/// Larger things are written in parts of this size.
const PART: usize = 16 << 20;
/// Read in one piece from what is not a local file.
const PIECE: usize = 8 << 20;
/// How often something is tried that may work the next time.
pub const TRIES: u32 = 3;

/// See the file. Clones are the same store.
#[derive(Clone)]
pub struct Backend {
    store: Arc<dyn ObjectStore>,
    runtime: Option<Arc<Workers>>,
    longest: Option<Duration>,
}

/// The runtime.
struct Workers(Option<tokio::runtime::Runtime>);

impl Workers {
    /// Those of all backends, while there are any.
    fn shared() -> io::Result<Arc<Workers>> {
        static SHARED: Mutex<Weak<Workers>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        if let Some(workers) = shared.upgrade() {
            return Ok(workers);
        }
        let workers = Arc::new(Workers::start()?);
        *shared = Arc::downgrade(&workers);
        Ok(workers)
    }

    fn start() -> io::Result<Workers> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).enable_all();
        Ok(Workers(Some(
            builder.thread_name("mobula-store-io").build()?,
        )))
    }

    fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Runtime::enter)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Not to be waited for: a step that was given up may still hang.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Backend {
    /// What somebody made, without a bound.
    pub fn of(store: Arc<dyn ObjectStore>) -> Backend {
        Backend {
            store,
            runtime: None,
            longest: None,
        }
    }

    /// A folder that is there, without a bound.
    pub fn folder(folder: &FsPath) -> Result<Backend, Failed> {
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(|e| Failed::hard(e.to_string()))?;
        Ok(Backend::of(Arc::new(store)))
    }

    /// What the URL names, and the path in it. Asks nothing of it yet.
    pub fn url(text: &str) -> Result<(Backend, Path), Failed> {
        let bad = |e: &dyn std::fmt::Display| Failed::hard(format!("{text}: {e}"));
        let url = url::Url::parse(text).map_err(|e| bad(&e))?;
        // Settings are text: what is none is none of them.
        let text =
            |(k, v): (OsString, OsString)| Some((k.into_string().ok()?, v.into_string().ok()?));
        let settings = std::env::vars_os().filter_map(text);
        let (store, path) = object_store::parse_url_opts(&url, settings).map_err(|e| bad(&e))?;
        let backend = Backend {
            runtime: Some(Workers::shared().map_err(|e| bad(&e))?),
            ..Backend::of(Arc::from(store))
        };
        Ok((backend, path))
    }

    /// The same, but what is written outlives this process, and the loss of power if it is to a folder, which is said too.
    pub fn lasting(text: &str) -> Result<(Backend, Path, Option<PathBuf>), Failed> {
        let bad = |e: &dyn std::fmt::Display| Failed::hard(format!("{text}: {e}"));
        let url = url::Url::parse(text).map_err(|e| bad(&e))?;
        let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|e| bad(&e))?;
        match scheme {
            ObjectStoreScheme::Memory => Err(bad(
                &"that is this process's memory and ends with it: name a folder or a bucket",
            )),
            ObjectStoreScheme::Local => {
                let folder = url.to_file_path();
                let folder = folder.map_err(|()| bad(&"it is no folder's path"))?;
                let backend = Backend {
                    runtime: Some(Workers::shared().map_err(|e| bad(&e))?),
                    ..Backend::of(Arc::new(LocalFileSystem::new().with_fsync(true)))
                };
                Ok((backend, path, Some(folder)))
            }
            _ => Backend::url(text).map(|(backend, path)| (backend, path, None)),
        }
    }

    /// What it is, settings included.
    #[cfg(test)]
    pub fn told(&self) -> String {
        format!("{:?}", self.store)
    }

    /// The same, each step of which is to end within so long.
    pub fn within(&self, longest: Duration) -> io::Result<Backend> {
        let mut bounded = self.clone();
        if bounded.runtime.is_none() {
            bounded.runtime = Some(Workers::shared()?);
        }
        bounded.longest = Some(longest);
        Ok(bounded)
    }

    /// Runs to its end on this thread.
    fn run<T>(
        &self,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let _entered = self.runtime.as_ref().and_then(|r| r.enter());
        // Inside somebody's task the budget of that task must not starve this one.
        let Some(longest) = self.longest else {
            return block_on(tokio::task::unconstrained(future));
        };
        let bounded = tokio::time::timeout(longest, future);
        block_on(tokio::task::unconstrained(bounded)).unwrap_or_else(|_| {
            let why = format!("it did not answer within {longest:?}");
            let source = Box::new(io::Error::new(io::ErrorKind::TimedOut, why));
            let store = "store";
            Err(object_store::Error::Generic { store, source })
        })
    }

    /// Makes a folder and all above it, so that it outlives the loss of power.
    pub fn make_folder(&self, folder: PathBuf) -> Result<(), Failed> {
        self.beside(move || {
            let missing = |f: &&FsPath| !f.is_dir();
            let new: Vec<_> = folder.ancestors().take_while(missing).collect();
            std::fs::create_dir_all(&folder)?;
            let mut parents = new.iter().filter_map(|f| f.parent());
            parents.try_for_each(|parent| File::open(parent)?.sync_all())
        })
    }

    /// Whether a folder is there.
    pub fn has_folder(&self, folder: PathBuf) -> Result<bool, Failed> {
        self.beside(move || match std::fs::metadata(folder) {
            Ok(found) => Ok(found.is_dir()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        })
    }

    /// Does what may hang on a thread that may.
    fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Failed> {
        let done = self.run(async {
            let done = tokio::task::spawn_blocking(work).await;
            let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
            done.map_err(|e| object_store::Error::Generic {
                store: "folder",
                source: Box::new(e),
            })
        });
        done.map_err(|e| failure(&e))
    }

    /// Writes these pieces as one, which is there whole or not at all: what was there under this name stays until then. What failed
    /// without an answer may come to be there yet, or be there. `copies`: what is sent may be looked at after this failed, so it
    /// is a copy. `each` is called after every part of the work and says whether to go on; what it stops is `false`.
    pub fn write(
        &self,
        path: &Path,
        pieces: &[Bytes],
        copies: bool,
        each: &dyn Fn() -> bool,
    ) -> Result<bool, Failed> {
        let mut tries = 0;
        loop {
            tries += 1;
            let e = match self.put(path, pieces, copies, each) {
                Ok(done) => return Ok(done),
                Err(e) => e,
            };
            let failed = failure(&e);
            if failed.hard || tries == TRIES || !each() {
                return Err(failed);
            }
            std::thread::sleep(Duration::from_millis(10 << (2 * tries)));
        }
    }

    fn put(
        &self,
        path: &Path,
        pieces: &[Bytes],
        copies: bool,
        each: &dyn Fn() -> bool,
    ) -> object_store::Result<bool> {
        let payload = |part: Vec<Bytes>| -> PutPayload {
            let copied = |b: Bytes| match copies {
                true => Bytes::copy_from_slice(&b),
                false => b,
            };
            part.into_iter().map(copied).collect()
        };
        let bytes: usize = pieces.iter().map(Bytes::len).sum();
        if bytes <= PART {
            self.run(self.store.put(path, payload(pieces.to_vec())))?;
            each();
            return Ok(true);
        }
        let mut upload = self.run(self.store.put_multipart(path))?;
        for part in parts(pieces) {
            let part = payload(part);
            if let Err(e) = self.run(upload.put_part(part)) {
                let _ = self.run(upload.abort());
                return Err(e);
            }
            if !each() {
                let _ = self.run(upload.abort());
                return Ok(false);
            }
        }
        match self.run(upload.complete()) {
            Ok(_) => Ok(true),
            Err(e) => {
                let _ = self.run(upload.abort());
                Err(e)
            }
        }
    }

    /// Reads as many bytes as there is room for, from there on.
    pub fn read(&self, path: &Path, at: u64, into: &mut [u8]) -> Result<(), Loss> {
        let mut done = 0;
        while done < into.len() {
            let (from, end) = (at + done as u64, (done + PIECE).min(into.len()));
            let options =
                GetOptions::default().with_range(Some(GetRange::Bounded(from..at + end as u64)));
            let got = self.run(self.store.get_opts(path, options));
            let piece = got.map_err(|e| loss(&e))?;
            // A local file is read straight to where the bytes belong, all of them; but not by who may not wait for ever.
            if let (GetResultPayload::File(file, _), None) = (&piece.payload, self.longest) {
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

    /// How much there is under this name, and the first bytes of it, up to so many.
    pub fn head(&self, path: &Path, most: u64) -> Result<(u64, Bytes), Loss> {
        let options = GetOptions::default().with_range(Some(GetRange::Bounded(0..most)));
        let got = self.run(self.store.get_opts(path, options));
        let got = got.map_err(|e| loss(&e))?;
        let size = got.meta.size;
        let bytes = self.run(got.bytes()).map_err(|e| loss(&e))?;
        Ok((size, bytes))
    }

    /// Deletes; what is not there is no error.
    pub fn delete(&self, path: &Path) -> Result<(), Failed> {
        match self.run(self.store.delete(path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failure(&e)),
        }
    }

    /// The names right under this one.
    pub fn list(&self, under: &Path) -> Result<Vec<String>, Failed> {
        let listed = self.run(self.store.list_with_delimiter(Some(under)));
        let listed = listed.map_err(|e| failure(&e))?;
        let names = listed.objects.iter().filter_map(|o| o.location.filename());
        Ok(names.map(str::to_owned).collect())
    }
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
                | io::ErrorKind::NotADirectory
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
