//! One event: eight words, 64 bytes, whatever it says.
//!
//! Invariant: what [`Event::words`] writes, [`Event::read`] reads; words that no `words` writes are read as nothing, never
//! as a panic. Times are ticks, calls and objects are their ids, names are numbers in the recorder's table.
//! Left out: where events lie (`pool`), what they mean together (`chrome`).

/// Words in an event.
pub const WORDS: usize = 8;

/// Inputs that fit an event of their own.
pub const INPUTS: usize = 5;

/// Bytes of text that fit an event.
pub const TEXT: usize = 40;

/// How far a call, or one attempt or poll of it, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// It has begun; nothing else is known yet.
    Running = 0,
    /// Its value is there.
    Done = 1,
    /// Its error is there.
    Failed = 2,
    /// It was told to stop, and did.
    Cancelled = 3,
    /// It panicked and is tried again.
    Again = 4,
    /// A future that waits for something.
    Pending = 5,
}

/// What was done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Deed {
    /// A value was put.
    Put = 0,
    /// Room was made for one that is filled in place.
    Create = 1,
    /// One that was filled in place is complete.
    Seal = 2,
    /// Its bytes were given back.
    Free = 3,
    /// The values of a list of references were put together, for a call that takes them.
    Join = 4,
    /// Its bytes were moved to disk.
    Spill = 5,
    /// They were brought back.
    Restore = 6,
    /// Several were written to disk together; `line` is how many.
    Segment = 7,
    /// They came from another node, whose name is the event's.
    Transfer = 8,
    /// An actor's state was saved, after as many calls as `line` says; the object is the actor, the name its own.
    Checkpoint = 9,
    /// An actor was made as it was at its last checkpoint.
    Revive = 10,
    /// The calls of its log ran again; `line` is how many.
    Replay = 11,
}

/// A turn in an actor's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Turn {
    /// Its constructor has run.
    Born = 0,
    /// It is to be made again.
    Restarted = 1,
    /// It ended.
    Died = 2,
    /// Its node died, and this one goes on with it.
    TakenOver = 3,
}

/// A call as it was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The function.
    pub name: u32,
    /// Since when its arguments were written.
    pub begin: u64,
    /// Until when.
    pub end: u64,
    /// The call.
    pub call: u64,
    /// Who made it: a call, or a thread.
    pub caller: u64,
    /// The actor it goes to; 0 for a function.
    pub actor: u64,
    /// Bytes of its arguments inside the call.
    pub bytes: u32,
    /// How many objects it takes.
    pub inputs: u16,
    /// The first of them; others follow in events of their own.
    pub first: [u64; 2],
}

/// A call that ran, or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The function.
    pub name: u32,
    /// How far it has come.
    pub outcome: Outcome,
    /// Which attempt, or which poll of a future, from 1.
    pub turn: u16,
    /// Since when.
    pub begin: u64,
    /// Until when; 0 while it runs.
    pub end: u64,
    /// The call.
    pub call: u64,
    /// The actor whose method it is; 0 for a function.
    pub actor: u64,
    /// Ticks until its arguments were read.
    pub reading: u32,
    /// Ticks in which its result was put where it stays.
    pub storing: u32,
    /// Bytes of the result.
    pub bytes: u64,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A call was submitted.
    Submit(Submitted),
    /// More of what a call takes.
    Inputs {
        call: u64,
        count: u8,
        inputs: [u64; INPUTS],
    },
    /// Something a call waited for came: its arguments, or its resources.
    Ready { call: u64, at: u64, resources: bool },
    /// A call began or ended.
    Run(Ran),
    /// A thread slept until what it waits for was there.
    Block {
        name: u32,
        begin: u64,
        end: u64,
        awaited: u64,
        /// How many results were awaited.
        count: u32,
    },
    /// Something was done with an object; `name` and `line` say where in the program.
    Object {
        deed: Deed,
        name: u32,
        line: u32,
        begin: u64,
        end: u64,
        object: u64,
        bytes: u64,
    },
    /// An actor's life took a turn.
    Actor {
        turn: Turn,
        name: u32,
        at: u64,
        actor: u64,
        restarts: u32,
    },
    /// A span of the user's.
    Span {
        name: u32,
        begin: u64,
        end: u64,
        /// The call in which it was; 0 outside.
        call: u64,
    },
    /// A counter of the user's.
    Counter { name: u32, at: u64, value: f64 },
    /// A piece of what is to be said about a call, an actor or a span, written just before it.
    Text {
        about: u64,
        len: u8,
        bytes: [u8; TEXT],
    },
    /// A call ended in an error without having run, or was not recorded before.
    Fail {
        name: u32,
        at: u64,
        call: u64,
        cancelled: bool,
    },
    /// Calls that were not recorded.
    Gap { begin: u64, end: u64, calls: u64 },
}

const SUBMIT: u8 = 1;
const MORE: u8 = 2;
const READY: u8 = 3;
pub(super) const RUN: u8 = 4;
const BLOCK: u8 = 5;
const OBJECT: u8 = 6;
const ACTOR: u8 = 7;
const SPAN: u8 = 8;
const COUNTER: u8 = 9;
const SAID: u8 = 10;
const FAIL: u8 = 11;
const GAP: u8 = 12;
/// An event that another one replaces.
pub(super) const VOID: u8 = 255;

/// The first word: kind, a small number, a larger one, and a name.
pub(super) const fn head(kind: u8, small: u8, large: u16, name: u32) -> u64 {
    kind as u64 | (small as u64) << 8 | (large as u64) << 16 | (name as u64) << 32
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// Ticks between two times, as far as they fit.
pub fn between(begin: u64, end: u64) -> u32 {
    u32::try_from(end.saturating_sub(begin)).unwrap_or(u32::MAX)
}

impl Event {
    /// The event as it is kept.
    #[inline]
    pub fn words(&self) -> [u64; WORDS] {
        match *self {
            Event::Submit(s) => [
                head(SUBMIT, 0, s.inputs, s.name),
                s.begin,
                s.call,
                s.caller,
                s.actor,
                pair(s.bytes, between(s.begin, s.end)),
                s.first[0],
                s.first[1],
            ],
            Event::Inputs {
                call,
                count,
                inputs: [a, b, c, d, e],
            } => [head(MORE, count, 0, 0), call, a, b, c, d, e, 0],
            Event::Ready {
                call,
                at,
                resources,
            } => [head(READY, resources.into(), 0, 0), at, call, 0, 0, 0, 0, 0],
            Event::Run(r) => [
                head(RUN, r.outcome as u8, r.turn, r.name),
                r.begin,
                r.call,
                r.end,
                r.actor,
                pair(r.reading, r.storing),
                r.bytes,
                0,
            ],
            Event::Block {
                name,
                begin,
                end,
                awaited,
                count,
            } => [
                head(BLOCK, 0, 0, name),
                begin,
                awaited,
                end,
                count.into(),
                0,
                0,
                0,
            ],
            Event::Object {
                deed,
                name,
                line,
                begin,
                end,
                object,
                bytes,
            } => [
                head(OBJECT, deed as u8, 0, name),
                begin,
                object,
                end,
                bytes,
                line.into(),
                0,
                0,
            ],
            Event::Actor {
                turn,
                name,
                at,
                actor,
                restarts,
            } => [
                head(ACTOR, turn as u8, 0, name),
                at,
                actor,
                restarts.into(),
                0,
                0,
                0,
                0,
            ],
            Event::Span {
                name,
                begin,
                end,
                call,
            } => [head(SPAN, 0, 0, name), begin, call, end, 0, 0, 0, 0],
            Event::Counter { name, at, value } => [
                head(COUNTER, 0, 0, name),
                at,
                value.to_bits(),
                0,
                0,
                0,
                0,
                0,
            ],
            Event::Text { about, len, bytes } => {
                let mut words = [head(SAID, len, 0, 0), about, 0, 0, 0, 0, 0, 0];
                for (word, piece) in words[2..].iter_mut().zip(bytes.chunks_exact(8)) {
                    *word = u64::from_le_bytes(piece.try_into().unwrap_or_default());
                }
                words
            }
            Event::Fail {
                name,
                at,
                call,
                cancelled,
            } => [
                head(FAIL, cancelled.into(), 0, name),
                at,
                call,
                0,
                0,
                0,
                0,
                0,
            ],
            Event::Gap { begin, end, calls } => [head(GAP, 0, 0, 0), begin, calls, end, 0, 0, 0, 0],
        }
    }

    /// The latest time that the event tells, in ticks.
    pub fn until(&self) -> Option<u64> {
        match *self {
            Event::Submit(s) => Some(s.end),
            Event::Run(r) => Some(r.begin.max(r.end)),
            Event::Block { end, .. }
            | Event::Object { end, .. }
            | Event::Span { end, .. }
            | Event::Gap { end, .. } => Some(end),
            Event::Ready { at, .. }
            | Event::Actor { at, .. }
            | Event::Counter { at, .. }
            | Event::Fail { at, .. } => Some(at),
            Event::Inputs { .. } | Event::Text { .. } => None,
        }
    }

    /// What the words say; `None` if they say nothing.
    pub fn read(words: &[u64; WORDS]) -> Option<Event> {
        let [w0, w1, w2, w3, w4, w5, w6, w7] = *words;
        let (kind, small, large) = (w0 as u8, (w0 >> 8) as u8, (w0 >> 16) as u16);
        let name = (w0 >> 32) as u32;
        let (low, high) = (w5 as u32, (w5 >> 32) as u32);
        Some(match kind {
            SUBMIT => Event::Submit(Submitted {
                name,
                begin: w1,
                end: w1.saturating_add(high.into()),
                call: w2,
                caller: w3,
                actor: w4,
                bytes: low,
                inputs: large,
                first: [w6, w7],
            }),
            MORE if usize::from(small) <= INPUTS => Event::Inputs {
                call: w1,
                count: small,
                inputs: [w2, w3, w4, w5, w6],
            },
            READY => Event::Ready {
                at: w1,
                call: w2,
                resources: small != 0,
            },
            RUN => Event::Run(Ran {
                name,
                outcome: match small {
                    0 => Outcome::Running,
                    1 => Outcome::Done,
                    2 => Outcome::Failed,
                    3 => Outcome::Cancelled,
                    4 => Outcome::Again,
                    5 => Outcome::Pending,
                    _ => return None,
                },
                turn: large,
                begin: w1,
                end: if small == 0 { 0 } else { w3 },
                call: w2,
                actor: w4,
                reading: low,
                storing: high,
                bytes: w6,
            }),
            BLOCK => Event::Block {
                name,
                begin: w1,
                awaited: w2,
                end: w3,
                count: w4 as u32,
            },
            OBJECT => Event::Object {
                deed: match small {
                    0 => Deed::Put,
                    1 => Deed::Create,
                    2 => Deed::Seal,
                    3 => Deed::Free,
                    4 => Deed::Join,
                    5 => Deed::Spill,
                    6 => Deed::Restore,
                    7 => Deed::Segment,
                    8 => Deed::Transfer,
                    9 => Deed::Checkpoint,
                    10 => Deed::Revive,
                    11 => Deed::Replay,
                    _ => return None,
                },
                name,
                begin: w1,
                object: w2,
                end: w3,
                bytes: w4,
                line: w5 as u32,
            },
            ACTOR => Event::Actor {
                turn: match small {
                    0 => Turn::Born,
                    1 => Turn::Restarted,
                    2 => Turn::Died,
                    3 => Turn::TakenOver,
                    _ => return None,
                },
                name,
                at: w1,
                actor: w2,
                restarts: w3 as u32,
            },
            SPAN => Event::Span {
                name,
                begin: w1,
                call: w2,
                end: w3,
            },
            COUNTER => Event::Counter {
                name,
                at: w1,
                value: f64::from_bits(w2),
            },
            SAID if usize::from(small) <= TEXT => {
                let mut bytes = [0; TEXT];
                for (piece, word) in bytes.chunks_exact_mut(8).zip([w2, w3, w4, w5, w6]) {
                    piece.copy_from_slice(&word.to_le_bytes());
                }
                Event::Text {
                    about: w1,
                    len: small,
                    bytes,
                }
            }
            FAIL => Event::Fail {
                name,
                at: w1,
                call: w2,
                cancelled: small != 0,
            },
            GAP => Event::Gap {
                begin: w1,
                calls: w2,
                end: w3,
            },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
