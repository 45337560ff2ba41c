//! Deaths of nodes, told to whoever of the program asked to hear of them.
//!
//! A listener has a thread of its own: it may block, and neither the cluster nor other listeners wait for it.
//!
//! Invariant: a listener hears of each death once, in the order in which this node learned of them, and after the node's calls,
//! objects and actors have been seen to. Left out: finding deaths (`members`).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use crate::base::NodeId;

/// Why a node is gone that said goodbye.
pub(super) const LEFT: &str = "it left";

/// A node that is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeDeath {
    /// Its number, which no other node will ever have.
    pub node: NodeId,
    /// What it was called.
    pub name: String,
    /// Why it was taken for dead.
    pub cause: String,
    /// Whether it left in order.
    pub left: bool,
}

/// Who listens; nobody any more after the close.
pub(super) struct Notices(Mutex<Option<Vec<Sender<NodeDeath>>>>);

impl Default for Notices {
    fn default() -> Notices {
        Notices(Mutex::new(Some(Vec::new())))
    }
}

impl Notices {
    /// From now until [`Notices::close`] this is called at every death.
    pub fn listen(&self, mut hear: impl FnMut(NodeDeath) + Send + 'static) -> io::Result<()> {
        let (send, deaths) = channel::<NodeDeath>();
        let named = std::thread::Builder::new().name("mobula-deaths".to_owned());
        // It is not waited for at the end: the program's own code may block in it.
        named.spawn(move || {
            for death in deaths {
                // The panic hook has printed it; the next death is told all the same.
                let _ = catch_unwind(AssertUnwindSafe(|| hear(death)));
            }
        })?;
        if let Some(listeners) = &mut *self.0.lock() {
            listeners.push(send);
        }
        Ok(())
    }

    pub fn tell(&self, death: &NodeDeath) {
        for listener in self.0.lock().iter().flatten() {
            // A listener ends only at the close.
            let _ = listener.send(death.clone());
        }
    }

    /// Nothing more is told: the threads end when they have heard what was.
    pub fn close(&self) {
        *self.0.lock() = None;
    }
}
