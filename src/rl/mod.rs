//! Reinforcement learning on tasks and actors: environments, networks, algorithms.
//!
//! Invariant: it uses what users of the crate can use, and nothing beneath. One file has one algorithm, with its settings, its
//! loss and its training loop to be read from top to bottom. The same seed gives the same curve. Left out: see docs/rl.md.

pub mod a3c;
mod adam;
mod agent;
mod checkpoint;
mod collector;
pub mod command;
mod config;
mod conv;
mod crew;
mod distribution;
pub mod dqn;
mod env;
mod error;
pub mod es;
mod evaluate;
mod gae;
mod layer;
mod learned;
mod lstm;
mod matrix;
mod mlp;
mod network;
mod norm;
mod ops;
mod picture;
mod player;
mod policy;
pub mod ppo;
mod q_network;
mod replay;
mod rng;
mod run;
mod side;
mod simd;
mod space;
mod storage;
mod tuned;
mod weights;

pub use agent::{ALGORITHMS, Agent, Progress, agent, restore};
pub use checkpoint::Checkpoint;
pub use distribution::{categorical, draw_categorical, draw_gaussian, gaussian};
pub use env::*;
pub use error::{Error, Result};
pub use evaluate::{Evaluation, evaluate};
pub use gae::gae;
pub use layer::Activation;
pub use lstm::LstmState;
pub use mlp::{Mlp, Tape};
pub use network::{Net, Network};
pub use picture::picture;
pub use player::Episode;
pub use policy::{Policy, Scratch};
pub use q_network::QNetwork;
pub use replay::{Memory, SumTree, Transitions};
pub use rng::Rng;
pub use space::{Action, Actions, Space};
pub use tuned::{TUNED, Tuned, tuned};

/// A process has one node at a time: tests take turns.
#[cfg(test)]
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
