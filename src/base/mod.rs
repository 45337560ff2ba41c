//! Plain data that every room may name: identifiers, resources, options, failures and errors.
//!
//! Invariant: nothing here holds a lock, a thread or a file; everything is `Send + Sync`.
//! Left out: behaviour. Decisions are in `core`, drivers above.

mod bytes;
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, reason = "one machine needs few of these")
)]
mod cluster;
mod death;
mod defaults;
mod durable;
mod error;
#[cfg(all(test, feature = "etcd"))]
pub mod etcd;
mod failure;
#[cfg(any(test, fuzzing))]
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "fuzz targets spoil bytes themselves")
)]
pub mod hostile;
mod id_map;
#[cfg_attr(
    not(feature = "cluster"),
    allow(dead_code, reason = "one machine needs few of these")
)]
mod ids;
pub mod metrics;
mod object_id;
mod origin;
pub mod query;
mod resources;
#[cfg(test)]
pub mod skip;
pub mod snapshot;
mod space;
mod store_error;
#[cfg(test)]
pub mod wait;

pub use self::bytes::{BadBytes, parse_bytes, show_bytes};
#[cfg_attr(
    not(feature = "cluster"),
    allow(unused_imports, reason = "one machine needs few of these")
)]
pub use cluster::{GroupId, GroupSpec, GroupStrategy, LabelMatch, Strategy};
pub use death::{Exit, WorkerDeath};
pub use defaults::Defaults;
pub use durable::{CopyLost, NotDurable, NotWritten};
pub use error::{Error, Result};
pub use failure::{Failure, FailureKind, Stack};
pub use id_map::IdMap;
pub use ids::{ActorKey, BadNodeId, NodeId, ObjectKey};
pub use object_id::{BadObjectId, ObjectId};
pub use origin::Origin;
pub use resources::{BadAmount, Capacity, Demand, Infeasible, Units};
pub use space::{Holder, Loss, ObjectLost, StoreFull};
pub use store_error::{ObjectState, StoreError};
