//! Targets and loss by hand, the same seed twice, restoring, lost explorers, what is refused; and that it learns.

use super::*;
use crate::api::{Mobula, init};
use crate::rl::error::Error;
use std::sync::MutexGuard;

fn node() -> Result<(Mobula, MutexGuard<'static, ()>)> {
    let turn = crate::rl::turn();
    Ok((init()?, turn))
}

fn small() -> Config {
    Config {
        num_envs: 2,
        num_steps: 8,
        updates: 4,
        batch_size: 8,
        buffer_size: 60,
        learning_starts: 32,
        target_every: 5,
        hidden: vec![8],
        ..Config::default()
    }
}

/// A network without hidden layers: 1 input, 2 choices, worth `w0 x + b0` and `w1 x + b1`.
fn line() -> QNetwork {
    QNetwork::new(1, &[], 2, Activation::Relu, false)
}

#[test]
fn targets_are_those_of_the_formula() {
    let rows = Transitions {
        observations: vec![1.0, 1.0],
        actions: vec![0, 1],
        rewards: vec![0.5, 0.25],
        discounts: vec![0.9, 0.0],
        next: vec![2.0, 2.0],
    };
    // Learned: 2 and 4, so it chooses the second. Target: 6 and 3.
    let (learned, target) = ([1.0, 2.0, 0.0, 0.0], [3.0, 1.5, 0.0, 0.0]);
    let get = |double| {
        targets(
            &line(),
            &learned,
            &target,
            &rows,
            double,
            &mut Tape::default(),
        )
    };
    assert_eq!(get(true), [0.5 + 0.9 * 3.0, 0.25]);
    assert_eq!(get(false), [0.5 + 0.9 * 6.0, 0.25]);
}

#[test]
fn the_loss_is_hubers_and_its_gradient_is_bounded() -> Result<()> {
    let rows = Transitions {
        observations: vec![1.0, 1.0],
        actions: vec![0, 1],
        ..Transitions::default()
    };
    let learned = Weights::new(&[1.0, 2.0, 0.0, 0.0])?;
    // Errors: 0.5, which counts half its square, and 3, which counts 2.5; the second half as much.
    let (total, errors) = loss(&line(), &learned, &rows, &[0.5, -1.0], &[1.0, 0.5])?;
    assert_eq!(errors.to_vec1::<f32>()?, [0.5, 3.0]);
    assert_eq!(total.to_scalar::<f32>()?, (0.125 + 0.5 * 2.5) / 2.0);
    total.backward()?;
    assert_eq!(learned.take_slope(), [0.25, 0.25, 0.25, 0.25]);
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_run_and_restoring_goes_on_with_it() -> Result<()> {
    let _node = node()?;
    for (prioritized, workers) in [(true, 2), (false, 1)] {
        let config = Config {
            prioritized,
            num_workers: workers,
            ..small()
        };
        let mut one = Dqn::new("CartPole-v1", config.clone(), 5)?;
        let mut two = Dqn::new("CartPole-v1", config.clone(), 5)?;
        for _ in 0..6 {
            assert_eq!(one.train()?, two.train()?);
        }
        let mut restored = Dqn::restore(&one.checkpoint()?)?;
        for _ in 0..3 {
            assert_eq!(one.train()?, restored.train()?);
        }
        assert_eq!(one.checkpoint()?, restored.checkpoint()?);
        let mut other = Dqn::new("CartPole-v1", config, 6)?;
        other.train()?;
        assert_ne!(one.weights()?, other.weights()?);
    }
    Ok(())
}

#[test]
fn an_explorer_that_ended_is_replaced_and_training_goes_on() -> Result<()> {
    let _node = node()?;
    let config = Config {
        num_workers: 2,
        ..small()
    };
    let mut dqn = Dqn::new("CartPole-v1", config, 1)?;
    dqn.train()?;
    dqn.explorers.kill(1);
    let progress = dqn.train()?;
    assert_eq!((progress.steps, dqn.replaced()), (64, 1));
    Ok(())
}

#[test]
fn what_is_no_number_leaves_the_weights_and_what_cannot_work_is_refused() -> Result<()> {
    let _node = node()?;
    let mut dqn = Dqn::new("CartPole-v1", small(), 1)?;
    for _ in 0..3 {
        dqn.train()?;
    }
    let before = dqn.weights()?;
    dqn.target.fill(f32::NAN);
    let error = dqn.train().expect_err("a target that is no number");
    assert!(
        matches!(error, Error::NotFinite { iteration: 4, .. }),
        "{error}"
    );
    assert_eq!(dqn.weights()?, before);
    let refused = |env: &str, config: Config| Dqn::new(env, config, 1).err();
    assert!(matches!(
        refused("Pendulum-v1", small()),
        Some(Error::WrongSpace { .. })
    ));
    let room = Config {
        buffer_size: 8,
        ..small()
    };
    assert!(
        matches!(refused("CartPole-v1", room), Some(Error::BadValue { key, .. }) if key == "buffer_size")
    );
    Ok(())
}

#[test]
fn explorers_explore_to_degrees_of_their_own() {
    assert_eq!(own_epsilon(0.5, 0, 1), 0.5);
    assert_eq!(own_epsilon(0.5, 0, 3), 0.125);
    assert_eq!(own_epsilon(0.5, 2, 3), 0.5);
}
