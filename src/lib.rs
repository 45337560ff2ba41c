//! Ray's programming model made native to Rust: one attribute turns functions into tasks and structs into actors,
//! and a shared-memory store holds their values.
//!
//! There is no service to install. [`init`](init()) starts a node inside the program: its threads run calls, its memory is the
//! store. Arguments, results and objects are [rkyv] archives, so a large value is never copied to be read.
//!
//! ```
//! use mobula::prelude::*;
//!
//! #[remote] // the function itself stays: square(3) is still plain Rust
//! fn square(x: u64) -> u64 {
//!     x * x
//! }
//!
//! #[remote] // a borrowed parameter is read in place from the store, never copied
//! fn norm(v: &[f32]) -> f32 {
//!     v.iter().map(|x| x * x).sum::<f32>().sqrt()
//! }
//!
//! #[remote]
//! struct Counter {
//!     total: u64,
//! }
//!
//! #[remote]
//! impl Counter {
//!     pub fn new(start: u64) -> Self {
//!         Counter { total: start }
//!     }
//!
//!     pub fn add(&mut self, n: u64) -> u64 {
//!         self.total += n;
//!         self.total
//!     }
//!
//!     pub fn total(&self) -> u64 {
//!         self.total
//!     }
//! }
//!
//! fn main() -> mobula::Result<()> {
//!     let _mobula = mobula::init()?; // or Config::new().num_cpus(4).init()?
//!     let squares: Vec<_> = (0..4).map(square::remote).collect(); // Vec<ObjectRef<u64>>, immediately
//!     assert_eq!(mobula::get(&squares)?, [0, 1, 4, 9]); // or (&squares[0]).await? in async code
//!
//!     let weights = mobula::put(&vec![0f32; 1 << 20])?; // one copy into shared memory
//!     let n = norm::options().num_cpus(0.5).remote(&weights); // a reference passes; the task sees &[f32]
//!     assert_eq!(mobula::get(&n)?, 0.0);
//!     let view = mobula::view(&weights)?; // held in place, derefs to the archive
//!     assert_eq!(view.len(), 1 << 20);
//!
//!     let counter = Counter::options().name("hits").max_restarts(3).remote(10);
//!     counter.add(5); // ObjectRef<u64>; calls of one caller stay in order
//!     assert_eq!(mobula::get(&counter.total())?, 15);
//!     let (ready, pending) = mobula::wait(&squares).num_returns(2).timeout(secs(1)).run()?;
//!     assert_eq!((ready.len(), pending.len()), (2, 2));
//!     Ok(())
//! }
//! ```
//!
//! # Where things are
//!
//! | to | use |
//! |---|---|
//! | start a node, with settings | [`init`](init()), [`Config`], [`Mobula`] (the running node), [`main`](macro@main) |
//! | make tasks and actors | [`remote`](macro@remote) |
//! | call with options | `f::options()`: [`TaskOptions`]; `Actor::options()`: [`ActorOptions`] |
//! | hold what a call gives | [`ObjectRef`], an actor [`Handle`] |
//! | take values out | [`get`](get()), [`get_timeout`], [`view`](view()), [`wait`](wait()), `.await` |
//! | make objects | [`put`](put()), [`put_slice`], [`create`], [`put_archived`]; with copies on other nodes or at a URL [`PutOptions`] |
//! | make types that travel | [`value`](macro@value), [`Value`] |
//! | reserve resources together | [`PlacementGroup`] |
//! | stop things | [`cancel`], [`check_cancelled`], [`Handle::stop`], [`Handle::kill`] |
//! | share work | [`ActorPool`], `Queue` |
//! | see what went wrong | [`Error`], [`Failure`], [`StoreFull`], [`Infeasible`] |
//! | see what happened | [`timeline`](timeline()), [`span!`], [`counter!`], [`Config::trace`] |
//! | see what there is | [`registry`], [`Mobula::store`], [`Mobula::store_pages`], [`Mobula::holders`] |
//! | hear of deaths | [`Mobula::on_actor_death`], `Mobula::on_node_death` |
//!
//! # What may be passed
//!
//! An argument for a parameter `T` is a `T`, a `&T`, an [`ObjectRef<T>`](ObjectRef) or a reference to one; see [`Arg`].
//! The call waits for references among its arguments. References and handles inside other values travel as they are:
//! who receives them can `get` them or call them.
//!
//! A parameter is an owned value, or borrows: `&[f32]` and other slices of numbers, `&str`, and `&Archived<T>` for the
//! archive of any value. What is borrowed is not copied, wherever it lies. A remote function returns `T` or
//! `Result<T, E>`; an `Err` is the call's failure and arrives at `get` as [`Error::TaskFailed`].
//!
//! # Costs
//!
//! - A call is one record, allocated once and recycled. Values of up to 512 bytes travel inside it, larger ones through
//!   the store. A call whose result the caller takes at once is run by the caller: no thread is switched.
//! - [`get`](get()) makes an owned copy; [`view`](view()) reads in place. [`put`](put()) copies once; [`create`] not at all.
//! - Memory of the store is used as it is written, kept, and used again.
//! - An idle node sleeps. An idle actor is its state and a small cell; it has no thread.
//!
//! # Blocking
//!
//! [`get`](get()) and its like may be called anywhere in plain code, in tasks and methods too: the thread runs the awaited
//! call, or lends its CPU and sleeps, so that calls that wait for calls do not run out of threads. In `async` code await
//! the reference instead. A method that waits for a call to its own actor fails with [`Error::Deadlock`].
//!
//! What a call runs on is a thread of the node. A call that runs cannot be interrupted: [`cancel`] drops an `async` call
//! at its next await and tells others, which look with [`check_cancelled`].
//!
//! # Errors
//!
//! A call gives a reference whatever happens; what went wrong, be it in the function, in an argument, or because no node
//! runs, is said by the `get` of it. A failure that nobody looks at is printed to standard error when its last reference
//! goes ([`Config::on_unobserved_failure`] changes that). A panic is its call's failure and nothing more.
//!
//! # Features
//!
//! - `async`, on by default: `async fn` tasks and methods, on a tokio runtime that starts at the first of them; `Queue`;
//!   `async fn main` under [`main`](macro@main).
//! - `attach`, on by default: the `mobula` command finds the running program and looks at it ([`inspect`]).
//! - `cluster`, on by default: links between the nodes of a cluster, over QUIC.
//! - `dashboard`, on by default: a page that shows the running program ([`Config::dashboard`]).
//! - `object-store`, on by default: objects that memory has no room for go to disk ([`Config::spill`]).
//! - `cli`: the command `mobula`.
//! - `c-api`: functions for programs in other languages, declared in `include/mobula_store.h`.
//! - `tracing`: a layer that shows the spans of the `tracing` crate in the timeline, inside the calls that entered them.
//! - `tracing-chrome`: the layer of that crate, which writes the spans of one process without a node's help.
//! - `otel`: spans of calls for OpenTelemetry ([`Config::otel`]).
//! - `cluster`: many machines as one.
//! - `etcd`: the cluster's records on etcd, so that any machine may be lost. Needs `protoc` to build, so `full` leaves it out.
//! - `rl`: reinforcement learning. Its tensors take minutes to build, so `full` leaves it out.
//! - `full`: all that builds without a system library.

extern crate self as mobula;

mod api;
mod base;
#[cfg(feature = "c-api")]
mod capi;
#[cfg(feature = "cluster")]
#[allow(dead_code, reason = "what drives it comes with the cluster's node")]
mod control;
mod core;
#[cfg(feature = "dashboard")]
pub mod dashboard;
mod exec;
#[cfg(feature = "cluster")]
#[allow(dead_code, reason = "tests use more of it")]
mod link;
mod node;
#[cfg(feature = "rl")]
pub mod rl;
mod shm;
pub mod store;
mod trace;
mod value;
#[cfg(feature = "cluster")]
mod wire;

/// Every decoder of bytes from outside, for the targets in `fuzz/`.
#[cfg(all(feature = "cluster", feature = "dashboard", fuzzing))]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::base::hostile::fuzzed;
    pub use crate::control::records::fuzz as control;
    pub use crate::core::members::fuzz as members;
    pub use crate::core::view::fuzz as views;
    pub use crate::dashboard::fuzz as dashboard;
    pub use crate::exec::isolate::fuzz as workers;
    pub use crate::link::fuzz as link;
    pub use crate::node::attach::fuzz as attach;
    pub use crate::node::launch::fuzz as launch;
    pub use crate::shm::ring_fuzz as rings;
    pub use crate::store::fuzz as store;
    pub use crate::trace::fuzz as trace;
    pub use crate::value::fuzz as value;
    pub use crate::wire::fuzz as wire;
}

pub use api::*;
pub use base::parse_bytes;
pub use base::{
    BadBytes, BadNodeId, CopyLost, Error, Exit, Failure, FailureKind, Holder, Infeasible,
    LabelMatch, Loss, NodeId, NotDurable, NotWritten, ObjectLost, Origin, Result, Stack, StoreFull,
    Strategy, Units, WorkerDeath,
};
#[cfg(feature = "cluster")]
pub use base::{GroupId, GroupStrategy};
pub use exec::actor::ActorDeath;
pub use exec::entry::Registered;
pub use exec::isolate::{WorkerLine, WorkerOutput, WorkerStream};
pub use exec::options::Memory;
pub use mobula_macros::{main, remote, value};
pub use node::Config;
#[cfg(feature = "otel")]
pub use node::Otel;
pub use rkyv;
pub use shm::{HugePages, PageKind, StorePages};
pub use trace::{Mode as Trace, Written as Timeline};
pub use value::{Archived, Native, Value};

#[doc(hidden)]
pub use api::private as __private;

/// What a program that uses Mobula imports: `use mobula::prelude::*;`.
///
/// The functions stay behind their crate's name, as in `mobula::get(&r)`, for their names are short.
pub mod prelude {
    pub use crate::{
        ActorPool, Archived, Config, Handle, ObjectRef, Value, View, WhenFull, remote, secs,
    };
}
