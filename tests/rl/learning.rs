//! Each algorithm learns the easiest problem there is, in a second of a build without optimisation. Whether they
//! solve more is asked of release builds, in .ci/run.

use super::TURN;
use mobula::rl::{Error, agent};
use std::sync::PoisonError;

/// Trains until ten greedy episodes of ten choices each are nearly all right; fails after `iterations`.
fn learns(algorithm: &str, settings: &str, iterations: usize) -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    for seed in [1, 2] {
        let mut agent = agent(algorithm, "Identity-v0", settings, seed)?;
        let first = agent.evaluate(10, 3)?.mean();
        let learned = (0..iterations).find_map(|i| match agent.train() {
            Ok(_) => (agent.evaluate(10, 3).ok()?.mean() >= 9.5).then_some(i),
            Err(error) => panic!("{error}"),
        });
        assert!(
            learned.is_some() && first < 9.5,
            "{algorithm} with seed {seed}: from {first} to {} after {iterations} iterations",
            agent.evaluate(10, 3)?.mean()
        );
    }
    Ok(())
}

#[test]
fn ppo_learns() -> Result<(), Error> {
    let settings = r#"{"gamma": 0.0, "hidden": [8], "epochs": 4, "minibatch_size": 64, "learning_rate": 0.02}"#;
    learns("PPO", settings, 30)
}

#[test]
fn dqn_learns_with_and_without_its_extensions() -> Result<(), Error> {
    let settings = r#"{"gamma": 0.0, "hidden": [8], "updates": 16, "batch_size": 32, "learning_starts": 100,
        "epsilon_steps": 1000, "learning_rate": 0.01"#;
    learns("DQN", &format!("{settings}}}"), 30)?;
    let plain = r#""double": false, "dueling": false, "prioritized": false, "n_step": 1"#;
    learns("DQN", &format!("{settings}, {plain}}}"), 30)
}

#[test]
fn a3c_learns() -> Result<(), Error> {
    let settings = r#"{"gamma": 0.0, "hidden": [8], "learning_rate": 0.02}"#;
    learns("A3C", settings, 30)
}

#[test]
fn es_learns() -> Result<(), Error> {
    learns("ES", r#"{"episodes": 4, "sigma": 0.5}"#, 60)
}
