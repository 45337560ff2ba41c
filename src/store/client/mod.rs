//! A program's access to a store that another process serves.
//!
//! Invariant: everything here is checked twice, by the server and against the mapping, so a server
//! that errs gives errors, not memory that is not there. Left out: the server (`serve`).

#[cfg(feature = "async")]
mod aio;
mod archive;
mod events;
mod greet;
mod link;
mod memory;
mod object;
mod writing;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::events::Channel;
use self::link::Link;
use self::memory::Pinned;
use super::proto::{Answer, Denial, FOREVER, PIECE_MAX, Request, ServedStats};
use crate::base::{ObjectId, ObjectState, StoreError};
use crate::value::Value;

#[cfg(feature = "async")]
pub use aio::{AsyncClient, AsyncSubscription, AsyncWriting};
pub use events::{Event, Subscription};
pub use object::{Object, StoreView};
pub use writing::Writing;

/// How much longer than its time a get waits for the server's word on it.
const GRACE: Duration = Duration::from_secs(5);

/// A connection to a served store. Clones share it, threads may use it at the same time, and it has
/// no thread of its own.
///
/// Objects are read where they lie, in memory that this process has mapped read-only; large ones are
/// written there too. After the server has ended every call fails with [`StoreError::Gone`], and
/// objects that are held stay readable. A process that forks connects again in the child.
#[derive(Clone)]
pub struct Client {
    link: Arc<Link>,
}

/// One object of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub id: ObjectId,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is complete.
    pub sealed: bool,
    /// How often it is held by all clients together.
    pub pins: u32,
}

impl Client {
    /// Connects to the store served at this socket. Some 100 us, and at most 10 s if the server does
    /// not answer.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if no server is there, [`StoreError::Version`] if it is of another
    /// version, [`StoreError::RefusedUser`] if either side's user is not accepted by the other.
    pub fn connect(socket: impl AsRef<Path>) -> Result<Client, StoreError> {
        Client::open(socket.as_ref(), None)
    }

    /// As [`connect`](Self::connect), to a server that runs as user `uid`, which may be another's:
    /// such a server sees and could change everything that is read from it.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    pub fn connect_to_user(socket: impl AsRef<Path>, uid: u32) -> Result<Client, StoreError> {
        Client::open(socket.as_ref(), Some(uid))
    }

    fn open(socket: &Path, user: Option<u32>) -> Result<Client, StoreError> {
        let greeted = greet::connect(socket, user)?;
        Ok(Client {
            link: Arc::new(Link::new(socket, greeted)),
        })
    }

    /// The process that serves; 0 if it cannot be told.
    pub fn server_pid(&self) -> u32 {
        self.link.server.pid
    }

    /// Begins an object of `len` bytes. One round trip; nothing is copied.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::Full`], [`StoreError::TooLarge`].
    pub fn create(&self, id: ObjectId, len: usize) -> Result<Writing, StoreError> {
        let create = Request::Create {
            id,
            len: len as u64,
        };
        let answer = self.link.call(create, None)?;
        Writing::new(
            &self.link,
            id,
            len,
            denied(id, len, Duration::ZERO, answer)?,
        )
    }

    /// Makes an object of these bytes: one copy, one round trip for small ones.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub fn put_bytes(&self, id: ObjectId, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() <= SMALL {
            let answer = self.link.call(Request::Put { id, bytes }, None)?;
            return done(denied(id, bytes.len(), Duration::ZERO, answer)?);
        }
        let mut writing = self.create(id, bytes.len())?;
        writing.write_at(0, bytes);
        writing.seal()
    }

    /// Makes an object of a value's archive, written straight into the store: one copy.
    ///
    /// # Errors
    /// As for [`create`](Self::create); [`StoreError::Encode`] if the value cannot be archived, or
    /// holds references to objects or actors of a node, which mean nothing to other processes.
    pub fn put<T: Value>(&self, id: ObjectId, value: &T) -> Result<(), StoreError> {
        archive::put(self, id, value)
    }

    /// Waits until the object is sealed, and holds it in place; a time of zero does not wait.
    ///
    /// # Errors
    /// [`StoreError::Deadline`] if it is not sealed in time; for a time of zero
    /// [`StoreError::NotFound`] or [`StoreError::NotSealed`].
    pub fn get(&self, id: ObjectId, timeout: Option<Duration>) -> Result<Object, StoreError> {
        let nanos = nanos(timeout);
        let patience = timeout.and_then(|timeout| timeout.checked_add(GRACE));
        let answer = self.link.call(Request::Get { id, nanos }, patience)?;
        found(&self.link, id, timeout, answer)
    }

    /// As [`get`](Self::get), for a value: validated once, then read in place.
    ///
    /// # Errors
    /// As for [`get`](Self::get); [`StoreError::Decode`] if the object is not an archive of `T`.
    pub fn view<T: Value>(
        &self,
        id: ObjectId,
        timeout: Option<Duration>,
    ) -> Result<StoreView<T>, StoreError> {
        self.get(id, timeout)?.view()
    }

    /// How far an object is.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn state(&self, id: ObjectId) -> Result<ObjectState, StoreError> {
        match self.link.call(Request::State { id }, None)? {
            Answer::State(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether there is a sealed object of this name.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn contains(&self, id: ObjectId) -> Result<bool, StoreError> {
        Ok(self.state(id)? == ObjectState::Sealed)
    }

    /// Deletes an object: its name is free at once, its memory when nobody holds it any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::NotSealed`] while it is written.
    pub fn delete(&self, id: ObjectId) -> Result<(), StoreError> {
        let answer = self.link.call(Request::Delete { id }, None)?;
        done(denied(id, 0, Duration::ZERO, answer)?)
    }

    /// All objects, by name, those being written included. As many round trips as there are pages of
    /// some two thousand; what comes and goes meanwhile may or may not be among them.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn list(&self) -> Result<Vec<ObjectInfo>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let answer = self.link.call(Request::List { after }, None)?;
            if !page(answer, &mut all, &mut after)? {
                return Ok(all);
            }
        }
    }

    /// Deletes objects that nobody holds, least recently used first, until `bytes` are freed or there
    /// are no more. Returns how many were.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn evict(&self, bytes: u64) -> Result<u64, StoreError> {
        match self.link.call(Request::Evict { bytes }, None)? {
            Answer::Freed { bytes } => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells of every seal and deletion from now on.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn subscribe(&self) -> Result<Subscription, StoreError> {
        let (subscription, seq) = subscribe(&self.link)?;
        let answer = self.link.drive(None, |state| state.take(seq))?;
        done(answer.unwrap_or(Answer::Done))?;
        Ok(subscription)
    }

    /// Counts of the store.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn stats(&self) -> Result<ServedStats, StoreError> {
        match self.link.call(Request::Stats, None)? {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// The XXH3 hash (128 bits) of a sealed object's bytes: equal for equal contents on every
    /// machine. Not cryptographic: whoever wants to can find two contents of one hash. Computed here,
    /// at the speed of memory.
    ///
    /// # Errors
    /// As for [`get`](Self::get) with a time of zero.
    pub fn hash(&self, id: ObjectId) -> Result<u128, StoreError> {
        let object = self.get(id, Some(Duration::ZERO))?;
        Ok(content_hash(&object))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.link.path.display())
    }
}

/// Bytes up to which an object is sent with its name in one frame.
const SMALL: usize = PIECE_MAX / 4;

/// What [`Client::hash`] gives for an object of these bytes.
pub fn content_hash(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

impl ObjectId {
    /// A name that nobody else has: 16 bytes of the system's randomness.
    ///
    /// # Panics
    /// If the system has none, which Linux never says once it is up.
    pub fn random() -> ObjectId {
        let mut id = [0; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        let filled = rustix::rand::getrandom(&mut id[..], flags);
        assert_eq!(filled, Ok(id.len()), "the system gives random bytes");
        ObjectId(id)
    }

    /// The name that stands for a text: the XXH3 hash (128 bits, big-endian) of its bytes.
    pub fn from_name(name: &str) -> ObjectId {
        ObjectId(xxhash_rust::xxh3::xxh3_128(name.as_bytes()).to_be_bytes())
    }
}

fn nanos(timeout: Option<Duration>) -> u64 {
    timeout.map_or(FOREVER, |timeout| {
        u64::try_from(timeout.as_nanos()).unwrap_or(FOREVER)
    })
}

/// The object of a get's answer.
fn found(
    link: &Arc<Link>,
    id: ObjectId,
    timeout: Option<Duration>,
    answer: Answer,
) -> Result<Object, StoreError> {
    match denied(id, 0, timeout.unwrap_or_default(), answer)? {
        Answer::Found {
            serial,
            offset,
            len,
        } => Ok(Object::new(id, Pinned::new(link, serial, offset, len)?)),
        other => Err(unexpected(&other)),
    }
}

/// Registers a subscription; the answer comes under the number returned.
fn subscribe(link: &Arc<Link>) -> Result<(Subscription, u64), StoreError> {
    let channel = Arc::new(Channel::default());
    let _order = link.subscribing.lock();
    link.state().channels.push(Arc::downgrade(&channel));
    let seq = link.ask(Request::Subscribe)?;
    let link = link.clone();
    Ok((Subscription { link, channel }, seq))
}

fn unsubscribe(link: &Link, channel: &Arc<Channel>) {
    let _order = link.subscribing.lock();
    let last = {
        let channels = &mut link.state().channels;
        channels.retain(|c| c.strong_count() > 0 && c.as_ptr() != Arc::as_ptr(channel));
        channels.is_empty()
    };
    if last {
        link.tell(Request::Unsubscribe);
    }
}

/// Adds a page of a listing; whether there is another.
fn page(
    answer: Answer,
    all: &mut Vec<ObjectInfo>,
    after: &mut Option<ObjectId>,
) -> Result<bool, StoreError> {
    let Answer::Names { more, entries } = answer else {
        return Err(unexpected(&answer));
    };
    let last = entries.last().map(|entry| entry.id);
    if more && last <= *after {
        let why = "a listing does not go on".to_owned();
        return Err(StoreError::BadFrame { why });
    }
    *after = last;
    all.extend(entries.iter().map(|entry| ObjectInfo {
        id: entry.id,
        len: entry.len,
        sealed: entry.sealed,
        pins: entry.pins,
    }));
    Ok(more)
}

/// The answer, unless it is a denial, which becomes an error about this object.
fn denied(
    id: ObjectId,
    len: usize,
    waited: Duration,
    answer: Answer,
) -> Result<Answer, StoreError> {
    let requested = len as u64;
    let Answer::Denied(denial) = answer else {
        return Ok(answer);
    };
    Err(match denial {
        Denial::NotFound => StoreError::NotFound { id },
        Denial::Exists => StoreError::Exists { id },
        Denial::NotSealed => StoreError::NotSealed { id },
        Denial::Deadline { state } if waited.is_zero() => match state {
            ObjectState::Absent => StoreError::NotFound { id },
            _ => StoreError::NotSealed { id },
        },
        Denial::Deadline { state } => StoreError::Deadline { id, waited, state },
        Denial::Full {
            capacity,
            used,
            largest_free,
        } => StoreError::Full {
            requested,
            capacity,
            used,
            largest_free,
        },
        Denial::TooLarge { capacity } => StoreError::TooLarge {
            requested,
            capacity,
        },
        Denial::Lost { why } => StoreError::Lost { id, why },
        denial @ Denial::Cancelled => unexpected(&Answer::Denied(denial)),
    })
}

fn done(answer: Answer) -> Result<(), StoreError> {
    match answer {
        Answer::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &Answer) -> StoreError {
    StoreError::BadFrame {
        why: format!("the answer does not fit the question: {answer:?}"),
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
