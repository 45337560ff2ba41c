//! An episode under way as what began it and what was done: how environments are saved that cannot tell their state.
//!
//! Invariant: every episode begins with a seed from our own generator, so seed and actions are the episode. Left out: playing it
//! again, which each environment does for itself.

use super::Words;
use crate::rl::rng::Rng;
use crate::rl::space::Action;

/// An episode under way, and the random numbers that the next ones begin with.
pub(super) struct Episode {
    pub rng: Rng,
    pub seed: u64,
    /// As words, one or more for each.
    pub actions: Vec<u32>,
}

impl Episode {
    /// None yet.
    pub fn new(seed: u64) -> Episode {
        Episode {
            rng: Rng::new(seed),
            seed: 0,
            actions: Vec::new(),
        }
    }

    /// Begins the next one, whose seed this gives.
    pub fn begin(&mut self) -> u64 {
        self.seed = self.rng.bits();
        self.actions.clear();
        self.seed
    }

    /// Notes an action; gives its words.
    pub fn act(&mut self, action: Action<'_>) -> &[u32] {
        let before = self.actions.len();
        match action {
            Action::Discrete(choice) => self.actions.push(choice as u32),
            Action::Continuous(numbers) => self.actions.extend(numbers.iter().map(|x| x.to_bits())),
        }
        &self.actions[before..]
    }

    /// Appends it.
    pub fn save(&self, words: &mut Vec<u64>) {
        words.extend(self.rng.words());
        words.extend([self.seed, self.actions.len() as u64]);
        words.extend(self.actions.iter().map(|word| u64::from(*word)));
    }

    /// What `save` appended.
    pub fn load(words: &mut Words<'_>) -> Episode {
        let rng = words.rng();
        let (seed, n) = (words.word(), words.word());
        let actions = words.take(n).iter().map(|word| *word as u32).collect();
        Episode { rng, seed, actions }
    }
}
