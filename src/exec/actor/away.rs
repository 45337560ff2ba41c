//! Actors that another node has: a cell without a state, whose calls are sent when their turn comes.
//!
//! Invariant: such a cell lives from its birth until its last handle goes or it is told that the actor has ended; it runs no
//! user code. Left out: sending (`far`).

use std::sync::atomic::Ordering;

use super::super::cell::RawRef;
use super::super::entry::ActorEntry;
use super::super::far::FarActor;
use super::super::local::Local;
use super::super::mail::Mail;
use super::{ActorRef, HandleRef, Life, More, create, life};

/// A handle to an actor of another node.
pub(in super::super) fn far(
    local: &Local,
    entry: &'static ActorEntry,
    name: Option<&str>,
    far: Box<dyn FarActor>,
) -> HandleRef {
    let more = More {
        name: name.map(std::sync::Arc::from),
        far: Some(far),
        ..More::new()
    };
    let id = local.next_object(crate::trace::NOT_RECORDED);
    let born = (id, local.generation());
    let actor = create::new_cell(entry, born, Some(Box::new(more)), 1, Mail::busy());
    actor.life.store(Life::Alive as u8, Ordering::Release);
    // Whoever drains it finds nothing, and leaves the mailbox idle.
    local.engine.push_actor(local, actor.clone());
    HandleRef(actor)
}

/// The actor has ended where it was.
pub(in super::super) fn condemn_far(actor: &ActorRef, cause: &str) {
    life::condemn(actor, false, cause);
}

/// Sends a call whose turn has come.
pub(super) fn send(local: &Local, far: &dyn FarActor, record: RawRef) {
    if record.claim() {
        far.call(local, record);
    }
}
