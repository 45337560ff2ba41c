//! Who died, so that nobody rises; and who was lost, so that a healed partition is noticed.
//!
//! Invariant: at most [`GRAVES_MAX`] numbers and [`LOST_MAX`] addresses are kept, the latest. Left out: who lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::peer::Peer;
use crate::base::NodeId;

/// How many of the dead are remembered. At one death a second that is the last 18 hours.
pub const GRAVES_MAX: usize = 65_536;

/// How many of those who failed are looked for.
pub const LOST_MAX: usize = 1024;

/// The dead.
#[derive(Debug, Default)]
pub struct Graves {
    dead: BTreeSet<NodeId>,
    order: VecDeque<NodeId>,
    lost: BTreeMap<NodeId, (Peer, Duration)>,
}

impl Graves {
    /// Remembers a death.
    pub fn bury(&mut self, node: NodeId) {
        if self.dead.insert(node) {
            self.order.push_back(node);
        }
        if self.order.len() > GRAVES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.dead.remove(&oldest);
            self.lost.remove(&oldest);
        }
    }

    /// Whether it died.
    pub fn has(&self, node: NodeId) -> bool {
        self.dead.contains(&node)
    }

    /// It failed, and may only be cut off: it is looked for until then.
    pub fn seek(&mut self, peer: Peer, until: Duration) {
        if self.lost.len() < LOST_MAX {
            self.lost.insert(peer.node, (peer, until));
        }
    }

    /// Where one that is looked for was.
    pub fn lost(&self, node: NodeId) -> Option<Peer> {
        self.lost.get(&node).map(|(peer, _)| *peer)
    }

    /// The `n`th of those to look for, counted around, once those whose time is up are forgotten.
    pub fn sought(&mut self, now: Duration, n: usize) -> Option<Peer> {
        self.lost.retain(|_, (_, until)| *until > now);
        let at = n.checked_rem(self.lost.len())?;
        self.lost.values().nth(at).map(|(peer, _)| *peer)
    }

    /// How many there are, and how many of them are looked for.
    #[cfg(test)]
    pub fn len(&self) -> (usize, usize) {
        (self.dead.len(), self.lost.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_bounded_and_the_latest_stay() {
        let mut graves = Graves::default();
        let node = |n: usize| NodeId::new(n as u64).unwrap();
        for n in 1..=GRAVES_MAX + 10 {
            graves.bury(node(n));
            graves.bury(node(n));
            graves.seek(
                super::super::codec::named(node(n)),
                Duration::from_secs(n as u64),
            );
        }
        assert_eq!(graves.len(), (GRAVES_MAX, LOST_MAX));
        assert!(!graves.has(node(10)) && graves.has(node(11)));
        assert!(graves.sought(Duration::from_secs(1000), 7).is_some());
        assert_eq!(graves.len().1, 34);
        assert!(graves.sought(Duration::from_secs(70_000), 7).is_none());
    }
}
