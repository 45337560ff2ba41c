//! A call or a value outside of a record: what is sent to another node, and what came from one.
//!
//! Archives travel as the bytes they are. Positions inside them count from a 64-byte aligned base, so they are right in
//! any record and at any place of any arena. The references beside them travel as [`Carried`], which whoever sends them turns into
//! names.
//!
//! Invariant: a parcel owns a count of everything it refers to. What is unpacked is laid out as this process would have, or
//! refused; its bytes are marked as another node's. Left out: names and messages (`node`).

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::super::actor::{ActorRef, HandleRef};
use super::super::call::{Many, join_parts, store_padded};
use super::super::cell::{self, BODY, Blank, FOREIGN, Phase, RawRef, SLOT, Slot, SlotTag};
use super::super::entry::{ActorEntry, FnEntry, Kind};
use super::super::isolate::{MAX_ARGS, table};
use super::super::local::Local;
use super::super::options::Extra;
use super::super::pin::Pin;
use super::super::{INLINE_MAX, call};
use crate::base::{Error, Origin};
use crate::store::Distant;
use crate::value::Cap;

/// A value with references inside travels in one message: so many bytes, at most.
const MAX_MESSAGE: usize = 12 << 20;
/// What each reference counts of them.
const REFERENCE: usize = 96;

/// A reference inside a value.
#[derive(Clone)]
pub enum Carried {
    /// To an object of the type with this number.
    Object(RawRef, u64),
    /// To an actor of the type with this number.
    Actor(HandleRef, u64),
}

/// An argument.
#[derive(Clone)]
pub enum Arg {
    /// Inline, ending there.
    Inline(u32),
    /// An object.
    Object(RawRef),
}

/// A call.
#[derive(Clone)]
pub struct Parcel {
    /// What is called.
    pub function: &'static FnEntry,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// The archives of the inline ones.
    pub inline: Vec<u8>,
    /// References in them.
    pub caps: Vec<Carried>,
}

/// Where positions inside an archive count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// From where a record's body begins.
    Body,
    /// From an aligned block's first byte.
    Whole,
}

/// A value.
#[derive(Clone)]
pub struct ValueParcel {
    /// How its positions count.
    pub layout: Layout,
    /// The archive.
    pub bytes: Vec<u8>,
    /// References in it.
    pub caps: Vec<Carried>,
}

fn carried(caps: &[Cap]) -> Vec<Carried> {
    caps.iter()
        .map(|cap| {
            let object = RawRef::of_cap(cap).map(|object| Carried::Object(object, cap.tag()));
            let actor = || HandleRef::of_cap(cap).map(|handle| Carried::Actor(handle, cap.tag()));
            object
                .or_else(actor)
                .expect("references are to objects or to actors")
        })
        .collect()
}

fn caps(carried: Vec<Carried>) -> Option<Box<[Cap]>> {
    let caps: Box<[Cap]> = carried
        .into_iter()
        .map(|c| match c {
            Carried::Object(object, tag) => object.into_tagged_cap(tag),
            Carried::Actor(handle, tag) => handle.into_tagged_cap(tag),
        })
        .collect();
    (!caps.is_empty()).then_some(caps)
}

impl Parcel {
    /// Copies a call out of its record, which the caller has claimed and whose arguments have ended. Blocks while arguments
    /// that together are one `Vec` are fetched and joined.
    ///
    /// # Errors
    /// That an argument has no value.
    pub fn pack(local: &Local, record: &RawRef) -> Result<Parcel, Error> {
        let mut args = Vec::new();
        // SAFETY: claimed by the caller, who keeps the arguments while this runs; what a slot points to, it owns.
        unsafe {
            for slot in record.slots() {
                args.push(match slot.tag {
                    SlotTag::Inline => Arg::Inline(slot.end),
                    SlotTag::Ref => {
                        let held = std::mem::ManuallyDrop::new(RawRef::from_raw(slot.ptr.cast()));
                        call::dependency(&held, record)?;
                        Arg::Object(RawRef::clone(&held))
                    }
                    SlotTag::Many => {
                        let many = &*slot.ptr.cast::<Many>();
                        join_parts(local, many, record)?;
                        let joined = many.joined_ref().expect("joined above");
                        Arg::Object(joined.clone())
                    }
                });
            }
            let end = record.args_end();
            let inline = record.inline_arg(end)[args.len() * SLOT..].to_vec();
            Ok(Parcel {
                function: record.entry,
                args,
                inline,
                caps: carried(record.caps()),
            })
        }
    }

    /// Whether [`pack`](Self::pack) may block for a call that the caller has claimed.
    pub fn may_block(record: &RawRef) -> bool {
        // SAFETY: claimed by the caller, who keeps the arguments while this runs; what a slot points to, it owns.
        unsafe {
            record.slots().iter().any(|slot| {
                matches!(slot.tag, SlotTag::Many)
                    && (*slot.ptr.cast::<Many>()).joined_ref().is_none()
            })
        }
    }

    /// Whether there are references among its arguments.
    pub fn refers(&self) -> bool {
        self.args.iter().any(|a| matches!(a, Arg::Object(_)))
    }

    /// Where its arguments end: an argument that ends there may be empty.
    pub fn end(&self) -> u32 {
        (BODY + self.args.len() * SLOT + self.inline.len()) as u32
    }

    /// Whether it looks as a call of this function can.
    pub fn is_sound(&self) -> bool {
        let count = self.args.len();
        let first = BODY + count * SLOT;
        let end = first + self.inline.len();
        let fits = count <= MAX_ARGS && end <= BODY + count * (SLOT + INLINE_MAX);
        let inside = |e: u32| (first..=end).contains(&(e as usize));
        let good = self.args.iter().all(|a| match a {
            Arg::Inline(e) => inside(*e),
            Arg::Object(_) => true,
        });
        fits && good && count == self.function.arity && self.function.kind != Kind::Object
    }

    /// The record of the call, waiting for its arguments, with one reference. The call [is sound](Self::is_sound).
    ///
    /// # Panics
    /// If it is not.
    pub fn unpack(
        self,
        local: &Local,
        caller: u64,
        target: Option<ActorRef>,
        extra: Option<Box<Extra>>,
    ) -> RawRef {
        let entry = self.function;
        self.unpack_into(Blank {
            entry,
            refs: 1,
            phase: Phase::Waiting,
            caller,
            id: local.next_id(local.lane.begin()),
            target,
            extra,
            caps: None,
        })
    }

    /// As [`unpack`](Self::unpack), with this to begin with.
    pub fn unpack_into(self, blank: Blank) -> RawRef {
        let record = self.into_record(blank);
        record.set_flag(FOREIGN);
        record
    }

    /// A call of this node's own once more, whose result is the object `id`.
    pub fn again(self, id: u64, caller: u64, extra: Option<Box<Extra>>) -> RawRef {
        let entry = self.function;
        self.into_record(Blank {
            entry,
            refs: 1,
            phase: Phase::Waiting,
            caller,
            id,
            target: None,
            extra,
            caps: None,
        })
    }

    fn into_record(self, blank: Blank) -> RawRef {
        assert!(self.is_sound(), "a call that was not looked at");
        let count = self.args.len();
        let first = BODY + count * SLOT;
        let end = first + self.inline.len();
        let mut payload = vec![0; (end - BODY).next_multiple_of(32)];
        payload[first - BODY..end - BODY].copy_from_slice(&self.inline);
        for (i, arg) in self.args.into_iter().enumerate() {
            let slot = match arg {
                Arg::Inline(end) => Slot {
                    tag: SlotTag::Inline,
                    end,
                    ptr: std::ptr::null_mut(),
                },
                Arg::Object(object) => Slot {
                    tag: SlotTag::Ref,
                    end: 0,
                    ptr: object.into_raw().cast(),
                },
            };
            slot.write_to(&mut payload[i * SLOT..(i + 1) * SLOT]);
        }
        let size = self.function.result_size.max(INLINE_MAX);
        let blank = Blank {
            caps: caps(self.caps),
            ..blank
        };
        // SAFETY: `count` slots were written at the beginning, and what they own goes to the record.
        unsafe { cell::with_args(blank, count, &payload, end, size) }
    }
}

impl ValueParcel {
    /// Copies a value out of its record, which is `Done`. Blocks if it must be brought back first.
    ///
    /// # Errors
    /// That it is lost, or has references inside and is more than travels in one message.
    pub fn of_message(record: &RawRef) -> Result<ValueParcel, Error> {
        let pin = Pin::new(record)?;
        let (len, refers) = (pin.bytes().len(), pin.caps().len());
        if refers > 0 && refers.saturating_mul(REFERENCE).saturating_add(len) > MAX_MESSAGE {
            let why = format!(
                "a value of {len} bytes with {refers} references inside, which count {REFERENCE} bytes each, is more than the {MAX_MESSAGE} \
                 bytes that travel at once: give the references apart from the data, or in several values"
            );
            return Err(Error::Encode {
                value: (record.entry.output)(),
                why: Arc::from(why),
            });
        }
        drop(pin);
        ValueParcel::of(record)
    }

    /// As [`of_message`](Self::of_message), of any length.
    ///
    /// # Errors
    /// That it is lost.
    pub fn of(record: &RawRef) -> Result<ValueParcel, Error> {
        let pin = Pin::new(record)?;
        let carried = carried(pin.caps());
        Ok(match record.stored() {
            Some(_) => ValueParcel {
                layout: Layout::Whole,
                bytes: pin.bytes().to_vec(),
                caps: carried,
            },
            None => ValueParcel {
                layout: Layout::Body,
                bytes: record.archive().to_vec(),
                caps: carried,
            },
        })
    }

    /// Puts the value into a record that the caller has claimed, and whose arguments nobody borrows. The record is not
    /// settled yet.
    pub fn put(self, local: &Local, record: &RawRef) -> Result<(), Error> {
        let origin = Origin::Result(record.entry.name);
        let caps = caps(self.caps);
        record.set_flag(FOREIGN);
        let sealed = match self.layout {
            Layout::Whole => {
                let mut draft = local.engine.create(local, self.bytes.len(), origin)?;
                draft.write_at(0, &self.bytes);
                draft.seal()
            }
            Layout::Body => {
                // SAFETY: claimed; nobody borrows the arguments.
                unsafe {
                    record.drop_args();
                    if self.bytes.len() <= record.room() {
                        record.set_inline(&self.bytes, caps);
                        return Ok(());
                    } else if self.bytes.len() <= INLINE_MAX {
                        record.set_boxed(&self.bytes, caps);
                        return Ok(());
                    }
                }
                store_padded(local, &self.bytes, origin)?
            }
        };
        // SAFETY: claimed; nobody borrows the arguments.
        unsafe {
            record.drop_args();
            record.set_stored(sealed, caps);
        }
        Ok(())
    }
}

/// Stands for the function of a value that came with a call.
static CAME: FnEntry = FnEntry::inert("an argument that was kept", Kind::Object);

impl ValueParcel {
    /// The value as an object of this node's own. Blocks while the store has no room.
    ///
    /// # Errors
    /// That the store has none.
    pub fn object(self, local: &Local) -> Result<RawRef, Error> {
        let record = claimed_object(local);
        self.put(local, &record)?;
        local.engine.settle(local, &record, Ok(Ok(())));
        Ok(record)
    }
}

/// An object of this node's own of `len` bytes that are elsewhere, until somebody pins it.
pub(crate) fn object_elsewhere(local: &Local, len: usize, distant: Box<dyn Distant>) -> RawRef {
    let record = claimed_object(local);
    local.engine.settle_distant(local, &record, len, distant);
    record
}

/// The record of an object that has no value yet, claimed.
fn claimed_object(local: &Local) -> RawRef {
    let blank = Blank {
        entry: &CAME,
        refs: 1,
        phase: Phase::Running,
        caller: 0,
        id: local.next_object(crate::trace::NOT_RECORDED),
        target: None,
        extra: None,
        caps: None,
    };
    // SAFETY: no slots.
    unsafe { cell::with_args(blank, 0, &[], BODY, INLINE_MAX) }
}

/// The function of this number, which is the same on every node of one registry.
pub fn function(number: u32) -> Option<&'static FnEntry> {
    table().functions.get(number as usize).copied()
}

/// The actor type of this number, likewise.
pub fn actor_type(number: u32) -> Option<&'static ActorEntry> {
    table().actors.get(number as usize).copied()
}

/// The number of a function, or that of its actor if it is a constructor.
pub fn number(entry: &'static FnEntry) -> Option<u32> {
    table().number(entry)
}

/// The number of an actor type.
pub fn actor_number(entry: &'static ActorEntry) -> Option<u32> {
    table().number(&entry.constructor)
}

/// The number of the type of an argument, by which references to it are checked.
pub fn argument_tag(entry: &FnEntry, index: usize) -> u64 {
    (entry.arg_tag)(index)
}

/// Whether it is a function, which needs no actor.
pub fn is_function(entry: &'static FnEntry) -> bool {
    matches!(entry.kind, Kind::Task | Kind::AsyncTask)
}

/// Whether it is a method of this actor type, or its constructor.
pub fn is_method_of(entry: &'static FnEntry, actor: &'static ActorEntry) -> bool {
    (entry.owner)().is_some_and(|a| std::ptr::eq(a, actor))
        || std::ptr::eq(entry, &actor.constructor)
}

/// Whether this actor can be asked for it: a method of its type, or what every actor does.
pub fn belongs(entry: &'static FnEntry, actor: &'static ActorEntry) -> bool {
    is_method_of(entry, actor) || entry.kind == Kind::Checkpoint
}

/// Every remote item by name, with a number that changes when its signature does; in order.
pub fn symbols() -> Vec<(String, u64)> {
    let mut all: Vec<_> = table()
        .functions
        .iter()
        .copied()
        .chain(table().actors.iter().map(|a| &a.constructor))
        .filter(|f| f.kind != Kind::Checkpoint)
        .map(|f| {
            let mut hash = std::hash::DefaultHasher::new();
            (f.kind as u8, (f.output)(), f.arity).hash(&mut hash);
            (0..f.arity).for_each(|i| (f.arg_tag)(i).hash(&mut hash));
            (f.output_tag)().hash(&mut hash);
            (f.name.to_owned(), hash.finish())
        })
        .collect();
    all.sort();
    all
}

/// What a function was called with, as a failure that says why it cannot be sent.
pub fn cannot_send(entry: &FnEntry, why: &str) -> Error {
    Error::Encode {
        value: entry.name,
        why: Arc::from(why),
    }
}
