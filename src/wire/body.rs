//! Calls, values and references, as they travel.
//!
//! Invariant: lists and nesting are bounded by the frame that they are in; a value inside a reference has no references of its
//! own. Left out: what they are in a process (`exec`).

use std::sync::Arc;
use std::time::Duration;

use super::codec::{Read, Reader, Writer, bad};
use super::grouping::{self, InGroup};
use crate::base::{ActorKey, Demand, ObjectKey};
use crate::core::history::Terms as History;
use crate::core::owners::RefState;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueBody {
    /// Positions count from a block's first byte, not from a record's body.
    pub whole: bool,
    /// The archive.
    pub bytes: Vec<u8>,
    /// References in it.
    pub caps: Vec<CapBody>,
}

/// A small value or a failure, which travels with the reference to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing does.
    Nothing,
    /// A value without references.
    Value {
        /// As in [`ValueBody`].
        whole: bool,
        /// The archive.
        bytes: Vec<u8>,
    },
    /// It is to be asked for before it can be used: it has references inside, or the frame had no room for it.
    Refers,
    /// Why it failed.
    Failed(Vec<u8>),
    /// It has replicas: they are looked for when its owner is dead.
    Replicated,
    /// It may have replicas, and has a durable copy, which is read if nobody else has it any more.
    Durable {
        /// The URL under which that is.
        at: Arc<str>,
        /// Bytes of the archive.
        len: u64,
    },
}

/// A reference to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefBody {
    /// Which.
    pub key: ObjectKey,
    /// The number of its type.
    pub tag: u64,
    /// The giver's number for this reference.
    pub transit: u64,
    /// What the giver knows of it.
    pub state: RefState,
    /// What comes with it.
    pub beside: Beside,
}

/// A reference to an actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleBody {
    /// Which.
    pub key: ObjectKey,
    /// The number of its actor type.
    pub kind: u32,
    /// The number of its Rust type.
    pub tag: u64,
    /// The giver's number for this reference.
    pub transit: u64,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// If its history is kept: its first key, and as which incarnation it is there.
    pub kept: Option<(ActorKey, u64)>,
}

/// A reference inside a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapBody {
    /// To an object.
    Object(RefBody),
    /// To an actor.
    Actor(HandleBody),
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgBody {
    /// Inline, ending there.
    Inline(u32),
    /// An object.
    Object(RefBody),
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallBody {
    /// The number of what is called.
    pub function: u32,
    /// Its arguments.
    pub args: Vec<ArgBody>,
    /// The archives of the inline ones.
    pub inline: Vec<u8>,
    /// References in them.
    pub caps: Vec<CapBody>,
}

/// How a call is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What it holds while it runs; nothing said is one CPU.
    pub demand: Option<Demand>,
    /// Higher runs first.
    pub priority: i32,
    /// Further attempts after a panic.
    pub panic_retries: u32,
    /// Further attempts after its worker process died.
    pub crash_retries: u32,
    /// In a worker process.
    pub isolate: bool,
    /// What that may take.
    pub memory: Option<u64>,
    /// In a placement group.
    pub group: Option<InGroup>,
}

/// How an actor is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorTerms {
    /// What it holds while it lives.
    pub demand: Demand,
    /// Its name.
    pub name: Option<String>,
    /// It outlives its handles.
    pub detached: bool,
    /// Restarts by its constructor.
    pub max_restarts: u32,
    /// `&self` methods side by side.
    pub max_concurrency: u32,
    /// The bound of its mailbox.
    pub max_pending: u32,
    /// A panic ends it.
    pub restart_on_panic: bool,
    /// In a worker process.
    pub isolate: bool,
    /// What that may take.
    pub memory: Option<u64>,
    /// When its checkpoints are due.
    pub checkpoints: History,
    /// How many other nodes keep its history.
    pub replicas: u32,
    /// In a placement group.
    pub group: Option<InGroup>,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A value.
    Value(ValueBody),
    /// A value of so many bytes, which stays where the call ran until its owner frees it.
    Stored(u64),
    /// It failed.
    Failed(Vec<u8>),
    /// It was not run, and may be run elsewhere.
    Returned,
}

pub(super) fn actor(w: &mut Writer, key: ActorKey) {
    w.node(key.host);
    w.u64(key.number);
}

pub(super) fn read_actor(r: &mut Reader<'_>) -> Read<ActorKey> {
    Ok(ActorKey {
        host: r.node()?,
        number: r.u64()?,
    })
}

pub(super) fn kept(w: &mut Writer, kept: Option<(ActorKey, u64)>) {
    w.option(kept, |w, (of, incarnation)| {
        actor(w, of);
        w.u64(incarnation);
    });
}

pub(super) fn read_kept(r: &mut Reader<'_>) -> Read<Option<(ActorKey, u64)>> {
    r.option(|r| Ok((read_actor(r)?, r.u64()?)))
}

pub(super) fn state(w: &mut Writer, state: &RefState) {
    match state {
        RefState::Pending => w.u8(0),
        RefState::Ready { len, at } => {
            w.u8(1);
            w.u64(*len);
            w.list(at, |w, node| w.node(*node));
        }
        RefState::Failed => w.u8(2),
    }
}

pub(super) fn read_state(r: &mut Reader<'_>) -> Read<RefState> {
    Ok(match r.u8()? {
        0 => RefState::Pending,
        1 => RefState::Ready {
            len: r.u64()?,
            at: r.list(8, Reader::node)?,
        },
        2 => RefState::Failed,
        _ => return bad("state of an object"),
    })
}

pub(super) fn beside(w: &mut Writer, beside: &Beside) {
    match beside {
        Beside::Nothing => w.u8(0),
        Beside::Value { whole, bytes } => {
            w.u8(1);
            w.bool(*whole);
            w.bytes(bytes);
        }
        Beside::Refers => w.u8(2),
        Beside::Failed(bytes) => {
            w.u8(3);
            w.bytes(bytes);
        }
        Beside::Replicated => w.u8(4),
        Beside::Durable { at, len } => {
            w.u8(5);
            w.bytes(at.as_bytes());
            w.u64(*len);
        }
    }
}

pub(super) fn read_beside(r: &mut Reader<'_>) -> Read<Beside> {
    Ok(match r.u8()? {
        0 => Beside::Nothing,
        1 => Beside::Value {
            whole: r.bool()?,
            bytes: r.bytes()?.to_vec(),
        },
        2 => Beside::Refers,
        3 => Beside::Failed(r.bytes()?.to_vec()),
        4 => Beside::Replicated,
        5 => Beside::Durable {
            at: r.text()?.into(),
            len: r.u64()?,
        },
        _ => return bad("value beside a reference"),
    })
}

pub(super) fn reference(w: &mut Writer, r: &RefBody) {
    w.key(r.key);
    w.u64(r.tag);
    w.u64(r.transit);
    state(w, &r.state);
    beside(w, &r.beside);
}

pub(super) fn read_reference(r: &mut Reader<'_>) -> Read<RefBody> {
    Ok(RefBody {
        key: r.key()?,
        tag: r.u64()?,
        transit: r.u64()?,
        state: read_state(r)?,
        beside: read_beside(r)?,
    })
}

pub(super) fn handle(w: &mut Writer, h: &HandleBody) {
    w.key(h.key);
    w.u32(h.kind);
    w.u64(h.tag);
    w.u64(h.transit);
    w.option(h.name.as_deref(), Writer::text);
    kept(w, h.kept);
}

pub(super) fn read_handle(r: &mut Reader<'_>) -> Read<HandleBody> {
    Ok(HandleBody {
        key: r.key()?,
        kind: r.u32()?,
        tag: r.u64()?,
        transit: r.u64()?,
        name: r.option(|r| Ok(r.text()?.to_owned()))?,
        kept: read_kept(r)?,
    })
}

fn cap(w: &mut Writer, cap: &CapBody) {
    match cap {
        CapBody::Object(r) => {
            w.u8(0);
            reference(w, r);
        }
        CapBody::Actor(h) => {
            w.u8(1);
            handle(w, h);
        }
    }
}

fn read_cap(r: &mut Reader<'_>) -> Read<CapBody> {
    Ok(match r.u8()? {
        0 => CapBody::Object(read_reference(r)?),
        1 => CapBody::Actor(read_handle(r)?),
        _ => return bad("reference in a value"),
    })
}

pub(super) fn value(w: &mut Writer, v: &ValueBody) {
    w.bool(v.whole);
    w.bytes(&v.bytes);
    w.list(&v.caps, cap);
}

pub(super) fn read_value(r: &mut Reader<'_>) -> Read<ValueBody> {
    Ok(ValueBody {
        whole: r.bool()?,
        bytes: r.bytes()?.to_vec(),
        caps: r.list(34, read_cap)?,
    })
}

pub(super) fn call(w: &mut Writer, c: &CallBody) {
    w.u32(c.function);
    w.list(&c.args, |w, arg| match arg {
        ArgBody::Inline(end) => {
            w.u8(0);
            w.u32(*end);
        }
        ArgBody::Object(r) => {
            w.u8(1);
            reference(w, r);
        }
    });
    w.bytes(&c.inline);
    w.list(&c.caps, cap);
}

/// The most arguments that are read; a remote function has fewer.
const MOST_ARGS: usize = 64;

pub(super) fn read_call(r: &mut Reader<'_>) -> Read<CallBody> {
    let function = r.u32()?;
    let args = r.list_of(MOST_ARGS, 5, |r| {
        Ok(match r.u8()? {
            0 => ArgBody::Inline(r.u32()?),
            1 => ArgBody::Object(read_reference(r)?),
            _ => return bad("argument"),
        })
    })?;
    Ok(CallBody {
        function,
        args,
        inline: r.bytes()?.to_vec(),
        caps: r.list(34, read_cap)?,
    })
}

pub(super) fn terms(w: &mut Writer, t: &Terms) {
    w.option(t.demand.as_ref(), Writer::demand);
    w.u32(t.priority.cast_unsigned());
    w.u32(t.panic_retries);
    w.u32(t.crash_retries);
    w.bool(t.isolate);
    w.option(t.memory, Writer::u64);
    w.option(t.group, grouping::in_group);
}

pub(super) fn read_terms(r: &mut Reader<'_>) -> Read<Terms> {
    Ok(Terms {
        demand: r.option(Reader::demand)?,
        priority: r.u32()?.cast_signed(),
        panic_retries: r.u32()?,
        crash_retries: r.u32()?,
        isolate: r.bool()?,
        memory: r.option(Reader::u64)?,
        group: r.option(grouping::read_in_group)?,
    })
}

pub(super) fn actor_terms(w: &mut Writer, t: &ActorTerms) {
    w.demand(&t.demand);
    w.option(t.name.as_deref(), Writer::text);
    w.bool(t.detached);
    w.u32(t.max_restarts);
    w.u32(t.max_concurrency);
    w.u32(t.max_pending);
    w.bool(t.restart_on_panic);
    w.bool(t.isolate);
    w.option(t.memory, Writer::u64);
    w.u64(t.checkpoints.every);
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    w.option(t.checkpoints.interval.map(nanos), Writer::u64);
    w.u64(t.checkpoints.bound);
    w.bool(t.checkpoints.durable);
    w.u32(t.replicas);
    w.option(t.group, grouping::in_group);
}

pub(super) fn read_actor_terms(r: &mut Reader<'_>) -> Read<ActorTerms> {
    Ok(ActorTerms {
        demand: r.demand()?,
        name: r.option(|r| Ok(r.text()?.to_owned()))?,
        detached: r.bool()?,
        max_restarts: r.u32()?,
        max_concurrency: r.u32()?,
        max_pending: r.u32()?,
        restart_on_panic: r.bool()?,
        isolate: r.bool()?,
        memory: r.option(Reader::u64)?,
        checkpoints: History {
            every: r.u64()?,
            interval: r.option(Reader::u64)?.map(Duration::from_nanos),
            bound: r.u64()?,
            durable: r.bool()?,
        },
        replicas: r.u32()?,
        group: r.option(grouping::read_in_group)?,
    })
}

pub(super) fn outcome(w: &mut Writer, o: &Outcome) {
    match o {
        Outcome::Value(v) => {
            w.u8(0);
            value(w, v);
        }
        Outcome::Stored(len) => {
            w.u8(1);
            w.u64(*len);
        }
        Outcome::Failed(bytes) => {
            w.u8(2);
            w.bytes(bytes);
        }
        Outcome::Returned => w.u8(3),
    }
}

pub(super) fn read_outcome(r: &mut Reader<'_>) -> Read<Outcome> {
    Ok(match r.u8()? {
        0 => Outcome::Value(read_value(r)?),
        1 => Outcome::Stored(r.u64()?),
        2 => Outcome::Failed(r.bytes()?.to_vec()),
        3 => Outcome::Returned,
        _ => return bad("outcome"),
    })
}
