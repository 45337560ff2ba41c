//! What of calls, objects and actors goes into the recording: one function for each step of their lives.
//!
//! Whether a call or an object is recorded is decided when it begins, and its id says so from then on
//! ([`recorded`]): every later step costs one look at the id. Failures, restarts, deaths and waits are recorded always.
//!
//! Invariant: a call's end is recorded before anybody can see its outcome, so that who has a result finds in the recording
//! all that led to it. Left out: how events are kept (`trace`).

use std::sync::Arc;

use super::actor::ActorCell;
use super::cell::Record;
use super::local::{self, Local};
use crate::base::{Error, Origin};
use crate::shm::Words;
use crate::store::Came;
use crate::trace::{Deed, Event, INPUTS, NOT_RECORDED, Outcome, Recorder, Submitted, Turn};

/// A recorder, and the memory that it writes to, which worker processes map too.
#[derive(Clone)]
pub struct Recording {
    pub recorder: Arc<Recorder>,
    pub words: Arc<Words>,
}

/// Whether the call or object with this id is recorded.
#[inline(always)]
pub fn recorded(id: u64) -> bool {
    id & 1 != 0
}

/// A call was made and nobody else knows of it yet; `each_input` names the objects it takes.
#[cold]
pub fn submitted(
    local: &Local,
    record: &Record,
    begin: u64,
    bytes: usize,
    each_input: impl Fn(&mut dyn FnMut(u64)),
) {
    let Some(pen) = local.lane.pen() else { return };
    let mut all = 0_usize;
    let mut first = [0; 2];
    let mut more = [0; INPUTS];
    each_input(&mut |input| {
        match all {
            0 | 1 => first[all] = input,
            n => {
                let at = (n - 2) % INPUTS;
                more[at] = input;
                if at == INPUTS - 1 {
                    pen.put(&Event::Inputs {
                        call: record.id,
                        count: INPUTS as u8,
                        inputs: more,
                    });
                }
            }
        }
        all += 1;
    });
    let left = all.saturating_sub(2) % INPUTS;
    if left > 0 {
        pen.put(&Event::Inputs {
            call: record.id,
            count: left as u8,
            inputs: more,
        });
    }
    pen.put(&Event::Submit(Submitted {
        name: pen.name(record.entry.name),
        begin,
        end: pen.now(),
        call: record.id,
        caller: record.caller,
        actor: record.target().map_or(0, |a| a.id),
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        inputs: u16::try_from(all).unwrap_or(u16::MAX),
        first,
    }));
}

/// What the call waited for is there: its arguments, or its resources.
#[inline(always)]
pub fn ready(local: &Local, record: &Record, resources: bool) {
    if recorded(record.id) {
        readied(local, record.id, resources);
    }
}

#[cold]
fn readied(local: &Local, call: u64, resources: bool) {
    if let Some(pen) = local.lane.pen() {
        pen.put(&Event::Ready {
            call,
            at: pen.now(),
            resources,
        });
    }
}

/// The call begins to run on this thread.
#[inline(always)]
pub fn enter(local: &Local, record: &Record) {
    if recorded(record.id) {
        entered_anew(local, record);
    }
}

#[cold]
fn entered_anew(local: &Local, record: &Record) {
    entered(local, record, attempt(record));
}

/// The call begins to run, or is polled, for the `turn`-th time.
#[cold]
pub fn entered(local: &Local, record: &Record, turn: u16) {
    if let Some(pen) = local.lane.pen() {
        let actor = record.target().map_or(0, |a| a.id);
        pen.enter(pen.name(record.entry.name), record.id, actor, turn);
    }
}

fn attempt(record: &Record) -> u16 {
    let attempts = record.extra().map_or(1, super::options::Extra::attempt);
    u16::try_from(attempts.max(1)).unwrap_or(u16::MAX)
}

/// The call has read its arguments, or, the second time, its function has returned.
#[inline(always)]
pub fn mark(local: &Local, record: &Record) {
    if recorded(record.id) {
        marked(local, record.id);
    }
}

#[cold]
fn marked(local: &Local, call: u64) {
    if let Some(pen) = local.lane.pen() {
        pen.mark(call);
    }
}

/// The call, or its attempt or poll, ended on this thread without an error, with a result of so many bytes.
#[cold]
pub fn exited(local: &Local, record: &Record, outcome: Outcome, bytes: usize) {
    if let Some(pen) = local.lane.pen() {
        pen.exit(record.id, outcome, bytes as u64, None);
    }
}

/// The attempt at the call ended here, and another will be made.
#[cold]
pub fn again(local: &Local, record: &Record) {
    if recorded(record.id) {
        exited(local, record, Outcome::Again, 0);
    }
}

/// The call is about to end in an error.
#[cold]
pub fn failed(local: &Local, record: &Record, error: &Error) {
    let Some(pen) = local.lane.pen() else { return };
    // A shutdown fails whatever waits, which is no news of the single call.
    let news = !matches!(error, Error::ShutDown);
    if !news && !recorded(record.id) {
        return;
    }
    let cancelled = error.is_cancelled();
    let outcome = if cancelled {
        Outcome::Cancelled
    } else {
        Outcome::Failed
    };
    let why = error.to_string();
    if pen.exit(record.id, outcome, 0, Some(&why)) {
        return;
    }
    pen.say(record.id, &why);
    pen.put(&Event::Fail {
        name: pen.name(record.entry.name),
        at: pen.now(),
        call: record.id,
        cancelled,
    });
}

/// Since when a thread blocks, for [`blocked`].
pub fn blocks(local: &Local) -> u64 {
    // Whatever comes after was slow to come.
    local.lane.look_up();
    local.lane.pen().map_or(NOT_RECORDED, |pen| pen.now())
}

/// A thread slept until now, for so many results, the first being that of the call `awaited` to `name`.
pub fn blocked(local: &Local, begin: u64, name: &'static str, awaited: u64, count: usize) {
    if begin == NOT_RECORDED {
        return;
    }
    if let Some(pen) = local.lane.pen() {
        pen.put(&Event::Block {
            name: pen.name(name),
            begin,
            end: pen.now(),
            awaited,
            count: u32::try_from(count).unwrap_or(u32::MAX),
        });
    }
}

/// An object was made, since `begin`.
#[inline(always)]
pub fn object(local: &Local, begin: u64, deed: Deed, origin: Origin, object: &Record) {
    if begin != NOT_RECORDED {
        made(local, begin, deed, origin, object.id, object.value_size());
    }
}

#[cold]
pub fn made(local: &Local, begin: u64, deed: Deed, origin: Origin, id: u64, bytes: usize) {
    let Some(pen) = local.lane.pen() else { return };
    let (place, line) = match origin {
        Origin::Put(at) | Origin::Create(at) => (at.file(), at.line()),
        Origin::Argument(what) | Origin::Result(what) => (what, 0),
    };
    pen.put(&Event::Object {
        deed,
        name: pen.name(place),
        line,
        begin,
        end: pen.now(),
        object: id,
        bytes: bytes as u64,
    });
}

/// An object in the store is freed, on whatever thread dropped its last reference.
#[inline(always)]
pub fn freed(record: &Record, bytes: usize) {
    if recorded(record.id) {
        gone(record.id, bytes);
    }
}

#[cold]
fn gone(object: u64, bytes: usize) {
    local::if_entered(|local| {
        let Some(pen) = local.lane.pen() else { return };
        let now = pen.now();
        pen.put(&Event::Object {
            deed: Deed::Free,
            name: 0,
            line: 0,
            begin: now,
            end: pen.now(),
            object,
            bytes: bytes as u64,
        });
    });
}

/// The bytes of an object came from where they were, since `begin`.
#[cold]
pub fn came(local: &Local, begin: u64, object: &Record, bytes: usize, came: Came) {
    if begin == NOT_RECORDED {
        return;
    }
    let (deed, from) = match came {
        // Whoever brought them has noted how; this thread waited for that.
        Came::Here => return blocked(local, begin, object.entry.name, object.id, 1),
        Came::Disk => (Deed::Restore, 0),
        Came::Node(node) => {
            let recorder = local.engine.recorder();
            let from = recorder.map_or(0, |r| r.name(&format!("node {node}")));
            (Deed::Transfer, from)
        }
    };
    if let Some(pen) = local.lane.pen() {
        pen.put(&Event::Object {
            deed,
            name: from,
            line: 0,
            begin,
            end: pen.now(),
            object: object.id,
            bytes: bytes as u64,
        });
    }
}

/// Now, if anything is recorded; else [`NOT_RECORDED`].
pub fn now() -> u64 {
    let now = local::with(|local| local.lane.pen().map_or(NOT_RECORDED, |pen| pen.now()));
    now.unwrap_or(NOT_RECORDED)
}

/// A span of the user's ended on this thread.
pub fn span(name: &'static str, begin: u64, fields: Option<&str>) {
    local::if_entered(|local| {
        let Some(pen) = local.lane.pen() else { return };
        let call = local.current_record(|r| r.id).unwrap_or(0);
        if let Some(fields) = fields {
            pen.say(call, fields);
        }
        pen.put(&Event::Span {
            name: pen.name(name),
            begin,
            end: pen.now(),
            call,
        });
    });
}

/// A counter of the user's has this value now.
pub fn counter(name: &'static str, value: f64) {
    let _ = local::with(|local| {
        if let Some(pen) = local.lane.pen() {
            let at = pen.now();
            let name = pen.name(name);
            pen.put(&Event::Counter { name, at, value });
        }
    });
}

/// An actor's life takes a turn, for the reason given, if there is one to give.
#[cold]
pub fn actor(local: &Local, turn: Turn, actor: &ActorCell, cause: Option<&str>) {
    let Some(pen) = local.lane.pen() else { return };
    if let Some(cause) = cause {
        pen.say(actor.id, cause);
    }
    pen.put(&Event::Actor {
        turn,
        name: pen.name(actor.entry.name),
        at: pen.now(),
        actor: actor.id,
        restarts: actor.restarts(),
    });
}

/// Something was done since `begin` for an actor whose state is kept, at so many calls, with so many bytes.
#[cold]
pub fn kept(local: &Local, deed: Deed, of: &ActorCell, begin: u64, calls: u64, bytes: u64) {
    let Some(pen) = local.lane.pen().filter(|_| begin != NOT_RECORDED) else {
        return;
    };
    let name = match of.name() {
        Some(name) => pen.name_anew(&format!("{} {name}", of.entry.name)),
        None => pen.name(of.entry.name),
    };
    pen.put(&Event::Object {
        deed,
        name,
        line: u32::try_from(calls).unwrap_or(u32::MAX),
        begin,
        end: pen.now(),
        object: of.id,
        bytes,
    });
}

/// An actor ends; of one that was told to, only if it is recorded.
#[cold]
pub fn died(local: &Local, ended: &ActorCell, cause: &str, stopped: bool) {
    if recorded(ended.id) || !stopped {
        actor(local, Turn::Died, ended, Some(cause));
    }
}

/// An actor's constructor, the call `init`, has run.
#[inline(always)]
pub fn born(local: &Local, made: &ActorCell, init: &Record) {
    if recorded(init.id) {
        exited(local, init, Outcome::Done, 0);
        actor(local, Turn::Born, made, None);
    }
}

/// An actor's constructor failed.
#[cold]
pub fn failed_to_be_born(local: &Local, init: &Record, why: &str) {
    if let Some(pen) = local.lane.pen() {
        pen.exit(init.id, Outcome::Failed, 0, Some(why));
    }
}
