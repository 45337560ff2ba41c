//! Large results that go along with checkpoints: each goes to a backup once, and stays there while checkpoints name it.
//!
//! Invariant: what is remembered of a backup is what went to it with the last checkpoint; what is kept of an actor elsewhere came with its
//! host's last one, and is gone with the history. Left out: which results go along (`load`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::load::Came;
use crate::base::{ActorKey, NodeId};
use crate::core::recovery::CallId;

/// In place of an incarnation: what was read outside of all nodes, which nothing follows. Below all of them.
pub(super) const READ: u64 = 0;

/// What came, by call.
pub(super) type Results = HashMap<CallId, Arc<Came>>;

/// See the file.
#[derive(Default)]
pub(super) struct Along {
    /// Calls of actors here whose results backups have.
    sent: HashMap<(ActorKey, NodeId), BTreeSet<CallId>>,
    /// Results of actors elsewhere, and of which incarnation they are.
    came: HashMap<ActorKey, (u64, Results)>,
}

impl Along {
    /// What a backup has of an actor here; nothing if it begins only now.
    pub fn sent_to(&mut self, actor: ActorKey, to: NodeId, begins: bool) -> BTreeSet<CallId> {
        let sent = self.sent.remove(&(actor, to)).unwrap_or_default();
        if begins { BTreeSet::new() } else { sent }
    }

    /// These went to it, or had before.
    pub fn sends(&mut self, actor: ActorKey, to: NodeId, calls: BTreeSet<CallId>) {
        if !calls.is_empty() {
            self.sent.insert((actor, to), calls);
        }
    }

    /// What came with the checkpoint before.
    pub fn came_before(&self, actor: ActorKey, incarnation: u64) -> Results {
        match self.came.get(&actor) {
            Some((of, results)) if *of == incarnation => results.clone(),
            _ => Results::new(),
        }
    }

    /// These came with a checkpoint, or had before. What an earlier incarnation sent late changes nothing.
    pub fn came(&mut self, actor: ActorKey, incarnation: u64, results: Results) {
        if self
            .came
            .get(&actor)
            .is_some_and(|(of, _)| *of > incarnation)
        {
            return;
        }
        if results.is_empty() {
            self.came.remove(&actor);
        } else {
            self.came.insert(actor, (incarnation, results));
        }
    }

    /// This node keeps nothing of an actor elsewhere.
    pub fn forget(&mut self, actor: ActorKey) {
        self.came.remove(&actor);
    }

    /// What was read outside of all nodes is made into an actor, or was of no use; what a host sent meanwhile stays.
    pub fn forget_read(&mut self, actor: ActorKey) {
        if self.came.get(&actor).is_some_and(|(of, _)| *of == READ) {
            self.came.remove(&actor);
        }
    }

    /// An actor is not here any more.
    pub fn left(&mut self, actor: ActorKey) {
        self.sent.retain(|(of, _), _| *of != actor);
    }

    /// A node is dead.
    pub fn died(&mut self, node: NodeId) {
        self.sent.retain(|(_, to), _| *to != node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn actor(number: u64) -> ActorKey {
        let host = node(1);
        ActorKey { host, number }
    }

    fn calls(numbers: &[u64]) -> BTreeSet<CallId> {
        let node = node(3);
        let call = |&number: &u64| CallId { node, number };
        numbers.iter().map(call).collect()
    }

    #[test]
    fn a_backup_has_what_went_with_the_last_checkpoint() {
        let mut along = Along::default();
        along.sends(actor(1), node(2), calls(&[1, 2]));
        along.sends(actor(2), node(2), calls(&[9]));
        assert_eq!(along.sent_to(actor(1), node(2), false), calls(&[1, 2]));
        along.sends(actor(1), node(2), calls(&[2]));
        assert_eq!(along.sent_to(actor(1), node(2), false), calls(&[2]));
        along.sends(actor(1), node(2), calls(&[2]));
        assert_eq!(along.sent_to(actor(1), node(2), true), calls(&[]), "anew");
        along.left(actor(1));
        along.died(node(2));
        assert_eq!(along.sent_to(actor(2), node(2), false), calls(&[]));
    }

    #[test]
    fn results_of_another_incarnation_are_not_those_of_before() {
        let mut along = Along::default();
        let results = |number| {
            let node = node(3);
            let came = Came::Failed(Vec::new());
            Results::from([(CallId { node, number }, Arc::new(came))])
        };
        along.came(actor(1), 1, results(7));
        assert_eq!(along.came_before(actor(1), 1).len(), 1);
        assert_eq!(along.came_before(actor(1), 2).len(), 0);
        along.came(actor(1), 2, Results::new());
        assert_eq!(along.came_before(actor(1), 2).len(), 0);
        along.came(actor(1), 2, results(8));
        along.came(actor(1), 1, Results::new());
        along.came(actor(1), READ, results(9));
        along.forget_read(actor(1));
        assert_eq!(along.came_before(actor(1), 2).len(), 1, "it is the latest");
        along.forget(actor(1));
        assert_eq!(along.came_before(actor(1), 2).len(), 0);
    }
}
