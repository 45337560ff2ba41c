//! Our operations and their gradients against the same ones made of candle's own.

use super::*;
use crate::rl::mlp::Activation;
use crate::rl::rng::Rng;
use candle_core::{Device, Var};

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

/// Compares two results, and their gradients by the variables when each number of the result counts differently.
fn compare(vars: &[(&str, &Var)], ours: &Tensor, candles: &Tensor) -> Result<()> {
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
    Ok(())
}

#[test]
fn a_network_is_what_candle_makes_of_its_layers() -> Result<()> {
    for activation in [Activation::Tanh, Activation::Relu] {
        for rows in [1, 7, 32] {
            let mut rng = Rng::new(rows as u64);
            let net = Mlp::new(5, &[18, 9], 3, activation);
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
            let ours = mlp(&net, &inputs, &weights)?;
            compare(&[("weights", &weights), ("inputs", &inputs)], &ours, &x)?;
        }
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
    compare(&[("logits", &logits)], &ours, &candles)?;

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
    let ours = gaussian_terms(&means, &log_std, &actions)?;
    compare(&[("means", &means), ("log_std", &log_std)], &ours, &candles)
}
