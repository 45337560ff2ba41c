//! This node among others: calls, objects and actors that cross between them.
//!
//! Room map: [`books`] what is kept; [`effects`] what follows from a change of it; [`cross`] references on their way out and in;
//! [`calls`], [`actors`], [`objects`], [`names`] what is carried; [`records`] what is kept of names; [`place`] which calls go
//! elsewhere, [`leasing`] into whose slots; [`peers`] the other nodes, [`members`] which there are, [`head`] the first of them; [`join`] how a node becomes one
//! of a cluster, [`authority`] who may let it in, [`drain`] how it leaves; [`groups`] placement groups; [`lineage`] lost results made again; [`replicas`] copies that were asked for, [`durable`] those outside of all nodes; [`recovery`] actors that
//! outlive their node.
//!
//! Decisions are `core`'s: who still needs an object, and where a call runs. This drives them with frames of the link.
//!
//! Invariant: what was accepted from another node is answered, unless one of the two dies; then whoever waited is told. Left
//! out: bytes on the network (`link`).

mod actors;
mod authority;
mod backlog;
mod beside;
mod books;
mod calls;
mod cross;
mod drain;
mod durable;
mod effects;
mod groups;
mod head;
mod join;
mod leasing;
mod lineage;
mod members;
mod names;
mod near;
mod notices;
mod objects;
mod peers;
mod place;
mod reads;
mod records;
mod recovery;
mod replicas;
mod serve;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::base::{Capacity, Demand, Error, NodeId, Units};
use crate::core::members::Members;
use crate::exec::actor::{ActorRef, Backups, HandleRef};
use crate::exec::entry::ActorEntry;
use crate::exec::far::{Elsewhere, Far, Proxies};
use crate::exec::notices::Notices;
use crate::exec::options::{Extra, Options};
use crate::exec::{Engine, Local, RawRef};
pub use crate::link::Stats as NetworkStats;
use crate::link::{JoinToken, Link, LinkError};
use crate::store::Durables;
pub use authority::authority;
pub(super) use authority::{on_record, shared, write_secret};
use books::Books;
use cross::lost;
use effects::Todo;
pub use groups::{Groups, alone};
pub(super) use join::reached_at;
pub use join::{Joining, NodeInfo};
pub use leasing::Leases;
pub use notices::NodeDeath;

/// The part of the store that lineages may take.
const LINEAGE: u64 = 4;

/// Work that may block, done by a thread of its own.
type Errand = Box<dyn FnOnce(&Local) + Send>;

/// See the module.
pub struct Cluster {
    me: NodeId,
    engine: Weak<Engine>,
    capacity: Capacity,
    labels: BTreeMap<String, String>,
    link: OnceLock<Arc<dyn Link>>,
    books: Mutex<Books>,
    proxies: Arc<Proxies>,
    durables: Arc<Durables>,
    errands: Mutex<Option<Sender<Errand>>>,
    membership: members::Membership,
    /// Members that may be dead.
    suspected: Mutex<HashSet<NodeId>>,
    /// Why this node is of the cluster no more.
    fenced: OnceLock<Arc<str>>,
    /// The records, if this node reaches them itself, and the thread that may wait for them.
    keeper: OnceLock<records::Keeper>,
    clerk: Mutex<Option<Sender<Errand>>>,
    head_addr: OnceLock<SocketAddr>,
    /// For how long this node goes on without a head, and since when it does.
    head_patience: Option<Duration>,
    /// See [`Joining::pace`].
    pace: u32,
    /// Nodes of one machine read each other's objects in memory.
    shares: bool,
    headless: Mutex<Option<Duration>>,
    /// The head that said goodbye.
    head_left: Mutex<Option<NodeId>>,
    /// The threads are to end.
    ended: AtomicBool,
    started: Instant,
    /// How long a node may be without a connection before it is taken for dead.
    patience: Duration,
    stopping: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Calls of ours that came to nothing, and a bell for whoever waits for nodes to come or go.
    refusals: Mutex<Vec<(SocketAddr, LinkError)>>,
    notices: Notices<NodeDeath>,
    /// Lineages that are to be dropped, and whether a thread is at that.
    dropping: Mutex<(bool, Vec<lineage::Recipe>)>,
    change: (Mutex<u64>, Condvar),
    /// The thread that looks at the queues.
    looker: OnceLock<std::thread::Thread>,
    seed: Mutex<u64>,
    groups: OnceLock<Arc<Groups>>,
    recovery: recovery::Recovery,
    token: OnceLock<Option<JoinToken>>,
    name: OnceLock<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.me)
    }
}

thread_local! {
    /// This thread carries the link: it may not wait for it.
    static LINKS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    /// Fetching of objects goes on by what this thread does now and then: it may not wait for that.
    static SERVES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Cluster {
    fn new(me: NodeId, engine: &Arc<Engine>, capacity: Capacity, how: &Joining) -> Arc<Cluster> {
        Arc::new_cyclic(|weak: &Weak<Cluster>| {
            let gone = Weak::clone(weak);
            let proxies = Proxies::new(Box::new(move |key| {
                let Some(cluster) = gone.upgrade() else {
                    return;
                };
                let _ = crate::exec::local::with(|local| {
                    cluster.with(local, |books, todo| {
                        // Another reference may have come in meanwhile, and will go by itself.
                        if !cluster.proxies.has(key) {
                            books.refers.remove(&key);
                            books.owners.dropped(key, &mut todo.effects);
                            cluster.replicas_unneeded(books, todo, key);
                        }
                    });
                });
            }));
            engine.durables().set_space(me.get());
            Cluster {
                me,
                engine: Arc::downgrade(engine),
                durables: Arc::clone(engine.durables()),
                capacity: capacity.clone(),
                labels: how.labels.clone(),
                link: OnceLock::new(),
                books: Mutex::new(Books::new(
                    me,
                    me,
                    capacity,
                    // Not said: a part of the store, since what is kept may lie there.
                    how.lineage_bytes
                        .unwrap_or_else(|| engine.memory_file().1 / LINEAGE),
                    how.pace().worst() * 3,
                )),
                proxies,
                errands: Mutex::new(None),
                membership: members::Membership::default(),
                suspected: Mutex::default(),
                fenced: OnceLock::new(),
                keeper: OnceLock::new(),
                clerk: Mutex::new(None),
                head_addr: OnceLock::new(),
                head_patience: how.head_patience,
                pace: how.pace.max(1),
                shares: !how.apart,
                headless: Mutex::new(None),
                head_left: Mutex::new(None),
                ended: AtomicBool::new(false),
                started: Instant::now(),
                patience: how.pace().worst() * 3,
                stopping: AtomicBool::new(false),
                threads: Mutex::default(),
                refusals: Mutex::default(),
                notices: Notices::default(),
                dropping: Mutex::default(),
                change: (Mutex::new(0), Condvar::new()),
                looker: OnceLock::new(),
                seed: Mutex::new(me.get()),
                groups: OnceLock::new(),
                recovery: recovery::Recovery::default(),
                token: OnceLock::new(),
                name: OnceLock::new(),
            }
        })
    }

    fn engine(&self) -> Option<Arc<Engine>> {
        self.engine.upgrade()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the threads are to end.
    fn stopped(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Whether this node's part in the cluster is over.
    fn is_over(&self) -> bool {
        self.stopping() || self.fenced.get().is_some()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A number that nobody else draws.
    fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_le_bytes(bytes),
            _ => {
                let mut seed = self.seed.lock();
                *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                *seed
            }
        }
    }

    /// Whether this thread may wait for what the link brings.
    fn may_block(&self) -> bool {
        !LINKS.get()
    }

    /// Whether this thread may wait for objects of other nodes.
    fn may_fetch(&self) -> bool {
        self.may_block() && !SERVES.get()
    }

    /// Has a thread of its own do what may wait for other nodes. If there is none to be had, this thread does it.
    fn wait_apart(&self, work: impl FnOnce(&Local) + Send + 'static) {
        let work = Arc::new(Mutex::new(Some(work)));
        let there = Arc::clone(&work);
        let run = move || {
            if let Some(work) = there.lock().take() {
                let _ = crate::exec::local::with(|local| work(local));
            }
        };
        let named = std::thread::Builder::new().name("mobula-joins".to_owned());
        if named.spawn(run).is_err()
            && let Some(work) = work.lock().take()
        {
            self.errand(work);
        }
    }

    /// Has a thread of its own do what may wait for the disk or for room, but for no other node.
    fn errand(&self, work: impl FnOnce(&Local) + Send + 'static) {
        if let Some(errands) = &*self.errands.lock() {
            let _ = errands.send(Box::new(work));
        }
    }

    fn changed(&self) {
        *self.change.0.lock() += 1;
        self.change.1.notify_all();
    }

    fn tell_death(&self, node: NodeId, name: String, why: &str) {
        self.notices.tell(|| NodeDeath {
            node,
            name,
            cause: why.to_owned(),
            left: why == notices::LEFT,
        });
    }

    /// Starts the threads.
    fn start_threads(self: &Arc<Cluster>, machine: Members) -> std::io::Result<()> {
        let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let cluster = Arc::clone(self);
        let looker = named("mobula-cluster").spawn(move || cluster.relieve())?;
        let _ = self.looker.set(looker.thread().clone());
        let cluster = Arc::clone(self);
        let driver = named("mobula-members").spawn(move || cluster.drive_members(machine))?;
        let cluster = Arc::clone(self);
        let follower = named("mobula-news").spawn(move || cluster.follow_members())?;
        self.threads.lock().extend([looker, driver, follower]);
        Ok(())
    }

    /// Starts the thread that the link's may leave work to: before the link.
    fn start_errands(&self) -> std::io::Result<()> {
        let (send, errands) = channel::<Errand>();
        *self.errands.lock() = Some(send);
        let named = std::thread::Builder::new().name("mobula-errands".to_owned());
        let runner = named.spawn(move || run_errands(&errands))?;
        self.threads.lock().push(runner);
        self.start_keeping()
    }
}

/// What the nodes say of themselves, for people.
fn describe(known: &[NodeInfo], nodes: &mut Vec<crate::base::snapshot::Node>) {
    use crate::base::snapshot::{Node, Resource};
    for info in known {
        let mut node = Node::default();
        if let Some(own) = nodes.first_mut().filter(|_| info.this) {
            node = std::mem::take(own);
        }
        node.name.clone_from(&info.name);
        node.id = Some(info.id.to_string());
        node.address = Some(info.address.to_string());
        node.labels.clone_from(&info.labels);
        node.draining = info.draining;
        node.near = info.near;
        if info.this {
            if let Some(own) = nodes.first_mut() {
                *own = node;
            }
            continue;
        }
        node.away = true;
        let (whole, free) = (&info.capacity, &info.free);
        let mut add = |name: &str, total: Units, free: Units| {
            node.resources.push(Resource {
                name: name.to_owned(),
                total: total.to_f64(),
                free: free.to_f64(),
            });
        };
        add("cpu", whole.cpu, free.cpu);
        if whole.gpus > 0 {
            add("gpu", whole.gpu(), free.gpu);
        }
        for (name, total) in whole.custom() {
            // Of what is left out there is none.
            let left = free.custom().iter().find(|(n, _)| n == name);
            add(name, *total, left.map_or(Units::ZERO, |(_, left)| *left));
        }
        nodes.push(node);
    }
}

fn run_errands(errands: &Receiver<Errand>) {
    SERVES.set(true);
    for errand in errands {
        let _ = crate::exec::local::with(|local| errand(local));
    }
}

/// What the engine asks.
pub(super) struct Face(pub Arc<Cluster>);

impl Far for Face {
    fn place(&self, local: &Local, record: &RawRef) -> bool {
        self.0.place_call(local, record)
    }

    fn lacks(&self, demand: &Demand) -> Option<Error> {
        self.0.lacks_everywhere(demand)
    }

    fn cancel(&self, local: &Local, record: &RawRef) {
        self.0.cancel_sent(local, record);
    }

    fn arrived(&self, local: &Local, record: &RawRef) {
        self.0.leased_arrived(local, record);
    }

    fn reserved(&self, local: &Local, ticket: u64) {
        self.0.ticket_reserved(local, ticket);
    }

    fn blocked(&self, local: &Local, calls: &[u64], blocked: bool) {
        self.0.leased_blocked(local, calls, blocked);
    }

    fn dry(&self) {
        if let Some(looker) = self.0.looker.get() {
            looker.unpark();
        }
    }

    fn create(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error> {
        self.0.place_actor(local, entry, options, demand)
    }

    fn named(&self, local: &Local, name: &str) -> Result<Option<HandleRef>, Error> {
        self.0.find_named(local, name)
    }

    fn claim_name(
        &self,
        local: &Local,
        name: &str,
        actor: u64,
        entry: &'static ActorEntry,
        kept: bool,
    ) -> Result<Option<HandleRef>, Error> {
        self.0.take_name(local, name, actor, entry, kept)
    }

    fn keep(
        &self,
        _: &Local,
        actor: &ActorRef,
        options: Option<&Options>,
        demand: &Demand,
    ) -> Option<Arc<dyn Backups>> {
        self.0.keep_own(actor, options, demand)
    }

    fn free_name(&self, name: &str, actor: u64) {
        let _ = crate::exec::local::with(|local| self.0.give_name(local, name, actor));
    }

    fn ended(&self, actor: u64, cause: &str) {
        self.0.actor_ended(actor, cause);
    }

    fn replicated(&self, number: u64) -> Box<Extra> {
        self.0.replica_ticket(number)
    }

    fn replicate(
        &self,
        local: &Local,
        record: &RawRef,
        (replicas, durable): (u32, Option<Arc<str>>),
        timeout: Duration,
    ) -> Result<(), Error> {
        self.0
            .replicate(local, record, (replicas, durable), timeout)
    }

    fn describe(&self, nodes: &mut Vec<crate::base::snapshot::Node>) {
        if let Some(own) = nodes.first_mut() {
            own.settling = self.0.membership.is_settling();
        }
        describe(&self.0.nodes(), nodes);
    }
}
