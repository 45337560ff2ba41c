//! The records as this process keeps them: what is there, what a batch of writes makes of it, who follows.
//!
//! A batch is staged first: each of its writes is decided against what the ones before it leave. Then the file takes
//! the outcome, and only then does the table: whoever reads sees what is safe, and nothing else.
//!
//! Invariant: between stage and commit only keep-alives change the table. Records of a lease exist only while it
//! does. Left out: threads, files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::watch::{Buffer, Change};
use super::{
    BYTES_MAX, ControlError, Expect, LEASES_MAX, Lease, LeaseId, Listing, RECORDS_MAX, Record,
    Result, Revision,
};

/// How many changes are remembered for watches that begin in the past.
pub const HISTORY: usize = 16_384;
/// How many bytes of values they may hold.
const HISTORY_BYTES: usize = 16 << 20;

/// A write, to be decided.
#[derive(Clone, Debug)]
pub enum Write {
    Put {
        key: String,
        value: Vec<u8>,
        expect: Expect,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
        expect: Expect,
    },
    Grant {
        ttl: Duration,
    },
    /// By wish, or because its time ran out before this moment.
    Revoke {
        lease: LeaseId,
        expired: Option<Instant>,
    },
}

/// What a write gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    Revision(Revision),
    Was(bool),
    Granted(Lease),
}

#[derive(Clone, Debug)]
struct Value {
    bytes: Arc<[u8]>,
    revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Held {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
    /// A batch that ends it is under way.
    ending: bool,
}

/// What a batch changes.
#[derive(Debug, Default)]
pub struct Staged {
    /// Records: the last state of each that changed.
    pub records: BTreeMap<String, Option<(Arc<[u8]>, Revision, Option<LeaseId>)>>,
    /// Leases that began, with their length, or ended.
    pub leases: BTreeMap<LeaseId, Option<Duration>>,
    /// The last write, and the last lease.
    pub revision: Revision,
    pub last_lease: u64,
    /// Every change, in order.
    changes: Vec<Change>,
    bytes: usize,
    count: usize,
}

impl Staged {
    /// Whether there is anything to keep.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.leases.is_empty()
    }
}

/// All records.
#[derive(Debug, Default)]
pub struct Table {
    records: BTreeMap<String, Value>,
    leases: BTreeMap<LeaseId, Held>,
    revision: Revision,
    last_lease: u64,
    bytes: usize,
    history: VecDeque<Change>,
    history_bytes: usize,
    /// Changes up to this one are forgotten.
    forgotten: Revision,
    watches: Vec<Weak<Buffer>>,
    /// Why nothing more is written.
    pub broken: Option<ControlError>,
}

impl Table {
    /// The table that a file holds. Its leases begin anew: nobody could prolong them meanwhile.
    pub fn load(
        records: impl Iterator<Item = Record>,
        leases: impl Iterator<Item = Lease>,
        revision: Revision,
        last_lease: u64,
        now: Instant,
    ) -> Table {
        let mut table = Table {
            revision,
            last_lease,
            forgotten: revision,
            ..Table::default()
        };
        for Lease { id, ttl } in leases {
            let held = Held {
                ttl,
                ends: now + ttl,
                keys: BTreeSet::new(),
                ending: false,
            };
            table.leases.insert(id, held);
        }
        for record in records {
            table.set(
                record.key,
                Some((record.value.into(), record.revision, record.lease)),
            );
        }
        table
    }

    pub fn get(&self, key: &str) -> Option<Record> {
        self.records.get(key).map(|value| record(key, value))
    }

    pub fn list(&self, prefix: &str) -> Listing {
        let from = self.records.range(prefix.to_owned()..);
        let records = from
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| record(key, value));
        Listing {
            records: records.collect(),
            revision: self.revision,
        }
    }

    pub fn watch(&mut self, prefix: &str, from: Revision) -> Result<Arc<Buffer>> {
        let buffer = Buffer::new(prefix, from);
        // A revision from the future is one of records that were lost.
        if from < self.forgotten || from > self.revision {
            return Err(buffer.behind(from));
        }
        let since = self
            .history
            .partition_point(|change| change.revision <= from);
        for change in self.history.range(since..) {
            if !buffer.push(change) {
                return Err(buffer.behind(from));
            }
        }
        self.watches.retain(|watch| watch.strong_count() > 0);
        self.watches.push(Arc::downgrade(&buffer));
        Ok(buffer)
    }

    /// Prolongs a lease.
    pub fn keep_alive(&mut self, lease: LeaseId, now: Instant) -> Result<()> {
        match self.leases.get_mut(&lease) {
            Some(held) if !held.ending && held.ends > now => {
                held.ends = now + held.ttl;
                Ok(())
            }
            _ => Err(ControlError::NoLease { lease }),
        }
    }

    /// When the next lease ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|held| held.ends).min()
    }

    /// Leases whose time has run out.
    pub fn ended(&self, now: Instant) -> Vec<LeaseId> {
        let ended = self.leases.iter().filter(|(_, held)| held.ends <= now);
        ended.map(|(id, _)| *id).collect()
    }

    /// Decides a batch of writes.
    pub fn stage(&mut self, batch: &[Write]) -> (Vec<Result<Done>>, Staged) {
        let mut staged = Staged {
            revision: self.revision,
            last_lease: self.last_lease,
            bytes: self.bytes,
            count: self.records.len(),
            ..Staged::default()
        };
        let outcomes = batch
            .iter()
            .map(|write| self.decide(write, &mut staged))
            .collect();
        (outcomes, staged)
    }

    fn found(&self, staged: &Staged, key: &str) -> Option<(usize, Revision)> {
        match staged.records.get(key) {
            Some(now) => now
                .as_ref()
                .map(|(bytes, revision, _)| (bytes.len(), *revision)),
            None => self
                .records
                .get(key)
                .map(|value| (value.bytes.len(), value.revision)),
        }
    }

    fn has_lease(&self, staged: &Staged, lease: LeaseId) -> bool {
        match staged.leases.get(&lease) {
            Some(now) => now.is_some(),
            None => self.leases.contains_key(&lease),
        }
    }

    fn decide(&mut self, write: &Write, staged: &mut Staged) -> Result<Done> {
        match write {
            Write::Put {
                key,
                value,
                expect,
                lease,
            } => {
                let found = self.found(staged, key);
                check(key, *expect, found.map(|(_, revision)| revision))?;
                if let Some(lease) = *lease
                    && !self.has_lease(staged, lease)
                {
                    return Err(ControlError::NoLease { lease });
                }
                let bytes = staged.bytes + value.len() + key.len()
                    - found.map_or(0, |(len, _)| len + key.len());
                let count = staged.count + usize::from(found.is_none());
                if bytes > BYTES_MAX || count > RECORDS_MAX {
                    return Err(self.full(key, staged));
                }
                (staged.bytes, staged.count) = (bytes, count);
                staged.revision += 1;
                let now = (value.clone(), *lease);
                staged.changes.push(Change {
                    key: key.clone(),
                    revision: staged.revision,
                    now: Some(now),
                });
                let record = (value.as_slice().into(), staged.revision, *lease);
                staged.records.insert(key.clone(), Some(record));
                Ok(Done::Revision(staged.revision))
            }
            Write::Delete { key, expect } => {
                let found = self.found(staged, key);
                check(key, *expect, found.map(|(_, revision)| revision))?;
                if found.is_some() {
                    staged.revision += 1;
                    staged.delete(key.clone(), found.map_or(0, |(len, _)| len));
                }
                Ok(Done::Was(found.is_some()))
            }
            Write::Grant { ttl } => {
                if self.leases.len() + staged.leases.len() >= LEASES_MAX {
                    return Err(self.full("a lease", staged));
                }
                staged.last_lease += 1;
                let id = LeaseId(staged.last_lease);
                staged.leases.insert(id, Some(*ttl));
                Ok(Done::Granted(Lease { id, ttl: *ttl }))
            }
            Write::Revoke { lease, expired } => {
                if let (Some(now), Some(held)) = (expired, self.leases.get(lease))
                    && held.ends > *now
                {
                    // It was prolonged in the last moment.
                    return Ok(Done::Was(false));
                }
                if !self.has_lease(staged, *lease) {
                    return Ok(Done::Was(false));
                }
                let mut keys: BTreeSet<String> = BTreeSet::new();
                if let Some(held) = self.leases.get_mut(lease) {
                    held.ending = true;
                    keys.extend(held.keys.iter().cloned());
                }
                let attached = staged
                    .records
                    .iter()
                    .filter(|(_, now)| matches!(now, Some((_, _, of)) if *of == Some(*lease)));
                keys.extend(attached.map(|(key, _)| key.clone()));
                // Those that were written anew in this batch may be another's.
                keys.retain(|key| match staged.records.get(key) {
                    Some(now) => matches!(now, Some((_, _, of)) if *of == Some(*lease)),
                    None => true,
                });
                if !keys.is_empty() {
                    staged.revision += 1;
                }
                for key in keys {
                    let len = self.found(staged, &key).map_or(0, |(len, _)| len);
                    staged.delete(key, len);
                }
                staged.leases.insert(*lease, None);
                Ok(Done::Was(true))
            }
        }
    }

    fn full(&self, key: &str, staged: &Staged) -> ControlError {
        ControlError::Full {
            key: key.to_owned(),
            records: staged.count,
            bytes: staged.bytes,
            leases: self.leases.len(),
        }
    }

    /// Takes what a batch changes, now that it is safe.
    pub fn commit(&mut self, staged: Staged, now: Instant) {
        self.revision = staged.revision;
        self.last_lease = staged.last_lease;
        for (id, lease) in &staged.leases {
            if let Some(ttl) = lease {
                let held = Held {
                    ttl: *ttl,
                    ends: now + *ttl,
                    keys: BTreeSet::new(),
                    ending: false,
                };
                self.leases.insert(*id, held);
            }
        }
        for (key, record) in staged.records {
            self.set(key, record);
        }
        for (id, lease) in &staged.leases {
            if lease.is_none() {
                self.leases.remove(id);
            }
        }
        for change in staged.changes {
            let push =
                |watch: &Weak<Buffer>| watch.upgrade().is_some_and(|buffer| buffer.push(&change));
            self.watches.retain(push);
            self.history_bytes += weight(&change);
            self.history.push_back(change);
        }
        while self.history.len() > HISTORY || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= weight(&oldest);
            self.forgotten = oldest.revision;
        }
    }

    /// No lease ends before.
    pub fn suspend(&mut self, until: Instant) {
        self.leases
            .values_mut()
            .for_each(|held| held.ends = held.ends.max(until));
    }

    /// A batch was not kept.
    pub fn abandon(&mut self) {
        self.leases
            .values_mut()
            .for_each(|held| held.ending = false);
    }

    /// Ends all watches.
    pub fn close(&mut self, with: &ControlError) {
        for watch in self.watches.drain(..).filter_map(|watch| watch.upgrade()) {
            watch.end(with.clone());
        }
    }

    fn set(&mut self, key: String, record: Option<(Arc<[u8]>, Revision, Option<LeaseId>)>) {
        if let Some(old) = self.records.remove(&key) {
            self.bytes -= key.len() + old.bytes.len();
            if let Some(held) = old.lease.and_then(|lease| self.leases.get_mut(&lease)) {
                held.keys.remove(&key);
            }
        }
        if let Some((bytes, revision, lease)) = record {
            self.bytes += key.len() + bytes.len();
            if let Some(held) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                held.keys.insert(key.clone());
            }
            self.records.insert(
                key,
                Value {
                    bytes,
                    revision,
                    lease,
                },
            );
        }
    }
}

impl Staged {
    fn delete(&mut self, key: String, len: usize) {
        self.bytes -= key.len() + len;
        self.count -= 1;
        let change = Change {
            key: key.clone(),
            revision: self.revision,
            now: None,
        };
        self.changes.push(change);
        self.records.insert(key, None);
    }
}

fn weight(change: &Change) -> usize {
    change.key.len() + change.now.as_ref().map_or(0, |(value, _)| value.len())
}

fn record(key: &str, value: &Value) -> Record {
    Record {
        key: key.to_owned(),
        value: value.bytes.to_vec(),
        revision: value.revision,
        lease: value.lease,
    }
}

fn check(key: &str, expect: Expect, actual: Option<Revision>) -> Result<()> {
    let expected = match expect {
        Expect::Any => return Ok(()),
        Expect::Absent => None,
        Expect::Revision(revision) => Some(revision),
    };
    if expected == actual {
        return Ok(());
    }
    Err(ControlError::Conflict {
        key: key.to_owned(),
        expected,
        actual,
    })
}
