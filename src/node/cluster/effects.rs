//! What follows from a change of the books: messages while they are locked, everything else once they are not.
//!
//! Invariant: messages leave in the order of the changes. Left out: the changes.

use std::collections::HashMap;
use std::sync::Arc;

use super::beside::describe;
use super::books::{Books, Export, Later};
use super::leasing::Follow;
use super::lineage::Recipe;
use super::objects::Lander;
use super::{Cluster, lost};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::owners::{Effect, Message, RefState, Stand};
use crate::core::pulls::Effect as Pulling;
use crate::core::replicas::Effect as Replica;
use crate::exec::cell::finished;
use crate::exec::{Local, RawRef};
use crate::link::{self, SendError};
use crate::wire::{Beside, Frame};

/// Something that is done without the books.
pub(super) type Keep = Box<dyn FnOnce(&Local)>;

/// What is left to do.
#[derive(Default)]
pub(super) struct Todo {
    /// The owners' machine's.
    pub effects: Vec<Effect>,
    /// The pulls' machine's.
    pub pulls: Vec<Pulling>,
    /// The replicas' machine's.
    pub replicas: Vec<Replica>,
    /// Replicas that are to be made here: of what, how long, as which attempt.
    pub makes: Vec<(ObjectKey, u64, u64)>,
    /// Objects of dead owners: who has a replica and how long it is, or that nobody has one.
    pub orphans: Vec<(ObjectKey, Option<(NodeId, u64)>)>,
    /// What came beside references that settle now.
    pub beside: HashMap<ObjectKey, Beside>,
    /// Objects of this node whose end others are to be told of.
    pub watch: Vec<RawRef>,
    /// Objects that are made again.
    pub remakes: Vec<u64>,
    /// Calls that nobody needs any more.
    pub unwanted: Vec<RawRef>,
    /// What is left of lineages.
    pub recipes: Vec<Recipe>,
    /// What is dropped.
    pub later: Later,
    /// The leases'.
    pub leases: Follow,
    /// What is to be told to actors that keep their history, and to whoever calls them.
    pub keeps: Vec<Keep>,
    after: Vec<Effect>,
    fetches: Vec<Pulling>,
    /// Where bytes land that are about to be asked for: from whom, as which transfer, how many.
    pub landings: Vec<(NodeId, u64, Box<Lander>)>,
}

impl Cluster {
    /// Changes the books, and does what follows.
    pub(super) fn with<R>(
        self: &Arc<Cluster>,
        local: &Local,
        change: impl FnOnce(&mut Books, &mut Todo) -> R,
    ) -> R {
        let mut todo = Todo::default();
        let result = {
            let mut books = self.books.lock();
            let result = change(&mut books, &mut todo);
            self.tell_leases(&mut books, &mut todo);
            self.tell(&mut books, &mut todo);
            result
        };
        self.follow(local, todo);
        result
    }

    /// The messages, and what changes the books again.
    fn tell(&self, books: &mut Books, todo: &mut Todo) {
        loop {
            self.tell_owners(books, todo);
            self.tell_replicas(books, todo);
            if todo.pulls.is_empty() && todo.effects.is_empty() {
                return;
            }
            for effect in std::mem::take(&mut todo.pulls) {
                match effect {
                    Pulling::Send { to, message } => {
                        todo.effects.push(Effect::Send { to, message })
                    }
                    other => todo.fetches.push(other),
                }
            }
        }
    }

    fn tell_owners(&self, books: &mut Books, todo: &mut Todo) {
        let mut at = 0;
        while at < todo.effects.len() {
            let effect = todo.effects[at].clone();
            at += 1;
            match effect {
                Effect::Send { to, message } if to == self.me => {
                    self.hear(books, todo, self.me, message);
                }
                // Who has replicas answers, not the owner.
                Effect::Send { to, ref message } if self.divert(books, todo, to, message) => {}
                Effect::Send { to, message } => {
                    let beside = self.beside(books, &message);
                    let asks = matches!(message, Message::Where { .. });
                    if !self.send_surely(books, to, &Frame::Owning { message, beside }) {
                        let now = self.now();
                        books.owners.peer_died(now, to, &mut todo.effects);
                        if asks {
                            // Those who have replicas are asked next. What is no orphan would be asked of the same node again.
                            self.look_for_all(books, todo);
                            let replicas = &books.replicas;
                            let orphan = |key| replicas.is_orphan(key);
                            books.pulls.peer_died_but(to, orphan, &mut todo.pulls);
                        }
                    }
                }
                Effect::OwnerDied(key) if books.replicas.knows(key) => {
                    self.look_for(books, todo, key);
                }
                // It was put there by whoever exported it.
                Effect::Keep(_) => {}
                Effect::Find(key) => match self.exported(books, key).cloned() {
                    Some(Export::Object(ref record, _)) if finished(record.state()) => {
                        let stand = self.stand(books, key, record);
                        books.owners.settled(key, stand, &mut todo.effects);
                        todo.later.record(record.clone());
                    }
                    Some(export) => todo.later.export(export),
                    None => books.owners.gone(key, &mut todo.effects),
                },
                // Others have handles that have not said so here yet.
                Effect::Let(key) if self.came_lately(key) => {}
                Effect::Let(key) => {
                    if let Some(export) = books.exports.remove(&key.number) {
                        if let Export::Object(..) = export
                            && !books.tickets.contains_key(&key.number)
                        {
                            // Whatever copies others have, nobody here will ask for them.
                            books.owners.forget(key, &mut todo.effects);
                        }
                        todo.later.export(export);
                    }
                }
                Effect::Free(key) => {
                    if let Some(record) = books.held.remove(&key) {
                        todo.later.record(record);
                    }
                }
                Effect::Lost(key) => self.last_copy_lost(books, todo, key),
                other => todo.after.push(other),
            }
        }
        todo.effects.clear();
    }

    /// Takes in what a node says about references.
    pub(super) fn hear(&self, books: &mut Books, todo: &mut Todo, from: NodeId, message: Message) {
        match message {
            Message::At {
                key,
                ask,
                from: source,
            } => {
                books.pulls.on_at(from, key, ask, source, &mut todo.pulls);
            }
            message => {
                let (asks, has) = match message {
                    Message::Where { key, .. } => (Some(key), None),
                    Message::Copy { key } => (None, Some(key)),
                    _ => (None, None),
                };
                books.owners.handle(from, message, &mut todo.effects);
                if let Some(key) = asks {
                    self.asked_for(books, todo, key);
                }
                if let Some(key) = has {
                    self.copy_turned_up(books, key);
                }
            }
        }
    }

    /// What others know by this key; an actor with a name is found though nobody was given a handle yet.
    fn exported<'a>(&self, books: &'a mut Books, key: ObjectKey) -> Option<&'a Export> {
        if !books.exports.contains_key(&key.number) {
            let id = books
                .made
                .get(&key.number)
                .map_or(key.number, |actor| actor.id());
            let handle = self.engine()?.named_by_id(id)?;
            books.exports.insert(key.number, Export::Actor(handle));
        }
        books.exports.get(&key.number)
    }

    /// How an object of this node stands, with where its bytes are.
    fn stand(&self, books: &Books, key: ObjectKey, record: &RawRef) -> Stand {
        match (describe(self.me, record).0, books.tickets.get(&key.number)) {
            (Stand::Ready { len, .. }, Some((at, _))) => Stand::Ready { len, at: *at },
            (stand, _) => stand,
        }
    }

    /// What travels with a message about an object of this node.
    fn beside(&self, books: &Books, message: &Message) -> Beside {
        let (Message::Settled { key, state } | Message::Borrowed { key, state, .. }) = message
        else {
            return Beside::Nothing;
        };
        match (state, books.exports.get(&key.number)) {
            (RefState::Pending, _) => Beside::Nothing,
            (_, Some(Export::Object(record, _))) => match describe(self.me, record).1 {
                Beside::Nothing => books.kept_elsewhere(*key),
                beside => beside,
            },
            _ => Beside::Nothing,
        }
    }

    /// The rest, without the books.
    fn follow(self: &Arc<Cluster>, local: &Local, todo: Todo) {
        let Todo {
            after,
            fetches,
            landings,
            mut beside,
            watch,
            remakes,
            unwanted,
            recipes,
            later,
            leases,
            keeps,
            makes,
            orphans,
            ..
        } = todo;
        drop(later);
        self.follow_leases(local, leases);
        for keep in keeps {
            keep(local);
        }
        self.drop_recipes(recipes);
        for record in unwanted {
            local.engine.cancel(local, &record);
        }
        for number in remakes {
            self.remake(local, number);
        }
        for effect in fetches {
            self.pulling(local, effect);
        }
        for (from, transfer, lander) in landings {
            self.expect(local, from, transfer, lander);
        }
        for (key, len, attempt) in makes {
            self.make_replica(local, key, len, attempt);
        }
        for (key, found) in orphans {
            self.orphan_found(local, key, found);
        }
        for record in watch {
            let cluster = Arc::downgrade(self);
            local.engine.when_ended(&record, move |record| {
                if let Some(cluster) = cluster.upgrade() {
                    cluster.own_ended(&record);
                }
            });
        }
        for effect in after {
            match effect {
                Effect::Settled { key, state } => {
                    let beside = beside.remove(&key).unwrap_or(Beside::Nothing);
                    self.proxy_settled(local, key, state, beside);
                }
                Effect::Gone(key) => {
                    let e = lost(
                        key,
                        key.owner,
                        "it was let go before this node could say that it holds a reference",
                    );
                    self.fail_proxy(local, key, e);
                }
                Effect::OwnerDied(key) => {
                    let what = Arc::from(format!(
                        "it owned the object {key}, and nobody else knows who needs it"
                    ));
                    self.fail_proxy(
                        local,
                        key,
                        Error::NodeLost {
                            node: key.owner,
                            what,
                        },
                    );
                }
                Effect::Misbehaves(node) => self.misbehaves(node, "it told what no node tells"),
                _ => {}
            }
        }
    }

    /// An object of this node that others know has ended.
    fn own_ended(self: &Arc<Cluster>, record: &RawRef) {
        let key = self.key_of(record);
        let _ = crate::exec::local::with(|local| {
            self.with(local, |books, todo| {
                let stand = self.stand(books, key, record);
                if stand != Stand::Pending {
                    books.owners.settled(key, stand, &mut todo.effects);
                }
            });
        });
    }

    /// An object of another node has ended.
    pub(super) fn proxy_settled(
        self: &Arc<Cluster>,
        local: &Local,
        key: ObjectKey,
        state: RefState,
        beside: Beside,
    ) {
        let Some(record) = self.proxies.get(key) else {
            return;
        };
        if finished(record.state()) || !self.proxies.claim(key) {
            return;
        }
        let engine = &local.engine;
        match (state, beside) {
            (RefState::Ready { .. }, Beside::Value { whole, bytes }) => {
                let layout = if whole {
                    crate::exec::far::Layout::Whole
                } else {
                    crate::exec::far::Layout::Body
                };
                let value = crate::exec::far::ValueParcel {
                    layout,
                    bytes,
                    caps: Vec::new(),
                };
                self.settle(local, record, value);
            }
            (RefState::Ready { len, at }, beside) => {
                let refers = beside == Beside::Refers || self.books.lock().refers.contains(&key);
                let at = at.first().copied().unwrap_or(key.owner);
                if refers {
                    self.fetch_value(local, key, at);
                } else {
                    let distant = self.distant(key, at);
                    engine.settle_distant(local, &record, len as usize, distant);
                }
            }
            (_, Beside::Failed(why)) => {
                if !engine.settle_failure_told(local, &record, &why) {
                    engine.settle_error(
                        local,
                        &record,
                        lost(key, key.owner, "its failure cannot be read"),
                    );
                }
            }
            (RefState::Failed, _) => {
                engine.settle_error(
                    local,
                    &record,
                    lost(key, key.owner, "it failed, for a reason that was not told"),
                );
            }
            (RefState::Pending, _) => {}
        }
    }

    /// Ends a proxy with an error, if it has not ended.
    pub(super) fn fail_proxy(&self, local: &Local, key: ObjectKey, error: Error) {
        if let Some(record) = self.proxies.get(key)
            && !finished(record.state())
            && self.proxies.claim(key)
        {
            local.engine.settle_error(local, &record, error);
        }
    }

    /// Hands a frame to the link, or says why it cannot be sent now.
    pub(super) fn send(&self, books: &Books, to: NodeId, frame: &Frame) -> Result<(), SendError> {
        self.hand_on(books, to, frame.encode())
    }

    fn hand_on(&self, books: &Books, to: NodeId, bytes: Vec<u8>) -> Result<(), SendError> {
        if books.backlog.has(to) {
            // It must not overtake what waits.
            return Err(SendError::Full {
                to,
                held: 0,
                limit: 0,
            });
        }
        match self.link.get() {
            Some(link) => link.send(to, bytes.into()),
            None => Err(SendError::Gone(to)),
        }
    }

    /// Hands a frame to the link, or keeps it until the link takes it. False if the other node is gone, or about to be
    /// taken for dead since it takes nothing.
    pub(super) fn send_surely(&self, books: &mut Books, to: NodeId, frame: &Frame) -> bool {
        match self.send(books, to, frame) {
            Ok(()) => true,
            Err(SendError::Full { .. }) => books.backlog.push(to, frame.encode()),
            Err(_) => false,
        }
    }

    /// As [`send_surely`](Self::send_surely), of a frame's bytes.
    pub(super) fn send_bytes(&self, books: &mut Books, to: NodeId, bytes: Vec<u8>) -> bool {
        match self.hand_on(books, to, bytes.clone()) {
            Ok(()) => true,
            Err(SendError::Full { .. }) => books.backlog.push(to, bytes),
            Err(_) => false,
        }
    }

    /// Sends what was kept, as far as the link takes it.
    pub(super) fn flush(&self, books: &mut Books) {
        let Some(link) = self.link.get() else { return };
        let send = |to, frame: &[u8]| link.send(to, link::Bytes::copy_from_slice(frame));
        books.backlog.flush(send);
    }
}
