//! References that cross: live ones to names that travel, and back.
//!
//! Going out is in two steps: what must be looked up, copied or brought back is done first, without the books; then, with the books
//! locked, the owners' machine is told and the frame is made and handed to the link.
//!
//! Invariant: a reference is in a frame only if its count was registered first. What comes in is of the type that it came as
//! before, or refused. Left out: frames.

use std::sync::Arc;

use super::beside::{describe, lighten};
use super::books::{Books, Durable, Export, Later};
use super::{Cluster, Todo};
use crate::base::{Error, NodeId, ObjectKey};
use crate::core::owners::{Effect, RefState, Stand};
use crate::exec::actor::HandleRef;
use crate::exec::far::proxy::{self, Found};
use crate::exec::far::{Arg, Carried, Layout, Parcel, ValueParcel, parcel};
use crate::exec::{Local, RawRef};
use crate::wire::{ArgBody, Beside, CallBody, CapBody, HandleBody, RefBody, ValueBody};

/// A reference on its way out.
pub(super) enum Out {
    Object {
        record: RawRef,
        key: ObjectKey,
        tag: u64,
        stand: Stand,
        beside: Beside,
    },
    Actor {
        handle: HandleRef,
        tag: u64,
    },
}

/// An argument on its way out.
pub(super) enum OutArg {
    Inline(u32),
    Object(Out),
}

/// A call on its way out.
pub(super) struct OutCall {
    function: u32,
    args: Vec<OutArg>,
    inline: Vec<u8>,
    caps: Vec<Out>,
}

/// A value on its way out.
pub(super) struct OutValue {
    whole: bool,
    bytes: Vec<u8>,
    caps: Vec<Out>,
}

impl Cluster {
    /// An object's name.
    pub(super) fn key_of(&self, record: &RawRef) -> ObjectKey {
        proxy::key_of(record).unwrap_or(ObjectKey {
            owner: self.me,
            number: record.id,
        })
    }

    fn out_object(&self, record: RawRef, tag: u64) -> Out {
        let (stand, beside) = describe(self.me, &record);
        let key = self.key_of(&record);
        Out::Object {
            record,
            key,
            tag,
            stand,
            beside,
        }
    }

    fn out(&self, carried: Vec<Carried>) -> Vec<Out> {
        let one = |c| match c {
            Carried::Object(record, tag) => self.out_object(record, tag),
            Carried::Actor(handle, tag) => Out::Actor { handle, tag },
        };
        carried.into_iter().map(one).collect()
    }

    /// Prepares a call to be sent.
    pub(super) fn out_call(&self, function: u32, parcel: Parcel) -> OutCall {
        let entry = parcel.function;
        let args = parcel.args.into_iter().enumerate();
        let args = args.map(|(i, arg)| match arg {
            Arg::Inline(end) => OutArg::Inline(end),
            Arg::Object(record) => {
                OutArg::Object(self.out_object(record, parcel::argument_tag(entry, i)))
            }
        });
        OutCall {
            function,
            args: args.collect(),
            inline: parcel.inline,
            caps: self.out(parcel.caps),
        }
    }

    /// Prepares a value to be sent.
    pub(super) fn out_value(&self, value: ValueParcel) -> OutValue {
        OutValue {
            whole: value.layout == Layout::Whole,
            bytes: value.bytes,
            caps: self.out(value.caps),
        }
    }

    /// Counts a call's references for `to`, and gives it as it travels.
    pub(super) fn export_call(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        call: OutCall,
    ) -> CallBody {
        let args = call.args.into_iter().map(|arg| match arg {
            OutArg::Inline(end) => ArgBody::Inline(end),
            OutArg::Object(out) => match self.export(books, todo, to, out) {
                CapBody::Object(r) => ArgBody::Object(r),
                CapBody::Actor(_) => unreachable!("an argument is an object"),
            },
        });
        let args = args.collect();
        let caps = call.caps.into_iter();
        let caps = caps.map(|out| self.export(books, todo, to, out));
        let mut caps = caps.collect();
        lighten(call.inline.len(), &mut caps);
        CallBody {
            function: call.function,
            args,
            inline: call.inline,
            caps,
        }
    }

    /// As [`export_call`](Self::export_call), for a value.
    pub(super) fn export_value(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        value: OutValue,
    ) -> ValueBody {
        let caps = value.caps.into_iter();
        let caps = caps.map(|out| self.export(books, todo, to, out));
        let mut caps = caps.collect();
        lighten(value.bytes.len(), &mut caps);
        ValueBody {
            whole: value.whole,
            bytes: value.bytes,
            caps,
        }
    }

    fn export(&self, books: &mut Books, todo: &mut Todo, to: NodeId, out: Out) -> CapBody {
        match out {
            Out::Object {
                record,
                key,
                tag,
                stand,
                beside,
            } => CapBody::Object(self.export_object(
                books,
                todo,
                to,
                record,
                (key, tag),
                (stand, beside),
            )),
            Out::Actor { handle, tag } => {
                CapBody::Actor(self.export_actor(books, todo, to, handle, tag))
            }
        }
    }

    fn export_object(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        record: RawRef,
        (key, tag): (ObjectKey, u64),
        (stand, beside): (Stand, Beside),
    ) -> RefBody {
        let beside = match beside {
            Beside::Nothing => books.kept_elsewhere(key),
            beside => beside,
        };
        if key.owner == self.me {
            let stand = match (stand, books.tickets.get(&key.number)) {
                (Stand::Ready { len, .. }, Some((at, _))) => Stand::Ready { len, at: *at },
                (stand, _) => stand,
            };
            let state = books.owners.export(key, to, stand, &mut todo.effects);
            // It may have ended since it was looked at, and that was told to those before: then its value or its failure goes along.
            let beside = match (stand, &state) {
                (Stand::Pending, RefState::Ready { .. } | RefState::Failed) => {
                    describe(self.me, &record).1
                }
                _ => beside,
            };
            if let std::collections::hash_map::Entry::Vacant(v) = books.exports.entry(key.number) {
                v.insert(Export::Object(record.clone(), tag));
                if stand == Stand::Pending {
                    todo.watch.push(record.clone());
                }
            }
            todo.later.record(record);
            return RefBody {
                key,
                tag,
                transit: 0,
                state,
                beside,
            };
        }
        // What was not settled when it was looked at goes as such, without its value: its owner tells the rest.
        let state = match stand {
            Stand::Pending => RefState::Pending,
            _ => books.owners.known(key),
        };
        if key.owner == to {
            // Its owner has it; we keep ours until it says that it found it.
            let transit = books.owners.hand_on(key, to);
            todo.later.record(record);
            return RefBody {
                key,
                tag,
                transit,
                state,
                beside: Beside::Nothing,
            };
        }
        let transit = books.owners.hand_on(key, to);
        // That it failed is for its owner to say.
        let beside = if matches!(beside, Beside::Failed(_)) {
            Beside::Nothing
        } else {
            beside
        };
        todo.later.record(record);
        RefBody {
            key,
            tag,
            transit,
            state,
            beside,
        }
    }

    fn export_actor(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        to: NodeId,
        handle: HandleRef,
        tag: u64,
    ) -> HandleBody {
        let actor = handle.actor();
        let kind = parcel::actor_number(actor.entry()).unwrap_or(u32::MAX);
        let name = actor.name().map(str::to_owned);
        let far = actor.far().and_then(|f| f.key());
        let kept = actor.kept();
        let (key, transit) = match far {
            Some(key) if key.owner != self.me => (key, books.owners.hand_on(key, to)),
            // One that was elsewhere and came here is this node's own by now.
            other => {
                let id = actor.id();
                let own = || books.aliases.get(&id).copied().unwrap_or(id);
                let number = other.map_or_else(own, |key| key.number);
                let key = ObjectKey {
                    owner: self.me,
                    number,
                };
                books
                    .owners
                    .export(key, to, Stand::Pending, &mut todo.effects);
                let here = match other {
                    None => Some(handle.clone()),
                    Some(_) => books.made.get(&number).and_then(HandleRef::upgrade),
                };
                match (here, books.exports.entry(number)) {
                    (Some(here), std::collections::hash_map::Entry::Vacant(free)) => {
                        free.insert(Export::Actor(here));
                    }
                    (here, _) => here.into_iter().for_each(|h| todo.later.handle(h)),
                }
                (key, 0)
            }
        };
        todo.later.handle(handle);
        HandleBody {
            key,
            kind,
            tag,
            transit,
            name,
            kept,
        }
    }

    /// Takes a reference in that came from `via`.
    pub(super) fn import_object(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        via: NodeId,
        r: RefBody,
        tag: u64,
    ) -> Result<RawRef, Error> {
        let RefBody {
            key,
            transit,
            state,
            beside,
            ..
        } = r;
        if key.owner == self.me {
            let found = match books.exports.get(&key.number) {
                Some(Export::Object(record, of)) if *of == tag => Some(record.clone()),
                _ => None,
            };
            books
                .owners
                .import(key, via, transit, state, &mut todo.effects);
            return found.ok_or_else(|| lost(key, via, "it is not known here"));
        }
        let (record, new) = match self.proxies.find(local, key, tag) {
            Found::New(record) => (record, true),
            Found::Known(record) => (record, false),
            Found::OtherType => {
                return Err(lost(
                    key,
                    via,
                    "it came as an object of another type before",
                ));
            }
        };
        let from = todo.effects.len();
        books
            .owners
            .import(key, via, transit, state, &mut todo.effects);
        if new {
            settle_anew(books, todo, key, from);
        }
        self.learn(books, todo, key, beside, from);
        Ok(record)
    }

    /// What came beside a reference or a message is for the object's settling, if that is what follows.
    pub(super) fn learn(
        &self,
        books: &mut Books,
        todo: &mut Todo,
        key: ObjectKey,
        beside: Beside,
        from: usize,
    ) {
        if beside == Beside::Refers {
            books.refers.insert(key);
        }
        if self.proxies.has(key) {
            match &beside {
                Beside::Replicated => books.replicas.learn(key, false),
                Beside::Durable { at, len } => {
                    books.replicas.learn(key, true);
                    let (at, len) = (Arc::clone(at), *len);
                    books.durables.insert(key, Durable { at, len });
                }
                _ => {}
            }
        }
        if settles(&todo.effects[from..], key) && beside != Beside::Nothing {
            todo.beside.insert(key, beside);
        }
    }

    /// Takes a handle in that came from `via`.
    pub(super) fn import_actor(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        via: NodeId,
        h: HandleBody,
    ) -> Result<HandleRef, Error> {
        let entry = parcel::actor_type(h.kind)
            .ok_or_else(|| lost(h.key, via, "its type is not known here"))?;
        if h.key.owner == self.me {
            let found = match books.exports.get(&h.key.number) {
                Some(Export::Actor(handle)) if std::ptr::eq(handle.actor().entry(), entry) => {
                    Some(handle.clone())
                }
                _ => None,
            };
            books
                .owners
                .import(h.key, via, h.transit, RefState::Pending, &mut todo.effects);
            return found.ok_or_else(|| lost(h.key, via, "no such actor is known here"));
        }
        books
            .owners
            .import(h.key, via, h.transit, RefState::Pending, &mut todo.effects);
        match h.kept {
            Some(kept) => Ok(self.import_kept_handle(books, todo, local, kept, &h, entry)),
            None => Ok(self.far_handle(books, todo, local, h.key, entry, h.name.as_deref())),
        }
    }

    fn import_cap(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        via: NodeId,
        cap: CapBody,
    ) -> Result<Carried, Error> {
        Ok(match cap {
            CapBody::Object(r) => {
                let tag = r.tag;
                Carried::Object(self.import_object(books, todo, local, via, r, tag)?, tag)
            }
            CapBody::Actor(h) => {
                let tag = h.tag;
                Carried::Actor(self.import_actor(books, todo, local, via, h)?, tag)
            }
        })
    }

    fn import_caps(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        via: NodeId,
        caps: Vec<CapBody>,
    ) -> Result<Vec<Carried>, Error> {
        // All of them, whatever becomes of one: each was counted.
        let all: Vec<_> = caps
            .into_iter()
            .map(|cap| self.import_cap(books, todo, local, via, cap))
            .collect();
        let mut good = Vec::with_capacity(all.len());
        let mut first = None;
        for one in all {
            match one {
                Ok(Carried::Object(record, tag)) if first.is_none() => {
                    good.push(Carried::Object(record, tag))
                }
                Ok(Carried::Actor(handle, tag)) if first.is_none() => {
                    good.push(Carried::Actor(handle, tag))
                }
                Ok(Carried::Object(record, _)) => todo.later.record(record),
                Ok(Carried::Actor(handle, _)) => todo.later.handle(handle),
                Err(e) => first = first.or(Some(e)),
            }
        }
        match first {
            None => Ok(good),
            Some(e) => {
                drop_carried(good, &mut todo.later);
                Err(e)
            }
        }
    }

    /// Takes a value in.
    pub(super) fn import_value(
        self: &Arc<Cluster>,
        local: &Local,
        via: NodeId,
        value: ValueBody,
    ) -> Result<ValueParcel, Error> {
        let layout = if value.whole {
            Layout::Whole
        } else {
            Layout::Body
        };
        let caps = match value.caps.is_empty() {
            true => Vec::new(),
            false => self.with(local, |books, todo| {
                self.import_caps(books, todo, local, via, value.caps)
            })?,
        };
        Ok(ValueParcel {
            layout,
            bytes: value.bytes,
            caps,
        })
    }

    /// Takes a call in.
    pub(super) fn import_call(
        self: &Arc<Cluster>,
        books: &mut Books,
        todo: &mut Todo,
        local: &Local,
        via: NodeId,
        function: &'static crate::exec::entry::FnEntry,
        call: CallBody,
    ) -> Result<Parcel, Error> {
        let mut args = Vec::with_capacity(call.args.len());
        let mut first = None;
        for (i, arg) in call.args.into_iter().enumerate() {
            match arg {
                ArgBody::Inline(end) => args.push(Arg::Inline(end)),
                ArgBody::Object(r) => {
                    let tag = parcel::argument_tag(function, i);
                    match self.import_object(books, todo, local, via, r, tag) {
                        Ok(record) => args.push(Arg::Object(record)),
                        Err(e) => first = first.or(Some(e)),
                    }
                }
            }
        }
        let caps = self.import_caps(books, todo, local, via, call.caps);
        match (first, caps) {
            (None, Ok(caps)) => Ok(Parcel {
                function,
                args,
                inline: call.inline,
                caps,
            }),
            (first, caps) => {
                for arg in args {
                    if let Arg::Object(record) = arg {
                        todo.later.record(record);
                    }
                }
                let other = caps.map(|good| drop_carried(good, &mut todo.later)).err();
                Err(first.or(other).expect("one of the two failed"))
            }
        }
    }
}

/// A new record stands for an object that is known to have settled: the one before it went just now, and the owners' machine has
/// not heard of that, so it says nothing.
fn settle_anew(books: &Books, todo: &mut Todo, key: ObjectKey, from: usize) {
    let state = books.owners.known(key);
    if state != RefState::Pending && !settles(&todo.effects[from..], key) {
        todo.effects.push(Effect::Settled { key, state });
    }
}

/// Whether the object settles by one of these.
fn settles(effects: &[Effect], key: ObjectKey) -> bool {
    let mut effects = effects.iter();
    effects.any(|e| matches!(e, Effect::Settled { key: k, .. } if *k == key))
}

fn drop_carried(carried: Vec<Carried>, later: &mut Later) {
    for c in carried {
        match c {
            Carried::Object(record, _) => later.record(record),
            Carried::Actor(handle, _) => later.handle(handle),
        }
    }
}

/// A reference that cannot be taken in.
pub(super) fn lost(key: ObjectKey, via: NodeId, why: &str) -> Error {
    Error::NodeLost {
        node: via,
        what: Arc::from(format!("it sent a reference to {key}, and {why}")),
    }
}
