//! The gradient against that of the formula, one worker against itself, restoring, lost workers, what is refused.

use super::*;
use crate::api::init;
use crate::rl::error::Error;
use crate::rl::lstm::LstmState;
use crate::rl::norm::Norms;
use crate::rl::space::Space;

fn small() -> Config {
    Config {
        num_envs: 2,
        num_steps: 5,
        updates: 6,
        hidden: vec![8],
        ..Config::default()
    }
}

/// By small changes of each weight.
#[test]
fn the_gradient_is_the_slope_of_the_loss() -> Result<()> {
    let mut rng = Rng::new(3);
    let seen = Space::symmetric(&[1.0, 1.0]);
    let problems = [
        (Space::Discrete(3), false),
        (Space::symmetric(&[1.0]), false),
        (Space::Discrete(3), true),
    ];
    for (actions, recurrent) in problems {
        let mut policy = Policy::new(&seen, &actions, &[4], Activation::Tanh);
        if recurrent {
            policy = policy.with_lstm(3);
        }
        // Of two environments, one of which begins an episode on the way.
        let mut began = match recurrent {
            true => vec![policy.actor.state(2), policy.critic.state(2)],
            false => vec![],
        };
        for x in began.iter_mut().flat_map(LstmState::numbers) {
            *x = rng.normal() as f32;
        }
        let weights: Vec<f32> = (0..policy.weights())
            .map(|_| 0.5 * rng.normal() as f32)
            .collect();
        let mut row = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
        let played = Rollout {
            observations: row(8),
            actions: vec![0.0, 1.0, 2.0, 1.0],
            log_probs: vec![],
            values: row(4),
            advantages: row(4),
            began,
            over: vec![false, true, false, false],
            episodes: vec![],
            seen: Norms::default(),
        };
        let loss = |weights: &[f32]| -> Result<f32> {
            let [policy, value, entropy] =
                gradient(&policy, weights, played.clone(), 0.1, 0.5)?.parts;
            Ok(policy + 0.5 * value - 0.1 * entropy)
        };
        let found = gradient(&policy, &weights, played.clone(), 0.1, 0.5)?.row;
        assert_eq!(found.len(), weights.len());
        for i in 0..weights.len() {
            let moved = |by: f32| {
                let mut moved = weights.clone();
                moved[i] += by;
                loss(&moved)
            };
            let slope = (moved(1e-2)? - moved(-1e-2)?) / 2e-2;
            assert!((slope - found[i]).abs() < 5e-3, "{i}: {slope} {}", found[i]);
        }
    }
    Ok(())
}

#[test]
fn one_worker_gives_the_same_run_twice_and_a_checkpoint_goes_on() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    let config = Config {
        num_workers: 1,
        ..small()
    };
    let mut one = A3c::new("CartPole-v1", config.clone(), 5)?;
    let mut two = A3c::new("CartPole-v1", config, 5)?;
    for _ in 0..3 {
        assert_eq!(one.train()?, two.train()?);
    }
    assert_eq!(one.weights, two.weights);
    let mut restored = A3c::restore(&one.checkpoint()?)?;
    assert_eq!(restored.weights, one.weights);
    let progress = restored.train()?;
    assert_eq!((progress.training_iteration, progress.steps), (4, 240));
    Ok(())
}

#[test]
fn a_worker_that_ended_is_replaced_and_training_goes_on() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    let mut a3c = A3c::new("Pendulum-v1", small(), 1)?;
    a3c.train()?;
    a3c.workers.kill(1);
    // The gradient that was under way may have been ready already.
    let mut steps = 0;
    for _ in 0..3 {
        steps = a3c.train()?.steps;
    }
    assert_eq!((steps, a3c.replaced()), (240, 1));
    Ok(())
}

#[test]
fn what_is_no_number_changes_nothing_and_what_cannot_work_is_refused() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    let mut a3c = A3c::new("CartPole-v1", small(), 1)?;
    a3c.train()?;
    let before = a3c.weights.clone();
    let error = a3c
        .apply(&vec![f32::NAN; before.len()])
        .expect_err("no number");
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    assert_eq!(a3c.weights, before);
    let refused = |config: Config, says: &str| {
        let error = A3c::new("CartPole-v1", config, 1).err().expect("refused");
        assert!(error.to_string().contains(says), "{error}");
    };
    let gamma = Config {
        gamma: -0.1,
        ..small()
    };
    refused(gamma, "between 0 and 1");
    let rate = Config {
        final_learning_rate: Some(-1e-3),
        ..small()
    };
    refused(rate, "is -0.001; it is 0 or more");
    Ok(())
}

#[test]
fn a_late_run_still_learns_unless_its_schedule_ends_at_nothing() -> Result<()> {
    let _turn = crate::rl::turn();
    let _node = init()?;
    for (last, moves) in [(None, true), (Some(0.0), false)] {
        let config = Config {
            final_learning_rate: last,
            schedule_steps: 60,
            ..small()
        };
        let mut a3c = A3c::new("CartPole-v1", config, 1)?;
        // One iteration is the whole schedule.
        assert_eq!(a3c.train()?.steps, 60);
        let before = a3c.weights.clone();
        a3c.train()?;
        assert_eq!(a3c.weights != before, moves, "{last:?}");
    }
    Ok(())
}

#[test]
fn the_step_size_falls_to_its_last_value_in_a_straight_line() {
    let config = Config {
        learning_rate: 0.02,
        ..small()
    };
    let near = |config: &Config, part: f64, want: f64| {
        assert!((config.rate(part) - want).abs() < 1e-12, "{part}");
    };
    near(&config, 0.0, 0.02);
    near(&config, 0.5, 0.015);
    near(&config, 1.0, 0.01);
    let given = Config {
        final_learning_rate: Some(0.004),
        ..config
    };
    near(&given, 0.5, 0.012);
}
