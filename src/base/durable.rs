//! Why a copy that was to outlive the processes is not there.
//!
//! Invariant: an error names the object, its bytes, the place, and what to do. Left out: writing and reading.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Loss, show_bytes};

/// A durable copy could not be written: what it was to be a copy of was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotDurable {
    /// The copy's name: a file, or an object of a bucket.
    pub copy: Arc<str>,
    /// Its bytes.
    pub bytes: u64,
    /// The URL under which it was to be, if one was given.
    pub place: Option<Arc<str>>,
    /// What was in the way.
    pub why: NotWritten,
}

/// Why a durable copy could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotWritten {
    /// Nobody said where.
    NoPlace,
    /// It took longer than this.
    TimedOut(Duration),
    /// What is there, or is to be there, said no.
    Refused(Arc<str>),
}

/// A durable copy is there no more, or is not what was written, and nobody else has the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyLost {
    /// The copy's name: a file, or an object of a bucket.
    pub copy: Arc<str>,
    /// Its bytes.
    pub bytes: u64,
    /// The URL under which it was.
    pub place: Arc<str>,
    /// What is wrong.
    pub why: Loss,
}

impl fmt::Display for NotDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (copy, bytes) = (&self.copy, show_bytes(self.bytes));
        match &self.place {
            Some(at) => write!(f, "no durable copy {copy} of {bytes} at {at}: ")?,
            None => write!(f, "no durable copy {copy} of {bytes}: ")?,
        }
        match &self.why {
            NotWritten::NoPlace => f.write_str(
                "nobody said where; name a folder or a URL that all nodes reach with Config::durable, MOBULA_DURABLE or PutOptions::durable_at",
            ),
            NotWritten::TimedOut(longest) => write!(
                f,
                "it took longer than {longest:?}; allow more with PutOptions::timeout, or look whether that place can be reached"
            ),
            NotWritten::Refused(why) => write!(
                f,
                "{why}; look whether that place can be reached and written to, or name another with Config::durable"
            ),
        }
    }
}

impl fmt::Display for CopyLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an object of {} is lost: no node has it any more, and its durable copy {} at {} cannot be read: {}; put it again, and see to it that this node reaches that place and nobody else writes there",
            show_bytes(self.bytes),
            self.copy,
            self.place,
            self.why
        )
    }
}

impl std::error::Error for NotDurable {}
impl std::error::Error for CopyLost {}
