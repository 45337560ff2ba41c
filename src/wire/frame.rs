//! What nodes say to each other, as frames of a control stream.
//!
//! Invariant: reading is total, and what is read is bounded by the frame's own length. Left out: how frames are carried
//! (`link`), and what follows from them (`node`).

use super::body::{self, ActorTerms, Beside, CallBody, Outcome, Terms, ValueBody};
use super::codec::{Read, Reader, Writer, bad};
use super::grouping;
use super::leasing;
use super::owning;
use super::recovering::{self, Recovering};
use super::replicating;
use crate::base::{ActorKey, ObjectKey};
use crate::core::groups::GroupMsg;
use crate::core::leases::LeaseMsg;
use crate::core::owners::Message;
use crate::core::recovery::Record;
use crate::core::replicas;

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Run this call. Its result is the sender's object of this number.
    Call {
        /// The number.
        number: u64,
        /// The lease in whose slots it runs; a call of a placement group needs none.
        lease: Option<u32>,
        /// How.
        terms: Terms,
        /// What.
        call: CallBody,
    },
    /// What came of the receiver's call of this number.
    Ended {
        /// The number.
        number: u64,
        /// How long it ran there, in nanoseconds.
        ran: u64,
        /// What.
        outcome: Outcome,
    },
    /// The sender wants its call of this number no more.
    Cancel {
        /// The number.
        number: u64,
    },
    /// Make an actor, which will be the receiver's object of this number.
    Create {
        /// The number.
        number: u64,
        /// The number of its type.
        kind: u32,
        /// How.
        terms: ActorTerms,
        /// The constructor's arguments.
        call: CallBody,
    },
    /// Call a method. The calls of one caller are in order.
    Method {
        /// The actor.
        actor: ObjectKey,
        /// Who calls, among the sender's callers.
        caller: u64,
        /// The result is the sender's object of this number.
        number: u64,
        /// What.
        call: CallBody,
    },
    /// End the actor, or have it made again.
    Kill {
        /// The actor.
        actor: ObjectKey,
        /// Which of the two.
        restart: bool,
    },
    /// The actor has ended.
    ActorEnded {
        /// The actor.
        actor: ObjectKey,
        /// Why.
        cause: String,
    },
    /// About references.
    Owning {
        /// What.
        message: Message,
        /// A small value that comes with it.
        beside: Beside,
    },
    /// About replicas.
    Replica {
        /// What.
        message: replicas::Message,
    },
    /// Send the bytes of an object, as this transfer.
    Fetch {
        /// The object.
        key: ObjectKey,
        /// The receiver of the bytes' number for it.
        transfer: u64,
        /// The sender has the receiver's arena mapped: where the bytes lie is enough.
        near: bool,
    },
    /// The bytes of a transfer lie here in the sender's arena, and stay until they are read.
    Lies {
        /// The receiver's number for it.
        transfer: u64,
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// The bytes of a transfer were read from the receiver's arena, or will not be.
    Read {
        /// The sender's number for it.
        transfer: u64,
    },
    /// The answer to a [`Frame::Fetch`] when the bytes do not come as a transfer of their own.
    Fetched {
        /// As in the question.
        transfer: u64,
        /// The value; `None`: the sender has it no more.
        value: Option<ValueBody>,
    },
    /// A question about names, with a number for the answer.
    Ask {
        /// The number.
        ask: u64,
        /// What is asked.
        question: Question,
    },
    /// The answer.
    Answer {
        /// The question's number.
        ask: u64,
        /// The actor of that name, or why there is none.
        found: Found,
    },
    /// What the sender has and what of it is free, as a view tells it.
    View {
        /// As bytes.
        view: Vec<u8>,
    },
    /// About placement groups.
    Group {
        /// What.
        message: GroupMsg,
    },
    /// About leases.
    Lease {
        /// What.
        message: LeaseMsg,
    },
    /// About actors that keep their history.
    Recover {
        /// What.
        message: Box<Recovering>,
    },
    /// The sender leaves, and has told all it had to tell.
    Leave,
}

/// What is asked of the keeper of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Who has it?
    Find(String),
    /// This actor is to have it, unless another has.
    Claim(String, Named),
    /// This actor has it no more.
    Free(String, ObjectKey),
    /// Who hosts the actor whose first key this is, and who keeps its history?
    Record(ActorKey),
    /// The record of that actor is to be the second, if it is the first.
    Swap(ActorKey, Option<Record>, Option<Record>),
}

/// What the keeper of names says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nobody has it, but for who asked.
    Nobody,
    /// This actor has it.
    Is(Named),
    /// It cannot be told yet: whether the node of whoever has it lives is not known. Ask again.
    Later,
    /// The records cannot be read or written.
    Failed(String),
    /// That is the record of an actor, if there is one; what was to be swapped was not.
    Record(Option<Record>),
    /// It was.
    Swapped,
}

/// An actor with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The actor.
    pub key: ObjectKey,
    /// The number of its type.
    pub kind: u32,
    /// If its history is kept: its first key, and as which incarnation it is there.
    pub kept: Option<(ActorKey, u64)>,
}

fn named(w: &mut Writer, n: &Named) {
    w.key(n.key);
    w.u32(n.kind);
    body::kept(w, n.kept);
}

fn read_named(r: &mut Reader<'_>) -> Read<Named> {
    Ok(Named {
        key: r.key()?,
        kind: r.u32()?,
        kept: body::read_kept(r)?,
    })
}

impl Frame {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer(Vec::with_capacity(128));
        self.write(&mut w);
        w.0
    }

    fn write(&self, w: &mut Writer) {
        match self {
            Frame::Call {
                number,
                lease,
                terms,
                call,
            } => {
                w.u8(0);
                w.u64(*number);
                w.option(*lease, Writer::u32);
                body::terms(w, terms);
                body::call(w, call);
            }
            Frame::Ended {
                number,
                ran,
                outcome,
            } => {
                w.u8(1);
                w.u64(*number);
                w.u64(*ran);
                body::outcome(w, outcome);
            }
            Frame::Cancel { number } => {
                w.u8(2);
                w.u64(*number);
            }
            Frame::Create {
                number,
                kind,
                terms,
                call,
            } => {
                w.u8(3);
                w.u64(*number);
                w.u32(*kind);
                body::actor_terms(w, terms);
                body::call(w, call);
            }
            Frame::Method {
                actor,
                caller,
                number,
                call,
            } => {
                w.u8(4);
                w.key(*actor);
                w.u64(*caller);
                w.u64(*number);
                body::call(w, call);
            }
            Frame::Kill { actor, restart } => {
                w.u8(5);
                w.key(*actor);
                w.bool(*restart);
            }
            Frame::ActorEnded { actor, cause } => {
                w.u8(6);
                w.key(*actor);
                w.text(cause);
            }
            Frame::Owning { message, beside } => {
                w.u8(7);
                owning::message(w, message);
                body::beside(w, beside);
            }
            Frame::Fetch {
                key,
                transfer,
                near,
            } => {
                w.u8(8);
                w.key(*key);
                w.u64(*transfer);
                w.bool(*near);
            }
            Frame::Lies {
                transfer,
                offset,
                len,
            } => {
                w.u8(15);
                w.u64(*transfer);
                w.u64(*offset);
                w.u64(*len);
            }
            Frame::Read { transfer } => {
                w.u8(16);
                w.u64(*transfer);
            }
            Frame::Fetched { transfer, value } => {
                w.u8(9);
                w.u64(*transfer);
                w.option(value.as_ref(), body::value);
            }
            Frame::Ask { ask, question } => {
                w.u8(10);
                w.u64(*ask);
                match question {
                    Question::Find(name) => {
                        w.u8(0);
                        w.text(name);
                    }
                    Question::Claim(name, actor) => {
                        w.u8(1);
                        w.text(name);
                        named(w, actor);
                    }
                    Question::Free(name, key) => {
                        w.u8(2);
                        w.text(name);
                        w.key(*key);
                    }
                    Question::Record(actor) => {
                        w.u8(3);
                        body::actor(w, *actor);
                    }
                    Question::Swap(actor, expect, record) => {
                        w.u8(4);
                        body::actor(w, *actor);
                        w.option(expect.as_ref(), recovering::record);
                        w.option(record.as_ref(), recovering::record);
                    }
                }
            }
            Frame::Answer { ask, found } => {
                w.u8(11);
                w.u64(*ask);
                match found {
                    Found::Nobody => w.u8(0),
                    Found::Is(actor) => {
                        w.u8(1);
                        named(w, actor);
                    }
                    Found::Later => w.u8(2),
                    Found::Failed(why) => {
                        w.u8(3);
                        w.text(why);
                    }
                    Found::Record(record) => {
                        w.u8(4);
                        w.option(record.as_ref(), recovering::record);
                    }
                    Found::Swapped => w.u8(5),
                }
            }
            Frame::Leave => w.u8(12),
            Frame::Group { message } => {
                w.u8(20);
                grouping::message(w, message);
            }
            Frame::Recover { message } => {
                w.u8(22);
                recovering::message(w, message);
            }
            Frame::Lease { message } => {
                w.u8(21);
                leasing::message(w, message);
            }
            Frame::Replica { message } => {
                w.u8(23);
                replicating::message(w, message);
            }
            Frame::View { view } => {
                w.u8(13);
                w.bytes(view);
            }
        }
    }

    /// Reads bytes that another node sent.
    ///
    /// # Errors
    /// That they are no frame; the sender is not of this version, or lies.
    pub fn decode(bytes: &[u8]) -> Read<Frame> {
        let mut r = Reader(bytes);
        let frame = Frame::read(&mut r)?;
        r.end()?;
        Ok(frame)
    }

    fn read(r: &mut Reader<'_>) -> Read<Frame> {
        Ok(match r.u8()? {
            0 => Frame::Call {
                number: r.u64()?,
                lease: r.option(Reader::u32)?,
                terms: body::read_terms(r)?,
                call: body::read_call(r)?,
            },
            1 => Frame::Ended {
                number: r.u64()?,
                ran: r.u64()?,
                outcome: body::read_outcome(r)?,
            },
            2 => Frame::Cancel { number: r.u64()? },
            3 => Frame::Create {
                number: r.u64()?,
                kind: r.u32()?,
                terms: body::read_actor_terms(r)?,
                call: body::read_call(r)?,
            },
            4 => Frame::Method {
                actor: r.key()?,
                caller: r.u64()?,
                number: r.u64()?,
                call: body::read_call(r)?,
            },
            5 => Frame::Kill {
                actor: r.key()?,
                restart: r.bool()?,
            },
            6 => Frame::ActorEnded {
                actor: r.key()?,
                cause: r.text()?.to_owned(),
            },
            7 => Frame::Owning {
                message: owning::read_message(r)?,
                beside: body::read_beside(r)?,
            },
            8 => Frame::Fetch {
                key: r.key()?,
                transfer: r.u64()?,
                near: r.bool()?,
            },
            15 => Frame::Lies {
                transfer: r.u64()?,
                offset: r.u64()?,
                len: r.u64()?,
            },
            16 => Frame::Read { transfer: r.u64()? },
            9 => Frame::Fetched {
                transfer: r.u64()?,
                value: r.option(body::read_value)?,
            },
            10 => Frame::Ask {
                ask: r.u64()?,
                question: match r.u8()? {
                    0 => Question::Find(r.text()?.to_owned()),
                    1 => Question::Claim(r.text()?.to_owned(), read_named(r)?),
                    2 => Question::Free(r.text()?.to_owned(), r.key()?),
                    3 => Question::Record(body::read_actor(r)?),
                    4 => Question::Swap(
                        body::read_actor(r)?,
                        r.option(recovering::read_record)?,
                        r.option(recovering::read_record)?,
                    ),
                    _ => return bad("question"),
                },
            },
            11 => Frame::Answer {
                ask: r.u64()?,
                found: match r.u8()? {
                    0 => Found::Nobody,
                    1 => Found::Is(read_named(r)?),
                    2 => Found::Later,
                    3 => Found::Failed(r.text()?.to_owned()),
                    4 => Found::Record(r.option(recovering::read_record)?),
                    5 => Found::Swapped,
                    _ => return bad("answer"),
                },
            },
            12 => Frame::Leave,
            13 => Frame::View {
                view: r.bytes()?.to_vec(),
            },
            20 => Frame::Group {
                message: grouping::read_message(r)?,
            },
            22 => Frame::Recover {
                message: Box::new(recovering::read_message(r)?),
            },
            21 => Frame::Lease {
                message: leasing::read_message(r)?,
            },
            23 => Frame::Replica {
                message: replicating::read_message(r)?,
            },
            _ => return bad("frame"),
        })
    }
}
