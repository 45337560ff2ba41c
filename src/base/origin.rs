//! Where the bytes of an object came from.
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
