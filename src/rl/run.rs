//! What every learner counts: iterations, steps, and the episodes that ended last.
//!
//! Invariant: all of it is in a checkpoint, beside the environment's name and the seed. Left out: what is learned.

use super::agent::{Progress, Recent};
use super::checkpoint::Checkpoint;
use super::error::{Error, Result};
use super::player::{ArchivedEpisode, Episode};

/// How far a run has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    pub env: String,
    pub seed: u64,
    pub iteration: u64,
    pub steps: u64,
    recent: Recent,
}

impl Run {
    pub fn new(env: &str, seed: u64) -> Run {
        Run {
            env: env.to_owned(),
            seed,
            iteration: 0,
            steps: 0,
            recent: Recent::default(),
        }
    }

    /// Counts episodes that ended.
    pub fn ended(&mut self, episodes: &[ArchivedEpisode]) {
        let episode = |e: &ArchivedEpisode| (e.reward.to_native(), e.length.to_native());
        self.recent.extend(episodes.iter().map(episode));
    }

    /// As [`ended`](Run::ended), for episodes that were taken out of the store.
    pub fn played(&mut self, episodes: &[Episode]) {
        self.recent
            .extend(episodes.iter().map(|e| (e.reward, e.length)));
    }

    /// A number that learning goes by, if it is one.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn finite(&self, what: &'static str, value: f32) -> Result<f32> {
        if value.is_finite() {
            return Ok(value);
        }
        Err(Error::NotFinite {
            what,
            value,
            iteration: self.iteration + 1,
            steps: self.steps,
        })
    }

    /// The part of `steps` that is over.
    pub fn part(&self, steps: u64) -> f64 {
        (self.steps as f64 / steps.max(1) as f64).min(1.0)
    }

    /// What there is to say of the run.
    pub fn progress(&self, metrics: Vec<(&'static str, f32)>) -> Progress {
        self.recent.progress(self.iteration, self.steps, metrics)
    }

    /// A checkpoint that has all this.
    pub fn checkpoint(&self, algorithm: &str, config: String) -> Checkpoint {
        let mut checkpoint = Checkpoint::new(algorithm, &self.env, config, self.seed);
        checkpoint.put_words("counters", vec![self.iteration, self.steps]);
        checkpoint.put_numbers("recent", self.recent.numbers());
        checkpoint
    }

    /// Goes on from what `checkpoint` gave.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let counters = checkpoint.counters("counters", 2)?;
        (self.iteration, self.steps) = (counters[0], counters[1]);
        self.recent = Recent::from_numbers(checkpoint.numbers("recent")?);
        Ok(())
    }
}
