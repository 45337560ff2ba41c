//! Environments around an environment: a time limit, clipped rewards, stacked observations; each as Gymnasium's of the same
//! name.
//!
//! Invariant: a wrapper adds what it knows behind what the environment within knows, so that all of it can be saved. Left
//! out: wrappers that learn, which are `normalize.rs`.

use super::{Env, Step, Words};
use crate::rl::error::Error;
use crate::rl::space::{Action, Space};

/// Cuts episodes off after some steps.
pub struct TimeLimit<E> {
    env: E,
    limit: u64,
    steps: u64,
}

impl<E: Env> TimeLimit<E> {
    /// Episodes of at most `limit` steps.
    pub fn new(env: E, limit: u64) -> TimeLimit<E> {
        TimeLimit {
            env,
            limit,
            steps: 0,
        }
    }
}

impl<E: Env> Env for TimeLimit<E> {
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
        self.steps = 0;
        self.env.reset(seed, observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let mut step = self.env.step(action, observation);
        self.steps += 1;
        step.truncated |= self.steps >= self.limit;
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.env.save(words);
        words.push(self.steps);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.env.load(words);
        self.steps = words.word();
    }
}

/// Keeps rewards between two bounds.
pub struct ClipReward<E> {
    env: E,
    low: f32,
    high: f32,
}

impl<E: Env> ClipReward<E> {
    /// Rewards of at least `low` and at most `high`.
    pub fn new(env: E, low: f32, high: f32) -> ClipReward<E> {
        ClipReward { env, low, high }
    }
}

impl<E: Env> Env for ClipReward<E> {
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
        step.reward = step.reward.max(self.low).min(self.high);
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.env.save(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.env.load(words);
    }
}

/// Shows the last observations together, the oldest first. At the beginning of an episode its first one stands for those
/// that were not yet.
pub struct FrameStack<E> {
    env: E,
    /// All of them, the newest last.
    seen: Vec<f32>,
    width: usize,
    frames: usize,
}

impl<E: Env> FrameStack<E> {
    /// The last `frames` observations, at least one.
    pub fn new(env: E, frames: usize) -> FrameStack<E> {
        let (width, frames) = (env.observation_space().len(), frames.max(1));
        FrameStack {
            env,
            seen: vec![0.0; width * frames],
            width,
            frames,
        }
    }
}

impl<E: Env> Env for FrameStack<E> {
    fn observation_space(&self) -> Space {
        match self.env.observation_space() {
            Space::Box { low, high, shape } => Space::Box {
                low: low.repeat(self.frames),
                high: high.repeat(self.frames),
                shape: [&[self.frames], shape.as_slice()].concat(),
            },
            Space::Discrete(n) => Space::uniform(0.0, (n - 1) as f32, &[self.frames]),
        }
    }

    fn action_space(&self) -> Space {
        self.env.action_space()
    }

    fn failure(&self) -> Option<Error> {
        self.env.failure()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        self.env.reset(seed, &mut observation[..self.width]);
        for frame in self.seen.chunks_exact_mut(self.width) {
            frame.copy_from_slice(&observation[..self.width]);
        }
        observation.copy_from_slice(&self.seen);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        self.seen.copy_within(self.width.., 0);
        let newest = (self.frames - 1) * self.width;
        let step = self.env.step(action, &mut self.seen[newest..]);
        observation.copy_from_slice(&self.seen);
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.env.save(words);
        words.extend(self.seen.iter().map(|x| u64::from(x.to_bits())));
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.env.load(words);
        for x in &mut self.seen {
            *x = f32::from_bits(words.word() as u32);
        }
    }
}
