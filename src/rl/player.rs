//! What every actor that plays has: environments, the actions it takes in them, random numbers, and the sums of episodes
//! under way.
//!
//! Invariant: what is played follows from the seed, the player's number and the actions; all of it can be taken as words,
//! and given back. Left out: how actions are chosen.

use super::env::{Steps, VecEnv, Words, make_vec};
use super::error::Result;
use super::rng::Rng;
use super::space::Actions;
use mobula_macros::value;

/// One episode that ended.
#[value]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Episode {
    /// The sum of its rewards.
    pub reward: f32,
    /// Its number of steps.
    pub length: u32,
}

/// Environments that are played in.
pub(super) struct Player {
    pub envs: Box<dyn VecEnv>,
    /// What the last step gave.
    pub steps: Steps,
    /// What is done next.
    pub actions: Actions,
    pub rng: Rng,
    /// Of the episodes under way.
    under_way: Vec<Episode>,
}

impl Player {
    /// `n` environments at the beginning of their first episodes. `seed` is the run's and the player's number.
    pub fn new(env: &str, n: u64, seed: (u64, u64)) -> Result<Player> {
        let mut envs = make_vec(env, n as usize)?;
        let n = envs.count();
        let mut rng = Rng::stream(seed.0, seed.1);
        let mut steps = Steps::new(n, envs.observation_space().len());
        envs.reset(rng.bits(), &mut steps.observations);
        Ok(Player {
            actions: Actions::zeros(&envs.action_space(), n),
            envs,
            steps,
            rng,
            under_way: vec![Episode::default(); n],
        })
    }

    /// How many environments there are.
    pub fn count(&self) -> usize {
        self.under_way.len()
    }

    /// Takes the actions. Episodes that ended by it are appended to `ended`.
    pub fn step(&mut self, ended: &mut Vec<Episode>) {
        self.envs.step(&self.actions, &mut self.steps);
        for (i, episode) in self.under_way.iter_mut().enumerate() {
            episode.reward += self.steps.rewards[i];
            episode.length += 1;
            if self.steps.over(i) {
                ended.push(*episode);
                *episode = Episode::default();
            }
        }
    }

    /// Fails if an environment plays no more.
    pub fn check(&self) -> Result<()> {
        self.envs.failure().map_or(Ok(()), Err)
    }

    /// Appends all that it knows.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.extend(self.rng.words());
        self.envs.save(words);
        for episode in &self.under_way {
            words.extend([
                u64::from(episode.reward.to_bits()),
                u64::from(episode.length),
            ]);
        }
        let bits = self.steps.observations.iter().map(|x| x.to_bits());
        words.extend(bits.map(u64::from));
    }

    /// Takes back what `save` wrote.
    pub fn load(&mut self, words: &mut Words<'_>) {
        self.rng = words.rng();
        self.envs.load(words);
        for episode in &mut self.under_way {
            episode.reward = f32::from_bits(words.word() as u32);
            episode.length = words.word() as u32;
        }
        for x in &mut self.steps.observations {
            *x = f32::from_bits(words.word() as u32);
        }
    }
}
