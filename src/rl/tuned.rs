//! Settings that were found to be good for one environment.
//!
//! Invariant: each is a name, an algorithm, an environment and the settings that differ from the algorithm's defaults;
//! docs/rl.md has what they reach. Left out: how they were found.

use super::error::{Error, Result, nearest};

/// Settings with their name.
#[derive(Debug)]
pub struct Tuned {
    /// The name.
    pub name: &'static str,
    /// The algorithm.
    pub algorithm: &'static str,
    /// The environment.
    pub env: &'static str,
    /// What differs from the defaults, as JSON.
    pub config: &'static str,
}

/// All there are.
pub const TUNED: &[Tuned] = &[
    Tuned {
        name: "cartpole-ppo",
        algorithm: "PPO",
        env: "CartPole-v1",
        config: "{}",
    },
    Tuned {
        name: "cartpole-dqn",
        algorithm: "DQN",
        env: "CartPole-v1",
        config: "{}",
    },
    Tuned {
        name: "cartpole-a3c",
        algorithm: "A3C",
        env: "CartPole-v1",
        config: "{}",
    },
    Tuned {
        name: "cartpole-es",
        algorithm: "ES",
        env: "CartPole-v1",
        config: "{}",
    },
];

/// The settings of this name.
///
/// # Errors
/// [`Error::Usage`], with all names and the nearest one.
pub fn tuned(name: &str) -> Result<&'static Tuned> {
    TUNED
        .iter()
        .find(|tuned| tuned.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = TUNED.iter().map(|tuned| tuned.name).collect();
            let near = nearest(name, known.iter().copied())
                .map(|near| format!(" (did you mean {near:?}?)"))
                .unwrap_or_default();
            Error::Usage(format!(
                "there are no tuned settings {name:?}{near}; there are {}",
                known.join(", ")
            ))
        })
}
