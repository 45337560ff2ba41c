//! Observations and rewards brought to a common size, by means and deviations of what was seen so far; each as Gymnasium's
//! wrapper of the same name.
//!
//! Invariant: what was seen counts as soon as it is seen; it is saved with the environment. What was learned belongs to one
//! environment: to judge a policy, carry it over with `save` and `load`, and freeze it. Left out: sharing between
//! environments.

use super::{Env, Step, Words};
use crate::rl::error::Error;
use crate::rl::space::{Action, Space};

/// Mean and variance of numbers that come one by one (Chan, Golub and LeVeque, 1979).
#[derive(Clone, Debug, PartialEq)]
pub struct RunningMean {
    mean: f64,
    variance: f64,
    count: f64,
}

/// What counts before anything was seen.
const FIRST: f64 = 1e-4;
/// Added to a variance before it divides.
const EPSILON: f64 = 1e-8;

impl RunningMean {
    /// Mean 0 and variance 1, which count next to nothing.
    ///
    /// ```
    /// let mut mean = mobula::rl::RunningMean::new();
    /// [1.0, 3.0].into_iter().for_each(|x| mean.add(x));
    /// assert!((mean.mean() - 2.0).abs() < 1e-3 && (mean.variance() - 1.0).abs() < 1e-3);
    /// ```
    pub fn new() -> RunningMean {
        RunningMean {
            mean: 0.0,
            variance: 1.0,
            count: FIRST,
        }
    }

    /// Counts one more number.
    pub fn add(&mut self, x: f64) {
        let (difference, total) = (x - self.mean, self.count + 1.0);
        let squares = self.variance * self.count + difference * difference * self.count / total;
        self.mean += difference / total;
        self.variance = squares / total;
        self.count = total;
    }

    /// The mean.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The variance.
    pub fn variance(&self) -> f64 {
        self.variance
    }

    fn deviation(&self) -> f64 {
        (self.variance + EPSILON).sqrt()
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.mean, self.variance, self.count].map(f64::to_bits));
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.mean = words.number();
        self.variance = words.number();
        self.count = words.number();
    }
}

impl Default for RunningMean {
    fn default() -> RunningMean {
        RunningMean::new()
    }
}

/// Shifts and scales each number of the observations to mean 0 and deviation 1.
pub struct NormalizeObservation<E> {
    env: E,
    seen: Vec<RunningMean>,
    frozen: bool,
}

impl<E: Env> NormalizeObservation<E> {
    /// Begins with nothing seen.
    pub fn new(env: E) -> NormalizeObservation<E> {
        let width = env.observation_space().len();
        NormalizeObservation {
            env,
            seen: vec![RunningMean::new(); width],
            frozen: false,
        }
    }

    /// Whether what is seen from now on is not counted.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    fn normalize(&mut self, observation: &mut [f32]) {
        for (x, seen) in observation.iter_mut().zip(&mut self.seen) {
            if !self.frozen {
                seen.add(f64::from(*x));
            }
            *x = ((f64::from(*x) - seen.mean) / seen.deviation()) as f32;
        }
    }
}

impl<E: Env> Env for NormalizeObservation<E> {
    fn observation_space(&self) -> Space {
        let (inf, shape) = (f32::INFINITY, self.env.observation_space());
        match shape {
            Space::Box { shape, .. } => Space::uniform(-inf, inf, &shape),
            Space::Discrete(_) => Space::uniform(-inf, inf, &[1]),
        }
    }

    fn action_space(&self) -> Space {
        self.env.action_space()
    }

    fn failure(&self) -> Option<Error> {
        self.env.failure()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        self.env.reset(seed, observation);
        self.normalize(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let step = self.env.step(action, observation);
        self.normalize(observation);
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.env.save(words);
        for seen in &self.seen {
            seen.save(words);
        }
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.env.load(words);
        for seen in &mut self.seen {
            seen.load(words);
        }
    }
}

/// Scales rewards so that their discounted sum has about deviation 1.
pub struct NormalizeReward<E> {
    env: E,
    gamma: f64,
    sum: f64,
    sums: RunningMean,
    frozen: bool,
}

impl<E: Env> NormalizeReward<E> {
    /// Begins with nothing seen.
    pub fn new(env: E, gamma: f64) -> NormalizeReward<E> {
        NormalizeReward {
            env,
            gamma,
            sum: 0.0,
            sums: RunningMean::new(),
            frozen: false,
        }
    }

    /// Whether what is seen from now on is not counted.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }
}

impl<E: Env> Env for NormalizeReward<E> {
    fn observation_space(&self) -> Space {
        self.env.observation_space()
    }

    fn action_space(&self) -> Space {
        self.env.action_space()
    }

    fn failure(&self) -> Option<Error> {
        self.env.failure()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        self.env.reset(seed, observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let mut step = self.env.step(action, observation);
        let reward = f64::from(step.reward);
        // As Gymnasium has it: the last reward of an episode counts alone, and a truncated sum goes on.
        let before = if step.terminated { 0.0 } else { self.sum };
        self.sum = before * self.gamma + reward;
        if !self.frozen {
            self.sums.add(self.sum);
        }
        step.reward = (reward / self.sums.deviation()) as f32;
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.env.save(words);
        words.push(self.sum.to_bits());
        self.sums.save(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.env.load(words);
        self.sum = words.number();
        self.sums.load(words);
    }
}
