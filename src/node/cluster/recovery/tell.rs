//! What is said to other nodes about actors that keep their history.
//!
//! Invariant: nothing is counted for a node that is not there; what is too long for a frame goes in parts that follow each other. Left
//! out: why it is said.

use std::sync::Arc;

use super::caller::Asked;
use super::host::Input;
use super::load::{Came, Load};
use crate::base::{ActorKey, NodeId};
use crate::core::recovery::host::Event;
use crate::core::recovery::{CallId, ToBackup, ToHost};
use crate::exec::Local;
use crate::node::cluster::Cluster;
use crate::node::cluster::books::Books;
use crate::wire::{Frame, Outcome, Recovering};

/// Messages are parted that are longer.
const PART: usize = 8 << 20;
/// A state, or calls, of more bytes are kept by nobody: sending them would take longer than a silence may.
pub(super) const MOST: u64 = 1 << 30;

impl Cluster {
    /// Sends a message about an actor; one that is too long in parts.
    pub(super) fn send_recovering(
        &self,
        books: &mut Books,
        to: NodeId,
        message: Recovering,
    ) -> bool {
        let frame = Frame::Recover {
            message: Box::new(message),
        };
        let bytes = frame.encode();
        if bytes.len() <= PART {
            return self.send_bytes(books, to, bytes);
        }
        let count = bytes[1..].chunks(PART).count();
        bytes[1..].chunks(PART).enumerate().all(|(at, part)| {
            let message = Recovering::Part {
                last: at + 1 == count,
                bytes: part.to_vec(),
            };
            let message = Box::new(message);
            self.send_surely(books, to, &Frame::Recover { message })
        })
    }

    pub(super) fn tell_recovering(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        message: Recovering,
    ) {
        self.with(local, |books, _| {
            if books.peers.contains_key(&to) {
                self.send_recovering(books, to, message);
            }
        });
    }

    /// What a host says to a backup.
    pub(super) fn send_to_backup(
        self: &Arc<Cluster>,
        local: &Local,
        actor: ActorKey,
        to: NodeId,
        message: ToBackup<Load>,
    ) {
        if !self.books.lock().peers.contains_key(&to) {
            return;
        }
        let (incarnation, beat, checkpoint, entries) = match message {
            ToBackup::Look { incarnation } => {
                let look = Recovering::Look { actor, incarnation };
                return self.tell_recovering(local, to, look);
            }
            ToBackup::Forget { incarnation } => {
                let forget = Recovering::Forget { actor, incarnation };
                return self.tell_recovering(local, to, forget);
            }
            ToBackup::Save {
                incarnation,
                beat,
                checkpoint,
                entries,
            } => (incarnation, beat, checkpoint, entries),
        };
        let state = checkpoint.as_ref().map_or(0, |c| c.bytes);
        let calls: u64 = entries.iter().map(|entry| entry.bytes).sum();
        if state.saturating_add(calls) > MOST {
            // Nobody is sent so much at once: as if that node had no room for it.
            if let Some(host) = self.recovery.host(actor) {
                let message = ToHost::Declined { incarnation };
                let event = Event::Message { from: to, message };
                host.post(local, Input::Machine(event));
            }
            return;
        }
        let checkpoint = checkpoint
            .and_then(|c| self.export_checkpoint(local, to, (actor, beat == 1), &c))
            .map(Box::new);
        let outs = entries.iter().filter_map(|entry| match &entry.load {
            Load::Call(kept) => Some((entry, self.out_kept(kept)?)),
            _ => None,
        });
        let outs: Vec<_> = outs.collect();
        self.with(local, |books, todo| {
            let entries = outs.into_iter();
            let message = Recovering::Save {
                actor,
                incarnation,
                beat,
                checkpoint,
                entries: entries
                    .map(|out| self.export_entry(books, todo, to, out))
                    .collect(),
            };
            self.send_recovering(books, to, message);
        });
    }

    /// Tells whoever called what came of it.
    pub(super) fn tell_came(
        self: &Arc<Cluster>,
        local: &Local,
        actor: ActorKey,
        call: CallId,
        came: &Arc<Came>,
    ) {
        let number = call.number;
        if call.node == self.me {
            if let Some(caller) = self.recovery.caller(actor) {
                let outcome = Load::Came(Arc::clone(came));
                caller.post(local, Asked::Outcome(number, outcome));
            }
            return;
        }
        let value = match &**came {
            Came::Value(value) => Ok(self.out_value(value.clone())),
            Came::Failed(why) => Err(Outcome::Failed(why.clone())),
            Came::Large(len, _) => Err(Outcome::Stored(*len as u64)),
        };
        let to = call.node;
        self.with(local, |books, todo| {
            if !books.peers.contains_key(&to) {
                return;
            }
            let outcome = value.map_or_else(
                |outcome| outcome,
                |value| Outcome::Value(self.export_value(books, todo, to, value)),
            );
            let message = Recovering::Outcome {
                actor,
                number,
                outcome,
            };
            self.send_recovering(books, to, message);
        });
    }
}
