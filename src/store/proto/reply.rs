//! What a server answers and tells.
//!
//! Invariant: what `encode` writes `decode` reads back; see `laws`. A denial carries numbers,
//! seldom a text: the client, which knows what it asked for, makes the error. Left out: what to do with it.

use super::cursor::{Reader, Writer};
use super::{FRAME_MAX, Malformed, ServedStats};
use crate::base::{ObjectId, ObjectState};

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// To the request of this number.
    Answer(u64, Answer),
    /// An object is complete.
    Sealed { id: ObjectId, len: u64 },
    /// A name is gone.
    Deleted { id: ObjectId },
    /// So many events were left out, because this client did not read.
    Lagged { missed: u64 },
    /// The server hears this client no more.
    Closing { why: String },
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The object may be written: on pages lent from this offset on.
    Lent { serial: u64, offset: u64 },
    /// The object may be written: by sending its bytes.
    Begun { serial: u64 },
    /// The object is there, and pinned.
    Found { serial: u64, offset: u64, len: u64 },
    /// How far the object is.
    State(ObjectState),
    /// Names; there are more after the last.
    Names { more: bool, entries: Vec<Entry> },
    /// So many bytes were freed.
    Freed { bytes: u64 },
    /// Counts.
    Stats(Box<ServedStats>),
    /// No, and why.
    Denied(Denial),
}

/// Why a request was denied. Numbers, but for what only the server can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    NotFound,
    Exists,
    NotSealed,
    Deadline {
        state: ObjectState,
    },
    Cancelled,
    Full {
        capacity: u64,
        used: u64,
        largest_free: u64,
    },
    TooLarge {
        capacity: u64,
    },
    /// It was on disk, and is not to be had from there.
    Lost {
        why: String,
    },
}

/// One line of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub id: ObjectId,
    pub len: u64,
    pub sealed: bool,
    /// Pins of all clients.
    pub pins: u32,
}

/// Bytes of an entry in a frame.
const ENTRY: usize = 16 + 8 + 1 + 4;

impl Entry {
    /// As many as a frame holds.
    pub const MAX: usize = (FRAME_MAX - 32) / ENTRY;
}

const DONE: u8 = 64;
const LENT: u8 = 65;
const BEGUN: u8 = 66;
const FOUND: u8 = 67;
const STATE: u8 = 68;
const NAMES: u8 = 69;
const FREED: u8 = 70;
const STATS: u8 = 71;
const DENIED: u8 = 72;
const SEALED: u8 = 96;
const DELETED: u8 = 97;
const LAGGED: u8 = 98;
const CLOSING: u8 = 99;

impl Message {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut w;
        match self {
            Message::Answer(seq, answer) => return answer.encode(*seq, out),
            Message::Sealed { id, len } => {
                w = Writer::new(out, SEALED);
                w.id(*id).u64(*len);
            }
            Message::Deleted { id } => {
                w = Writer::new(out, DELETED);
                w.id(*id);
            }
            Message::Lagged { missed } => {
                w = Writer::new(out, LAGGED);
                w.u64(*missed);
            }
            Message::Closing { why } => {
                w = Writer::new(out, CLOSING);
                w.bytes(why.as_bytes());
            }
        }
        w.end();
    }

    pub fn decode(frame: &[u8]) -> Result<Message, Malformed> {
        let mut r = Reader::new(frame);
        let kind = r.u8()?;
        let message = match kind {
            SEALED => Message::Sealed {
                id: r.id()?,
                len: r.u64()?,
            },
            DELETED => Message::Deleted { id: r.id()? },
            LAGGED => Message::Lagged { missed: r.u64()? },
            CLOSING => Message::Closing {
                why: r.text()?.to_owned(),
            },
            _ => {
                let seq = r.u64()?;
                Message::Answer(seq, Answer::decode(kind, &mut r)?)
            }
        };
        r.end()?;
        Ok(message)
    }
}

impl Answer {
    fn encode(&self, seq: u64, out: &mut Vec<u8>) {
        let kind = match self {
            Answer::Done => DONE,
            Answer::Lent { .. } => LENT,
            Answer::Begun { .. } => BEGUN,
            Answer::Found { .. } => FOUND,
            Answer::State(_) => STATE,
            Answer::Names { .. } => NAMES,
            Answer::Freed { .. } => FREED,
            Answer::Stats(_) => STATS,
            Answer::Denied(_) => DENIED,
        };
        let mut w = Writer::new(out, kind);
        w.u64(seq);
        match self {
            Answer::Done => {}
            Answer::Lent { serial, offset } => {
                w.u64(*serial).u64(*offset);
            }
            Answer::Begun { serial } => {
                w.u64(*serial);
            }
            Answer::Found {
                serial,
                offset,
                len,
            } => {
                w.u64(*serial).u64(*offset).u64(*len);
            }
            Answer::State(state) => {
                w.u8(state_code(*state));
            }
            Answer::Names { more, entries } => {
                w.u8((*more).into());
                for entry in entries {
                    w.id(entry.id).u64(entry.len).u8(entry.sealed.into());
                    w.u32(entry.pins);
                }
            }
            Answer::Freed { bytes } => {
                w.u64(*bytes);
            }
            Answer::Stats(stats) => {
                stats.encode(&mut w);
            }
            Answer::Denied(denial) => denial.encode(&mut w),
        }
        w.end();
    }

    fn decode(kind: u8, r: &mut Reader<'_>) -> Result<Answer, Malformed> {
        Ok(match kind {
            DONE => Answer::Done,
            LENT => Answer::Lent {
                serial: r.u64()?,
                offset: r.u64()?,
            },
            BEGUN => Answer::Begun { serial: r.u64()? },
            FOUND => Answer::Found {
                serial: r.u64()?,
                offset: r.u64()?,
                len: r.u64()?,
            },
            STATE => Answer::State(state(r)?),
            NAMES => {
                let more = r.flag()?;
                let bytes = r.rest();
                let mut entries = Vec::with_capacity(bytes.len() / ENTRY);
                for entry in bytes.chunks(ENTRY) {
                    let mut r = Reader::new(entry);
                    entries.push(Entry {
                        id: r.id()?,
                        len: r.u64()?,
                        sealed: r.flag()?,
                        pins: r.u32()?,
                    });
                }
                Answer::Names { more, entries }
            }
            FREED => Answer::Freed { bytes: r.u64()? },
            STATS => Answer::Stats(Box::new(ServedStats::decode(r)?)),
            DENIED => Answer::Denied(Denial::decode(r)?),
            _ => return Err(Malformed("a message of no known kind")),
        })
    }
}

impl Denial {
    fn encode(&self, w: &mut Writer<'_>) {
        match self {
            Denial::NotFound => w.u8(0),
            Denial::Exists => w.u8(1),
            Denial::NotSealed => w.u8(2),
            Denial::Deadline { state } => w.u8(3).u8(state_code(*state)),
            Denial::Cancelled => w.u8(4),
            Denial::Full {
                capacity,
                used,
                largest_free,
            } => w.u8(5).u64(*capacity).u64(*used).u64(*largest_free),
            Denial::TooLarge { capacity } => w.u8(6).u64(*capacity),
            Denial::Lost { why } => {
                let why = &why.as_bytes()[..why.floor_char_boundary(16 << 10)];
                w.u8(7).bytes(why)
            }
        };
    }

    fn decode(r: &mut Reader<'_>) -> Result<Denial, Malformed> {
        Ok(match r.u8()? {
            0 => Denial::NotFound,
            1 => Denial::Exists,
            2 => Denial::NotSealed,
            3 => Denial::Deadline { state: state(r)? },
            4 => Denial::Cancelled,
            5 => Denial::Full {
                capacity: r.u64()?,
                used: r.u64()?,
                largest_free: r.u64()?,
            },
            6 => Denial::TooLarge { capacity: r.u64()? },
            7 => Denial::Lost {
                why: r.text()?.to_owned(),
            },
            _ => return Err(Malformed("a denial of no known kind")),
        })
    }
}

fn state_code(state: ObjectState) -> u8 {
    match state {
        ObjectState::Absent => 0,
        ObjectState::Written => 1,
        ObjectState::Sealed => 2,
    }
}

fn state(r: &mut Reader<'_>) -> Result<ObjectState, Malformed> {
    match r.u8()? {
        0 => Ok(ObjectState::Absent),
        1 => Ok(ObjectState::Written),
        2 => Ok(ObjectState::Sealed),
        _ => Err(Malformed("an object's state of no known kind")),
    }
}
