//! Lost results, made again by the calls that made them.
//!
//! When another node ran a call of this one and kept the result, the call is kept here with its arguments. If the result's last copy is
//! lost and somebody wants it, here or on a node that borrows it, the call runs again under the object's own number, placed like
//! any other; its result is the object's new copy, wherever that is, and the pulls that wait for one go on.
//!
//! Invariant: a lost object that somebody wants is made again or fails; its readers are told why. A result of another length than
//! before is refused, since readers have made room for the first. Left out: which calls are kept, and in which order they run
//! (`core::lineage`).

use std::collections::HashMap;
use std::sync::Arc;

use super::books::Books;
use super::{Cluster, Todo};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::lineage::{Effect, Kept, Lack, Lineage};
use crate::core::owners::{Effect as Owning, Message, Stand};
use crate::exec::far::take::{self, Told};
use crate::exec::far::{Arg, Carried, Layout, Parcel, ValueParcel};
use crate::exec::options::{DEFAULT_RETRIES, Extra};
use crate::exec::{Local, RawRef, cell};

/// What a call that is kept takes beside its arguments, about.
const CALL: u64 = 256;
const ARGUMENT: u64 = 64;

/// A call that can be made again.
pub(super) struct Recipe {
    parcel: Parcel,
    extra: Option<Box<Extra>>,
    caller: u64,
}

/// What is kept for making objects again.
pub(super) struct Remakes {
    core: Lineage,
    recipes: HashMap<u64, Recipe>,
    /// Calls under way, by the object that they make.
    running: HashMap<u64, RawRef>,
    /// Why making it again failed.
    failed: HashMap<u64, String>,
}

impl Remakes {
    pub fn new(limit: u64) -> Remakes {
        Remakes {
            core: Lineage::new(limit),
            recipes: HashMap::new(),
            running: HashMap::new(),
            failed: HashMap::new(),
        }
    }

    /// Whether a call of this number makes an object again.
    pub fn makes(&self, number: u64) -> bool {
        self.running.contains_key(&number)
    }
}

/// How often a call may run again after its node died.
pub(super) fn retries(record: &RawRef) -> u32 {
    record.extra().map_or(DEFAULT_RETRIES, |e| {
        if e.isolate {
            e.crash_retries
        } else {
            e.death_retries
        }
    })
}

impl Cluster {
    /// Another node ran this claimed call and keeps its result: the call is copied out of the record, to be kept.
    pub(super) fn recipe(&self, local: &Local, record: &RawRef) -> Option<(Recipe, Kept)> {
        if record.target().is_some() {
            return None;
        }
        let parcel = Parcel::pack(local, record).ok()?;
        let mut kept = Kept {
            bytes: CALL + parcel.inline.len() as u64,
            retries: retries(record),
            ..Kept::default()
        };
        let mut object = |record: &RawRef| {
            let done = cell::phase(record.state()) == cell::Phase::Done;
            let bytes = if done { record.value_size() as u64 } else { 0 };
            let key = self.key_of(record);
            kept.bytes += ARGUMENT;
            kept.objects.push((key, bytes));
            key
        };
        let mut inputs = Vec::new();
        for arg in &parcel.args {
            if let Arg::Object(record) = arg {
                inputs.push(object(record));
            }
        }
        for carried in &parcel.caps {
            if let Carried::Object(record, _) = carried {
                object(record);
            }
        }
        inputs.retain(|key| key.owner == self.me);
        kept.inputs = inputs.iter().map(|key| key.number).collect();
        let recipe = Recipe {
            parcel,
            extra: record.extra().map(|e| Box::new(e.again())),
            caller: record.caller(),
        };
        Some((recipe, kept))
    }

    /// Keeps it, as far as the bound allows.
    pub(super) fn keep_lineage(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        number: u64,
        recipe: Option<(Recipe, Kept)>,
    ) {
        let mut out = Vec::new();
        match recipe {
            Some((recipe, kept)) => {
                books.remakes.recipes.insert(number, recipe);
                books.remakes.core.keep(number, kept, &mut out);
            }
            None => books.remakes.core.bar(number, Lack::Actor, &mut out),
        }
        self.remaking(books, todo, out);
    }

    /// Nobody needs the object made again: it is here, or nobody refers to it.
    pub(super) fn forget_lineage(&self, books: &mut Books, todo: &mut Todo, number: u64) {
        let mut out = Vec::new();
        books.remakes.core.forget(number, &mut out);
        books.remakes.failed.remove(&number);
        if let Some(record) = books.remakes.running.remove(&number) {
            todo.unwanted.push(record);
        }
        let key = self.own(number);
        if let Some(record) = books.held.remove(&key) {
            todo.later.record(record);
        }
        self.remaking(books, todo, out);
    }

    fn own(&self, number: u64) -> ObjectKey {
        ObjectKey {
            owner: self.me,
            number,
        }
    }

    /// The last copy of an object of this node is lost.
    pub(super) fn last_copy_lost(&self, books: &mut Books, todo: &mut Todo, key: ObjectKey) {
        let at = books.tickets.get(&key.number).map(|(at, _)| *at);
        if !books.remakes.core.lost(key.number, at.unwrap_or(self.me)) {
            books.owners.settled(key, Stand::Failed, &mut todo.effects);
        } else if books.owners.awaited(key) {
            self.want_again(books, todo, key.number);
        }
    }

    /// Somebody asks where an object of this node is.
    pub(super) fn asked_for(&self, books: &mut Books, todo: &mut Todo, key: ObjectKey) {
        if key.owner == self.me && books.remakes.core.is_lost(key.number) {
            self.want_again(books, todo, key.number);
        }
    }

    /// A node has a copy of an object of this node: it may have been taken for lost.
    pub(super) fn copy_turned_up(&self, books: &mut Books, key: ObjectKey) {
        if key.owner == self.me && !books.owners.is_lost(key) {
            books.remakes.core.found(key.number);
        }
    }

    fn want_again(&self, books: &mut Books, todo: &mut Todo, number: u64) {
        let mut out = Vec::new();
        books.remakes.core.wanted(number, &mut out);
        self.remaking(books, todo, out);
    }

    /// What the machine of lineages wants done.
    fn remaking(&self, books: &mut Books, todo: &mut Todo, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Run(number) => todo.remakes.push(number),
                Effect::Fail(number) => {
                    let key = self.own(number);
                    books.owners.settled(key, Stand::Failed, &mut todo.effects);
                }
                Effect::Drop(number) => todo.recipes.extend(books.remakes.recipes.remove(&number)),
            }
        }
    }

    /// What is left of lineages is dropped one after the other: each may be the last that refers to the next, and comes here again.
    pub(super) fn drop_recipes(&self, recipes: Vec<Recipe>) {
        if recipes.is_empty() {
            return;
        }
        let mut dropping = self.dropping.lock();
        dropping.1.extend(recipes);
        if std::mem::replace(&mut dropping.0, true) {
            return; // whoever is at it sees to these, too
        }
        while let Some(recipe) = dropping.1.pop() {
            drop(dropping);
            drop(recipe);
            dropping = self.dropping.lock();
        }
        dropping.0 = false;
    }

    /// Nothing is made again any more.
    pub(super) fn abandon_lineages(books: &mut Books, todo: &mut Todo) {
        let remakes = &mut books.remakes;
        todo.recipes
            .extend(remakes.recipes.drain().map(|(_, recipe)| recipe));
        for (_, record) in remakes.running.drain() {
            todo.unwanted.push(record);
        }
    }

    /// Calls the call of an object again.
    pub(super) fn remake(self: &Arc<Cluster>, local: &Local, number: u64) {
        if self.stopping() {
            return self.not_remade(local, number, Error::ShutDown.to_string());
        }
        let record = {
            let mut books = self.books.lock();
            let remakes = &mut books.remakes;
            // Forgotten meanwhile.
            let Some(recipe) = remakes.recipes.get(&number) else {
                return;
            };
            let extra = recipe.extra.as_ref().map(|e| Box::new(e.again()));
            let record = recipe.parcel.clone().again(number, recipe.caller, extra);
            remakes.running.insert(number, record.clone());
            record
        };
        let cluster = Arc::downgrade(self);
        local.engine.accept(local, record, move |record| {
            if let Some(cluster) = cluster.upgrade() {
                let _ = crate::exec::local::with(|local| cluster.remade_here(local, &record));
            }
        });
    }

    /// Such a call ended on another node, which keeps the result.
    pub(super) fn remade_there(
        self: &Arc<Cluster>,
        local: &Local,
        record: &RawRef,
        from: NodeId,
        len: u64,
    ) {
        let number = record.id;
        let key = self.own(number);
        let wrong = self.with(local, |books, todo| {
            let ours = books.remakes.running.remove(&number);
            let wanted = ours.is_some();
            ours.into_iter().for_each(|r| todo.later.record(r));
            let expected = books.tickets.get(&number).map(|(_, len)| *len);
            if !wanted || expected != Some(len) {
                let message = Message::Free { key };
                todo.effects.push(Owning::Send { to: from, message });
                return expected.filter(|_| wanted);
            }
            books.tickets.insert(number, (from, len));
            self.made(books, todo, key, Stand::Ready { len, at: from });
            if !books.peers.contains_key(&from) {
                // It died meanwhile, and nobody will say so again.
                let now = self.now();
                books.owners.peer_died(now, from, &mut todo.effects);
            }
            None
        });
        if let Some(expected) = wrong {
            self.not_remade(local, number, other_length(record, expected, len));
        }
        // Nobody reads this record: the object has its own.
        let nothing = ValueParcel {
            layout: Layout::Body,
            bytes: Vec::new(),
            caps: Vec::new(),
        };
        local.engine.settle_value(local, record, nothing);
    }

    /// Such a call ended, and this node has what came of it.
    fn remade_here(self: &Arc<Cluster>, local: &Local, record: &RawRef) {
        let number = record.id;
        let key = self.own(number);
        let why = match take::told(record) {
            Told::Failed(_) => match record.peek_error() {
                Some(why) => why.to_string(),
                None => Error::ShutDown.to_string(),
            },
            Told::Value(len, refers) => {
                let len = len as u64;
                let wrong = self.with(local, |books, todo| {
                    let current = books.remakes.running.get(&number);
                    if !current.is_some_and(|r| r.same(record)) {
                        return None;
                    }
                    let Some((_, expected)) = books.tickets.get(&number).copied() else {
                        // Nobody needs it any more.
                        let ours = books.remakes.running.remove(&number);
                        ours.into_iter().for_each(|r| todo.later.record(r));
                        return None;
                    };
                    if expected != len || refers || !take::is_stored(record) {
                        return Some(expected);
                    }
                    let ours = books.remakes.running.remove(&number);
                    ours.into_iter().for_each(|r| todo.later.record(r));
                    books.tickets.insert(number, (self.me, len));
                    books.held.insert(key, record.clone());
                    self.made(books, todo, key, Stand::Ready { len, at: self.me });
                    books.pulls.found(key, &mut todo.pulls);
                    None
                });
                match wrong {
                    Some(expected) => other_length(record, expected, len),
                    None => return,
                }
            }
        };
        let ours = {
            let mut books = self.books.lock();
            let current = books.remakes.running.get(&number);
            if current.is_some_and(|r| r.same(record)) {
                books.remakes.running.remove(&number)
            } else {
                None
            }
        };
        if ours.is_some() {
            self.not_remade(local, number, why);
        }
    }

    fn made(&self, books: &mut Books, todo: &mut Todo, key: ObjectKey, stand: Stand) {
        let mut out = Vec::new();
        books.owners.settled(key, stand, &mut todo.effects);
        books.remakes.core.ended(key.number, true, &mut out);
        self.remaking(books, todo, out);
    }

    fn not_remade(self: &Arc<Cluster>, local: &Local, number: u64, why: String) {
        self.with(local, |books, todo| {
            let mut out = Vec::new();
            if books.tickets.contains_key(&number) {
                books.remakes.failed.insert(number, why);
            }
            books.remakes.core.ended(number, false, &mut out);
            self.remaking(books, todo, out);
        });
    }

    /// Why an object that is lost was not made again.
    pub(super) fn why_not_again(&self, key: ObjectKey) -> Option<String> {
        if key.owner != self.me {
            return None;
        }
        let books = self.books.lock();
        let remakes = &books.remakes;
        if let Some(why) = remakes.failed.get(&key.number) {
            return Some(format!(
                "the call that made it was run again, and that failed: {why}"
            ));
        }
        Some(match remakes.core.lack(key.number)? {
            Lack::GivenUp => format!(
                "it cannot be made again: its lineage was given up at {} bytes; more is kept with Config::lineage_bytes",
                remakes.core.limit()
            ),
            Lack::Spent(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
                format!(
                    "it was made {} times, as often as its max_retries allows, and lost each time with its node: {}",
                    nodes.len(),
                    nodes.join(", ")
                )
            }
            Lack::Actor => {
                "a method of an actor made it, and those are not called again for a lost result"
                    .to_owned()
            }
            Lack::NoRetries => "it cannot be made again: its call has max_retries 0".to_owned(),
            Lack::Failed => "the call that made it was run again, and that failed".to_owned(),
        })
    }
}

fn other_length(record: &RawRef, expected: u64, len: u64) -> String {
    format!(
        "`{}` gave {len} bytes for a lost result of {expected} bytes: it is not deterministic, and what others have read of the first may not fit the second; give it max_retries(0), or the same result each time",
        record.name()
    )
}
