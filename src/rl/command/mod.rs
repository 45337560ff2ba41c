//! The command that trains: what it is told, the loop around an agent's iterations, and what it leaves behind.
//!
//! Invariant: a run ends by what it was told to reach, and says by which; its files are written line by line, so a run that
//! is killed leaves all that it had. Left out: starting a node, which the program does.

mod arguments;
mod curve;
mod events;
mod run;
mod show;

pub use arguments::{Arguments, HELP};
pub use run::{Outcome, run};
