//! A layer of long short-term memory (Hochreiter and Schmidhuber, 1997), with gates that forget (Gers, Schmidhuber and Cummins,
//! 2000).
//!
//! Invariant: rows come step by step, those of one step side by side, one for each environment; between steps an
//! [`LstmState`] goes from row to row, and where an episode is over the next step begins with zeros. Played step by step
//! or all at once, the same numbers come out. Gradients go back to the first step that was given and no further: the state
//! there is taken as it is. Left out: gates that see the cells, and several such layers.

use super::layer::{orthogonal_matrix, sum_rows, transpose};
use super::matrix::{Begin, Product};
use super::rng::Rng;
use super::simd::{self, Kernel, sigmoid, tanh};
use mobula_macros::value;

/// The shape of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lstm {
    pub inputs: usize,
    pub units: usize,
}

/// What a layer remembers of some rows: zeros where an episode begins. A network without such a layer remembers nothing.
#[value]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LstmState {
    /// Units of the layer.
    units: u64,
    /// What the units gave last, row by row.
    hidden: Vec<f32>,
    /// What their cells hold.
    cells: Vec<f32>,
}

impl LstmState {
    /// That of `rows` episodes that begin, for a layer of so many units.
    pub(super) fn new(units: usize, rows: usize) -> LstmState {
        LstmState {
            units: units as u64,
            hidden: vec![0.0; units * rows],
            cells: vec![0.0; units * rows],
        }
    }

    /// Makes it one of `rows` rows; if it was another one, all of them begin.
    pub(super) fn fit(&mut self, units: usize, rows: usize) {
        if self.units != units as u64 || self.hidden.len() != units * rows {
            *self = LstmState::new(units, rows);
        }
    }

    fn row(&self, row: usize) -> std::ops::Range<usize> {
        let units = self.units as usize;
        row * units..(row + 1) * units
    }

    /// Begins an episode in a row; one that there is not yet begins anyway.
    pub(super) fn forget(&mut self, row: usize) {
        let row = self.row(row);
        for numbers in [&mut self.hidden, &mut self.cells] {
            if let Some(numbers) = numbers.get_mut(row.clone()) {
                numbers.fill(0.0);
            }
        }
    }

    /// A copy of `count` rows from `first` on; nothing, where there are not as many.
    pub(super) fn rows(&self, first: usize, count: usize) -> LstmState {
        let part = self.row(first).start..self.row(first + count).start;
        let copy = |numbers: &[f32]| {
            numbers
                .get(part.clone())
                .map_or_else(Vec::new, <[f32]>::to_vec)
        };
        LstmState {
            units: self.units,
            hidden: copy(&self.hidden),
            cells: copy(&self.cells),
        }
    }

    /// All its numbers, to be written down or to be set.
    pub(super) fn numbers(&mut self) -> impl Iterator<Item = &mut f32> {
        self.hidden.iter_mut().chain(&mut self.cells)
    }
}

/// What a forward pass computed.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    /// Rows of what went in, each with what the units gave the step before behind it.
    joined: Vec<f32>,
    /// Rows of what the gates came to: those that let in, forget and let out, then what is let in.
    gates: Vec<f32>,
    /// What the cells held before.
    before: Vec<f32>,
    /// Hyperbolic tangents of what they hold after.
    squashed: Vec<f32>,
    /// Whose episode each step but the last ended.
    over: Vec<bool>,
    /// What came out.
    pub out: Vec<f32>,
}

impl Lstm {
    /// Numbers of a joined row.
    fn width(&self) -> usize {
        self.inputs + self.units
    }

    /// How many weights there are: a matrix of joined numbers x gates, then the biases.
    pub fn weights(&self) -> usize {
        (self.width() + 1) * 4 * self.units
    }

    /// First weights: each gate has an orthogonal matrix for what goes in and one for what the units gave. Biases are zero, but
    /// for those of forgetting: 1, so that cells hold what they have.
    pub fn orthogonal(&self, rng: &mut Rng) -> Vec<f32> {
        let (units, columns) = (self.units, 4 * self.units);
        let mut weights = vec![0.0; self.weights()];
        for gate in 0..4 {
            for (first, rows) in [(0, self.inputs), (self.inputs, units)] {
                let matrix = orthogonal_matrix(rng, rows, units, 1.0);
                for (i, row) in matrix.chunks_exact(units).enumerate() {
                    let at = (first + i) * columns + gate * units;
                    weights[at..at + units].copy_from_slice(row);
                }
            }
        }
        let biases = self.width() * columns;
        weights[biases + units..biases + 2 * units].fill(1.0);
        weights
    }

    /// Computes the rows in `inputs`, one step of the state's rows after the other, and leaves the state as it is after the last one.
    /// `over` says whose episode ended with which of the steps; what the last one ended is for the caller to forget.
    pub fn forward(
        &self,
        weights: &[f32],
        inputs: &[f32],
        over: &[bool],
        state: &mut LstmState,
        pass: &mut Pass,
    ) {
        let (units, columns, width) = (self.units, 4 * self.units, self.width());
        let (rows, n) = (inputs.len() / self.inputs, state.hidden.len() / units);
        assert!(
            n > 0 && rows.is_multiple_of(n) && over.len() + n >= rows,
            "{rows} rows are no steps of {n}, or it is not known where their episodes end"
        );
        let (matrix, bias) = weights.split_at(width * columns);
        pass.over.clear();
        pass.over.extend_from_slice(&over[..rows - n]);
        pass.joined.clear();
        pass.before.clear();
        pass.gates.resize(rows * columns, 0.0);
        pass.squashed.resize(rows * units, 0.0);
        pass.out.resize(rows * units, 0.0);
        for first in (0..rows).step_by(n) {
            for i in 0..n {
                if first > 0 && over[first - n + i] {
                    state.forget(i);
                }
                let row = first + i;
                let seen = &inputs[row * self.inputs..(row + 1) * self.inputs];
                pass.joined.extend_from_slice(seen);
                pass.joined.extend_from_slice(&state.hidden[state.row(i)]);
            }
            pass.before.extend_from_slice(&state.cells);
            let gates = &mut pass.gates[first * columns..(first + n) * columns];
            Product {
                m: n,
                n: columns,
                k: width,
                a: &pass.joined[first * width..],
                transposed: false,
                b: matrix,
                begin: Begin::Row(bias),
                c: gates,
            }
            .compute();
            let here = first * units..(first + n) * units;
            simd::run(Step {
                units,
                gates,
                cells: &mut state.cells,
                squashed: &mut pass.squashed[here.clone()],
                out: &mut pass.out[here.clone()],
            });
            state.hidden.copy_from_slice(&pass.out[here]);
        }
    }

    /// The gradients of a loss whose gradient by what came out is `slope`: by the weights, written to `by_weights`, and by
    /// what went in, if `by_inputs` is there.
    pub fn backward(
        &self,
        weights: &[f32],
        pass: &Pass,
        slope: &[f32],
        by_weights: &mut [f32],
        mut by_inputs: Option<&mut [f32]>,
    ) {
        let (units, columns, width) = (self.units, 4 * self.units, self.width());
        let rows = pass.out.len() / units;
        let n = rows - pass.over.len();
        let mut turned = Vec::new();
        transpose(&weights[..width * columns], columns, &mut turned);
        let mut by_gates = vec![0.0; rows * columns];
        let mut by_joined = vec![0.0; n * width];
        // By what goes from a step to the next one: what units gave, and cells.
        let (mut by_hidden, mut by_cells) = (vec![0.0; n * units], vec![0.0; n * units]);
        for first in (0..rows).step_by(n).rev() {
            let here = first * units..(first + n) * units;
            for (later, own) in by_hidden.iter_mut().zip(&slope[here.clone()]) {
                *later += own;
            }
            let by_gates = &mut by_gates[first * columns..(first + n) * columns];
            simd::run(StepSlope {
                units,
                gates: &pass.gates[first * columns..(first + n) * columns],
                before: &pass.before[here.clone()],
                squashed: &pass.squashed[here],
                by_hidden: &by_hidden,
                by_cells: &mut by_cells,
                by_gates,
            });
            Product {
                m: n,
                n: width,
                k: columns,
                a: by_gates,
                transposed: false,
                b: &turned,
                begin: Begin::Zero,
                c: &mut by_joined,
            }
            .compute();
            for (i, row) in by_joined.chunks_exact(width).enumerate() {
                let (seen, given) = row.split_at(self.inputs);
                if let Some(to) = &mut by_inputs {
                    let row = first + i;
                    to[row * self.inputs..(row + 1) * self.inputs].copy_from_slice(seen);
                }
                let part = i * units..(i + 1) * units;
                if first > 0 && pass.over[first - n + i] {
                    by_hidden[part.clone()].fill(0.0);
                    by_cells[part].fill(0.0);
                } else {
                    by_hidden[part].copy_from_slice(given);
                }
            }
        }
        let (by_matrix, by_bias) = by_weights.split_at_mut(width * columns);
        Product {
            m: width,
            n: columns,
            k: rows,
            a: &pass.joined,
            transposed: true,
            b: &by_gates,
            begin: Begin::Zero,
            c: by_matrix,
        }
        .compute();
        sum_rows(&by_gates, by_bias);
    }
}

/// From what the gates' sums are to what comes out of the units, for the rows of one step.
struct Step<'a> {
    units: usize,
    gates: &'a mut [f32],
    cells: &'a mut [f32],
    squashed: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let units = self.units;
        let rows = self.gates.chunks_exact_mut(4 * units);
        let cells = self.cells.chunks_exact_mut(units);
        let squashed = self.squashed.chunks_exact_mut(units);
        let out = self.out.chunks_exact_mut(units);
        for (((gates, cells), squashed), out) in rows.zip(cells).zip(squashed).zip(out) {
            let (open, new) = gates.split_at_mut(3 * units);
            for x in open.iter_mut() {
                *x = sigmoid::<FMA>(*x);
            }
            for x in new.iter_mut() {
                *x = tanh::<FMA>(*x);
            }
            let (inward, rest) = open.split_at(units);
            let (keep, outward) = rest.split_at(units);
            for j in 0..units {
                cells[j] = keep[j] * cells[j] + inward[j] * new[j];
                squashed[j] = tanh::<FMA>(cells[j]);
                out[j] = outward[j] * squashed[j];
            }
        }
    }
}

/// From the gradient by what came out of one step's units to that by the gates' sums, and by the cells before.
struct StepSlope<'a> {
    units: usize,
    gates: &'a [f32],
    before: &'a [f32],
    squashed: &'a [f32],
    by_hidden: &'a [f32],
    by_cells: &'a mut [f32],
    by_gates: &'a mut [f32],
}

impl Kernel for StepSlope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let units = self.units;
        let rows = self.gates.chunks_exact(4 * units);
        let slopes = self.by_gates.chunks_exact_mut(4 * units);
        for (row, (gates, to)) in rows.zip(slopes).enumerate() {
            let part = row * units..(row + 1) * units;
            let (before, squashed) = (&self.before[part.clone()], &self.squashed[part.clone()]);
            let (by_hidden, by_cells) = (&self.by_hidden[part.clone()], &mut self.by_cells[part]);
            for j in 0..units {
                let [inward, keep, outward, new] = [0, 1, 2, 3].map(|gate| gates[gate * units + j]);
                let cell = by_cells[j] + by_hidden[j] * outward * (1.0 - squashed[j] * squashed[j]);
                to[j] = cell * new * inward * (1.0 - inward);
                to[units + j] = cell * before[j] * keep * (1.0 - keep);
                to[2 * units + j] = by_hidden[j] * squashed[j] * outward * (1.0 - outward);
                to[3 * units + j] = cell * inward * (1.0 - new * new);
                by_cells[j] = cell * keep;
            }
        }
    }
}

#[cfg(test)]
mod tests;
