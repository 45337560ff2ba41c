//! What dead nodes had: for how long it is kept for those to whom they may have handed it on.
//!
//! A node says [`Message::Buried`] when it has found another dead: nothing more of that node's will come there, and what came is
//! registered, by messages of before. When all that live have said so, nobody else can have a reference from the dead one.
//! Who never says it, since it does not find that node dead or was not counted among the living, has the grace period.
//!
//! Another that died about then, without having said it, may have handed on what it had of the dead one: that one must have been buried
//! by all, too.
//!
//! Invariant: a dead node's references count until all that live have said so, or the grace period is over; then they are let
//! go, once. What was handed on *to* the dead one counts for the grace period: its owner is another node, which may hear of the
//! registration later than of the release. Left out: finding the dead, and who lives.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Effect, Owned, Owners, all_of};
use crate::base::NodeId;

/// What others say of deaths that are not known here; beyond it the grace period does.
const MOST_EARLY: usize = 4096;

/// A dead node, which may have had references.
#[derive(Debug, Default)]
pub struct Dying {
    /// When its grace period ends.
    pub until: Duration,
    /// Who has said that it is dead there, too.
    said: BTreeSet<NodeId>,
}

impl Owners {
    /// A node is dead, or was never there. What it handed on may still register for the grace period.
    pub fn peer_died(&mut self, now: Duration, node: NodeId, out: &mut Vec<Effect>) {
        if node == self.me {
            return;
        }
        // Also one without references, as far as is known: what came to it may have been handed on before it was registered here.
        let until = now.saturating_add(self.grace);
        let said = self.early.remove(&node).unwrap_or_default();
        self.dying.entry(node).or_insert(Dying { until, said });
        self.early.retain(|_, said| {
            said.remove(&node);
            !said.is_empty()
        });
        let numbers: Vec<u64> = self.owned.keys().copied().collect();
        for number in numbers {
            if let Some(owned) = self.owned.get_mut(&number) {
                owned.copies.end(node, &mut self.loads);
                self.drop_copy(node, number, out);
            }
        }
        let all = all_of(node);
        for (&key, _) in self.copies.range(all.clone()) {
            out.push(Effect::Free(key));
        }
        self.copies.retain(|key, _| key.owner != node);
        for (&key, borrowed) in self.borrowed.range(all) {
            if borrowed.local {
                out.push(Effect::OwnerDied(key));
            }
        }
        self.borrowed.retain(|key, _| key.owner != node);
        self.transits.retain(|_, (key, _)| key.owner != node);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Effect>) {
        while let Some((&node, _)) = self.dying.iter().find(|(_, dying)| dying.until <= now) {
            self.dying.remove(&node);
            self.unborrow_all(node, out);
            let ours = self.transits.iter().filter(|(_, (_, to))| *to == node);
            let ours: Vec<u64> = ours.map(|(transit, _)| *transit).collect();
            for transit in ours {
                self.on_arrived(node, transit, out);
            }
        }
    }

    /// `by` said [`Message::Buried`](super::Message::Buried) of a node; `lives`: it is not known here to be dead.
    pub fn buried(&mut self, by: NodeId, node: NodeId, lives: bool) {
        if let Some(dying) = self.dying.get_mut(&node) {
            dying.said.insert(by);
        } else if lives && self.early.values().map(BTreeSet::len).sum::<usize>() < MOST_EARLY {
            self.early.entry(node).or_default().insert(by);
        }
    }

    /// Lets go of what the dead had borrowed of whom all others that live have said so. `living`: all that this node knows to be there;
    /// a dead one that is not known to be among them holds things up until it is.
    pub fn let_go_of_the_dead(&mut self, living: &BTreeSet<NodeId>, out: &mut Vec<Effect>) {
        let all_said = |node: &NodeId, dying: &Dying| {
            let mut others = living.iter().filter(|other| *other != node);
            others.all(|other| *other == self.me || dying.said.contains(other))
        };
        let unburied = self.dying.iter().filter(|(n, d)| !all_said(n, d));
        let unburied: BTreeSet<NodeId> = unburied.map(|(node, _)| *node).collect();
        let told = self
            .dying
            .iter()
            .filter(|(node, dying)| !unburied.contains(*node) && unburied.is_subset(&dying.said));
        let told: Vec<NodeId> = told.map(|(node, _)| *node).collect();
        for node in told {
            self.unborrow_all(node, out);
            if !self.transits.values().any(|(_, to)| *to == node) {
                self.dying.remove(&node);
            }
        }
    }

    /// Whether anything is kept for dead nodes.
    pub fn has_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    fn unborrow_all(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        let of_node = |o: &Owned| o.borrowers.contains_key(&node);
        let numbers = self.owned.iter().filter(|(_, o)| of_node(o));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        for number in numbers {
            self.unborrow(node, number, u64::MAX, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, RefState, Stand};
    use super::*;
    use crate::base::ObjectKey;

    const GRACE: Duration = Duration::from_secs(5);

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn set(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().map(|n| node(*n)).collect()
    }

    /// Node 1, with an object that node 2 borrows.
    fn borrowed() -> (Owners, ObjectKey) {
        let mut one = Owners::new(node(1), GRACE);
        let key = ObjectKey {
            owner: node(1),
            number: 7,
        };
        one.export(key, node(2), Stand::Pending, &mut Vec::new());
        (one, key)
    }

    fn lets(one: &mut Owners, living: &[u64]) -> Vec<Effect> {
        let mut out = Vec::new();
        one.let_go_of_the_dead(&set(living), &mut out);
        out
    }

    #[test]
    fn it_is_let_go_once_all_others_have_buried_the_dead_one() {
        let (mut one, key) = borrowed();
        // One of them is earlier than this node itself.
        one.buried(node(3), node(2), true);
        assert_eq!(lets(&mut one, &[1, 2, 3, 4]), []);
        one.peer_died(Duration::ZERO, node(2), &mut Vec::new());
        assert_eq!(lets(&mut one, &[1, 3, 4]), [], "4 may still have something");
        one.buried(node(4), node(2), false);
        assert_eq!(lets(&mut one, &[1, 3, 4, 5]), [], "nor has 5 said it");
        assert_eq!(lets(&mut one, &[1, 2, 3, 4]), [Effect::Let(key)]);
        assert!(one.is_idle() && one.early.is_empty());
    }

    #[test]
    fn one_that_died_without_having_said_it_is_to_be_buried_too() {
        let (mut one, key) = borrowed();
        one.peer_died(Duration::ZERO, node(2), &mut Vec::new());
        one.buried(node(4), node(2), false);
        // 3 had something of 2's, which it may have handed on to 4.
        one.peer_died(Duration::ZERO, node(3), &mut Vec::new());
        assert_eq!(lets(&mut one, &[1, 4]), [], "4 may still hear from 3");
        one.buried(node(4), node(3), false);
        assert_eq!(lets(&mut one, &[1, 4]), [Effect::Let(key)]);
        assert!(one.is_idle());
        // One that had said it has nothing more of the dead one's.
        let (mut one, key) = borrowed();
        one.peer_died(Duration::ZERO, node(2), &mut Vec::new());
        for by in [3, 4] {
            one.buried(node(by), node(2), false);
        }
        one.peer_died(Duration::ZERO, node(3), &mut Vec::new());
        assert_eq!(lets(&mut one, &[1, 4]), [Effect::Let(key)]);
    }

    #[test]
    fn who_never_says_it_has_the_grace_period() {
        let (mut one, key) = borrowed();
        one.peer_died(Duration::ZERO, node(2), &mut Vec::new());
        assert_eq!(lets(&mut one, &[3]), []);
        let mut out = Vec::new();
        one.tick(GRACE, &mut out);
        assert_eq!(out, [Effect::Let(key)]);
        assert_eq!(lets(&mut one, &[3]), []);
    }

    #[test]
    fn what_was_handed_on_to_the_dead_one_has_the_grace_period_in_any_case() {
        let mut two = Owners::new(node(2), GRACE);
        let key = ObjectKey {
            owner: node(1),
            number: 7,
        };
        two.import(key, node(1), 0, RefState::Pending, &mut Vec::new());
        two.hand_on(key, node(3));
        two.peer_died(Duration::ZERO, node(3), &mut Vec::new());
        two.buried(node(1), node(3), false);
        assert_eq!(lets(&mut two, &[1]), []);
        assert_eq!(two.size().transits, 1);
        let mut out = Vec::new();
        two.tick(GRACE, &mut out);
        assert_eq!((two.size().transits, out), (0, vec![]));
    }

    #[test]
    fn whoever_says_it_of_everybody_takes_no_room() {
        let (mut one, _) = borrowed();
        for dead in 1..2 * MOST_EARLY as u64 {
            one.buried(node(3), node(100_000 + dead), false);
        }
        assert!(one.early.is_empty());
        for dead in 1..2 * MOST_EARLY as u64 {
            one.buried(node(3), node(100_000 + dead), true);
        }
        assert_eq!(one.early.len(), MOST_EARLY);
        one.peer_died(Duration::ZERO, node(3), &mut Vec::new());
        assert!(one.early.is_empty());
        let buried = Message::Buried { node: node(9) };
        let mut out = Vec::new();
        one.handle(node(2), buried, &mut out);
        assert_eq!(out, [], "it is for `buried`");
    }
}
