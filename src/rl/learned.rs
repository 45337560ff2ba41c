//! A policy's weights, for whoever takes gradients by them.
//!
//! Invariant: read as one row they are in the order of [`Policy`]'s row. Left out: the policy without candle.

use super::error::Result;
use super::policy::Policy;
use super::weights::Weights;
use candle_core::Tensor;

/// The weights that are learned.
pub(super) struct Learned {
    pub actor: Weights,
    pub log_std: Option<Weights>,
    pub critic: Weights,
}

impl Learned {
    pub fn new(policy: &Policy, weights: &[f32]) -> Result<Learned> {
        let [actor, log_std, critic] = policy.split(weights)?;
        let log_std = (!log_std.is_empty()).then(|| Weights::new(log_std));
        Ok(Learned {
            actor: Weights::new(actor)?,
            log_std: log_std.transpose()?,
            critic: Weights::new(critic)?,
        })
    }

    pub fn rows(&self) -> Vec<&Weights> {
        [Some(&self.actor), self.log_std.as_ref(), Some(&self.critic)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// All weights as one row.
    pub fn row(&self) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        for row in self.rows() {
            row.read(|numbers| all.extend_from_slice(numbers))?;
        }
        Ok(all)
    }

    /// The gradients by all weights as one row; 0 where the loss does not depend on them.
    pub fn gradient(&self, loss: &Tensor) -> Result<Vec<f32>> {
        loss.backward()?;
        Ok(self
            .rows()
            .into_iter()
            .flat_map(Weights::take_slope)
            .collect())
    }
}
