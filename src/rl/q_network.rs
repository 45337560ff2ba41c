//! A network that says what each choice is worth, plain or dueling (Wang, Schaul, Hessel, van Hasselt, Lanctot and de
//! Freitas, 2015).
//!
//! Invariant: a dueling network's last layer gives the value of what was seen, then the advantage of each choice;
//! a choice is worth the value, plus its advantage less the mean advantage. Both streams share all hidden layers. Left out: learning.

use super::distribution::best;
use super::layer::Activation;
use super::mlp::Tape;
use super::network::Network;
use super::ops;
use super::rng::Rng;
use super::weights::Weights;
use candle_core::{Device, Result, Tensor};

/// The shape of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QNetwork {
    network: Network,
    choices: usize,
    dueling: bool,
}

impl QNetwork {
    /// For rows of `inputs` numbers and so many choices.
    pub fn new(
        inputs: usize,
        hidden: &[usize],
        choices: usize,
        activation: Activation,
        dueling: bool,
    ) -> QNetwork {
        let outputs = QNetwork::outputs(choices, dueling);
        let network = Network::mlp(inputs, hidden, outputs, activation);
        QNetwork::over(network, choices, dueling)
    }

    /// Of a network that gives so many numbers as [`outputs`](QNetwork::outputs) says.
    pub fn over(network: Network, choices: usize, dueling: bool) -> QNetwork {
        QNetwork {
            network,
            choices,
            dueling,
        }
    }

    /// How many numbers the network beneath gives.
    pub fn outputs(choices: usize, dueling: bool) -> usize {
        choices + usize::from(dueling)
    }

    /// How many numbers are seen.
    pub fn inputs(&self) -> usize {
        self.network.inputs()
    }

    /// How many choices there are.
    pub fn choices(&self) -> usize {
        self.choices
    }

    /// First weights.
    pub fn init(&self, rng: &mut Rng) -> Vec<f32> {
        self.network.orthogonal(rng, 2f32.sqrt(), 0.1)
    }

    /// What every choice is worth, for rows of observations: without candle, for acting and for targets.
    pub fn values(&self, weights: &[f32], observations: &[f32], tape: &mut Tape) -> Vec<f32> {
        self.network.forward(weights, observations, tape);
        if !self.dueling {
            return tape.output().to_vec();
        }
        let mut values = Vec::with_capacity(tape.output().len());
        for row in tape.output().chunks_exact(self.choices + 1) {
            let (value, advantages) = (row[0], &row[1..]);
            let mean = advantages.iter().sum::<f32>() / self.choices as f32;
            values.extend(advantages.iter().map(|a| value + a - mean));
        }
        values
    }

    /// The choice that is worth most, for each row.
    pub fn best(&self, weights: &[f32], observations: &[f32], tape: &mut Tape) -> Vec<u32> {
        let values = self.values(weights, observations, tape);
        let rows = values.chunks_exact(self.choices);
        rows.map(|row| best(row) as u32).collect()
    }

    /// What every choice is worth, as tensors.
    pub(super) fn tensors(&self, observations: &Tensor, weights: &Weights) -> Result<Tensor> {
        let out = ops::network(&self.network, observations, weights)?;
        if !self.dueling {
            return Ok(out);
        }
        // One more layer, whose weights do not change. (A product of candle's would ask the system how many processors
        // there are, which takes longer than all else here.)
        let (n, mean) = (self.choices, 1.0 / self.choices as f32);
        let layer = Network::mlp(n + 1, &[], n, Activation::Relu);
        // The value counts for every choice; each advantage for its own, less its part of the mean.
        let matrix = (0..(n + 1) * n).map(|i| match (i / n, i % n) {
            (0, _) => 1.0,
            (row, column) if row - 1 == column => 1.0 - mean,
            _ => -mean,
        });
        let constant: Vec<f32> = matrix.chain(std::iter::repeat_n(0.0, n)).collect();
        let constant = Tensor::from_vec(constant, layer.weights(), &Device::Cpu)?;
        ops::fixed(&layer, &out, &constant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_and_advantages_have_no_mean() -> Result<()> {
        let mut rng = Rng::new(4);
        let seen: Vec<f32> = (0..5 * 3).map(|_| rng.normal() as f32).collect();
        for dueling in [false, true] {
            let net = QNetwork::new(3, &[6], 4, Activation::Tanh, dueling);
            let weights: Vec<f32> = (0..net.init(&mut rng).len())
                .map(|_| rng.normal() as f32)
                .collect();
            let mut tape = Tape::default();
            let plain = net.values(&weights, &seen, &mut tape);
            let seen = Tensor::from_slice(&seen, (5, 3), &Device::Cpu)?;
            let ours = net.tensors(&seen, &Weights::new(&weights)?)?;
            for (a, b) in plain.iter().zip(ours.flatten_all()?.to_vec1::<f32>()?) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
            assert_eq!(plain.len(), 20);
            if dueling {
                // The mean of a row is the value that the network gave.
                for (row, out) in plain.chunks_exact(4).zip(tape.output().chunks_exact(5)) {
                    assert!((row.iter().sum::<f32>() / 4.0 - out[0]).abs() < 1e-5);
                }
            }
        }
        Ok(())
    }
}
