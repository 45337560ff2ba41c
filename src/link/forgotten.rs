//! Nodes that were declared dead.
//!
//! Invariant: at most [`Forgotten::LIMIT`] are kept; the oldest goes first. A number is drawn by chance once per process, so
//! none is declared dead twice. Left out: who declares it.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use crate::base::NodeId;

/// The dead, as far back as they are remembered.
#[derive(Default)]
pub(crate) struct Forgotten(Mutex<(HashSet<NodeId>, VecDeque<NodeId>)>);

impl Forgotten {
    pub const LIMIT: usize = 65_536;

    pub fn add(&self, node: NodeId) {
        let mut known = self.0.lock();
        let (set, order) = &mut *known;
        if set.insert(node) {
            order.push_back(node);
        }
        if order.len() > Forgotten::LIMIT
            && let Some(oldest) = order.pop_front()
        {
            set.remove(&oldest);
        }
    }

    pub fn has(&self, node: NodeId) -> bool {
        self.0.lock().0.contains(&node)
    }
}
