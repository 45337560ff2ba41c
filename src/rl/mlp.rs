//! A multilayer perceptron: its shape, its first weights, its forward and backward passes over rows of numbers.
//!
//! Invariant: the weights are one row of `f32`, layer by layer: a matrix of inputs x outputs, then the biases; whoever has
//! the row can use the network, wherever the row lies. Hidden layers end in an [`Activation`], the last one in
//! nothing. Left out: which loss is behind it; `ops.rs` gives the passes to candle.

use super::conv;
use super::lstm;
use super::matrix::{Begin, Product};
use super::rng::Rng;
use super::simd::{self, Kernel, tanh};

/// What follows a hidden layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The hyperbolic tangent.
    #[default]
    Tanh,
    /// `max(x, 0)`.
    Relu,
}

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

/// The sum of all rows, each as long as `sum`.
pub(super) fn sum_rows(rows: &[f32], sum: &mut [f32]) {
    sum.fill(0.0);
    for row in rows.chunks_exact(sum.len()) {
        for (sum, x) in sum.iter_mut().zip(row) {
            *sum += x;
        }
    }
}

/// The columns of a matrix with rows of `width`, one after the other.
pub(super) fn transpose(matrix: &[f32], width: usize, to: &mut Vec<f32>) {
    to.clear();
    to.reserve(matrix.len());
    for column in 0..width {
        to.extend(matrix[column..].iter().step_by(width));
    }
}

/// Applies an activation to all numbers.
pub(super) struct Activate<'a> {
    pub numbers: &'a mut [f32],
    pub activation: Activation,
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        match self.activation {
            Activation::Tanh => {
                for x in self.numbers {
                    *x = tanh::<FMA>(*x);
                }
            }
            Activation::Relu => {
                for x in self.numbers {
                    *x = x.max(0.0);
                }
            }
        }
    }
}

/// Multiplies by the slope of the activation, from the values that it gave.
pub(super) struct Slope<'a> {
    pub slope: &'a mut [f32],
    pub values: &'a [f32],
    pub activation: Activation,
}

impl Kernel for Slope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        match self.activation {
            Activation::Tanh => {
                for (s, y) in self.slope.iter_mut().zip(self.values) {
                    *s *= 1.0 - y * y;
                }
            }
            Activation::Relu => {
                for (s, y) in self.slope.iter_mut().zip(self.values) {
                    *s = if *y > 0.0 { *s } else { 0.0 };
                }
            }
        }
    }
}

/// A matrix of `rows x columns` whose rows or columns, whichever are fewer, are orthogonal and of length `gain`: Gram
/// and Schmidt on random vectors, in `f64`.
pub(super) fn orthogonal_matrix(rng: &mut Rng, rows: usize, columns: usize, gain: f32) -> Vec<f32> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut vector: Vec<f64> = (0..length).map(|_| rng.normal()).collect();
        // Twice, since the first time leaves what rounding lost.
        for _ in 0..2 {
            for other in &vectors {
                let along: f64 = other.iter().zip(&vector).map(|(a, b)| a * b).sum();
                for (x, o) in vector.iter_mut().zip(other) {
                    *x -= along * o;
                }
            }
        }
        let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-6 {
            vectors.push(vector.into_iter().map(|x| x / norm).collect());
        }
    }
    (0..rows * columns)
        .map(|i| {
            let (row, column) = (i / columns, i % columns);
            let x = if rows <= columns {
                vectors[row][column]
            } else {
                vectors[column][row]
            };
            gain * x as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_weights_are_orthogonal() {
        for (rows, columns) in [(3, 7), (7, 3), (5, 5)] {
            let m = orthogonal_matrix(&mut Rng::new(2), rows, columns, 2.0);
            let at = |i: usize, j: usize| f64::from(m[i * columns + j]);
            let few = rows.min(columns);
            for a in 0..few {
                for b in 0..few {
                    let dot: f64 = if rows <= columns {
                        (0..columns).map(|j| at(a, j) * at(b, j)).sum()
                    } else {
                        (0..rows).map(|i| at(i, a) * at(i, b)).sum()
                    };
                    let want = if a == b { 4.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{rows}x{columns} {a} {b}: {dot}");
                }
            }
        }
    }
}
