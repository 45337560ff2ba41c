//! The actors that play: each has its environments and a copy of nothing else. Weights come as a reference to one object
//! that all collectors read where it lies; what goes back is one batch of steps, ready to learn from.
//!
//! Invariant: a collector's steps follow from its seed, its number and the weights it was given. Its whole state can be
//! taken as words, and given back. One that ended is made anew, with environments that begin afresh. Left out: learning.

use super::a3c::{self, Gradient};
use super::crew::Crew;
use super::env::{VecEnv, Words};
use super::error::{Error, Result};
use super::gae::gae;
use super::layer::Activation;
use super::lstm::LstmState;
use super::network::Net;
use super::norm::{Counting, Norms};
use super::player::{Episode, Player};
use super::policy::{Policy, Scratch};
use super::space::Actions;
use crate::api::{ObjectRef, View, put_slice};
use mobula_macros::{remote, value};

/// What a collector is made of.
#[value]
#[derive(Clone, Debug)]
pub struct Setup {
    /// The environment.
    pub env: String,
    /// How many of it.
    pub envs: u64,
    /// Steps of each environment in one batch.
    pub steps: u64,
    /// Hidden units of both networks.
    pub hidden: Vec<u64>,
    /// Whether hidden layers end in `max(x, 0)` rather than in a hyperbolic tangent.
    pub relu: bool,
    /// Whether networks have filters before their hidden layers.
    pub cnn: bool,
    /// Units of long short-term memory before their hidden layers; 0 for none.
    pub lstm: u64,
    /// The discount.
    pub gamma: f32,
    /// The decay of advantages.
    pub lambda: f32,
    /// The run's seed, and which collector this is.
    pub seed: (u64, u64),
}

/// Steps to learn from, step by step: row `t` has the steps `t` of all environments.
#[value]
#[derive(Clone, Debug, Default)]
pub struct Rollout {
    /// What was observed.
    pub observations: Vec<f32>,
    /// What was done: choices as numbers.
    pub actions: Vec<f32>,
    /// The logarithm of the density of each action when it was drawn.
    pub log_probs: Vec<f32>,
    /// The values estimated then.
    pub values: Vec<f32>,
    /// The advantages.
    pub advantages: Vec<f32>,
    /// What both networks remembered before the first step, if they remember: the actor's, then the critic's.
    pub began: Vec<LstmState>,
    /// With that: whether each step was the last of its episode.
    pub over: Vec<bool>,
    /// Episodes that ended on the way.
    pub episodes: Vec<Episode>,
    /// What was seen, if observations or rewards are brought to size.
    pub seen: Norms,
}

impl Setup {
    pub(super) fn policy(&self, envs: &dyn VecEnv) -> Result<Policy> {
        let hidden: Vec<usize> = self.hidden.iter().map(|n| *n as usize).collect();
        let activation = match self.relu {
            true => Activation::Relu,
            false => Activation::Tanh,
        };
        let net = if self.cnn { Net::Cnn } else { Net::Mlp };
        let spaces = [&envs.observation_space(), &envs.action_space()];
        let policy = Policy::of(net, &self.env, spaces, &hidden, activation)?;
        Ok(match self.lstm {
            0 => policy,
            units => policy.with_lstm(units as usize),
        })
    }
}

/// What plays.
pub(super) struct Actor {
    player: Player,
    policy: Policy,
    scratch: Scratch,
    /// Discounted sums of rewards, if these are brought to size.
    sums: Vec<f64>,
}

impl Actor {
    fn new(setup: &Setup) -> Result<Actor> {
        let player = Player::new(&setup.env, setup.envs, setup.seed)?;
        Ok(Actor {
            policy: setup.policy(&*player.envs)?,
            player,
            scratch: Scratch::default(),
            sums: Vec::new(),
        })
    }

    fn collect(&mut self, setup: &Setup, weights: &[f32], seen: Norms) -> Result<Rollout> {
        let (n, length) = (self.player.count(), setup.steps as usize);
        let width = self.policy.actor.inputs();
        let weights = self.policy.split(weights)?;
        let mut out = Rollout::default();
        if self.policy.recurrent() {
            out.began = self.policy.memory(n, &mut self.scratch).to_vec();
        }
        let mut counting = Counting::new(seen);
        let mut rewards = Vec::with_capacity(n * length);
        let mut next_values = vec![0.0; n * length];
        let mut over = Vec::with_capacity(n * length);
        let player = &mut self.player;
        for t in 0..length {
            let from = out.observations.len();
            out.observations
                .extend_from_slice(&player.steps.observations);
            counting.observe(&mut out.observations[from..]);
            self.policy.draw(
                weights,
                &out.observations[from..],
                &mut player.rng,
                &mut self.scratch,
                &mut player.actions,
                &mut out.log_probs,
                &mut out.values,
            );
            match &player.actions {
                Actions::Discrete(choices) => out.actions.extend(choices.iter().map(|c| *c as f32)),
                Actions::Continuous { numbers, .. } => out.actions.extend_from_slice(numbers),
            }
            player.step(&mut out.episodes);
            rewards.extend_from_slice(&player.steps.rewards);
            let (steps, sums) = (&player.steps, &mut self.sums);
            counting.count(&steps.observations);
            for (i, last) in steps.last.chunks_exact(width).enumerate() {
                if steps.over(i) {
                    counting.count(last);
                }
            }
            counting.reward(&mut rewards[t * n..], &steps.terminated, setup.gamma, sums);
            for i in 0..n {
                over.push(player.steps.over(i));
                if player.steps.truncated[i] && !player.steps.terminated[i] {
                    let last = &mut player.steps.last[i * width..(i + 1) * width];
                    counting.observe(last);
                    let value = self.policy.values(weights[2], last, i, &mut self.scratch);
                    next_values[t * n + i] = value[0];
                }
                if player.steps.over(i) {
                    self.scratch.forget(i);
                }
            }
        }
        self.player.check()?;
        let mut next = self.player.steps.observations.clone();
        counting.observe(&mut next);
        let after = self.policy.values(weights[2], &next, 0, &mut self.scratch);
        for i in (0..n * length).filter(|i| !over[*i]) {
            next_values[i] = *out.values.get(i + n).unwrap_or(&after[i % n]);
        }
        out.advantages = gae(
            &rewards,
            &out.values,
            &next_values,
            &over,
            n,
            setup.gamma,
            setup.lambda,
        );
        if self.policy.recurrent() {
            out.over = over;
        }
        out.seen = counting.new;
        Ok(out)
    }

    /// Appends all that it knows.
    fn save(&mut self, words: &mut Vec<u64>) {
        self.player.save(words);
        let memory = self.policy.memory(self.player.count(), &mut self.scratch);
        let numbers = memory.iter_mut().flat_map(LstmState::numbers);
        words.extend(numbers.map(|x| u64::from(x.to_bits())));
        words.extend(self.sums.iter().map(|sum| sum.to_bits()));
    }

    /// Takes back what `save` wrote.
    fn load(&mut self, words: &mut Words<'_>) {
        self.player.load(words);
        let memory = self.policy.memory(self.player.count(), &mut self.scratch);
        for x in memory.iter_mut().flat_map(LstmState::numbers) {
            *x = f32::from_bits(words.word() as u32);
        }
        // They come last, if they are there.
        let sums = if words.is_empty() {
            0
        } else {
            self.player.count()
        };
        self.sums = (0..sums).map(|_| words.number()).collect();
    }
}

/// An actor that plays. What it plays with is made at its first call and is not part of its archive.
#[remote]
pub(super) struct Collector {
    setup: Setup,
    #[rkyv(with = rkyv::with::Skip)]
    actor: Option<Box<Actor>>,
}

impl Collector {
    fn actor(&mut self) -> Result<&mut Actor> {
        match &mut self.actor {
            Some(actor) => Ok(actor),
            none => Ok(none.insert(Box::new(Actor::new(&self.setup)?))),
        }
    }
}

#[remote]
impl Collector {
    pub fn new(setup: Setup) -> Self {
        Collector { setup, actor: None }
    }

    /// Plays one batch with these weights, read where they lie, and with observations and rewards brought to size by what was seen.
    pub fn collect(&mut self, weights: &[f32], seen: Norms) -> Result<Rollout> {
        let setup = self.setup.clone();
        self.actor()?.collect(&setup, weights, seen)
    }

    /// Plays one batch with these weights, and takes A3C's gradient of it.
    pub fn gradient(&mut self, weights: &[f32], entropy: f32, value: f32) -> Result<Gradient> {
        let setup = self.setup.clone();
        let actor = self.actor()?;
        let played = actor.collect(&setup, weights, Norms::default())?;
        a3c::gradient(&actor.policy, weights, played, entropy, value)
    }

    /// All that it knows.
    pub fn save(&mut self) -> Result<Vec<u64>> {
        let mut words = Vec::new();
        self.actor()?.save(&mut words);
        Ok(words)
    }

    /// Goes on from what `save` gave.
    pub fn load(&mut self, words: Vec<u64>) -> Result<()> {
        let mut words = Words::new(&words);
        self.actor()?.load(&mut words);
        foreign(&self.setup.env, words.complete())
    }
}

/// Refuses a state that did not fit.
pub(super) fn foreign(env: &str, fits: bool) -> Result<()> {
    match fits {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "the checkpoint's state is not one of these environments ({env})"
        ))),
    }
}

impl Collector {
    /// `workers` collectors of this setup, each with its own random numbers.
    pub fn crew(setup: &Setup, workers: usize) -> Crew<Setup, Collector> {
        let setups = (0..workers.max(1) as u64).map(|i| Setup {
            seed: (setup.seed.0, i),
            ..setup.clone()
        });
        let renew = |setup: &mut Setup| setup.seed.1 += 1 << 32;
        // One stays beside the learner; several go to all machines that there are.
        let hire = match workers {
            0 | 1 => |setup: &Setup| Collector::remote(setup),
            _ => |setup: &Setup| Collector::options().spread().remote(setup),
        };
        Crew::new(setups.collect(), hire, renew)
    }
}

/// All collectors of a run.
pub(super) struct Collectors {
    crew: Crew<Setup, Collector>,
}

impl Collectors {
    /// As [`Collector::crew`].
    pub fn new(setup: &Setup, workers: usize) -> Collectors {
        Collectors {
            crew: Collector::crew(setup, workers),
        }
    }

    /// One batch of each: the weights go out as one object, the batches are read where they lie.
    pub fn collect(&mut self, weights: &[f32], seen: &Norms) -> Result<Vec<View<Rollout>>> {
        let weights: ObjectRef<Vec<f32>> = put_slice(weights)?;
        let calls = self.crew.call(|c| c.collect(&weights, seen));
        self.crew.answers(calls, |c| c.collect(&weights, seen))
    }

    /// How many collectors were replaced so far.
    pub fn replaced(&self) -> u64 {
        self.crew.replaced()
    }

    /// The state of each.
    pub fn save(&self) -> Result<Vec<Vec<u64>>> {
        self.crew.save(|c| c.save())
    }

    /// Gives each its state back.
    pub fn load(&mut self, states: Vec<Vec<u64>>) -> Result<()> {
        self.crew.load(states, |c, words| c.load(words))
    }

    /// Ends collector `i`, as a lost machine would.
    #[cfg(test)]
    pub fn kill(&self, i: usize) {
        self.crew.kill(i);
    }
}

#[cfg(test)]
mod tests;
