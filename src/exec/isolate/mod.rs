//! Calls in processes of their own: the node starts its own executable again, and what runs there may abort, leak or be
//! killed without hurting anybody.
//!
//! Room map, on the node's side: [`pool`] has the worker processes, [`process`] is one of them, [`driver`] stands in for a
//! call while a worker runs it. On the worker's side: [`takeover`] begins before `main`, [`serve`] runs calls. Between
//! them: [`frame`] what is said over a lane, [`hello`] what is said first.
//!
//! Invariant: what a worker says is a claim until it is checked; one that says what no worker says is killed, and its
//! call ends as if it had died. Left out: which calls are isolated (`options`).

mod care;
mod cgroup;
pub mod driver;
mod failure;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hello;
mod limits;
mod lines;
mod meter;
mod monitor;
mod orphan;
mod output;
mod pool;
mod process;
mod reap;
mod serve;
mod sink;
mod table;
mod takeover;
mod watched;

pub use care::Settings;
pub(super) use failure::{read as read_failure, write as write_failure};
pub(super) use frame::{MAX_ARGS, Reader, Writer};
pub use hello::{check_start, not_here};
pub use pool::Workers;
pub use process::Process;
pub use serve::{in_worker, keep_large, lend, told_to_cancel, written};
pub use sink::{WorkerLine, WorkerOutput, WorkerStream};
pub(super) use table::table;
pub use watched::{Job, Told};
