//! Every decision, pure: who may run, in what order, who wakes whom.
//!
//! Invariant: a machine here is a plain struct whose answer depends on its state and the event
//! alone. It has no clock, thread, lock, randomness or IO of its own, and imports `base` and `std`
//! only, so that a test or a seeded simulator can run thousands of lifetimes of it. Left out:
//! carrying the decisions out, which the drivers in `exec` and `node` do.

#[allow(dead_code, reason = "clusters, tests and the simulator use more of it")]
pub mod amounts;
#[cfg(feature = "cluster")]
pub mod carrier;
pub mod gate;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod groups;
pub mod history;
#[cfg(feature = "cluster")]
#[cfg_attr(
    not(feature = "attach"),
    allow(dead_code, reason = "launchers come with the command, which attaches")
)]
pub mod jobs;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod leases;
pub mod ledger;
#[cfg(feature = "cluster")]
#[allow(dead_code, reason = "tests use more of it")]
pub mod lineage;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod members;
pub mod order;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod owners;
pub mod park;
mod patience;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod placement;
mod pool;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod pulls;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "only tests and the simulator drive it yet"
)]
pub mod recovery;
#[cfg(feature = "cluster")]
#[allow(dead_code, reason = "tests use more of it")]
pub mod replicas;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod session;
#[cfg(feature = "cluster")]
#[allow(
    dead_code,
    unused_imports,
    reason = "tests and the simulator use more of it"
)]
pub mod view;
pub mod workers;

pub use gate::Gate;
pub use ledger::{Effect, Ledger};
pub use order::Order;
pub use park::Spin;
pub use patience::Patience;
pub use pool::Pool;
