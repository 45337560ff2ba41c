//! Our operations and their gradients against the same ones made of candle's own.

use super::*;
use crate::rl::layer::Activation;
use crate::rl::network::Net;
use crate::rl::rng::Rng;
use crate::rl::space::Space;
use candle_core::{DType, Device, Var};

fn var(rng: &mut Rng, shape: impl Into<Shape>) -> Result<Var> {
    let shape = shape.into();
    let numbers: Vec<f32> = (0..shape.elem_count())
        .map(|_| rng.normal() as f32)
        .collect();
    Var::from_vec(numbers, shape, &Device::Cpu)
}

fn near(what: &str, ours: &Tensor, candles: &Tensor) -> Result<()> {
    let (a, b) = (
        ours.flatten_all()?.to_vec1::<f32>()?,
        candles.flatten_all()?.to_vec1::<f32>()?,
    );
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 2e-4 * b.abs().max(1.0), "{what}: {a} {b}");
    }
    Ok(())
}

/// Weights of ours with the numbers of a variable.
fn weights_of(var: &Var) -> Result<Weights> {
    Weights::new(&var.flatten_all()?.to_vec1::<f32>()?)
}

/// Compares two results, and their gradients by the variables and by our weights, which candle has as variables, when each number of
/// the result counts differently.
fn compare(
    vars: &[(&str, &Var)],
    rows: &[(&str, &Weights, &Var)],
    ours: &Tensor,
    candles: &Tensor,
) -> Result<()> {
    near("the result", ours, candles)?;
    let weights = var(&mut Rng::new(77), ours.shape().clone())?.detach();
    let slopes = |out: &Tensor| (out * &weights)?.sum_all()?.backward();
    let (a, b) = (slopes(ours)?, slopes(candles)?);
    for (name, var) in vars {
        let (Some(a), Some(b)) = (a.get(var), b.get(var)) else {
            bail!("{name} has no gradient");
        };
        near(name, a, b)?;
    }
    for (name, row, var) in rows {
        let Some(candles) = b.get(var) else {
            bail!("{name} has no gradient");
        };
        let slope = row.take_slope();
        let length = slope.len();
        near(
            name,
            &Tensor::from_vec(slope, length, &Device::Cpu)?,
            candles,
        )?;
    }
    Ok(())
}

/// A network of ours against what candle made of its inputs and weights.
fn compare_network(net: &Network, inputs: &Var, weights: &Var, candles: &Tensor) -> Result<()> {
    let row = weights_of(weights)?;
    let ours = network(net, inputs, &row)?;
    let rows = [("weights", &row, weights)];
    compare(&[("inputs", inputs)], &rows, &ours, candles)
}

#[test]
fn a_network_is_what_candle_makes_of_its_layers() -> Result<()> {
    for activation in [Activation::Tanh, Activation::Relu] {
        for rows in [1, 7, 32] {
            let mut rng = Rng::new(rows as u64);
            let net = Network::mlp(5, &[18, 9], 3, activation);
            let inputs = var(&mut rng, (rows, 5))?;
            let weights = var(&mut rng, net.weights())?;
            let (mut x, mut at) = (inputs.as_tensor().clone(), 0);
            for (i, size) in [5usize, 18, 9, 3].windows(2).enumerate() {
                let matrix = weights
                    .narrow(0, at, size[0] * size[1])?
                    .reshape((size[0], size[1]))?;
                at += size[0] * size[1];
                let bias = weights.narrow(0, at, size[1])?;
                at += size[1];
                x = x.matmul(&matrix)?.broadcast_add(&bias)?;
                if i < 2 {
                    x = match activation {
                        Activation::Tanh => x.tanh()?,
                        Activation::Relu => x.relu()?,
                    };
                }
            }
            compare_network(&net, &inputs, &weights, &x)?;
        }
    }
    Ok(())
}

#[test]
fn filters_are_what_candle_makes_of_them() -> Result<()> {
    // Also two planes, and one column more than lies under filters. (Candle finds no gradient where something is left over.)
    for (depth, rows, columns, used) in [(1, 8, 8, 8), (2, 12, 9, 8), (1, 20, 20, 20)] {
        let mut rng = Rng::new(rows as u64);
        let space = Space::uniform(0.0, 1.0, &[depth, rows, columns]);
        let net = Network::new(Net::Cnn, "it", &space, &[7], 3, Activation::Tanh)
            .map_err(|error| candle_core::Error::Msg(error.to_string()))?;
        let inputs = var(&mut rng, (5, depth * rows * columns))?;
        let weights = var(&mut rng, net.weights())?;
        let pictures = inputs.reshape((5, depth, rows, columns))?;
        let (mut x, mut at) = (pictures.narrow(3, 0, used)?.contiguous()?, 0);
        let mut part = |length: usize| {
            at += length;
            weights.narrow(0, at - length, length)
        };
        for (size, depth) in [(4, depth), (3, 16)] {
            let kernel = part(size * size * depth * 16)?.reshape((size, size, depth, 16))?;
            let kernel = kernel.permute((3, 2, 0, 1))?.contiguous()?;
            let bias = part(16)?.reshape((1, 16, 1, 1))?;
            x = x
                .conv2d(&kernel, 0, 2, 1, 1)?
                .broadcast_add(&bias)?
                .relu()?;
        }
        x = x.permute((0, 2, 3, 1))?.flatten_from(1)?;
        let seen = x.dims()[1];
        let hidden = part(seen * 7)?.reshape((seen, 7))?;
        x = x.matmul(&hidden)?.broadcast_add(&part(7)?)?.tanh()?;
        x = x.matmul(&part(21)?.reshape((7, 3))?)?;
        x = x.broadcast_add(&part(3)?)?;
        compare_network(&net, &inputs, &weights, &x)?;
    }
    Ok(())
}

#[test]
fn distributions_are_what_candle_makes_of_their_formulas() -> Result<()> {
    let mut rng = Rng::new(9);
    let logits = var(&mut rng, (6, 4))?;
    let choices: Vec<u32> = (0..6).map(|i| i % 4).collect();
    let choices = Tensor::from_vec(choices, 6, &Device::Cpu)?;
    let all = logits.exp()?.sum_keepdim(1)?.log()?;
    let logs = logits.broadcast_sub(&all)?;
    let chosen = logs.gather(&choices.unsqueeze(1)?, 1)?;
    let entropy = (logs.exp()? * &logs)?.sum_keepdim(1)?.neg()?;
    let candles = Tensor::cat(&[chosen, entropy], 1)?;
    let ours = categorical_terms(&logits, &choices.to_dtype(DType::F32)?)?;
    compare(&[("logits", &logits)], &[], &ours, &candles)?;

    let (means, log_std) = (var(&mut rng, (6, 2))?, var(&mut rng, 2)?);
    let actions = var(&mut rng, (6, 2))?.detach();
    let z = (&actions - means.as_tensor())?.broadcast_mul(&log_std.neg()?.exp()?)?;
    let tau = f64::from(std::f32::consts::TAU).ln();
    let log = ((z.sqr()? + tau)? * -0.5)?
        .broadcast_sub(&log_std)?
        .sum_keepdim(1)?;
    let entropy = (log_std.as_tensor() + 0.5 * (1.0 + tau))?.sum_all()?;
    let entropy = entropy.broadcast_as((6, 1))?;
    let candles = Tensor::cat(&[log, entropy], 1)?;
    let row = weights_of(&log_std)?;
    let ours = gaussian_terms(&means, &row, &actions)?;
    compare(
        &[("means", &means)],
        &[("log_std", &row, &log_std)],
        &ours,
        &candles,
    )
}

#[test]
fn memory_is_what_candle_makes_of_its_formulas() -> Result<()> {
    // Two environments, five steps; one episode ends at the second step, the other at the third.
    let (n, steps, seen, units) = (2, 5, 3, 6);
    let mut over = vec![false; n * steps];
    (over[2], over[5]) = (true, true);
    let mut rng = Rng::new(4);
    let net = Network::mlp(seen, &[], 2, Activation::Tanh).with_lstm(units);
    let inputs = var(&mut rng, (n * steps, seen))?;
    let weights = var(&mut rng, net.weights())?;
    let mut began = net.state(n);
    for x in began.numbers() {
        *x = rng.normal() as f32;
    }
    let row = weights_of(&weights)?;
    let ours = super::steps(&net, &inputs, &row, Some((&began, &over)))?;

    let numbers: Vec<f32> = began.numbers().map(|x| *x).collect();
    let begin = |part: usize| {
        let numbers = numbers[part * n * units..(part + 1) * n * units].to_vec();
        Tensor::from_vec(numbers, (n, units), &Device::Cpu)
    };
    let (mut hidden, mut cells) = (begin(0)?, begin(1)?);
    let matrix = weights.narrow(0, 0, (seen + units) * 4 * units)?;
    let matrix = matrix.reshape((seen + units, 4 * units))?;
    let bias = weights.narrow(0, (seen + units) * 4 * units, 4 * units)?;
    let sigmoid = |x: Tensor| ((x.neg()?.exp()? + 1.0)?).recip();
    let mut out = Vec::new();
    for t in 0..steps {
        if t > 0 {
            let ended = &over[(t - 1) * n..t * n];
            let kept: Vec<f32> = ended.iter().map(|o| if *o { 0.0 } else { 1.0 }).collect();
            let kept = Tensor::from_vec(kept, (n, 1), &Device::Cpu)?;
            hidden = hidden.broadcast_mul(&kept)?;
            cells = cells.broadcast_mul(&kept)?;
        }
        let joined = Tensor::cat(&[&inputs.narrow(0, t * n, n)?, &hidden], 1)?;
        let sums = joined.matmul(&matrix)?.broadcast_add(&bias)?;
        let gate = |i: usize| sums.narrow(1, i * units, units);
        let (inward, keep) = (sigmoid(gate(0)?)?, sigmoid(gate(1)?)?);
        let (outward, new) = (sigmoid(gate(2)?)?, gate(3)?.tanh()?);
        cells = ((keep * cells)? + (inward * new)?)?;
        hidden = (outward * cells.tanh()?)?;
        out.push(hidden.clone());
    }
    let out = Tensor::cat(&out, 0)?;
    let end = net.weights() - 2 * units - 2;
    let last = weights.narrow(0, end, 2 * units)?.reshape((units, 2))?;
    let out = out.matmul(&last)?;
    let candles = out.broadcast_add(&weights.narrow(0, end + 2 * units, 2)?)?;
    compare(
        &[("inputs", &inputs)],
        &[("weights", &row, &weights)],
        &ours,
        &candles,
    )?;

    // Without a beginning, each row is an episode of its own.
    let alone = network(&net, &inputs, &row)?;
    let first = inputs.narrow(0, 3, 1)?;
    let state = net.state(1);
    let one = super::steps(&net, &first, &row, Some((&state, &[])))?;
    near("one row", &alone.narrow(0, 3, 1)?, &one)
}

#[test]
fn a_pair_is_both_networks_whether_side_by_side_or_not() -> Result<()> {
    // The larger one is worth another thread.
    for rows in [3, 1500] {
        let mut rng = Rng::new(rows as u64);
        let (a, b) = (
            Network::mlp(5, &[18, 9], 3, Activation::Tanh),
            Network::mlp(5, &[20], 1, Activation::Relu),
        );
        let inputs = var(&mut rng, (rows, 5))?.detach();
        let first = weights_of(&var(&mut rng, a.weights())?)?;
        let second = weights_of(&var(&mut rng, b.weights())?)?;
        let large = rows * b.weights() >= super::pair::LARGE;
        assert_eq!(
            large,
            rows == 1500,
            "{} multiplications",
            rows * b.weights()
        );
        let slopes = |outs: [Tensor; 2]| -> Result<Vec<Vec<f32>>> {
            let loss = (outs[0].sqr()?.sum_all()? + outs[1].tanh()?.sum_all()?)?;
            loss.backward()?;
            let numbers = outs.iter().map(|out| out.flatten_all()?.to_vec1());
            let mut all = numbers.collect::<Result<Vec<Vec<f32>>>>()?;
            all.extend([first.take_slope(), second.take_slope()]);
            Ok(all)
        };
        let alone = slopes([
            network(&a, &inputs, &first)?,
            network(&b, &inputs, &second)?,
        ])?;
        let both = slopes(pair([&a, &b], &inputs, [&first, &second])?)?;
        assert_eq!(alone, both);
        assert!(alone[2].iter().chain(&alone[3]).all(|x| x.is_finite()));
        assert!(alone[2].iter().any(|x| *x != 0.0) && alone[3].iter().any(|x| *x != 0.0));
    }
    Ok(())
}
