//! What users import, and what the macros write against.
//!
//! Invariant: nothing here decides; it gives types to what the rooms below do. Left out: machinery.

mod actor_pool;
mod args;
#[cfg(feature = "cluster")]
mod cluster;
mod context;
#[cfg(feature = "dashboard")]
mod dashboard;
mod get;
mod group;
mod handle;
pub mod inspect;
#[cfg(all(feature = "attach", feature = "cluster"))]
#[doc(hidden)]
pub mod launch;
mod object_ref;
mod options;
pub mod private;
mod put;
#[cfg(feature = "async")]
mod queue;
#[cfg(feature = "dashboard")]
mod remote;
mod timeline;
#[cfg(feature = "tracing")]
mod tracing;
#[cfg(feature = "tracing-chrome")]
pub mod tracing_chrome;
mod view;
mod wait;

pub use actor_pool::ActorPool;
pub use args::Arg;
#[cfg(feature = "cluster")]
pub use cluster::{Leases, NetworkStats, NodeDeath, NodeInfo};
pub use context::{CallId, Cancel, call_id, cancel, check_cancelled, gpu_ids, is_cancelled};
pub use get::{Get, get, get_timeout};
pub use group::{Bundle, GroupHandle, GroupOptions, PlacementGroup};
pub use handle::Handle;
pub use object_ref::ObjectRef;
pub use options::{ActorOptions, TaskOptions, WhenFull};
pub use put::{PutOptions, Writing, create, put, put_archived, put_slice};
#[cfg(feature = "async")]
pub use queue::Queue;
pub use timeline::{Span, timeline};
#[cfg(feature = "tracing")]
pub use tracing::TimelineLayer;
pub use view::{View, view};
pub use wait::{Wait, secs, wait};

use std::sync::Arc;

use std::time::Duration;

use crate::base::{Error, Holder, Result};
use crate::exec::actor::ActorDeath;
use crate::node::{Config, Node};
use crate::shm::StorePages;

/// The running node: shuts down when dropped. See [`init`].
///
/// Dropping it stops taking calls, fails those that have not begun with [`Error::ShutDown`], waits for those that run (at
/// most [`Config::shutdown_timeout`]), and frees the store once the last reference to an object in it is gone.
#[derive(Debug)]
#[must_use = "mobula runs until this is dropped: let _mobula = mobula::init()?"]
pub struct Mobula {
    // Before the node, which it looks at.
    #[cfg(feature = "dashboard")]
    dashboard: Option<crate::dashboard::Server>,
    node: Node,
}

/// Starts a node in this process, with default settings.
///
/// Takes about a millisecond: some threads and an empty memory arena, which uses memory only as it is written.
///
/// With `MOBULA_ADDRESS=ADDR?TOKEN` in the environment, as `mobula run` has it, the program is brought to the machines of the
/// launchers there: `init` returns when those nodes have joined that could be started, and says on standard error how many
/// and why not others. With `MOBULA_LISTEN=ADDR:PORT` it makes a cluster, as [`Config::listen`] does.
///
/// # Errors
/// [`Error::AlreadyInitialized`] while one is up, [`Error::DuplicateName`] if two remote items of the program share a
/// name, [`Error::Os`] if the system grants no arena.
///
/// ```
/// use mobula::prelude::*;
///
/// #[remote]
/// fn square(x: u64) -> u64 { x * x }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(mobula::get(square::remote(4))?, 16);
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn init() -> Result<Mobula> {
    Config::new().init()
}

impl Config {
    /// Starts a node with these settings; see [`init`](crate::init()).
    ///
    /// # Errors
    /// As for [`init`](crate::init()), and [`Error::Config`] naming a setting that cannot be honoured.
    pub fn init(self) -> Result<Mobula> {
        #[cfg(feature = "dashboard")]
        let settings = self.dashboard.clone();
        let node = Node::start(self)?;
        Ok(Mobula {
            #[cfg(feature = "dashboard")]
            dashboard: dashboard::start(&settings, &node)?,
            node,
        })
    }
}

/// What the object store holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Bytes that objects may take together.
    pub capacity: u64,
    /// Bytes of living objects, as they were asked for.
    pub used: u64,
    /// How many objects live in the store; smaller ones live in their records.
    pub objects: u64,
    /// Bytes set aside for them, rounding included.
    pub reserved: u64,
    /// Bytes ever written: they are backed by memory and reused first.
    pub touched: u64,
    /// Offset up to which memory was faulted in ahead of that; 0 if none was.
    pub prefaulted: u64,
    /// Bytes of objects that stay in memory because a view, a running call or a writer uses them.
    pub pinned: u64,
    /// Bytes of living objects that are on disk.
    pub spilled: u64,
    /// How many objects those are.
    pub spilled_objects: u64,
    /// Bytes moved to disk since the start.
    pub moved_out: u64,
    /// Bytes brought back from disk since the start.
    pub moved_in: u64,
    /// How many wait for room.
    pub waiting: usize,
    /// The folder or URL that objects are moved to.
    pub spill_to: Option<String>,
    /// Why objects are not moved to disk now, if they are not.
    pub not_spilling: Option<Arc<str>>,
    /// Bytes of a page, as the kernel maps them; see [`Mobula::store_pages`].
    pub page_size: u64,
}

/// A worker process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its process id.
    pub pid: u32,
    /// The function that it runs, or the type and name of the actor that it holds; `None` if it is kept ready.
    pub runs: Option<Arc<str>>,
    /// Whether it holds an actor.
    pub actor: bool,
    /// For how long it has.
    pub running_for: Option<Duration>,
    /// Attempts of the call, or lives of the actor, before this one.
    pub restarts: u32,
    /// Bytes of memory of its own, object store not counted; `None` if it is ending.
    pub memory: Option<u64>,
    /// Bytes of memory that what it runs may take.
    pub memory_bound: Option<u64>,
}

impl From<crate::exec::isolate::Told> for WorkerInfo {
    fn from(t: crate::exec::isolate::Told) -> WorkerInfo {
        WorkerInfo {
            pid: t.pid,
            runs: t.runs,
            actor: t.actor,
            running_for: t.since,
            restarts: t.before,
            memory: t.memory,
            memory_bound: t.bound,
        }
    }
}

impl Mobula {
    /// What the object store holds now. Looks at every object.
    pub fn store(&self) -> StoreStats {
        let store = self.node.engine().store();
        let (s, spill) = (store.stats(), store.spill_stats());
        StoreStats {
            capacity: s.capacity,
            used: s.used,
            objects: s.objects,
            reserved: s.reserved,
            touched: s.frontier,
            prefaulted: s.prefaulted,
            pinned: store.pinned(),
            spilled: spill.bytes,
            spilled_objects: spill.objects,
            moved_out: spill.moved,
            moved_in: spill.restored,
            waiting: spill.waiting,
            spill_to: spill.place,
            not_spilling: spill.off,
            page_size: self.store_pages().size,
        }
    }

    /// What the object store's pages are, and why: it prints as a sentence.
    pub fn store_pages(&self) -> &StorePages {
        self.node.engine().store().pages()
    }

    /// Who fills the object store: the `n` biggest groups of objects, by where they were made. Looks at every object.
    pub fn holders(&self, n: usize) -> Vec<Holder> {
        self.node.engine().store().holders(n)
    }

    /// Where the `mobula` command attaches to this program, or why it cannot: see [`Config::attach`].
    #[cfg(feature = "attach")]
    pub fn attached_at(&self) -> std::result::Result<&std::path::Path, &str> {
        self.node.attached_at()
    }

    /// Where the dashboard is, for a browser on this machine; `None` without [`Config::dashboard`].
    #[cfg(feature = "dashboard")]
    pub fn dashboard_url(&self) -> Option<String> {
        self.dashboard.as_ref().map(crate::dashboard::Server::url)
    }

    /// Calls this at every death of an actor that nobody asked to end, from now on, until this node ends: of actors that run on this
    /// node, and of those elsewhere to which this node has handles. One that may restart is told of as `restarted` by the node that makes it again. Each listener has a
    /// thread of its own, on which it may block, as a supervisor does that starts another in its place; a panic in it ends that one call.
    ///
    /// ```
    /// # use mobula::prelude::*;
    /// #[remote]
    /// struct Fragile;
    ///
    /// #[remote]
    /// impl Fragile {
    ///     pub fn new() -> Self {
    ///         panic!("not today")
    ///     }
    ///
    ///     pub fn ping(&self) -> u32 {
    ///         1
    ///     }
    /// }
    ///
    /// let mobula = mobula::init()?;
    /// let (send, deaths) = std::sync::mpsc::channel();
    /// mobula.on_actor_death(move |death| send.send(death.cause).unwrap())?;
    /// let fragile = Fragile::remote();
    /// assert!(mobula::get(fragile.ping()).is_err());
    /// assert!(deaths.recv().unwrap().contains("not today"));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Os`] if no thread could be started.
    pub fn on_actor_death(&self, hear: impl FnMut(ActorDeath) + Send + 'static) -> Result<()> {
        let deaths = &self.node.engine().deaths;
        deaths.listen("mobula-mourns", hear).map_err(|e| Error::Os {
            what: "starting the thread that is told of deaths of actors",
            source: std::sync::Arc::new(e),
        })
    }

    /// The worker processes of this node, by process id: those that run an isolated call, those that hold an isolated
    /// actor, and those kept ready.
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let told = self.node.engine().worker_processes().into_iter();
        told.map(WorkerInfo::from).collect()
    }

    /// How many executor threads there are now: one per CPU, and one for each that blocks in a `get`.
    pub fn executors(&self) -> usize {
        self.node.engine().threads()
    }
}

/// Every remote function, method and actor linked into this program.
///
/// A crate that is a dependency but whose name is never mentioned is not linked by rustc, and so is not here:
/// `use that_crate as _;` links it.
pub fn registry() -> Vec<crate::exec::entry::Registered> {
    crate::exec::entry::registry()
}

/// The error of a call without a runtime, which may be the first thing a newcomer sees.
#[cold]
fn no_runtime<T>(e: Error) -> ObjectRef<T> {
    ObjectRef::failed(e)
}
