//! What a step is worth at the end of an episode, and at the end of its time.

use super::*;
use crate::rl::mlp::Tape;
use crate::rl::rng::Rng;

fn setup(env: &str) -> Setup {
    Setup {
        env: env.to_owned(),
        envs: 1,
        steps: 1,
        hidden: vec![8],
        relu: false,
        cnn: false,
        lstm: 0,
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
        let batch = actor.collect(&setup, &weights, Norms::default())?;
        let ended = batch.episodes.first().copied();
        let next = match ended {
            Some(_) => actor.player.steps.last.clone(),
            None => actor.player.steps.observations.clone(),
        };
        let parts = actor.policy.split(&weights)?;
        let value = actor.policy.values(parts[2], &next, 0, &mut actor.scratch)[0];
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

/// With memory, in one environment.
fn recalling(env: &str, steps: u64) -> Setup {
    Setup {
        lstm: 5,
        steps,
        ..setup(env)
    }
}

#[test]
fn what_is_remembered_goes_on_from_batch_to_batch_and_into_checkpoints() -> Result<()> {
    // Episodes of three steps: some end within a batch, some with it, some after it.
    let env = "CartPole-v1+time_limit=3";
    let (halves, whole) = (recalling(env, 5), recalling(env, 10));
    let (mut actor, mut other) = (Actor::new(&halves)?, Actor::new(&whole)?);
    let weights = actor.policy.init(&mut Rng::new(1), 0.0);
    let (first, all) = (
        actor.collect(&halves, &weights, Norms::default())?,
        other.collect(&whole, &weights, Norms::default())?,
    );
    assert_eq!(
        first.began,
        [actor.policy.actor.state(1), actor.policy.critic.state(1)]
    );
    assert_eq!(first.over, [false, false, true, false, false]);
    // As if it had never stopped.
    let mut words = Vec::new();
    actor.save(&mut words);
    let mut restored = Actor::new(&halves)?;
    let mut reader = Words::new(&words);
    restored.load(&mut reader);
    assert!(reader.complete());
    for mut actor in [actor, restored] {
        let second = actor.collect(&halves, &weights, Norms::default())?;
        assert_ne!(second.began, first.began);
        assert_eq!([first.values.clone(), second.values].concat(), all.values);
        assert_eq!(
            [first.actions.clone(), second.actions].concat(),
            all.actions
        );
    }
    // Another one's state does not fit.
    let mut plain = Actor::new(&setup(env))?;
    let mut reader = Words::new(&words);
    plain.load(&mut reader);
    assert!(!reader.complete());
    Ok(())
}

#[test]
fn the_value_behind_the_end_of_time_knows_what_was_seen_before() -> Result<()> {
    let setup = recalling("Pendulum-v1+time_limit=3", 3);
    let mut actor = Actor::new(&setup)?;
    let weights = actor.policy.init(&mut Rng::new(1), 0.0);
    let batch = actor.collect(&setup, &weights, Norms::default())?;
    let seen = [batch.observations, actor.player.steps.last.clone()].concat();
    let (critic, mut tape) = (&actor.policy.critic, Tape::default());
    let own = actor.policy.split(&weights)?[2];
    critic.advance(own, &seen, &[false; 3], &mut critic.state(1), &mut tape);
    let values = tape.output();
    assert_eq!(values[..3], batch.values);
    let later: f32 = values[1..].iter().sum();
    let sum = batch.advantages.iter().chain(&batch.values).sum::<f32>() - setup.gamma * later;
    let reward = batch.episodes[0].reward;
    assert!((sum - reward).abs() < 1e-3 * reward.abs(), "{sum} {reward}");
    // The next episode begins with nothing.
    let began = actor.collect(&setup, &weights, Norms::default())?.began;
    assert_eq!(began[1], actor.policy.critic.state(1));
    Ok(())
}
