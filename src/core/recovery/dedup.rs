//! What came of calls, for as long as their callers may ask again.
//!
//! A caller says with each call below which number it has settled all of its calls; what is kept of it is what lies above, and what
//! it excepts since it may ask for it once more.
//!
//! Invariant: a call that was accepted is known until its caller has settled it, without an exception, or is dead, and no call of a dead one is new; what is
//! kept is proportional to the calls that callers have not settled. Left out: when an outcome may be told ([`Host`](super::Host)).

use std::collections::BTreeMap;

use super::{CallId, Settled};
use crate::base::NodeId;

/// The floor of a node that is dead.
const DEAD: u64 = u64::MAX;
/// Dead callers that are remembered, at most.
const GRAVES: usize = 1024;

/// How far a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage<P> {
    /// It waits for its turn, or only looks at the state.
    Taken,
    /// It is in the log, at this place; what came of it, once it has ended.
    Logged(u64, Option<P>),
}

/// A call that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<P> {
    /// How far it is.
    pub stage: Stage<P>,
    /// Its caller has sent it to this incarnation, and waits.
    pub asked: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Calls<P> {
    /// All below are settled.
    floor: u64,
    known: BTreeMap<u64, Known<P>>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup<P> {
    nodes: BTreeMap<NodeId, Calls<P>>,
}

impl<P> Default for Dedup<P> {
    fn default() -> Dedup<P> {
        Dedup {
            nodes: BTreeMap::new(),
        }
    }
}

impl<P: Clone> Dedup<P> {
    /// From what [`Dedup::floors`] and [`Dedup::outcomes`] gave.
    pub fn from_parts(
        floors: impl IntoIterator<Item = (NodeId, u64)>,
        outcomes: impl IntoIterator<Item = (CallId, u64, P)>,
    ) -> Dedup<P> {
        let mut made = Dedup::default();
        for (node, floor) in floors {
            made.calls(node).floor = floor;
        }
        for (call, order, outcome) in outcomes {
            let stage = Stage::Logged(order, Some(outcome));
            let asked = false;
            let known = &mut made.calls(call.node).known;
            known.insert(call.number, Known { stage, asked });
        }
        made
    }

    /// Below which numbers each node has settled its calls.
    pub fn floors(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.nodes.iter().map(|(node, calls)| (*node, calls.floor))
    }

    /// Calls that have ended, with their places and what came of them.
    pub fn outcomes(&self) -> impl Iterator<Item = (CallId, u64, &P)> {
        self.nodes.iter().flat_map(|(&node, calls)| {
            calls.known.iter().filter_map(move |(&number, known)| {
                let Stage::Logged(order, Some(outcome)) = &known.stage else {
                    return None;
                };
                Some((CallId { node, number }, *order, outcome))
            })
        })
    }

    /// What goes into a checkpoint: the calls that have run.
    pub fn ran(&self) -> Dedup<P> {
        let nodes = self.nodes.iter().map(|(&node, calls)| {
            let ended = |known: &&Known<P>| matches!(known.stage, Stage::Logged(_, Some(_)));
            let known = calls.known.iter().filter(|(_, known)| ended(known));
            let known = known.map(|(&number, known)| {
                let stage = known.stage.clone();
                let asked = false;
                (number, Known { stage, asked })
            });
            let known = known.collect();
            let floor = calls.floor;
            (node, Calls { floor, known })
        });
        let nodes = nodes.collect();
        Dedup { nodes }
    }

    fn calls(&mut self, node: NodeId) -> &mut Calls<P> {
        self.nodes.entry(node).or_insert_with(|| Calls {
            floor: 0,
            known: BTreeMap::new(),
        })
    }

    /// A node has settled these of its calls.
    pub fn settle(&mut self, node: NodeId, settled: &Settled) {
        let calls = self.calls(node);
        if settled.below < calls.floor {
            return;
        }
        calls.floor = settled.below;
        let first = calls.known.first_key_value();
        if first.is_none_or(|(number, _)| *number >= settled.below) {
            return;
        }
        let above = calls.known.split_off(&settled.below);
        let below = std::mem::replace(&mut calls.known, above);
        let excepted = |(number, _): &(u64, _)| settled.but.binary_search(number).is_ok();
        calls.known.extend(below.into_iter().filter(excepted));
    }

    /// Whether anything is known of calls that are settled by this.
    pub fn has_any(&self, node: NodeId, settled: &Settled) -> bool {
        let calls = self.nodes.get(&node).map(|calls| &calls.known);
        let known = calls.map(|known| known.range(..settled.below));
        known.is_some_and(|mut known| known.any(|(n, _)| settled.but.binary_search(n).is_err()))
    }

    /// A call came, or is asked for again. False: it is settled.
    pub fn take(&mut self, call: CallId) -> bool {
        let calls = self.calls(call.node);
        if call.number < calls.floor {
            let known = calls.known.get_mut(&call.number);
            return known.map(|known| known.asked = true).is_some();
        }
        let taken = Known {
            stage: Stage::Taken,
            asked: true,
        };
        calls.known.entry(call.number).or_insert(taken).asked = true;
        true
    }

    /// A call was given its place.
    pub fn logged(&mut self, call: CallId, order: u64) {
        let calls = self.calls(call.node);
        if call.number < calls.floor {
            return;
        }
        let asked = calls.known.get(&call.number).is_some_and(|k| k.asked);
        let stage = Stage::Logged(order, None);
        calls.known.insert(call.number, Known { stage, asked });
    }

    /// A call in the log has ended.
    pub fn ended(&mut self, call: CallId, outcome: P) {
        let calls = self.nodes.get_mut(&call.node);
        if let Some(known) = calls.and_then(|calls| calls.known.get_mut(&call.number))
            && let Stage::Logged(_, ended) = &mut known.stage
        {
            ended.get_or_insert(outcome);
        }
    }

    /// What is known of a call.
    pub fn get(&self, call: CallId) -> Option<&Known<P>> {
        self.nodes.get(&call.node)?.known.get(&call.number)
    }

    /// What a node has settled.
    pub fn settled(&self, node: NodeId) -> Settled {
        let Some(calls) = self.nodes.get(&node) else {
            return Settled::default();
        };
        let below = calls.floor;
        let but = calls.known.range(..below).map(|(number, _)| *number);
        Settled {
            below,
            but: but.collect(),
        }
    }

    /// Its caller was told what came of it, and waits no more.
    pub fn answered(&mut self, call: CallId) {
        let calls = self.nodes.get_mut(&call.node);
        if let Some(known) = calls.and_then(|calls| calls.known.get_mut(&call.number)) {
            known.asked = false;
        }
    }

    /// Forgets a call.
    pub fn remove(&mut self, call: CallId) {
        if let Some(calls) = self.nodes.get_mut(&call.node) {
            calls.known.remove(&call.number);
        }
    }

    /// A node is dead, and asks for nothing any more. Others may not know that yet when they take over, and it may go on for
    /// a while: that it has called is remembered, so that nothing of it runs twice.
    pub fn gone(&mut self, node: NodeId) {
        if self.nodes.contains_key(&node) {
            self.settle(node, &Settled::below(DEAD));
        }
        let mut dead = self.nodes.iter().filter(|(_, calls)| calls.floor == DEAD);
        if let Some((&first, _)) = dead.next()
            && dead.count() >= GRAVES
        {
            self.nodes.remove(&first);
        }
    }

    /// Nodes that have called.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// Calls that are known.
    pub fn len(&self) -> usize {
        self.nodes.values().map(|calls| calls.known.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
