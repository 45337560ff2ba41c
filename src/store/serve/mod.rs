//! A store served to other processes over a Unix socket.
//!
//! `door` makes the socket; `driver` is the thread that carries bytes; `table` decides; `objects` and
//! `shelf` keep what is decided about; `helpers` wait for room and for the disk. Invariant: the metadata has one owner, the serving thread;
//! clients see the memory, never the books. Left out: the other side (`client`).

mod conn;
mod door;
mod driver;
mod helpers;
mod objects;
mod shelf;
mod table;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::{PATIENCE, SpillTo, Store, StoreOptions};
use crate::base::StoreError;
use crate::shm::{HugePages, Prefault};

/// How a store is served: made by [`Server::options`].
#[derive(Clone, Debug)]
#[must_use = "nothing is served before start"]
pub struct ServerOptions {
    capacity: Option<u64>,
    huge_pages: HugePages,
    spill: Option<PathBuf>,
    patience: Option<Duration>,
    users: Vec<u32>,
}

impl ServerOptions {
    /// Bytes the store may hold; 30 % of the machine's (or the container's) memory if not given.
    pub fn capacity(mut self, bytes: u64) -> ServerOptions {
        self.capacity = Some(bytes);
        self
    }

    /// Which pages to ask for; `true` asks for the best there are. [`ServedStats::pages`] says which
    /// they became, and why. With reserved pages an object of more than 1 MiB takes whole ones.
    ///
    /// [`ServedStats::pages`]: super::ServedStats::pages
    pub fn huge_pages(mut self, wanted: impl Into<HugePages>) -> ServerOptions {
        self.huge_pages = wanted.into();
        self
    }

    /// Moves the objects that nobody holds and that were used longest ago to this folder when memory
    /// is full, or to the object store at this URL; they come back when somebody gets them. Takes the
    /// feature `object-store`. Without this a full store is full.
    pub fn spill(mut self, to: impl Into<PathBuf>) -> ServerOptions {
        self.spill = Some(to.into());
        self
    }

    /// How long a creation waits for room while none comes about: 2 s if objects can move to disk,
    /// and else not at all. Those who wait get room in the order they came.
    pub fn patience(mut self, longest: Duration) -> ServerOptions {
        self.patience = Some(longest);
        self
    }

    /// Lets processes of this user connect, besides those of the server's own. Whoever may connect can
    /// read everything in the store, and could, by ignoring this crate's rules, write to it.
    pub fn allow_user(mut self, uid: u32) -> ServerOptions {
        self.users.push(uid);
        self
    }

    /// Raises this process's limit of open files as far as it may: each client takes two.
    pub fn many_clients(self) -> ServerOptions {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // Refused, there are fewer clients, and the next is told so.
        let _ = setrlimit(Resource::Nofile, limit);
        self
    }

    /// Starts to serve at `socket`, by one thread. Milliseconds; the memory is touched only as it is
    /// used.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if a server is there already; [`StoreError::Os`] if the socket or the
    /// memory cannot be had. The socket file of a server that is dead is replaced.
    pub fn start(self, socket: impl AsRef<Path>) -> Result<Server, StoreError> {
        let path = socket.as_ref();
        let os = |what: &str| {
            let what = what.to_owned();
            move |e: std::io::Error| StoreError::Os {
                what,
                source: Arc::new(e),
            }
        };
        let patience = match (self.patience, &self.spill) {
            (Some(patience), _) => patience,
            (None, Some(_)) => PATIENCE,
            (None, None) => Duration::ZERO,
        };
        let store = Store::open(StoreOptions {
            capacity: self.capacity,
            huge_pages: self.huge_pages,
            prefault: Prefault::default(),
            spill: match self.spill {
                Some(to) => SpillTo::To(to),
                None => SpillTo::Off,
            },
            patience,
            watch: None,
        })
        .map_err(os("mapping the store's memory"))?;
        let door = door::Door::open(path, !self.users.is_empty())?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| os("making an event")(e.into()))?);
        let mut users = self.users;
        users.push(rustix::process::geteuid().as_raw());
        let driver = driver::Driver::new(door, stop.clone(), store.clone(), users);
        let mut driver = driver.map_err(os("watching the socket"))?;
        let thread = std::thread::Builder::new()
            .name("mobula-store".into())
            .spawn(move || {
                let ended = driver.run();
                driver.close(match &ended {
                    Ok(()) => "the server was stopped",
                    Err(_) => "the server failed to wait for events",
                });
                ended
            });
        Ok(Server {
            path: path.to_owned(),
            capacity: store.stats().capacity,
            pages: store.pages().to_string(),
            stop,
            thread: Some(thread.map_err(os("starting the store's thread"))?),
        })
    }
}

/// A store that this process serves to others, until it is dropped.
///
/// ```
/// use mobula::store::{Client, ObjectId, Server};
///
/// let socket = std::env::temp_dir().join(format!("mobula-doc-{}", std::process::id()));
/// let server = Server::options().capacity(1 << 20).start(&socket)?;
///
/// let client = Client::connect(&socket)?; // in any process of the same user
/// let id = ObjectId::from_name("greeting");
/// client.put_bytes(id, b"hello")?;
/// assert_eq!(&*client.get(id, None)?, b"hello");
///
/// server.shutdown();
/// # Ok::<(), mobula::store::StoreError>(())
/// ```
pub struct Server {
    path: PathBuf,
    capacity: u64,
    pages: String,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    /// How to serve; [`ServerOptions::start`] starts.
    pub fn options() -> ServerOptions {
        ServerOptions {
            capacity: None,
            huge_pages: HugePages::default(),
            spill: None,
            patience: None,
            users: Vec::new(),
        }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes the store may hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What pages its memory lies on, and why.
    pub fn pages(&self) -> &str {
        &self.pages
    }

    /// Stops serving: every client's calls fail from here on, and the socket is removed. What clients
    /// have mapped they keep and can read. Waits for the thread: about a millisecond.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A failure was told to the clients, and a panic was printed.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Server({}, {} bytes)",
            self.path.display(),
            self.capacity
        )
    }
}
