//! One classic control problem: its laws, random numbers and a time limit.
//!
//! Invariant: same seed and actions, same episodes, bit for bit those of row 0 of a `Batch`. Left out: the laws
//! themselves, which are `physics.rs`.

use super::physics::Dynamics;
use super::{Env, Step, Words};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};

/// One problem with `S` numbers of state and `O` of observation.
pub struct Classic<D, const S: usize, const O: usize> {
    laws: std::marker::PhantomData<D>,
    state: [f64; S],
    steps: u32,
    limit: u32,
    rng: Rng,
}

impl<D: Dynamics<S, O>, const S: usize, const O: usize> Classic<D, S, O> {
    /// An environment whose episodes are cut off after `limit` steps.
    pub fn new(limit: u32) -> Self {
        Classic {
            laws: std::marker::PhantomData,
            state: [0.0; S],
            steps: 0,
            limit,
            rng: Rng::new(0),
        }
    }
}

/// What an action is to the laws: the number of a choice, or the first number.
#[inline]
pub(super) fn number(action: Action<'_>, highest: f64) -> f64 {
    match action {
        Action::Discrete(choice) => (choice as f64).min(highest),
        Action::Continuous(numbers) => numbers.first().map_or(0.0, |x| f64::from(*x)),
    }
}

/// The highest choice there is.
pub(super) fn highest(space: &Space) -> f64 {
    match space {
        Space::Discrete(n) => (*n - 1) as f64,
        Space::Box { .. } => 0.0,
    }
}

impl<D: Dynamics<S, O>, const S: usize, const O: usize> Env for Classic<D, S, O> {
    fn observation_space(&self) -> Space {
        D::observation_space()
    }

    fn action_space(&self) -> Space {
        D::action_space()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.state = D::initial(&mut self.rng);
        self.steps = 0;
        observation.copy_from_slice(&D::observe(&self.state));
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let action = number(action, highest(&D::action_space()));
        let (state, reward, terminated) = D::advance(self.state, action);
        self.state = state;
        self.steps += 1;
        observation.copy_from_slice(&D::observe(&state));
        Step {
            reward: reward as f32,
            terminated,
            truncated: self.steps >= self.limit,
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend(self.state.map(f64::to_bits));
        words.push(self.steps.into());
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.state = std::array::from_fn(|_| words.number());
        self.steps = words.word() as u32;
        self.rng = words.rng();
    }
}
