//! Actors on other nodes, and actors here that others have handles to.
//!
//! The node that runs an actor owns it, as an object's owner does: it counts who has handles, and lets its own handle go when
//! nobody has one any more. Calls of one caller are sent in order, and the link keeps them so.
//!
//! Invariant: one cell here for each actor elsewhere, however many handles. A method is only called on an actor of its type.
//! Left out: names (`names`).

use std::sync::{Arc, Weak};

use super::books::{Books, Export, FarCell, Sent};
use super::effects::Todo;
use super::groups::{group_of, strategy_of};
use super::{Cluster, lost, recovery};
use crate::base::{ActorKey, Demand, Error, NodeId, ObjectKey};
use crate::core::owners::{RefState, Stand};
use crate::exec::actor::{self, Foreign, HandleRef};
use crate::exec::entry::ActorEntry;
use crate::exec::far::{FarActor, Parcel, parcel};
use crate::exec::options::Options;
use crate::exec::{Local, RawRef};
use crate::wire::{ActorTerms, CallBody, Frame};

/// The other end of a handle.
struct Elsewhere {
    cluster: Weak<Cluster>,
    key: ObjectKey,
}

impl FarActor for Elsewhere {
    fn call(&self, local: &Local, record: RawRef) {
        match self.cluster.upgrade() {
            Some(cluster) => cluster.send_method(local, self.key, &record),
            None => local.engine.settle_error(local, &record, Error::ShutDown),
        }
    }

    fn kill(&self, restart: bool) {
        let Some(cluster) = self.cluster.upgrade() else {
            return;
        };
        let mut books = cluster.books.lock();
        let actor = self.key;
        cluster.send_surely(&mut books, actor.owner, &Frame::Kill { actor, restart });
    }

    fn gone(&self) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.cell_gone(self.key);
        }
    }

    fn key(&self) -> Option<ObjectKey> {
        Some(self.key)
    }
}

impl Cluster {
    /// A handle to an actor of another node: to the cell that there is, or a new one. One reference was imported for it.
    pub(super) fn far_handle(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        key: ObjectKey,
        entry: &'static ActorEntry,
        name: Option<&str>,
    ) -> HandleRef {
        if let Some(cell) = books.far_actors.get(&key)
            && let Some(handle) = HandleRef::upgrade(&cell.actor)
        {
            return handle;
        }
        let far = Box::new(Elsewhere {
            cluster: Arc::downgrade(self),
            key,
        });
        let handle = local.engine.far_handle(local, entry, name, far);
        let cell = FarCell {
            actor: handle.actor().clone(),
            cells: 1,
        };
        if let Some(old) = books.far_actors.insert(key, cell) {
            if let Some(cell) = books.far_actors.get_mut(&key) {
                cell.cells += old.cells;
            }
            todo.later.actor(old.actor);
        }
        handle
    }

    /// A cell has ended; if it was the last of its actor's here, the actor's node is told.
    fn cell_gone(self: &Arc<Cluster>, key: ObjectKey) {
        let _ = crate::exec::local::with(|local| {
            self.with(local, |books, todo| {
                let Some(cell) = books.far_actors.get_mut(&key) else {
                    return;
                };
                cell.cells -= 1;
                if cell.cells == 0 {
                    if let Some(cell) = books.far_actors.remove(&key) {
                        todo.later.actor(cell.actor);
                    }
                    books.owners.dropped(key, &mut todo.effects);
                }
            });
        });
    }

    /// Sends a call of a method.
    fn send_method(self: &Arc<Cluster>, local: &Local, actor: ObjectKey, record: &RawRef) {
        let parcel = match Parcel::pack(local, record) {
            Ok(parcel) => parcel,
            Err(e) => return local.engine.settle_error(local, record, e),
        };
        let Some(function) = parcel::number(record.entry) else {
            let e = parcel::cannot_send(record.entry, "it is not registered");
            return local.engine.settle_error(local, record, e);
        };
        let call = self.out_call(function, parcel);
        let (number, caller, to) = (record.id, record.caller(), actor.owner);
        let sent = self.with(local, |books, todo| {
            if !books.peers.contains_key(&to) {
                return Ok(false);
            }
            // A program that outruns a node is told so, before that is taken for one that hears nothing.
            if let Some(full) = books.backlog.is_long(to) {
                return Err(full);
            }
            let call = self.export_call(books, todo, to, call);
            let sent = Sent {
                record: record.clone(),
                to,
                counted: false,
                leased: false,
                went: true,
                deaths: Vec::new(),
            };
            books.sent.insert(number, sent);
            let sent = self.send_surely(
                books,
                to,
                &Frame::Method {
                    actor,
                    caller,
                    number,
                    call,
                },
            );
            if !sent && let Some(sent) = books.sent.remove(&number) {
                todo.later.record(sent.record);
            }
            Ok(sent)
        });
        if let Err(full) = &sent {
            let why = format!(
                "node {to} takes calls more slowly than they are made: {full}; wait for results now and then, or bound the actor's \
                 calls with max_pending"
            );
            let e = Error::Cluster {
                why: Arc::from(why),
            };
            return local.engine.settle_error(local, record, e);
        }
        if sent == Ok(false) {
            let error = Error::ActorDied {
                actor: record.target().map_or("an actor", |a| a.entry().name),
                name: record.target().and_then(|a| a.name().map(Arc::from)),
                cause: Arc::from(format!("its node {to} died")),
                restarts: 0,
            };
            local.engine.settle_error(local, record, error);
        }
    }

    /// A call of a method of an actor here.
    pub(super) fn on_method(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        actor: ObjectKey,
        (caller, number): (u64, u64),
        call: CallBody,
    ) {
        let Some(function) = parcel::function(call.function) else {
            return self.misbehaves(from, "it called a method that there is not");
        };
        let key = ObjectKey {
            owner: from,
            number,
        };
        let taken = self.with(local, |books, todo| {
            let target = match books.exports.get(&actor.number) {
                Some(Export::Actor(handle)) if actor.owner == self.me => {
                    Some(handle.actor().clone())
                }
                _ => None,
            };
            let parcel = self.import_call(books, todo, local, from, function, call);
            (target, parcel)
        });
        let (target, parcel) = match taken {
            (Some(target), Ok(parcel)) => (target, parcel),
            (None, parcel) => {
                drop(parcel);
                let e = Error::ActorDied {
                    actor: function.name,
                    name: None,
                    cause: Arc::from("its node knows it no more"),
                    restarts: 0,
                };
                return self.tell_error(local, from, number, e);
            }
            (_, Err(e)) => return self.tell_error(local, from, number, e),
        };
        let caller = caller_from(from, caller);
        if !parcel::belongs(function, target.entry()) {
            return self.misbehaves(from, "it called a method of another actor's");
        }
        if !parcel.is_sound() {
            return self.misbehaves(from, "it sent a call that is none");
        }
        let record = parcel.unpack(local, caller, Some(target), None);
        self.books
            .lock()
            .running
            .insert((from, number), record.clone());
        let cluster = Arc::downgrade(self);
        local.engine.accept(local, record, move |record| {
            if let Some(cluster) = cluster.upgrade() {
                let _ = crate::exec::local::with(|local| cluster.ran(local, from, key, &record));
            }
        });
    }

    /// Sends a constructor's call, and gives the new actor's handle.
    pub(super) fn send_create(
        self: &Arc<Cluster>,
        local: &Local,
        to: NodeId,
        entry: &'static ActorEntry,
        (terms, name, adopt): (ActorTerms, Option<&str>, bool),
        init: &RawRef,
    ) -> Result<HandleRef, Error> {
        let call = Parcel::pack(local, init)?;
        let kind = parcel::actor_number(entry)
            .ok_or_else(|| parcel::cannot_send(entry.constructor(), "it is not registered"))?;
        let call = self.out_call(kind, call);
        // The other node's own numbers have the highest bit clear.
        let key = ObjectKey {
            owner: to,
            number: self.random() | 1 << 63,
        };
        // The name is taken before the other node hears of it, whose link's thread may not wait for the records.
        if let Some(name) = name
            && let Some(theirs) =
                self.take_name_for(local, name, key, entry, recovery::is_kept(entry, &terms))?
        {
            let living = theirs.actor().entry();
            if !adopt {
                return Err(Error::NameTaken {
                    name: name.to_owned(),
                    actor: living.name,
                });
            }
            if !std::ptr::eq(living, entry) {
                return Err(actor::wrong_type(name, entry, theirs.actor()));
            }
            return Ok(theirs);
        }
        let made = self.with(local, |books, todo| {
            let gone = || lost(key, to, "it was to make an actor");
            let kept = recovery::is_kept(entry, &terms);
            if !books.peers.contains_key(&to) {
                return Err(gone());
            }
            let call = self.export_call(books, todo, to, call);
            if !self.send_surely(
                books,
                to,
                &Frame::Create {
                    number: key.number,
                    kind,
                    terms,
                    call,
                },
            ) {
                return Err(gone());
            }
            // As if its node had sent this handle.
            books
                .owners
                .import(key, to, 0, RefState::Pending, &mut todo.effects);
            if kept {
                let first = ActorKey {
                    host: to,
                    number: key.number,
                };
                let at = (first, 1, key);
                return Ok(self.kept_handle(books, todo, local, at, entry, name));
            }
            Ok(self.far_handle(books, todo, local, key, entry, name))
        });
        if made.is_err()
            && let Some(name) = name
        {
            self.free_name_of(local, name, key);
        }
        made
    }

    /// Another node has an actor made here.
    pub(super) fn on_create(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        (number, kind): (u64, u32),
        terms: ActorTerms,
        call: CallBody,
    ) {
        let Some(entry) = parcel::actor_type(kind) else {
            return self.misbehaves(from, "it wanted an actor of a type that there is not");
        };
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        if number >> 63 == 0 || self.books.lock().exports.contains_key(&number) {
            return self.misbehaves(from, "it numbered an actor as another is numbered");
        }
        let parcel = self.with(local, |books, todo| {
            books.took += 1;
            self.import_call(books, todo, local, from, entry.constructor(), call)
        });
        let name = terms.name.clone();
        let draining = self.books.lock().draining;
        let made = parcel.and_then(|parcel| {
            if draining {
                return Err(lost(key, self.me, "it is leaving, and takes nothing new"));
            }
            if !parcel.is_sound() {
                return Err(lost(key, from, "its constructor's call is none"));
            }
            let foreign = Foreign {
                backups: self.keep(entry, terms.clone(), number, from),
                revival: None,
            };
            let (refers, options) = (parcel.refers(), options(terms));
            let engine = &local.engine;
            actor::create_for(engine, local, entry, refers, &options, foreign, |blank| {
                parcel.unpack_into(blank)
            })
        });
        match made {
            Ok(handle) => self.with(local, |books, todo| {
                books.made.insert(number, handle.actor().clone());
                books.aliases.insert(handle.actor().id(), number);
                books.exports.insert(number, Export::Actor(handle));
                books
                    .owners
                    .export(key, from, Stand::Pending, &mut todo.effects);
            }),
            Err(e) => {
                self.keeps_not(key);
                if let Some(name) = name {
                    self.free_name_of(local, &name, key);
                }
                let cause = format!("it could not be created: {e}");
                self.with(local, |books, todo| {
                    // It has a handle all the same, which it gives back.
                    books
                        .owners
                        .export(key, from, Stand::Failed, &mut todo.effects);
                    self.send_surely(books, from, &Frame::ActorEnded { actor: key, cause });
                });
            }
        }
    }

    /// Another node ends an actor here.
    pub(super) fn on_kill(self: &Arc<Cluster>, actor: ObjectKey, restart: bool) {
        let target = match self.books.lock().exports.get(&actor.number) {
            Some(Export::Actor(handle)) if actor.owner == self.me => handle.actor().clone(),
            _ => return,
        };
        if restart {
            actor::restart(&target)
        } else {
            actor::kill(&target)
        }
    }

    /// An actor here has ended: whoever has handles is told.
    pub(super) fn actor_ended(self: &Arc<Cluster>, actor: u64, cause: &str) {
        let mut books = self.books.lock();
        let number = books.aliases.remove(&actor).unwrap_or(actor);
        books.made.remove(&number);
        let key = ObjectKey {
            owner: self.me,
            number,
        };
        drop(books);
        if !self.kept_ended(key, cause) {
            return;
        }
        let mut books = self.books.lock();
        if !books.exports.contains_key(&number) {
            return;
        }
        let peers: Vec<NodeId> = books.owners.borrowers(key);
        for to in peers {
            let cause = cause.to_owned();
            self.send_surely(&mut books, to, &Frame::ActorEnded { actor: key, cause });
        }
    }

    /// An actor of another node has ended.
    pub(super) fn on_actor_ended(
        self: &Arc<Cluster>,
        local: &Local,
        from: NodeId,
        actor: ObjectKey,
        cause: &str,
    ) {
        if actor.owner != from {
            return self.misbehaves(from, "it told of the end of another node's actor");
        }
        let cell = self
            .books
            .lock()
            .far_actors
            .get(&actor)
            .map(|cell| cell.actor.clone());
        if let Some(cell) = cell {
            return local.engine.far_ended(&cell, cause);
        }
        self.stillborn(local, actor, cause);
    }

    /// A node died: so did its actors.
    pub(super) fn actors_died(self: &Arc<Cluster>, local: &Local, node: NodeId) {
        let cells: Vec<_> = {
            let books = self.books.lock();
            let its = books.far_actors.iter().filter(|(key, _)| key.owner == node);
            its.map(|(_, cell)| cell.actor.clone()).collect()
        };
        for cell in cells {
            local
                .engine
                .far_ended(&cell, &format!("its node {node} died"));
        }
    }
}

/// A caller of another node, as it is numbered here: who has the same number as another only waits for it now and then.
pub(super) fn caller_from(node: NodeId, caller: u64) -> u64 {
    (node.get() ^ caller.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// What options say of an actor, as they travel.
pub(super) fn terms(entry: &ActorEntry, o: &Options, demand: &Demand) -> Result<ActorTerms, Error> {
    let d = &entry.defaults;
    let (isolate, memory) = crate::exec::options::isolation(o, d)?;
    Ok(ActorTerms {
        demand: demand.clone(),
        name: o.name.clone().or(d.name.map(str::to_owned)),
        detached: o.detached,
        max_restarts: o.max_restarts.or(d.max_restarts).unwrap_or(0),
        max_concurrency: o.max_concurrency.or(d.max_concurrency).unwrap_or(1),
        max_pending: o.max_pending.or(d.max_pending).unwrap_or(0),
        restart_on_panic: o.restart_on_panic.or(d.restart_on_panic).unwrap_or(false),
        isolate,
        memory,
        checkpoints: crate::exec::options::checkpoints(o, d)?,
        replicas: o.replicas.or(d.replicas).unwrap_or(1),
        group: group_of(&o.strategy),
    })
}

/// The same as options, here.
pub(super) fn options(t: ActorTerms) -> Options {
    Options {
        num_cpus: Some(t.demand.cpu.to_f64()),
        num_gpus: Some(t.demand.gpu.to_f64()),
        resources: t
            .demand
            .custom()
            .iter()
            .map(|(n, a)| (n.clone(), a.to_f64()))
            .collect(),
        name: t.name,
        detached: t.detached,
        max_restarts: Some(t.max_restarts),
        max_concurrency: Some(t.max_concurrency),
        max_pending: Some(t.max_pending),
        restart_on_panic: Some(t.restart_on_panic),
        isolate: Some(t.isolate),
        memory: t.memory.map(Into::into),
        checkpoint_every: u32::try_from(t.checkpoints.every).ok().filter(|n| *n > 0),
        checkpoint_interval: t.checkpoints.interval,
        log_bytes: Some(t.checkpoints.bound.max(1).into()),
        durable_checkpoints: Some(t.checkpoints.durable),
        replicas: Some(t.replicas),
        strategy: strategy_of(t.group),
        ..Options::default()
    }
}
