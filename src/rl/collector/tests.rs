//! What a step is worth at the end of an episode, and at the end of its time.

use super::*;
use crate::rl::rng::Rng;

fn setup(env: &str) -> Setup {
    Setup {
        env: env.to_owned(),
        envs: 1,
        steps: 1,
        hidden: vec![8],
        relu: false,
        cnn: false,
        gamma: 0.9,
        // One step's advantage is then its reward and the next value, less its own.
        lambda: 0.0,
        seed: (3, 0),
    }
}

/// Plays step by step until an episode ends: the sum of its rewards as the advantages have it, where the value of what is
/// behind the last step is what `end` makes of that step's observation, and as the episode says.
fn sums(env: &str, end: impl Fn(f32) -> f32) -> Result<(f32, f32, bool)> {
    let setup = setup(env);
    let mut actor = Actor::new(&setup)?;
    let weights = actor.policy.init(&mut Rng::new(1), 0.0);
    let mut sum = 0.0;
    loop {
        let batch = actor.collect(&setup, &weights)?;
        let ended = batch.episodes.first().copied();
        let next = match ended {
            Some(_) => actor.player.steps.last.clone(),
            None => actor.player.steps.observations.clone(),
        };
        let parts = actor.policy.split(&weights)?;
        let value = actor.policy.values(parts[2], &next, &mut actor.scratch)[0];
        let value = if ended.is_some() { end(value) } else { value };
        sum += batch.advantages[0] + batch.values[0] - setup.gamma * value;
        if let Some(episode) = ended {
            return Ok((sum, episode.reward, actor.player.steps.terminated[0]));
        }
    }
}

#[test]
fn time_that_is_up_leaves_the_value_of_what_was_seen_last() -> Result<()> {
    let (sum, reward, terminated) = sums("Pendulum-v1", |value| value)?;
    assert!(
        !terminated && (sum - reward).abs() < 0.01 * reward.abs(),
        "{sum} {reward}"
    );
    let (without, ..) = sums("Pendulum-v1", |_| 0.0)?;
    assert!(
        (without - sum).abs() > 1e-3,
        "this value counts for something"
    );
    Ok(())
}

#[test]
fn an_end_leaves_nothing() -> Result<()> {
    let (sum, reward, terminated) = sums("CartPole-v1", |_| 0.0)?;
    assert!(terminated && (sum - reward).abs() < 1e-3, "{sum} {reward}");
    Ok(())
}
