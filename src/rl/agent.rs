//! What all algorithms have in common to those who run them.
//!
//! Invariant: one call of [`Agent::train`] is one iteration, which ends with everything in place to be saved. Left
//! out: what is inside an iteration, which is each algorithm's own.

use super::checkpoint::Checkpoint;
use super::config;
use super::error::{Error, Result, nearest};
use super::evaluate::{Evaluation, mean};
use super::space::Actions;
use super::{a3c, dqn, es, ppo};
use serde::Serialize;
use std::path::Path;

/// Something that learns to act in an environment.
pub trait Agent {
    /// The algorithm's name.
    fn algorithm(&self) -> &'static str;

    /// The environment's name.
    fn env(&self) -> &str;

    /// All settings, as JSON.
    fn config(&self) -> String;

    /// One iteration. Blocks until it is over.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when learning went astray: the weights are as they were before the iteration. [`Error::Node`] when the node beneath failed.
    fn train(&mut self) -> Result<Progress>;

    /// The best actions for rows of observations, as learned so far. An agent that remembers (A3C with `lstm`) takes each row for
    /// the next step of the episode that was in this row before; with another number of rows all episodes begin.
    fn act(&mut self, observations: &[f32]) -> Result<Actions>;

    /// Says that the next observation in this row begins an episode. Only agents that remember need to be told.
    fn forget(&mut self, row: usize) {
        let _ = row;
    }

    /// Plays whole episodes, always with the best action.
    fn evaluate(&self, episodes: usize, seed: u64) -> Result<Evaluation>;

    /// All that is needed to go on from here.
    fn checkpoint(&self) -> Result<Checkpoint>;

    /// Writes a checkpoint; a file of this name is replaced whole or not at all.
    fn save(&self, path: &Path) -> Result<()> {
        self.checkpoint()?.write(path)
    }
}

/// How far training has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Iterations so far.
    pub training_iteration: u64,
    /// Environment steps so far.
    pub steps: u64,
    /// Episodes so far.
    pub episodes: u64,
    /// The mean return of the last 100 episodes, as played in training; none before the first ended.
    pub episode_return_mean: Option<f32>,
    /// Their mean length.
    pub episode_length_mean: Option<f32>,
    /// What the algorithm says of itself.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<(&'static str, f32)>,
}

fn as_map<S: serde::Serializer>(
    metrics: &[(&'static str, f32)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().copied())
}

/// The last 100 episodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    episodes: u64,
    returns: Vec<f32>,
    lengths: Vec<f32>,
}

const KEPT: usize = 100;

impl Recent {
    pub fn extend(&mut self, episodes: impl IntoIterator<Item = (f32, u32)>) {
        for (reward, length) in episodes {
            self.episodes += 1;
            self.returns.push(reward);
            self.lengths.push(length as f32);
        }
        let old = self.returns.len().saturating_sub(KEPT);
        self.returns.drain(..old);
        self.lengths.drain(..old);
    }

    /// All of it in a row; the count of episodes goes in two halves, each exact.
    pub fn numbers(&self) -> Vec<f32> {
        let mut numbers = vec![
            (self.episodes >> 20) as f32,
            (self.episodes & 0xf_ffff) as f32,
        ];
        numbers.extend(&self.returns);
        numbers.extend(&self.lengths);
        numbers
    }

    pub fn from_numbers(numbers: &[f32]) -> Recent {
        let (counts, rest) = numbers.split_at(numbers.len().min(2));
        let (returns, lengths) = rest.split_at(rest.len() / 2);
        Recent {
            episodes: counts.iter().fold(0, |all, x| (all << 20) + *x as u64),
            returns: returns.to_vec(),
            lengths: lengths.to_vec(),
        }
    }

    pub fn progress(
        &self,
        iteration: u64,
        steps: u64,
        metrics: Vec<(&'static str, f32)>,
    ) -> Progress {
        let some = |numbers: &[f32]| (!numbers.is_empty()).then(|| mean(numbers));
        Progress {
            training_iteration: iteration,
            steps,
            episodes: self.episodes,
            episode_return_mean: some(&self.returns),
            episode_length_mean: some(&self.lengths),
            metrics,
        }
    }
}

/// The names of all algorithms.
pub const ALGORITHMS: &[&str] = &["PPO", "DQN", "A3C", "ES"];

fn unknown(name: &str) -> Error {
    Error::UnknownAlgorithm {
        name: name.to_owned(),
        nearest: nearest(name, ALGORITHMS.iter().copied()),
        known: ALGORITHMS.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// An agent by the name of its algorithm. `settings` are JSON: those that differ from the defaults.
///
/// # Errors
/// [`Error::UnknownAlgorithm`], [`Error::UnknownEnv`], [`Error::UnknownKey`], each with the nearest name;
/// [`Error::BadValue`].
pub fn agent(algorithm: &str, env: &str, settings: &str, seed: u64) -> Result<Box<dyn Agent>> {
    match algorithm {
        "PPO" => {
            let config = config::parse("PPO", ppo::Config::default(), settings)?;
            Ok(Box::new(ppo::Ppo::new(env, config, seed)?))
        }
        "DQN" => {
            let config = config::parse("DQN", dqn::Config::default(), settings)?;
            Ok(Box::new(dqn::Dqn::new(env, config, seed)?))
        }
        "A3C" => {
            let config = config::parse("A3C", a3c::Config::default(), settings)?;
            Ok(Box::new(a3c::A3c::new(env, config, seed)?))
        }
        "ES" => {
            let config = config::parse("ES", es::Config::default(), settings)?;
            Ok(Box::new(es::Es::new(env, config, seed)?))
        }
        _ => Err(unknown(algorithm)),
    }
}

/// An agent that goes on from a file that [`Agent::save`] wrote.
///
/// # Errors
/// [`Error::File`] for a file that is not one.
pub fn restore(path: &Path) -> Result<Box<dyn Agent>> {
    let checkpoint = Checkpoint::read(path)?;
    match checkpoint.algorithm.as_str() {
        "PPO" => Ok(Box::new(ppo::Ppo::restore(&checkpoint)?)),
        "DQN" => Ok(Box::new(dqn::Dqn::restore(&checkpoint)?)),
        "A3C" => Ok(Box::new(a3c::A3c::restore(&checkpoint)?)),
        "ES" => Ok(Box::new(es::Es::restore(&checkpoint)?)),
        other => Err(unknown(other)),
    }
}
