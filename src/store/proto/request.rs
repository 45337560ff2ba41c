//! What a client asks for.
//!
//! Invariant: what `encode` writes `decode` reads back; see `laws`. Objects are named by id until they
//! are held, then by the server's number for that one object (`serial`), which is never used again: a
//! late release cannot hit a later object of the same name. Left out: what a request leads to.

use super::cursor::{Reader, Writer};
use super::{Malformed, PIECE_MAX};
use crate::base::ObjectId;

/// A time to wait that never ends.
pub(crate) const FOREVER: u64 = u64::MAX;

/// What a client asks for. `seq` in front of it is the client's number for the answer; 0 asks for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Begin an object.
    Create { id: ObjectId, len: u64 },
    /// Bytes of an object that was not lent.
    Write {
        serial: u64,
        at: u64,
        bytes: &'a [u8],
    },
    /// The object is complete.
    Seal { serial: u64 },
    /// The object will not be completed.
    Abort { serial: u64 },
    /// Create, write and seal a small object.
    Put { id: ObjectId, bytes: &'a [u8] },
    /// Wait for the object, pin it and say where it is.
    Get { id: ObjectId, nanos: u64 },
    /// Stop waiting for the get of this number; its answer comes, whichever it is.
    Cancel { get: u64 },
    /// Take one pin back.
    Release { serial: u64 },
    /// How far is the object?
    State { id: ObjectId },
    /// Remove the name; the memory follows when nobody reads it.
    Delete { id: ObjectId },
    /// Names, in order, after this one.
    List { after: Option<ObjectId> },
    /// Delete objects that nobody reads, least recently used first, until so many bytes are free.
    Evict { bytes: u64 },
    /// Tell of seals and deletions from now on.
    Subscribe,
    /// Tell no more.
    Unsubscribe,
    /// Counts.
    Stats,
}

const CREATE: u8 = 16;
const WRITE: u8 = 17;
const SEAL: u8 = 18;
const ABORT: u8 = 19;
const PUT: u8 = 20;
const GET: u8 = 21;
const CANCEL: u8 = 22;
const RELEASE: u8 = 23;
const STATE: u8 = 24;
const DELETE: u8 = 25;
const LIST: u8 = 26;
const EVICT: u8 = 27;
const SUBSCRIBE: u8 = 28;
const UNSUBSCRIBE: u8 = 29;
const STATS: u8 = 30;

impl<'a> Request<'a> {
    pub fn encode(&self, seq: u64, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, self.kind());
        w.u64(seq);
        match *self {
            Request::Create { id, len } => w.id(id).u64(len),
            Request::Write { serial, at, bytes } => w.u64(serial).u64(at).raw(bytes),
            Request::Seal { serial } | Request::Abort { serial } | Request::Release { serial } => {
                w.u64(serial)
            }
            Request::Put { id, bytes } => w.id(id).raw(bytes),
            Request::Get { id, nanos } => w.id(id).u64(nanos),
            Request::Cancel { get } => w.u64(get),
            Request::State { id } | Request::Delete { id } => w.id(id),
            Request::List { after: Some(after) } => w.u8(1).id(after),
            Request::List { after: None } => w.u8(0),
            Request::Evict { bytes } => w.u64(bytes),
            Request::Subscribe | Request::Unsubscribe | Request::Stats => &mut w,
        };
        w.end();
    }

    fn kind(&self) -> u8 {
        match self {
            Request::Create { .. } => CREATE,
            Request::Write { .. } => WRITE,
            Request::Seal { .. } => SEAL,
            Request::Abort { .. } => ABORT,
            Request::Put { .. } => PUT,
            Request::Get { .. } => GET,
            Request::Cancel { .. } => CANCEL,
            Request::Release { .. } => RELEASE,
            Request::State { .. } => STATE,
            Request::Delete { .. } => DELETE,
            Request::List { .. } => LIST,
            Request::Evict { .. } => EVICT,
            Request::Subscribe => SUBSCRIBE,
            Request::Unsubscribe => UNSUBSCRIBE,
            Request::Stats => STATS,
        }
    }

    /// The number for the answer, and the request.
    pub fn decode(frame: &'a [u8]) -> Result<(u64, Request<'a>), Malformed> {
        let mut r = Reader::new(frame);
        let kind = r.u8()?;
        let seq = r.u64()?;
        let request = match kind {
            CREATE => Request::Create {
                id: r.id()?,
                len: r.u64()?,
            },
            WRITE => Request::Write {
                serial: r.u64()?,
                at: r.u64()?,
                bytes: piece(&mut r)?,
            },
            SEAL => Request::Seal { serial: r.u64()? },
            ABORT => Request::Abort { serial: r.u64()? },
            PUT => Request::Put {
                id: r.id()?,
                bytes: piece(&mut r)?,
            },
            GET => Request::Get {
                id: r.id()?,
                nanos: r.u64()?,
            },
            CANCEL => Request::Cancel { get: r.u64()? },
            RELEASE => Request::Release { serial: r.u64()? },
            STATE => Request::State { id: r.id()? },
            DELETE => Request::Delete { id: r.id()? },
            LIST => Request::List {
                after: if r.flag()? { Some(r.id()?) } else { None },
            },
            EVICT => Request::Evict { bytes: r.u64()? },
            SUBSCRIBE => Request::Subscribe,
            UNSUBSCRIBE => Request::Unsubscribe,
            STATS => Request::Stats,
            _ => return Err(Malformed("a request of no known kind")),
        };
        r.end()?;
        Ok((seq, request))
    }
}

fn piece<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let bytes = r.rest();
    if bytes.len() > PIECE_MAX {
        return Err(Malformed("a piece of an object is too long"));
    }
    Ok(bytes)
}
