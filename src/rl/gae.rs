//! Generalised advantage estimation (Schulman, Moritz, Levine, Jordan and Abbeel, 2015).
//!
//! Invariant: nothing flows over the end of an episode; what follows a truncated one is in `next_values`, what
//! follows a terminated one is 0 there. Left out: who estimates the values.

/// Advantages of `rewards.len()` steps of `n` environments, step by step: row `t` has the steps `t` of all. `next_values` are
/// the values of what each step led to; `over` says where an episode ended.
///
/// ```
/// // One environment, two steps, lambda 1: the advantage is the discounted return less the value.
/// let advantages = mobula::rl::gae(&[1.0, 1.0], &[0.5, 0.25], &[0.25, 0.0], &[false, true], 1, 0.9, 1.0);
/// assert!((advantages[0] - (1.0 + 0.9 - 0.5)).abs() < 1e-6);
/// ```
pub fn gae(
    rewards: &[f32],
    values: &[f32],
    next_values: &[f32],
    over: &[bool],
    n: usize,
    gamma: f32,
    lambda: f32,
) -> Vec<f32> {
    let mut advantages = vec![0.0; rewards.len()];
    for i in (0..rewards.len()).rev() {
        let error = rewards[i] + gamma * next_values[i] - values[i];
        let later = match advantages.get(i + n) {
            Some(later) if !over[i] => gamma * lambda * later,
            _ => 0.0,
        };
        advantages[i] = error + later;
    }
    advantages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::rng::Rng;

    #[test]
    fn equals_the_weighted_sum_of_errors() {
        let (n, steps, gamma, lambda) = (3, 40, 0.97f32, 0.9f32);
        let mut rng = Rng::new(4);
        let mut draw = || -> Vec<f32> { (0..n * steps).map(|_| rng.normal() as f32).collect() };
        let (rewards, values, next) = (draw(), draw(), draw());
        let over: Vec<bool> = draw().iter().map(|x| *x > 1.2).collect();
        let got = gae(&rewards, &values, &next, &over, n, gamma, lambda);
        for (i, got) in got.into_iter().enumerate() {
            // A_t = sum over l of (gamma lambda)^l delta_{t+l}, up to the end of the episode.
            let (mut want, mut weight, mut at) = (0.0f32, 1.0f32, i);
            while at < n * steps {
                want += weight * (rewards[at] + gamma * next[at] - values[at]);
                if over[at] {
                    break;
                }
                weight *= gamma * lambda;
                at += n;
            }
            assert!((got - want).abs() < 1e-4, "{i}: {got} {want}");
        }
    }
}
