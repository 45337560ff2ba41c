//! A policy and an estimate of values: two networks over one row of weights.
//!
//! Invariant: the row is the policy's weights, then the logarithms of the deviations if actions are numbers, then the value's
//! weights; collectors read it where it lies. Acting uses no candle: two passes and a draw. Left out: learning.

use super::distribution::{best, draw_categorical, draw_gaussian};
use super::error::{Error, Result};
use super::mlp::{Activation, Tape};
use super::network::{Net, Network};
use super::rng::Rng;
use super::space::{Actions, Space};

/// The shape of both networks.
#[derive(Clone, Debug)]
pub struct Policy {
    /// From observations to logits or means.
    pub actor: Network,
    /// From observations to a value.
    pub critic: Network,
    /// What can be done.
    pub actions: Space,
}

/// What acting computes; allocated once.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    actor: Tape,
    critic: Tape,
}

impl Policy {
    /// For an environment's observations and actions.
    pub fn new(
        observations: &Space,
        actions: &Space,
        hidden: &[usize],
        activation: Activation,
    ) -> Policy {
        let inputs = observations.len();
        Policy {
            actor: Network::mlp(inputs, hidden, outputs(actions), activation),
            critic: Network::mlp(inputs, hidden, 1, activation),
            actions: actions.clone(),
        }
    }

    /// With networks of this kind, each of which sees what environment `env` shows with filters of its own.
    ///
    /// # Errors
    /// Those of [`Network::new`].
    pub fn of(
        net: Net,
        env: &str,
        [observations, actions]: [&Space; 2],
        hidden: &[usize],
        activation: Activation,
    ) -> Result<Policy> {
        let network = |n| Network::new(net, env, observations, hidden, n, activation);
        Ok(Policy {
            actor: network(outputs(actions))?,
            critic: network(1)?,
            actions: actions.clone(),
        })
    }

    /// How many deviations there are.
    pub fn deviations(&self) -> usize {
        match &self.actions {
            Space::Discrete(_) => 0,
            Space::Box { low, .. } => low.len(),
        }
    }

    /// The length of the whole row of weights.
    pub fn weights(&self) -> usize {
        self.actor.weights() + self.deviations() + self.critic.weights()
    }

    /// First weights.
    pub fn init(&self, rng: &mut Rng, log_std: f32) -> Vec<f32> {
        let gain = 2f32.sqrt();
        let mut weights = self.actor.orthogonal(rng, gain, 0.01);
        weights.extend(std::iter::repeat_n(log_std, self.deviations()));
        weights.extend(self.critic.orthogonal(rng, gain, 1.0));
        weights
    }

    /// The parts of a row: policy, deviations, value.
    pub fn split<'w>(&self, weights: &'w [f32]) -> Result<[&'w [f32]; 3]> {
        if weights.len() != self.weights() {
            return Err(Error::Usage(format!(
                "the weights are {} numbers, but these networks have {}",
                weights.len(),
                self.weights()
            )));
        }
        let (actor, rest) = weights.split_at(self.actor.weights());
        let (log_std, critic) = rest.split_at(self.deviations());
        Ok([actor, log_std, critic])
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "each is written or read by itself"
    )]
    /// Draws an action for each row of observations. Gives the logarithms of their densities and the values.
    pub fn draw(
        &self,
        [actor, log_std, critic]: [&[f32]; 3],
        observations: &[f32],
        rng: &mut Rng,
        scratch: &mut Scratch,
        actions: &mut Actions,
        log_probs: &mut Vec<f32>,
        values: &mut Vec<f32>,
    ) {
        self.actor.forward(actor, observations, &mut scratch.actor);
        self.critic
            .forward(critic, observations, &mut scratch.critic);
        values.extend_from_slice(scratch.critic.output());
        let rows = scratch.actor.output().chunks_exact(self.actor.outputs());
        match actions {
            Actions::Discrete(choices) => {
                for (row, to) in rows.zip(choices) {
                    let (choice, log) = draw_categorical(row, rng);
                    *to = choice as u32;
                    log_probs.push(log);
                }
            }
            Actions::Continuous { numbers, width } => {
                for (row, to) in rows.zip(numbers.chunks_exact_mut(*width)) {
                    log_probs.push(draw_gaussian(row, log_std, rng, to));
                }
            }
        }
    }

    /// The likeliest action for each row of observations.
    pub fn best(
        &self,
        actor: &[f32],
        observations: &[f32],
        scratch: &mut Scratch,
        actions: &mut Actions,
    ) {
        self.actor.forward(actor, observations, &mut scratch.actor);
        likeliest(scratch.actor.output(), self.actor.outputs(), actions);
    }

    /// The values of rows of observations.
    pub fn values(&self, critic: &[f32], observations: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        self.critic
            .forward(critic, observations, &mut scratch.critic);
        scratch.critic.output().to_vec()
    }
}

/// Logits or means for these actions.
fn outputs(actions: &Space) -> usize {
    match actions {
        Space::Discrete(n) => *n,
        Space::Box { low, .. } => low.len(),
    }
}

/// The likeliest action for each row of `width` logits or means.
pub(super) fn likeliest(out: &[f32], width: usize, actions: &mut Actions) {
    match actions {
        Actions::Discrete(choices) => {
            for (row, to) in out.chunks_exact(width).zip(choices) {
                *to = best(row) as u32;
            }
        }
        Actions::Continuous { numbers, .. } => numbers.copy_from_slice(out),
    }
}
