//! Where the bytes of an object came from, and what is said when the store has no room.
//!
//! Invariant: an [`Origin`] is `Copy` and borrows only statics, so that recording one costs a few stores.
//! Left out: which object it was; the store groups by origin because that is what a user can act on.

use std::fmt;
use std::panic::Location;

/// Where the bytes of an object came from: shown by [`StoreFull`] and memory listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A `put` at this place of the program.
    Put(&'static Location<'static>),
    /// A `create` at this place of the program.
    Create(&'static Location<'static>),
    /// An argument that was too large to travel inside the call to this function.
    Argument(&'static str),
    /// The result of this function.
    Result(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Put(at) => write!(f, "put at {}:{}", at.file(), at.line()),
            Origin::Create(at) => write!(f, "created at {}:{}", at.file(), at.line()),
            Origin::Argument(name) => write!(f, "argument of {name}"),
            Origin::Result(name) => write!(f, "result of {name}"),
        }
    }
}

/// One group of objects that fill the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Where the objects were made.
    pub origin: Origin,
    /// Their bytes together.
    pub bytes: u64,
    /// How many there are.
    pub objects: u64,
}

/// The store could not place an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFull {
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes the store may hold in all.
    pub capacity: u64,
    /// Bytes of live objects.
    pub used: u64,
    /// The largest piece that could have been placed.
    pub largest_free: u64,
    /// Who asked.
    pub origin: Origin,
    /// The biggest holders, largest first.
    pub holders: Vec<Holder>,
}

impl fmt::Display for StoreFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "object store full: {} bytes requested ({}), {} of {} bytes used, largest free piece {} bytes",
            self.requested, self.origin, self.used, self.capacity, self.largest_free
        )?;
        for (i, h) in self.holders.iter().take(5).enumerate() {
            let lead = if i == 0 { "; biggest holders: " } else { ", " };
            write!(
                f,
                "{lead}{} bytes in {} objects {}",
                h.bytes, h.objects, h.origin
            )?;
        }
        write!(
            f,
            "; drop references to free objects, or raise Config::object_store_memory"
        )
    }
}

impl std::error::Error for StoreFull {}
