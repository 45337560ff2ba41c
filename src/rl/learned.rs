//! A policy's weights as candle's variables, for whoever takes gradients by them.
//!
//! Invariant: read as one row they are in the order of [`Policy`]'s row. Left out: the policy without candle.

use super::error::Result;
use super::ops;
use super::policy::Policy;
use candle_core::{Device, Tensor, Var};

/// The weights that are learned.
pub(super) struct Learned {
    pub actor: Var,
    pub log_std: Option<Var>,
    pub critic: Var,
}

impl Learned {
    pub fn new(policy: &Policy, weights: &[f32]) -> Result<Learned> {
        let var = |row: &[f32]| Var::from_slice(row, row.len(), &Device::Cpu);
        let [actor, log_std, critic] = policy.split(weights)?;
        Ok(Learned {
            actor: var(actor)?,
            log_std: (!log_std.is_empty()).then(|| var(log_std)).transpose()?,
            critic: var(critic)?,
        })
    }

    pub fn vars(&self) -> Vec<&Var> {
        [Some(&self.actor), self.log_std.as_ref(), Some(&self.critic)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// All weights as one row.
    pub fn row(&self) -> Result<Vec<f32>> {
        let mut row = Vec::new();
        for var in self.vars() {
            ops::read(var, |numbers| row.extend_from_slice(numbers))?;
        }
        Ok(row)
    }

    /// The gradients by all weights as one row; 0 where the loss does not depend on them.
    pub fn gradient(&self, loss: &Tensor) -> Result<Vec<f32>> {
        let grads = loss.backward()?;
        let mut row = Vec::new();
        for var in self.vars() {
            match grads.get(var) {
                Some(grad) => ops::read(grad, |numbers| row.extend_from_slice(numbers))?,
                None => row.resize(row.len() + var.elem_count(), 0.0),
            }
        }
        Ok(row)
    }
}
