//! Proximal policy optimisation (Schulman, Wolski, Dhariwal, Radford and Klimov, 2017), in both forms of the paper: the
//! clipped ratio, and a penalty on the divergence that adapts itself.
//!
//! Invariant: one iteration is a gather of fresh steps from all collectors, then some passes over them in random
//! minibatches; the curve follows from the seed. Left out: recurrent networks.

use super::adam::Adam;
use super::agent::{Agent, Progress};
use super::checkpoint::Checkpoint;
use super::collector::{Collectors, Rollout, Setup};
use super::config;
use super::env::make_vec;
use super::error::Result;
use super::evaluate::{Evaluation, evaluate};
use super::layer::Activation;
use super::learned::Learned;
use super::network::Net;
use super::norm::Norms;
use super::ops;
use super::policy::{Policy, Scratch};
use super::rng::Rng;
use super::run::Run;
use super::space::{Actions, Space};
use crate::api::{Span, View};
use crate::value::Native;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The settings. Their defaults solve CartPole-v1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Collectors: actors that play side by side.
    pub num_workers: usize,
    /// Environments of each collector.
    pub num_envs: usize,
    /// Steps of each environment in one iteration.
    pub num_steps: usize,
    /// Passes over the steps of one iteration.
    pub epochs: usize,
    /// Steps in one minibatch.
    pub minibatch_size: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// What the step size comes to, in a straight line, after `schedule_steps`.
    pub final_learning_rate: f64,
    /// How far the ratio of new and old probability may move from 1 and still count; none for the penalty alone.
    pub clip: Option<f64>,
    /// What `clip` comes to, in a straight line, after `schedule_steps`.
    pub final_clip: f64,
    /// Steps after which schedules have reached their ends.
    pub schedule_steps: u64,
    /// How far a value may move in one iteration and still count; none for no bound.
    pub value_clip: Option<f64>,
    /// The weight of the divergence from the old policy in the loss, at first.
    pub kl_coefficient: f64,
    /// The divergence that the weight is adapted to after each iteration; none keeps the weight.
    pub kl_target: Option<f64>,
    /// The discount.
    pub gamma: f32,
    /// The decay of advantages (GAE's lambda).
    pub lambda: f32,
    /// The weight of the entropy in the loss.
    pub entropy_coefficient: f64,
    /// The weight of the values' squared error in the loss.
    pub value_coefficient: f64,
    /// The bound of the gradient's norm.
    pub max_grad_norm: f32,
    /// Whether advantages are shifted and scaled to mean 0 and deviation 1 in each minibatch.
    pub normalize_advantages: bool,
    /// Whether each number of an observation is shifted and scaled to mean 0 and deviation 1, by all that was seen so far, and cut to
    /// -10 and 10.
    pub normalize_observations: bool,
    /// Whether rewards are divided by the deviation of their discounted sums, as far as seen, and cut to -10 and 10. Returns are told as
    /// they are.
    pub normalize_rewards: bool,
    /// Whether both networks have filters before their hidden layers: `mlp` or `cnn`.
    pub net: Net,
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
            num_workers: 1,
            num_envs: 8,
            num_steps: 32,
            epochs: 8,
            minibatch_size: 128,
            learning_rate: 3e-3,
            final_learning_rate: 0.0,
            clip: Some(0.2),
            final_clip: 0.0,
            schedule_steps: 100_000,
            value_clip: None,
            kl_coefficient: 0.0,
            kl_target: None,
            gamma: 0.98,
            lambda: 0.8,
            entropy_coefficient: 0.0,
            value_coefficient: 0.5,
            max_grad_norm: 0.5,
            normalize_advantages: true,
            normalize_observations: false,
            normalize_rewards: false,
            net: Net::Mlp,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            log_std: 0.0,
        }
    }
}

impl Config {
    /// Refuses what cannot work.
    fn check(&self) -> Result<()> {
        let whole = [
            ("num_workers", self.num_workers),
            ("num_envs", self.num_envs),
            ("num_steps", self.num_steps),
            ("epochs", self.epochs),
            ("minibatch_size", self.minibatch_size),
        ];
        for (key, value) in whole {
            config::require(NAME, key, value > 0, || "is 0; give at least 1".to_owned())?;
        }
        let batch = self.num_workers * self.num_envs * self.num_steps;
        config::require(NAME, "minibatch_size", self.minibatch_size <= batch, || {
            format!(
                "is {}, but an iteration has {batch} steps \
                 (num_workers x num_envs x num_steps)",
                self.minibatch_size
            )
        })?;
        for (key, value) in [("gamma", self.gamma), ("lambda", self.lambda)] {
            config::require(NAME, key, (0.0..=1.0).contains(&value), || {
                format!("is {value}; it lies between 0 and 1")
            })?;
        }
        config::require(NAME, "max_grad_norm", self.max_grad_norm > 0.0, || {
            format!("is {}; it is above 0", self.max_grad_norm)
        })?;
        let adapts = self
            .kl_target
            .is_none_or(|target| target > 0.0 && self.kl_coefficient > 0.0);
        config::require(NAME, "kl_target", adapts, || {
            format!(
                "needs a target above 0 and a kl_coefficient above 0 to adapt, and has {:?} and {}",
                self.kl_target, self.kl_coefficient
            )
        })?;
        config::require(NAME, "learning_rate", self.learning_rate > 0.0, || {
            format!("is {}; it is above 0", self.learning_rate)
        })?;
        config::require(NAME, "hidden", !self.hidden.contains(&0), || {
            "has a layer of 0 units".to_owned()
        })
    }
}

const NAME: &str = "PPO";

/// The weight of the divergence for the next iteration: doubled or halved where it came out far from the target, within bounds
/// from which it finds back.
fn adapted(coefficient: f64, kl: f64, target: f64) -> f64 {
    let next = if kl > 1.5 * target {
        coefficient * 2.0
    } else if kl < target / 1.5 {
        coefficient / 2.0
    } else {
        coefficient
    };
    next.clamp(1e-6, 1e6)
}

/// Some steps as tensors.
pub(super) struct Minibatch {
    observations: Tensor,
    actions: Tensor,
    log_probs: Tensor,
    values: Tensor,
    advantages: Tensor,
    returns: Tensor,
}

/// The loss and what it is made of.
pub(super) struct Loss {
    total: Tensor,
    policy: Tensor,
    value: Tensor,
    entropy: Tensor,
    kl: Tensor,
}

/// The loss of a minibatch under the weights.
fn loss(
    policy: &Policy,
    learned: &Learned,
    batch: &Minibatch,
    config: &Config,
    clip: f64,
    kl_coefficient: f64,
) -> candle_core::Result<Loss> {
    let [out, values] = ops::pair(
        [&policy.actor, &policy.critic],
        &batch.observations,
        [&learned.actor, &learned.critic],
    )?;
    let terms = match &learned.log_std {
        None => ops::categorical_terms(&out, &batch.actions)?,
        Some(log_std) => ops::gaussian_terms(&out, log_std, &batch.actions)?,
    };
    let log_ratio = (terms.get_on_dim(1, 0)? - &batch.log_probs)?;
    let ratio = log_ratio.exp()?;
    let gain = (&ratio * &batch.advantages)?;
    let gain = match config.clip {
        None => gain,
        Some(_) => {
            let near = ratio.clamp(1.0 - clip, 1.0 + clip)?;
            gain.minimum(&(near * &batch.advantages)?)?
        }
    };
    let policy_loss = gain.mean_all()?.neg()?;
    let entropy = terms.get_on_dim(1, 1)?.mean_all()?;
    // An estimate of the divergence that is never negative (Schulman, 2020).
    let kl = ((&ratio - 1.0)? - &log_ratio)?.mean_all()?;

    let values = values.squeeze(1)?;
    let mut errors = (&values - &batch.returns)?.sqr()?;
    if let Some(bound) = config.value_clip {
        let moved = (&values - &batch.values)?.clamp(-bound, bound)?;
        let bounded = ((&batch.values + moved)? - &batch.returns)?.sqr()?;
        errors = errors.maximum(&bounded)?;
    }
    let value = errors.mean_all()?;

    let mut total = (&policy_loss + (&value * config.value_coefficient)?)?;
    if config.entropy_coefficient != 0.0 {
        total = (total - (&entropy * config.entropy_coefficient)?)?;
    }
    if kl_coefficient != 0.0 {
        total = (total + (&kl * kl_coefficient)?)?;
    }
    Ok(Loss {
        total,
        policy: policy_loss,
        value,
        entropy,
        kl,
    })
}

/// The learner and its collectors.
pub struct Ppo {
    run: Run,
    config: Config,
    policy: Policy,
    collectors: Collectors,
    learned: Learned,
    /// What all collectors have seen.
    seen: Norms,
    adam: Adam,
    rng: Rng,
    kl_coefficient: f64,
    scratch: Scratch,
}

impl Ppo {
    /// A learner that knows nothing yet, and its collectors.
    ///
    /// # Errors
    /// [`UnknownEnv`](super::Error::UnknownEnv); [`BadValue`](super::Error::BadValue) for settings that cannot work.
    ///
    /// ```
    /// use mobula::rl::{Agent, ppo};
    /// let _mobula = mobula::init()?;
    /// let mut ppo = ppo::Ppo::new("CartPole-v1", ppo::Config::default(), 1)?;
    /// let progress = ppo.train()?; // one iteration
    /// assert_eq!(progress.steps, 256);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new(env: &str, config: Config, seed: u64) -> Result<Ppo> {
        config.check()?;
        let setup = Setup {
            env: env.to_owned(),
            envs: config.num_envs as u64,
            steps: config.num_steps as u64,
            hidden: config.hidden.iter().map(|n| *n as u64).collect(),
            relu: config.activation == Activation::Relu,
            cnn: config.net == Net::Cnn,
            lstm: 0,
            gamma: config.gamma,
            lambda: config.lambda,
            seed: (seed, 0),
        };
        let policy = setup.policy(&*make_vec(env, 1)?)?;
        let mut rng = Rng::stream(seed, u64::MAX);
        let learned = Learned::new(&policy, &policy.init(&mut rng, config.log_std))?;
        let lengths: Vec<usize> = learned.rows().iter().map(|row| row.len()).collect();
        Ok(Ppo {
            run: Run::new(env, seed),
            collectors: Collectors::new(&setup, config.num_workers),
            kl_coefficient: config.kl_coefficient,
            seen: Norms::new(
                policy.actor.inputs(),
                config.normalize_observations,
                config.normalize_rewards,
            ),
            config,
            policy,
            learned,
            adam: Adam::new(&lengths, 1e-5),
            rng,
            scratch: Scratch::default(),
        })
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// Those of [`new`](Ppo::new); for a checkpoint that is not whole, which row of it is missing.
    pub fn restore(checkpoint: &Checkpoint) -> Result<Ppo> {
        let config = config::parse(NAME, Config::default(), &checkpoint.config)?;
        let mut ppo = Ppo::new(&checkpoint.env, config, checkpoint.seed)?;
        ppo.learned = Learned::new(&ppo.policy, checkpoint.numbers("weights")?)?;
        ppo.seen.restore(checkpoint)?;
        checkpoint.load_adam(&mut ppo.adam)?;
        ppo.run.restore(checkpoint)?;
        ppo.kl_coefficient = f64::from_bits(checkpoint.counters("kl", 1)?[0]);
        ppo.rng = checkpoint.rng("rng")?;
        ppo.collectors.load(checkpoint.collectors()?)?;
        Ok(ppo)
    }

    /// How often collectors were replaced because they had ended.
    pub fn replaced(&self) -> u64 {
        self.collectors.replaced()
    }

    /// Steps `picked` of all batches, as tensors.
    fn minibatch(&self, batches: &Batches<'_>, picked: &[usize]) -> Result<Minibatch> {
        let (n, cpu) = (picked.len(), &Device::Cpu);
        let rows = |from: for<'b> fn(&'b Part<'b>) -> &'b [f32], width: usize| {
            let mut out = Vec::with_capacity(n * width);
            for i in picked {
                let (part, i) = batches.find(*i);
                out.extend_from_slice(&from(part)[i * width..(i + 1) * width]);
            }
            out
        };
        let mut advantages = rows(|p| p.advantages, 1);
        let values = rows(|p| p.values, 1);
        let returns: Vec<f32> = advantages.iter().zip(&values).map(|(a, v)| a + v).collect();
        if self.config.normalize_advantages && n > 1 {
            normalize(&mut advantages);
        }
        let width = self.policy.actor.inputs();
        let actions = match self.policy.actions {
            Space::Discrete(_) => 1,
            Space::Box { .. } => self.policy.actor.outputs(),
        };
        Ok(Minibatch {
            observations: Tensor::from_vec(rows(|p| p.observations, width), (n, width), cpu)?,
            actions: Tensor::from_vec(rows(|p| p.actions, actions), n * actions, cpu)?,
            log_probs: Tensor::from_vec(rows(|p| p.log_probs, 1), n, cpu)?,
            values: Tensor::from_vec(values, n, cpu)?,
            advantages: Tensor::from_vec(advantages, n, cpu)?,
            returns: Tensor::from_vec(returns, n, cpu)?,
        })
    }

    /// All passes over one iteration's steps. Gives the means of what the loss is made of.
    fn learn(&mut self, batches: &Batches<'_>) -> Result<[f32; 5]> {
        let done = self.run.part(self.config.schedule_steps);
        let between = |from: f64, to: f64| from + (to - from) * done;
        let rate = between(self.config.learning_rate, self.config.final_learning_rate);
        let clip = self
            .config
            .clip
            .map_or(0.0, |c| between(c, self.config.final_clip));
        let mut order: Vec<usize> = (0..batches.steps).collect();
        let (mut sums, mut count) = ([0.0f32; 5], 0.0f32);
        for _ in 0..self.config.epochs {
            self.rng.shuffle(&mut order);
            // What is left over after whole minibatches is used in another pass.
            for picked in order.chunks_exact(self.config.minibatch_size) {
                let batch = self.minibatch(batches, picked)?;
                let loss = loss(
                    &self.policy,
                    &self.learned,
                    &batch,
                    &self.config,
                    clip,
                    self.kl_coefficient,
                )?;
                self.run.finite("the loss", loss.total.to_scalar()?)?;
                loss.total.backward()?;
                let (rows, bound) = (self.learned.rows(), self.config.max_grad_norm);
                let norm = self.adam.step(&rows, rate as f32, bound)?;
                self.run.finite("the gradient's norm", norm)?;
                let parts = [&loss.policy, &loss.value, &loss.entropy, &loss.kl];
                for (sum, part) in sums.iter_mut().zip(parts) {
                    *sum += part.to_scalar::<f32>()?;
                }
                sums[4] += norm;
                count += 1.0;
            }
        }
        Ok(sums.map(|sum| sum / count))
    }
}

/// Shifts and scales numbers to mean 0 and deviation 1.
fn normalize(numbers: &mut [f32]) {
    let n = numbers.len() as f32;
    let mean = numbers.iter().sum::<f32>() / n;
    let square = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>() / n;
    let scale = 1.0 / (square.sqrt() + 1e-8);
    for x in numbers {
        *x = (*x - mean) * scale;
    }
}

/// One collector's batch, read where it lies.
struct Part<'a> {
    observations: &'a [f32],
    actions: &'a [f32],
    log_probs: &'a [f32],
    values: &'a [f32],
    advantages: &'a [f32],
}

/// All collectors' batches.
struct Batches<'a> {
    parts: Vec<Part<'a>>,
    each: usize,
    steps: usize,
}

impl<'a> Batches<'a> {
    fn new(views: &'a [View<Rollout>]) -> Batches<'a> {
        let parts: Vec<Part<'a>> = views
            .iter()
            .map(|view| Part {
                observations: f32::slice(&view.observations),
                actions: f32::slice(&view.actions),
                log_probs: f32::slice(&view.log_probs),
                values: f32::slice(&view.values),
                advantages: f32::slice(&view.advantages),
            })
            .collect();
        let each = parts.first().map_or(0, |part| part.advantages.len());
        Batches {
            steps: each * parts.len(),
            parts,
            each,
        }
    }

    /// Where step `i` is.
    fn find(&self, i: usize) -> (&Part<'a>, usize) {
        (&self.parts[i / self.each], i % self.each)
    }
}

impl Agent for Ppo {
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
        // Gather: every collector plays with the same weights.
        let views = self.collectors.collect(&self.learned.row()?, &self.seen)?;
        // Learn from all of it, then forget it.
        let batches = Batches::new(&views);
        let _learn = Span::begin("learn", || None);
        let before = (self.learned.row()?, self.adam.state());
        let learned = self.learn(&batches);
        if learned.is_err() {
            self.learned = Learned::new(&self.policy, &before.0)?;
            self.adam.set_state(before.1.0, before.1.1);
        }
        let [policy, value, entropy, kl, norm] = learned?;
        for view in &views {
            self.run.ended(&view.episodes);
            self.seen.join(&view.seen);
        }
        self.run.steps += batches.steps as u64;
        self.run.iteration += 1;
        if let Some(target) = self.config.kl_target {
            self.kl_coefficient = adapted(self.kl_coefficient, f64::from(kl), target);
        }
        Ok(self.run.progress(vec![
            ("policy_loss", policy),
            ("value_loss", value),
            ("entropy", entropy),
            ("kl", kl),
            ("grad_norm", norm),
            ("kl_coefficient", self.kl_coefficient as f32),
        ]))
    }

    fn act(&mut self, observations: &[f32]) -> Result<Actions> {
        let rows = observations.len() / self.policy.actor.inputs();
        let mut actions = Actions::zeros(&self.policy.actions, rows);
        let (policy, scratch) = (&self.policy, &mut self.scratch);
        let mut observations = observations.to_vec();
        self.seen.observe(&mut observations);
        self.learned.actor.read(|weights| {
            policy.best(weights, &observations, scratch, &mut actions);
        })?;
        Ok(actions)
    }

    fn evaluate(&self, episodes: usize, seed: u64) -> Result<Evaluation> {
        let weights = self.learned.actor.read(<[f32]>::to_vec)?;
        let mut scratch = Scratch::default();
        let mut sized = Vec::new();
        evaluate(&self.run.env, episodes, seed, |observations, actions| {
            sized.clear();
            sized.extend_from_slice(observations);
            self.seen.observe(&mut sized);
            self.policy.best(&weights, &sized, &mut scratch, actions);
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoint = self.run.checkpoint(NAME, self.config());
        checkpoint.put_numbers("weights", self.learned.row()?);
        self.seen.save(&mut checkpoint);
        checkpoint.put_adam(&self.adam);
        checkpoint.put_words("kl", vec![self.kl_coefficient.to_bits()]);
        checkpoint.put_words("rng", self.rng.words().to_vec());
        checkpoint.put_collectors(self.collectors.save()?);
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
