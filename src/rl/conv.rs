//! One layer of a convolutional network: filters that are laid over a picture, place by place.
//!
//! Invariant: the places under the filters are copied to rows, so that a layer is one product of matrices; what comes out lies
//! place by place, with the numbers of all filters side by side, as the next layer reads it. Every filter ends in `max(x, 0)`. Left
//! out: edges around the picture, and other distances between places along rows and columns.

use super::layer::{Activate, Activation, Slope, orthogonal_matrix, sum_rows, transpose};
use super::matrix::{Begin, Product};
use super::rng::Rng;
use super::simd;

/// The shape of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conv {
    /// Of the picture: numbers of one pixel, rows, columns.
    pub picture: [usize; 3],
    /// Whether the picture comes as planes, one for each number of a pixel, rather than pixel by pixel.
    pub planes: bool,
    pub filters: usize,
    /// Rows and columns of a filter.
    pub size: usize,
    /// Pixels from one place to the next.
    pub stride: usize,
}

/// What a forward pass computed.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// A row for each place of each picture: what lies under the filters there.
    places: Vec<f32>,
    /// What came out.
    pub out: Vec<f32>,
}

impl Conv {
    /// Numbers of one picture.
    pub fn inputs(&self) -> usize {
        self.picture.iter().product()
    }

    /// Of what comes out: numbers of one place, rows, columns.
    pub fn output(&self) -> [usize; 3] {
        let places = |length: usize| (length - self.size) / self.stride + 1;
        let [_, rows, columns] = self.picture;
        [self.filters, places(rows), places(columns)]
    }

    /// Numbers under a filter.
    fn under(&self) -> usize {
        self.size * self.size * self.picture[0]
    }

    /// How many weights there are: a matrix of numbers under a filter x filters, then the biases.
    pub fn weights(&self) -> usize {
        (self.under() + 1) * self.filters
    }

    /// First weights: orthogonal, scaled by `gain`; biases are zero.
    pub fn orthogonal(&self, rng: &mut Rng, gain: f32) -> Vec<f32> {
        let mut weights = orthogonal_matrix(rng, self.under(), self.filters, gain);
        weights.resize(self.weights(), 0.0);
        weights
    }

    /// Calls `with` for every run of numbers that lie side by side both in the picture and under a filter: where they are in
    /// the picture, in the order in which they stand under filters.
    #[inline(always)]
    fn each_run(&self, mut with: impl FnMut(std::ops::Range<usize>)) {
        let [depth, rows, columns] = self.picture;
        let [_, down, across] = self.output();
        for place in 0..down * across {
            let (top, left) = (place / across * self.stride, place % across * self.stride);
            for row in top..top + self.size {
                if !self.planes {
                    let from = (row * columns + left) * depth;
                    with(from..from + self.size * depth);
                    continue;
                }
                for column in left..left + self.size {
                    for plane in 0..depth {
                        let at = (plane * rows + row) * columns + column;
                        with(at..at + 1);
                    }
                }
            }
        }
    }

    /// Computes the layer for the pictures in `inputs`.
    pub fn forward(&self, weights: &[f32], inputs: &[f32], pass: &mut Pass) {
        let (matrix, bias) = weights.split_at(self.under() * self.filters);
        pass.places.clear();
        for picture in inputs.chunks_exact(self.inputs()) {
            self.each_run(|run| pass.places.extend_from_slice(&picture[run]));
        }
        let places = pass.places.len() / self.under();
        pass.out.resize(places * self.filters, 0.0);
        Product {
            m: places,
            n: self.filters,
            k: self.under(),
            a: &pass.places,
            transposed: false,
            b: matrix,
            begin: Begin::Row(bias),
            c: &mut pass.out,
        }
        .compute();
        simd::run(Activate {
            numbers: &mut pass.out,
            activation: Activation::Relu,
        });
    }

    /// The gradients of a loss whose gradient by what came out is `slope`: by the weights, written to `by_weights`, and by
    /// the pictures, if `by_inputs` is there.
    pub fn backward(
        &self,
        weights: &[f32],
        pass: &Pass,
        mut slope: Vec<f32>,
        by_weights: &mut [f32],
        by_inputs: Option<&mut [f32]>,
    ) {
        let (under, filters) = (self.under(), self.filters);
        let places = pass.places.len() / under;
        simd::run(Slope {
            slope: &mut slope,
            values: &pass.out,
            activation: Activation::Relu,
        });
        let (by_matrix, by_bias) = by_weights.split_at_mut(under * filters);
        Product {
            m: under,
            n: filters,
            k: places,
            a: &pass.places,
            transposed: true,
            b: &slope,
            begin: Begin::Zero,
            c: by_matrix,
        }
        .compute();
        sum_rows(&slope, by_bias);
        let Some(by_inputs) = by_inputs else {
            return;
        };
        let mut turned = Vec::new();
        transpose(&weights[..under * filters], filters, &mut turned);
        let mut by_places = vec![0.0; places * under];
        Product {
            m: places,
            n: under,
            k: filters,
            a: &slope,
            transposed: false,
            b: &turned,
            begin: Begin::Zero,
            c: &mut by_places,
        }
        .compute();
        by_inputs.fill(0.0);
        let mut rest = by_places.as_slice();
        for picture in by_inputs.chunks_exact_mut(self.inputs()) {
            self.each_run(|run| {
                let (here, behind) = rest.split_at(run.len());
                rest = behind;
                for (sum, x) in picture[run].iter_mut().zip(here) {
                    *sum += x;
                }
            });
        }
    }
}
