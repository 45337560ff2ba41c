//! The operating system's shared memory: a segment, an allocator over it, copies into it.
//!
//! Invariant: the allocator's bookkeeping never lies in shared memory. The only room that maps
//! memory. Left out: what objects are, and when they may be read (see `store`).

mod arena;
mod attach;
mod copy;
mod cpu;
mod extents;
mod futex;
mod groups;
mod machine;
mod memfd;
mod numa;
mod owners;
mod pages;
mod peer;
mod prefault;
mod ranges;
mod ring;
mod shards;
mod slabs;
mod space;
mod sync;
mod tag;
mod tally;
mod words;

pub use arena::{Arena, ArenaOptions, ArenaStats, Extent, Found};
pub use attach::{Attached, Lease};
pub use copy::{copy_into, copy_into_cold};
#[cfg(feature = "cluster")]
pub use cpu::{come_first, cpu_time, hurry};
pub use cpu::{current_cpu, move_away_from};
pub use groups::{group_files, limit as group_limit, lowest_limit};
pub use machine::{MemoryLeft, meminfo_field, memory_left};
pub use pages::{HugePages, PageKind, StorePages};
pub use peer::{Peer, peer, peer_process};
pub use prefault::Prefault;
#[cfg(fuzzing)]
pub use ring::fuzz as ring_fuzz;
pub use ring::{Aligned, Full, Lanes, Lied, MAX_FRAME, Receiver, Sender, Waited};
pub use tag::{Live, Tag};
pub use tally::biggest;
pub use words::Words;
