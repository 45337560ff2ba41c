//! Calls, values and actors that cross to other nodes, as this node's engine sees them.
//!
//! The engine knows no network. Whoever does implements [`Far`] and hands it in; the engine asks it about calls that this
//! node cannot or should not run. Between them: [`parcel`] a call or a value taken out of its record and put into another
//! node's; [`proxy`] records that stand for objects of other nodes; [`take`] calls that are taken from this node's queues, run
//! for others, and settled when another node has run them; [`leased`] those that run in slots lent to others; [`check`] bytes that another node wrote.
//!
//! Invariant: a record that another node runs stays claimed here until its outcome is put into it, once. Bytes that another
//! node wrote are checked before the first typed read. Left out: who sends what to whom (`node`).

pub mod actor;
pub mod check;
pub mod leased;
pub mod parcel;
pub mod proxy;
pub mod take;

use std::sync::Arc;
use std::time::Duration;

pub use actor::FarActor;
pub use parcel::{Arg, Carried, Layout, Parcel, ValueParcel};
pub use proxy::Proxies;

use super::actor::HandleRef;
use super::cell::RawRef;
use super::engine::Engine;
use super::entry::ActorEntry;
use super::local::Local;
use super::options::{Extra, Options};
use crate::base::{Demand, Error};

/// The other nodes, as the engine asks about them.
pub trait Far: Send + Sync {
    /// A call whose arguments are settled: whether another node runs it. Then it has been claimed, and is settled later
    /// through [`take`]. Must not block.
    fn place(&self, local: &Local, record: &RawRef) -> bool;

    /// Why no node, this one included, can ever give a call what it asks for.
    fn lacks(&self, demand: &Demand) -> Option<Error>;

    /// A call that runs elsewhere was cancelled: its flag says so already.
    fn cancel(&self, local: &Local, record: &RawRef);

    /// A call that came from elsewhere to run in a lease has its arguments: it is started through [`leased`] when it has a slot.
    fn arrived(&self, local: &Local, record: &RawRef);

    /// The ledger started a ticket numbered from [`leased::LEASES`] on.
    fn reserved(&self, local: &Local, ticket: u64);

    /// These leased calls, by the numbers of their records, block, or go on.
    fn blocked(&self, local: &Local, calls: &[u64], blocked: bool);

    /// An executor found nothing to do, while calls of this node wait for others.
    fn dry(&self);

    /// How another node is to make an actor; `None` if it should be made here.
    ///
    /// # Errors
    /// That no node may.
    fn create(
        &self,
        local: &Local,
        entry: &'static ActorEntry,
        options: &Options,
        demand: &Demand,
    ) -> Result<Option<Elsewhere>, Error>;

    /// The living actor of this name on any other node. May block for a round trip.
    fn named(&self, local: &Local, name: &str) -> Result<Option<HandleRef>, Error>;

    /// The name is about to be an actor's of this node, whose history others keep or not: another node's living actor that has it, if
    /// there is one. May block for a round trip.
    fn claim_name(
        &self,
        local: &Local,
        name: &str,
        actor: u64,
        entry: &'static ActorEntry,
        kept: bool,
    ) -> Result<Option<HandleRef>, Error>;

    /// An actor that is about to be made here may be made again, and its state can be saved: whoever keeps its history on other
    /// nodes, if anybody does.
    fn keep(
        &self,
        local: &Local,
        actor: &super::actor::ActorRef,
        options: Option<&Options>,
        demand: &Demand,
    ) -> Option<Arc<dyn super::actor::Backups>>;

    /// The actor that had this name has ended.
    fn free_name(&self, name: &str, actor: u64);

    /// An actor of this node has ended: whoever has handles to it is told.
    fn ended(&self, actor: u64, cause: &str);

    /// What an object carries that is about to have replicas and this number: so its last reference is told of.
    fn replicated(&self, number: u64) -> Box<Extra>;

    /// Has so many other nodes keep a copy of an object that carries that, and remembers where its durable copy is, if it has one. Blocks
    /// until they do.
    ///
    /// # Errors
    /// That there are too few that can, or that it takes longer.
    fn replicate(
        &self,
        local: &Local,
        record: &RawRef,
        copies: (u32, Option<Arc<str>>),
        timeout: Duration,
    ) -> Result<(), Error>;

    /// Says of the first of these, which is this node, what the cluster knows of it, and adds the others.
    fn describe(&self, nodes: &mut Vec<crate::base::snapshot::Node>);
}

/// Where an actor is to be made: takes its constructor's call and its name, and gives its handle.
pub type Elsewhere = Box<dyn FnOnce(&Local, &RawRef, Option<&str>) -> Result<HandleRef, Error>>;

/// What a process does that is a node for another's program, given the head's address; its exit code is what this gives.
pub struct NodeMain(pub fn(String) -> i32);

inventory::collect!(NodeMain);

/// Names the head that a node process is to join. A process with it never reaches its `main`.
pub const JOIN: &str = "MOBULA_JOIN";

/// Runs what a node process does, if the program has that.
pub(super) fn node_main(head: String) -> Option<i32> {
    let main = inventory::iter::<NodeMain>.into_iter().next()?;
    Some((main.0)(head))
}

impl Engine {
    /// The other nodes, if there are any.
    #[inline]
    pub fn far(&self) -> Option<&Arc<dyn Far>> {
        self.far.get()
    }

    /// From here on there are other nodes. False if that had been said before.
    pub fn set_far(&self, far: Arc<dyn Far>) -> bool {
        self.far.set(far).is_ok()
    }
}
