//! Where the copies of one object are, and who pulls from which of them.
//!
//! A source serves [`SLOTS`] pulls at once. Who finished a pull is a source too, so a broadcast becomes a tree: the number
//! of copies about triples with each round, and nobody sends more than a few. Who finds no free source waits in line.
//!
//! Invariant: a node is in line or has a source, never both; a source with room and a puller that may use it never wait for
//! each other after [`Copies::dispatch`]. Left out: the transfers themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::base::NodeId;

/// How many pulls of one object a source serves at once.
pub const SLOTS: u32 = 2;

/// How many pulls, of all objects of this owner, each source serves.
#[derive(Debug, Default)]
pub struct Loads(BTreeMap<NodeId, u32>);

impl Loads {
    fn of(&self, node: NodeId) -> u32 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    fn more(&mut self, node: NodeId) {
        *self.0.entry(node).or_insert(0) += 1;
    }

    fn less(&mut self, node: NodeId) {
        if let Some(load) = self.0.get_mut(&node) {
            *load -= 1;
            if *load == 0 {
                self.0.remove(&node);
            }
        }
    }

    /// Whether nobody serves.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One node that pulls.
#[derive(Debug)]
struct Pull {
    ask: u64,
    from: Option<NodeId>,
    /// Sources that failed it.
    bad: Vec<NodeId>,
}

/// What a puller is told.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub to: NodeId,
    pub ask: u64,
    pub from: Option<NodeId>,
}

/// The copies of one object.
#[derive(Debug, Default)]
pub struct Copies {
    /// Each with the pulls that it serves.
    at: BTreeMap<NodeId, u32>,
    /// Those that have room.
    free: BTreeSet<NodeId>,
    /// Whose copy is kept until the owner frees it.
    kept: Option<NodeId>,
    pulls: BTreeMap<NodeId, Pull>,
    line: VecDeque<NodeId>,
    /// Pulls that have a source.
    active: usize,
}

impl Copies {
    /// A node has a copy; the first one is the one kept.
    pub fn add(&mut self, node: NodeId) {
        self.at.entry(node).or_insert_with(|| {
            self.free.insert(node);
            0
        });
        self.kept.get_or_insert(node);
    }

    /// A node has none any more. True: it was the one kept.
    pub fn remove(&mut self, node: NodeId) -> bool {
        self.at.remove(&node);
        self.free.remove(&node);
        let kept = self.kept == Some(node);
        if kept {
            self.kept = None;
        }
        kept
    }

    /// Chooses another copy to be kept, if there is one.
    pub fn keep_another(&mut self, me: NodeId) -> Option<NodeId> {
        let mine = self.at.contains_key(&me).then_some(me);
        self.kept = mine.or_else(|| self.at.keys().next().copied());
        self.kept
    }

    /// Whose copy is kept.
    pub fn kept(&self) -> Option<NodeId> {
        self.kept
    }

    /// The nodes that have a copy.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.at.keys().copied()
    }

    /// Whether no node but this one has a copy, and nobody pulls.
    pub fn only_at(&self, me: NodeId) -> bool {
        self.pulls.is_empty() && self.at.keys().all(|node| *node == me)
    }

    /// Whether there is no copy and nobody is about to have one.
    pub fn none_left(&self) -> bool {
        self.at.is_empty() && self.active == 0
    }

    /// Whether somebody pulls.
    pub fn awaited(&self) -> bool {
        !self.pulls.is_empty()
    }

    /// A node asks for a source; what it asked before is void.
    pub fn ask(&mut self, node: NodeId, ask: u64, failed: Option<NodeId>, loads: &mut Loads) {
        let mut bad = match self.pulls.remove(&node) {
            Some(pull) => {
                self.leave(node, &pull, loads);
                let mut bad = pull.bad;
                // Only a source that it was told of, so that what is remembered is bounded.
                bad.extend(pull.from.filter(|from| failed == Some(*from)));
                bad
            }
            None => Vec::new(),
        };
        bad.retain(|node| self.at.contains_key(node));
        self.pulls.insert(
            node,
            Pull {
                ask,
                from: None,
                bad,
            },
        );
        self.line.push_back(node);
    }

    /// A node pulls no more.
    pub fn end(&mut self, node: NodeId, loads: &mut Loads) {
        if let Some(pull) = self.pulls.remove(&node) {
            self.leave(node, &pull, loads);
        }
    }

    fn leave(&mut self, node: NodeId, pull: &Pull, loads: &mut Loads) {
        match pull.from {
            Some(from) => {
                self.active -= 1;
                loads.less(from);
                // Absent if it lost its copy meanwhile; then it may also have a new one, which serves nobody.
                if let Some(serves) = self.at.get_mut(&from) {
                    *serves = serves.saturating_sub(1);
                    self.free.insert(from);
                }
            }
            None => self.line.retain(|waits| *waits != node),
        }
    }

    /// Nobody will have it: whoever pulls is told so.
    pub fn refuse(&mut self, loads: &mut Loads, answers: &mut Vec<Answer>) {
        while let Some((&to, pull)) = self.pulls.first_key_value() {
            // Those with a source are answered already, and find out there.
            if pull.from.is_none() {
                let ask = pull.ask;
                answers.push(Answer {
                    to,
                    ask,
                    from: None,
                });
            }
            self.end(to, loads);
        }
    }

    /// Gives sources with room to those in line.
    pub fn dispatch(&mut self, loads: &mut Loads, answers: &mut Vec<Answer>) {
        let mut at = 0;
        while at < self.line.len() && (!self.free.is_empty() || self.active == 0) {
            let to = self.line[at];
            let Some(pull) = self.pulls.get_mut(&to) else {
                self.line.remove(at);
                continue;
            };
            let able = |node: &NodeId| *node != to && !pull.bad.contains(node);
            let mut best = self.free.iter().copied().filter(able).collect::<Vec<_>>();
            if best.is_empty() && self.active == 0 && !pull.bad.is_empty() {
                // All failed it, perhaps for a moment only. How often it tries is bounded by itself.
                pull.bad.clear();
                best = self
                    .free
                    .iter()
                    .copied()
                    .filter(|node| *node != to)
                    .collect();
            }
            let rank = |node: &NodeId| (loads.of(*node), self.at.get(node).copied());
            let Some(from) = best.into_iter().min_by_key(rank) else {
                // Lost, which the owner sees to; or others are about to have it.
                at += 1;
                continue;
            };
            pull.from = Some(from);
            self.active += 1;
            loads.more(from);
            if let Some(serves) = self.at.get_mut(&from) {
                *serves += 1;
                if *serves >= SLOTS {
                    self.free.remove(&from);
                }
            }
            let (ask, from) = (pull.ask, pull.from);
            self.line.remove(at);
            answers.push(Answer { to, ask, from });
        }
    }
}
