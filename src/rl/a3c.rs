//! Asynchronous advantage actor-critic (Mnih, Badia, Mirza, Graves, Lillicrap, Harley, Silver and Kavukcuoglu, 2016), with
//! advantages by GAE and Adam in place of RMSProp.
//!
//! Invariant: each worker plays a little and takes the gradient of that; the learner applies gradients as they come, and the
//! worker whose gradient it was goes on with the new weights at once, whatever the others do. A gradient may so be
//! of weights that are a few gradients old. With one worker the curve follows from the seed; with several it depends on who is
//! first. With `lstm` both networks remember, as in the paper: each worker goes on from what it remembered when its last steps
//! ended, and gradients go back to there. Left out: gradients that go further back.

use super::adam::Adam;
use super::agent::{Agent, Progress};
use super::checkpoint::Checkpoint;
use super::collector::{Collector, Rollout, Setup};
use super::config;
use super::crew::{Crew, is_loss};
use super::env::make_vec;
use super::error::Result;
use super::evaluate::{Evaluation, evaluate};
use super::layer::Activation;
use super::learned::Learned;
use super::network::Net;
use super::ops;
use super::player::Episode;
use super::policy::{Policy, Scratch};
use super::rng::Rng;
use super::run::Run;
use super::space::Actions;
use crate::api::{ObjectRef, put_slice, view, wait};
use crate::value::Native;
use candle_core::{Device, Tensor};
use mobula_macros::value;
use serde::{Deserialize, Serialize};

/// The settings. Their defaults solve CartPole-v1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Workers: actors that play and take gradients side by side.
    pub num_workers: usize,
    /// Environments of each worker.
    pub num_envs: usize,
    /// Steps of each environment for one gradient.
    pub num_steps: usize,
    /// Gradients applied in one iteration.
    pub updates: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// What the step size comes to, in a straight line, after `schedule_steps`; none for half of `learning_rate`, so that a
    /// run that is late still learns.
    pub final_learning_rate: Option<f64>,
    /// Steps after which the schedule has reached its end; what follows goes on with the last step size.
    pub schedule_steps: u64,
    /// The discount.
    pub gamma: f32,
    /// The decay of advantages (GAE's lambda); the paper has 1.
    pub lambda: f32,
    /// The weight of the entropy in the loss.
    pub entropy_coefficient: f64,
    /// The weight of the values' squared error in the loss.
    pub value_coefficient: f64,
    /// The bound of the gradient's norm.
    pub max_grad_norm: f32,
    /// Whether both networks have filters before their hidden layers: `mlp` or `cnn`.
    pub net: Net,
    /// Units of long short-term memory (Hochreiter and Schmidhuber, 1997) in front of the hidden layers of both networks, for
    /// problems where what is seen does not say all; none for networks that remember nothing.
    pub lstm: Option<usize>,
    /// Hidden units of both networks, layer by layer.
    pub hidden: Vec<usize>,
    /// What hidden layers end in.
    pub activation: Activation,
    /// The logarithm of the deviation of continuous actions, at first.
    pub log_std: f32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_workers: 2,
            num_envs: 8,
            num_steps: 8,
            updates: 16,
            learning_rate: 3e-3,
            final_learning_rate: None,
            schedule_steps: 200_000,
            gamma: 0.99,
            lambda: 0.95,
            entropy_coefficient: 0.0,
            value_coefficient: 0.25,
            max_grad_norm: 0.5,
            net: Net::Mlp,
            lstm: None,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            log_std: 0.0,
        }
    }
}

const NAME: &str = "A3C";

impl Config {
    /// Refuses what cannot work.
    fn check(&self) -> Result<()> {
        let whole = [
            ("num_workers", self.num_workers),
            ("num_envs", self.num_envs),
            ("num_steps", self.num_steps),
            ("updates", self.updates),
        ];
        for (key, value) in whole {
            config::require(NAME, key, value > 0, || "is 0; give at least 1".to_owned())?;
        }
        for (key, value) in [("gamma", self.gamma), ("lambda", self.lambda)] {
            config::require(NAME, key, (0.0..=1.0).contains(&value), || {
                format!("is {value}; it lies between 0 and 1")
            })?;
        }
        let above = [
            ("learning_rate", self.learning_rate),
            ("max_grad_norm", f64::from(self.max_grad_norm)),
        ];
        for (key, value) in above {
            config::require(NAME, key, value > 0.0, || {
                format!("is {value}; it is above 0")
            })?;
        }
        let last = self.rate(1.0);
        config::require(NAME, "final_learning_rate", last >= 0.0, || {
            format!("is {last}; it is 0 or more")
        })?;
        config::require(NAME, "lstm", self.lstm != Some(0), || {
            "is 0; give at least 1, or null for none".to_owned()
        })?;
        config::require(NAME, "hidden", !self.hidden.contains(&0), || {
            "has a layer of 0 units".to_owned()
        })
    }

    /// The step size after this part of the schedule.
    fn rate(&self, part: f64) -> f64 {
        let first = self.learning_rate;
        let last = self.final_learning_rate.unwrap_or(first / 2.0);
        first + (last - first) * part
    }
}

/// What a worker found.
#[value]
#[derive(Clone, Debug, Default)]
pub struct Gradient {
    /// The loss's slope by all weights.
    pub row: Vec<f32>,
    /// The policy's part of the loss, the values' and the entropy.
    pub parts: [f32; 3],
    /// Steps that were played for it.
    pub steps: u64,
    /// Episodes that ended on the way.
    pub episodes: Vec<Episode>,
}

/// The gradient of what was just played with these weights.
pub(super) fn gradient(
    policy: &Policy,
    weights: &[f32],
    played: Rollout,
    entropy_coefficient: f32,
    value_coefficient: f32,
) -> Result<Gradient> {
    let (n, cpu) = (played.values.len(), &Device::Cpu);
    let learned = Learned::new(policy, weights)?;
    let row = |row: Vec<f32>| Tensor::from_vec(row, n, cpu);
    let returns = played.advantages.iter().zip(&played.values);
    let returns = row(returns.map(|(a, v)| a + v).collect())?;
    let advantages = row(played.advantages)?;
    let width = policy.actor.inputs();
    let observations = Tensor::from_vec(played.observations, (n, width), cpu)?;
    let count = played.actions.len();
    let actions = Tensor::from_vec(played.actions, count, cpu)?;

    let began = |i: usize| {
        played
            .began
            .get(i)
            .map(|state| (state, played.over.as_slice()))
    };
    let out = ops::steps(&policy.actor, &observations, &learned.actor, began(0))?;
    let terms = match &learned.log_std {
        None => ops::categorical_terms(&out, &actions)?,
        Some(log_std) => ops::gaussian_terms(&out, log_std, &actions)?,
    };
    let policy_loss = (terms.get_on_dim(1, 0)? * advantages)?.mean_all()?.neg()?;
    let entropy = terms.get_on_dim(1, 1)?.mean_all()?;
    let values = ops::steps(&policy.critic, &observations, &learned.critic, began(1))?;
    let values = values.squeeze(1)?;
    let value = (values - returns)?.sqr()?.mean_all()?;
    let mut total = (&policy_loss + (&value * f64::from(value_coefficient))?)?;
    if entropy_coefficient != 0.0 {
        total = (total - (&entropy * f64::from(entropy_coefficient))?)?;
    }
    Ok(Gradient {
        row: learned.gradient(&total)?,
        parts: [
            policy_loss.to_scalar()?,
            value.to_scalar()?,
            entropy.to_scalar()?,
        ],
        steps: n as u64,
        episodes: played.episodes,
    })
}

/// The learner and its workers.
pub struct A3c {
    run: Run,
    config: Config,
    policy: Policy,
    weights: Vec<f32>,
    adam: Adam,
    workers: Crew<Setup, Collector>,
    /// The gradients that are under way, each with the number of its worker; the oldest first.
    pending: Vec<(usize, ObjectRef<Gradient>)>,
    scratch: Scratch,
}

impl A3c {
    /// A learner that knows nothing yet, and its workers.
    ///
    /// # Errors
    /// [`UnknownEnv`](super::Error::UnknownEnv); [`BadValue`](super::Error::BadValue) for settings that cannot work.
    ///
    /// ```
    /// use mobula::rl::{Agent, a3c};
    /// let _mobula = mobula::init()?;
    /// let mut a3c = a3c::A3c::new("CartPole-v1", a3c::Config::default(), 1)?;
    /// let progress = a3c.train()?; // one iteration
    /// assert_eq!(progress.steps, 1024);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new(env: &str, config: Config, seed: u64) -> Result<A3c> {
        config.check()?;
        let setup = Setup {
            env: env.to_owned(),
            envs: config.num_envs as u64,
            steps: config.num_steps as u64,
            hidden: config.hidden.iter().map(|n| *n as u64).collect(),
            relu: config.activation == Activation::Relu,
            cnn: config.net == Net::Cnn,
            lstm: config.lstm.unwrap_or(0) as u64,
            gamma: config.gamma,
            lambda: config.lambda,
            seed: (seed, 0),
        };
        let policy = setup.policy(&*make_vec(env, 1)?)?;
        let mut rng = Rng::stream(seed, u64::MAX);
        let weights = policy.init(&mut rng, config.log_std);
        Ok(A3c {
            run: Run::new(env, seed),
            adam: Adam::new(&[weights.len()], 1e-5),
            workers: Collector::crew(&setup, config.num_workers),
            config,
            policy,
            weights,
            pending: Vec::new(),
            scratch: Scratch::default(),
        })
    }

    /// Goes on from a checkpoint. Gradients that were under way when it was made are not in it.
    ///
    /// # Errors
    /// Those of [`new`](A3c::new); for a checkpoint that is not whole, which row of it is missing.
    pub fn restore(checkpoint: &Checkpoint) -> Result<A3c> {
        let config = config::parse(NAME, Config::default(), &checkpoint.config)?;
        let mut a3c = A3c::new(&checkpoint.env, config, checkpoint.seed)?;
        a3c.run.restore(checkpoint)?;
        let row = checkpoint.numbers_of("weights", a3c.weights.len())?;
        a3c.weights.copy_from_slice(row);
        checkpoint.load_adam(&mut a3c.adam)?;
        let states = checkpoint.collectors()?;
        a3c.workers.load(states, |c, words| c.load(words))?;
        Ok(a3c)
    }

    /// How often workers were replaced because they had ended.
    pub fn replaced(&self) -> u64 {
        self.workers.replaced()
    }

    /// Asks worker `i` for a gradient by the weights as they are.
    fn ask(&mut self, i: usize) -> Result<()> {
        let weights: ObjectRef<Vec<f32>> = put_slice(&self.weights)?;
        let entropy = self.config.entropy_coefficient as f32;
        let value = self.config.value_coefficient as f32;
        let called = self
            .workers
            .call_one(i, |w| w.gradient(&weights, entropy, value));
        self.pending.push((i, called));
        Ok(())
    }

    /// Applies a gradient. Gives its norm.
    fn apply(&mut self, row: &[f32]) -> Result<f32> {
        let part = self.run.part(self.config.schedule_steps);
        let rate = self.config.rate(part) as f32;
        let bound = self.config.max_grad_norm;
        // One that is no number changes nothing.
        let norm = self.adam.step_row(&mut self.weights, row, rate, bound);
        self.run.finite("the gradient's norm", norm)
    }
}

/// How often in one iteration workers may be replaced before it is an error.
const REPLACEMENTS: usize = 8;

impl Agent for A3c {
    fn algorithm(&self) -> &'static str {
        NAME
    }

    fn env(&self) -> &str {
        &self.run.env
    }

    fn config(&self) -> String {
        config::show(&self.config)
    }

    fn train(&mut self) -> Result<Progress> {
        for i in 0..self.workers.len() {
            if self.pending.iter().all(|(busy, _)| *busy != i) {
                self.ask(i)?;
            }
        }
        let (mut sums, mut applied, mut replaced) = ([0.0f32; 4], 0, 0);
        while applied < self.config.updates {
            // Whoever is ready first; among several, who was asked first.
            let calls: Vec<_> = self.pending.iter().map(|(_, call)| call.clone()).collect();
            let (ready, _) = wait(&calls).num_returns(1).run()?;
            let first = calls.iter().position(|call| Some(call) == ready.first());
            let (worker, call) = self.pending.remove(first.unwrap_or(0));
            match view(&call) {
                Ok(gradient) => {
                    let norm = self.apply(f32::slice(&gradient.row))?;
                    self.run.steps += gradient.steps.to_native();
                    self.run.ended(&gradient.episodes);
                    let parts = gradient.parts.iter().map(|x| x.to_native());
                    for (sum, x) in sums.iter_mut().zip(parts.chain([norm])) {
                        *sum += x / self.config.updates as f32;
                    }
                    applied += 1;
                }
                Err(error) if is_loss(&error) && replaced < REPLACEMENTS => {
                    replaced += 1;
                    self.workers.replace(worker);
                }
                Err(error) => return Err(error.into()),
            }
            // It goes on with the new weights at once.
            self.ask(worker)?;
        }
        self.run.iteration += 1;
        let [policy, value, entropy, norm] = sums;
        Ok(self.run.progress(vec![
            ("policy_loss", policy),
            ("value_loss", value),
            ("entropy", entropy),
            ("grad_norm", norm),
        ]))
    }

    fn act(&mut self, observations: &[f32]) -> Result<Actions> {
        let rows = observations.len() / self.policy.actor.inputs();
        let mut actions = Actions::zeros(&self.policy.actions, rows);
        let [actor, ..] = self.policy.split(&self.weights)?;
        self.policy
            .best(actor, observations, &mut self.scratch, &mut actions);
        Ok(actions)
    }

    fn forget(&mut self, row: usize) {
        self.scratch.forget(row);
    }

    fn evaluate(&self, episodes: usize, seed: u64) -> Result<Evaluation> {
        let [actor, ..] = self.policy.split(&self.weights)?;
        let mut scratch = Scratch::default();
        evaluate(&self.run.env, episodes, seed, |observations, actions| {
            self.policy.best(actor, observations, &mut scratch, actions);
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoint = self.run.checkpoint(NAME, self.config());
        checkpoint.put_numbers("weights", self.weights.clone());
        checkpoint.put_adam(&self.adam);
        checkpoint.put_collectors(self.workers.save(|c| c.save())?);
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
