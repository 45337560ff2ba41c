//! Evolution strategies (Salimans, Ho, Chen, Sidor and Sutskever, 2017): the policy is tried with small changes of all its
//! weights, and moves towards those that did well. With no hidden layers it is close to augmented random search (Mania, Guy
//! and Recht, 2018).
//!
//! Invariant: changes are pieces of one table of noise, put once and read where it lies by all; tasks are told where pieces begin, and tell
//! returns. Each change is tried forwards and backwards, in the same episodes; only the order of all returns counts. Tasks
//! have no state, so one that is lost with its machine is run again elsewhere. The curve follows from the seed,
//! whatever the number of machines. Left out: normalised observations (see the wrappers), virtual batch normalisation.

use super::adam::Adam;
use super::agent::{Agent, Progress};
use super::checkpoint::Checkpoint;
use super::config;
use super::env::{Steps, make_vec};
use super::error::Result;
use super::evaluate::{Evaluation, evaluate};
use super::layer::Activation;
use super::mlp::{Mlp, Tape};
use super::player::Episode;
use super::policy::likeliest;
use super::rng::Rng;
use super::run::Run;
use super::space::{Actions, Space};
use crate::api::{ObjectRef, get, put_slice};
use mobula_macros::{remote, value};
use serde::{Deserialize, Serialize};

/// The settings. Their defaults solve CartPole-v1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Tasks of one iteration, among which the changes are divided.
    pub num_workers: usize,
    /// Changes tried in one iteration, each forwards and backwards.
    pub pairs: usize,
    /// Episodes of each trial.
    pub episodes: usize,
    /// The deviation of the changes.
    pub sigma: f32,
    /// Adam's step size.
    pub learning_rate: f32,
    /// How strongly weights are drawn to 0.
    pub weight_decay: f32,
    /// Numbers in the table of noise.
    pub noise_size: usize,
    /// Hidden units, layer by layer.
    pub hidden: Vec<usize>,
    /// What hidden layers end in.
    pub activation: Activation,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            num_workers: 8,
            pairs: 16,
            episodes: 1,
            sigma: 0.1,
            learning_rate: 0.1,
            weight_decay: 0.0,
            noise_size: 1 << 18,
            hidden: vec![],
            activation: Activation::Tanh,
        }
    }
}

const NAME: &str = "ES";

impl Config {
    /// Refuses what cannot work with a policy of so many weights.
    fn check(&self, weights: usize) -> Result<()> {
        let whole = [
            ("num_workers", self.num_workers),
            ("pairs", self.pairs),
            ("episodes", self.episodes),
        ];
        for (key, value) in whole {
            config::require(NAME, key, value > 0, || "is 0; give at least 1".to_owned())?;
        }
        let above = [("sigma", self.sigma), ("learning_rate", self.learning_rate)];
        for (key, value) in above {
            config::require(NAME, key, value > 0.0, || {
                format!("is {value}; it is above 0")
            })?;
        }
        config::require(NAME, "weight_decay", self.weight_decay >= 0.0, || {
            format!("is {}; it is not below 0", self.weight_decay)
        })?;
        config::require(NAME, "noise_size", self.noise_size >= 2 * weights, || {
            format!(
                "is {}, but the policy has {weights} weights: give at least twice as many",
                self.noise_size
            )
        })?;
        config::require(NAME, "hidden", !self.hidden.contains(&0), || {
            "has a layer of 0 units".to_owned()
        })
    }
}

/// What is tried.
#[value]
#[derive(Clone, Debug)]
pub struct Setup {
    /// The environment.
    pub env: String,
    /// Hidden units of the policy.
    pub hidden: Vec<u64>,
    /// Whether hidden layers end in `max(x, 0)` rather than in a hyperbolic tangent.
    pub relu: bool,
    /// Episodes of each trial.
    pub episodes: u64,
    /// The deviation of the changes.
    pub sigma: f32,
}

/// A change of the weights, and the episodes that it is tried in.
#[value]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Where it begins in the table of noise.
    pub begin: u64,
    /// The seed of its episodes.
    pub seed: u64,
}

impl Setup {
    fn policy(&self) -> Result<(Mlp, Space)> {
        let envs = make_vec(&self.env, 1)?;
        let outputs = match envs.action_space() {
            Space::Discrete(n) => n,
            Space::Box { low, .. } => low.len(),
        };
        let hidden: Vec<usize> = self.hidden.iter().map(|n| *n as usize).collect();
        let activation = match self.relu {
            true => Activation::Relu,
            false => Activation::Tanh,
        };
        let inputs = envs.observation_space().len();
        let mlp = Mlp::new(inputs, &hidden, outputs, activation);
        Ok((mlp, envs.action_space()))
    }
}

/// Tries changes of `weights`. Gives the episodes of each, all forwards, then all backwards.
#[remote]
pub(super) fn try_changes(
    setup: Setup,
    weights: &[f32],
    noise: &[f32],
    changes: Vec<Change>,
) -> Result<Vec<Episode>> {
    let (mlp, actions) = setup.policy()?;
    let n = setup.episodes as usize;
    let mut envs = make_vec(&setup.env, n)?;
    let mut steps = Steps::new(n, envs.observation_space().len());
    let mut actions = Actions::zeros(&actions, n);
    let (mut tape, mut tried) = (Tape::default(), Vec::new());
    let mut episodes = Vec::with_capacity(2 * n * changes.len());
    for change in changes {
        let piece = &noise[change.begin as usize..][..weights.len()];
        for sigma in [setup.sigma, -setup.sigma] {
            tried.clear();
            tried.extend(weights.iter().zip(piece).map(|(w, x)| w + sigma * x));
            envs.reset(change.seed, &mut steps.observations);
            let first = episodes.len();
            episodes.resize(first + n, Episode::default());
            let mut playing = vec![true; n];
            while playing.contains(&true) {
                mlp.forward(&tried, &steps.observations, &mut tape);
                likeliest(tape.output(), mlp.outputs(), &mut actions);
                envs.step(&actions, &mut steps);
                for i in (0..n).filter(|i| playing[*i]).collect::<Vec<_>>() {
                    episodes[first + i].reward += steps.rewards[i];
                    episodes[first + i].length += 1;
                    playing[i] = !steps.over(i);
                }
            }
            if let Some(failure) = envs.failure() {
                return Err(failure);
            }
        }
    }
    Ok(episodes)
}

/// The sum of pieces of the noise, each counted as its weight says.
#[remote]
pub(super) fn sum_pieces(
    noise: &[f32],
    begins: Vec<u64>,
    counts: Vec<f32>,
    length: u64,
) -> Vec<f32> {
    let mut sum = vec![0.0; length as usize];
    for (begin, count) in begins.iter().zip(&counts) {
        let piece = &noise[*begin as usize..][..sum.len()];
        for (to, x) in sum.iter_mut().zip(piece) {
            *to += count * x;
        }
    }
    sum
}

/// The sum of two rows.
#[remote]
pub(super) fn add_rows(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The place of each number in the order of all, from -0.5 to 0.5; equal ones share their mean place.
fn centered_ranks(numbers: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
    let last = (numbers.len() - 1).max(1) as f32;
    let mut ranks = vec![0.0; numbers.len()];
    let mut begin = 0;
    for equal in order.chunk_by(|a, b| numbers[*a] == numbers[*b]) {
        let mean = begin as f32 + (equal.len() - 1) as f32 / 2.0;
        for i in equal {
            ranks[*i] = mean / last - 0.5;
        }
        begin += equal.len();
    }
    ranks
}

/// Numbers that one task adds up before a tree of tasks is worth its calls.
const ALONE: usize = 1 << 20;
/// Pieces that each task at the bottom of the tree adds up.
const LEAF: usize = 16;

/// The sum of many pieces: at once if they are few, else by tasks, and the sums of those in pairs.
fn aggregate(
    noise: &ObjectRef<Vec<f32>>,
    begins: &[u64],
    counts: &[f32],
    length: usize,
) -> Result<Vec<f32>> {
    let leaf = match begins.len() * length > ALONE {
        true => LEAF,
        false => begins.len(),
    };
    let parts = begins.chunks(leaf).zip(counts.chunks(leaf));
    let mut sums: Vec<ObjectRef<Vec<f32>>> = parts
        .map(|(b, c)| sum_pieces::remote(noise, b.to_vec(), c.to_vec(), length as u64))
        .collect();
    while sums.len() > 1 {
        sums = sums
            .chunks(2)
            .map(|pair| match pair {
                [a, b] => add_rows::remote(a, b),
                [one] => one.clone(),
                _ => unreachable!("chunks of two"),
            })
            .collect();
    }
    Ok(get(&sums[0])?)
}

/// The learner.
pub struct Es {
    run: Run,
    config: Config,
    setup: Setup,
    policy: Mlp,
    actions: Space,
    weights: Vec<f32>,
    noise: ObjectRef<Vec<f32>>,
    adam: Adam,
    rng: Rng,
    tape: Tape,
}

impl Es {
    /// A learner that knows nothing yet. Makes the table of noise, which takes 25 ns a number.
    ///
    /// # Errors
    /// [`UnknownEnv`](super::Error::UnknownEnv); [`BadValue`](super::Error::BadValue) for settings that cannot work.
    ///
    /// ```
    /// use mobula::rl::{Agent, es};
    /// let _mobula = mobula::init()?;
    /// let mut es = es::Es::new("CartPole-v1", es::Config::default(), 1)?;
    /// let progress = es.train()?; // one iteration
    /// assert_eq!(progress.episodes, 32);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new(env: &str, config: Config, seed: u64) -> Result<Es> {
        let setup = Setup {
            env: env.to_owned(),
            hidden: config.hidden.iter().map(|n| *n as u64).collect(),
            relu: config.activation == Activation::Relu,
            episodes: config.episodes as u64,
            sigma: config.sigma,
        };
        let (policy, actions) = setup.policy()?;
        config.check(policy.weights())?;
        let mut table = Rng::stream(seed, u64::MAX - 1);
        let noise: Vec<f32> = (0..config.noise_size)
            .map(|_| table.normal() as f32)
            .collect();
        let mut rng = Rng::stream(seed, u64::MAX);
        let weights = policy.orthogonal(&mut rng, 2f32.sqrt(), 0.01);
        Ok(Es {
            run: Run::new(env, seed),
            adam: Adam::new(&[weights.len()], 1e-8),
            noise: put_slice(&noise)?,
            config,
            setup,
            policy,
            actions,
            weights,
            rng,
            tape: Tape::default(),
        })
    }

    /// Goes on from a checkpoint.
    ///
    /// # Errors
    /// Those of [`new`](Es::new); for a checkpoint that is not whole, which row of it is missing.
    pub fn restore(checkpoint: &Checkpoint) -> Result<Es> {
        let config = config::parse(NAME, Config::default(), &checkpoint.config)?;
        let mut es = Es::new(&checkpoint.env, config, checkpoint.seed)?;
        es.run.restore(checkpoint)?;
        let row = checkpoint.numbers_of("weights", es.weights.len())?;
        es.weights.copy_from_slice(row);
        checkpoint.load_adam(&mut es.adam)?;
        es.rng = checkpoint.rng("rng")?;
        Ok(es)
    }
}

impl Agent for Es {
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
        // The weights go out as one object; each task is told where its changes begin.
        let weights: ObjectRef<Vec<f32>> = put_slice(&self.weights)?;
        let room = self.config.noise_size - self.weights.len() + 1;
        let changes: Vec<Change> = (0..self.config.pairs)
            .map(|_| Change {
                begin: self.rng.below(room) as u64,
                seed: self.rng.bits(),
            })
            .collect();
        let each = changes.len().div_ceil(self.config.num_workers);
        let calls: Vec<_> = changes
            .chunks(each)
            .map(|part| try_changes::remote(&self.setup, &weights, &self.noise, part.to_vec()))
            .collect();
        // Only returns come back.
        let episodes = get(&calls)?.concat();
        let returns: Vec<f32> = episodes
            .chunks(self.config.episodes)
            .map(|trial| trial.iter().map(|e| e.reward).sum::<f32>())
            .collect();
        for total in &returns {
            self.run.finite("a return", *total)?;
        }
        // What each change counts: how much further up it came forwards than backwards.
        let ranks = centered_ranks(&returns);
        let counts: Vec<f32> = ranks.chunks_exact(2).map(|r| r[0] - r[1]).collect();
        let begins: Vec<u64> = changes.iter().map(|change| change.begin).collect();
        let sum = aggregate(&self.noise, &begins, &counts, self.weights.len())?;
        let scale = 1.0 / (2.0 * counts.len() as f32 * self.config.sigma);
        let (decay, rate) = (self.config.weight_decay, self.config.learning_rate);
        // Adam goes down, so this is the slope of what is lost.
        let slope: Vec<f32> = sum
            .iter()
            .zip(&self.weights)
            .map(|(s, w)| decay * w - scale * s)
            .collect();
        let norm = self
            .adam
            .step_row(&mut self.weights, &slope, rate, f32::INFINITY);
        self.run.finite("the slope's norm", norm)?;
        self.run.iteration += 1;
        self.run.steps += episodes.iter().map(|e| u64::from(e.length)).sum::<u64>();
        self.run.played(&episodes);
        Ok(self.run.progress(vec![("slope_norm", norm)]))
    }

    fn act(&mut self, observations: &[f32]) -> Result<Actions> {
        let rows = observations.len() / self.policy.inputs();
        let mut actions = Actions::zeros(&self.actions, rows);
        self.policy
            .forward(&self.weights, observations, &mut self.tape);
        likeliest(self.tape.output(), self.policy.outputs(), &mut actions);
        Ok(actions)
    }

    fn evaluate(&self, episodes: usize, seed: u64) -> Result<Evaluation> {
        let mut tape = Tape::default();
        evaluate(&self.run.env, episodes, seed, |observations, actions| {
            self.policy.forward(&self.weights, observations, &mut tape);
            likeliest(tape.output(), self.policy.outputs(), actions);
        })
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoint = self.run.checkpoint(NAME, self.config());
        checkpoint.put_numbers("weights", self.weights.clone());
        checkpoint.put_adam(&self.adam);
        checkpoint.put_words("rng", self.rng.words().to_vec());
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
