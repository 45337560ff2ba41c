//! Handles to actors of other nodes: an actor's cell here whose calls are sent to where the actor is.
//!
//! The mailbox, the order of each caller's calls, and calls that wait for their arguments are as for an actor of this node; when a
//! call's turn comes it is sent instead of run, and the next one does not wait for it.
//!
//! Invariant: calls are sent in the order in which they would have run. Left out: sending.

use super::super::actor::{self, HandleRef};
use super::super::cell::RawRef;
use super::super::engine::Engine;
use super::super::entry::ActorEntry;
use super::super::local::Local;
use crate::base::{ActorKey, ObjectKey};

/// The other end of a handle. Dropped when the last handle of this node is gone and its calls are sent.
pub trait FarActor: Send + Sync {
    /// Sends a claimed call; it is settled later. May be called by several threads, one after the other.
    fn call(&self, local: &Local, record: RawRef);
    /// Ends the actor, or has it made again.
    fn kill(&self, restart: bool);
    /// The cell has ended: this node has no handle any more, or the actor is dead.
    fn gone(&self);
    /// The actor's name among all nodes.
    fn key(&self) -> Option<ObjectKey>;
    /// If its history is kept: its first name, and how often it was made.
    fn kept(&self) -> Option<(ActorKey, u64)> {
        None
    }
    /// A call that was sent is not wanted any more.
    fn cancel(&self, _record: &RawRef) {}
}

impl Engine {
    /// A handle to an actor of another node.
    pub fn far_handle(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        name: Option<&str>,
        far: Box<dyn FarActor>,
    ) -> HandleRef {
        actor::far(local, entry, name, far)
    }

    /// The actor is known to have ended, by this cause: calls not sent yet fail, as do later ones.
    pub fn far_ended(&self, handle: &actor::ActorRef, cause: &str) {
        actor::condemn_far(handle, cause);
    }
}
