//! The networks and distributions as operations of candle, each with its own backward pass.
//!
//! Invariant: a whole network is one operation on two tensors, its inputs and its row of weights, so candle's cost per
//! operation is paid once; the gradients are those that candle finds for the same network in its own operations
//! (tests below). Left out: devices other than the CPU.

use super::distribution::{categorical, categorical_slope, gaussian, gaussian_slope};
use super::lstm::LstmState;
use super::mlp::Tape;
use super::network::Network;
use super::storage::{numbers, read};
use super::weights::{Slope, Weights};
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::Mutex;

/// `network(inputs, weights)`, with gradients by both.
pub(super) fn network(network: &Network, inputs: &Tensor, weights: &Weights) -> Result<Tensor> {
    steps(network, inputs, weights, None)
}

/// `network(inputs, weights)`, with the gradient by the inputs alone.
pub(super) fn fixed(network: &Network, inputs: &Tensor, weights: &Tensor) -> Result<Tensor> {
    inputs.apply_op2(weights, NetworkOp::new(network, inputs, None, None))
}

/// As [`network`], for rows that are steps of episodes: what is remembered before the first step, and which rows were the last of
/// their episodes, as [`Network::advance`] has them.
pub(super) fn steps(
    network: &Network,
    inputs: &Tensor,
    weights: &Weights,
    began: Option<(&LstmState, &[bool])>,
) -> Result<Tensor> {
    let op = NetworkOp::new(network, inputs, began, Some(weights.slope()));
    inputs.apply_op2(weights.tensor(), op)
}

struct NetworkOp {
    network: Network,
    /// Where the gradient by the weights is added, if they are learned.
    slope: Option<Slope>,
    began: Option<(LstmState, Vec<bool>)>,
    /// What the forward pass computed.
    tape: Mutex<Tape>,
    /// Whether the gradient by the inputs is wanted.
    inputs: bool,
}

impl NetworkOp {
    fn new(
        network: &Network,
        inputs: &Tensor,
        began: Option<(&LstmState, &[bool])>,
        slope: Option<Slope>,
    ) -> NetworkOp {
        NetworkOp {
            network: network.clone(),
            slope,
            began: began.map(|(state, over)| (state.clone(), over.to_vec())),
            tape: Mutex::new(Tape::default()),
            inputs: inputs.track_op(),
        }
    }
}

impl CustomOp2 for NetworkOp {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(
        &self,
        inputs: &CpuStorage,
        inputs_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = numbers(inputs, inputs_layout)?;
        let weights = numbers(weights, weights_layout)?;
        if weights.len() != self.network.weights() || inputs.len() % self.network.inputs() != 0 {
            bail!("the network does not fit its inputs or weights");
        }
        let mut tape = self.tape.lock().expect("nobody panics with it");
        match &self.began {
            None => self.network.forward(weights, inputs, &mut tape),
            Some((state, over)) => {
                let mut state = state.clone();
                self.network
                    .advance(weights, inputs, over, &mut state, &mut tape);
            }
        }
        let rows = inputs.len() / self.network.inputs();
        Ok((
            CpuStorage::F32(tape.output().to_vec()),
            (rows, self.network.outputs()).into(),
        ))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        weights: &Tensor,
        _result: &Tensor,
        slope: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let tape = self.tape.lock().expect("nobody panics with it");
        let mut by_inputs = self.inputs.then(|| vec![0.0; inputs.elem_count()]);
        read(inputs, |inputs| {
            read(weights, |weights| {
                read(slope, |slope| {
                    let by_inputs = by_inputs.as_deref_mut();
                    let backward = |by_weights: &mut [f32]| {
                        let net = &self.network;
                        net.backward(weights, inputs, &tape, slope, by_weights, by_inputs);
                    };
                    let nobody = Slope::default();
                    let to = self.slope.as_ref().unwrap_or(&nobody);
                    to.add(weights.len(), backward);
                })
            })
        })???;
        let by_inputs = by_inputs
            .map(|numbers| Tensor::from_vec(numbers, inputs.shape(), inputs.device()))
            .transpose()?;
        Ok((by_inputs, None))
    }
}

/// For rows of logits and the choices made: rows of the choice's log-probability and the entropy.
pub(super) fn categorical_terms(logits: &Tensor, choices: &Tensor) -> Result<Tensor> {
    logits.apply_op2(choices, CategoricalOp)
}

struct CategoricalOp;

impl CustomOp2 for CategoricalOp {
    fn name(&self) -> &'static str {
        "categorical"
    }

    fn cpu_fwd(
        &self,
        logits: &CpuStorage,
        logits_layout: &Layout,
        choices: &CpuStorage,
        choices_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let width = logits_layout.dims()[1];
        let rows = numbers(logits, logits_layout)?.chunks_exact(width);
        let out = rows
            .zip(numbers(choices, choices_layout)?)
            .flat_map(|(row, choice)| categorical(row, *choice as usize))
            .collect::<Vec<f32>>();
        let shape = (out.len() / 2, 2).into();
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        logits: &Tensor,
        choices: &Tensor,
        _result: &Tensor,
        slope: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = logits.dims()[1];
        let mut by_logits = vec![0.0; logits.elem_count()];
        read(logits, |logits| {
            read(choices, |choices| {
                read(slope, |slope| {
                    for (i, to) in by_logits.chunks_exact_mut(width).enumerate() {
                        let row = &logits[i * width..(i + 1) * width];
                        categorical_slope(
                            row,
                            choices[i] as usize,
                            slope[2 * i],
                            slope[2 * i + 1],
                            to,
                        );
                    }
                })
            })
        })???;
        let by_logits = Tensor::from_vec(by_logits, logits.shape(), logits.device())?;
        Ok((Some(by_logits), None))
    }
}

/// For rows of means and actions, with one row of logarithms of standard deviations in front of the weights' end: rows
/// of the action's log-density and the entropy.
pub(super) fn gaussian_terms(
    means: &Tensor,
    log_std: &Weights,
    actions: &Tensor,
) -> Result<Tensor> {
    let (storage, layout) = actions.storage_and_layout();
    let actions = match &*storage {
        Storage::Cpu(storage) => numbers(storage, layout)?.to_vec(),
        _ => bail!("the operation runs on the CPU alone"),
    };
    let slope = log_std.slope();
    means.apply_op2(log_std.tensor(), GaussianOp { actions, slope })
}

struct GaussianOp {
    actions: Vec<f32>,
    /// Where the gradient by the deviations is added.
    slope: Slope,
}

impl CustomOp2 for GaussianOp {
    fn name(&self) -> &'static str {
        "gaussian"
    }

    fn cpu_fwd(
        &self,
        means: &CpuStorage,
        means_layout: &Layout,
        log_std: &CpuStorage,
        log_std_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let log_std = numbers(log_std, log_std_layout)?;
        let out = numbers(means, means_layout)?
            .chunks_exact(log_std.len())
            .zip(self.actions.chunks_exact(log_std.len()))
            .flat_map(|(mean, action)| gaussian(mean, log_std, action))
            .collect::<Vec<f32>>();
        let shape = (out.len() / 2, 2).into();
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(
        &self,
        means: &Tensor,
        log_std: &Tensor,
        _result: &Tensor,
        slope: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = log_std.elem_count();
        let mut by_means = vec![0.0; means.elem_count()];
        read(means, |means| {
            read(log_std, |log_std| {
                read(slope, |slope| {
                    self.slope.add(width, |by_log_std| {
                        for (i, to) in by_means.chunks_exact_mut(width).enumerate() {
                            let part = i * width..(i + 1) * width;
                            let (mean, action) = (&means[part.clone()], &self.actions[part]);
                            let slope = [slope[2 * i], slope[2 * i + 1]];
                            gaussian_slope(mean, log_std, action, slope, to, by_log_std);
                        }
                    });
                })
            })
        })???;
        let by_means = Tensor::from_vec(by_means, means.shape(), means.device())?;
        Ok((Some(by_means), None))
    }
}

mod pair;
pub(super) use pair::pair;

#[cfg(test)]
mod tests;
