//! What layers of all kinds are made of: activations, sums of rows, turned matrices, first weights.
//!
//! Invariant: first weights follow from the generator alone. Left out: the layers.

use super::rng::Rng;
use super::simd::{Kernel, tanh};

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
