//! What happened, event by event: recorded in bounded memory as it happens, written out as a Chrome trace when asked.
//!
//! Room map: [`ticks`] the clock; [`event`] one event in 64 bytes; [`pool`] the memory that events lie in, which several
//! processes may share; [`budget`] how many calls are recorded while they come fast; [`lane`] a thread's pen; [`read`]
//! the memory read back; [`chrome`] the trace file, [`boxes`] and [`arrows`] in it, with [`text`] for its numbers and strings;
//! `decode` puts the events together to a `recording` of calls, `follow` does so again and again; `spans` reads the calls that
//! ended little by little, which `otlp` writes as OpenTelemetry has them.
//!
//! Invariant: recording takes no lock and no allocation once a thread has met its names, never waits (but for up to two
//! milliseconds, once, to learn how fast its clock is), and never takes more memory than it was given. What is read back is a claim: a process that crashed, or lies, may have left anything.
//! Left out: where the memory comes from (`shm`), and what of a call is worth an event (`exec`).

mod arrows;
mod boxes;
mod budget;
mod chrome;
#[cfg(feature = "dashboard")]
mod decode;
mod event;
#[cfg(feature = "dashboard")]
mod follow;
#[cfg(all(feature = "attach", any(test, fuzzing)))]
pub mod fuzz;
mod lane;
#[cfg(feature = "otel")]
mod otlp;
mod pool;
mod read;
#[cfg(feature = "dashboard")]
pub mod recording;
#[cfg(feature = "otel")]
mod spans;
#[cfg(test)]
mod tests;
mod text;
mod ticks;

#[cfg(feature = "attach")]
pub use chrome::write_within;
pub use chrome::{Written, write};
pub use event::{Deed, Event, INPUTS, Outcome, Submitted, Turn};
#[cfg(feature = "dashboard")]
pub use follow::Follower;
pub use lane::{Lane, NOT_RECORDED, Part};
#[cfg(feature = "otel")]
pub use otlp::{Source, request};
pub use pool::{Mode, Recorder, SMALLEST};
#[cfg(feature = "otel")]
pub use spans::{Span, Spans};
