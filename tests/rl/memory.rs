//! A3C with long short-term memory learns what cannot be learned without.
//!
//! Invariant: one worker, so each run follows from its seed, on one kind of processor. What is asked for is in no observation that the question comes with:
//! see `Recall-v0`. Left out: how fast it is, which docs/rl.md has.

use super::{TURN, arguments};
use mobula::rl::command::run;
use mobula::rl::{Agent, Error, agent, make, restore};
use std::path::PathBuf;
use std::sync::PoisonError;

const SETTINGS: &str = r#""num_workers": 1, "num_envs": 16, "num_steps": 12, "updates": 8, "hidden": [],
    "learning_rate": 0.03, "entropy_coefficient": 0.01"#;

/// Plays episodes one after the other by `act`, and gives the mean return. `tell` says whether the agent is told where they begin.
fn play(agent: &mut dyn Agent, episodes: u64, tell: bool) -> Result<f32, Error> {
    let mut env = make(agent.env())?;
    let mut seen = vec![0.0; env.observation_space().len()];
    let mut sum = 0.0;
    for episode in 0..episodes {
        env.reset(Some(episode), &mut seen);
        // Another number of rows begins everything anew, too.
        if tell {
            agent.forget(0);
        } else {
            agent.act(&seen.repeat(2))?;
        }
        loop {
            let step = env.step(agent.act(&seen)?.row(0), &mut seen);
            sum += step.reward;
            if step.over() {
                break;
            }
        }
    }
    Ok(sum / episodes as f32)
}

/// Trains until it is nearly always right, or for so many iterations. Gives the means of 100 episodes on the way.
fn train(agent: &mut dyn Agent, iterations: usize) -> Result<Vec<f32>, Error> {
    let mut means = vec![agent.evaluate(100, 3)?.mean()];
    while means[means.len() - 1] < 0.95 && means.len() <= iterations {
        agent.train()?;
        means.push(agent.evaluate(100, 3)?.mean());
    }
    Ok(means)
}

#[test]
fn a3c_recalls_with_memory_and_guesses_without() -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    let settings = format!(r#"{{"lstm": 12, {SETTINGS}}}"#);
    let mut recalls = agent("A3C", "Recall-v0", &settings, 1)?;
    // Ends as soon as it is right.
    let means = train(&mut *recalls, 60)?;
    let last = means[means.len() - 1];
    assert!(means[0] < 0.5 && last >= 0.95, "{means:?}");
    // One step after the other, as whoever uses it plays.
    for tell in [true, false] {
        let mean = play(&mut *recalls, 40, tell)?;
        assert!(mean >= 0.85, "{mean}");
    }
    // From a file it plays as before, and goes on as what was saved does.
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("recalls-{}", std::process::id()));
    recalls.save(&path)?;
    let (mut one, mut two) = (restore(&path)?, restore(&path)?);
    assert_eq!(one.evaluate(50, 9)?, recalls.evaluate(50, 9)?);
    assert_eq!(one.train()?, two.train()?);
    assert_eq!(one.checkpoint()?, two.checkpoint()?);
    let mut judged = arguments("--quiet --episodes 50 --seed 9");
    judged.evaluate = Some(path.clone());
    assert_eq!(run(&judged)?.evaluation, Some(recalls.evaluate(50, 9)?));
    std::fs::remove_file(&path).expect("removed");

    // Without memory it always gives the same answer.
    let mut guesses = agent("A3C", "Recall-v0", &format!("{{{SETTINGS}}}"), 1)?;
    let means = train(&mut *guesses, 8)?;
    assert!(means.iter().all(|mean| *mean < 0.5), "{means:?}");
    Ok(())
}

#[test]
fn memory_is_a_setting_of_a3cs_that_is_checked() -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    let refused = |algorithm: &str, settings: &str, says: &str| {
        let refused = agent(algorithm, "Recall-v0", settings, 1);
        let why = refused.err().expect("refused").to_string();
        assert!(why.contains(says), "{settings}: {why}");
    };
    refused("A3C", r#"{"lstn": 8}"#, r#"did you mean "lstm"?"#);
    refused("A3C", r#"{"lstm": 0}"#, "lstm");
    refused("A3C", r#"{"lstm": "big"}"#, "lstm");
    refused("PPO", r#"{"lstm": 8}"#, "lstm");
    assert!(agent("A3C", "Recall-v0", r#"{"lstm": null}"#, 1).is_ok());
    Ok(())
}
