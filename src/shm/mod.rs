//! The operating system's shared memory: a segment, an allocator over it, copies into it.
//!
//! Invariant: the allocator's bookkeeping never lies in shared memory. The only room that maps
//! memory. Left out: what objects are, and when they may be read (see `store`).

mod arena;
mod attach;
mod copy;
mod extents;
mod memfd;
mod owners;
mod prefault;
mod shards;
mod slabs;
mod space;
mod tally;
mod words;

pub use arena::{Arena, ArenaOptions, ArenaStats, Extent};
#[allow(
    unused_imports,
    reason = "the served store and worker processes come next"
)]
pub use attach::{Attached, Lease};
pub use copy::{copy_into, copy_into_cold};
pub use prefault::Prefault;
pub use words::Words;
