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

/// For bodies in a plane that must not fall.
const BODY: &str = r#"{"gamma": 0.99, "lambda": 0.95, "num_envs": 1, "num_steps": 2048, "minibatch_size": 64, "epochs": 10,
    "learning_rate": 0.0003, "schedule_steps": 1000000, "value_clip": 0.2,
    "normalize_observations": true, "normalize_rewards": true}"#;

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
        name: "acrobot-ppo",
        algorithm: "PPO",
        env: "Acrobot-v1",
        config: r#"{"gamma": 0.99, "lambda": 0.94, "num_envs": 16, "num_steps": 128, "minibatch_size": 256, "epochs": 4,
            "learning_rate": 0.001, "entropy_coefficient": 0.01, "schedule_steps": 1000000}"#,
    },
    Tuned {
        name: "acrobot-dqn",
        algorithm: "DQN",
        env: "Acrobot-v1",
        config: "{}",
    },
    Tuned {
        name: "pendulum-ppo",
        algorithm: "PPO",
        env: "Pendulum-v1",
        config: r#"{"gamma": 0.9, "lambda": 0.95, "num_envs": 4, "num_steps": 512, "minibatch_size": 128, "epochs": 10,
            "learning_rate": 0.001, "final_learning_rate": 0.0001, "final_clip": 0.2, "schedule_steps": 200000}"#,
    },
    Tuned {
        name: "pendulum-es",
        algorithm: "ES",
        env: "Pendulum-v1",
        config: r#"{"hidden": [16], "pairs": 32, "episodes": 2, "learning_rate": 0.05}"#,
    },
    Tuned {
        name: "catch-dqn",
        algorithm: "DQN",
        env: "Catch-v0",
        config: r#"{"hidden": [128], "learning_rate": 0.0007, "target_every": 128, "n_step": 1, "gamma": 0.95}"#,
    },
    Tuned {
        name: "catch-a3c",
        algorithm: "A3C",
        env: "Catch-v0",
        config: r#"{"hidden": [128], "activation": "relu", "learning_rate": 0.0007, "num_envs": 16, "num_steps": 16,
            "entropy_coefficient": 0.05, "schedule_steps": 5000000}"#,
    },
    Tuned {
        name: "catch-pixels-dqn",
        algorithm: "DQN",
        env: "CatchPixels-v0",
        config: r#"{"net": "cnn", "hidden": [64], "learning_rate": 0.0007, "target_every": 128, "gamma": 0.95}"#,
    },
    Tuned {
        name: "catch-pixels-a3c",
        algorithm: "A3C",
        env: "CatchPixels-v0",
        config: r#"{"net": "cnn", "hidden": [64], "activation": "relu", "learning_rate": 0.0007, "num_envs": 16,
            "num_steps": 16, "entropy_coefficient": 0.05, "schedule_steps": 5000000}"#,
    },
    Tuned {
        name: "recall-a3c",
        algorithm: "A3C",
        env: "Recall-v0",
        config: r#"{"lstm": 32, "hidden": [], "num_envs": 16, "num_steps": 12, "learning_rate": 0.01,
            "entropy_coefficient": 0.01}"#,
    },
    Tuned {
        name: "cartpole-ppo-4096",
        algorithm: "PPO",
        env: "CartPole-v1",
        config: r#"{"num_envs": 4096, "num_steps": 32, "epochs": 1, "minibatch_size": 8192, "learning_rate": 0.01,
            "schedule_steps": 6000000}"#,
    },
    Tuned {
        name: "hopper-ppo",
        algorithm: "PPO",
        env: "Hopper-v5",
        config: BODY,
    },
    Tuned {
        name: "walker2d-ppo",
        algorithm: "PPO",
        env: "Walker2d-v5",
        config: BODY,
    },
    Tuned {
        name: "halfcheetah-ppo",
        algorithm: "PPO",
        env: "HalfCheetah-v5",
        config: r#"{"gamma": 0.98, "lambda": 0.92, "num_envs": 1, "num_steps": 512, "minibatch_size": 64, "epochs": 20,
            "learning_rate": 0.000020633, "final_learning_rate": 0.000020633, "schedule_steps": 1000000,
            "clip": 0.1, "final_clip": 0.1, "entropy_coefficient": 0.000401762, "max_grad_norm": 0.8,
            "value_coefficient": 0.58096, "hidden": [256, 256], "activation": "relu", "log_std": -2.0,
            "normalize_observations": true, "normalize_rewards": true}"#,
    },
    // Those of Ray 0.2, whose 64 workers are two here: 320,000 steps in an iteration.
    Tuned {
        name: "humanoid-ppo",
        algorithm: "PPO",
        env: "Humanoid-v5",
        config: r#"{"gamma": 0.995, "lambda": 0.95, "num_workers": 2, "num_envs": 32, "num_steps": 5000, "minibatch_size": 32768,
            "epochs": 20, "learning_rate": 0.0001, "final_learning_rate": 0.0001, "clip": 0.2, "final_clip": 0.2,
            "kl_coefficient": 1.0, "kl_target": 0.01, "hidden": [256, 256], "normalize_observations": true}"#,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::agent::agent;

    #[test]
    fn all_of_them_are_settings_that_their_algorithms_have() -> Result<()> {
        let _turn = crate::rl::turn();
        let _node = crate::api::init()?;
        for tuned in TUNED {
            match agent(tuned.algorithm, tuned.env, tuned.config, 1) {
                Err(Error::Environment { why, .. }) if !cfg!(feature = "mujoco") => {
                    assert!(why.contains("feature mujoco"), "{why}");
                }
                other => drop(other?),
            }
        }
        assert!(tuned("cartpole-pp").is_err());
        Ok(())
    }
}
