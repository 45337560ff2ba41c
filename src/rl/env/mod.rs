//! Environments in Gymnasium's terms: spaces, `reset(seed)`, and steps that say apart whether an episode ended by
//! its own rules (`terminated`) or because time ran out (`truncated`).
//!
//! Invariant: an environment owns its random numbers and can write down all it knows as words, so that a run can
//! be continued bit by bit. [`Env`] is one environment, [`VecEnv`] many that step together. Left out: rendering.

mod batch;
mod bodies;
mod catch;
mod classic;
mod episode;
mod gym;
#[cfg(feature = "gym-rs")]
mod gym_rs;
mod identity;
#[cfg(feature = "mujoco")]
mod mujoco;
mod normalize;
mod physics;
mod recall;
mod registry;
mod trig;
mod vector;
mod wrap;

pub use catch::{Catch, CatchOn, CatchPixels};
pub use classic::Classic;
#[cfg(feature = "gym-rs")]
pub use gym_rs::GymRs;
pub use identity::Identity;
pub use normalize::{NormalizeObservation, NormalizeReward, RunningMean};
pub use recall::Recall;
pub use registry::{add_env, env_names, make, make_vec};
pub use vector::{Each, Steps, VecEnv};
pub use wrap::{ClipReward, FrameStack, TimeLimit};

pub use physics::{Acrobot, CartPole, Dynamics, MountainCar, MountainCarContinuous, Pendulum};

pub(crate) use batch::Batch;

use super::error::Error;
use super::space::{Action, Space};

/// What one step gave, beside the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// The reward.
    pub reward: f32,
    /// The episode ended by the environment's own rules: nothing comes after it.
    pub terminated: bool,
    /// The episode was cut off: what would have come after it still has a value.
    pub truncated: bool,
}

impl Step {
    /// Whether the episode is over, either way.
    pub fn over(self) -> bool {
        self.terminated || self.truncated
    }
}

/// One environment.
///
/// ```
/// use mobula::rl::{Action, Env, make};
/// let mut env = make("CartPole-v1")?;
/// let mut observation = vec![0.0; env.observation_space().len()];
/// env.reset(Some(7), &mut observation);
/// let step = env.step(Action::Discrete(1), &mut observation);
/// assert_eq!(step.reward, 1.0);
/// # Ok::<(), mobula::rl::Error>(())
/// ```
pub trait Env: Send {
    /// The set of observations.
    fn observation_space(&self) -> Space;

    /// The set of actions.
    fn action_space(&self) -> Space;

    /// Begins an episode and writes its first observation. With a seed, everything that follows is determined by
    /// it; without, the random numbers go on. `observation` is as long as the space says.
    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]);

    /// Takes an action and writes what is observed after it. Numbers outside of their bounds are clipped to them, choices that are too high are the highest.
    /// After the end of an episode, `reset` comes first.
    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step;

    /// Appends all that the environment knows.
    fn save(&self, words: &mut Vec<u64>);

    /// Takes back what `save` wrote.
    fn load(&mut self, words: &mut Words<'_>);

    /// Why it plays no more, if it does not: its steps since mean nothing. Our own always play.
    fn failure(&self) -> Option<Error> {
        None
    }
}

impl Env for Box<dyn Env> {
    fn observation_space(&self) -> Space {
        (**self).observation_space()
    }

    fn action_space(&self) -> Space {
        (**self).action_space()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        (**self).reset(seed, observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        (**self).step(action, observation)
    }

    fn save(&self, words: &mut Vec<u64>) {
        (**self).save(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        (**self).load(words);
    }

    fn failure(&self) -> Option<Error> {
        (**self).failure()
    }
}

/// Saved words, read one after the other. Where they end too early, zeros follow and [`Words::complete`] says so.
pub struct Words<'a> {
    rest: &'a [u64],
    missing: bool,
}

impl<'a> Words<'a> {
    /// Reads `words` from their beginning.
    pub fn new(words: &'a [u64]) -> Words<'a> {
        Words {
            rest: words,
            missing: false,
        }
    }

    /// Whether all were read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => {
                self.missing = true;
                0
            }
        }
    }

    /// The next `n` words.
    pub(super) fn take(&mut self, n: u64) -> &'a [u64] {
        let most = self.rest.len();
        let n = usize::try_from(n).unwrap_or(most + 1);
        self.missing |= n > most;
        let (taken, rest) = self.rest.split_at(n.min(most));
        self.rest = rest;
        taken
    }

    /// The next word, as the number it was saved as.
    pub fn number(&mut self) -> f64 {
        f64::from_bits(self.word())
    }

    /// The next four words, as a generator.
    pub fn rng(&mut self) -> super::rng::Rng {
        super::rng::Rng::from_words(std::array::from_fn(|_| self.word()))
    }

    /// Whether there were just as many words as were asked for.
    pub fn complete(&self) -> bool {
        self.rest.is_empty() && !self.missing
    }
}
