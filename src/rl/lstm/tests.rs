//! The layer against candle's own operations, step by step against all at once, slopes below it, first weights.

use super::*;
use crate::rl::layer::Activation;
use crate::rl::mlp::Tape;
use crate::rl::network::{Net, Network};
use crate::rl::space::Space;

fn numbers(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Three environments, six steps; some episodes end on the way.
const N: usize = 3;
const STEPS: usize = 6;

fn ends() -> Vec<bool> {
    let mut over = vec![false; N * STEPS];
    for at in [1, 2 * N, 3 * N, 3 * N + 2, 5 * N + 1] {
        over[at] = true;
    }
    over
}

fn state(rng: &mut Rng, units: usize) -> LstmState {
    let mut state = LstmState::new(units, N);
    for x in state.numbers() {
        *x = 0.7 * rng.normal() as f32;
    }
    state
}

#[test]
fn step_by_step_is_the_same_as_all_at_once() {
    let mut rng = Rng::new(1);
    let net = Network::mlp(4, &[6], 2, Activation::Tanh).with_lstm(5);
    let weights = net.orthogonal(&mut rng, 1.0, 1.0);
    let (inputs, over) = (numbers(&mut rng, N * STEPS * 4), ends());
    let began = state(&mut rng, 5);
    let (mut whole, mut tape) = (began.clone(), Tape::default());
    net.advance(&weights, &inputs, &over, &mut whole, &mut tape);
    let (mut single, mut step, mut out) = (began.clone(), Tape::default(), Vec::new());
    for (t, seen) in inputs.chunks_exact(N * 4).enumerate() {
        for i in (0..N).filter(|i| t > 0 && over[(t - 1) * N + i]) {
            single.forget(i);
        }
        net.advance(&weights, seen, &[], &mut single, &mut step);
        out.extend_from_slice(step.output());
    }
    assert_eq!(out, tape.output());
    assert_eq!(single, whole);
    // What was remembered counts, and an episode that begins is one from zeros.
    let mut other = state(&mut rng, 5);
    net.advance(&weights, &inputs, &over, &mut other, &mut step);
    assert_ne!(step.output(), tape.output());
    let (after, rows) = (2 * N + 1, 2..3);
    let mut fresh = net.state(1);
    let seen = &inputs[(after - 1) * 4 + 4 * N..(after + N) * 4];
    net.advance(&weights, &seen[..4], &[], &mut fresh, &mut step);
    assert_eq!(
        step.output(),
        &tape.output()[(after - 1 + N) * 2..(after + N) * 2]
    );
    // Rows of which nothing is known begin.
    let mut none = began.rows(rows.start, 2);
    none.fit(5, 2);
    assert_eq!(none, net.state(2));
    assert_ne!(began.rows(1, 2), net.state(2));
}

/// By small changes, of the weights and of the numbers that go in: filters, memory and hidden layers behind each other.
#[test]
fn slopes_go_through_memory_to_filters_below_it() -> crate::rl::Result<()> {
    let mut rng = Rng::new(5);
    let seen = Space::uniform(0.0, 1.0, &[1, 8, 8]);
    let net = Network::new(Net::Cnn, "it", &seen, &[4], 2, Activation::Tanh)?.with_lstm(3);
    assert_eq!((net.inputs(), net.units()), (64, 3));
    let mut weights = net.orthogonal(&mut rng, 1.0, 1.0);
    assert_eq!(weights.len(), net.weights());
    weights
        .iter_mut()
        .for_each(|w| *w += 0.1 * rng.normal() as f32);
    let inputs = numbers(&mut rng, N * STEPS * 64);
    let (over, began) = (ends(), state(&mut rng, 3));
    let slope = numbers(&mut rng, N * STEPS * 2);
    let loss = |weights: &[f32], inputs: &[f32]| -> f64 {
        let (mut state, mut tape) = (began.clone(), Tape::default());
        net.advance(weights, inputs, &over, &mut state, &mut tape);
        let terms = tape.output().iter().zip(&slope);
        terms.map(|(x, s)| f64::from(*x) * f64::from(*s)).sum()
    };
    let (mut state, mut tape) = (began.clone(), Tape::default());
    net.advance(&weights, &inputs, &over, &mut state, &mut tape);
    let mut by_weights = vec![f32::NAN; weights.len()];
    let mut by_inputs = vec![f32::NAN; inputs.len()];
    let by = Some(by_inputs.as_mut_slice());
    net.backward(&weights, &inputs, &tape, &slope, &mut by_weights, by);
    // Some of each: `max(x, 0)` has corners, so a few may be off.
    let mut off = 0;
    let mut check = |found: f32, low: f64, high: f64| {
        let want = (high - low) / 4e-3;
        off += usize::from((want - f64::from(found)).abs() > 2e-2 * want.abs().max(1.0));
    };
    let moved = |row: &[f32], i: usize, by: f32| {
        let mut row = row.to_vec();
        row[i] += by;
        row
    };
    for i in (0..weights.len()).step_by(23) {
        let at = |by: f32| loss(&moved(&weights, i, by), &inputs);
        check(by_weights[i], at(-2e-3), at(2e-3));
    }
    for i in (0..inputs.len()).step_by(37) {
        let at = |by: f32| loss(&weights, &moved(&inputs, i, by));
        check(by_inputs[i], at(-2e-3), at(2e-3));
    }
    assert!(off <= 3, "{off} slopes are off");
    Ok(())
}

#[test]
fn first_weights_are_orthogonal_and_keep_what_cells_hold() {
    let lstm = Lstm {
        inputs: 3,
        units: 5,
    };
    let weights = lstm.orthogonal(&mut Rng::new(2));
    let (matrix, bias) = weights.split_at(8 * 20);
    assert_eq!(bias[5..10], [1.0; 5]);
    assert_eq!(bias.iter().sum::<f32>(), 5.0);
    for gate in 0..4 {
        for (first, rows) in [(0, 3), (3, 5)] {
            for a in 0..rows {
                for b in 0..rows {
                    let row = |i: usize| &matrix[(first + i) * 20 + gate * 5..][..5];
                    let dot: f32 = row(a).iter().zip(row(b)).map(|(x, y)| x * y).sum();
                    let want = if a == b { 1.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{gate} {first} {a} {b}: {dot}");
                }
            }
        }
    }
}
