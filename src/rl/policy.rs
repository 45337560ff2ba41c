//! A policy and an estimate of values: two networks over one row of weights.
//!
//! Invariant: the row is the policy's weights, then the logarithms of the deviations if actions are numbers, then the value's
//! weights; collectors read it where it lies. Acting uses no candle: two passes and a draw. What recurrent networks remember
//! of episodes goes on by each action, and not by a look at a value. Left out: learning.

use super::distribution::{best, draw_categorical, draw_gaussian};
use super::error::{Error, Result};
use super::layer::Activation;
use super::lstm::LstmState;
use super::mlp::Tape;
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

/// What acting computes, allocated once; and what a policy with long short-term memory remembers of episodes under way.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    actor: Tape,
    critic: Tape,
    /// The actor's, then the critic's: a row for each row of observations.
    memory: [LstmState; 2],
}

impl Scratch {
    /// An episode begins in this row of observations: what is remembered there is from another one.
    pub fn forget(&mut self, row: usize) {
        for memory in &mut self.memory {
            memory.forget(row);
        }
    }
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

    /// The same policy with a layer of `units` of long short-term memory in front of each network's hidden layers.
    pub fn with_lstm(mut self, units: usize) -> Policy {
        self.actor = self.actor.with_lstm(units);
        self.critic = self.critic.with_lstm(units);
        self
    }

    /// Whether the networks remember.
    pub fn recurrent(&self) -> bool {
        self.actor.units() > 0
    }

    /// What is remembered of `rows` episodes under way: the actor's, then the critic's. If other rows came last, all begin.
    pub(super) fn memory<'s>(
        &self,
        rows: usize,
        scratch: &'s mut Scratch,
    ) -> &'s mut [LstmState; 2] {
        let [actor, critic] = &mut scratch.memory;
        actor.fit(self.actor.units(), rows);
        critic.fit(self.critic.units(), rows);
        &mut scratch.memory
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
    /// Draws an action for each row of observations. Gives the logarithms of their densities and the values. Rows of a policy that
    /// remembers are the next steps of the same episodes as before, unless `scratch` was told to forget one.
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
        let rows = observations.len() / self.actor.inputs();
        self.memory(rows, scratch);
        let [recalled, valued] = &mut scratch.memory;
        self.actor
            .advance(actor, observations, &[], recalled, &mut scratch.actor);
        self.critic
            .advance(critic, observations, &[], valued, &mut scratch.critic);
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

    /// The likeliest action for each row of observations; of a policy that remembers as in [`draw`](Policy::draw).
    pub fn best(
        &self,
        actor: &[f32],
        observations: &[f32],
        scratch: &mut Scratch,
        actions: &mut Actions,
    ) {
        let rows = observations.len() / self.actor.inputs();
        let [memory, _] = &mut scratch.memory;
        memory.fit(self.actor.units(), rows);
        self.actor
            .advance(actor, observations, &[], memory, &mut scratch.actor);
        likeliest(scratch.actor.output(), self.actor.outputs(), actions);
    }

    /// The values of rows of observations, which would come next in row `first` of those that actions were drawn for and in those
    /// behind it. What is remembered stays as it is.
    pub fn values(
        &self,
        critic: &[f32],
        observations: &[f32],
        first: usize,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let rows = observations.len() / self.critic.inputs();
        let mut memory = scratch.memory[1].rows(first, rows);
        memory.fit(self.critic.units(), rows);
        self.critic
            .advance(critic, observations, &[], &mut memory, &mut scratch.critic);
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
