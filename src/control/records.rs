//! The cluster's records, typed: nodes, jobs, named actors, who certifies and who leads. Drivers spell no keys.
//!
//! | key | record | attached to |
//! |---|---|---|
//! | `nodes/<node>` | [`Node`]: where it is reached, its labels | the node's lease |
//! | `jobs/<job>` | [`Job`]: what runs, how it ended | nothing: it outlives its nodes |
//! | `kept/<actor>` | `core::recovery::Record`: who hosts an actor whose history is kept, and who keeps it | nothing: it outlives the actor's hosts |
//! | `authority/<whose>` | [`Authority`]: what certifies nodes, or launchers | nothing |
//! | `lead/<of>` | [`Lead`]: which launcher lets others in | its lease |
//! | `actors/<name>` | [`NamedActor`]: which actor has the name | nothing: a name outlives its actor's host until it is moved or freed |
//!
//! Values begin with the number of their format, so that a later one can be told from damage.
//!
//! Invariant: what is written is read back equal, and other bytes give [`ControlError::BadRecord`]; names of any
//! characters have keys of their own. Left out: when records are written, by whom.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod kinds;

use std::time::Duration;

use super::{Change, Control, ControlError, Expect, LeaseId, Record, Result, Revision, Watch};

#[allow(
    unused_imports,
    reason = "what drives them comes with the cluster's node"
)]
pub use kinds::{Authority, Job, JobId, JobState, Lead, NamedActor, Node};

/// The format of values.
const FORMAT: u8 = 1;

/// A kind of records.
pub trait Kind: Sized {
    /// What names one of them.
    type Id;
    /// What it is called in errors.
    const NAME: &'static str;
    /// What its keys begin with.
    const PREFIX: &'static str;
    /// The end of the key of the one so named.
    fn name(id: &Self::Id) -> String;
    /// The id whose key ends so.
    fn parse(name: &str) -> Option<Self::Id>;
    /// Its own id.
    fn id(&self) -> Self::Id;
    /// Writes all but the id.
    fn write(&self, to: &mut Writer);
    /// Reads all but the id.
    fn read(id: Self::Id, from: &mut Reader<'_>) -> Option<Self>;
}

/// What came of claiming a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The name is this actor's, as of this write.
    Taken(Revision),
    /// It is this one's, as of that write.
    Held(NamedActor, Revision),
}

/// A change to a record of some kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News<K: Kind> {
    /// It is there, or different.
    Is(K, Revision),
    /// It is gone.
    Gone(K::Id, Revision),
}

/// The key of a record.
pub fn key<K: Kind>(id: &K::Id) -> String {
    format!("{}{}", K::PREFIX, K::name(id))
}

/// Writes a record.
///
/// # Errors
///
/// As [`Control::put`].
pub fn put<K: Kind>(
    control: &dyn Control,
    record: &K,
    expect: Expect,
    lease: Option<LeaseId>,
    within: Duration,
) -> Result<Revision> {
    control.put(
        &key::<K>(&record.id()),
        &bytes(record),
        expect,
        lease,
        within,
    )
}

/// Reads a record, with the write that it is from.
///
/// # Errors
///
/// As [`Control::get`]; [`ControlError::BadRecord`].
pub fn get<K: Kind>(
    control: &dyn Control,
    id: &K::Id,
    within: Duration,
) -> Result<Option<(K, Revision)>> {
    let found = control.get(&key::<K>(id), within)?;
    found
        .map(|record| decode(&record.key, &record.value).map(|it| (it, record.revision)))
        .transpose()
}

/// Deletes a record. False: there was none.
///
/// # Errors
///
/// As [`Control::delete`].
pub fn delete<K: Kind>(
    control: &dyn Control,
    id: &K::Id,
    expect: Expect,
    within: Duration,
) -> Result<bool> {
    control.delete(&key::<K>(id), expect, within)
}

/// All records of a kind, and the moment from which to [`watch`].
///
/// # Errors
///
/// As [`Control::list`]; [`ControlError::BadRecord`].
pub fn list<K: Kind>(control: &dyn Control, within: Duration) -> Result<(Vec<K>, Revision)> {
    let listing = control.list(K::PREFIX, within)?;
    let records = listing
        .records
        .iter()
        .map(|Record { key, value, .. }| decode(key, value));
    Ok((records.collect::<Result<_>>()?, listing.revision))
}

/// Follows all records of a kind; [`news`] reads what comes.
///
/// # Errors
///
/// As [`Control::watch`].
pub fn watch<K: Kind>(control: &dyn Control, from: Revision, within: Duration) -> Result<Watch> {
    control.watch(K::PREFIX, from, within)
}

/// What a change says.
///
/// # Errors
///
/// [`ControlError::BadRecord`].
pub fn news<K: Kind>(change: &Change) -> Result<News<K>> {
    match &change.now {
        Some((value, _)) => Ok(News::Is(decode(&change.key, value)?, change.revision)),
        None => Ok(News::Gone(id_of::<K>(&change.key)?, change.revision)),
    }
}

/// Gives an actor its name, unless another has it.
///
/// # Errors
///
/// As [`Control::put`].
pub fn claim(control: &dyn Control, actor: &NamedActor, within: Duration) -> Result<Claim> {
    // The holder may go between the two calls; then the name is free again, and tried for again. Each round somebody
    // else claimed and freed it, so that this ends but for a storm of them.
    for _ in 0..16 {
        match put(control, actor, Expect::Absent, None, within) {
            Ok(revision) => return Ok(Claim::Taken(revision)),
            Err(ControlError::Conflict { .. }) => {}
            Err(e) => return Err(e),
        }
        if let Some((held, revision)) = get::<NamedActor>(control, &actor.name, within)? {
            // An answer may have been lost, and the claim be this one's.
            let own = held == *actor;
            return Ok(if own {
                Claim::Taken(revision)
            } else {
                Claim::Held(held, revision)
            });
        }
    }
    Err(ControlError::Timeout {
        what: format!(
            "claiming the name {:?}, which others claim and free all the time",
            actor.name
        ),
        within,
    })
}

/// Says that the actor of a name is another now, if it is still the one of that write: its host died, and it was
/// recovered.
///
/// # Errors
///
/// As [`Control::put`]; [`ControlError::Conflict`] if somebody else moved it.
pub fn reassign(
    control: &dyn Control,
    actor: &NamedActor,
    held: Revision,
    within: Duration,
) -> Result<Revision> {
    put(control, actor, Expect::Revision(held), None, within)
}

fn bytes<K: Kind>(record: &K) -> Vec<u8> {
    let mut to = Writer(vec![FORMAT]);
    record.write(&mut to);
    to.0
}

fn bad<K: Kind>(key: &str, why: &str) -> ControlError {
    ControlError::BadRecord {
        key: key.to_owned(),
        kind: K::NAME,
        why: why.to_owned(),
    }
}

fn id_of<K: Kind>(key: &str) -> Result<K::Id> {
    let name = key.strip_prefix(K::PREFIX);
    name.and_then(K::parse)
        .ok_or_else(|| bad::<K>(key, "its key is none"))
}

fn decode<K: Kind>(key: &str, value: &[u8]) -> Result<K> {
    let id = id_of::<K>(key)?;
    let mut from = Reader(value);
    if from.u8() != Some(FORMAT) {
        return Err(bad::<K>(key, "its format is unknown"));
    }
    let record =
        K::read(id, &mut from).ok_or_else(|| bad::<K>(key, "a field is cut or cannot be"))?;
    if from.0.is_empty() {
        Ok(record)
    } else {
        Err(bad::<K>(key, "bytes follow its end"))
    }
}

/// Writes the fields of a value.
pub struct Writer(Vec<u8>);

impl Writer {
    /// One byte.
    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    /// A number.
    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    /// A text, or any bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }
}

/// Reads the fields of a value. What is cut gives `None`.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A number.
    pub fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_be_bytes)
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.take(4)?.try_into().ok().map(u32::from_be_bytes)?;
        self.take(len as usize)
    }

    /// A text.
    pub fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    /// Many of something: a count that the rest can hold, then each.
    pub fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u64()?;
        if count > self.0.len() as u64 {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }
}
