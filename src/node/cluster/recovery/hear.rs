//! What other nodes say about actors that keep their history.
//!
//! Invariant: what came with a message was counted for this node, and is taken in whatever becomes of it. Left out: what follows.

use std::sync::Arc;

use super::Early;
use super::backup::KeptBackup;
use super::caller::Asked;
use super::host::{Call, Input};
use super::load::Load;
use crate::base::{ActorKey, Error, NodeId};
use crate::core::recovery::{CallId, Settled, ToBackup, ToHost};
use crate::core::recovery::{backup as keeping, caller as calling, host as hosting};
use crate::exec::Local;
use crate::exec::far::{parcel, take};
use crate::node::cluster::Cluster;
use crate::wire::{CallBody, Outcome, Recovering, whole_recovering};

/// A message that comes in parts is no longer than this.
const LONGEST: usize = 4 << 30;

/// A call that came, or a question for what one gave, perhaps before its actor.
pub(super) struct EarlyCall {
    actor: ActorKey,
    at: ActorKey,
    number: u64,
    settled: Settled,
    id: u64,
    /// Who calls, and what; nothing: the question.
    call: Option<(u64, CallBody)>,
}

impl Cluster {
    /// Another node says something about such an actor.
    pub(in crate::node::cluster) fn on_recovering(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        message: Recovering,
    ) {
        match message {
            Recovering::Call {
                actor,
                at,
                number,
                settled,
                id,
                caller,
                call,
            } => {
                let call = EarlyCall {
                    actor,
                    at,
                    number,
                    settled,
                    id,
                    call: Some((caller, call)),
                };
                self.on_kept_call(local, from, call);
            }
            Recovering::Again {
                actor,
                at,
                number,
                settled,
                id,
            } => {
                let question = EarlyCall {
                    actor,
                    at,
                    number,
                    settled,
                    id,
                    call: None,
                };
                self.on_kept_call(local, from, question);
            }
            Recovering::Settled { actor, settled } => {
                self.on_settled(local, from, actor, settled);
            }
            Recovering::Outcome {
                actor,
                number,
                outcome,
            } => self.on_outcome(local, from, (actor, number), outcome),
            Recovering::NotHere { actor, at } => {
                if let Some(caller) = self.recovery.caller(actor) {
                    caller.post(local, Asked::Machine(calling::Event::NotHere(at)));
                }
            }
            Recovering::Moved {
                actor,
                incarnation,
                at,
            } => self.on_moved(local, actor, incarnation, at),
            Recovering::Ended { actor, cause } => self.caller_ended(local, actor, &cause),
            Recovering::Rouse(actor) => self.on_rouse(local, actor),
            Recovering::Save {
                actor,
                incarnation,
                beat,
                checkpoint,
                entries,
            } => {
                if !self.takes_save(local, from, actor, incarnation) {
                    return;
                }
                let entries = entries.into_iter();
                let entries = entries.map(|entry| self.import_entry(local, from, entry));
                let entries: Result<Vec<_>, Error> = entries.collect();
                let of = (actor, incarnation);
                let checkpoint = checkpoint.map(|c| self.import_checkpoint(local, from, of, *c));
                let (Ok(entries), Ok(checkpoint)) = (entries, checkpoint.transpose()) else {
                    let answer = ToHost::Declined { incarnation };
                    let answer = Recovering::Answer { actor, answer };
                    return self.tell_recovering(local, from, answer);
                };
                let message = ToBackup::Save {
                    incarnation,
                    beat,
                    checkpoint: checkpoint.map(Arc::new),
                    entries,
                };
                self.to_backup(local, from, actor, message);
            }
            Recovering::Look { actor, incarnation } => {
                if let Some(backup) = self.recovery.backup(actor) {
                    let message = ToBackup::Look { incarnation };
                    backup.post(local, keeping::Event::Message { from, message });
                }
            }
            Recovering::Forget { actor, incarnation } => {
                if let Some(backup) = self.recovery.backup(actor) {
                    let message = ToBackup::Forget { incarnation };
                    backup.post(local, keeping::Event::Message { from, message });
                }
            }
            Recovering::Answer { actor, answer } => {
                if let Some(host) = self.recovery.host(actor) {
                    let message = answer;
                    let event = hosting::Event::Message { from, message };
                    host.post(local, Input::Machine(event));
                }
            }
            Recovering::Part { last, bytes } => self.on_part(local, from, last, &bytes),
        }
    }

    pub(super) fn on_part(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        last: bool,
        bytes: &[u8],
    ) {
        let whole = {
            let mut parts = self.recovery.parts.lock();
            let whole = parts.entry(from).or_default();
            if whole.len() + bytes.len() > LONGEST {
                parts.remove(&from);
                drop(parts);
                return self.misbehaves(from, "it sent a message without an end");
            }
            whole.extend_from_slice(bytes);
            if last { parts.remove(&from) } else { None }
        };
        match whole.map(|whole| whole_recovering(&whole)) {
            None => {}
            Some(Ok(message)) => self.on_recovering(local, from, message),
            Some(Err(e)) => self.misbehaves(from, &e.to_string()),
        }
    }

    /// Whether what a host wants written down is for a backup here: who hosts the actor itself keeps no copy of it.
    pub(super) fn takes_save(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        actor: ActorKey,
        incarnation: u64,
    ) -> bool {
        let Some(host) = self.recovery.host(actor).filter(|host| !host.is_over()) else {
            return true;
        };
        let ours = host.incarnation;
        if incarnation < ours {
            let answer = ToHost::Refused { incarnation: ours };
            self.tell_recovering(local, from, Recovering::Answer { actor, answer });
            return false;
        }
        let message = ToHost::Refused { incarnation };
        host.post(
            local,
            Input::Machine(hosting::Event::Message { from, message }),
        );
        incarnation > ours
    }

    pub(super) fn to_backup(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        actor: ActorKey,
        message: ToBackup<Load>,
    ) {
        let backup = {
            let mut backups = self.recovery.backups.lock();
            let new = || KeptBackup::new(self, actor);
            Arc::clone(backups.entry(actor).or_insert_with(new))
        };
        backup.post(local, keeping::Event::Message { from, message });
    }

    pub(super) fn on_rouse(self: &Arc<Cluster>, local: &Local, actor: ActorKey) {
        if self.recovery.host(actor).is_some() {
            return;
        }
        let backup = {
            let mut backups = self.recovery.backups.lock();
            let new = || KeptBackup::new(self, actor);
            Arc::clone(backups.entry(actor).or_insert_with(new))
        };
        backup.post(local, keeping::Event::Roused);
    }

    pub(super) fn on_settled(
        self: &Arc<Cluster>,
        local: &Local,
        node: NodeId,
        actor: ActorKey,
        settled: Settled,
    ) {
        if let Some(host) = self.recovery.host(actor) {
            let event = hosting::Event::Settled { node, settled };
            host.post(local, Input::Machine(event));
        }
    }

    pub(super) fn on_kept_call(self: &Arc<Cluster>, local: &Local, from: NodeId, call: EarlyCall) {
        if let Some(early) = self.recovery.claiming.lock().get_mut(&call.at) {
            return early.push(Early::There(from, call));
        }
        self.take_kept_call(local, from, call);
    }

    /// One whose actor is here, or is not about to come.
    pub(super) fn take_kept_call(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        early: EarlyCall,
    ) {
        let EarlyCall {
            actor,
            at,
            number,
            settled,
            id,
            call,
        } = early;
        let call = match call {
            None => None,
            Some((caller, call)) => {
                let Some(function) = parcel::function(call.function) else {
                    return self.misbehaves(from, "it called a method that there is not");
                };
                // Whatever comes of it, what came with it was counted.
                let parcel = self.with(local, |books, todo| {
                    self.import_call(books, todo, local, from, function, call)
                });
                Some((function, caller, parcel))
            }
        };
        let host = self.recovery.host(actor);
        let Some(host) = host.filter(|host| host.at == at && !host.is_over()) else {
            let answer = match self.recovery.end_of(actor) {
                Some(cause) => Recovering::Ended {
                    actor,
                    cause: cause.to_string(),
                },
                None => Recovering::NotHere { actor, at },
            };
            return self.tell_recovering(local, from, answer);
        };
        let Some((function, caller, parcel)) = call else {
            let call = CallId { node: from, number };
            return host.post(local, Input::Again(call, id, settled));
        };
        let parcel = match parcel {
            Ok(parcel) => parcel,
            Err(e) => {
                let why = take::failure_bytes(&e);
                let outcome = Outcome::Failed(why);
                let failed = Recovering::Outcome {
                    actor,
                    number,
                    outcome,
                };
                return self.tell_recovering(local, from, failed);
            }
        };
        if !parcel::belongs(function, host.entry) {
            return self.misbehaves(from, "it called a method of another actor's");
        }
        if !parcel.is_sound() {
            return self.misbehaves(from, "it sent a call that is none");
        }
        let call = Call {
            id: CallId { node: from, number },
            settled,
            number: id,
            caller,
            parcel,
        };
        host.post(local, Input::Came(call));
    }
}
