//! What happened, event by event: recorded in bounded memory as it happens, written out as a Chrome trace when asked.
//!
//! Room map: [`ticks`] the clock; [`event`] one event in 64 bytes; [`pool`] the memory that events lie in, which several
//! processes may share; [`budget`] how many calls are recorded while they come fast; [`lane`] a thread's pen; [`read`]
//! the memory read back; [`chrome`] the trace file and [`arrows`] in it, with [`text`] for its numbers and strings;
//! `decode` puts the events together to a `recording` of calls, `follow` does so again and again.
//!
//! Invariant: recording takes no lock and no allocation once a thread has met its names, never waits, and never takes more
//! memory than it was given. What is read back is a claim: a process that crashed, or lies, may have left anything.
//! Left out: where the memory comes from (`shm`), and what of a call is worth an event (`exec`).

mod arrows;
mod budget;
mod chrome;
#[cfg(feature = "dashboard")]
mod decode;
mod event;
#[cfg(feature = "dashboard")]
mod follow;
mod lane;
mod pool;
mod read;
#[cfg(feature = "dashboard")]
pub mod recording;
#[cfg(test)]
mod tests;
mod text;
mod ticks;

#[cfg(feature = "attach")]
pub use chrome::write_within;
pub use chrome::{Written, write};
pub use event::{Deed, Event, INPUTS, Outcome, Submitted, Turn};
#[cfg(feature = "dashboard")]
#[cfg(feature = "dashboard")]
pub use follow::Follower;
pub use lane::{Lane, NOT_RECORDED, Part};
pub use pool::{Mode, Recorder, SMALLEST};
