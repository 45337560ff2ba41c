//! The machines that are simulated, from the sources of the library.
//!
//! Invariant: nothing here is changed for the simulation. Left out: machines of one node alone.

#[path = "../../src/core/owners/mod.rs"]
pub mod owners;
#[path = "../../src/core/pulls/mod.rs"]
pub mod pulls;

pub use owners::Owners;
pub use pulls::Pulls;
