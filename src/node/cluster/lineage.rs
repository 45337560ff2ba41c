//! Lost results, made again by the calls that made them.
//!
//! When another node ran a call of this one and kept the result, the call is kept here with its arguments. If the result's last copy is
//! lost and somebody wants it, here or on a node that borrows it, the call runs again under the object's own number, placed like
//! any other; its result is the object's new copy, wherever that is, and the pulls that wait for one go on.
//!
//! Invariant: a lost object that somebody wants is made again or fails; its readers are told why. A result of another length than
//! before is refused, since readers have made room for the first. Left out: which calls are kept, and in which order they run
//! (`core::lineage`).

mod methods;

use std::collections::HashMap;
use std::sync::Arc;

use super::books::Books;
use super::{Cluster, Todo, recovery};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::lineage::{Effect, Kept, Lack, Lineage};
use crate::core::owners::{Effect as Owning, Message, Stand};
use crate::exec::far::take::{self, Told};
use crate::exec::far::{Arg, Carried, Layout, Parcel, ValueParcel};
use crate::exec::options::{DEFAULT_RETRIES, Extra};
use crate::exec::{Local, RawRef, cell};
pub(super) use methods::of_method;

/// What a call that is kept takes beside its arguments, about.
const CALL: u64 = 256;
const ARGUMENT: u64 = 64;

/// How an object is made again.
pub(super) enum Recipe {
    /// By its call.
    Call(Box<Again>),
    /// By whoever hosts the actor whose method gave it.
    Method(recovery::Again),
}

/// A call that can be made again.
pub(super) struct Again {
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
    /// Objects that hosts of actors are asked for, by which methods.
    asked: HashMap<u64, &'static str>,
    /// Why making it again failed.
    failed: HashMap<u64, String>,
}

impl Remakes {
    pub fn new(limit: u64) -> Remakes {
        Remakes {
            core: Lineage::new(limit),
            recipes: HashMap::new(),
            running: HashMap::new(),
            asked: HashMap::new(),
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
    pub(super) fn recipe(&self, local: &Local, record: &RawRef) -> Result<(Recipe, Kept), Lack> {
        if record.target().is_some() {
            return Err(Lack::Method(record.name()));
        }
        let parcel = Parcel::pack(local, record).map_err(|_| Lack::Failed)?;
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
        let again = Again {
            parcel,
            extra: record.extra().map(|e| Box::new(e.again())),
            caller: record.caller(),
        };
        Ok((Recipe::Call(Box::new(again)), kept))
    }

    /// Keeps it, as far as the bound allows.
    pub(super) fn keep_lineage(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        number: u64,
        recipe: Result<(Recipe, Kept), Lack>,
    ) {
        let mut out = Vec::new();
        match recipe {
            Ok((recipe, kept)) => {
                todo.recipes
                    .extend(books.remakes.recipes.insert(number, recipe));
                books.remakes.core.keep(number, kept, &mut out);
            }
            Err(lack) => books.remakes.core.bar(number, lack, &mut out),
        }
        self.remaking(books, todo, out);
    }

    /// Nobody needs the object made again: it is here, or nobody refers to it.
    pub(super) fn forget_lineage(&self, books: &mut Books, todo: &mut Todo, number: u64) {
        let mut out = Vec::new();
        books.remakes.core.forget(number, &mut out);
        books.remakes.failed.remove(&number);
        books.remakes.asked.remove(&number);
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
            return self.not_remade(local, number, again_failed(&Error::ShutDown.to_string()));
        }
        let record = {
            let mut books = self.books.lock();
            let remakes = &mut books.remakes;
            // Forgotten meanwhile.
            let of = match remakes.recipes.get(&number) {
                None => return,
                Some(Recipe::Call(of)) => of,
                Some(Recipe::Method(again)) => {
                    let ask = again.ask();
                    remakes.asked.insert(number, again.method);
                    drop(books);
                    return ask(local);
                }
            };
            let extra = of.extra.as_ref().map(|e| Box::new(e.again()));
            let record = of.parcel.clone().again(number, of.caller, extra);
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
            let why = other_length(record.name(), expected, len);
            self.not_remade(local, number, again_failed(&why));
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
                    Some(expected) => other_length(record.name(), expected, len),
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
            self.not_remade(local, number, again_failed(&why));
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
            return Some(why.clone());
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
            Lack::Method(_) | Lack::TooMany(_) => methods::why(remakes.core.lack(key.number)?),
            Lack::NoRetries => "it cannot be made again: its call has max_retries 0".to_owned(),
            Lack::Failed => "the call that made it was run again, and that failed".to_owned(),
        })
    }
}

fn again_failed(why: &str) -> String {
    format!("the call that made it was run again, and that failed: {why}")
}

fn other_length(name: &str, expected: u64, len: u64) -> String {
    format!(
        "`{name}` gave {len} bytes for a lost result of {expected} bytes: it is not deterministic, and what others have read of the first may not fit the second; give it max_retries(0), or the same result each time"
    )
}
