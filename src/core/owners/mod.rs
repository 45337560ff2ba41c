//! Who still needs an object, across nodes: reference counting, and where the copies are.
//!
//! The node that made a reference owns its object. It counts how many references it sent to each other node, its
//! *borrowers*; a borrower whose last reference goes says how many it had received, so a release never takes a reference
//! with it that is still under way. A borrower that hands a reference on to a third node keeps the object until that
//! node has registered with the owner and says so. Each object's owner also knows whether it has a value, which nodes have
//! a copy, and who pulls from whom.
//!
//! One machine per node plays all parts. The driver keeps the real references; it asks here only about those that cross
//! nodes. It carries messages exactly once and in order between each two nodes, until it calls [`Owners::peer_died`]. A
//! message that it cannot deliver, since the other node is dead or unknown, it answers with that call, again if need be.
//!
//! Invariant: while a living node has a reference, or one is under way from a living node, the owner has not been told to
//! let go. A reference handed on by a node that died counts for the grace period after that death, or until all that live have
//! said that nothing more of it will come. What is kept is proportional to the references and copies that are about. Messages that no honest node would send change nothing.
//! Left out: making lost objects anew, moving bytes (see [`Pulls`](crate::core::pulls::Pulls)).

mod borrowed;
mod copies;
mod dead;
mod message;
mod owned;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::{NodeId, ObjectKey};
use borrowed::Borrowed;
pub use copies::SLOTS;
use copies::{Answer, Loads};
use dead::Dying;
pub use message::{MAX_HINTS, Message, RefState};
use owned::Owned;

/// How an object stands at its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It has no value yet.
    Pending,
    /// It has a value.
    Ready {
        /// Bytes of its archive.
        len: u64,
        /// The node that has it: this one, or the one that ran the call.
        at: NodeId,
    },
    /// It failed.
    Failed,
}

/// What the driver does after an event, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this. To this very node: hand it in at once.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Take a real reference to this object of ours: others have some.
    Keep(ObjectKey),
    /// As `Keep`, if the object is still there; then call [`Owners::settled`] if it has settled. If not, call
    /// [`Owners::gone`].
    Find(ObjectKey),
    /// Drop the reference taken for `Keep` or `Find`.
    Let(ObjectKey),
    /// An object of another owner has a value, or failed.
    Settled {
        /// The object.
        key: ObjectKey,
        /// Which; never pending.
        state: RefState,
    },
    /// An object of another owner was let go before this node was registered: fail it as lost.
    Gone(ObjectKey),
    /// The owner of an object to which there are references here died: fail it.
    OwnerDied(ObjectKey),
    /// Every copy of this object of ours is lost. Make it anew or not, and call [`Owners::settled`].
    Lost(ObjectKey),
    /// Drop the copy of this object of another owner.
    Free(ObjectKey),
    /// This node breaks the protocol: end its session.
    Misbehaves(NodeId),
}

/// How much is kept, for tests and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Objects of this node that others know.
    pub owned: usize,
    /// Objects of others to which there are references here.
    pub borrowed: usize,
    /// Copies of objects of others.
    pub copies: usize,
    /// References handed on to nodes that have not said that they are registered.
    pub transits: usize,
    /// Dead nodes within their grace period.
    pub dying: usize,
}

/// References and copies, as one node sees them.
#[derive(Debug)]
pub struct Owners {
    me: NodeId,
    grace: Duration,
    owned: BTreeMap<u64, Owned>,
    borrowed: BTreeMap<ObjectKey, Borrowed>,
    /// Copies of objects of others; true: kept until the owner frees it, whether there are references here or not.
    copies: BTreeMap<ObjectKey, bool>,
    /// References that were handed on, and to whom.
    transits: BTreeMap<u64, (ObjectKey, NodeId)>,
    last_transit: u64,
    loads: Loads,
    /// Dead nodes, of which what they handed on may still register.
    dying: BTreeMap<NodeId, Dying>,
    /// Who said of which nodes that they are dead, before this node found that.
    early: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Owners {
    /// A node that shares nothing. What a dead node handed on has `grace` to register: longer than it takes until all nodes
    /// know of a death and a message of before has arrived.
    pub fn new(me: NodeId, grace: Duration) -> Owners {
        Owners {
            me,
            grace,
            owned: BTreeMap::new(),
            borrowed: BTreeMap::new(),
            copies: BTreeMap::new(),
            transits: BTreeMap::new(),
            last_transit: 0,
            loads: Loads::default(),
            dying: BTreeMap::new(),
            early: BTreeMap::new(),
        }
    }

    /// How much is kept.
    pub fn size(&self) -> Size {
        Size {
            owned: self.owned.len(),
            borrowed: self.borrowed.len(),
            copies: self.copies.len(),
            transits: self.transits.len(),
            dying: self.dying.len(),
        }
    }

    /// Whether nothing is shared and nobody serves a pull of an object of this node.
    pub fn is_idle(&self) -> bool {
        self.size() == Size::default() && self.loads.is_empty()
    }

    /// When [`Owners::tick`] has something to do.
    pub fn next_tick(&self) -> Option<Duration> {
        self.dying.values().map(|dying| dying.until).min()
    }

    /// A reference to an object of this node is put into a message to `to`. Returns what the message says of the object;
    /// its transit is 0.
    pub fn export(
        &mut self,
        key: ObjectKey,
        to: NodeId,
        stand: Stand,
        out: &mut Vec<Effect>,
    ) -> RefState {
        debug_assert!(key.owner == self.me && to != self.me, "{key} to {to}");
        let owned = self.owned.entry(key.number).or_default();
        if owned.borrowers.is_empty() {
            out.push(Effect::Keep(key));
        }
        // The driver may not have come to say that it settled.
        if owned.pending() {
            owned.settle(key, stand, out);
        }
        *owned.borrowers.entry(to).or_insert(0) += 1;
        let state = owned.state();
        self.tidy(key.number, out);
        state
    }

    /// A reference to an object of another node, which is held here, is put into a message to `to`. Returns the transit that
    /// the message carries.
    pub fn hand_on(&mut self, key: ObjectKey, to: NodeId) -> u64 {
        debug_assert!(key.owner != self.me && to != self.me, "{key} to {to}");
        self.last_transit += 1;
        // Without it the owner is dead, and the receiver will find out.
        if let Some(borrowed) = self.borrowed.get_mut(&key) {
            borrowed.transits += 1;
            self.transits.insert(self.last_transit, (key, to));
        }
        self.last_transit
    }

    /// What the message says of such an object, as far as it is known here.
    pub fn known(&self, key: ObjectKey) -> RefState {
        self.borrowed
            .get(&key)
            .map_or(RefState::Pending, |b| b.state.clone())
    }

    /// A message from `via` brought a reference. For an object of another node, true: there was none here, so make the proxy.
    pub fn import(
        &mut self,
        key: ObjectKey,
        via: NodeId,
        transit: u64,
        state: RefState,
        out: &mut Vec<Effect>,
    ) -> bool {
        if key.owner == self.me {
            // The giver's own reference has kept it until now; the driver has found it.
            send(out, via, Message::Arrived { transit });
            return false;
        }
        let borrowed = self.borrowed.entry(key).or_default();
        let new = !std::mem::replace(&mut borrowed.local, true);
        if via == key.owner {
            borrowed.received += 1;
            borrowed.registered = true;
        } else if borrowed.registered {
            send(out, via, Message::Arrived { transit });
        } else {
            // Counted by the owner when it sees this, which is before it sees our release.
            borrowed.received += 1;
            borrowed.unanswered.push((via, transit));
            let from = via;
            send(out, key.owner, Message::Borrow { key, from, transit });
        }
        // The giver may know that it has a value; that it failed only its owner says.
        let state = match state {
            RefState::Failed if via != key.owner => RefState::Pending,
            state => state,
        };
        if let Some(state) = borrowed.learn(state) {
            out.push(Effect::Settled { key, state });
        } else if new && borrowed.state != RefState::Pending {
            let state = borrowed.state.clone();
            out.push(Effect::Settled { key, state });
        }
        new
    }

    /// The last local reference to an object of another node is gone.
    pub fn dropped(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        if let Some(borrowed) = self.borrowed.get_mut(&key) {
            borrowed.local = false;
            self.release(key, out);
        }
    }

    /// Tells the owner, if nothing here needs the object.
    fn release(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(borrowed) = self.borrowed.get(&key) else {
            return;
        };
        if borrowed.local || borrowed.transits > 0 {
            return;
        }
        let received = borrowed.received;
        self.borrowed.remove(&key);
        if self.copies.get(&key) == Some(&false) {
            self.copies.remove(&key);
            out.push(Effect::Free(key));
        }
        send(out, key.owner, Message::Release { key, received });
    }

    /// An object of this node settled. To be called if another node knows the object or has its value; else it does nothing.
    /// Once settled it only changes after [`Effect::Lost`].
    pub fn settled(&mut self, key: ObjectKey, stand: Stand, out: &mut Vec<Effect>) {
        debug_assert_eq!(key.owner, self.me, "{key}");
        let remote = matches!(stand, Stand::Ready { at, .. } if at != self.me);
        if remote {
            self.owned.entry(key.number).or_default();
        }
        if let Some(owned) = self.owned.get_mut(&key.number) {
            owned.settle(key, stand, out);
            self.tidy(key.number, out);
        }
    }

    /// The nodes that have references to an object of this one.
    pub fn borrowers(&self, key: ObjectKey) -> Vec<NodeId> {
        let owned = self.owned.get(&key.number);
        owned.map_or_else(Vec::new, |o| o.borrowers.keys().copied().collect())
    }

    /// Whether somebody pulls this object of ours.
    pub fn awaited(&self, key: ObjectKey) -> bool {
        let owned = self.owned.get(&key.number);
        owned.is_some_and(|o| o.copies.awaited())
    }

    /// Whether the last copy of this object of ours is lost, and nothing has come of that yet.
    pub fn is_lost(&self, key: ObjectKey) -> bool {
        self.owned.get(&key.number).is_some_and(Owned::lost)
    }

    /// [`Effect::Find`] found nothing.
    pub fn gone(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        if let Some(mut owned) = self.owned.remove(&key.number) {
            for &to in owned.borrowers.keys() {
                send(out, to, Message::Gone { key });
            }
            let mut answers = Vec::new();
            owned.copies.refuse(&mut self.loads, &mut answers);
            answer(key, answers, out);
        }
    }

    /// The last reference to an object of this node is gone: its copies go. Nothing if nobody else knew of it.
    pub fn forget(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(mut owned) = self.owned.remove(&key.number) else {
            return;
        };
        debug_assert!(owned.borrowers.is_empty(), "{key} is borrowed");
        let mut answers = Vec::new();
        owned.copies.refuse(&mut self.loads, &mut answers);
        answer(key, answers, out);
        for to in owned.copies.nodes().filter(|node| *node != self.me) {
            send(out, to, Message::Free { key });
        }
    }

    /// A call that another node owns put its result here: the copy stays until the owner frees it.
    pub fn hosts(&mut self, key: ObjectKey) {
        if key.owner != self.me {
            self.copies.insert(key, true);
        }
    }

    /// A pull ended with a copy here.
    pub fn copied(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        if key.owner == self.me {
            self.on_copy(self.me, key, out);
        } else if self.borrowed.contains_key(&key) {
            self.copies.entry(key).or_insert(false);
            send(out, key.owner, Message::Copy { key });
        } else if !self.copies.contains_key(&key) {
            // Nobody here wants it any more.
            out.push(Effect::Free(key));
        }
    }

    /// A copy here is lost, or was given up where it need not be kept.
    pub fn copy_lost(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        if key.owner == self.me {
            self.on_copy_gone(self.me, key, out);
        } else if self.copies.remove(&key).is_some() {
            send(out, key.owner, Message::CopyGone { key });
        }
    }

    /// Whether the copy here must be kept: of an object of another node, until that node frees it; of one of this node, as
    /// long as no other node keeps one.
    pub fn must_keep(&self, key: ObjectKey) -> bool {
        if key.owner != self.me {
            return self.copies.get(&key) == Some(&true);
        }
        let kept = self
            .owned
            .get(&key.number)
            .and_then(|owned| owned.copies.kept());
        kept.is_none_or(|node| node == self.me)
    }

    /// The nodes that have a copy of an object of this node, as far as others are concerned: none if nobody else knows it.
    pub fn copies_of(&self, key: ObjectKey) -> impl Iterator<Item = NodeId> + '_ {
        let owned = self.owned.get(&key.number).filter(|_| key.owner == self.me);
        owned.into_iter().flat_map(|owned| owned.copies.nodes())
    }

    /// A message from another node, or from this one.
    pub fn handle(&mut self, from: NodeId, message: Message, out: &mut Vec<Effect>) {
        match message {
            Message::Release { key, .. }
            | Message::Borrow { key, .. }
            | Message::Copy { key }
            | Message::CopyGone { key }
            | Message::Where { key, .. }
            | Message::Stop { key } => {
                if key.owner != self.me {
                    out.push(Effect::Misbehaves(from));
                    return;
                }
            }
            Message::Borrowed { key, .. }
            | Message::Settled { key, .. }
            | Message::Gone { key }
            | Message::Free { key }
            | Message::Pin { key } => {
                if key.owner != from || from == self.me {
                    out.push(Effect::Misbehaves(from));
                    return;
                }
            }
            Message::Arrived { .. } | Message::At { .. } | Message::Buried { .. } => {}
        }
        match message {
            Message::Release { key, received } => self.on_release(from, key, received, out),
            Message::Borrow {
                key,
                from: giver,
                transit,
            } => self.on_borrow(from, key, giver, transit, out),
            Message::Copy { key } => self.on_copy(from, key, out),
            Message::CopyGone { key } => self.on_copy_gone(from, key, out),
            Message::Where { key, ask, failed } => self.on_where(from, key, ask, failed, out),
            Message::Stop { key } => self.on_stop(from, key, out),
            Message::Arrived { transit } => self.on_arrived(from, transit, out),
            Message::Borrowed {
                key,
                from: giver,
                transit,
                state,
            } => self.on_borrowed(key, giver, transit, state, out),
            Message::Settled { key, state } => self.on_settled(key, state, out),
            Message::Gone { key } => {
                if self.borrowed.get(&key).is_some_and(|b| b.local) {
                    out.push(Effect::Gone(key));
                }
            }
            Message::Free { key } => {
                if self.copies.remove(&key).is_some() {
                    out.push(Effect::Free(key));
                }
            }
            Message::Pin { key } => match self.copies.get_mut(&key) {
                Some(keep) => *keep = true,
                None => send(out, from, Message::CopyGone { key }),
            },
            // It is for `Pulls`, to which the driver gives it; and for `buried`.
            Message::At { .. } | Message::Buried { .. } => {}
        }
    }

    fn on_arrived(&mut self, from: NodeId, transit: u64, out: &mut Vec<Effect>) {
        // Unknown: the object's owner died meanwhile.
        let Some(&(key, to)) = self.transits.get(&transit) else {
            return;
        };
        if to != from {
            out.push(Effect::Misbehaves(from));
            return;
        }
        self.transits.remove(&transit);
        if let Some(borrowed) = self.borrowed.get_mut(&key) {
            borrowed.transits -= 1;
            self.release(key, out);
        }
    }

    fn on_borrowed(
        &mut self,
        key: ObjectKey,
        giver: NodeId,
        transit: u64,
        state: RefState,
        out: &mut Vec<Effect>,
    ) {
        // If it was released meanwhile, the giver is to know all the same.
        if giver != self.me {
            send(out, giver, Message::Arrived { transit });
        }
        if let Some(borrowed) = self.borrowed.get_mut(&key) {
            if let Some(at) = borrowed
                .unanswered
                .iter()
                .position(|b| *b == (giver, transit))
            {
                borrowed.unanswered.swap_remove(at);
                borrowed.registered = true;
            }
            self.on_settled(key, state, out);
        }
    }

    fn on_settled(&mut self, key: ObjectKey, state: RefState, out: &mut Vec<Effect>) {
        if let Some(borrowed) = self.borrowed.get_mut(&key)
            && let Some(state) = borrowed.learn(state)
            && borrowed.local
        {
            out.push(Effect::Settled { key, state });
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

fn answer(key: ObjectKey, answers: Vec<Answer>, out: &mut Vec<Effect>) {
    for Answer { to, ask, from } in answers {
        send(out, to, Message::At { key, ask, from });
    }
}
