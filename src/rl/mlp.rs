//! A multilayer perceptron: its shape, its first weights, its forward and backward passes over rows of numbers.
//!
//! Invariant: the weights are one row of `f32`, layer by layer: a matrix of inputs x outputs, then the biases; whoever has
//! the row can use the network, wherever the row lies. Hidden layers end in an [`Activation`], the last one in
//! nothing. Left out: which loss is behind it; `ops.rs` gives the passes to candle.

use super::conv;
use super::layer::{Activate, Activation, Slope, orthogonal_matrix, sum_rows, transpose};
use super::lstm;
use super::matrix::{Begin, Product};
use super::rng::Rng;
use super::simd;

/// The shape of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mlp {
    sizes: Vec<usize>,
    activation: Activation,
}

/// What a forward pass computed, layer by layer: the backward pass needs it, and the next forward pass reuses its
/// memory.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    layers: Vec<Vec<f32>>,
    /// Of what stands before the first layer, if anything does.
    pub(super) filters: Vec<conv::Pass>,
    pub(super) lstm: lstm::Pass,
}

impl Tape {
    /// The rows that the last layer gave.
    pub fn output(&self) -> &[f32] {
        self.layers.last().map_or(&[], Vec::as_slice)
    }
}

impl Mlp {
    /// A network with these numbers of inputs, hidden units and outputs.
    ///
    /// ```
    /// use mobula::rl::{Activation, Mlp, Rng, Tape};
    /// let net = Mlp::new(4, &[64, 64], 2, Activation::Tanh);
    /// let weights = net.orthogonal(&mut Rng::new(0), 2f32.sqrt(), 0.01);
    /// let mut tape = Tape::default();
    /// net.forward(&weights, &[0.1, 0.2, 0.3, 0.4], &mut tape);
    /// assert_eq!(tape.output().len(), 2);
    /// ```
    pub fn new(inputs: usize, hidden: &[usize], outputs: usize, activation: Activation) -> Mlp {
        let mut sizes = vec![inputs];
        sizes.extend(hidden);
        sizes.push(outputs);
        Mlp { sizes, activation }
    }

    /// The same network, with so many numbers that go in.
    pub(super) fn with_inputs(mut self, inputs: usize) -> Mlp {
        self.sizes[0] = inputs;
        self
    }

    /// How many numbers go in.
    pub fn inputs(&self) -> usize {
        self.sizes[0]
    }

    /// How many come out.
    pub fn outputs(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// How many weights there are.
    pub fn weights(&self) -> usize {
        self.sizes.windows(2).map(|s| s[0] * s[1] + s[1]).sum()
    }

    /// First weights: orthogonal matrices, scaled by `hidden_gain` and, for the last layer, by `output_gain`; biases are
    /// zero. (Saxe, McClelland and Ganguli, 2013.)
    pub fn orthogonal(&self, rng: &mut Rng, hidden_gain: f32, output_gain: f32) -> Vec<f32> {
        let mut weights = Vec::with_capacity(self.weights());
        let last = self.sizes.len() - 2;
        for (layer, size) in self.sizes.windows(2).enumerate() {
            let gain = if layer == last {
                output_gain
            } else {
                hidden_gain
            };
            weights.extend(orthogonal_matrix(rng, size[0], size[1], gain));
            weights.extend(std::iter::repeat_n(0.0, size[1]));
        }
        weights
    }

    /// The matrix and the biases of each layer.
    fn layers<'w>(&self, weights: &'w [f32]) -> Vec<(&'w [f32], &'w [f32])> {
        assert_eq!(weights.len(), self.weights(), "weights of another network");
        let mut rest = weights;
        self.sizes
            .windows(2)
            .map(|size| {
                let (matrix, behind) = rest.split_at(size[0] * size[1]);
                let (bias, behind) = behind.split_at(size[1]);
                rest = behind;
                (matrix, bias)
            })
            .collect()
    }

    /// Computes all layers for the rows in `inputs` and leaves them in `tape`.
    pub fn forward(&self, weights: &[f32], inputs: &[f32], tape: &mut Tape) {
        let rows = inputs.len() / self.inputs();
        let layers = self.layers(weights);
        let last = layers.len() - 1;
        tape.layers.resize(layers.len(), Vec::new());
        for (layer, (matrix, bias)) in layers.into_iter().enumerate() {
            let (below, here) = tape.layers.split_at_mut(layer);
            let out = &mut here[0];
            out.resize(rows * bias.len(), 0.0);
            Product {
                m: rows,
                n: bias.len(),
                k: matrix.len() / bias.len(),
                a: below.last().map_or(inputs, Vec::as_slice),
                transposed: false,
                b: matrix,
                begin: Begin::Row(bias),
                c: out,
            }
            .compute();
            if layer < last {
                simd::run(Activate {
                    numbers: out,
                    activation: self.activation,
                });
            }
        }
    }

    /// The gradients of a loss whose gradient by the outputs is `slope`, for the pass that `tape` has: by the weights,
    /// written to `by_weights`, and by the inputs, if `by_inputs` is there.
    pub fn backward(
        &self,
        weights: &[f32],
        inputs: &[f32],
        tape: &Tape,
        slope: &[f32],
        by_weights: &mut [f32],
        mut by_inputs: Option<&mut [f32]>,
    ) {
        let rows = inputs.len() / self.inputs();
        let layers = self.layers(weights);
        let mut slope = slope.to_vec();
        let mut turned = Vec::new();
        let mut end = by_weights.len();
        for (layer, (matrix, bias)) in layers.iter().enumerate().rev() {
            let (outs, ins) = (bias.len(), matrix.len() / bias.len());
            let below = match layer {
                0 => inputs,
                _ => &tape.layers[layer - 1],
            };
            let here = &mut by_weights[end - matrix.len() - outs..end];
            end -= here.len();
            let (by_matrix, by_bias) = here.split_at_mut(matrix.len());
            Product {
                m: ins,
                n: outs,
                k: rows,
                a: below,
                transposed: true,
                b: &slope,
                begin: Begin::Zero,
                c: by_matrix,
            }
            .compute();
            sum_rows(&slope, by_bias);
            if layer == 0 && by_inputs.is_none() {
                break;
            }
            transpose(matrix, outs, &mut turned);
            let mut below_slope = vec![0.0; rows * ins];
            Product {
                m: rows,
                n: ins,
                k: outs,
                a: &slope,
                transposed: false,
                b: &turned,
                begin: Begin::Zero,
                c: &mut below_slope,
            }
            .compute();
            if layer > 0 {
                simd::run(Slope {
                    slope: &mut below_slope,
                    values: below,
                    activation: self.activation,
                });
            } else if let Some(to) = &mut by_inputs {
                to.copy_from_slice(&below_slope);
            }
            slope = below_slope;
        }
    }
}
