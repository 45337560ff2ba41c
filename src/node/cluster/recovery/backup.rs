//! Histories of actors elsewhere, kept here, and their takeover.
//!
//! Invariant: calls to a key that this node claims wait until it has the actor or does not get it. An actor that is taken over runs
//! its logged calls before any other. Left out: who decides (`core::recovery::Backup`).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Early;
use super::desk::{Desk, each};
use super::ear::Ear;
use super::host::{Input, KeptHost};
use super::load::{Load, State, direct, object};
use crate::base::{ActorKey, Error, NodeId};
use crate::core::recovery::backup::{Effect, Event};
use crate::core::recovery::{Backup, History, Record, host};
use crate::exec::Local;
use crate::exec::actor::{self, Foreign, HandleRef, Revival};
use crate::exec::events;
use crate::exec::far::{Arg, Parcel};
use crate::node::cluster::books::Export;
use crate::node::cluster::{Cluster, actors};
use crate::trace::Turn;
use crate::wire::Recovering;

/// See the file.
pub(super) struct KeptBackup {
    cluster: Weak<Cluster>,
    actor: ActorKey,
    desk: Desk<Event<Load>>,
    machine: Mutex<Backup<Load>>,
}

impl KeptBackup {
    pub fn new(cluster: &Arc<Cluster>, actor: ActorKey) -> Arc<KeptBackup> {
        Arc::new(KeptBackup {
            cluster: Arc::downgrade(cluster),
            actor,
            desk: Desk::new(),
            machine: Mutex::new(Backup::new(cluster.me)),
        })
    }

    /// Hands something in.
    pub fn post(self: &Arc<KeptBackup>, local: &Local, event: Event<Load>) {
        self.desk
            .post(event, each(|event| self.handle(local, event)));
    }

    fn handle(self: &Arc<KeptBackup>, local: &Local, event: Event<Load>) {
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        let mut out = Vec::new();
        self.machine.lock().handle(cluster.now(), event, &mut out);
        for effect in out {
            match effect {
                Effect::Send { to, message } => {
                    let answer = Recovering::Answer {
                        actor: self.actor,
                        answer: message,
                    };
                    cluster.tell_recovering(local, to, answer);
                }
                Effect::Look => self.look(&cluster),
                Effect::Swap { expect, record } => self.claim(&cluster, expect, record),
                Effect::TakeOver { record, history } => {
                    let dead = self.machine.lock().host();
                    cluster.recovery.backups.lock().remove(&self.actor);
                    cluster.recovery.along.lock().forget(self.actor);
                    let death = format!("its node {dead} died");
                    cluster.take_over(local, &record, history, (dead, death));
                    cluster.claim_ended(local, record.at);
                }
                Effect::Drop => {
                    cluster.recovery.backups.lock().remove(&self.actor);
                    cluster.recovery.along.lock().forget(self.actor);
                }
            }
        }
    }

    fn look(self: &Arc<KeptBackup>, cluster: &Arc<Cluster>) {
        let backup = Arc::clone(self);
        cluster.look_up(self.actor, move |cluster, local, record| {
            backup.found(cluster, local, record);
        });
    }

    fn found(
        self: &Arc<KeptBackup>,
        cluster: &Arc<Cluster>,
        local: &Local,
        record: Option<Record>,
    ) {
        let lives = record.as_ref().is_some_and(|r| cluster.lives(r.at.host));
        let number = cluster.random() | 1 << 63;
        let event = Event::Record {
            record,
            lives,
            number,
        };
        self.post(local, event);
    }

    fn claim(self: &Arc<KeptBackup>, cluster: &Arc<Cluster>, expect: Record, record: Record) {
        let at = record.at;
        let mine = at.host == cluster.me;
        if mine {
            let mut claiming = cluster.recovery.claiming.lock();
            claiming.entry(at).or_default();
        }
        let backup = Arc::clone(self);
        let swap = (Some(expect), Some(record));
        cluster.swap_record(self.actor, swap.0, swap.1, move |local, differs| {
            let Some(cluster) = backup.cluster.upgrade() else {
                return;
            };
            match differs {
                None => backup.post(local, Event::Swapped),
                Some(record) => {
                    backup.found(&cluster, local, record);
                    if mine {
                        cluster.claim_ended(local, at);
                    }
                }
            }
        });
    }
}

impl Cluster {
    /// An actor is this node's now: it is made from its history.
    pub(super) fn take_over(
        self: &Arc<Cluster>,
        local: &Local,
        record: &Record,
        history: History<Load>,
        (dead, death): (NodeId, String),
    ) {
        let Load::State(state) = history.checkpoint.state.clone() else {
            return;
        };
        let before = record.incarnation - 1;
        let most = u64::from(state.terms.max_restarts);
        if before > most {
            let cause = format!("its node {dead} died, and all {most} of its restarts are used up");
            self.drop_checkpoints(record.actor);
            return self.end_taken(local, record, &cause);
        }
        if let Err(e) = self.revive(local, record, history, &state, (before, dead, death)) {
            let cause =
                format!("its node {dead} died, and its state could not be brought back: {e}");
            self.end_taken(local, record, &cause);
        }
    }

    fn revive(
        self: &Arc<Cluster>,
        local: &Local,
        record: &Record,
        history: History<Load>,
        state: &Arc<State>,
        (restarts, dead, death): (u64, NodeId, String),
    ) -> Result<(), Error> {
        let at = record.at;
        let init = match state.init.get() {
            Some(init) => init.parcel(local)?,
            None => return Err(Error::ShutDown),
        };
        let restore = match (&state.value, state.entry.restores()) {
            (Some(value), Some(function)) => Some(Parcel {
                function,
                args: vec![Arg::Object(value.clone().object(local)?)],
                inline: Vec::new(),
                caps: Vec::new(),
            }),
            _ => None,
        };
        let callers: BTreeSet<NodeId> = {
            let ran = history.checkpoint.ran.nodes();
            ran.chain(history.entries.iter().map(|e| e.call.node))
                .collect()
        };
        let entries = history.entries.clone();
        let kept = KeptHost::resume(self, record, history, state, death.clone());
        kept.replay.is_to_run(entries.len() as u64);
        for node in callers {
            if node == direct(dead) || self.is_dead(node) {
                kept.post(local, Input::Machine(host::Event::Died(node)));
            } else if !self.lives(node) {
                // It may have come lately, and is only not known here yet.
                kept.strangers.lock().push(node);
            }
        }
        let mut options = actors::options(state.terms.clone());
        // Its bundle went with the node.
        options.strategy = crate::base::Strategy::Default;
        let foreign = Foreign {
            backups: Some(Arc::new(Ear(Arc::clone(&kept)))),
            revival: Some(Revival {
                restore,
                restarts: u32::try_from(restarts).unwrap_or(u32::MAX),
            }),
        };
        self.recovery
            .hosts
            .lock()
            .insert(record.actor, Arc::clone(&kept));
        // Whoever died before it was entered; backups of before among them.
        kept.post(local, Input::Nodes);
        let refers = init.refers();
        let made = actor::create_for(
            &local.engine,
            local,
            state.entry,
            refers,
            &options,
            foreign,
            |blank| init.unpack_into(blank),
        );
        let handle = match made {
            Ok(handle) => handle,
            Err(e) => {
                self.recovery.hosts.lock().remove(&record.actor);
                return Err(e);
            }
        };
        let cell = handle.actor();
        self.books
            .lock()
            .aliases
            .insert(cell.id(), object(at).number);
        events::actor(local, Turn::TakenOver, cell, Some(&death));
        for entry in &entries {
            if let Err(e) = kept.replay(local, entry) {
                // Nobody is to be answered from half of its calls.
                self.recovery.hosts.lock().remove(&record.actor);
                self.books.lock().aliases.remove(&cell.id());
                kept.post(local, Input::Abandon(e.clone()));
                return Err(e);
            }
        }
        // Nobody finds it before these are in its mailbox: a call from here would come between them.
        self.enter_kept(local, at, &handle);
        actor::enter_name(&local.engine, handle.actor());
        self.tell_moved(local, record);
        // As this incarnation's, as soon as the log has run again: what is outside may be newer than what is taken over here.
        if kept.terms.checkpoints.durable {
            kept.post(local, Input::Machine(host::Event::Want));
        }
        Ok(())
    }

    /// Has others find an actor under its key.
    fn enter_kept(self: &Arc<Cluster>, local: &Local, at: ActorKey, handle: &HandleRef) {
        self.with(local, |books, _| {
            books.made.insert(at.number, handle.actor().clone());
            books
                .exports
                .insert(at.number, Export::Actor(handle.clone()));
        });
        debug_assert_eq!(object(at).owner, self.me);
    }

    /// An actor that this node took over cannot go on.
    fn end_taken(self: &Arc<Cluster>, local: &Local, record: &Record, cause: &str) {
        let expect = Some(record.clone());
        self.swap_record(record.actor, expect, None, |_, _| {});
        self.recovery.ended(record.actor, cause);
        self.tell_everybody(
            local,
            |actor| Recovering::Ended {
                actor,
                cause: cause.to_owned(),
            },
            record.actor,
        );
        self.caller_ended(local, record.actor, cause);
    }

    /// Whoever has handles sends to the new place from now on.
    fn tell_moved(self: &Arc<Cluster>, local: &Local, record: &Record) {
        let (incarnation, at) = (record.incarnation, record.at);
        self.tell_everybody(
            local,
            |actor| Recovering::Moved {
                actor,
                incarnation,
                at,
            },
            record.actor,
        );
        self.on_moved(local, record.actor, incarnation, at);
    }

    fn tell_everybody(
        self: &Arc<Cluster>,
        local: &Local,
        message: impl Fn(ActorKey) -> Recovering,
        actor: ActorKey,
    ) {
        let peers: Vec<NodeId> = self.books.lock().peers.keys().copied().collect();
        for to in peers {
            self.tell_recovering(local, to, message(actor));
        }
    }

    /// Calls that came for a claimed key go on, whatever came of the claim.
    pub(super) fn claim_ended(self: &Arc<Cluster>, local: &Local, at: ActorKey) {
        loop {
            let early = {
                let mut claiming = self.recovery.claiming.lock();
                match claiming.get_mut(&at) {
                    Some(early) if !early.is_empty() => std::mem::take(early),
                    _ => {
                        claiming.remove(&at);
                        return;
                    }
                }
            };
            // What comes meanwhile waits behind these.
            for early in early {
                match early {
                    Early::There(from, call) => self.take_kept_call(local, from, call),
                    Early::Here(actor, input) => self.take_call_here(local, actor, at, input),
                }
            }
        }
    }

    /// The caller that a host has for handles of its own node is dead with it.
    pub(super) fn direct_of(node: NodeId) -> NodeId {
        direct(node)
    }
}
