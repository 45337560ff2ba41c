//! Running user code: calls, actors, and the threads they run on.
//!
//! Room map: [`cell`] the record of a call, with [`phase`] where it stands and [`payload`] what it holds; [`memory`]
//! where records live; [`mail`] an actor's mailbox; [`sync`] the primitives of all these; [`call`] arguments and results in and out of
//! it, [`params`] how parameters read them; [`pin`] values kept in memory while they are read; [`entry`] and [`tasks`] what the macro registers; [`engine`] from submission to outcome; [`crew`] the
//! executor threads; [`books`] what threads count, [`mishaps`] what failed lately, [`waiting`] what waits for arguments, [`inspect`] what a look from outside shows;
//! [`wait`] callers that need a value, [`deadlock`] those that never would; [`actor`] actors; [`local`] what a thread keeps;
//! [`far`] what crosses to other nodes; [`groups`] placement groups, [`bundles`] what they reserved here;
//! [`events`] what is recorded of all this, and [`moves`] of objects that go to disk.
//!
//! Invariant: user code runs only through an entry, inside a catch of its panics. Left out: one machine's names,
//! settings and start, which are `node`'s.

pub mod actor;
mod admission;
mod books;
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, unused_imports, reason = "no other node is ever there")
)]
mod bundles;
pub mod call;
pub mod cell;
mod closing;
pub mod copies;
mod crew;
mod deadlock;
pub mod engine;
pub mod entry;
pub mod events;
mod executor;
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, unused_imports, reason = "no other node is ever there")
)]
pub mod far;
#[cfg(feature = "async")]
mod futures;
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, unused_imports, reason = "no other node is ever there")
)]
pub mod groups;
pub mod inspect;
pub mod isolate;
pub mod local;
#[cfg(all(test, loom))]
mod loom_tests;
mod mail;
pub mod memory;
mod mishaps;
pub mod moves;
pub mod notices;
pub mod options;
pub mod panics;
pub mod params;
mod payload;
mod phase;
pub mod pin;
pub mod report;
mod settle;
mod stack;
mod sync;
pub mod tasks;
#[cfg(feature = "cluster")]
pub mod terminate;
mod wait;
pub mod waiter;
mod waiting;

pub use actor::HandleRef as RawHandle;
pub use cell::RawRef;
pub use engine::Engine;
pub use local::Local;
pub use settle::{Cancel, failure};

/// Values up to this size travel inside records; larger ones live in the store.
///
/// Measured (rows `put_512b` and `put_520b` of the benchmark, and the same with this constant at 64 and at 4,096; 2 cores,
/// 22 Nov 2026, fastest samples of a busy machine): at 512 B a put inside its record costs 37 ns and one in the store 83 ns;
/// at 1 KB, where a record no longer fits the recycled sizes, 115 ns inside and 101 ns in the store.
pub const INLINE_MAX: usize = 512;
