//! How good a greedy policy is: returns of whole episodes, each from its own start.
//!
//! Invariant: as many environments as episodes, and of each the first episode alone, so that short episodes are not
//! counted more often than long ones. Left out: drawing actions.

use super::env::{Steps, make_vec};
use super::error::Result;
use super::space::{Actions, Space};

/// Returns of some episodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Each episode's return.
    pub returns: Vec<f32>,
    /// Each episode's number of steps.
    pub lengths: Vec<u32>,
}

impl Evaluation {
    /// The mean return.
    pub fn mean(&self) -> f32 {
        mean(&self.returns)
    }

    /// The standard deviation of the returns.
    pub fn spread(&self) -> f32 {
        let mean = self.mean();
        let squares: Vec<f32> = self
            .returns
            .iter()
            .map(|r| (r - mean) * (r - mean))
            .collect();
        self::mean(&squares).sqrt()
    }
}

/// The mean; NaN of nothing.
pub(super) fn mean(numbers: &[f32]) -> f32 {
    (numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / numbers.len() as f64) as f32
}

/// Plays `episodes` episodes with the actions that `act` writes for rows of observations.
pub fn evaluate(
    env: &str,
    episodes: usize,
    seed: u64,
    mut act: impl FnMut(&[f32], &mut Actions),
) -> Result<Evaluation> {
    let n = episodes.max(1);
    let mut envs = make_vec(env, n)?;
    let space: Space = envs.action_space();
    let mut steps = Steps::new(n, envs.observation_space().len());
    let mut actions = Actions::zeros(&space, n);
    envs.reset(seed, &mut steps.observations);
    let mut result = Evaluation {
        returns: vec![0.0; n],
        lengths: vec![0; n],
    };
    let mut playing = vec![true; n];
    while playing.contains(&true) {
        act(&steps.observations, &mut actions);
        envs.step(&actions, &mut steps);
        for (i, playing) in playing.iter_mut().enumerate().filter(|(_, p)| **p) {
            result.returns[i] += steps.rewards[i];
            result.lengths[i] += 1;
            *playing = !steps.over(i);
        }
        if let Some(failure) = envs.failure() {
            return Err(failure);
        }
    }
    Ok(result)
}
