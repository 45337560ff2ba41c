//! Which calls go to other nodes.
//!
//! A call whose arguments are settled is placed when it asks for more than the common call, says where it may run, or has
//! arguments whose bytes are elsewhere. Common calls are not looked at one by one: a thread looks at the queues, and takes calls out
//! of them that other nodes may have slots for. If this node has nothing to do before they have, it takes them back.
//!
//! Invariant: a call is given to another node only while it is claimed. Left out: the choice (`core::placement`).

use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::actors;
use super::books::Books;
use super::leasing::shape;
use crate::base::{Demand, Error, NodeId, Strategy};
use crate::core::amounts;
use crate::core::placement::{Choice, Nowhere, Request, choose};
use crate::core::view::NodeView;
use crate::exec::entry::ActorEntry;
use crate::exec::far::{Elsewhere, Parcel, take};
use crate::exec::options::Options;
use crate::exec::{Local, RawRef, cell};

/// How often queues are looked at while something waits in them, and while nothing does.
const LOOK: Duration = Duration::from_millis(2);
const GLANCE: Duration = Duration::from_millis(20);
/// Calls that wait here for a node beyond those that it can have, per CPU or slot.
const AHEAD: u32 = 2;
/// Nodes that calls wait for before anything is known of them.
const MAX_STRANGERS: usize = 1024;

impl Cluster {
    /// Whether another node is to run the call; then it has it.
    pub(super) fn place_call(self: &Arc<Cluster>, local: &Local, record: &RawRef) -> bool {
        let one = Demand::ONE_CPU;
        let extra = record.extra();
        let strategy = extra.map_or(&Strategy::Default, |e| &e.strategy);
        let demand = record.demand().unwrap_or(&one);
        let bytes = self.bytes(record);
        let special =
            record.demand().is_some() || *strategy != Strategy::Default || !bytes.is_empty();
        if !special {
            return false;
        }
        let bound = *strategy != Strategy::Default || !bytes.is_empty();
        if let Strategy::Node { node, soft: false } = strategy
            && self.has_lease(record, *node)
        {
            // Nothing is to be chosen, and whether it may run there is for that node to say.
            return self.give(local, record, *node, true);
        }
        if !bound && !self.fits_here(demand) && self.reuse(local, record) {
            return true;
        }
        let choice = {
            let mut books = self.books.lock();
            if books.peers.is_empty() && *strategy == Strategy::Default {
                return false;
            }
            self.refresh(&mut books, local);
            books.leasing.choices += 1;
            let request = Request {
                priority: extra.map_or(0, |e| e.priority),
                bytes: &bytes,
                seed: record.id,
                ..Request::new(demand, strategy)
            };
            choose(&books.view, self.me, &request)
        };
        match choice {
            Choice::Here => {
                if *strategy == Strategy::Spread {
                    self.count_here(local, record);
                }
                false
            }
            // Its turn may as well come here.
            Choice::Wait if *strategy == Strategy::Default && !local.engine.lacks(demand) => false,
            Choice::Wait => {
                self.books.lock().parked.push(record.clone());
                true
            }
            Choice::Nowhere(why) if self.may_come(&why) => {
                self.books.lock().parked.push(record.clone());
                true
            }
            Choice::Nowhere(why) => {
                if record.claim_waiting() {
                    let error = Error::NoNode {
                        why: Arc::from(why.to_string()),
                    };
                    local.engine.settle_error(local, record, error);
                }
                true
            }
            Choice::At(node) => self.give(local, record, node, bound),
        }
    }

    /// A call that runs here counts as one that was sent to this node, or every call in turn would run here.
    pub(super) fn count_here(self: &Arc<Cluster>, local: &Local, record: &RawRef) {
        self.books.lock().view.sent(self.me, &Demand::NONE);
        let cluster = Arc::downgrade(self);
        local.engine.when_ended(record, move |_| {
            if let Some(cluster) = cluster.upgrade() {
                cluster.books.lock().view.ended(cluster.me);
            }
        });
    }

    /// Whether what is asked for may be a node that others know already: it joined, and its name came faster than the news of it.
    fn may_come(&self, why: &Nowhere) -> bool {
        let Nowhere::Unknown { node } = *why else {
            return false;
        };
        let now = self.now();
        let mut books = self.books.lock();
        let strangers = &mut books.strangers;
        if strangers.len() >= MAX_STRANGERS && !strangers.contains_key(&node) {
            strangers.retain(|_, since| now - *since < self.patience);
        }
        if strangers.len() >= MAX_STRANGERS {
            return false;
        }
        now - *strangers.entry(node).or_insert(now) < self.patience
    }

    fn has_lease(&self, record: &RawRef, node: NodeId) -> bool {
        let (demand, priority) = shape(record);
        let books = self.books.lock();
        let lease = books.leasing.at(&demand, priority, node);
        node != self.me && lease.is_some() && books.peers.contains_key(&node)
    }

    /// Gives a call that waits to another node; unless it is `bound` to that one, it may run where there is room first.
    pub(super) fn give(
        self: &Arc<Cluster>,
        local: &Local,
        record: &RawRef,
        node: NodeId,
        bound: bool,
    ) -> bool {
        if !record.claim_waiting() {
            return true; // cancelled
        }
        if record.group().is_none() {
            for record in self.submit_calls(local, vec![(record.clone(), node)], bound) {
                self.put_back(local, record);
            }
            return true;
        }
        // What is to be joined first may have to be fetched, for which this thread may be needed.
        let waits = !self.may_fetch() && Parcel::may_block(record);
        let (cluster, record) = (Arc::clone(self), record.clone());
        let go = move |local: &Local| {
            if !cluster.send_call(local, &record, node, None) {
                cluster.put_back(local, record);
            }
        };
        if waits {
            self.wait_apart(go)
        } else {
            go(local)
        }
        true
    }

    /// Puts a claimed call back that was to run elsewhere: a common one into this node's queues, another where it is placed anew.
    pub(super) fn put_back(&self, local: &Local, record: RawRef) {
        if record.state() & cell::CANCEL != 0 {
            let error = Error::Cancelled {
                function: record.name(),
            };
            return local.engine.settle_error(local, &record, error);
        }
        if record.group().is_some() {
            // Whoever knows where its bundle is places it.
            return local.engine.give_back(local, record);
        }
        let extra = record.extra();
        if extra.is_none_or(|e| e.demand.is_none() && e.strategy == Strategy::Default) {
            return local.engine.give_back(local, record);
        }
        record.wait_again();
        self.books.lock().parked.push(record);
    }

    /// Places those calls anew for which no node had room.
    fn place_parked(self: &Arc<Cluster>, local: &Local) {
        let parked = std::mem::take(&mut self.books.lock().parked);
        for record in parked {
            // One that was cancelled meanwhile has ended.
            let waits = cell::phase(record.state()) == cell::Phase::Waiting;
            if waits && !self.place_call(local, &record) {
                local.engine.run_here(local, record);
            }
        }
    }

    /// Where the bytes of a call's arguments are, if they are not here.
    fn bytes(&self, record: &RawRef) -> Vec<(NodeId, u64)> {
        let inputs = take::inputs_of_waiting(record);
        let mut bytes: Vec<(NodeId, u64)> = Vec::new();
        let mut here = 0;
        let books = self.books.lock();
        for input in &inputs {
            let away = input.stored().is_some_and(|s| s.is_away());
            let size = input.value_size() as u64;
            if !away {
                here += size;
                continue;
            }
            let key = self.key_of(input);
            let at = match books.tickets.get(&key.number) {
                Some((at, _)) if key.owner == self.me => Some(*at),
                _ => match books.owners.known(key) {
                    crate::core::owners::RefState::Ready { at, .. } => at.first().copied(),
                    _ => None,
                },
            };
            if let Some(at) = at.filter(|at| *at != self.me) {
                match bytes.iter_mut().find(|(node, _)| *node == at) {
                    Some((_, sum)) => *sum += size,
                    None => bytes.push((at, size)),
                }
            }
        }
        drop(books);
        if !bytes.is_empty() {
            bytes.push((self.me, here));
        }
        bytes
    }

    /// Why a call that another node gave back may not run anywhere else.
    pub(super) fn outlaw(&self, record: &RawRef, not: NodeId) -> Option<Error> {
        let why = match record.extra().map(|e| &e.strategy) {
            Some(Strategy::Node { node, soft: false }) if *node != self.me => Some(format!(
                "it may only run on node {node}, which did not run it"
            )),
            // Where its bundle is placed anew is not known yet.
            Some(Strategy::Group { .. }) => return None,
            _ => None,
        };
        let demand = record.demand();
        let why = why.or_else(|| {
            let engine = self.engine()?;
            let here = demand.is_none_or(|d| !engine.lacks(d));
            let others = !here && self.lacks_but(demand?, not);
            others.then(|| format!("node {not} did not run it, and no other has what it asks for"))
        });
        why.map(|why| Error::NoNode {
            why: Arc::from(why),
        })
    }

    /// Whether no node but this one, and that one, has so much.
    fn lacks_but(&self, demand: &Demand, not: NodeId) -> bool {
        let books = self.books.lock();
        let mut others = books
            .view
            .iter()
            .filter(|(node, _)| *node != self.me && *node != not);
        !others.any(|(_, known)| known.view.capacity.lacks(demand).is_none())
    }

    /// Why no node can ever give so much.
    pub(super) fn lacks_everywhere(&self, demand: &Demand) -> Option<Error> {
        let books = self.books.lock();
        let mut best = None;
        for (_, known) in books.view.iter() {
            match known.view.capacity.lacks(demand) {
                None => return None,
                Some(why) => best = best.or(Some(why)),
            }
        }
        let here = self.engine().map(|e| e.lacking(demand));
        match here {
            Some(None) => None,
            Some(Some(why)) => Some(best.unwrap_or(why).into()),
            None => Some(Error::ShutDown),
        }
    }

    /// Where an actor is made, if not here.
    pub(super) fn place_actor(
        self: &Arc<Cluster>,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error> {
        let strategy = &options.strategy;
        if *strategy == Strategy::Default && !local.engine.lacks(demand) && self.fits_here(demand) {
            return Ok(None);
        }
        let node = loop {
            let choice = {
                let mut books = self.books.lock();
                self.refresh(&mut books, local);
                let seed = self.random();
                choose(
                    &books.view,
                    self.me,
                    &Request {
                        seed,
                        ..Request::new(demand, strategy)
                    },
                )
            };
            match choice {
                Choice::Here | Choice::Wait => {
                    self.books.lock().view.took(self.me, &Demand::NONE);
                    return Ok(None);
                }
                Choice::Nowhere(why) if self.may_come(&why) => std::thread::sleep(LOOK),
                Choice::Nowhere(why) => {
                    return Err(Error::NoNode {
                        why: Arc::from(why.to_string()),
                    });
                }
                Choice::At(node) => break node,
            }
        };
        let terms = actors::terms(entry, options, demand)?;
        let adopt = options.get_or_create;
        let cluster = Arc::clone(self);
        Ok(Some(Box::new(move |local, init, name| {
            cluster.books.lock().view.took(node, &terms.demand);
            cluster.send_create(local, node, entry, (terms, name, adopt), init)
        })))
    }

    pub(super) fn own_cpus(&self) -> usize {
        self.capacity.cpu.to_f64().ceil() as usize
    }

    pub(super) fn fits_here(&self, demand: &Demand) -> bool {
        let free = self.engine().map(|e| e.free()).unwrap_or(Demand::NONE);
        let custom = |name: &String| {
            free.custom()
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, a)| *a)
        };
        free.cpu >= demand.cpu
            && free.gpu >= demand.gpu
            && demand
                .custom()
                .iter()
                .all(|(n, a)| custom(n).is_some_and(|has| has >= *a))
    }

    /// Says of this node what is so now.
    pub(super) fn refresh(&self, books: &mut Books, local: &Local) {
        let engine = &local.engine;
        books
            .view
            .adjust(self.me, engine.free(), engine.queued() as u32);
    }

    /// What this node tells of itself.
    pub(super) fn own_view(&self, books: &Books, version: u64, draining: bool) -> NodeView {
        let engine = self.engine();
        let mut free = engine.as_ref().map_or(Demand::NONE, |e| e.free());
        // Whoever asks for slots gets a part of those that others have and do not use.
        amounts::add(&mut free, &books.leasing.idle());
        NodeView {
            capacity: self.capacity.clone(),
            free,
            labels: self.labels.clone(),
            queued: engine.map_or(0, |e| e.queued() as u32),
            version,
            seen: self.now(),
            draining,
        }
    }

    /// A life of looking at the queues.
    pub(super) fn relieve(self: &Arc<Cluster>) {
        super::SERVES.set(true);
        let mut look = GLANCE;
        while !self.stopping() {
            std::thread::park_timeout(look);
            if self.stopping() {
                return;
            }
            let busy = crate::exec::local::with(|local| {
                self.tick(local);
                self.tick_leases(local);
                self.place_parked(local);
                self.take_back(local);
                self.relieve_once(local);
                let books = self.books.lock();
                local.engine.queued() > 0 || books.leasing.is_used() || !books.parked.is_empty()
            });
            look = if busy.unwrap_or(false) { LOOK } else { GLANCE };
        }
    }

    /// Takes common calls that wait here out of the queues, for slots of nodes that have no line of their own.
    pub(super) fn relieve_once(self: &Arc<Cluster>, local: &Local) {
        let own = self.own_cpus();
        let queued = local.engine.queued();
        if queued <= own {
            return;
        }
        let suspected = self.suspected.lock().clone();
        let (mut room, cpus) = {
            let books = self.books.lock();
            let mut room: Vec<(NodeId, usize)> = Vec::new();
            let mut cpus = 0;
            for (node, known) in books.view.iter() {
                let has = known.view.capacity.cpu.to_f64().floor() as u32;
                let out = node == self.me || known.view.draining || suspected.contains(&node);
                if out || has == 0 || !books.peers.contains_key(&node) {
                    continue;
                }
                let lease = books.leasing.at(&Demand::ONE_CPU, 0, node);
                let (slots, depth, need) = lease.unwrap_or_default();
                // With a line of its own it would only have others wait longer.
                if slots == 0 && known.view.queued >= has {
                    continue;
                }
                // Enough to last until the next look, if they take long; the end of one that does not is a look too.
                let most = (has * (1 + AHEAD)).max(slots * (depth + AHEAD));
                cpus += has as usize;
                if most > need {
                    room.push((node, (most - need) as usize));
                }
            }
            (room, cpus)
        };
        let wanted: usize = room.iter().map(|(_, n)| n).sum();
        // As many stay as can be expected to run here meanwhile.
        let most = wanted.min(((queued - own) * cpus).div_ceil(cpus + own));
        if most == 0 {
            return;
        }
        let taken = local.engine.take_queued(most);
        if taken.is_empty() {
            return;
        }
        // One for each in turn, so that a few calls do not all go to one node.
        let mut calls = Vec::with_capacity(taken.len());
        let mut at = 0;
        for record in taken {
            at %= room.len();
            calls.push((record, room[at].0));
            room[at].1 -= 1;
            if room[at].1 == 0 && room.len() > 1 {
                room.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.books.lock().leasing.choices += 1;
        for record in self.submit_calls(local, calls, false) {
            local.engine.give_back(local, record);
        }
        local.engine.tell_when_dry(true);
    }
}
