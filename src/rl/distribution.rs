//! The distributions that policies draw actions from: choices by logits, numbers by means and deviations.
//!
//! Invariant: plain functions on one row; what is drawn, what its logarithm of density is, the entropy, and the
//! gradients of the last two. Left out: candle's operations around them, which are `ops.rs`.

use super::rng::Rng;

/// `ln(2 pi)`.
const LN_TAU: f32 = 1.837_877_1;

/// The logarithm of the sum of exponentials.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    highest + logits.iter().map(|x| (x - highest).exp()).sum::<f32>().ln()
}

/// The log-probability of a choice, and the entropy. A choice beyond the logits has probability 0.
pub fn categorical(logits: &[f32], choice: usize) -> [f32; 2] {
    let all = log_sum_exp(logits);
    let entropy = -logits
        .iter()
        .map(|x| (x - all).exp() * (x - all))
        .sum::<f32>();
    let chosen = logits.get(choice).map_or(f32::NEG_INFINITY, |x| x - all);
    [chosen, entropy]
}

/// The gradient by the logits of `by_log * log-probability + by_entropy * entropy`.
pub(super) fn categorical_slope(
    logits: &[f32],
    choice: usize,
    by_log: f32,
    by_entropy: f32,
    to: &mut [f32],
) {
    let all = log_sum_exp(logits);
    let [_, entropy] = categorical(logits, choice);
    for (i, (to, x)) in to.iter_mut().zip(logits).enumerate() {
        let log = x - all;
        let p = log.exp();
        let chosen = if i == choice { 1.0 } else { 0.0 };
        *to = by_log * (chosen - p) - by_entropy * p * (log + entropy);
    }
}

/// Draws a choice, and gives its log-probability.
pub fn draw_categorical(logits: &[f32], rng: &mut Rng) -> (usize, f32) {
    let all = log_sum_exp(logits);
    let mut left = rng.uniform() as f32;
    for (choice, x) in logits.iter().enumerate() {
        let log = x - all;
        left -= log.exp();
        // Rounding may leave a little at the end: the last choice takes it.
        if left < 0.0 || choice + 1 == logits.len() {
            return (choice, log);
        }
    }
    (0, 0.0)
}

/// The likeliest choice.
pub fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, x) in values.iter().enumerate() {
        if *x > values[best] {
            best = i;
        }
    }
    best
}

/// The log-density of an action of independent normal numbers, and the entropy.
pub fn gaussian(mean: &[f32], log_std: &[f32], action: &[f32]) -> [f32; 2] {
    let (mut log, mut entropy) = (0.0, 0.0);
    for ((m, s), a) in mean.iter().zip(log_std).zip(action) {
        let z = (a - m) * (-s).exp();
        log -= 0.5 * (z * z + LN_TAU) + s;
        entropy += 0.5 * (1.0 + LN_TAU) + s;
    }
    [log, entropy]
}

/// The gradient of `slope[0] * log-density + slope[1] * entropy` by the means, written, and by the logarithms of the
/// deviations, added.
pub(super) fn gaussian_slope(
    mean: &[f32],
    log_std: &[f32],
    action: &[f32],
    slope: [f32; 2],
    by_mean: &mut [f32],
    by_log_std: &mut [f32],
) {
    for i in 0..mean.len() {
        let scale = (-log_std[i]).exp();
        let z = (action[i] - mean[i]) * scale;
        by_mean[i] = slope[0] * z * scale;
        by_log_std[i] += slope[0] * (z * z - 1.0) + slope[1];
    }
}

/// Draws an action, and gives its log-density.
pub fn draw_gaussian(mean: &[f32], log_std: &[f32], rng: &mut Rng, action: &mut [f32]) -> f32 {
    let mut log = 0.0;
    for ((m, s), a) in mean.iter().zip(log_std).zip(action) {
        let z = rng.normal() as f32;
        *a = m + s.exp() * z;
        log -= 0.5 * (z * z + LN_TAU) + s;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_are_drawn_as_often() {
        let logits = [0.3, -1.2, 2.0, 0.0];
        let p: Vec<f32> = (0..4).map(|i| categorical(&logits, i)[0].exp()).collect();
        assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let entropy: f32 = p.iter().map(|p| -p * p.ln()).sum();
        assert!((categorical(&logits, 0)[1] - entropy).abs() < 1e-6);
        let mut rng = Rng::new(5);
        let mut counts = [0.0f32; 4];
        for _ in 0..20_000 {
            let (choice, log) = draw_categorical(&logits, &mut rng);
            assert!((log - p[choice].ln()).abs() < 1e-5);
            counts[choice] += 1.0 / 20_000.0;
        }
        for (count, p) in counts.iter().zip(&p) {
            assert!((count - p).abs() < 0.015, "{counts:?} {p:?}");
        }
        assert_eq!(best(&logits), 2);
    }

    #[test]
    fn the_density_integrates_to_one_and_the_entropy_to_its_own() {
        let (mean, log_std) = ([0.4, -1.0], [0.2, -0.7]);
        let (mut mass, mut entropy) = (0.0f64, 0.0f64);
        let step = 0.05f32;
        for i in -200..200 {
            for j in -200..200 {
                let action = [i as f32 * step, j as f32 * step];
                let log = f64::from(gaussian(&mean, &log_std, &action)[0]);
                mass += log.exp() * f64::from(step * step);
                entropy -= log.exp() * log * f64::from(step * step);
            }
        }
        assert!((mass - 1.0).abs() < 1e-3, "{mass}");
        let said = f64::from(gaussian(&mean, &log_std, &mean)[1]);
        assert!((entropy - said).abs() < 1e-3, "{entropy} {said}");
        let mut action = [0.0; 2];
        let log = draw_gaussian(&mean, &log_std, &mut Rng::new(1), &mut action);
        assert!((log - gaussian(&mean, &log_std, &action)[0]).abs() < 1e-5);
    }
}
