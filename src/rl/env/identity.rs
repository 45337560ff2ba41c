//! The easiest problem there is: do what is shown. It tells a learner that is broken from one that is slow.
//!
//! Invariant: one of four lights is on; the choice of its number is worth 1, any other 0, whatever came before. Ten choices are
//! an episode, so the best return is 10, and drawn at random it is 2.5. Left out: everything that makes problems hard.

use super::{Env, Step, Words};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};

/// Lights, and choices.
const LIGHTS: usize = 4;
/// Choices of one episode.
const LENGTH: u64 = 10;

/// The problem.
pub struct Identity {
    on: usize,
    steps: u64,
    rng: Rng,
}

impl Identity {
    /// One that has not begun.
    pub fn new() -> Identity {
        Identity {
            on: 0,
            steps: 0,
            rng: Rng::new(0),
        }
    }

    fn show(&mut self, observation: &mut [f32]) {
        self.on = self.rng.below(LIGHTS);
        observation.fill(0.0);
        observation[self.on] = 1.0;
    }
}

impl Default for Identity {
    fn default() -> Identity {
        Identity::new()
    }
}

impl Env for Identity {
    fn observation_space(&self) -> Space {
        Space::uniform(0.0, 1.0, &[LIGHTS])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(LIGHTS)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.steps = 0;
        self.show(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let right = action.choice() == self.on;
        self.steps += 1;
        self.show(observation);
        Step {
            reward: if right { 1.0 } else { 0.0 },
            terminated: self.steps == LENGTH,
            truncated: false,
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.on as u64, self.steps]);
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.on = words.word() as usize;
        self.steps = words.word();
        self.rng = words.rng();
    }
}
