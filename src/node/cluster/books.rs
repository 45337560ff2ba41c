//! What a node keeps of its dealings with others.
//!
//! Invariant: nothing that user code or the engine could call back from is dropped, and the engine is not called, while
//! the books are locked: what is to be dropped goes to [`Later`], what is to be done to a list of effects. Frames are handed to the
//! link under the lock, so that they leave in the order in which the books changed. Left out: what the entries mean, which the
//! other files say.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::backlog::Backlog;
use super::leasing::Leasing;
use super::lineage::Remakes;
use super::objects::Lander;
use crate::base::{Capacity, NodeId, ObjectKey};
use crate::core::owners::Owners;
use crate::core::pulls::{Limits, Pulls};
use crate::core::replicas::{Replicas, Short};
use crate::core::view::{NodeView, View};
use crate::exec::RawRef;
use crate::exec::actor::{ActorRef, HandleRef};
use crate::exec::pin::PinnedRef;
use crate::shm::Attached;
use crate::store::Draft;
use crate::wire::{Beside, Found, Question};

/// An object or actor of this node that others know.
#[derive(Clone)]
pub(super) enum Export {
    /// An object of the type of this number.
    Object(RawRef, u64),
    /// An actor.
    Actor(HandleRef),
}

/// A call of this node that another runs.
pub(super) struct Sent {
    pub record: RawRef,
    pub to: NodeId,
    /// It stands in the view among what that node has to do.
    pub counted: bool,
    /// It runs in a slot of a lease.
    pub leased: bool,
    /// The link took it: it may have run.
    pub went: bool,
    /// Nodes that died while they ran it.
    pub deaths: Vec<NodeId>,
}

/// An object whose bytes somebody here waits for.
pub(super) struct Want {
    /// Where they go; away while they land, or when that was given up and has not come back.
    pub draft: Option<Draft>,
    /// How many there are.
    pub len: usize,
    /// Who sent them, once they are there.
    pub from: Option<NodeId>,
    /// They are for a replica that is made here.
    pub replica: bool,
    /// Who waits.
    pub tell: SyncSender<Result<Came, String>>,
}

/// How an object came that somebody waited for.
pub(super) enum Came {
    /// All its bytes are in the draft; that node sent them.
    Bytes(Draft, Option<NodeId>),
    /// It was made anew on this very node, under another record; what was to take the bytes, if that is still there.
    Here(Option<Draft>),
}

/// A replica of another node's object.
pub(super) struct Copy {
    pub record: RawRef,
    /// Which attempt made it, or is about to.
    pub attempt: u64,
    /// Its bytes are here.
    pub whole: bool,
}

/// An object's copy in a place outside of all nodes.
pub(super) struct Durable {
    /// The URL of the place.
    pub at: Arc<str>,
    /// Bytes of the archive.
    pub len: u64,
}

/// A node that is connected, or was and is not known to be dead.
pub(super) struct Peer {
    pub addr: SocketAddr,
    pub name: String,
    pub head: bool,
}

/// An actor of another node.
pub(super) struct FarCell {
    pub actor: ActorRef,
    /// Cells that have not ended: one that is ending may already have a successor.
    pub cells: u32,
}

/// See the file.
pub(super) struct Books {
    pub owners: Owners,
    pub view: View,
    pub peers: HashMap<NodeId, Peer>,
    pub exports: HashMap<u64, Export>,
    /// Actors of this node that another one numbered, by that number.
    pub made: HashMap<u64, ActorRef>,
    /// The numbers of actors of this node that have another one there, by theirs here.
    pub aliases: HashMap<u64, u64>,
    /// Results that ran here for others and stay here.
    pub held: HashMap<ObjectKey, RawRef>,
    pub sent: HashMap<u64, Sent>,
    pub leasing: Leasing,
    /// Calls that no node has room for now, or that came back.
    pub parked: Vec<RawRef>,
    /// Nodes that calls were first to run on then, and that nobody has told of.
    pub strangers: HashMap<NodeId, Duration>,
    /// Nodes that died under a call of this node that was given back since.
    pub deaths: HashMap<u64, Vec<NodeId>>,
    /// Calls of others that run here.
    pub running: HashMap<(NodeId, u64), RawRef>,
    /// Methods that run here for nodes that are dead.
    pub forsaken: Vec<(NodeId, RawRef)>,
    /// Objects of this node whose bytes another has.
    pub tickets: HashMap<u64, (NodeId, u64)>,
    /// Objects of others that have references inside.
    pub refers: HashSet<ObjectKey>,
    /// How lost objects of this node are made again.
    pub remakes: Remakes,
    pub pulls: Pulls,
    pub replicas: Replicas,
    /// The replicas here, whole or being made.
    pub copies: HashMap<ObjectKey, Copy>,
    /// Durable copies: of objects of this node, and of others to which it has references, or had when their owners died.
    pub durables: HashMap<ObjectKey, Durable>,
    /// Who waits for replicas of an object of this node.
    pub putting: HashMap<u64, SyncSender<Result<(), Short>>>,
    /// Transfers that begin after a pause, since others of their objects failed: when, of what, from whom.
    pub paused: Vec<(std::time::Duration, ObjectKey, NodeId, u64)>,
    /// Objects that are pulled.
    pub wants: HashMap<ObjectKey, Want>,
    /// Transfers under way: from whom, and of which object.
    pub transfers: HashMap<u64, (NodeId, ObjectKey)>,
    /// Arenas of other nodes of this machine.
    pub near: HashMap<NodeId, Arc<Attached>>,
    /// Where bytes go that are read from those.
    pub landers: HashMap<u64, Box<Lander>>,
    /// Objects that such nodes read here, by their numbers for it.
    pub shown: HashMap<(NodeId, u64), PinnedRef>,
    /// Values with references in them that were asked for.
    pub values: HashMap<u64, (NodeId, ObjectKey)>,
    pub last_number: u64,
    pub far_actors: HashMap<ObjectKey, FarCell>,
    /// Questions about names that wait for their answers.
    pub asks: HashMap<u64, (NodeId, SyncSender<Found>)>,
    /// Names that were given back while there was no keeper.
    pub unfreed: Vec<Question>,
    /// Frames that the link had no room for; what comes after waits behind them.
    pub backlog: Backlog,
    /// Nodes without a connection, and since when.
    pub gone_since: HashMap<NodeId, std::time::Duration>,
    /// Calls and actors that came from others, and how many had when this node last told of itself.
    pub took: u64,
    pub told_took: u64,
    /// What was told of this node last.
    pub told: NodeView,
    version: u64,
    /// The node that keeps names and knows all others.
    pub head: NodeId,
    pub draining: bool,
}

/// What is dropped once the books are unlocked.
#[derive(Default)]
pub(super) struct Later(Vec<Debris>);

#[allow(dead_code, reason = "kept only to be dropped")]
enum Debris {
    Record(RawRef),
    Handle(HandleRef),
    Actor(ActorRef),
    Draft(Draft),
    Pin(PinnedRef),
}

impl Later {
    pub fn record(&mut self, record: RawRef) {
        self.0.push(Debris::Record(record));
    }

    pub fn handle(&mut self, handle: HandleRef) {
        self.0.push(Debris::Handle(handle));
    }

    pub fn actor(&mut self, actor: ActorRef) {
        self.0.push(Debris::Actor(actor));
    }

    pub fn pin(&mut self, pin: PinnedRef) {
        self.0.push(Debris::Pin(pin));
    }

    pub fn draft(&mut self, draft: Draft) {
        self.0.push(Debris::Draft(draft));
    }

    pub fn export(&mut self, export: Export) {
        match export {
            Export::Object(record, _) => self.record(record),
            Export::Actor(handle) => self.handle(handle),
        }
    }
}

impl Books {
    /// With so much to lend, and so many bytes for lineages.
    pub fn new(
        me: NodeId,
        head: NodeId,
        capacity: Capacity,
        lineage: u64,
        patience: Duration,
    ) -> Books {
        Books {
            owners: Owners::new(me, GRACE),
            view: View::new(),
            peers: HashMap::new(),
            exports: HashMap::new(),
            made: HashMap::new(),
            aliases: HashMap::new(),
            held: HashMap::new(),
            sent: HashMap::new(),
            leasing: Leasing::new(me, capacity),
            parked: Vec::new(),
            strangers: HashMap::new(),
            deaths: HashMap::new(),
            running: HashMap::new(),
            forsaken: Vec::new(),
            tickets: HashMap::new(),
            refers: HashSet::new(),
            remakes: Remakes::new(lineage),
            pulls: Pulls::new(me, Limits::default()),
            replicas: Replicas::new(me, GRACE),
            copies: HashMap::new(),
            durables: HashMap::new(),
            putting: HashMap::new(),
            paused: Vec::new(),
            wants: HashMap::new(),
            transfers: HashMap::new(),
            near: HashMap::new(),
            landers: HashMap::new(),
            shown: HashMap::new(),
            values: HashMap::new(),
            last_number: 0,
            far_actors: HashMap::new(),
            asks: HashMap::new(),
            unfreed: Vec::new(),
            backlog: Backlog::new(patience),
            gone_since: HashMap::new(),
            took: 0,
            told_took: 0,
            told: NodeView::default(),
            version: 0,
            head,
            draining: false,
        }
    }

    /// The calls that this one made and that run elsewhere, or are to. Looks through all that do.
    pub fn calls_of(&self, caller: u64) -> Vec<RawRef> {
        let sent = self.sent.values().map(|sent| &sent.record);
        let all = sent.chain(&self.parked).chain(self.leasing.lined());
        all.filter(|call| call.caller() == caller)
            .cloned()
            .collect()
    }

    /// What references to a stored object say of where else it is.
    pub fn kept_elsewhere(&self, key: ObjectKey) -> Beside {
        match self.durables.get(&key) {
            _ if !self.replicas.knows(key) => Beside::Nothing,
            None => Beside::Replicated,
            Some(Durable { at, len }) => Beside::Durable {
                at: Arc::clone(at),
                len: *len,
            },
        }
    }

    /// A version of what this node tells of itself.
    pub fn version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A number that was not given out before.
    pub fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// For how long what a dead node handed on may still register.
const GRACE: Duration = Duration::from_secs(5);
