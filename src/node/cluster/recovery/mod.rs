//! Actors that outlive their node: their histories kept by other nodes, driven.
//!
//! Room map: [`host`] actors here, [`ear`] what their drainers tell, [`again`] what they run again, [`along`] large results that go with checkpoints; [`backup`] histories kept here and taken over; [`handles`]
//! handles here, [`end`] what they ask for, [`caller`] their calls; [`clerk`] the records; [`load`] what is carried, [`tell`] and [`hear`] how; [`desk`] how events are handled;
//! [`results`] results that stay with a host; [`shown`] what can be seen of an actor; [`durable`] checkpoints outside of all nodes.
//!
//! Actors are named by their first key, for ever; where one is, is another key. Messages about one go between its host, its
//! backups and its callers.
//!
//! Invariant: locks here are held for a look at a table and nothing else. Left out: what is decided (`core::recovery`).

mod again;
mod along;
mod backup;
mod caller;
mod clerk;
mod desk;
mod durable;
mod ear;
mod end;
mod handles;
mod hear;
mod host;
mod load;
mod results;
mod shown;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use parking_lot::Mutex;

use super::books::{Books, Export};
use super::{Cluster, Errand, actors};
use crate::base::{ActorKey, Demand, Error, NodeId, ObjectKey};
use crate::core::recovery::{
    Limits, backup as keeping, caller as calling, choose, host as hosting,
};
use crate::exec::Local;
use crate::exec::actor::{ActorRef, Backups, HandleRef};
use crate::exec::entry::ActorEntry;
use crate::exec::options::Options;
use crate::wire::{ActorTerms, HandleBody, Recovering};
use along::Along;
use backup::KeptBackup;
use caller::{Asked, KeptCaller};
use ear::Ear;
use hear::EarlyCall;
use host::{Input, KeptHost};
use load::State;
pub(super) use results::Again;

/// How often time passes for the machines.
const TICK: Duration = Duration::from_millis(25);
/// How long an actor that was taken over waits for whoever has handles to say so.
const GRACE: Duration = Duration::from_secs(30);
/// How many moves and ends are remembered; who asks for older ones asks the records.
const REMEMBERED: usize = 1 << 16;

/// What is remembered of actors by their first keys, the oldest forgotten first.
struct Memory<T> {
    all: HashMap<ActorKey, T>,
    order: VecDeque<ActorKey>,
}

impl<T> Default for Memory<T> {
    fn default() -> Memory<T> {
        Memory {
            all: HashMap::new(),
            order: VecDeque::new(),
        }
    }
}

impl<T> Memory<T> {
    fn note(&mut self, actor: ActorKey, what: T) {
        if self.all.insert(actor, what).is_none() {
            self.order.push_back(actor);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

/// A call to a key that this node is about to have.
enum Early {
    /// Of that node.
    There(NodeId, EarlyCall),
    /// Of this node, to that actor, or a question for what one gave.
    Here(ActorKey, Input),
}

/// See the module.
#[derive(Default)]
pub(super) struct Recovery {
    hosts: Mutex<HashMap<ActorKey, Arc<KeptHost>>>,
    backups: Mutex<HashMap<ActorKey, Arc<KeptBackup>>>,
    callers: Mutex<HashMap<ActorKey, Arc<KeptCaller>>>,
    /// Where actors went, and as which incarnation.
    moves: Mutex<Memory<(u64, ActorKey)>>,
    /// Why actors ended.
    ends: Mutex<Memory<Arc<str>>>,
    /// Calls to keys that this node is about to have.
    claiming: Mutex<HashMap<ActorKey, Vec<Early>>>,
    /// Messages that come in parts.
    parts: Mutex<HashMap<NodeId, Vec<u8>>>,
    along: Mutex<Along>,
    clerk: Mutex<Option<Sender<Errand>>>,
    /// No number from this on was used by any caller.
    numbers: AtomicU64,
    ticked: Mutex<Duration>,
}

impl Recovery {
    fn host(&self, actor: ActorKey) -> Option<Arc<KeptHost>> {
        self.hosts.lock().get(&actor).cloned()
    }

    /// Whether this node is about to have an actor under this key.
    pub fn claims(&self, key: ObjectKey) -> bool {
        let claiming = self.claiming.lock();
        claiming.contains_key(&load::actor(key))
    }

    fn backup(&self, actor: ActorKey) -> Option<Arc<KeptBackup>> {
        self.backups.lock().get(&actor).cloned()
    }

    fn caller(&self, actor: ActorKey) -> Option<Arc<KeptCaller>> {
        self.callers.lock().get(&actor).cloned()
    }

    fn all<T>(of: &Mutex<HashMap<ActorKey, Arc<T>>>) -> Vec<Arc<T>> {
        of.lock().values().cloned().collect()
    }

    fn next_number(&self) -> u64 {
        self.numbers.load(Ordering::Acquire).max(1)
    }

    fn used_up_to(&self, next: u64) {
        self.numbers.fetch_max(next, Ordering::AcqRel);
    }

    fn note_moved(&self, actor: ActorKey, incarnation: u64, at: ActorKey) {
        let mut moves = self.moves.lock();
        if moves
            .all
            .get(&actor)
            .is_none_or(|(known, _)| *known < incarnation)
        {
            moves.note(actor, (incarnation, at));
        }
    }

    fn moved_to(&self, actor: ActorKey) -> Option<(u64, ActorKey)> {
        self.moves.lock().all.get(&actor).copied()
    }

    fn ended(&self, actor: ActorKey, cause: &str) {
        self.ends.lock().note(actor, Arc::from(cause));
    }

    fn end_of(&self, actor: ActorKey) -> Option<Arc<str>> {
        self.ends.lock().all.get(&actor).cloned()
    }

    /// No thread is to wait for the records any more.
    pub fn close(&self) {
        *self.clerk.lock() = None;
    }
}

/// What the machine is to keep to.
fn limits(terms: &ActorTerms, pace: u32) -> Limits {
    let of = &terms.checkpoints;
    let usual = Limits::default();
    Limits {
        replicas: terms.replicas as usize,
        every: Some(of.every).filter(|every| *every > 0),
        interval: of.interval,
        most: of.bound,
        alone: usual.alone * pace,
        ..usual
    }
}

/// Whether an actor made so has its history kept by other nodes.
pub(super) fn is_kept(entry: &ActorEntry, terms: &ActorTerms) -> bool {
    entry.is_kept() && terms.max_restarts > 0 && terms.replicas > 0
}

impl Cluster {
    /// Whether a node lives, as far as this one knows.
    pub(super) fn lives(&self, node: NodeId) -> bool {
        if node == self.me {
            return true;
        }
        let books = self.books.lock();
        let known = books.peers.contains_key(&node) || self.membership.has(node);
        known && !books.view.is_gone(node)
    }

    /// Whether a node is dead, as this one was told. One that it never heard of may only be new.
    fn is_dead(&self, node: NodeId) -> bool {
        self.books.lock().view.is_gone(node)
    }

    /// Nodes that could keep an actor's history, the best first.
    fn backups_for(&self, actor: ActorKey, creator: NodeId) -> Vec<NodeId> {
        let books = self.books.lock();
        let leaves = |node: &NodeId| books.view.get(*node).is_some_and(|k| k.view.draining);
        let mut nodes: Vec<NodeId> = books.peers.keys().copied().collect();
        nodes.retain(|node| !leaves(node));
        let same = |node: NodeId| books.near.contains_key(&node);
        choose::prefer(actor, creator, &mut nodes, same);
        nodes
    }

    /// An actor is about to be made here by a program of this node.
    pub(super) fn keep_own(
        self: &Arc<Cluster>,
        actor: &ActorRef,
        options: Option<&Options>,
        demand: &Demand,
    ) -> Option<Arc<dyn Backups>> {
        let none = Options::default();
        let terms = actors::terms(actor.entry(), options.unwrap_or(&none), demand).ok()?;
        self.keep(actor.entry(), terms, actor.id(), self.me)
    }

    /// An actor is about to be made here: whoever keeps its history, if that is kept.
    pub(super) fn keep(
        self: &Arc<Cluster>,
        entry: &'static ActorEntry,
        terms: ActorTerms,
        number: u64,
        creator: NodeId,
    ) -> Option<Arc<dyn Backups>> {
        if !is_kept(entry, &terms) || self.is_over() {
            return None;
        }
        let at = ActorKey {
            host: self.me,
            number,
        };
        let state = State {
            entry,
            terms,
            init: Arc::default(),
            value: None,
        };
        let kept = KeptHost::new(self, at, creator, state);
        self.recovery.hosts.lock().insert(at, Arc::clone(&kept));
        Some(Arc::new(Ear(kept)))
    }

    /// An actor could not be made here after all.
    pub(super) fn keeps_not(&self, key: ObjectKey) {
        self.recovery.hosts.lock().remove(&load::actor(key));
    }

    /// An actor of another node has ended before there was anything to keep.
    pub(super) fn stillborn(self: &Arc<Cluster>, local: &Local, key: ObjectKey, cause: &str) {
        let actor = load::actor(key);
        if self.recovery.caller(actor).is_some() {
            self.caller_ended(local, actor, cause);
        }
    }

    /// An actor here has ended; false if that is not told to others now, since others keep its history.
    pub(super) fn kept_ended(self: &Arc<Cluster>, key: ObjectKey, cause: &str) -> bool {
        let at = load::actor(key);
        let host = {
            let hosts = self.recovery.hosts.lock();
            let its = hosts.get(&at).filter(|host| host.at == at);
            // One that was elsewhere goes by its first key; its own is none that this node's programs give.
            let elsewhere = || hosts.values().find(|host| host.at == at);
            its.or_else(|| {
                if at.number >> 63 == 1 {
                    elsewhere()
                } else {
                    None
                }
            })
            .cloned()
        };
        let Some(host) = host else {
            return true;
        };
        if !host.is_over() {
            let _ = crate::exec::local::with(|local| {
                host.post(local, Input::Close(cause.to_owned()));
                // It may have ended before it was made.
                host.begin(local);
            });
        }
        false
    }

    /// Its record is gone: whoever has handles is told.
    fn host_closed(self: &Arc<Cluster>, local: &Local, host: &KeptHost, cause: &str) {
        self.recovery.hosts.lock().remove(&host.actor);
        self.recovery.along.lock().left(host.actor);
        let actor = host.actor;
        let peers: Vec<NodeId> = self.books.lock().peers.keys().copied().collect();
        for to in peers {
            let cause = cause.to_owned();
            self.tell_recovering(local, to, Recovering::Ended { actor, cause });
        }
        self.caller_ended(local, actor, cause);
    }

    /// Another node hosts it: whoever called is to look for it.
    fn host_fenced(self: &Arc<Cluster>, local: &Local, host: &KeptHost) {
        self.recovery.hosts.lock().remove(&host.actor);
        self.recovery.along.lock().left(host.actor);
        let (actor, at) = (host.actor, host.at);
        let peers: Vec<NodeId> = self.books.lock().peers.keys().copied().collect();
        for to in peers {
            self.tell_recovering(local, to, Recovering::NotHere { actor, at });
        }
        if let Some(caller) = self.recovery.caller(actor) {
            caller.post(local, Asked::Machine(calling::Event::NotHere(at)));
        }
    }

    /// Takes in a handle to an actor whose history is kept.
    pub(super) fn import_kept_handle(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut super::Todo,
        local: &Local,
        (actor, incarnation): (ActorKey, u64),
        h: &HandleBody,
        entry: &'static ActorEntry,
    ) -> HandleRef {
        // It may have come here meanwhile.
        let here = self.recovery.host(actor).filter(|host| !host.is_over());
        if let Some(here) = here
            && let Some(Export::Actor(handle)) = books.exports.get(&here.at.number)
        {
            let handle = handle.clone();
            // It does not count by the key of before.
            books.owners.dropped(h.key, &mut todo.effects);
            return handle;
        }
        let at = (actor, incarnation, h.key);
        self.kept_handle(books, todo, local, at, entry, h.name.as_deref())
    }

    /// A node is connected.
    pub(super) fn kept_connected(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        self.nodes_changed(local);
        for caller in Recovery::all(&self.recovery.callers) {
            caller.post(local, Asked::Connected(node));
        }
    }

    /// Which nodes there are has changed.
    fn nodes_changed(self: &Arc<Cluster>, local: &Local) {
        for host in Recovery::all(&self.recovery.hosts) {
            host.post(local, Input::Nodes);
        }
    }

    /// A node is dead.
    pub(super) fn kept_died(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        self.recovery.parts.lock().remove(&node);
        self.recovery.along.lock().died(node);
        for backup in Recovery::all(&self.recovery.backups) {
            backup.post(local, keeping::Event::Died(node));
        }
        for host in Recovery::all(&self.recovery.hosts) {
            for node in [node, Cluster::direct_of(node)] {
                host.post(local, Input::Machine(hosting::Event::Died(node)));
            }
        }
        self.nodes_changed(local);
        for caller in Recovery::all(&self.recovery.callers) {
            caller.post(local, Asked::Machine(calling::Event::Died(node)));
        }
    }

    /// Time passes.
    pub(super) fn tick_kept(self: &Arc<Cluster>, local: &Local) {
        let now = self.now();
        {
            let mut ticked = self.recovery.ticked.lock();
            if now.saturating_sub(*ticked) < TICK {
                return;
            }
            *ticked = now;
        }
        for host in Recovery::all(&self.recovery.hosts) {
            // One that is not made yet would collect them.
            if host.has_begun() {
                host.post(local, Input::Machine(hosting::Event::Tick));
            }
            self.sweep(local, &host);
        }
        for backup in Recovery::all(&self.recovery.backups) {
            backup.post(local, keeping::Event::Tick);
        }
        for caller in Recovery::all(&self.recovery.callers) {
            caller.post(local, Asked::Machine(calling::Event::Tick));
        }
    }

    /// Whether an actor came here so lately that whoever has handles may not have said so: that one who had is gone does not end it,
    /// [`sweep`](Self::sweep) does.
    pub(super) fn came_lately(&self, key: ObjectKey) -> bool {
        let at = load::actor(key);
        // Others' numbers say so.
        if at.number >> 63 == 0 {
            return false;
        }
        let now = self.now();
        let lately = |host: &KeptHost| host.has_moved() && now.saturating_sub(host.since) < GRACE;
        let hosts = self.recovery.hosts.lock();
        hosts.values().any(|host| host.at == at && lately(host))
    }

    /// An actor that was taken over and that nobody has said to have a handle to ends, as after its last handle.
    fn sweep(self: &Arc<Cluster>, local: &Local, host: &Arc<KeptHost>) {
        if !host.has_moved() || self.now().saturating_sub(host.since) < GRACE {
            return;
        }
        for node in std::mem::take(&mut *host.strangers.lock()) {
            if !self.lives(node) {
                host.post(local, Input::Machine(hosting::Event::Died(node)));
            }
        }
        self.with(local, |books, todo| {
            let key = load::object(host.at);
            if books.owners.borrowers(key).is_empty()
                && let Some(export) = books.exports.remove(&host.at.number)
            {
                todo.later.export(export);
            }
        });
    }

    /// This node's part in the cluster is over: whoever waits is told.
    pub(super) fn abandon_kept(self: &Arc<Cluster>, local: &Local, why: &dyn Fn() -> Error) {
        for host in Recovery::all(&self.recovery.hosts) {
            host.post(local, Input::Abandon(why()));
        }
        for caller in Recovery::all(&self.recovery.callers) {
            caller.post(local, Asked::Abandon(why()));
        }
    }
}
