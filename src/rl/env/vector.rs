//! Many environments that step together, and begin their next episode by themselves.
//!
//! Invariant: where an episode ends, `observations` already has the first of the next one, and `last` has what the ended
//! one came to: a truncated episode's value is taken from there. Left out: statistics of episodes.

use super::{Env, Words};
use crate::rl::error::Error;
use crate::rl::rng::Rng;
use crate::rl::space::{Actions, Space};

/// What one step of all environments gave; allocated once and written again and again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    /// The observations to act on next: one row for each environment.
    pub observations: Vec<f32>,
    /// The rewards.
    pub rewards: Vec<f32>,
    /// Whose episode ended by the environment's rules.
    pub terminated: Vec<bool>,
    /// Whose episode was cut off.
    pub truncated: Vec<bool>,
    /// Rows of those whose episode is over: its last observation. Other rows mean nothing.
    pub last: Vec<f32>,
}

impl Steps {
    /// Room for `n` environments with observations of `width` numbers.
    pub fn new(n: usize, width: usize) -> Steps {
        Steps {
            observations: vec![0.0; n * width],
            rewards: vec![0.0; n],
            terminated: vec![false; n],
            truncated: vec![false; n],
            last: vec![0.0; n * width],
        }
    }

    /// Whether the episode of environment `i` is over.
    pub fn over(&self, i: usize) -> bool {
        self.terminated[i] || self.truncated[i]
    }
}

/// Several environments of one kind.
pub trait VecEnv: Send {
    /// How many.
    fn count(&self) -> usize;

    /// The set of one environment's observations.
    fn observation_space(&self) -> Space;

    /// The set of one environment's actions.
    fn action_space(&self) -> Space;

    /// Begins an episode in each; each has its own random numbers, which follow from the seed.
    fn reset(&mut self, seed: u64, observations: &mut [f32]);

    /// Takes one action in each. `out` has room for all.
    fn step(&mut self, actions: &Actions, out: &mut Steps);

    /// Appends all that the environments know.
    fn save(&self, words: &mut Vec<u64>);

    /// Takes back what `save` wrote.
    fn load(&mut self, words: &mut Words<'_>);

    /// Why they play no more, if they do not: see [`Env::failure`].
    fn failure(&self) -> Option<Error> {
        None
    }
}

/// Environments that are stepped one after the other.
pub struct Each<E> {
    envs: Vec<E>,
}

impl<E: Env> Each<E> {
    /// These environments, which are at least one and of one kind.
    pub fn new(envs: Vec<E>) -> Each<E> {
        assert!(
            !envs.is_empty(),
            "a vector of environments has at least one"
        );
        Each { envs }
    }
}

/// The seed of environment `i` among those that `seed` stands for.
pub(super) fn seed_of(seed: u64, i: usize) -> u64 {
    Rng::stream(seed, i as u64).bits()
}

impl<E: Env> VecEnv for Each<E> {
    fn count(&self) -> usize {
        self.envs.len()
    }

    fn observation_space(&self) -> Space {
        self.envs[0].observation_space()
    }

    fn action_space(&self) -> Space {
        self.envs[0].action_space()
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let width = observations.len() / self.envs.len();
        for (i, (env, row)) in self
            .envs
            .iter_mut()
            .zip(observations.chunks_exact_mut(width))
            .enumerate()
        {
            env.reset(Some(seed_of(seed, i)), row);
        }
    }

    fn step(&mut self, actions: &Actions, out: &mut Steps) {
        let width = out.observations.len() / self.envs.len();
        for (i, env) in self.envs.iter_mut().enumerate() {
            let row = &mut out.observations[i * width..(i + 1) * width];
            let step = env.step(actions.row(i), row);
            out.rewards[i] = step.reward;
            out.terminated[i] = step.terminated;
            out.truncated[i] = step.truncated;
            if step.over() {
                out.last[i * width..(i + 1) * width].copy_from_slice(row);
                env.reset(None, row);
            }
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        for env in &self.envs {
            env.save(words);
        }
    }

    fn load(&mut self, words: &mut Words<'_>) {
        for env in &mut self.envs {
            env.load(words);
        }
    }

    fn failure(&self) -> Option<Error> {
        self.envs.iter().find_map(Env::failure)
    }
}
