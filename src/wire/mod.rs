//! What nodes say to each other: frames, and the bytes they are.
//!
//! Room map: [`frame`] what is said; [`body`] calls, values and references in it; [`owning`] messages about references;
//! [`grouping`] about placement groups; [`leasing`] about leases; [`recovering`] about actors that keep their history;
//! [`replicating`] about replicas; [`codec`] fields.
//!
//! Invariant: reading is total; a frame that was written is read as it was. Left out: carrying frames (`link`), and what
//! follows from them (`node`).

mod body;
mod codec;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grouping;
mod leasing;
mod owning;
mod recovering;
mod replicating;
#[cfg(any(test, fuzzing))]
mod samples;
#[cfg(test)]
mod tests;

pub use body::{
    ActorTerms, ArgBody, Beside, CallBody, CapBody, HandleBody, Outcome, RefBody, Terms, ValueBody,
};
pub use codec::{BadFrame, Read, Reader, Writer};
pub use frame::{Found, Frame, Named, Question};
pub use grouping::InGroup;
pub use recovering::{
    CheckpointBody, EntryBody, KeptCall, Recovering, StateBody, whole as whole_recovering,
};
