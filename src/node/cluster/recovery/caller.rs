//! Handles of this node to actors whose history is kept: their calls, until they are settled by whoever hosts the actor then.
//!
//! Invariant: a call stays claimed here, with its arguments, until it is settled or known to come to nothing; the numbers of a node's
//! calls to one actor are never used twice, however often its handles go and come. Left out: who decides
//! (`core::recovery::Caller`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::desk::{Desk, each};
use super::host::{Call, Input};
use super::load::{Load, object};
use super::results::Again;
use crate::base::{ActorKey, Error, NodeId, ObjectKey};
use crate::core::owners::RefState;
use crate::core::recovery::caller::{Effect, Event, Why};
use crate::core::recovery::{CallId, Caller, Record, Settled};
use crate::exec::actor::{self, ActorRef, HandleRef};
use crate::exec::entry::ActorEntry;
use crate::exec::far::{Parcel, parcel};
use crate::exec::{Local, RawRef, cell};
use crate::node::cluster::Cluster;
use crate::node::cluster::books::Export;
use crate::wire::{Frame, Outcome, Recovering};

/// What happens to it.
pub(super) enum Asked {
    Call(RawRef),
    Machine(Event<Load>),
    Outcome(u64, Load),
    /// A result that stays with the host is lost, and wanted.
    Again(u64),
    /// It is not needed from there any more.
    Let(u64),
    Kill(bool),
    /// The actor has ended, for this cause.
    Ended(String),
    /// The last handle is gone.
    Released,
    /// A node is connected now.
    Connected(NodeId),
    Abandon(Error),
}

struct Inner {
    machine: Caller<Load>,
    next: u64,
    calls: BTreeMap<u64, RawRef>,
    /// Results that stay with the host, by their calls: their numbers among this node's objects.
    results: BTreeMap<u64, u64>,
    /// Those of them that a host was asked for and has not told, with the same numbers: they may be let go of meanwhile.
    asked: BTreeMap<u64, u64>,
    /// Calls and questions to a node that is not connected yet, with what was settled.
    unsent: VecDeque<(u64, Settled)>,
    /// To be ended, or made again, where it is found.
    kill: Option<bool>,
    cause: Option<String>,
    released: bool,
}

/// See the file.
pub(super) struct KeptCaller {
    pub cluster: Weak<Cluster>,
    pub actor: ActorKey,
    entry: &'static ActorEntry,
    desk: Desk<Asked>,
    inner: Mutex<Inner>,
    pub at: Mutex<(ActorKey, u64)>,
    /// The one cell, and how many have not ended.
    pub cell: Mutex<(Option<ActorRef>, u32)>,
    /// Keys under which this node counts as one that has handles.
    pub keys: Mutex<BTreeSet<ObjectKey>>,
    /// Keeps the actor, if it is here.
    here: Mutex<Option<HandleRef>>,
    over: AtomicBool,
    /// It is sought outside of all nodes.
    pub restores: AtomicBool,
}

impl KeptCaller {
    /// Of an actor that is there as this incarnation, as far as is known; its calls are numbered from `next` on.
    pub fn new(
        cluster: &Arc<Cluster>,
        actor: ActorKey,
        (at, incarnation): (ActorKey, u64),
        next: u64,
        entry: &'static ActorEntry,
    ) -> Arc<KeptCaller> {
        Arc::new(KeptCaller {
            cluster: Arc::downgrade(cluster),
            actor,
            entry,
            desk: Desk::new(),
            inner: Mutex::new(Inner {
                machine: Caller::starting(at, incarnation, next),
                next,
                calls: BTreeMap::new(),
                results: BTreeMap::new(),
                asked: BTreeMap::new(),
                unsent: VecDeque::new(),
                kill: None,
                cause: None,
                released: false,
            }),
            at: Mutex::new((at, incarnation)),
            cell: Mutex::new((None, 0)),
            keys: Mutex::default(),
            here: Mutex::new(None),
            over: AtomicBool::new(false),
            restores: AtomicBool::new(false),
        })
    }

    /// Hands something in.
    pub fn post(self: &Arc<KeptCaller>, local: &Local, asked: Asked) {
        self.desk
            .post(asked, each(|asked| self.handle(local, asked)));
    }

    fn handle(self: &Arc<KeptCaller>, local: &Local, asked: Asked) {
        let Some(cluster) = self.cluster.upgrade() else {
            if let Asked::Call(record) = asked {
                local.engine.settle_error(local, &record, Error::ShutDown);
            }
            return;
        };
        let now = cluster.now();
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let mut out = Vec::new();
        match asked {
            Asked::Call(record) => {
                if let Some(e) = cluster.over_by() {
                    return local.engine.settle_error(local, &record, e);
                }
                inner.calls.insert(inner.next, record);
                inner.next += 1;
                let event = Event::Call(Load::Sent);
                inner.machine.handle(now, event, &mut out);
            }
            Asked::Machine(event) => {
                let ticks = matches!(event, Event::Tick);
                inner.machine.handle(now, event, &mut out);
                // It may die before this node was ever connected to it; nobody says so then.
                let host = self.at.lock().0.host;
                if ticks && !inner.unsent.is_empty() && !cluster.lives(host) {
                    inner.machine.handle(now, Event::Died(host), &mut out);
                }
            }
            Asked::Outcome(number, outcome) => {
                let event = Event::Outcome {
                    number,
                    outcome: outcome.clone(),
                    stays: inner.stays(number, &outcome),
                };
                inner.machine.handle(now, event, &mut out);
                let id = inner.asked.remove(&number).unwrap_or(0);
                let settles =
                    |e: &Effect<Load>| matches!(e, Effect::Settle { .. } | Effect::Remade { .. });
                if !out.iter().any(settles)
                    && let Load::Told(from, outcome) = outcome
                {
                    // It came twice: what it holds for us is not wanted.
                    cluster.unwanted(local, from, id, (*outcome).clone());
                }
            }
            Asked::Again(number) => {
                inner.machine.handle(now, Event::Again(number), &mut out);
            }
            Asked::Let(number) => {
                inner.results.remove(&number);
                inner.machine.handle(now, Event::Let(number), &mut out);
            }
            Asked::Kill(restart) => {
                let known = !inner.machine.seeks();
                if known {
                    self.kill_there(&cluster, local, restart);
                } else {
                    inner.kill = Some(restart);
                }
            }
            Asked::Ended(cause) => {
                let cell = self.cell.lock().0.clone();
                if !self.over.swap(true, Ordering::AcqRel)
                    && let Some(cell) = cell
                {
                    local.engine.far_ended(&cell, &cause);
                }
                inner.cause.get_or_insert(cause);
                inner.machine.handle(now, Event::Ended, &mut out);
            }
            Asked::Connected(node) => {
                let at = self.at.lock().0;
                if at.host == node {
                    self.moved(&cluster, local, at);
                    for (number, settled) in std::mem::take(&mut inner.unsent) {
                        self.send(&cluster, local, inner, at, (number, settled));
                    }
                }
            }
            Asked::Released => inner.released = self.cell.lock().1 == 0,
            Asked::Abandon(error) => {
                self.over.store(true, Ordering::Release);
                for (_, record) in std::mem::take(&mut inner.calls) {
                    local.engine.settle_error(local, &record, error.clone());
                }
                inner.results.clear();
                inner.asked.clear();
            }
        }
        for effect in out {
            self.carry_out(&cluster, local, inner, effect);
        }
        // Found, whether it went elsewhere or not.
        if !inner.machine.seeks()
            && let Some(restart) = inner.kill.take()
        {
            self.kill_there(&cluster, local, restart);
        }
        if inner.released && inner.calls.is_empty() && inner.results.is_empty() {
            // The host keeps results until it is told that they were let go of, and nobody is here to do that later.
            if !inner.machine.seeks() {
                let mut last = Vec::new();
                inner.machine.handle(now, Event::Tick, &mut last);
                for effect in last {
                    self.carry_out(&cluster, local, inner, effect);
                }
            }
            cluster.forget_caller(self, inner.next);
        }
    }

    fn carry_out(
        self: &Arc<KeptCaller>,
        cluster: &Arc<Cluster>,
        local: &Local,
        inner: &mut Inner,
        effect: Effect<Load>,
    ) {
        match effect {
            Effect::Send {
                at,
                number,
                settled,
                ..
            } => {
                self.send(cluster, local, inner, at, (number, settled));
            }
            Effect::Again {
                at,
                number,
                settled,
            } => {
                if let Some(id) = inner.results.get(&number) {
                    inner.asked.insert(number, *id);
                }
                self.send(cluster, local, inner, at, (number, settled));
            }
            Effect::Settled { at, settled } => {
                let actor = self.actor;
                if at.host == cluster.me {
                    return cluster.on_settled(local, cluster.me, actor, settled);
                }
                cluster.tell_recovering(local, at.host, Recovering::Settled { actor, settled });
            }
            Effect::Settle { number, outcome } => {
                if let Some(record) = inner.calls.remove(&number) {
                    let again = inner.machine.stays(number).then(|| {
                        inner.results.insert(number, record.id);
                        Again::new(self, number, record.entry.name)
                    });
                    cluster.settle_told(local, record, outcome, again);
                }
            }
            Effect::Remade { number, outcome } => {
                if let Some(id) = inner.results.get(&number).copied() {
                    if !inner.machine.stays(number) {
                        inner.results.remove(&number);
                    }
                    cluster.told_again(local, id, outcome);
                }
            }
            Effect::GiveUp(number) => {
                if let Some(id) = inner.results.remove(&number) {
                    cluster.give_up_result(local, id);
                }
            }
            Effect::Fail { number, why } => {
                let error = self.death(inner, why);
                if let Some(record) = inner.calls.remove(&number) {
                    local.engine.settle_error(local, &record, error.clone());
                } else if let Some(id) = inner.results.remove(&number) {
                    cluster.not_told_again(local, id, &error.to_string());
                }
                let cell = self.cell.lock().0.clone();
                if why != Why::Late
                    && !self.over.swap(true, Ordering::AcqRel)
                    && let Some(cell) = cell
                {
                    local
                        .engine
                        .far_ended(&cell, &cause(inner, self.at.lock().0, why));
                }
            }
            Effect::Look => {
                let caller = Arc::clone(self);
                cluster.look_up(self.actor, move |cluster, local, record| {
                    caller.found(cluster, local, record);
                });
            }
            Effect::Rouse(nodes) => {
                for to in nodes {
                    if to == cluster.me {
                        cluster.on_rouse(local, self.actor);
                    } else if cluster.lives(to) {
                        cluster.tell_recovering(local, to, Recovering::Rouse(self.actor));
                    }
                }
            }
            Effect::At(at) => {
                inner.unsent.clear();
                // The host before tells nothing any more; what is still wanted is asked for again.
                inner.asked.clear();
                *self.at.lock() = (at, inner.machine.incarnation());
                self.moved(cluster, local, at);
            }
        }
    }

    pub(super) fn found(
        self: &Arc<KeptCaller>,
        cluster: &Arc<Cluster>,
        local: &Local,
        record: Option<Record>,
    ) {
        let at = self.at.lock().0;
        let lives = cluster.lives(record.as_ref().map_or(at, |r| r.at).host);
        let mut backups = record.iter().flat_map(|r| &r.backups);
        let backed = backups.any(|node| cluster.lives(*node));
        if let Some(record) = &record
            && !lives
            && !backed
            && cluster.durables.usual().is_some()
        {
            if !self.restores.swap(true, Ordering::AcqRel) {
                cluster.restore(Arc::clone(self), record.clone());
            }
            return;
        }
        let event = Event::Record {
            record,
            lives,
            backed,
        };
        self.post(local, Asked::Machine(event));
    }

    fn send(
        self: &Arc<KeptCaller>,
        cluster: &Arc<Cluster>,
        local: &Local,
        inner: &mut Inner,
        at: ActorKey,
        (number, settled): (u64, Settled),
    ) {
        let Some(record) = inner.calls.get(&number).cloned() else {
            return self.ask(cluster, local, inner, at, (number, settled));
        };
        let record = &record;
        let taken = Parcel::pack(local, record).and_then(|parcel| {
            let function = parcel::number(record.entry);
            let none = || parcel::cannot_send(record.entry, "it is not registered");
            Ok((function.ok_or_else(none)?, parcel))
        });
        let (function, parcel) = match taken {
            Ok(taken) => taken,
            Err(e) => {
                // It will never be sent: that is its outcome.
                let why = crate::exec::far::take::failure_bytes(&e);
                let failed = Load::Told(cluster.me, Arc::new(Outcome::Failed(why)));
                return self.post(local, Asked::Outcome(number, failed));
            }
        };
        let (actor, id, caller) = (self.actor, record.id, record.caller());
        if at.host == cluster.me {
            let call = Call {
                id: CallId {
                    node: cluster.me,
                    number,
                },
                settled,
                number: id,
                caller,
                parcel,
            };
            return cluster.kept_call_here(local, actor, at, Input::Came(call));
        }
        let call = cluster.out_call(function, parcel);
        let sent = cluster.with(local, |books, todo| {
            // Its death is about to be told, or it is about to be connected.
            if !books.peers.contains_key(&at.host) || !inner.unsent.is_empty() {
                return false;
            }
            let call = cluster.export_call(books, todo, at.host, call);
            let message = Recovering::Call {
                actor,
                at,
                number,
                settled: settled.clone(),
                id,
                caller,
                call,
            };
            cluster.send_recovering(books, at.host, message);
            true
        });
        if !sent {
            inner.unsent.push_back((number, settled));
        }
        if record.state() & cell::CANCEL != 0
            && let Some(far) = record.target().and_then(|a| a.far())
        {
            far.cancel(record);
        }
    }

    /// Asks for a result again.
    fn ask(
        self: &Arc<KeptCaller>,
        cluster: &Arc<Cluster>,
        local: &Local,
        inner: &mut Inner,
        at: ActorKey,
        (number, settled): (u64, Settled),
    ) {
        let Some(id) = inner.results.get(&number).copied() else {
            return;
        };
        let actor = self.actor;
        if at.host == cluster.me {
            let node = cluster.me;
            let input = Input::Again(CallId { node, number }, id, settled);
            return cluster.kept_call_here(local, actor, at, input);
        }
        let sent = cluster.with(local, |books, _| {
            if !books.peers.contains_key(&at.host) || !inner.unsent.is_empty() {
                return false;
            }
            let message = Recovering::Again {
                actor,
                at,
                number,
                settled: settled.clone(),
                id,
            };
            cluster.send_recovering(books, at.host, message);
            true
        });
        if !sent {
            inner.unsent.push_back((number, settled));
        }
    }

    fn kill_there(&self, cluster: &Arc<Cluster>, local: &Local, restart: bool) {
        let at = self.at.lock().0;
        if at.host == cluster.me {
            return cluster.on_kill(object(at), restart);
        }
        cluster.with(local, |books, _| {
            let actor = object(at);
            cluster.send_surely(books, at.host, &Frame::Kill { actor, restart });
        });
    }

    /// The actor is there now, and this node counts there as one that has handles.
    fn moved(&self, cluster: &Arc<Cluster>, local: &Local, at: ActorKey) {
        if self.cell.lock().1 == 0 {
            return;
        }
        let key = object(at);
        let here = cluster.with(local, |books, todo| {
            if at.host == cluster.me {
                return match books.exports.get(&at.number) {
                    Some(Export::Actor(handle)) => Some(handle.clone()),
                    _ => None,
                };
            }
            if books.peers.contains_key(&at.host) && self.keys.lock().insert(key) {
                let me = cluster.me;
                let effects = &mut todo.effects;
                books.owners.import(key, me, 0, RefState::Pending, effects);
            }
            None
        });
        let before = std::mem::replace(&mut *self.here.lock(), here);
        drop(before);
    }

    pub fn cell_gone(self: &Arc<KeptCaller>, local: &Local) {
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        // At once: a handle that comes meanwhile would be let go of with these.
        let gone = cluster.with(local, |books, todo| {
            let mut cell = self.cell.lock();
            cell.1 = cell.1.saturating_sub(1);
            if cell.1 > 0 {
                return None;
            }
            for key in std::mem::take(&mut *self.keys.lock()) {
                books.owners.dropped(key, &mut todo.effects);
            }
            Some((cell.0.take(), self.here.lock().take()))
        });
        if let Some(gone) = gone {
            drop(gone);
            self.post(local, Asked::Released);
        }
    }

    /// What is outside of all nodes cannot be gone on from.
    pub fn unrestored(&self, why: &str) {
        self.inner.lock().cause.get_or_insert_with(|| {
            let host = self.at.lock().0.host;
            format!(
                "its node {host} died, and its state is lost: nobody who had its history is left, and its durable checkpoint cannot be read: {why}"
            )
        });
    }

    fn death(&self, inner: &Inner, why: Why) -> Error {
        let cell = self.cell.lock().0.clone();
        Error::ActorDied {
            actor: self.entry.name,
            name: cell.and_then(|cell| cell.name().map(Arc::from)),
            cause: Arc::from(cause(inner, self.at.lock().0, why)),
            restarts: 0,
        }
    }
}

impl Inner {
    /// Whether what came of a call stays with the host, which can make it again.
    fn stays(&self, number: u64, outcome: &Load) -> bool {
        let Load::Told(_, outcome) = outcome else {
            return false;
        };
        let logged = |record: &RawRef| actor::is_logged(record.entry);
        matches!(**outcome, Outcome::Stored(_)) && self.calls.get(&number).is_none_or(logged)
    }
}

fn cause(inner: &Inner, at: ActorKey, why: Why) -> String {
    let host = at.host;
    match (why, &inner.cause) {
        (Why::Ended, Some(cause)) => cause.clone(),
        (Why::Ended, None) => "it has ended".to_owned(),
        (Why::Lost, Some(cause)) => cause.clone(),
        (Why::Lost, _) => format!(
            "its node {host} died, and its state is lost: nobody who had its history is left. More replicas, on nodes that do not die together, keep it"
        ),
        (Why::Late, _) => {
            format!("its node {host} died, and whoever has its history did not take over in time")
        }
    }
}
