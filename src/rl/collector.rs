//! The actors that play: each has its environments and a copy of nothing else. Weights come as a reference to one object
//! that all collectors read where it lies; what goes back is one batch of steps, ready to learn from.
//!
//! Invariant: a collector's steps follow from its seed, its number and the weights it was given. Its whole state can be
//! taken as words, and given back. One that ended is made anew, with environments that begin afresh. Left out: learning.

use super::env::{Steps, VecEnv, Words, make_vec};
use super::error::{Error, Result};
use super::gae::gae;
use super::mlp::Activation;
use super::policy::{Policy, Scratch};
use super::rng::Rng;
use super::space::Actions;
use crate::api::{Handle, ObjectRef, View, get, put_slice, view};
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
    /// The discount.
    pub gamma: f32,
    /// The decay of advantages.
    pub lambda: f32,
    /// The run's seed, and which collector this is.
    pub seed: (u64, u64),
}

/// One episode that ended.
#[value]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// The sum of its rewards.
    pub reward: f32,
    /// Its number of steps.
    pub length: u32,
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
    /// Episodes that ended on the way.
    pub episodes: Vec<Episode>,
}

impl Setup {
    pub(super) fn policy(&self, envs: &dyn VecEnv) -> Policy {
        let hidden: Vec<usize> = self.hidden.iter().map(|n| *n as usize).collect();
        let activation = match self.relu {
            true => Activation::Relu,
            false => Activation::Tanh,
        };
        Policy::new(
            &envs.observation_space(),
            &envs.action_space(),
            &hidden,
            activation,
        )
    }
}

/// What plays.
struct Player {
    envs: Box<dyn VecEnv>,
    policy: Policy,
    steps: Steps,
    actions: Actions,
    scratch: Scratch,
    rng: Rng,
    /// Of the episodes under way.
    under_way: Vec<Episode>,
}

impl Player {
    fn new(setup: &Setup) -> Result<Player> {
        let mut envs = make_vec(&setup.env, setup.envs as usize)?;
        let n = envs.count();
        let policy = setup.policy(&*envs);
        let mut rng = Rng::stream(setup.seed.0, setup.seed.1);
        let mut steps = Steps::new(n, envs.observation_space().len());
        envs.reset(rng.bits(), &mut steps.observations);
        Ok(Player {
            actions: Actions::zeros(&envs.action_space(), n),
            envs,
            policy,
            steps,
            scratch: Scratch::default(),
            rng,
            under_way: vec![
                Episode {
                    reward: 0.0,
                    length: 0
                };
                n
            ],
        })
    }

    fn collect(&mut self, setup: &Setup, weights: &[f32]) -> Result<Rollout> {
        let (n, length) = (self.envs.count(), setup.steps as usize);
        let width = self.policy.actor.inputs();
        let weights = self.policy.split(weights)?;
        let mut out = Rollout::default();
        let mut rewards = Vec::with_capacity(n * length);
        let mut next_values = vec![0.0; n * length];
        let mut over = Vec::with_capacity(n * length);
        for t in 0..length {
            out.observations.extend_from_slice(&self.steps.observations);
            self.policy.draw(
                weights,
                &self.steps.observations,
                &mut self.rng,
                &mut self.scratch,
                &mut self.actions,
                &mut out.log_probs,
                &mut out.values,
            );
            match &self.actions {
                Actions::Discrete(choices) => out.actions.extend(choices.iter().map(|c| *c as f32)),
                Actions::Continuous { numbers, .. } => out.actions.extend_from_slice(numbers),
            }
            self.envs.step(&self.actions, &mut self.steps);
            rewards.extend_from_slice(&self.steps.rewards);
            for i in 0..n {
                let episode = &mut self.under_way[i];
                episode.reward += self.steps.rewards[i];
                episode.length += 1;
                let ended = self.steps.over(i);
                over.push(ended);
                if ended {
                    out.episodes.push(*episode);
                    *episode = Episode {
                        reward: 0.0,
                        length: 0,
                    };
                    if !self.steps.terminated[i] {
                        let last = &self.steps.last[i * width..(i + 1) * width];
                        let value = self.policy.values(weights[2], last, &mut self.scratch);
                        next_values[t * n + i] = value[0];
                    }
                }
            }
        }
        let after = self
            .policy
            .values(weights[2], &self.steps.observations, &mut self.scratch);
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
        Ok(out)
    }

    fn save(&self) -> Vec<u64> {
        let mut words = self.rng.words().to_vec();
        self.envs.save(&mut words);
        for episode in &self.under_way {
            words.extend([
                u64::from(episode.reward.to_bits()),
                u64::from(episode.length),
            ]);
        }
        words.extend(
            self.steps
                .observations
                .iter()
                .map(|x| u64::from(x.to_bits())),
        );
        words
    }

    fn load(&mut self, words: &[u64]) -> bool {
        let mut words = Words::new(words);
        self.rng = words.rng();
        self.envs.load(&mut words);
        for episode in &mut self.under_way {
            episode.reward = f32::from_bits(words.word() as u32);
            episode.length = words.word() as u32;
        }
        for x in &mut self.steps.observations {
            *x = f32::from_bits(words.word() as u32);
        }
        words.complete()
    }
}

/// An actor that plays. What it plays with is made at its first call and is not part of its archive.
#[remote]
pub(super) struct Collector {
    setup: Setup,
    #[rkyv(with = rkyv::with::Skip)]
    player: Option<Box<Player>>,
}

impl Collector {
    fn player(&mut self) -> Result<&mut Player> {
        match &mut self.player {
            Some(player) => Ok(player),
            none => Ok(none.insert(Box::new(Player::new(&self.setup)?))),
        }
    }
}

#[remote]
impl Collector {
    pub fn new(setup: Setup) -> Self {
        Collector {
            setup,
            player: None,
        }
    }

    /// Plays one batch with these weights, read where they lie.
    pub fn collect(&mut self, weights: &[f32]) -> Result<Rollout> {
        let setup = self.setup.clone();
        self.player()?.collect(&setup, weights)
    }

    /// All that it knows.
    pub fn save(&mut self) -> Result<Vec<u64>> {
        Ok(self.player()?.save())
    }

    /// Goes on from what `save` gave.
    pub fn load(&mut self, words: Vec<u64>) -> Result<()> {
        let env = self.setup.env.clone();
        match self.player()?.load(&words) {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "the checkpoint's state is not one of these environments ({env})"
            ))),
        }
    }
}

/// All collectors of a run.
pub(super) struct Collectors {
    setups: Vec<Setup>,
    handles: Vec<Handle<Collector>>,
    replaced: u64,
}

/// How often in one iteration collectors may be replaced before it is an error.
const REPLACEMENTS: usize = 8;

impl Collectors {
    /// `workers` collectors of this setup, each with its own random numbers.
    pub fn new(setup: &Setup, workers: usize) -> Collectors {
        let setups: Vec<Setup> = (0..workers.max(1) as u64)
            .map(|i| Setup {
                seed: (setup.seed.0, i),
                ..setup.clone()
            })
            .collect();
        Collectors {
            handles: setups.iter().map(Collector::remote).collect(),
            setups,
            replaced: 0,
        }
    }

    /// One batch of each: the weights go out as one object, the batches are read where they lie.
    pub fn collect(&mut self, weights: &[f32]) -> Result<Vec<View<Rollout>>> {
        let weights: ObjectRef<Vec<f32>> = put_slice(weights)?;
        let mut calls: Vec<_> = self.handles.iter().map(|c| c.collect(&weights)).collect();
        let mut batches = Vec::with_capacity(calls.len());
        let mut tries = 0;
        for (i, call) in calls.iter_mut().enumerate() {
            loop {
                match view(call) {
                    Ok(batch) => break batches.push(batch),
                    Err(crate::base::Error::ActorDied { .. }) if tries < REPLACEMENTS => {
                        tries += 1;
                        self.replaced += 1;
                        // Other random numbers, lest what killed it comes again.
                        self.setups[i].seed.1 += 1 << 32;
                        self.handles[i] = Collector::remote(&self.setups[i]);
                        *call = self.handles[i].collect(&weights);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(batches)
    }

    /// How many collectors were replaced so far.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The state of each.
    pub fn save(&self) -> Result<Vec<Vec<u64>>> {
        let calls: Vec<_> = self.handles.iter().map(|c| c.save()).collect();
        Ok(get(&calls)?)
    }

    /// Gives each its state back.
    pub fn load(&mut self, states: Vec<Vec<u64>>) -> Result<()> {
        if states.len() != self.handles.len() {
            return Err(Error::Usage(format!(
                "the checkpoint is of {} collectors, not of {}",
                states.len(),
                self.handles.len()
            )));
        }
        let calls: Vec<_> = self
            .handles
            .iter()
            .zip(states)
            .map(|(c, words)| c.load(words))
            .collect();
        get(&calls)?;
        Ok(())
    }

    /// Ends collector `i`, as a lost machine would.
    #[cfg(test)]
    pub fn kill(&self, i: usize) {
        self.handles[i].kill();
    }
}

#[cfg(test)]
mod tests;
