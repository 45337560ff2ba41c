//! What is said about actors that keep their history, as bytes and back.
//!
//! Arguments that are objects travel with their bytes, since whoever owns them may be dead when the call runs again. What does not fit
//! into one frame travels in parts, which follow each other.
//!
//! Invariant: reading is total, and lists are bounded by the frame. Left out: what the messages mean (`core::recovery`).

use super::body::{self, ActorTerms, CallBody, Outcome, ValueBody, actor, read_actor};
use super::codec::{Read, Reader, Writer, bad};
use crate::base::{ActorKey, NodeId};
use crate::core::recovery::{CallId, Record, Settled, ToHost};

/// A call that can run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptCall {
    /// Who called, among the callers of its node.
    pub caller: u64,
    /// What; arguments that are objects are empty here.
    pub call: CallBody,
    /// Those, by place.
    pub values: Vec<(u32, ValueBody)>,
}

/// A call in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryBody {
    /// Its place.
    pub order: u64,
    /// Which.
    pub call: CallId,
    /// What its caller had settled.
    pub settled: Settled,
    /// What it takes in the log.
    pub bytes: u64,
    /// The call itself.
    pub load: KeptCall,
}

/// How an actor is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateBody {
    /// The number of its type.
    pub kind: u32,
    /// How.
    pub terms: ActorTerms,
    /// Its constructor's call.
    pub init: KeptCall,
    /// Its state; nothing: as the constructor makes it.
    pub value: Option<ValueBody>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointBody {
    /// Where it stands.
    pub order: u64,
    /// What the state takes.
    pub bytes: u64,
    /// The state.
    pub state: StateBody,
    /// Below which numbers nodes have settled their calls, but for those that are among the outcomes.
    pub floors: Vec<(NodeId, u64)>,
    /// What came of calls in it, with their places.
    pub outcomes: Vec<(CallId, u64, Outcome)>,
    /// Calls in it, with their places, of which what came of them came with the checkpoint before.
    pub before: Vec<(CallId, u64)>,
}

/// One thing said. Actors are named by their first keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovering {
    /// Call a method.
    Call {
        /// Of which.
        actor: ActorKey,
        /// Where the sender takes it to be.
        at: ActorKey,
        /// The call's number among those of its node to this actor.
        number: u64,
        /// What of these is settled.
        settled: Settled,
        /// The result is the sender's object of this number.
        id: u64,
        /// Who calls, among the sender's callers.
        caller: u64,
        /// What.
        call: CallBody,
    },
    /// The sender has settled calls.
    Settled {
        /// Of which.
        actor: ActorKey,
        /// Which calls.
        settled: Settled,
    },
    /// What came of the receiver's call.
    Outcome {
        /// Of which.
        actor: ActorKey,
        /// The call's number.
        number: u64,
        /// What.
        outcome: Outcome,
    },
    /// The sender does not host it under this key.
    NotHere {
        /// Which.
        actor: ActorKey,
        /// See above.
        at: ActorKey,
    },
    /// It is there from now on.
    Moved {
        /// Which.
        actor: ActorKey,
        /// As this incarnation.
        incarnation: u64,
        /// See above.
        at: ActorKey,
    },
    /// It has ended.
    Ended {
        /// Which.
        actor: ActorKey,
        /// Why.
        cause: String,
    },
    /// The receiver is to look whether it is to take it over.
    Rouse(ActorKey),
    /// Write this down.
    Save {
        /// Of which.
        actor: ActorKey,
        /// The sender's incarnation.
        incarnation: u64,
        /// Numbers such messages.
        beat: u64,
        /// Replaces the one before.
        checkpoint: Option<Box<CheckpointBody>>,
        /// Calls that follow.
        entries: Vec<EntryBody>,
    },
    /// The sender hosts it no more: read the record.
    Look {
        /// Which.
        actor: ActorKey,
        /// The sender's incarnation.
        incarnation: u64,
    },
    /// Keep nothing of it.
    Forget {
        /// Which.
        actor: ActorKey,
        /// The sender's incarnation.
        incarnation: u64,
    },
    /// A backup answers.
    Answer {
        /// Of which.
        actor: ActorKey,
        /// What.
        answer: ToHost,
    },
    /// A part of a message of this kind.
    Part {
        /// The last one.
        last: bool,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Tell once more what a call of the sender gave, which was lost.
    Again {
        /// Of which.
        actor: ActorKey,
        /// Where the sender takes it to be.
        at: ActorKey,
        /// The call's number among those of its node to this actor.
        number: u64,
        /// What of these is settled.
        settled: Settled,
        /// The result is the sender's object of this number.
        id: u64,
    },
}

fn id(w: &mut Writer, call: CallId) {
    w.node(call.node);
    w.u64(call.number);
}

fn read_id(r: &mut Reader<'_>) -> Read<CallId> {
    Ok(CallId {
        node: r.node()?,
        number: r.u64()?,
    })
}

fn settled(w: &mut Writer, settled: &Settled) {
    w.u64(settled.below);
    w.list(&settled.but, |w, number| w.u64(*number));
}

fn read_settled(r: &mut Reader<'_>) -> Read<Settled> {
    Ok(Settled {
        below: r.u64()?,
        but: r.list(8, Reader::u64)?,
    })
}

pub(super) fn record(w: &mut Writer, record: &Record) {
    actor(w, record.actor);
    w.u64(record.incarnation);
    w.u64(record.version);
    actor(w, record.at);
    w.list(&record.backups, |w, node| w.node(*node));
}

pub(super) fn read_record(r: &mut Reader<'_>) -> Read<Record> {
    Ok(Record {
        actor: read_actor(r)?,
        incarnation: r.u64()?,
        version: r.u64()?,
        at: read_actor(r)?,
        backups: r.list(8, Reader::node)?,
    })
}

fn kept_call(w: &mut Writer, kept: &KeptCall) {
    w.u64(kept.caller);
    body::call(w, &kept.call);
    w.list(&kept.values, |w, (at, value)| {
        w.u32(*at);
        body::value(w, value);
    });
}

fn read_kept_call(r: &mut Reader<'_>) -> Read<KeptCall> {
    Ok(KeptCall {
        caller: r.u64()?,
        call: body::read_call(r)?,
        values: r.list(13, |r| Ok((r.u32()?, body::read_value(r)?)))?,
    })
}

fn entry(w: &mut Writer, entry: &EntryBody) {
    w.u64(entry.order);
    id(w, entry.call);
    settled(w, &entry.settled);
    w.u64(entry.bytes);
    kept_call(w, &entry.load);
}

fn read_entry(r: &mut Reader<'_>) -> Read<EntryBody> {
    Ok(EntryBody {
        order: r.u64()?,
        call: read_id(r)?,
        settled: read_settled(r)?,
        bytes: r.u64()?,
        load: read_kept_call(r)?,
    })
}

fn checkpoint(w: &mut Writer, kept: &CheckpointBody) {
    w.u64(kept.order);
    w.u64(kept.bytes);
    w.u32(kept.state.kind);
    body::actor_terms(w, &kept.state.terms);
    kept_call(w, &kept.state.init);
    w.option(kept.state.value.as_ref(), body::value);
    w.list(&kept.floors, |w, (node, below)| {
        w.node(*node);
        w.u64(*below);
    });
    w.list(&kept.outcomes, |w, (call, order, outcome)| {
        id(w, *call);
        w.u64(*order);
        body::outcome(w, outcome);
    });
    w.list(&kept.before, |w, (call, order)| {
        id(w, *call);
        w.u64(*order);
    });
}

fn read_checkpoint(r: &mut Reader<'_>) -> Read<CheckpointBody> {
    Ok(CheckpointBody {
        order: r.u64()?,
        bytes: r.u64()?,
        state: StateBody {
            kind: r.u32()?,
            terms: body::read_actor_terms(r)?,
            init: read_kept_call(r)?,
            value: r.option(body::read_value)?,
        },
        floors: r.list(16, |r| Ok((r.node()?, r.u64()?)))?,
        outcomes: r.list(25, |r| Ok((read_id(r)?, r.u64()?, body::read_outcome(r)?)))?,
        before: r.list(24, |r| Ok((read_id(r)?, r.u64()?)))?,
    })
}

pub(super) fn message(w: &mut Writer, message: &Recovering) {
    match message {
        Recovering::Call {
            actor: of,
            at,
            number,
            settled: by,
            id,
            caller,
            call,
        } => {
            w.u8(0);
            actor(w, *of);
            actor(w, *at);
            w.u64(*number);
            settled(w, by);
            w.u64(*id);
            w.u64(*caller);
            body::call(w, call);
        }
        Recovering::Settled {
            actor: of,
            settled: by,
        } => {
            w.u8(1);
            actor(w, *of);
            settled(w, by);
        }
        Recovering::Outcome {
            actor: of,
            number,
            outcome,
        } => {
            w.u8(2);
            actor(w, *of);
            w.u64(*number);
            body::outcome(w, outcome);
        }
        Recovering::NotHere { actor: of, at } => {
            w.u8(3);
            actor(w, *of);
            actor(w, *at);
        }
        Recovering::Moved {
            actor: of,
            incarnation,
            at,
        } => {
            w.u8(4);
            actor(w, *of);
            w.u64(*incarnation);
            actor(w, *at);
        }
        Recovering::Ended { actor: of, cause } => {
            w.u8(5);
            actor(w, *of);
            w.text(cause);
        }
        Recovering::Rouse(of) => {
            w.u8(6);
            actor(w, *of);
        }
        Recovering::Save {
            actor: of,
            incarnation,
            beat,
            checkpoint: kept,
            entries,
        } => {
            w.u8(7);
            actor(w, *of);
            w.u64(*incarnation);
            w.u64(*beat);
            w.option(kept.as_deref(), checkpoint);
            w.list(entries, entry);
        }
        Recovering::Look {
            actor: of,
            incarnation,
        } => {
            w.u8(8);
            actor(w, *of);
            w.u64(*incarnation);
        }
        Recovering::Forget {
            actor: of,
            incarnation,
        } => {
            w.u8(9);
            actor(w, *of);
            w.u64(*incarnation);
        }
        Recovering::Answer { actor: of, answer } => {
            w.u8(10);
            actor(w, *of);
            let (kind, incarnation, beat) = match *answer {
                ToHost::Saved { incarnation, beat } => (0, incarnation, beat),
                ToHost::Refused { incarnation } => (1, incarnation, 0),
                ToHost::Declined { incarnation } => (2, incarnation, 0),
            };
            w.u8(kind);
            w.u64(incarnation);
            w.u64(beat);
        }
        Recovering::Part { last, bytes } => {
            w.u8(11);
            w.bool(*last);
            w.bytes(bytes);
        }
        Recovering::Again {
            actor: of,
            at,
            number,
            settled: by,
            id,
        } => {
            w.u8(12);
            actor(w, *of);
            actor(w, *at);
            w.u64(*number);
            settled(w, by);
            w.u64(*id);
        }
    }
}

pub(super) fn read_message(r: &mut Reader<'_>) -> Read<Recovering> {
    Ok(match r.u8()? {
        0 => Recovering::Call {
            actor: read_actor(r)?,
            at: read_actor(r)?,
            number: r.u64()?,
            settled: read_settled(r)?,
            id: r.u64()?,
            caller: r.u64()?,
            call: body::read_call(r)?,
        },
        1 => Recovering::Settled {
            actor: read_actor(r)?,
            settled: read_settled(r)?,
        },
        2 => Recovering::Outcome {
            actor: read_actor(r)?,
            number: r.u64()?,
            outcome: body::read_outcome(r)?,
        },
        3 => Recovering::NotHere {
            actor: read_actor(r)?,
            at: read_actor(r)?,
        },
        4 => Recovering::Moved {
            actor: read_actor(r)?,
            incarnation: r.u64()?,
            at: read_actor(r)?,
        },
        5 => Recovering::Ended {
            actor: read_actor(r)?,
            cause: r.text()?.to_owned(),
        },
        6 => Recovering::Rouse(read_actor(r)?),
        7 => Recovering::Save {
            actor: read_actor(r)?,
            incarnation: r.u64()?,
            beat: r.u64()?,
            checkpoint: r.option(read_checkpoint)?.map(Box::new),
            entries: r.list(64, read_entry)?,
        },
        8 => Recovering::Look {
            actor: read_actor(r)?,
            incarnation: r.u64()?,
        },
        9 => Recovering::Forget {
            actor: read_actor(r)?,
            incarnation: r.u64()?,
        },
        10 => {
            let actor = read_actor(r)?;
            let kind = r.u8()?;
            let (incarnation, beat) = (r.u64()?, r.u64()?);
            let answer = match (kind, beat) {
                (0, _) => ToHost::Saved { incarnation, beat },
                (1, 0) => ToHost::Refused { incarnation },
                (2, 0) => ToHost::Declined { incarnation },
                _ => return bad("answer of a backup"),
            };
            Recovering::Answer { actor, answer }
        }
        11 => Recovering::Part {
            last: r.bool()?,
            bytes: r.bytes()?.to_vec(),
        },
        12 => Recovering::Again {
            actor: read_actor(r)?,
            at: read_actor(r)?,
            number: r.u64()?,
            settled: read_settled(r)?,
            id: r.u64()?,
        },
        _ => return bad("message about a kept actor"),
    })
}

/// Reads a message that came in parts.
///
/// # Errors
/// That it is none.
pub fn whole(bytes: &[u8]) -> Read<Recovering> {
    let mut r = Reader(bytes);
    let message = read_message(&mut r)?;
    r.end()?;
    match message {
        Recovering::Part { .. } => bad("whole message"),
        message => Ok(message),
    }
}
