//! An object of another node, to which there are references here.
//!
//! Invariant: it is kept while there is a local reference or a transit. Left out: its value.

use super::{MAX_HINTS, RefState};
use crate::base::NodeId;

/// What a borrower keeps of an object.
#[derive(Debug)]
pub struct Borrowed {
    /// References that the owner has counted for this node, or will have when it sees what was sent to it before.
    pub received: u64,
    /// The owner has counted one for certain.
    pub registered: bool,
    /// Asked of the owner: who gave the reference, and its number there.
    pub unanswered: Vec<(NodeId, u64)>,
    /// There are references here.
    pub local: bool,
    /// How many references that were handed on are not registered yet.
    pub transits: usize,
    /// What is known of it.
    pub state: RefState,
}

impl Default for Borrowed {
    fn default() -> Borrowed {
        Borrowed {
            received: 0,
            registered: false,
            unanswered: Vec::new(),
            local: false,
            transits: 0,
            state: RefState::Pending,
        }
    }
}

impl Borrowed {
    /// Takes in what somebody says of the object; `Some` if it is news. A pending object settles once, and one that had a
    /// value may fail, when its copies are lost.
    pub fn learn(&mut self, state: RefState) -> Option<RefState> {
        let news = matches!(
            (&self.state, &state),
            (RefState::Pending, RefState::Ready { .. } | RefState::Failed)
                | (RefState::Ready { .. }, RefState::Failed)
        );
        if !news {
            return None;
        }
        self.state = match state {
            // However many an owner names.
            RefState::Ready { len, mut at } => {
                at.truncate(MAX_HINTS);
                RefState::Ready { len, at }
            }
            state => state,
        };
        Some(self.state.clone())
    }
}
