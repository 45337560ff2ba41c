//! What nodes tell each other of the dead, so that what those had borrowed is let go before the grace period is over.
//!
//! Invariant: a node says it after it has dropped what still comes from the dead one. Left out: finding the dead (`world`).

use std::collections::BTreeSet;

use crate::base::NodeId;
use crate::core::owners::Message;
use crate::faults::Fault;
use crate::node::{Cx, Node};

impl Node {
    fn others(&self, cx: &Cx<'_>) -> BTreeSet<NodeId> {
        let all = (1..=cx.net.nodes()).filter_map(NodeId::new);
        all.filter(|node| *node != self.id && !self.is_dead(*node))
            .collect()
    }

    /// All others are told that this node holds that one for dead.
    pub fn tell_burial(&mut self, cx: &mut Cx<'_>, dead: NodeId) {
        let others = self.others(cx);
        for &to in &others {
            self.post(cx, to, Message::Buried { node: dead });
        }
        let awaited = match self.fault {
            Fault::OwnBurial => BTreeSet::new(),
            _ => others,
        };
        self.owners(cx, |o, out| o.let_go_of_the_dead(&awaited, out));
    }

    /// Another says so.
    pub fn hear_burial(&mut self, cx: &mut Cx<'_>, from: NodeId, dead: NodeId) {
        let lives = !self.is_dead(dead);
        self.owners.buried(from, dead, lives);
        let others = self.others(cx);
        let before = self.owners.size();
        self.owners(cx, |o, out| o.let_go_of_the_dead(&others, out));
        cx.log.report.let_go_early += u64::from(self.owners.size().owned < before.owned);
    }
}
