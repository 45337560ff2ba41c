//! What goes wrong with control records.
//!
//! Invariant: an error names the record, the numbers, and what to do. Left out: what the callers make of it.

use std::path::PathBuf;
use std::time::Duration;

use super::{BYTES_MAX, KEY_MAX, LEASES_MAX, LeaseId, RECORDS_MAX, Revision, TTL, VALUE_MAX};

fn found(revision: &Option<Revision>) -> String {
    revision.map_or("no record".to_owned(), |revision| {
        format!("the record of write {revision}")
    })
}

/// What can go wrong with control records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Somebody else wrote in between.
    #[error(
        "{key:?} is not as expected: {} was, and there is {}; read it again, and decide anew",
        found(expected),
        found(actual)
    )]
    Conflict {
        /// The key.
        key: String,
        /// The write that was expected, or none.
        expected: Option<Revision>,
        /// The write that it is from.
        actual: Option<Revision>,
    },
    /// A key or prefix that cannot be.
    #[error(
        "{key:?} ({len} bytes) is no key: it has 1 to {KEY_MAX} bytes, and no control characters"
    )]
    BadKey {
        /// Its beginning.
        key: String,
        /// Its bytes.
        len: usize,
    },
    /// A value that is too long.
    #[error(
        "the value for {key:?} has {len} bytes, and the most is {VALUE_MAX}: keep it elsewhere, and its address here"
    )]
    BigValue {
        /// The key.
        key: String,
        /// Its bytes.
        len: usize,
    },
    /// A lease that would be too short or too long.
    #[error("a lease of {ttl:?}: it may last from {:?} to {:?}", TTL.0, TTL.1)]
    BadTtl {
        /// What was asked for.
        ttl: Duration,
    },
    /// The lease has ended, and its records with it.
    #[error("lease {:x} has ended, and its records with it: grant another, and write them again", lease.0)]
    NoLease {
        /// Which.
        lease: LeaseId,
    },
    /// There is no room for another.
    #[error(
        "no room for {key:?}: there are {records} records of {bytes} bytes, and {leases} leases; the most are \
         {RECORDS_MAX}, {BYTES_MAX} and {LEASES_MAX}. Delete some, or keep the records on etcd"
    )]
    Full {
        /// The key.
        key: String,
        /// How many there are.
        records: usize,
        /// How many bytes they have.
        bytes: usize,
        /// How many leases there are.
        leases: usize,
    },
    /// Changes so old are forgotten, or came faster than they were taken.
    #[error(
        "changes under {prefix:?} since write {from} are lost: list the records, and watch from that listing's revision"
    )]
    FellBehind {
        /// Of which keys.
        prefix: String,
        /// The last write that the watch told of.
        from: Revision,
    },
    /// No answer in time.
    #[error(
        "{what} took longer than {within:?}: it may still take effect, so read before it is tried again"
    )]
    Timeout {
        /// What was to be done.
        what: String,
        /// The time that it was given.
        within: Duration,
    },
    /// The address names no place for records.
    #[error("{address:?} is no address of control records: {why}")]
    BadAddress {
        /// The address.
        address: String,
        /// Why not.
        why: String,
    },
    /// Another process has the folder.
    #[error("the control records in {} are in use by another process: end it, or give this one another folder", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "the control records in {} are damaged ({why}): restore the file from a backup, or move it away to begin with none",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How that shows.
        why: String,
    },
    /// The records were written by another version.
    #[error("the control records in {} have format {found}, and this program knows {known}: run the version that wrote them", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// The file system failed. Nothing is written any more.
    #[error(
        "the control records in {} cannot be written ({why}): mend that, and start again; what was answered is there",
        path.display()
    )]
    Storage {
        /// The file.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// etcd failed, or cannot be reached.
    #[error("etcd at {address} says: {why}")]
    Etcd {
        /// Where.
        address: String,
        /// What.
        why: String,
    },
    /// The records were closed.
    #[error("the control records are closed: this node ends")]
    Closed,
    /// A record has bytes that its kind does not have.
    #[error("the record {key:?} is no {kind}: {why}; was it written by another version?")]
    BadRecord {
        /// Its key.
        key: String,
        /// What it should be.
        kind: &'static str,
        /// What it lacks.
        why: String,
    },
}

impl ControlError {
    pub(super) fn bad_key(key: &str) -> ControlError {
        let end = key
            .char_indices()
            .map(|(at, _)| at)
            .take_while(|at| *at <= 80)
            .last()
            .unwrap_or(0);
        let shown = if key.len() <= 80 { key } else { &key[..end] };
        ControlError::BadKey {
            key: shown.to_owned(),
            len: key.len(),
        }
    }
}
