//! Copies of objects that were asked for: made, kept up, and found again when the owner is dead.
//!
//! A *replica* is a copy of an object on another node that stays until the object's owner frees it. The owner has as many made as
//! were asked for, and a further one when a node that has one dies or leaves. When the owner itself dies, each node with references to
//! the object asks all others who has a replica; whoever has one keeps it while one of those that asked has references, and for the
//! grace period after, so that a reference may be handed on.
//!
//! An object may also have a *durable* copy, in a place outside of all nodes. Its owner deletes it; when that is dead, whoever can tell
//! that nobody needs it any more.
//!
//! One machine per node plays all four parts: [`owner`], [`holder`], [`orphans`], [`witness`]. The driver carries messages exactly once and in order
//! between each two nodes, until it calls [`Replicas::peer_died`], and moves the bytes.
//!
//! Invariant: what a node was asked to make ends as made, declined or freed; a node that looks for replicas gets an answer for each that it
//! waits for, or the death of whom it asked; no replica outlives both its owner and the last reference by more than the grace period.
//! Left out: who counts references while the owner lives ([`Owners`](crate::core::owners::Owners)), and the bytes.

mod holder;
mod orphans;
mod owner;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::{NodeId, ObjectKey};
use holder::Held;
use orphans::Orphan;
use owner::Owned;
use witness::Watched;

/// Why a node has no replica that it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its store has no room.
    NoRoom,
    /// It takes nothing new, since it leaves.
    Leaves,
    /// The bytes did not come, or were lost.
    Failed,
}

/// What the machines of two nodes tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From the owner: have a copy, and keep it until I say [`Message::Free`].
    Make {
        /// The object.
        key: ObjectKey,
        /// Bytes of its archive.
        len: u64,
    },
    /// To the owner: I have it.
    Made {
        /// The object.
        key: ObjectKey,
    },
    /// To the owner: I have none.
    Declined {
        /// The object.
        key: ObjectKey,
        /// Why.
        why: Why,
    },
    /// From the owner: drop it.
    Free {
        /// The object.
        key: ObjectKey,
    },
    /// The object's owner is dead, and I have references to it: have you a replica? Then keep it until I say [`Message::Quit`].
    Seek {
        /// The object.
        key: ObjectKey,
        /// It has a durable copy, which is to be kept as long, too.
        durable: bool,
    },
    /// The answer.
    Found {
        /// The object.
        key: ObjectKey,
        /// Its length, from whom has it.
        len: Option<u64>,
    },
    /// I have no references to it any more.
    Quit {
        /// The object.
        key: ObjectKey,
    },
}

/// What the driver does after an event, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Bring the bytes here, and call [`Replicas::made`] or [`Replicas::failed`].
    Make {
        /// The object.
        key: ObjectKey,
        /// How many there are.
        len: u64,
        /// Tells this attempt from all others.
        attempt: u64,
    },
    /// Drop the replica here, or give up making it.
    Drop(ObjectKey),
    /// This object of ours has all replicas that were asked for: tell whoever asked.
    Kept(u64),
    /// It cannot have as many: tell whoever asked.
    Short(u64, Short),
    /// An object whose owner is dead can be read: its replica is there.
    Readable {
        /// The object.
        key: ObjectKey,
        /// A node that has it.
        at: NodeId,
        /// Bytes of its archive.
        len: u64,
    },
    /// Its owner is dead, and nobody has a replica.
    Lost(ObjectKey),
    /// Its owner is dead, and nobody needs its durable copy: delete it, if it is known here where it is.
    Unneeded {
        /// The object.
        key: ObjectKey,
        /// Of those who may say so, this node is the first: it is to guess where it is, if it does not know.
        first: bool,
    },
    /// The answer to [`Replicas::asks`]: from whom the pull may be, if from anybody.
    Source {
        /// The object.
        key: ObjectKey,
        /// The question's number.
        ask: u64,
        /// Whom to pull from.
        from: Option<NodeId>,
    },
}

/// Why a put has fewer replicas than were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Short {
    /// How many there are.
    pub made: usize,
    /// Other nodes that take any.
    pub nodes: usize,
    /// Nodes that declined, and why.
    pub declined: Vec<(NodeId, Why)>,
}

/// How much is kept, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Objects of this node with replicas.
    pub owned: usize,
    /// Replicas here, or being made.
    pub held: usize,
    /// Those of dead owners that others need, and those of others that their owners have not freed.
    pub needed: usize,
    /// Objects of dead owners to which there are references here.
    pub orphans: usize,
    /// Objects of others that are known to have replicas.
    pub known: usize,
    /// Objects of dead owners whose durable copies are watched.
    pub watched: usize,
}

/// How many replicas are made here at once; others wait in line.
pub const MAKING: usize = 4;

/// See the module.
#[derive(Debug)]
pub struct Replicas {
    me: NodeId,
    grace: Duration,
    /// Connected nodes; true: on the machine of this one.
    peers: BTreeMap<NodeId, bool>,
    /// Those that leave.
    leaving: BTreeSet<NodeId>,
    owned: BTreeMap<u64, Owned>,
    /// Those for which too few nodes are put up with, and until when.
    hopes: BTreeMap<u64, Duration>,
    /// Those of which somebody declined, and when they are asked again.
    declined: BTreeSet<u64>,
    retry: Option<Duration>,
    held: BTreeMap<ObjectKey, Held>,
    /// Those of dead owners that nobody claims.
    unclaimed: BTreeSet<ObjectKey>,
    line: VecDeque<ObjectKey>,
    /// Attempts whose end the driver has not told.
    making: BTreeMap<u64, ObjectKey>,
    last: u64,
    /// This node takes no more.
    leaves: bool,
    /// Objects of others with references here, known to have replicas; true: and a durable copy.
    known: BTreeMap<ObjectKey, bool>,
    /// Durable copies of others that somebody needs, or needed just now.
    watched: BTreeMap<ObjectKey, Watched>,
    /// Nodes that were connected and are dead.
    dead: BTreeSet<NodeId>,
    orphans: BTreeMap<ObjectKey, Orphan>,
    /// Those for which some nodes could not be asked yet.
    unasked: BTreeSet<ObjectKey>,
}

impl Replicas {
    /// A node that has none. Replicas of a dead owner are kept for `grace` without anybody who asks: longer than it takes until all
    /// nodes know of a death and a message of before has arrived.
    pub fn new(me: NodeId, grace: Duration) -> Replicas {
        Replicas {
            me,
            grace,
            peers: BTreeMap::new(),
            leaving: BTreeSet::new(),
            owned: BTreeMap::new(),
            hopes: BTreeMap::new(),
            declined: BTreeSet::new(),
            retry: None,
            held: BTreeMap::new(),
            unclaimed: BTreeSet::new(),
            line: VecDeque::new(),
            making: BTreeMap::new(),
            last: 0,
            leaves: false,
            known: BTreeMap::new(),
            watched: BTreeMap::new(),
            dead: BTreeSet::new(),
            orphans: BTreeMap::new(),
            unasked: BTreeSet::new(),
        }
    }

    /// How much is kept.
    pub fn size(&self) -> Size {
        Size {
            owned: self.owned.len(),
            held: self.held.len(),
            needed: self.held.values().filter(|h| h.needed()).count(),
            orphans: self.orphans.len(),
            known: self.known.len(),
            watched: self.watched.len(),
        }
    }

    /// Whether references to the object say, when they travel, that it has replicas.
    pub fn knows(&self, key: ObjectKey) -> bool {
        if key.owner == self.me {
            self.owned.contains_key(&key.number)
        } else {
            self.known.contains_key(&key)
        }
    }

    /// A node is connected; `near`: it is on the machine of this one.
    pub fn peer_up(&mut self, node: NodeId, near: bool, out: &mut Vec<Effect>) {
        if node == self.me || self.peers.insert(node, near).is_some() {
            return;
        }
        self.seek_from(node, out);
        self.top_up_all(out);
    }

    /// A node takes nothing new, since it leaves.
    pub fn peer_leaves(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if self.peers.contains_key(&node) && self.leaving.insert(node) {
            self.top_up_all(out);
        }
    }

    /// A node is dead. The driver calls this before it says whose owner died, if that is the same.
    pub fn peer_died(&mut self, now: Duration, node: NodeId, out: &mut Vec<Effect>) {
        if node == self.me {
            return;
        }
        if self.peers.remove(&node).is_some() {
            self.dead.insert(node);
        }
        self.leaving.remove(&node);
        self.holder_died(node, out);
        self.owner_died(now, node, out);
        self.seeker_died(now, node);
        self.watcher_died(now, node);
        self.sought_died(node, out);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Effect>) {
        self.expire(now, out);
        self.unneeded(now, out);
        self.despair(now, out);
        self.give_up_unasked(now, out);
        self.ask_again(now, out);
    }

    /// A message from another node.
    pub fn handle(&mut self, now: Duration, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        match message {
            // Only an owner says these, and only to others.
            Message::Make { key, len } if key.owner == from => self.on_make(key, len, out),
            Message::Free { key } if key.owner == from => self.on_free(key, out),
            Message::Made { key } if key.owner == self.me => self.on_made(from, key, out),
            Message::Declined { key, why } if key.owner == self.me => {
                self.on_declined(from, key, why, out);
            }
            Message::Seek { key, durable } => {
                if durable {
                    self.watch(key, from);
                }
                self.on_seek(from, key, out);
            }
            Message::Found { key, len } => self.on_found(from, key, len, out),
            Message::Quit { key } => {
                self.unwatch(now, key, from);
                self.on_quit(now, from, key);
            }
            // Nobody honest says so; it changes nothing.
            Message::Make { .. } | Message::Free { .. } => {}
            Message::Made { .. } | Message::Declined { .. } => {}
        }
    }
}

/// All objects of a node.
fn all_of(owner: NodeId) -> RangeInclusive<ObjectKey> {
    let key = |number| ObjectKey { owner, number };
    key(0)..=key(u64::MAX)
}

fn send(out: &mut Vec<Effect>, to: NodeId, message: Message) {
    out.push(Effect::Send { to, message });
}
