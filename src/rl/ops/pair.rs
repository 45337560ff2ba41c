//! Two networks on the same inputs, as one operation.
//!
//! Invariant: outputs and gradients are those of each network alone, bit by bit, whether the passes run side by side or one after the
//! other. Left out: gradients by the inputs.

use super::super::mlp::Tape;
use super::super::network::Network;
use super::super::side;
use super::super::storage::read;
use super::super::weights::{Slope, Weights};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use std::sync::{Arc, Mutex};

/// Rows times weights of a pass from which on another thread is worth its while: about as many multiplications, of filters fewer than there are.
pub(super) const LARGE: usize = 100_000;

/// The outputs of both networks for inputs that are no variables.
pub fn pair(
    networks: [&Network; 2],
    inputs: &Tensor,
    weights: [&Weights; 2],
) -> Result<[Tensor; 2]> {
    let rows = inputs.elem_count() / networks[0].inputs();
    for (network, weights) in networks.iter().zip(weights) {
        let fits =
            weights.len() == network.weights() && inputs.elem_count() == rows * network.inputs();
        if !fits {
            bail!("a network does not fit its inputs or weights");
        }
    }
    let halves = [0, 1].map(|i| {
        Arc::new(Half {
            network: networks[i].clone(),
            inputs: inputs.clone(),
            weights: weights[i].tensor().clone(),
            slope: weights[i].slope(),
            tape: Mutex::default(),
        })
    });
    let (a, b) = (rows * networks[0].outputs(), rows * networks[1].outputs());
    let op = PairOp { halves, rows };
    let both = weights[0].tensor().apply_op2(weights[1].tensor(), op)?;
    Ok([
        both.narrow(0, 0, a)?
            .reshape((rows, networks[0].outputs()))?,
        both.narrow(0, a, b)?
            .reshape((rows, networks[1].outputs()))?,
    ])
}

/// One network with all that its passes need, so that another thread can do them.
struct Half {
    network: Network,
    inputs: Tensor,
    weights: Tensor,
    /// Where the gradient by the weights is added.
    slope: Slope,
    /// What the forward pass computed.
    tape: Mutex<Tape>,
}

impl Half {
    fn forward(&self) -> Result<Vec<f32>> {
        let mut tape = self.tape.lock().expect("nobody panics with it");
        read(&self.inputs, |inputs| {
            read(&self.weights, |weights| {
                self.network.forward(weights, inputs, &mut tape);
            })
        })??;
        Ok(tape.output().to_vec())
    }

    fn backward(&self, slope: &[f32]) -> Result<()> {
        let tape = self.tape.lock().expect("nobody panics with it");
        read(&self.inputs, |inputs| {
            read(&self.weights, |weights| {
                self.slope.add(weights.len(), |to| {
                    let net = &self.network;
                    net.backward(weights, inputs, &tape, slope, to, None);
                });
            })
        })?
    }
}

/// The operation has both rows of weights as its arguments, so that candle goes back through it.
struct PairOp {
    halves: [Arc<Half>; 2],
    rows: usize,
}

impl PairOp {
    /// Does something to each half, side by side if both are large.
    fn both<R: Send + 'static>(
        &self,
        first: impl FnOnce(&Half) -> Result<R>,
        second: impl FnOnce(&Half) -> Result<R> + Send + 'static,
    ) -> Result<[R; 2]> {
        let [a, b] = &self.halves;
        let work = |half: &Half| self.rows * half.network.weights();
        if work(a).min(work(b)) < LARGE {
            return Ok([first(a)?, second(b)?]);
        }
        let (mut here, there) = (None, b.clone());
        let there = side::join(|| here = Some(first(a)), move || second(&there));
        Ok([here.expect("it was done")?, there?])
    }
}

impl CustomOp2 for PairOp {
    fn name(&self) -> &'static str {
        "pair"
    }

    fn cpu_fwd(
        &self,
        _first: &CpuStorage,
        _first_layout: &Layout,
        _second: &CpuStorage,
        _second_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = self.both(Half::forward, Half::forward)?.concat();
        let shape = out.len().into();
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        _first: &Tensor,
        _second: &Tensor,
        _result: &Tensor,
        slope: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let split = self.rows * self.halves[0].network.outputs();
        let (first, second) = read(slope, |slope| {
            let (first, second) = slope.split_at(split);
            (first.to_vec(), second.to_vec())
        })?;
        self.both(
            |half| half.backward(&first),
            move |half| half.backward(&second),
        )?;
        Ok((None, None))
    }
}
