//! Deep Q-learning (Mnih and others, 2015) with what later papers found to help: double Q-learning (van Hasselt, Guez and
//! Silver, 2015), dueling networks (Wang and others, 2015), prioritised replay (Schaul and others, 2015), returns over several
//! steps (as in Rainbow: Hessel and others, 2017), and many explorers beside one learner (Ape-X: Horgan and others,
//! 2018), each of which explores to a degree of its own.
//!
//! Invariant: in one iteration the explorers play with the weights as they are, while the learner learns from what was played before;
//! what they played is kept when both are done. So the curve follows from the seed. Left out: distributions of returns,
//! noisy networks.

mod explorer;

use self::explorer::{Explorer, Setup};
use super::adam::Adam;
use super::agent::{Agent, Progress};
use super::checkpoint::Checkpoint;
use super::config;
use super::crew::Crew;
use super::env::make_vec;
use super::error::Result;
use super::evaluate::{Evaluation, evaluate};
use super::layer::Activation;
use super::mlp::Tape;
use super::network::Net;
use super::q_network::QNetwork;
use super::replay::{Memory, Transitions};
use super::rng::Rng;
use super::run::Run;
use super::space::Actions;
use super::storage::read;
use super::weights::Weights;
use crate::api::{ObjectRef, put_slice};
use crate::value::Native;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// The settings. Their defaults solve CartPole-v1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Explorers: actors that play side by side.
    pub num_workers: usize,
    /// Environments of each explorer.
    pub num_envs: usize,
    /// Steps of each environment in one iteration.
    pub num_steps: usize,
    /// Minibatches learned from in one iteration.
    pub updates: usize,
    /// Transitions in one minibatch.
    pub batch_size: usize,
    /// The last transitions that are kept.
    pub buffer_size: usize,
    /// Transitions before learning begins.
    pub learning_starts: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// What the step size comes to, in a straight line, after `schedule_steps`.
    pub final_learning_rate: f64,
    /// Steps after which schedules have reached their ends.
    pub schedule_steps: u64,
    /// The discount.
    pub gamma: f32,
    /// Steps of one transition.
    pub n_step: usize,
    /// Whether the learned network chooses what the target network judges.
    pub double: bool,
    /// Whether the network tells apart what a situation and what a choice is worth.
    pub dueling: bool,
    /// Minibatches after which the target network becomes the learned one.
    pub target_every: u64,
    /// The part of choices that are random, at first.
    pub epsilon: f32,
    /// What it comes to, in a straight line, after `epsilon_steps`.
    pub final_epsilon: f32,
    /// See `final_epsilon`.
    pub epsilon_steps: u64,
    /// Whether transitions with larger errors are learned from more often.
    pub prioritized: bool,
    /// How much larger errors count: 0 not at all, 1 in proportion.
    pub alpha: f64,
    /// How far weights undo that in the loss, at first; wholly after `schedule_steps`.
    pub beta: f64,
    /// The bound of the gradient's norm.
    pub max_grad_norm: f32,
    /// Whether the network has filters before its hidden layers: `mlp` or `cnn`.
    pub net: Net,
    /// Hidden units, layer by layer.
    pub hidden: Vec<usize>,
    /// What hidden layers end in.
    pub activation: Activation,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_workers: 1,
            num_envs: 8,
            num_steps: 16,
            updates: 64,
            batch_size: 64,
            buffer_size: 50_000,
            learning_starts: 1_000,
            learning_rate: 2e-3,
            final_learning_rate: 2e-4,
            schedule_steps: 50_000,
            gamma: 0.99,
            n_step: 3,
            double: true,
            dueling: true,
            target_every: 64,
            epsilon: 1.0,
            final_epsilon: 0.04,
            epsilon_steps: 5_000,
            prioritized: true,
            alpha: 0.6,
            beta: 0.4,
            max_grad_norm: 10.0,
            net: Net::Mlp,
            hidden: vec![64, 64],
            activation: Activation::Relu,
        }
    }
}

const NAME: &str = "DQN";

impl Config {
    /// Refuses what cannot work.
    fn check(&self) -> Result<()> {
        let whole = [
            ("num_workers", self.num_workers),
            ("num_envs", self.num_envs),
            ("num_steps", self.num_steps),
            ("updates", self.updates),
            ("batch_size", self.batch_size),
            ("learning_starts", self.learning_starts),
            ("n_step", self.n_step),
            ("target_every", self.target_every as usize),
        ];
        for (key, value) in whole {
            config::require(NAME, key, value > 0, || "is 0; give at least 1".to_owned())?;
        }
        let room = self.buffer_size >= self.learning_starts;
        config::require(NAME, "buffer_size", room, || {
            format!(
                "is {}, but learning starts with {} transitions (learning_starts)",
                self.buffer_size, self.learning_starts
            )
        })?;
        let parts = [
            ("gamma", f64::from(self.gamma)),
            ("epsilon", f64::from(self.epsilon)),
            ("final_epsilon", f64::from(self.final_epsilon)),
            ("alpha", self.alpha),
            ("beta", self.beta),
        ];
        for (key, value) in parts {
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
        config::require(NAME, "hidden", !self.hidden.contains(&0), || {
            "has a layer of 0 units".to_owned()
        })
    }
}

/// A number on the straight line between two.
fn between(from: f64, to: f64, part: f64) -> f64 {
    from + (to - from) * part
}

/// How much explorer `i` of `n` explores beside the others: the last one as much as asked, the first, where there are several, less
/// (the exponents of Ape-X).
fn own_epsilon(epsilon: f32, i: usize, n: usize) -> f32 {
    let place = (n - 1 - i) as f32 / (n - 1).max(1) as f32;
    epsilon.powf(1.0 + 2.0 * place)
}

/// What the chosen values should have been: the reward, and what the next observation is worth in the target network's eyes.
fn targets(
    net: &QNetwork,
    learned: &[f32],
    target: &[f32],
    rows: &Transitions,
    double: bool,
    tape: &mut Tape,
) -> Vec<f32> {
    let judged = net.values(target, &rows.next, tape);
    let chooser = match double {
        true => net.best(learned, &rows.next, tape),
        false => net.best(target, &rows.next, tape),
    };
    let next = judged.chunks_exact(net.choices()).zip(&chooser);
    let next = next.map(|(row, choice)| row[*choice as usize]);
    let rewards = rows.rewards.iter().zip(&rows.discounts);
    rewards.zip(next).map(|((r, d), v)| r + d * v).collect()
}

/// Huber's loss of the chosen values' errors, weighted; and the errors.
fn loss(
    net: &QNetwork,
    learned: &Weights,
    rows: &Transitions,
    targets: &[f32],
    weights: &[f32],
) -> candle_core::Result<(Tensor, Tensor)> {
    let (n, cpu) = (targets.len(), &Device::Cpu);
    let observations = Tensor::from_slice(&rows.observations, (n, net.inputs()), cpu)?;
    let mut chosen = vec![0.0f32; n * net.choices()];
    for (row, action) in chosen.chunks_exact_mut(net.choices()).zip(&rows.actions) {
        row[*action as usize] = 1.0;
    }
    let chosen = Tensor::from_vec(chosen, (n, net.choices()), cpu)?;
    let values = (net.tensors(&observations, learned)? * chosen)?.sum(1)?;
    let errors = (values - Tensor::from_slice(targets, n, cpu)?)?;
    let size = errors.abs()?;
    let small = size.minimum(1.0)?;
    let huber = (&small * (&size - (&small * 0.5)?)?)?;
    let total = (huber * Tensor::from_slice(weights, n, cpu)?)?.mean_all()?;
    Ok((total, errors))
}

/// The learner, what it remembers, and its explorers.
pub struct Dqn {
    run: Run,
    config: Config,
    net: QNetwork,
    explorers: Crew<Setup, Explorer>,
    learned: Weights,
    target: Vec<f32>,
    adam: Adam,
    memory: Memory,
    rng: Rng,
    updates: u64,
    tape: Tape,
}

impl Dqn {
    /// A learner that knows nothing yet, and its explorers.
    ///
    /// # Errors
    /// [`UnknownEnv`](super::Error::UnknownEnv); [`WrongSpace`](super::Error::WrongSpace) where actions are not choices;
    /// [`BadValue`](super::Error::BadValue) for settings that cannot work.
    ///
    /// ```
    /// use mobula::rl::{Agent, dqn};
    /// let _mobula = mobula::init()?;
    /// let mut dqn = dqn::Dqn::new("CartPole-v1", dqn::Config::default(), 1)?;
    /// let progress = dqn.train()?; // one iteration
    /// assert_eq!(progress.steps, 128);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new(env: &str, config: Config, seed: u64) -> Result<Dqn> {
        config.check()?;
        let setup = Setup {
            env: env.to_owned(),
            envs: config.num_envs as u64,
            steps: config.num_steps as u64,
            hidden: config.hidden.iter().map(|n| *n as u64).collect(),
            relu: config.activation == Activation::Relu,
            cnn: config.net == Net::Cnn,
            dueling: config.dueling,
            gamma: config.gamma,
            n_step: config.n_step as u64,
            seed: (seed, 0),
        };
        let net = setup.network(&*make_vec(env, 1)?)?;
        let mut rng = Rng::stream(seed, u64::MAX);
        let target = net.init(&mut rng);
        let setups = (0..config.num_workers as u64).map(|i| Setup {
            seed: (seed, i),
            ..setup.clone()
        });
        let renew = |setup: &mut Setup| setup.seed.1 += 1 << 32;
        // One stays beside the learner; several go to all machines that there are.
        let hire = match config.num_workers {
            1 => |setup: &Setup| Explorer::remote(setup),
            _ => |setup: &Setup| Explorer::options().spread().remote(setup),
        };
        Ok(Dqn {
            run: Run::new(env, seed),
            explorers: Crew::new(setups.collect(), hire, renew),
            learned: Weights::new(&target)?,
            adam: Adam::new(&[target.len()], 1e-5),
            memory: Memory::new(config.buffer_size, net.inputs(), config.prioritized),
            target,
            net,
            config,
            rng,
            updates: 0,
            tape: Tape::default(),
        })
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// Those of [`new`](Dqn::new); for a checkpoint that is not whole, which row of it is missing.
    pub fn restore(checkpoint: &Checkpoint) -> Result<Dqn> {
        let config = config::parse(NAME, Config::default(), &checkpoint.config)?;
        let mut dqn = Dqn::new(&checkpoint.env, config, checkpoint.seed)?;
        dqn.run.restore(checkpoint)?;
        let row = |name: &str| checkpoint.numbers_of(name, dqn.target.len());
        let (learned, target) = (row("weights")?, row("target")?);
        dqn.learned = Weights::new(learned)?;
        dqn.target = target.to_vec();
        checkpoint.load_adam(&mut dqn.adam)?;
        dqn.memory.load(checkpoint)?;
        dqn.rng = checkpoint.rng("rng")?;
        dqn.updates = checkpoint.counters("updates", 1)?[0];
        let states = checkpoint.collectors()?;
        dqn.explorers.load(states, |c, words| c.load(words))?;
        Ok(dqn)
    }

    /// How often explorers were replaced because they had ended.
    pub fn replaced(&self) -> u64 {
        self.explorers.replaced()
    }

    fn weights(&self) -> Result<Vec<f32>> {
        Ok(self.learned.read(<[f32]>::to_vec)?)
    }

    /// Learns from some minibatches of what is remembered. Gives the mean loss, error and gradient's norm; none before learning begins.
    fn learn(&mut self) -> Result<Option<[f32; 3]>> {
        if self.memory.len() < self.config.learning_starts {
            return Ok(None);
        }
        let config = &self.config;
        let done = self.run.part(config.schedule_steps);
        let rate = between(config.learning_rate, config.final_learning_rate, done);
        let beta = between(config.beta, 1.0, done);
        let mut sums = [0.0f32; 3];
        for _ in 0..config.updates {
            let drawn = self.memory.draw(config.batch_size, beta, &mut self.rng);
            let rows = self.memory.rows(&drawn.indices);
            let (net, target, tape) = (&self.net, &self.target, &mut self.tape);
            let targets = self
                .learned
                .read(|learned| targets(net, learned, target, &rows, config.double, tape))?;
            let (loss, errors) = loss(net, &self.learned, &rows, &targets, &drawn.weights)?;
            let size = self.run.finite("the loss", loss.to_scalar()?)?;
            loss.backward()?;
            let bound = config.max_grad_norm;
            let norm = self.adam.step(&[&self.learned], rate as f32, bound)?;
            self.run.finite("the gradient's norm", norm)?;
            let (memory, alpha) = (&mut self.memory, config.alpha);
            let error = read(&errors, |errors| {
                memory.judge(&drawn.indices, errors, alpha);
                errors.iter().map(|e| e.abs()).sum::<f32>() / errors.len() as f32
            })?;
            for (sum, x) in sums.iter_mut().zip([size, error, norm]) {
                *sum += x / config.updates as f32;
            }
            self.updates += 1;
            if self.updates.is_multiple_of(config.target_every) {
                self.target = self.learned.read(<[f32]>::to_vec)?;
            }
        }
        Ok(Some(sums))
    }
}

impl Agent for Dqn {
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
        // The explorers play with the weights as they are ...
        let before = self.weights()?;
        let weights: ObjectRef<Vec<f32>> = put_slice(&before)?;
        let part = self.run.part(self.config.epsilon_steps);
        let (first, last) = (self.config.epsilon, self.config.final_epsilon);
        let epsilon = between(f64::from(first), f64::from(last), part) as f32;
        let count = self.explorers.len();
        let calls = (0..count)
            .map(|i| {
                let own = own_epsilon(epsilon, i, count);
                self.explorers.call_one(i, |c| c.explore(&weights, own))
            })
            .collect();
        // ... while the learner learns from what was played before ...
        let moments = self.adam.state();
        let learned = self.learn();
        if learned.is_err() {
            self.learned = Weights::new(&before)?;
            self.adam.set_state(moments.0, moments.1);
        }
        let learned = learned?;
        // ... and what they played is kept when both are done.
        let played = self
            .explorers
            .answers(calls, |c| c.explore(&weights, epsilon))?;
        let width = self.net.inputs();
        for batch in &played {
            let rows = &batch.transitions;
            let (seen, next) = (f32::slice(&rows.observations), f32::slice(&rows.next));
            let (rewards, discounts) = (f32::slice(&rows.rewards), f32::slice(&rows.discounts));
            for (i, action) in u32::slice(&rows.actions).iter().enumerate() {
                let part = i * width..(i + 1) * width;
                let (seen, next) = (&seen[part.clone()], &next[part]);
                self.memory
                    .push(seen, *action, rewards[i], discounts[i], next);
            }
            self.run.ended(&batch.episodes);
            self.run.steps += batch.steps.to_native();
        }
        self.run.iteration += 1;
        let mut metrics = vec![("epsilon", epsilon), ("kept", self.memory.len() as f32)];
        if let Some([loss, error, norm]) = learned {
            metrics.extend([("loss", loss), ("error", error), ("grad_norm", norm)]);
        }
        Ok(self.run.progress(metrics))
    }

    fn act(&mut self, observations: &[f32]) -> Result<Actions> {
        let (net, tape) = (&self.net, &mut self.tape);
        let best = self
            .learned
            .read(|weights| net.best(weights, observations, tape))?;
        Ok(Actions::Discrete(best))
    }

    fn evaluate(&self, episodes: usize, seed: u64) -> Result<Evaluation> {
        let weights = self.weights()?;
        let mut tape = Tape::default();
        evaluate(&self.run.env, episodes, seed, |observations, actions| {
            *actions = Actions::Discrete(self.net.best(&weights, observations, &mut tape));
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoint = self.run.checkpoint(NAME, self.config());
        checkpoint.put_numbers("weights", self.weights()?);
        checkpoint.put_numbers("target", self.target.clone());
        checkpoint.put_adam(&self.adam);
        self.memory.save(&mut checkpoint);
        checkpoint.put_words("updates", vec![self.updates]);
        checkpoint.put_words("rng", self.rng.words().to_vec());
        checkpoint.put_collectors(self.explorers.save(|c| c.save())?);
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
