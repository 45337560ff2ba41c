//! Rows of weights that are learned, each with its gradient.
//!
//! Invariant: a gradient is what the backward passes since it was last taken have added up to; the numbers change by [`Adam`](super::adam::Adam)
//! alone. Candle's own store of gradients would make a row of zeros for each pass and add to it, and for 65,536 numbers or more do so in as
//! many threads as there are processors, each of which spins until the last is done: that took half the time of a network of
//! 256 x 256 units where other processes ran. Left out: what the rows mean.

use super::storage::read;
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor, Var, bail};
use std::sync::{Arc, Mutex, PoisonError};

/// A row.
pub(super) struct Weights {
    row: Var,
    slope: Slope,
}

/// A gradient that passes add to.
#[derive(Clone, Default)]
pub(super) struct Slope(Arc<Mutex<Vec<f32>>>);

impl Slope {
    /// Adds a pass's gradient of `n` numbers, which `write` writes over zeros.
    pub fn add(&self, n: usize, write: impl FnOnce(&mut [f32])) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sum.is_empty() {
            sum.resize(n, 0.0);
            return write(&mut sum);
        }
        let mut more = vec![0.0; n];
        write(&mut more);
        sum.iter_mut().zip(more).for_each(|(sum, x)| *sum += x);
    }
}

impl Weights {
    /// With these numbers, and no gradient.
    pub fn new(numbers: &[f32]) -> Result<Weights> {
        Ok(Weights {
            row: Var::from_slice(numbers, numbers.len(), &Device::Cpu)?,
            slope: Slope::default(),
        })
    }

    /// The row as candle has it, for operations.
    pub fn tensor(&self) -> &Tensor {
        &self.row
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.row.elem_count()
    }

    /// Reads the numbers where they lie.
    pub fn read<R>(&self, with: impl FnOnce(&[f32]) -> R) -> Result<R> {
        read(&self.row, with)
    }

    /// Where backward passes add.
    pub fn slope(&self) -> Slope {
        self.slope.clone()
    }

    /// Takes the gradient, so that the next one begins from nothing; zeros if the loss did not depend on the row.
    pub fn take_slope(&self) -> Vec<f32> {
        let mut sum = self.slope.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slope = std::mem::take(&mut *sum);
        slope.resize(self.len(), 0.0);
        slope
    }

    /// Gives a gradient's room back, for the next one.
    pub fn recycle(&self, mut slope: Vec<f32>) {
        slope.clear();
        *self.slope.0.lock().unwrap_or_else(PoisonError::into_inner) = slope;
    }

    /// Changes the numbers.
    pub fn change(&self, with: impl Fn(&mut [f32])) -> Result<()> {
        self.row.inplace_op1(&Change(with))
    }
}

struct Change<F>(F);

impl<F: Fn(&mut [f32])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "change"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(numbers), Some((start, end))) = (storage, layout.contiguous_offsets())
        else {
            bail!("weights are contiguous rows of f32");
        };
        (self.0)(&mut numbers[start..end]);
        Ok(())
    }
}
