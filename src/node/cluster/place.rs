//! Which calls go to other nodes.
//!
//! A call whose arguments are settled is placed when it asks for more than the common call, says where it may run, or has
//! arguments whose bytes are elsewhere. Common calls are not looked at one by one: a thread looks at the queues, and takes calls out
//! of them while other nodes have nothing to do.
//!
//! Invariant: a call is given to another node only while it is claimed. Left out: the choice (`core::placement`).

use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::actors;
use crate::base::{Demand, Error, NodeId, Strategy};
use crate::core::placement::{Choice, Request, choose};
use crate::core::view::NodeView;
use crate::exec::entry::ActorEntry;
use crate::exec::far::{Elsewhere, take};
use crate::exec::options::Options;
use crate::exec::{Local, RawRef, cell};

/// How often queues are looked at while something waits in them, and while nothing does.
const LOOK: Duration = Duration::from_millis(2);
const GLANCE: Duration = Duration::from_millis(20);
/// Calls that are sent to a node beyond those that run there, per CPU: one is ready when another ends.
const AHEAD: u32 = 2;

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
        let choice = {
            let mut books = self.books.lock();
            if books.peers.is_empty() && *strategy == Strategy::Default {
                return false;
            }
            self.refresh(&mut books, local);
            let request = Request {
                priority: extra.map_or(0, |e| e.priority),
                bytes: &bytes,
                seed: record.id,
                ..Request::new(demand, strategy)
            };
            choose(&books.view, self.me, &request)
        };
        match choice {
            Choice::Here => false,
            // Its turn may as well come here.
            Choice::Wait if *strategy == Strategy::Default && !local.engine.lacks(demand) => false,
            Choice::Wait => {
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
            Choice::At(node) => self.give(local, record, node),
        }
    }

    /// Gives a call that waits to another node.
    pub(super) fn give(self: &Arc<Cluster>, local: &Local, record: &RawRef, node: NodeId) -> bool {
        if !record.claim_waiting() {
            return true; // cancelled
        }
        let (cluster, record) = (Arc::clone(self), record.clone());
        let go = move |local: &Local| {
            if !cluster.send_call(local, &record, node) {
                cluster.put_back(local, record);
            }
        };
        // What is to be joined first may have to be fetched, for which this thread may be needed.
        if self.may_block() {
            go(local)
        } else {
            self.wait_apart(go)
        }
        true
    }

    /// Puts a claimed call back that was to run elsewhere: a common one into this node's queues, another where it is placed anew.
    pub(super) fn put_back(&self, local: &Local, record: RawRef) {
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
        let node = match choice {
            Choice::Here | Choice::Wait => return Ok(None),
            Choice::Nowhere(why) => {
                return Err(Error::NoNode {
                    why: Arc::from(why.to_string()),
                });
            }
            Choice::At(node) => node,
        };
        let terms = actors::terms(entry, options, demand)?;
        let adopt = options.get_or_create;
        let cluster = Arc::clone(self);
        Ok(Some(Box::new(move |local, init, name| {
            cluster.books.lock().view.sent(node, &terms.demand);
            cluster.send_create(local, node, entry, (terms, name, adopt), init)
        })))
    }

    fn fits_here(&self, demand: &Demand) -> bool {
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
    pub(super) fn refresh(&self, books: &mut super::books::Books, local: &Local) {
        let engine = &local.engine;
        books
            .view
            .adjust(self.me, engine.free(), engine.queued() as u32);
    }

    /// What this node tells of itself.
    pub(super) fn own_view(&self, version: u64, draining: bool) -> NodeView {
        let engine = self.engine();
        NodeView {
            capacity: self.capacity.clone(),
            free: engine.as_ref().map_or(Demand::NONE, |e| e.free()),
            labels: self.labels.clone(),
            queued: engine.map_or(0, |e| e.queued() as u32),
            version,
            seen: self.now(),
            draining,
        }
    }

    /// A life of looking at the queues.
    pub(super) fn relieve(self: &Arc<Cluster>) {
        let mut look = GLANCE;
        while !self.stopping() {
            std::thread::park_timeout(look);
            if self.stopping() {
                return;
            }
            let busy = crate::exec::local::with(|local| {
                self.tick(local);
                self.place_parked(local);
                self.relieve_once(local);
                local.engine.queued() > 0
            });
            look = if busy.unwrap_or(false) { LOOK } else { GLANCE };
        }
    }

    /// Sends common calls that wait here to nodes that have CPUs to spare.
    fn relieve_once(self: &Arc<Cluster>, local: &Local) {
        let queued = local.engine.queued();
        let own = self.capacity.cpu.to_f64().ceil() as usize;
        if queued <= own {
            return;
        }
        let suspected = self.suspected.lock().clone();
        let mut room: Vec<(NodeId, usize)> = {
            let books = self.books.lock();
            let nodes = books.view.iter().filter(|(node, known)| {
                *node != self.me
                    && !known.view.draining
                    && books.peers.contains_key(node)
                    && !suspected.contains(node)
            });
            nodes
                .filter_map(|(node, known)| {
                    let cpus = known.view.capacity.cpu.to_f64().floor() as u32;
                    let busy = known.view.queued + known.outstanding;
                    let most = (cpus * (1 + AHEAD)).saturating_sub(busy);
                    (cpus > 0 && most > 0).then_some((node, most as usize))
                })
                .collect()
        };
        let wanted: usize = room.iter().map(|(_, n)| n).sum();
        // As many stay as can be expected to run here meanwhile.
        let most = wanted.min((queued - own) * room.len() / (room.len() + 1));
        if most == 0 {
            return;
        }
        let mut calls = local.engine.take_queued(most).into_iter();
        while calls.len() > 0 {
            let before = calls.len();
            for (node, left) in &mut room {
                if *left == 0 {
                    continue;
                }
                let Some(record) = calls.next() else { return };
                if self.send_call(local, &record, *node) {
                    *left -= 1;
                } else {
                    *left = 0;
                    local.engine.give_back(local, record);
                }
            }
            if before == calls.len() {
                break;
            }
        }
        calls.for_each(|record| local.engine.give_back(local, record));
    }
}
