//! The actors that play for DQN: mostly the best choice, sometimes a random one, and transitions over several steps.
//!
//! Invariant: a transition is made when its last step is, or when its episode ends: none is lost and none twice, across
//! batches too. Left out: learning, and keeping transitions.

use crate::rl::collector::foreign;
use crate::rl::distribution::best;
use crate::rl::env::{VecEnv, Words};
use crate::rl::error::{Error, Result};
use crate::rl::layer::Activation;
use crate::rl::mlp::Tape;
use crate::rl::network::{Net, Network};
use crate::rl::player::{Episode, Player};
use crate::rl::q_network::QNetwork;
use crate::rl::replay::Transitions;
use crate::rl::space::{Actions, Space};
use mobula_macros::{remote, value};
use std::collections::VecDeque;

/// What an explorer is made of.
#[value]
#[derive(Clone, Debug)]
pub struct Setup {
    /// The environment.
    pub env: String,
    /// How many of it.
    pub envs: u64,
    /// Steps of each environment in one batch.
    pub steps: u64,
    /// Hidden units of the network.
    pub hidden: Vec<u64>,
    /// Whether hidden layers end in `max(x, 0)` rather than in a hyperbolic tangent.
    pub relu: bool,
    /// Whether the network has filters before its hidden layers.
    pub cnn: bool,
    /// Whether the network is a dueling one.
    pub dueling: bool,
    /// The discount.
    pub gamma: f32,
    /// Steps of one transition.
    pub n_step: u64,
    /// The run's seed, and which explorer this is.
    pub seed: (u64, u64),
}

impl Setup {
    /// The network for these environments.
    pub fn network(&self, envs: &dyn VecEnv) -> Result<QNetwork> {
        let Space::Discrete(choices) = envs.action_space() else {
            return Err(Error::WrongSpace {
                what: "DQN",
                needed: "a number of choices",
                env: self.env.clone(),
                found: envs.action_space().describe(),
            });
        };
        let hidden: Vec<usize> = self.hidden.iter().map(|n| *n as usize).collect();
        let activation = match self.relu {
            true => Activation::Relu,
            false => Activation::Tanh,
        };
        let net = if self.cnn { Net::Cnn } else { Net::Mlp };
        let (seen, outputs) = (
            envs.observation_space(),
            QNetwork::outputs(choices, self.dueling),
        );
        let network = Network::new(net, &self.env, &seen, &hidden, outputs, activation)?;
        Ok(QNetwork::over(network, choices, self.dueling))
    }
}

/// What was played.
#[value]
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// Steps of all environments.
    pub steps: u64,
    /// The transitions that were completed.
    pub transitions: Transitions,
    /// Episodes that ended on the way.
    pub episodes: Vec<Episode>,
}

/// The steps of one environment whose transitions are not complete.
#[derive(Clone, Debug, Default)]
struct Window {
    observations: VecDeque<f32>,
    steps: VecDeque<(u32, f32)>,
}

impl Window {
    fn push(&mut self, seen: &[f32], action: u32) {
        self.observations.extend(seen);
        self.steps.push_back((action, 0.0));
    }

    /// The transition from the oldest step to `next`; `value` says whether what follows has one.
    fn pop(&mut self, gamma: f32, next: &[f32], value: bool, out: &mut Transitions) {
        let (mut reward, mut discount) = (0.0, 1.0);
        for (_, r) in &self.steps {
            reward += discount * r;
            discount *= gamma;
        }
        if let Some((action, _)) = self.steps.pop_front() {
            out.observations
                .extend(self.observations.drain(..next.len()));
            out.actions.push(action);
            out.rewards.push(reward);
            out.discounts.push(if value { discount } else { 0.0 });
            out.next.extend_from_slice(next);
        }
    }
}

/// What plays.
struct Explorers {
    player: Player,
    net: QNetwork,
    windows: Vec<Window>,
    tape: Tape,
}

impl Explorers {
    fn new(setup: &Setup) -> Result<Explorers> {
        let player = Player::new(&setup.env, setup.envs, setup.seed)?;
        Ok(Explorers {
            net: setup.network(&*player.envs)?,
            windows: vec![Window::default(); player.count()],
            player,
            tape: Tape::default(),
        })
    }

    fn explore(&mut self, setup: &Setup, weights: &[f32], epsilon: f32) -> Result<Played> {
        let width = self.net.inputs();
        let mut out = Played::default();
        for _ in 0..setup.steps {
            let player = &mut self.player;
            let values = self
                .net
                .values(weights, &player.steps.observations, &mut self.tape);
            if let Actions::Discrete(choices) = &mut player.actions {
                let rows = values.chunks_exact(self.net.choices());
                for ((i, choice), row) in choices.iter_mut().enumerate().zip(rows) {
                    *choice = match player.rng.uniform() < f64::from(epsilon) {
                        true => player.rng.below(row.len()) as u32,
                        false => best(row) as u32,
                    };
                    let seen = &player.steps.observations[i * width..(i + 1) * width];
                    self.windows[i].push(seen, *choice);
                }
            }
            player.step(&mut out.episodes);
            let (steps, gamma) = (&player.steps, setup.gamma);
            for (i, window) in self.windows.iter_mut().enumerate() {
                if let Some((_, reward)) = window.steps.back_mut() {
                    *reward = steps.rewards[i];
                }
                let part = i * width..(i + 1) * width;
                if steps.over(i) {
                    // Time that is up leaves the value of what was seen last.
                    let value = !steps.terminated[i];
                    while !window.steps.is_empty() {
                        let last = &steps.last[part.clone()];
                        window.pop(gamma, last, value, &mut out.transitions);
                    }
                } else if window.steps.len() as u64 >= setup.n_step {
                    let next = &steps.observations[part];
                    window.pop(gamma, next, true, &mut out.transitions);
                }
            }
            out.steps += self.windows.len() as u64;
        }
        self.player.check()?;
        Ok(out)
    }

    fn save(&self) -> Vec<u64> {
        let mut words = Vec::new();
        self.player.save(&mut words);
        for window in &self.windows {
            words.push(window.steps.len() as u64);
            for (action, reward) in &window.steps {
                words.extend([u64::from(*action), u64::from(reward.to_bits())]);
            }
            words.extend(window.observations.iter().map(|x| u64::from(x.to_bits())));
        }
        words
    }

    fn load(&mut self, words: &mut Words<'_>, n_step: u64) {
        self.player.load(words);
        let width = self.net.inputs();
        let number = |words: &mut Words<'_>| f32::from_bits(words.word() as u32);
        for window in &mut self.windows {
            *window = Window::default();
            let n = words.word().min(n_step) as usize;
            for _ in 0..n {
                let action = words.word() as u32;
                window.steps.push_back((action, number(words)));
            }
            window
                .observations
                .extend((0..n * width).map(|_| number(words)));
        }
    }
}

/// An actor that plays. What it plays with is made at its first call and is not part of its archive.
#[remote]
pub(in crate::rl) struct Explorer {
    setup: Setup,
    #[rkyv(with = rkyv::with::Skip)]
    made: Option<Box<Explorers>>,
}

impl Explorer {
    fn made(&mut self) -> Result<&mut Explorers> {
        match &mut self.made {
            Some(made) => Ok(made),
            none => Ok(none.insert(Box::new(Explorers::new(&self.setup)?))),
        }
    }
}

#[remote]
impl Explorer {
    pub fn new(setup: Setup) -> Self {
        Explorer { setup, made: None }
    }

    /// Plays one batch with these weights, read where they lie; a part `epsilon` of all choices is random.
    pub fn explore(&mut self, weights: &[f32], epsilon: f32) -> Result<Played> {
        let setup = self.setup.clone();
        self.made()?.explore(&setup, weights, epsilon)
    }

    /// All that it knows.
    pub fn save(&mut self) -> Result<Vec<u64>> {
        Ok(self.made()?.save())
    }

    /// Goes on from what `save` gave.
    pub fn load(&mut self, words: Vec<u64>) -> Result<()> {
        let mut words = Words::new(&words);
        let n_step = self.setup.n_step;
        self.made()?.load(&mut words, n_step);
        foreign(&self.setup.env, words.complete())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transitions_over_several_steps_are_those_of_the_formula() {
        let gamma = 0.5;
        let mut window = Window::default();
        let mut out = Transitions::default();
        // Three steps with rewards 1, 2, 4 from what is seen as 0, 1, 2; then 3 is seen.
        for (i, reward) in [1.0, 2.0, 4.0].into_iter().enumerate() {
            window.push(&[i as f32], i as u32);
            window.steps.back_mut().expect("it was pushed").1 = reward;
        }
        window.pop(gamma, &[3.0], true, &mut out);
        window.pop(gamma, &[3.0], false, &mut out);
        assert_eq!(out.observations, [0.0, 1.0]);
        assert_eq!(out.actions, [0, 1]);
        assert_eq!(out.rewards, [1.0 + 1.0 + 1.0, 2.0 + 2.0]);
        assert_eq!(out.discounts, [0.125, 0.0]);
        assert_eq!(out.next, [3.0, 3.0]);
    }

    #[test]
    fn every_step_is_one_transition_across_batches() -> Result<()> {
        let setup = Setup {
            env: "CartPole-v1".to_owned(),
            envs: 2,
            steps: 37,
            hidden: vec![4],
            relu: true,
            cnn: false,
            dueling: true,
            gamma: 1.0,
            n_step: 3,
            seed: (1, 0),
        };
        let mut made = Explorers::new(&setup)?;
        let weights = made.net.init(&mut crate::rl::rng::Rng::new(2));
        let (mut all, mut ended) = (Transitions::default(), 0u32);
        for _ in 0..6 {
            let played = made.explore(&setup, &weights, 0.5)?;
            all.rewards.extend(played.transitions.rewards);
            all.discounts.extend(played.transitions.discounts);
            ended += played.episodes.len() as u32;
        }
        let left: usize = made.windows.iter().map(|w| w.steps.len()).sum();
        assert_eq!(all.rewards.len() + left, 6 * 37 * 2);
        // Each episode ends in transitions of 3, 2 and 1 steps; a pole that falls leaves no value.
        let short = |n: f32| all.rewards.iter().filter(|r| **r == n).count() as u32;
        assert!(ended > 3 && short(1.0) == ended && short(2.0) == ended);
        let ends = all.discounts.iter().filter(|d| **d == 0.0).count() as u32;
        assert_eq!(ends, 3 * ended);
        let mut again = Explorers::new(&setup)?;
        let words = made.save();
        let mut reader = Words::new(&words);
        again.load(&mut reader, setup.n_step);
        assert!(reader.complete());
        let (a, b) = (
            made.explore(&setup, &weights, 0.5)?,
            again.explore(&setup, &weights, 0.5)?,
        );
        assert_eq!(a.transitions, b.transitions);
        Ok(())
    }
}
