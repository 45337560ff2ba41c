//! What is said when the store has no room, and when an object that made room cannot be read again.
//!
//! Invariant: plain data with the numbers that were true at one moment. Left out: how room is made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Origin;

/// One group of objects that fill the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Where the objects were made.
    pub origin: Origin,
    /// Their bytes together, in memory and on disk.
    pub bytes: u64,
    /// How many there are.
    pub objects: u64,
    /// How many of the bytes are on disk and take no memory.
    pub spilled: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes in {} objects {}",
            self.bytes, self.objects, self.origin
        )?;
        match self.spilled {
            0 => Ok(()),
            n => write!(f, " ({n} of them on disk)"),
        }
    }
}

/// The store could not place an object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFull {
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes the store may hold in all.
    pub capacity: u64,
    /// Bytes of live objects in memory.
    pub used: u64,
    /// How many of them are being read or written and therefore stay.
    pub pinned: u64,
    /// Bytes of objects that were moved to disk.
    pub spilled: u64,
    /// The largest piece that could have been placed.
    pub largest_free: u64,
    /// How long room was waited for.
    pub waited: Duration,
    /// Why no more objects are moved to disk, if none are.
    pub not_spilling: Option<Arc<str>>,
    /// Bytes of memory that the machine, or the control group, has left for the store, where that
    /// is what it lacks.
    pub machine_left: Option<u64>,
    /// Who asked.
    pub origin: Origin,
    /// The biggest holders, largest first.
    pub holders: Vec<Holder>,
}

impl fmt::Display for StoreFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "object store full: {} bytes requested ({}), {} of {} bytes used",
            self.requested, self.origin, self.used, self.capacity
        )?;
        if self.requested > self.capacity {
            return write!(
                f,
                ": it can never hold that much; raise Config::object_store_memory"
            );
        }
        write!(
            f,
            ", {} of them in use by views, calls and writers, largest free piece {} bytes",
            self.pinned, self.largest_free
        )?;
        if self.spilled > 0 {
            write!(f, ", {} bytes moved to disk", self.spilled)?;
        }
        if !self.waited.is_zero() {
            write!(f, "; waited {:?} for room", self.waited)?;
        }
        if let Some(left) = self.machine_left {
            write!(
                f,
                "; the machine has only {left} bytes left for more of the store's memory"
            )?;
        }
        if let Some(why) = &self.not_spilling {
            write!(f, "; nothing moves to disk: {why}")?;
        }
        for (i, h) in self.holders.iter().take(5).enumerate() {
            let lead = if i == 0 { "; biggest holders: " } else { ", " };
            write!(f, "{lead}{h}")?;
        }
        write!(
            f,
            "; drop references to free objects, or raise Config::object_store_memory"
        )
    }
}

impl std::error::Error for StoreFull {}

/// An object that was moved to disk cannot be read back. Others are not concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectLost {
    /// Where the object was made.
    pub origin: Origin,
    /// Its bytes.
    pub bytes: u64,
    /// Where on disk it was.
    pub place: Arc<str>,
    /// What is wrong.
    pub why: Loss,
}

/// Why an object cannot be read back from disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// Its file is gone.
    Deleted,
    /// Its file ends before the object does.
    Truncated,
    /// What stands there is not what was written.
    Corrupted,
    /// The system refused to read it, more than once.
    Unreadable(Arc<str>),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Deleted => f.write_str("the file was deleted"),
            Loss::Truncated => f.write_str("the file was truncated"),
            Loss::Corrupted => f.write_str("the file was changed (its checksum does not match)"),
            Loss::Unreadable(why) => write!(f, "it cannot be read: {why}"),
        }
    }
}

impl fmt::Display for ObjectLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "an object of {} bytes ({}) that was moved to {} is lost: {}; make it again, and keep others away from the spill folder (Config::spill)",
            self.bytes, self.origin, self.place, self.why
        )
    }
}

impl std::error::Error for ObjectLost {}
