//! What was played, kept to be learned from again: the last transitions, drawn evenly or by how much there was to learn.
//!
//! Invariant: a ring; the oldest transition makes room for the newest. With priorities a transition is drawn in proportion to its
//! priority, and its weight undoes what that does to the mean (Schaul, Quan, Antonoglou and Silver, 2015: the
//! proportional form, drawn from equal parts of the sum). Left out: who fills it.

mod sum_tree;

pub use sum_tree::SumTree;

use super::checkpoint::Checkpoint;
use super::error::Result;
use super::rng::Rng;
use mobula_macros::value;

/// Transitions, row by row.
#[value]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transitions {
    /// What was seen.
    pub observations: Vec<f32>,
    /// What was chosen.
    pub actions: Vec<u32>,
    /// The discounted sum of rewards up to what was seen next.
    pub rewards: Vec<f32>,
    /// What the value of what was seen next counts: the discount for the steps between; 0 behind an end.
    pub discounts: Vec<f32>,
    /// What was seen next.
    pub next: Vec<f32>,
}

/// A drawn transition's priority and the last ones' room.
#[derive(Clone, Debug)]
pub struct Memory {
    width: usize,
    capacity: usize,
    /// Where the next one goes.
    position: usize,
    kept: Transitions,
    priorities: Option<SumTree>,
    highest: f64,
}

/// What was drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawn {
    /// Where each transition lies.
    pub indices: Vec<usize>,
    /// What each counts in the loss.
    pub weights: Vec<f32>,
}

impl Memory {
    /// Room for `capacity` transitions with observations of `width` numbers.
    ///
    /// ```
    /// use mobula::rl::{Memory, Rng, Transitions};
    /// let mut memory = Memory::new(2, 1, false);
    /// for reward in [1.0, 2.0, 3.0] {
    ///     memory.push(&[0.0], 1, reward, 0.99, &[0.5]);
    /// }
    /// let drawn = memory.draw(4, 0.0, &mut Rng::new(1));
    /// let rows = memory.rows(&drawn.indices);
    /// assert!(rows.rewards.iter().all(|r| *r > 1.0), "the first made room");
    /// ```
    pub fn new(capacity: usize, width: usize, prioritized: bool) -> Memory {
        Memory {
            width,
            capacity,
            position: 0,
            kept: Transitions::default(),
            priorities: prioritized.then(|| SumTree::new(capacity)),
            highest: 1.0,
        }
    }

    /// How many transitions there are.
    pub fn len(&self) -> usize {
        self.kept.actions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.actions.is_empty()
    }

    /// Keeps one transition, with the highest priority there was, so that it is drawn at least once.
    pub fn push(&mut self, seen: &[f32], action: u32, reward: f32, discount: f32, next: &[f32]) {
        let (at, width, kept) = (self.position, self.width, &mut self.kept);
        if at == kept.actions.len() {
            kept.observations.extend_from_slice(seen);
            kept.next.extend_from_slice(next);
            kept.actions.push(action);
            kept.rewards.push(reward);
            kept.discounts.push(discount);
        } else {
            kept.observations[at * width..(at + 1) * width].copy_from_slice(seen);
            kept.next[at * width..(at + 1) * width].copy_from_slice(next);
            kept.actions[at] = action;
            kept.rewards[at] = reward;
            kept.discounts[at] = discount;
        }
        if let Some(priorities) = &mut self.priorities {
            priorities.set(at, self.highest);
        }
        self.position = (at + 1) % self.capacity;
    }

    /// Draws `n` transitions, the same one more than once if chance has it. `beta` says how far their weights undo the
    /// priorities: 0 not at all, 1 wholly.
    pub fn draw(&self, n: usize, beta: f64, rng: &mut Rng) -> Drawn {
        let len = self.len();
        let Some(priorities) = &self.priorities else {
            return Drawn {
                indices: (0..n).map(|_| rng.below(len)).collect(),
                weights: vec![1.0; n],
            };
        };
        let part = priorities.sum() / n as f64;
        let mut drawn = Drawn::default();
        let mut weights = Vec::with_capacity(n);
        for i in 0..n {
            let index = priorities.find(part * (i as f64 + rng.uniform()));
            let share = priorities.get(index) / priorities.sum();
            weights.push((share * len as f64).powf(-beta));
            drawn.indices.push(index);
        }
        // Scaled down only, lest steps become longer.
        let highest = weights.iter().copied().fold(0.0, f64::max);
        drawn.weights = weights.iter().map(|w| (w / highest) as f32).collect();
        drawn
    }

    /// The transitions at these places.
    pub fn rows(&self, indices: &[usize]) -> Transitions {
        let (width, kept) = (self.width, &self.kept);
        let mut rows = Transitions::default();
        for i in indices {
            let part = i * width..(i + 1) * width;
            rows.observations
                .extend_from_slice(&kept.observations[part.clone()]);
            rows.next.extend_from_slice(&kept.next[part]);
            rows.actions.push(kept.actions[*i]);
            rows.rewards.push(kept.rewards[*i]);
            rows.discounts.push(kept.discounts[*i]);
        }
        rows
    }

    /// Gives drawn transitions the priority that their errors make, which is `(|error| + 0.000001)^alpha`.
    pub fn judge(&mut self, indices: &[usize], errors: &[f32], alpha: f64) {
        let Some(priorities) = &mut self.priorities else {
            return;
        };
        for (i, error) in indices.iter().zip(errors) {
            let priority = (f64::from(error.abs()) + 1e-6).powf(alpha);
            self.highest = self.highest.max(priority);
            priorities.set(*i, priority);
        }
    }

    pub(super) fn save(&self, checkpoint: &mut Checkpoint) {
        let kept = &self.kept;
        checkpoint.put_numbers("replay.observations", kept.observations.clone());
        checkpoint.put_numbers("replay.next", kept.next.clone());
        checkpoint.put_numbers("replay.rewards", kept.rewards.clone());
        checkpoint.put_numbers("replay.discounts", kept.discounts.clone());
        let words = |words: &mut dyn Iterator<Item = u64>| words.collect::<Vec<_>>();
        let actions = words(&mut kept.actions.iter().map(|a| u64::from(*a)));
        checkpoint.put_words("replay.actions", actions);
        let state = vec![self.position as u64, self.highest.to_bits()];
        checkpoint.put_words("replay.state", state);
        if let Some(priorities) = &self.priorities {
            let all = words(&mut (0..self.len()).map(|i| priorities.get(i).to_bits()));
            checkpoint.put_words("replay.priorities", all);
        }
    }

    pub(super) fn load(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let actions = checkpoint.words("replay.actions")?;
        let len = actions.len();
        let row = |name: &str, width: usize| -> Result<Vec<f32>> {
            let row = checkpoint.numbers(name)?;
            match row.len() == len * width && len <= self.capacity {
                true => Ok(row.to_vec()),
                false => Err(checkpoint.missing(name)),
            }
        };
        self.kept = Transitions {
            observations: row("replay.observations", self.width)?,
            actions: actions.iter().map(|a| *a as u32).collect(),
            rewards: row("replay.rewards", 1)?,
            discounts: row("replay.discounts", 1)?,
            next: row("replay.next", self.width)?,
        };
        let state = checkpoint.counters("replay.state", 2)?;
        self.position = (state[0] as usize).min(len) % self.capacity;
        self.highest = f64::from_bits(state[1]);
        if let Some(priorities) = &mut self.priorities {
            let all = checkpoint.counters("replay.priorities", len)?;
            for (i, bits) in all.iter().enumerate() {
                priorities.set(i, f64::from_bits(*bits));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
