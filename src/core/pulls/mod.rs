//! The puller's side of moving objects: one transfer per object, from whom its owner says.
//!
//! Each wanted object is asked for once. The owner answers when a source has room; then the transfer waits here for room of
//! its own. Small objects go first, but after [`RUN`] of them in a row a large one has its turn, so neither starves. A
//! transfer that fails is asked for again, a bounded number of times, and the owner learns which source failed.
//!
//! Invariant: every wanted object ends in exactly one [`Effect::Here`] or [`Effect::Failed`], unless nobody wants it any
//! more. Transfers and their bytes in flight stay within [`Limits`], save that one object of any size may travel alone.
//! What is kept is proportional to the objects wanted. Left out: carrying bytes; and when to want (the driver wants an
//! object that has settled elsewhere).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::owners::Message;
use crate::base::{NodeId, ObjectKey};

/// Objects up to this many bytes are small.
pub const SMALL: u64 = 256 << 10;

/// How many small objects in a row pass a large one that waits.
pub const RUN: u32 = 8;

/// How much may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transfers at a time.
    pub transfers: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How often an object is tried.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            transfers: 16,
            bytes: 1 << 30,
            attempts: 8,
        }
    }
}

/// Why an object did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The owner is dead.
    OwnerDied,
    /// The owner knows of no copy.
    NoSource,
    /// So many transfers of it failed.
    Attempts(u32),
}

/// What the driver does after an event, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this; to this very node: hand it to its [`Owners`](crate::core::owners::Owners) at once.
    Send {
        /// The object's owner.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Start a transfer. It ends with [`Pulls::fetched`] or [`Pulls::fetch_failed`].
    Fetch {
        /// The object.
        key: ObjectKey,
        /// From whom.
        from: NodeId,
        /// Tells this transfer from all others.
        transfer: u64,
        /// How many transfers of it failed before: pause a while first, longer each time.
        failures: u32,
    },
    /// Give this transfer up; what is reported of it later is ignored.
    Abort {
        /// Which.
        transfer: u64,
    },
    /// The object is here: all that wanted it have it.
    Here(ObjectKey),
    /// It does not come: tell all that wanted it.
    Failed(ObjectKey, Why),
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The owner has not answered this question.
    Asked(u64),
    /// There is a source, and no room here; its place in line.
    Waits(NodeId, u64),
    /// Under way.
    Fetching(NodeId, u64),
}

#[derive(Debug)]
struct Pull {
    len: u64,
    wants: usize,
    failures: u32,
    phase: Phase,
}

/// The objects that this node pulls.
#[derive(Debug)]
pub struct Pulls {
    me: NodeId,
    limits: Limits,
    pulls: BTreeMap<ObjectKey, Pull>,
    /// Those that wait for room here, by place.
    small: BTreeMap<u64, ObjectKey>,
    large: BTreeMap<u64, ObjectKey>,
    /// Small ones in a row that passed a large one.
    run: u32,
    transfers: usize,
    bytes: u64,
    /// Numbers questions, places in line and transfers.
    last: u64,
}

impl Pulls {
    /// Pulls nothing.
    pub fn new(me: NodeId, limits: Limits) -> Pulls {
        Pulls {
            me,
            limits: Limits {
                transfers: limits.transfers.max(1),
                attempts: limits.attempts.max(1),
                ..limits
            },
            pulls: BTreeMap::new(),
            small: BTreeMap::new(),
            large: BTreeMap::new(),
            run: 0,
            transfers: 0,
            bytes: 0,
            last: 0,
        }
    }

    /// How many objects are wanted.
    pub fn len(&self) -> usize {
        self.pulls.len()
    }

    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Transfers under way, and their bytes.
    pub fn under_way(&self) -> (usize, u64) {
        (self.transfers, self.bytes)
    }

    /// Somebody here wants an object of `len` bytes that is elsewhere.
    pub fn want(&mut self, key: ObjectKey, len: u64, out: &mut Vec<Effect>) {
        if let Some(pull) = self.pulls.get_mut(&key) {
            pull.wants += 1;
            return;
        }
        let pull = Pull {
            len,
            wants: 1,
            failures: 0,
            phase: Phase::Asked(0),
        };
        self.pulls.insert(key, pull);
        self.ask(key, None, out);
    }

    /// One of those that wanted it does so no more.
    pub fn cancel(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        let Some(pull) = self.pulls.get_mut(&key) else {
            return;
        };
        pull.wants -= 1;
        if pull.wants == 0 {
            self.end(key, out);
            send(out, key.owner, Message::Stop { key });
            self.pump(out);
        }
    }

    /// The owner's answer, [`Message::At`].
    pub fn on_at(
        &mut self,
        by: NodeId,
        key: ObjectKey,
        ask: u64,
        from: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        let Some(pull) = self.pulls.get_mut(&key) else {
            return;
        };
        // It answers a question that was withdrawn, or is none of its sender's business.
        if pull.phase != Phase::Asked(ask) || by != key.owner {
            return;
        }
        let Some(from) = from else {
            self.end(key, out);
            out.push(Effect::Failed(key, Why::NoSource));
            return;
        };
        if from == self.me || from == NodeId::NONE {
            self.failed(key, from, out);
            return;
        }
        self.last += 1;
        pull.phase = Phase::Waits(from, self.last);
        let line = if pull.len <= SMALL {
            &mut self.small
        } else {
            &mut self.large
        };
        line.insert(self.last, key);
        self.pump(out);
    }

    /// A transfer ended well, and the store has the object: tell [`Owners::copied`](crate::core::owners::Owners::copied) too.
    pub fn fetched(&mut self, key: ObjectKey, transfer: u64, out: &mut Vec<Effect>) {
        if self.source(key, transfer).is_some() {
            self.leave(key);
            self.pulls.remove(&key);
            out.push(Effect::Here(key));
            self.pump(out);
        }
    }

    /// The object came into the store in another way: it was made here.
    pub fn found(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        if self.pulls.contains_key(&key) {
            self.end(key, out);
            send(out, key.owner, Message::Stop { key });
            out.push(Effect::Here(key));
            self.pump(out);
        }
    }

    /// A transfer failed: the source has the object no more, the connection broke, or the store had no room.
    pub fn fetch_failed(&mut self, key: ObjectKey, transfer: u64, out: &mut Vec<Effect>) {
        if let Some(from) = self.source(key, transfer) {
            self.failed(key, from, out);
            self.pump(out);
        }
    }

    /// A node is dead: what it owned does not come, and what it was sending comes from others.
    pub fn peer_died(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        self.peer_died_but(node, |_| false, out);
    }

    /// As [`peer_died`](Self::peer_died); objects of the dead node for which `others` is true are asked for anew, and whoever carries
    /// the question has it answered by others.
    pub fn peer_died_but(
        &mut self,
        node: NodeId,
        others: impl Fn(ObjectKey) -> bool,
        out: &mut Vec<Effect>,
    ) {
        let concerned = self.pulls.iter().filter(|(key, pull)| {
            let from = match pull.phase {
                Phase::Asked(_) => None,
                Phase::Waits(from, _) | Phase::Fetching(from, _) => Some(from),
            };
            key.owner == node || from == Some(node)
        });
        let concerned: Vec<ObjectKey> = concerned.map(|(key, _)| *key).collect();
        for key in concerned {
            let phase = self.pulls.get(&key).map(|pull| pull.phase);
            if key.owner == node && others(key) {
                match phase {
                    Some(Phase::Asked(_)) => self.ask(key, None, out),
                    Some(Phase::Waits(from, _) | Phase::Fetching(from, _)) if from != node => {}
                    _ => {
                        self.abort(key, out);
                        self.failed(key, node, out);
                    }
                }
            } else if key.owner == node {
                self.end(key, out);
                out.push(Effect::Failed(key, Why::OwnerDied));
            } else {
                self.abort(key, out);
                self.failed(key, node, out);
            }
        }
        self.pump(out);
    }

    /// Whether this transfer is under way: what comes of any other is not wanted.
    pub fn fetches(&self, key: ObjectKey, transfer: u64) -> bool {
        self.source(key, transfer).is_some()
    }

    /// Where a transfer comes from, if it is the one under way.
    fn source(&self, key: ObjectKey, transfer: u64) -> Option<NodeId> {
        match self.pulls.get(&key)?.phase {
            Phase::Fetching(from, current) if current == transfer => Some(from),
            _ => None,
        }
    }

    fn ask(&mut self, key: ObjectKey, failed: Option<NodeId>, out: &mut Vec<Effect>) {
        self.last += 1;
        let ask = self.last;
        if let Some(pull) = self.pulls.get_mut(&key) {
            pull.phase = Phase::Asked(ask);
            send(out, key.owner, Message::Where { key, ask, failed });
        }
    }

    /// An attempt failed; its transfer is over.
    fn failed(&mut self, key: ObjectKey, from: NodeId, out: &mut Vec<Effect>) {
        self.leave(key);
        let Some(pull) = self.pulls.get_mut(&key) else {
            return;
        };
        pull.failures += 1;
        if pull.failures >= self.limits.attempts {
            let why = Why::Attempts(pull.failures);
            self.pulls.remove(&key);
            send(out, key.owner, Message::Stop { key });
            out.push(Effect::Failed(key, why));
        } else {
            self.ask(key, Some(from), out);
        }
    }

    /// Takes it out of line, or its transfer off the count.
    fn leave(&mut self, key: ObjectKey) {
        let Some(pull) = self.pulls.get(&key) else {
            return;
        };
        match pull.phase {
            Phase::Asked(_) => {}
            Phase::Waits(_, place) => {
                self.small.remove(&place);
                self.large.remove(&place);
            }
            Phase::Fetching(..) => {
                self.transfers -= 1;
                self.bytes -= pull.len;
            }
        }
    }

    fn abort(&self, key: ObjectKey, out: &mut Vec<Effect>) {
        if let Some(pull) = self.pulls.get(&key)
            && let Phase::Fetching(_, transfer) = pull.phase
        {
            out.push(Effect::Abort { transfer });
        }
    }

    fn end(&mut self, key: ObjectKey, out: &mut Vec<Effect>) {
        self.abort(key, out);
        self.leave(key);
        self.pulls.remove(&key);
    }

    /// Starts what there is room for.
    fn pump(&mut self, out: &mut Vec<Effect>) {
        while self.transfers < self.limits.transfers {
            let large_turn = self.run >= RUN || self.small.is_empty();
            let line = if large_turn && !self.large.is_empty() {
                &mut self.large
            } else {
                &mut self.small
            };
            let Some(next) = line.first_entry() else {
                return;
            };
            let key = *next.get();
            let Some(pull) = self.pulls.get_mut(&key) else {
                return;
            };
            let fits = self
                .bytes
                .checked_add(pull.len)
                .is_some_and(|sum| sum <= self.limits.bytes);
            if !fits && self.transfers > 0 {
                return;
            }
            let Phase::Waits(from, _) = pull.phase else {
                return;
            };
            next.remove();
            if self.large.is_empty() || pull.len > SMALL {
                self.run = 0;
            } else {
                self.run += 1;
            }
            self.last += 1;
            let transfer = self.last;
            pull.phase = Phase::Fetching(from, transfer);
            self.transfers += 1;
            self.bytes += pull.len;
            out.push(Effect::Fetch {
                key,
                from,
                transfer,
                failures: pull.failures,
            });
        }
    }
}

fn send(out: &mut Vec<Effect>, to: NodeId, message: Message) {
    out.push(Effect::Send { to, message });
}
