//! Reinforcement learning on tasks and actors: environments, networks, algorithms.
//!
//! Invariant: it uses what users of the crate can use, and nothing beneath. One file has one algorithm, with its settings, its
//! loss and its training loop to be read from top to bottom. The same seed gives the same curve. Left out: see docs/rl.md.

mod adam;
mod agent;
mod checkpoint;
mod collector;
pub mod command;
mod config;
mod distribution;
mod env;
mod error;
mod evaluate;
mod gae;
mod matrix;
mod mlp;
mod ops;
mod policy;
pub mod ppo;
mod rng;
mod simd;
mod space;
mod tuned;

pub use agent::{ALGORITHMS, Agent, Progress, agent, restore};
pub use checkpoint::Checkpoint;
pub use collector::Episode;
pub use distribution::{categorical, draw_categorical, draw_gaussian, gaussian};
pub use env::*;
pub use error::{Error, Result};
pub use evaluate::{Evaluation, evaluate};
pub use gae::gae;
pub use mlp::{Activation, Mlp, Tape};
pub use policy::{Policy, Scratch};
pub use rng::Rng;
pub use space::{Action, Actions, Space};
pub use tuned::{TUNED, Tuned, tuned};
