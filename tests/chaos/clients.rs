//! Threads that call one object as long as they are told to, and write down what came of it.
//!
//! Some calls are made by this process, a few at a time; some by tasks on other nodes, whose death leaves the outcome unknown.
//!
//! Invariant: a call is written down before it is made and after it has returned; one that neither returns nor fails in time fails the
//! test. Left out: what happens to the nodes (`world`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mobula::inspect::{Part, Query, snapshot};
use mobula::{Error, NodeId};

use crate::LONG;
use crate::actors::Object;
use crate::chance::Chance;
use crate::history::Log;

/// What clients share.
#[derive(Default)]
pub struct Shared {
    pub stop: AtomicBool,
    /// Nodes from which calls may be made.
    pub nodes: Mutex<Vec<NodeId>>,
    /// The last number given to an operation.
    pub numbers: AtomicU64,
}

/// An object under fire, and what was done to it.
pub struct Target<M: Object> {
    pub actor: M::Handle,
    pub log: Log<M>,
    /// A node was held for dead that the plan did not mean: there may be more deaths at once than anything is promised for.
    more_died: Arc<AtomicBool>,
}

impl<M: Object> Target<M> {
    pub fn new(actor: M::Handle, more_died: &Arc<AtomicBool>) -> Target<M> {
        Target {
            actor,
            log: Log::new(),
            more_died: Arc::clone(more_died),
        }
    }

    /// One client. It makes some calls a second, so that the history can be judged.
    pub fn client(&self, who: usize, shared: &Shared, mut chance: Chance) {
        let mut last = None;
        while !shared.stop.load(Ordering::Relaxed) {
            let mut draw = || {
                let number = 1 + shared.numbers.fetch_add(1, Ordering::Relaxed);
                M::draw(&mut chance, number, last.as_ref())
            };
            let deeds: Vec<M::Deed> = (0..3).map(|_| draw()).collect();
            if chance.permille(300) {
                let nodes = shared.nodes.lock().expect("nobody panics here").clone();
                if let Some(node) = chance.pick(&nodes) {
                    last = self.from(who, node, &deeds[0]).or(last);
                }
            } else {
                let many = chance.between(1, deeds.len() as u64) as usize;
                last = self.here(who, &deeds[..many]).or(last);
            }
            if self.more_died.load(Ordering::Relaxed) && !self.log.is_answered() {
                return; // it is lost, as it may be then
            }
            std::thread::park_timeout(Duration::from_millis(chance.below(25)));
        }
    }

    /// Calls made by this process, all at once; what the last of them gave.
    pub fn here(&self, who: usize, deeds: &[M::Deed]) -> Option<M::Gave> {
        let make = |deed: &M::Deed| {
            let number = self.log.makes(who, deed);
            (number, M::call(&self.actor, deed.clone()))
        };
        let calls: Vec<_> = deeds.iter().map(make).collect();
        let mut last = None;
        for (number, call) in calls {
            match call() {
                Ok(gave) => {
                    self.log.returned(number, gave.clone());
                    last = Some(gave);
                }
                Err(e @ Error::ActorDied { .. }) if self.more_died.load(Ordering::Relaxed) => {
                    self.log.failed(number, e.to_string());
                }
                // This process and the records live: a kept actor's calls end well.
                Err(e) => panic!("{}, call {number}: {e}", M::NAME),
            }
        }
        last
    }

    /// A call made by a task on a node, which may die.
    fn from(&self, who: usize, node: NodeId, deed: &M::Deed) -> Option<M::Gave> {
        let number = self.log.makes(who, deed);
        let call = M::call_from(node, &self.actor, deed.clone());
        match call() {
            Ok(gave) => {
                self.log.returned(number, gave.clone());
                return Some(gave);
            }
            Err(e @ Error::Timeout { .. }) => {
                report(&nodes(node));
                panic!("{}, call {number} by a task on {node}: {e}", M::NAME)
            }
            Err(e) => self.log.failed(number, e.to_string()),
        }
        None
    }
}

/// The nodes that this one knows.
#[mobula::remote]
fn known() -> Vec<String> {
    let look = snapshot(&Query::of(&[Part::Nodes])).expect("a node can be looked at");
    let ids = look.nodes.items.into_iter().filter_map(|node| node.id);
    ids.collect()
}

/// The head, for who reports of a failure.
pub static HEAD: Mutex<Option<Arc<mobula::Mobula>>> = Mutex::new(None);

fn nodes(of: NodeId) -> Vec<NodeId> {
    if let Some(head) = &*HEAD.lock().expect("nobody panics here") {
        eprintln!("{:?}; {:?}", head.leases(), head.nodes());
    }
    let asked = known::options().on_node(of).remote();
    let told = mobula::get_timeout(&asked, Duration::from_secs(5));
    let told = told.unwrap_or_else(|e| vec![e.to_string()]);
    eprintln!("{of} knows {told:?}");
    told.iter().filter_map(|id| id.parse().ok()).collect()
}

/// How the kept actors of a node stand there.
#[mobula::remote]
fn stands() -> Vec<String> {
    let query = Query::of(&[Part::Actors, Part::Tasks]);
    let look = snapshot(&query).expect("a node can be looked at");
    let tasks = look.tasks.items.iter().map(|task| format!("{task:?}"));
    let tasks: Vec<String> = tasks.collect();
    let kept = look.actors.items.into_iter().filter(|a| a.kept.is_some());
    kept.map(|a| {
        format!(
            "{} {:?}, {:?} calls wait, {:?}, {:?}",
            a.type_name, a.state, a.pending, a.history, a.kept
        )
    })
    .chain(tasks)
    .collect()
}

/// How many kept actors of a node have not all backups among these nodes.
#[mobula::remote]
fn lacking(living: Vec<String>) -> u64 {
    let query = Query::of(&[Part::Actors]);
    let look = snapshot(&query).expect("a node can be looked at");
    let kept = look.actors.items.into_iter().filter_map(|a| a.kept);
    let lacks = kept.filter(|kept| {
        let there = kept.backups.iter().filter(|node| living.contains(node));
        there.count() < kept.replicas as usize
    });
    lacks.count() as u64
}

/// Whether all actors have all backups that they are to have, among these nodes.
pub fn all_backed(nodes: &[NodeId]) -> bool {
    let living: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    let ask = |node: &NodeId| lacking::options().on_node(*node).remote(living.clone());
    let asked: Vec<_> = nodes.iter().map(ask).collect();
    let told = mobula::get_timeout(&asked, LONG);
    told.is_ok_and(|told| told.iter().all(|lack| *lack == 0))
}

/// Says how all kept actors stand, for whoever reads of a failure.
pub fn report(nodes: &[NodeId]) {
    for node in nodes {
        let asked = stands::options().on_node(*node).remote();
        let told = mobula::get_timeout(&asked, Duration::from_secs(5));
        eprintln!("on {node}: {told:#?}");
    }
}

/// What the thread that plays the plan does with an object, whichever it is.
pub trait Probe: Sync {
    /// Looks at it; its answer says that it is where it can be kept.
    fn look(&self);
    /// The process that it is in.
    fn process(&self) -> u32;
    /// Has it save its state.
    fn checkpoint(&self);
    /// Judges what was done to it; how many calls there were, and how many with unknown outcomes.
    fn judge(&self) -> (usize, usize);
}

impl<M: Object> Probe for Target<M> {
    fn look(&self) {
        self.here(usize::MAX, &[M::look()]);
    }

    fn process(&self) -> u32 {
        let found = M::process(&self.actor)();
        let lost = self.more_died.load(Ordering::Relaxed);
        found.unwrap_or_else(|e| if lost { 0 } else { panic!("{}: {e}", M::NAME) })
    }

    fn checkpoint(&self) {
        // It may fail: the node that was to save it died.
        if let Err(e @ Error::Timeout { .. }) = M::checkpoint(&self.actor)() {
            panic!("{}: a checkpoint hangs: {e}", M::NAME);
        }
    }

    fn judge(&self) -> (usize, usize) {
        let calls = self.log.calls();
        assert!(calls.is_linearizable(), "{}", calls.explain());
        (calls.calls.len(), calls.unknown())
    }
}
