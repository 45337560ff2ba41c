//! Adam, over whole rows of weights in one loop (Kingma and Ba, 2014).
//!
//! Invariant: no temporary tensor; what it remembers can be saved and taken back. The gradient's norm over all rows is
//! bounded first, as in the implementations people compare with. Left out: weight decay.

use super::simd::{self, Kernel};
use super::weights::Weights;
use candle_core::Result;
use std::sync::Mutex;

/// What is remembered of one row of weights: means of its gradients and of their squares.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Of the gradients.
    pub first: Vec<f32>,
    /// Of their squares.
    pub second: Vec<f32>,
}

/// The optimiser of some rows of weights.
#[derive(Debug)]
pub struct Adam {
    rows: Vec<Mutex<Moments>>,
    steps: u64,
    epsilon: f32,
}

const DECAY_FIRST: f32 = 0.9;
const DECAY_SECOND: f32 = 0.999;

impl Adam {
    /// For rows of these lengths; `epsilon` is added to the root of the second moments.
    pub fn new(lengths: &[usize], epsilon: f32) -> Adam {
        let row = |n: &usize| {
            Mutex::new(Moments {
                first: vec![0.0; *n],
                second: vec![0.0; *n],
            })
        };
        Adam {
            rows: lengths.iter().map(row).collect(),
            steps: 0,
            epsilon,
        }
    }

    /// Changes the weights, against the gradients that they have, which are gone then. A norm of all gradients above `max_norm` is
    /// scaled down to it. Gives the norm as it was; if it is no finite number, nothing is changed.
    pub fn step(&mut self, rows: &[&Weights], rate: f32, max_norm: f32) -> Result<f32> {
        let slopes: Vec<Vec<f32>> = rows.iter().map(|row| row.take_slope()).collect();
        let square: f64 = slopes.iter().map(|slope| square(slope)).sum();
        let norm = square.sqrt() as f32;
        if let Some(pace) = self.pace(norm, rate, max_norm) {
            for ((row, slope), moments) in rows.iter().zip(&slopes).zip(&self.rows) {
                row.change(|weights| Update { moments, pace }.apply(weights, slope))?;
            }
        }
        for (row, slope) in rows.iter().zip(slopes) {
            row.recycle(slope);
        }
        Ok(norm)
    }

    /// As [`step`](Adam::step), for one row that is no tensor.
    pub fn step_row(&mut self, weights: &mut [f32], grad: &[f32], rate: f32, max_norm: f32) -> f32 {
        let norm = square(grad).sqrt() as f32;
        if let Some(pace) = self.pace(norm, rate, max_norm)
            && let Some(moments) = self.rows.first()
        {
            Update { moments, pace }.apply(weights, grad);
        }
        norm
    }

    /// Counts a step, and says how long it is; none if the norm is no number.
    fn pace(&mut self, norm: f32, rate: f32, max_norm: f32) -> Option<Pace> {
        if !norm.is_finite() {
            return None;
        }
        self.steps += 1;
        let correct = |decay: f32| 1.0 - f64::from(decay).powf(self.steps as f64);
        Some(Pace {
            scale: if norm > max_norm {
                max_norm / (norm + 1e-6)
            } else {
                1.0
            },
            rate: (f64::from(rate) / correct(DECAY_FIRST)) as f32,
            root: (1.0 / correct(DECAY_SECOND)).sqrt() as f32,
            epsilon: self.epsilon,
        })
    }

    /// How many steps were taken, and what is remembered of each row.
    pub fn state(&self) -> (u64, Vec<Moments>) {
        let row = |row: &Mutex<Moments>| row.lock().expect("nobody panics with it").clone();
        (self.steps, self.rows.iter().map(row).collect())
    }

    /// Goes on from what [`state`](Adam::state) gave.
    pub fn set_state(&mut self, steps: u64, rows: Vec<Moments>) {
        self.steps = steps;
        self.rows = rows.into_iter().map(Mutex::new).collect();
    }
}

/// How long a step is.
#[derive(Clone, Copy)]
struct Pace {
    scale: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

struct Update<'a> {
    moments: &'a Mutex<Moments>,
    pace: Pace,
}

impl Update<'_> {
    fn apply(&self, weights: &mut [f32], grad: &[f32]) {
        let mut moments = self.moments.lock().expect("nobody panics with it");
        let Moments { first, second } = &mut *moments;
        simd::run(Row {
            pace: self.pace,
            weights,
            grad,
            first,
            second,
        });
    }
}

/// The sum of all squares.
fn square(numbers: &[f32]) -> f64 {
    simd::run(Square(numbers))
}

struct Square<'a>(&'a [f32]);

impl Kernel for Square<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f64 {
        // Sixteen sums, none of which waits for another.
        let mut sums = [0.0f64; 16];
        let (rows, rest) = self.0.as_chunks::<16>();
        for row in rows {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += f64::from(*x) * f64::from(*x);
            }
        }
        let rest: f64 = rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        sums.iter().sum::<f64>() + rest
    }
}

struct Row<'a> {
    pace: Pace,
    weights: &'a mut [f32],
    grad: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Pace {
            scale,
            rate,
            root,
            epsilon,
        } = self.pace;
        let moments = self.first.iter_mut().zip(self.second);
        for ((w, g), (m, v)) in self.weights.iter_mut().zip(self.grad).zip(moments) {
            let g = g * scale;
            let mean = DECAY_FIRST * *m + (1.0 - DECAY_FIRST) * g;
            // Without a gradient it decays for ever; numbers too small for a processor's fast path are zeros here.
            *m = if mean.abs() < 1e-30 { 0.0 } else { mean };
            let square = DECAY_SECOND * *v + (1.0 - DECAY_SECOND) * g * g;
            *v = if square < 1e-30 { 0.0 } else { square };
            *w -= rate * *m / (v.sqrt() * root + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights with a gradient.
    fn sloped(row: &Weights, slope: impl Fn(usize) -> f32) {
        row.slope().add(row.len(), |to| {
            (0..to.len()).for_each(|i| to[i] = slope(i));
        });
    }

    #[test]
    fn steps_as_the_paper_says() -> Result<()> {
        let row = Weights::new(&[1.0, -2.0])?;
        let mut adam = Adam::new(&[2], 1e-8);
        let (mut w, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for t in 1..=20 {
            // The gradient of the sum of squares.
            let now = row.read(<[f32]>::to_vec)?;
            sloped(&row, |i| 2.0 * now[i]);
            adam.step(&[&row], 0.1, f32::INFINITY)?;
            for i in 0..2 {
                let g = 2.0 * w[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (m, v) = (
                    m[i] / (1.0 - 0.9f64.powi(t)),
                    v[i] / (1.0 - 0.999f64.powi(t)),
                );
                w[i] -= 0.1 * m / (v.sqrt() + 1e-8);
            }
        }
        let got = row.read(<[f32]>::to_vec)?;
        for (got, want) in got.iter().zip(w) {
            assert!((f64::from(*got) - want).abs() < 1e-4, "{got} {want}");
        }
        Ok(())
    }

    #[test]
    fn long_gradients_are_cut_and_broken_ones_change_nothing() -> Result<()> {
        let row = Weights::new(&[3.0, 4.0])?;
        sloped(&row, |i| [6.0, 8.0][i]);
        let mut adam = Adam::new(&[2], 1e-8);
        assert_eq!(adam.step(&[&row], 0.0, 1.0)?, 10.0);
        let (_, rows) = adam.state();
        let norm = rows[0].first.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!(
            (norm - 0.1).abs() < 1e-5,
            "a tenth of a gradient of length 1: {norm}"
        );
        sloped(&row, |i| [f32::NAN, 1.0][i]);
        assert!(!adam.step(&[&row], 0.1, 1.0)?.is_finite());
        assert_eq!(row.read(<[f32]>::to_vec)?, [3.0, 4.0]);
        assert_eq!(row.take_slope(), [0.0, 0.0], "it is gone");
        Ok(())
    }

    #[test]
    fn gradients_of_several_passes_add_up_and_norms_are_of_all_numbers() {
        let row = Weights::new(&[0.0; 37]).expect("a row");
        sloped(&row, |i| i as f32);
        sloped(&row, |i| 1.0 - i as f32 / 2.0);
        let slope = row.take_slope();
        assert!(
            (0..37).all(|i| slope[i] == 1.0 + i as f32 / 2.0),
            "{slope:?}"
        );
        let plain: f64 = slope.iter().map(|x| f64::from(x * x)).sum();
        assert!((square(&slope) - plain).abs() < 1e-3 * plain);
    }
}
