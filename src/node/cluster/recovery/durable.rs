//! Checkpoints in a place outside of all nodes: written by the host, read by whoever misses the actor when host and backups are dead.
//!
//! A host has one thread at most that writes, always the newest state that there is; when it is written, older ones go.
//!
//! Invariant: `Handle::checkpoint` is answered after its state, or a later one, is written; a checkpoint is deleted only when a newer one
//! is written, or the actor has ended. Left out: which is the newest, and what the record becomes (`core::recovery::restore`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::along::READ;
use super::caller::{Asked, KeptCaller};
use super::host::{Inner, Input, KeptHost};
use super::load::{self, Load};
use crate::base::{ActorKey, Error, Loss, NodeId};
use crate::core::recovery::caller::Event;
use crate::core::recovery::restore::{self, Saved};
use crate::core::recovery::{Checkpoint, History, Record};
use crate::exec::{Local, RawRef};
use crate::node::cluster::Cluster;
use crate::wire::{Frame, Recovering, whole_recovering};

/// How long a checkpoint may take to be written.
const LONGEST: Duration = Duration::from_secs(60);
/// How long until one that was not is tried again, if no newer one has come by then; and how often that is looked for.
const PAUSE: Duration = Duration::from_secs(2);
const LOOKS: u32 = 20;

/// What of a host's states is outside.
#[derive(Default)]
pub(super) struct Outside {
    /// The newest state that is to be written.
    next: Option<Arc<Checkpoint<Load>>>,
    /// A thread writes.
    writes: bool,
    /// Older ones of this actor, of earlier incarnations too, were looked for.
    swept: bool,
    /// The actor has ended: what is still being written is of no use.
    ended: bool,
    /// What is written.
    last: Option<Saved>,
    /// Which was to be last and was not, and why.
    failed: Option<(u64, Error)>,
}

fn prefix(actor: ActorKey) -> String {
    format!("actor-{:016x}-{:016x}-", actor.host.get(), actor.number)
}

fn name(actor: ActorKey, saved: Saved) -> String {
    let Saved { incarnation, order } = saved;
    format!("{}{incarnation:08x}-{order:016x}", prefix(actor))
}

fn parse(actor: ActorKey, name: &str) -> Option<Saved> {
    let (incarnation, order) = name.strip_prefix(&prefix(actor))?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (incarnation, order) = (hex(incarnation)?, hex(order)?);
    Some(Saved { incarnation, order })
}

impl KeptHost {
    /// There is a new state.
    pub fn write_outside(self: &Arc<KeptHost>, checkpoint: &Arc<Checkpoint<Load>>) {
        if !self.terms.checkpoints.durable {
            return;
        }
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        {
            let mut outside = self.outside.lock();
            // It is there already, and writing it again could only spoil it.
            if outside
                .last
                .is_some_and(|last| last.order >= checkpoint.order)
            {
                return;
            }
            // What became of an earlier attempt says nothing about this one.
            outside.failed = None;
            outside.next = Some(Arc::clone(checkpoint));
            if std::mem::replace(&mut outside.writes, true) {
                return;
            }
        }
        let host = Arc::clone(self);
        let there = Arc::downgrade(&cluster);
        cluster.wait_apart(move |local| {
            while let Some(cluster) = there.upgrade()
                && let Some(checkpoint) = host.take_next(&cluster)
            {
                let order = checkpoint.order;
                let written = host.write_one(&cluster, local, &checkpoint);
                let may_pass = matches!(written, Err(Error::NotDurable(_)));
                host.post(local, Input::Outside(order, written));
                drop(cluster);
                if may_pass {
                    host.pause(checkpoint);
                }
            }
        });
    }

    /// A state could not be written: it comes next, after a while, unless a newer one does.
    fn pause(&self, checkpoint: Arc<Checkpoint<Load>>) {
        for _ in 0..LOOKS {
            if self.is_over() || self.outside.lock().next.is_some() {
                return;
            }
            std::thread::sleep(PAUSE / LOOKS);
        }
        let mut outside = self.outside.lock();
        if !outside.ended {
            outside.next.get_or_insert(checkpoint);
        }
    }

    fn take_next(&self, cluster: &Cluster) -> Option<Arc<Checkpoint<Load>>> {
        let mut outside = self.outside.lock();
        let last = outside.last;
        let next = outside.next.take().filter(|next| {
            // Another incarnation has the word, or it was written meanwhile.
            let newer = last.is_none_or(|last| last.order < next.order);
            newer && !cluster.is_over() && !self.is_over()
        });
        outside.writes = next.is_some();
        next
    }

    fn write_one(
        &self,
        cluster: &Arc<Cluster>,
        local: &Local,
        checkpoint: &Checkpoint<Load>,
    ) -> Result<(), Error> {
        let bytes = cluster.checkpoint_bytes(local, self, checkpoint)?;
        let (incarnation, order) = (self.incarnation, checkpoint.order);
        let saved = Saved { incarnation, order };
        let durables = &cluster.durables;
        durables.save(&name(self.actor, saved).into(), bytes, LONGEST)?;
        let (before, swept) = {
            let mut outside = self.outside.lock();
            if outside.ended {
                durables.unsave(name(self.actor, saved).into());
                return Ok(());
            }
            (outside.last.replace(saved), outside.swept)
        };
        let there = match swept {
            true => Vec::new(),
            false => {
                let there = durables.saved();
                self.outside.lock().swept = there.is_ok();
                there.unwrap_or_default()
            }
        };
        let there = there.iter().filter_map(|name| parse(self.actor, name));
        for old in restore::older(saved, there.chain(before)) {
            durables.unsave(name(self.actor, old).into());
        }
        Ok(())
    }

    /// Every backup has a checkpoint that was wanted.
    pub fn is_kept(&self, local: &Local, inner: &mut Inner, order: u64) {
        let wants = inner.keeping.pop_front().unwrap_or_default();
        match self.outside_of(order) {
            Some(written) => settle(local, wants, &written),
            None => inner.unwritten.push((order, wants)),
        }
    }

    /// A checkpoint is written outside, and all before it with it; or not.
    pub fn is_outside(
        &self,
        local: &Local,
        inner: &mut Inner,
        order: u64,
        written: &Result<(), Error>,
    ) {
        let failed = written.as_ref().err();
        self.outside.lock().failed = failed.map(|e| (order, e.clone()));
        let done = inner.unwritten.extract_if(.., |(at, _)| *at <= order);
        settle(local, done.flat_map(|(_, records)| records), written);
    }

    /// The actor has ended: nobody goes on from its states.
    pub fn drop_outside(self: &Arc<KeptHost>, cluster: &Arc<Cluster>) {
        if !self.terms.checkpoints.durable {
            return;
        }
        let (last, alone) = {
            let mut outside = self.outside.lock();
            (outside.next, outside.ended) = (None, true);
            // Nobody else has written any, or what others had written was found and deleted.
            (outside.last, outside.swept || self.incarnation == 1)
        };
        if let Some(last) = last {
            cluster.durables.unsave(name(self.actor, last).into());
        }
        if !alone {
            cluster.drop_checkpoints(self.actor);
        }
    }

    /// Whether the state after this call is outside, as far as that is settled.
    fn outside_of(&self, order: u64) -> Option<Result<(), Error>> {
        if !self.terms.checkpoints.durable {
            return Some(Ok(()));
        }
        let outside = self.outside.lock();
        if outside.last.is_some_and(|last| last.order >= order) {
            return Some(Ok(()));
        }
        let failed = outside.failed.as_ref().filter(|(at, _)| *at >= order);
        failed.map(|(_, e)| Err(e.clone()))
    }

    /// After which call its state is outside, and why the last that was to be written was not.
    pub fn shown_outside(&self) -> (Option<u64>, Option<String>) {
        let outside = self.outside.lock();
        (
            outside.last.map(|saved| saved.order),
            outside.failed.as_ref().map(|(_, e)| e.to_string()),
        )
    }
}

/// Tells those who wait for a checkpoint.
fn settle(local: &Local, all: impl IntoIterator<Item = RawRef>, written: &Result<(), Error>) {
    for record in all {
        match written {
            Ok(()) => local.engine.settle_unit(local, &record),
            Err(e) => local.engine.settle_error(local, &record, e.clone()),
        }
    }
}

impl Inner {
    /// Nobody will have the checkpoints that were asked for.
    pub fn forget_wants(&mut self, local: &Local, error: &Error) {
        let kept = self.keeping.drain(..).flatten();
        let unwritten = self.unwritten.drain(..).flat_map(|(_, records)| records);
        for record in self.wants.drain(..).chain(kept).chain(unwritten) {
            local.engine.settle_error(local, &record, error.clone());
        }
    }
}

impl Cluster {
    /// A checkpoint as it lies outside.
    fn checkpoint_bytes(
        self: &Arc<Cluster>,
        local: &Local,
        host: &KeptHost,
        checkpoint: &Checkpoint<Load>,
    ) -> Result<Vec<u8>, Error> {
        let value = host.entry.name;
        if load::refers(checkpoint) {
            let why = "there are references or handles in the state, the constructor's arguments or results, which mean nothing outside of the cluster";
            let why = why.into();
            return Err(Error::Encode { value, why });
        }
        // Nothing in it is counted for anybody.
        let body = self.export_checkpoint(local, self.me, (host.actor, true), checkpoint);
        let Some(body) = body else {
            let why = "its constructor has not run, or its type is not registered".into();
            return Err(Error::Encode { value, why });
        };
        let message = Recovering::Save {
            actor: host.actor,
            incarnation: host.incarnation,
            beat: 0,
            checkpoint: Some(Box::new(body)),
            entries: Vec::new(),
        };
        let message = Box::new(message);
        Ok(Frame::Recover { message }.encode())
    }

    fn checkpoint_from(
        self: &Arc<Cluster>,
        local: &Local,
        record: &Record,
        bytes: &[u8],
    ) -> Result<Checkpoint<Load>, Error> {
        let (actor, host) = (record.actor, record.at.host);
        let none = |why: &str| Error::Cluster { why: why.into() };
        let rest = bytes.get(1..).unwrap_or_default();
        match whole_recovering(rest) {
            Ok(Recovering::Save {
                actor: of,
                checkpoint: Some(body),
                ..
            }) if of == actor => {
                let checkpoint = self.import_checkpoint(local, host, (actor, READ), *body);
                self.recovery.along.lock().forget_read(actor);
                checkpoint
            }
            Ok(_) => Err(none("it is another actor's")),
            Err(e) => Err(none(&format!("it is of another version: {e}"))),
        }
    }

    /// Deletes all checkpoints of an actor outside, soon.
    pub(super) fn drop_checkpoints(self: &Arc<Cluster>, actor: ActorKey) {
        let durables = Arc::clone(&self.durables);
        self.wait_apart(move |_| {
            let there = durables.saved().unwrap_or_default();
            for name in there.iter().filter(|name| parse(actor, name).is_some()) {
                durables.unsave(name.as_str().into());
            }
        });
    }

    /// Everybody who had an actor's history is dead: goes on from its newest checkpoint outside, if there is one.
    pub(super) fn restore(self: &Arc<Cluster>, caller: Arc<KeptCaller>, record: Record) {
        let cluster = Arc::clone(self);
        self.wait_apart(move |local| match cluster.newest_outside(local, &record) {
            Ok(Some((saved, checkpoint))) if cluster.can_host(local, &checkpoint) => {
                cluster.claim_outside(caller, record, saved, checkpoint);
            }
            // Another node may, or this one when it has what the actor needs: it is not lost.
            Ok(Some(_)) => caller.restored(local, Some((record, true))),
            Ok(None) => caller.restored(local, Some((record, false))),
            // It cannot be reached now, and that may pass.
            Err(None) => caller.restored(local, Some((record, true))),
            Err(Some(why)) => {
                caller.unrestored(&why);
                caller.restored(local, Some((record, false)));
            }
        });
    }

    /// Whether this node could go on from it: whoever claims an actor and cannot run it ends it.
    fn can_host(&self, local: &Local, checkpoint: &Checkpoint<Load>) -> bool {
        let Load::State(state) = &checkpoint.state else {
            return false;
        };
        let leaves = self.is_over() || self.books.lock().draining;
        !leaves && local.engine.refuses().is_none() && !local.engine.lacks(&state.terms.demand)
    }

    /// The newest; why it cannot be read, if that does not pass. One before it would be a step back behind what was said to be saved.
    fn newest_outside(
        self: &Arc<Cluster>,
        local: &Local,
        record: &Record,
    ) -> Result<Option<(Saved, Checkpoint<Load>)>, Option<String>> {
        let actor = record.actor;
        let names = self.durables.saved().map_err(|_| None)?;
        let there: Vec<Saved> = names.iter().filter_map(|name| parse(actor, name)).collect();
        for saved in restore::newest(record, there.iter().copied()) {
            let bytes = match self.durables.saved_bytes(&name(actor, saved)) {
                Ok(bytes) => bytes,
                Err(Error::CopyLost(lost)) => match lost.why {
                    // Deleted since it was listed.
                    Loss::Deleted => continue,
                    Loss::Unreadable(_) => return Err(None),
                    _ => return Err(Some(lost.to_string())),
                },
                Err(e) => return Err(Some(e.to_string())),
            };
            let made = self.checkpoint_from(local, record, &bytes);
            return match made {
                Ok(checkpoint) => Ok(Some((saved, checkpoint))),
                Err(e) => Err(Some(e.to_string())),
            };
        }
        // Somebody went on from them meanwhile, and the record is to be read again.
        if there.is_empty() {
            Ok(None)
        } else {
            Err(None)
        }
    }

    fn claim_outside(
        self: &Arc<Cluster>,
        caller: Arc<KeptCaller>,
        record: Record,
        saved: Saved,
        checkpoint: Checkpoint<Load>,
    ) {
        let number = self.random() | 1 << 63;
        let host = self.me;
        let at = ActorKey { host, number };
        let claim = restore::claim(&record, at);
        self.recovery.claiming.lock().entry(at).or_default();
        let (actor, dead) = (record.actor, record.at.host);
        let swap = (Some(record), Some(claim.clone()));
        let cluster = Arc::clone(self);
        self.swap_record(actor, swap.0, swap.1, move |local, differs| {
            // Where it is this very claim only the answer to it was lost.
            match differs.filter(|found| found.as_ref() != Some(&claim)) {
                None => {
                    let death = death(dead, saved);
                    let history = History::new(Arc::new(checkpoint));
                    cluster.recovery.backups.lock().remove(&actor);
                    cluster.take_over(local, &claim, history, (dead, death));
                    caller.restored(local, None);
                }
                Some(other) => {
                    caller.restores.store(false, Ordering::Release);
                    caller.found(&cluster, local, other);
                }
            }
            cluster.claim_ended(local, at);
        });
    }
}

fn death(dead: NodeId, saved: Saved) -> String {
    let order = saved.order;
    format!(
        "its node {dead} died with all who had its history; it went on from its durable checkpoint, which has its first {order} calls, and what was answered since is lost"
    )
}

impl KeptCaller {
    /// The attempt to go on from outside is over; with the record as it was, if that came to nothing, and whether it is to be tried again.
    fn restored(self: &Arc<KeptCaller>, local: &Local, record: Option<(Record, bool)>) {
        self.restores.store(false, Ordering::Release);
        if let Some((record, again)) = record {
            let event = Event::Record {
                record: Some(record),
                lives: false,
                backed: again,
            };
            self.post(local, Asked::Machine(event));
        }
    }
}
