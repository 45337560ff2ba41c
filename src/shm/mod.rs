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
mod peer;
mod prefault;
mod shards;
mod slabs;
mod space;
mod tally;

pub use arena::{Arena, ArenaOptions, ArenaStats, Extent};
pub use attach::{Attached, Lease};
pub use copy::{copy_into, copy_into_cold};
pub use peer::{Peer, peer, peer_process};
pub use prefault::Prefault;
