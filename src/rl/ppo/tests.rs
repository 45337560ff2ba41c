//! PPO's gradient against what the paper says of it, the same seed twice, restoring, lost collectors, what is refused.

use super::*;
use crate::api::{Mobula, init};
use crate::rl::error::Error;
use std::sync::MutexGuard;

fn node() -> Result<(Mobula, MutexGuard<'static, ()>)> {
    let turn = crate::rl::turn();
    Ok((init()?, turn))
}

/// A few steps in two environments.
fn small() -> Config {
    Config {
        num_envs: 2,
        num_steps: 8,
        epochs: 2,
        minibatch_size: 8,
        hidden: vec![8],
        ..Config::default()
    }
}

fn numbers(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.normal() as f32).collect()
}

#[test]
fn the_weight_of_the_divergence_follows_its_target() {
    assert_eq!(adapted(0.2, 0.02, 0.01), 0.4);
    assert_eq!(adapted(0.2, 0.005, 0.01), 0.1);
    assert_eq!(adapted(0.2, 0.012, 0.01), 0.2);
    assert_eq!(adapted(1e-6, 0.0, 0.01), 1e-6);
}

#[test]
fn a_penalty_keeps_the_policy_near_and_one_that_cannot_adapt_is_refused() -> Result<()> {
    let _node = node()?;
    let divergence = |kl_coefficient| -> Result<f32> {
        let config = Config {
            clip: None,
            kl_coefficient,
            kl_target: Some(1e-9),
            epochs: 20,
            learning_rate: 0.01,
            ..small()
        };
        let mut ppo = Ppo::new("CartPole-v1", config, 1)?;
        let told = ppo.train()?.metrics;
        let kl = told.iter().find(|(name, _)| *name == "kl");
        Ok(kl.expect("it is told").1)
    };
    let (free, held) = (divergence(1e-6)?, divergence(100.0)?);
    assert!(held < free / 2.0, "{held} with the penalty, {free} without");
    let mut config = small();
    config.kl_target = Some(0.01);
    let e = Ppo::new("CartPole-v1", config, 1).map(drop).unwrap_err();
    assert!(e.to_string().contains("kl_target"), "{e}");
    Ok(())
}

/// Where old and new policy are one, the clipped loss has the gradient of plain policy gradient: the mean of advantage times
/// the gradient of the log-probability.
#[test]
fn at_ratio_one_the_gradient_is_the_policy_gradient() -> Result<()> {
    let (cpu, n) = (&Device::Cpu, 12);
    let mut rng = Rng::new(3);
    let seen = Space::symmetric(&[1.0, 1.0, 1.0]);
    let policy = Policy::new(&seen, &Space::Discrete(4), &[5], Activation::Tanh);
    let learned = Learned::new(&policy, &policy.init(&mut rng, 0.0))?;
    let tensor = |row: Vec<f32>| Tensor::from_vec(row, n, cpu);
    let observations = Tensor::from_vec(numbers(&mut rng, n * 3), (n, 3), cpu)?;
    let actions = tensor((0..n).map(|i| (i % 4) as f32).collect())?;
    let terms = || {
        let logits = ops::network(&policy.actor, &observations, &learned.actor)?;
        ops::categorical_terms(&logits, &actions)?.get_on_dim(1, 0)
    };
    let batch = Minibatch {
        observations: observations.clone(),
        actions: actions.clone(),
        log_probs: terms()?.detach(),
        values: tensor(numbers(&mut rng, n))?,
        advantages: tensor(numbers(&mut rng, n))?,
        returns: tensor(numbers(&mut rng, n))?,
    };
    let slope = |loss: &Tensor| loss.backward().map(|_| learned.actor.take_slope());
    let clipped = slope(&loss(&policy, &learned, &batch, &small(), 0.2, 0.0)?.policy)?;
    let plain = slope(&(terms()? * &batch.advantages)?.mean_all()?.neg()?)?;
    assert!(clipped.iter().any(|x| *x != 0.0));
    for (a, b) in clipped.iter().zip(plain) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_run_and_restoring_goes_on_with_it() -> Result<()> {
    let _node = node()?;
    let sized = Config {
        num_workers: 2,
        normalize_observations: true,
        normalize_rewards: true,
        ..small()
    };
    for (env, config) in [
        ("CartPole-v1", small()),
        ("Pendulum-v1", small()),
        ("Pendulum-v1", sized),
    ] {
        let mut one = Ppo::new(env, config.clone(), 5)?;
        let mut two = Ppo::new(env, config.clone(), 5)?;
        for _ in 0..3 {
            assert_eq!(one.train()?, two.train()?);
        }
        let mut restored = Ppo::restore(&one.checkpoint()?)?;
        for _ in 0..3 {
            assert_eq!(one.train()?, restored.train()?);
        }
        assert_eq!(one.learned.row()?, restored.learned.row()?);
        let ends = [one.evaluate(5, 1)?, restored.evaluate(5, 1)?];
        assert_eq!(ends[0], ends[1]);
        let seen = [0.7; 4];
        let seen = &seen[..one.policy.actor.inputs()];
        assert_eq!(one.act(seen)?, restored.act(seen)?);
        if config.normalize_observations {
            // It is learned from, acted by and judged by.
            let plain = Config {
                normalize_observations: false,
                ..config.clone()
            };
            let mut plain = Ppo::new(env, plain, 5)?;
            plain.train()?;
            let mut sized = Ppo::new(env, config.clone(), 5)?;
            sized.train()?;
            assert_ne!(plain.learned.row()?, sized.learned.row()?);
            restored.seen = Norms::default();
            assert_ne!(one.act(seen)?, restored.act(seen)?);
            assert_ne!(ends[0], restored.evaluate(5, 1)?);
        }
        let mut other = Ppo::new(env, config, 6)?;
        other.train()?;
        assert_ne!(one.learned.row()?, other.learned.row()?);
    }
    Ok(())
}

#[test]
fn a_collector_that_ended_is_replaced_and_training_goes_on() -> Result<()> {
    let _node = node()?;
    for normalize in [false, true] {
        let config = Config {
            num_workers: 2,
            normalize_observations: normalize,
            normalize_rewards: normalize,
            ..small()
        };
        let mut ppo = Ppo::new("CartPole-v1", config, 1)?;
        ppo.train()?;
        ppo.collectors.kill(1);
        let progress = ppo.train()?;
        assert_eq!((progress.steps, ppo.replaced()), (64, 1));
    }
    Ok(())
}

#[test]
fn what_is_no_number_stops_training_and_what_cannot_work_is_refused() -> Result<()> {
    let _node = node()?;
    let mut ppo = Ppo::new("CartPole-v1", small(), 1)?;
    let mut row = ppo.learned.row()?;
    let last = row.len() - 1;
    row[last] = f32::NAN;
    ppo.learned = Learned::new(&ppo.policy, &row)?;
    let error = ppo.train().expect_err("a value that is no number");
    assert!(
        matches!(error, Error::NotFinite { iteration: 1, .. }),
        "{error}"
    );
    assert_eq!(ppo.learned.row()?[..last], row[..last]);

    // What was seen is part of a checkpoint.
    let mut without = Ppo::new("CartPole-v1", small(), 1)?.checkpoint()?;
    without.config = config::show(&Config {
        normalize_observations: true,
        ..small()
    });
    let error = Ppo::restore(&without).map(drop).expect_err("it has no row");
    assert!(error.to_string().contains("seen.observations"), "{error}");

    let refused = |config: Config| Ppo::new("CartPole-v1", config, 1).err();
    let gamma = Config {
        gamma: 1.5,
        ..small()
    };
    assert!(matches!(refused(gamma), Some(Error::BadValue { key, .. }) if key == "gamma"));
    let large = Config {
        minibatch_size: 17,
        ..small()
    };
    assert!(matches!(refused(large), Some(Error::BadValue { key, .. }) if key == "minibatch_size"));
    let error = Ppo::new("Cartpole-v1", small(), 1)
        .err()
        .expect("no such environment");
    assert!(
        error.to_string().contains("did you mean \"CartPole-v1\"?"),
        "{error}"
    );
    Ok(())
}
