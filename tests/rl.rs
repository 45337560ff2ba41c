//! Environments against Gymnasium's recordings, one against many, and the command from end to end.
//!
//! Invariant: the scripts tests/rl/record*.py made the recordings; nothing here knows what they say. Left out: units, which are
//! beside their code.

#[path = "rl/events.rs"]
mod events;
#[path = "rl/learning.rs"]
mod learning;
#[path = "rl/memory.rs"]
mod memory;
#[cfg(feature = "mujoco")]
#[path = "rl/mujoco.rs"]
mod mujoco;
#[path = "rl/pictures.rs"]
mod pictures;
#[path = "rl/wrappers.rs"]
mod wrappers;

use mobula::rl::command::{Arguments, run};
use mobula::rl::{Action, Actions, Error, Space, Steps, Words, env_names, make, make_vec, restore};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A process has one node at a time: tests take turns.
static TURN: Mutex<()> = Mutex::new(());

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

/// Takes the steps of recordings, each from its state, and compares. Gives how many there are, and how many came to an end.
fn follow(recordings: &str) -> (usize, usize) {
    let golden: Value = serde_json::from_str(recordings).expect("JSON");
    let recordings = golden.as_array().expect("recordings");
    let mut ended = 0;
    for recording in recordings {
        let name = recording["env"].as_str().expect("a name");
        let mut env = make(name).expect("it exists");
        let width = env.observation_space().len();
        let mut observation = vec![0.0f32; width];
        env.reset(Some(0), &mut observation);
        // What an environment knows: its state, then its count of steps and its random numbers.
        let mut words = Vec::new();
        env.save(&mut words);
        let state = recording["state"].as_array().expect("a state");
        for (word, x) in words.iter_mut().zip(state) {
            *word = number(x).to_bits();
        }
        env.load(&mut Words::new(&words));
        let steps = recording["steps"].as_array().expect("steps");
        for (t, step) in steps.iter().enumerate() {
            let given: Vec<f32> = match &step[0] {
                Value::Array(row) => row.iter().map(|x| number(x) as f32).collect(),
                one => vec![number(one) as f32],
            };
            let action = match env.action_space() {
                Space::Discrete(_) => Action::Discrete(given[0] as usize),
                _ => Action::Continuous(&given),
            };
            let got = env.step(action, &mut observation);
            // Not every observation of what has hundreds of numbers was written down.
            let seen = step[1].as_array().into_iter().flatten();
            for (i, (x, want)) in observation.iter().zip(seen).enumerate() {
                let want = number(want) as f32;
                let near = 2e-6 * want.abs().max(1.0);
                assert!(
                    (x - want).abs() <= near,
                    "{name} step {t} number {i}: {x} {want}"
                );
            }
            let seen = step[1].as_array().map_or(width, Vec::len);
            assert_eq!(seen, width, "{name}");
            let want = number(&step[2]) as f32;
            assert!(
                (got.reward - want).abs() <= 1e-5 * want.abs().max(1.0),
                "{name} {t}: {got:?} {want}"
            );
            assert_eq!(Some(got.terminated), step[3].as_bool(), "{name} step {t}");
            assert_eq!(Some(got.truncated), step[4].as_bool(), "{name} step {t}");
            ended += usize::from(got.over());
        }
    }
    (recordings.len(), ended)
}

#[test]
fn classic_environments_go_as_gymnasiums_do() {
    let (all, ended) = follow(include_str!("rl/golden.json"));
    assert!(all >= 10 && ended >= 8, "{ended} of {all} ended");
}

#[test]
fn many_environments_go_as_single_ones_and_can_be_saved() {
    for name in env_names() {
        let n = 19;
        let mut many = make_vec(name, n).expect("it exists");
        let space = many.action_space();
        let width = many.observation_space().len();
        let mut steps = Steps::new(n, width);
        many.reset(5, &mut steps.observations);
        // Each goes on from where the many began.
        let mut words = Vec::new();
        many.save(&mut words);
        let mut reader = Words::new(&words);
        let mut singles: Vec<_> = (0..n)
            .map(|_| {
                let mut single = make(name).expect("it exists");
                single.load(&mut reader);
                single
            })
            .collect();
        assert!(reader.complete(), "{name}");
        let mut random = mobula::rl::Rng::new(8);
        let mut actions = Actions::zeros(&space, n);
        for t in 0..600 {
            match (&mut actions, &space) {
                (Actions::Discrete(choices), Space::Discrete(k)) => {
                    choices.fill_with(|| random.below(*k) as u32);
                }
                (Actions::Continuous { numbers, .. }, _) => {
                    numbers.fill_with(|| random.between(-2.5, 2.5) as f32);
                }
                _ => panic!("{name}: actions of another kind"),
            }
            many.step(&actions, &mut steps);
            let mut row = vec![0.0; width];
            for (i, single) in singles.iter_mut().enumerate() {
                let step = single.step(actions.row(i), &mut row);
                let part = i * width..(i + 1) * width;
                assert_eq!(step.reward, steps.rewards[i], "{name} {i} {t}");
                assert_eq!(step.terminated, steps.terminated[i], "{name} {i} {t}");
                assert_eq!(step.truncated, steps.truncated[i], "{name} {i} {t}");
                if step.over() {
                    assert_eq!(row, steps.last[part.clone()], "{name} {i} {t}");
                    single.reset(None, &mut row);
                }
                assert_eq!(row, steps.observations[part], "{name} {i} {t}");
            }
        }
    }
}

fn arguments(words: &str) -> Arguments {
    Arguments::parse(words.split_whitespace()).expect("arguments")
}

#[test]
fn the_command_trains_leaves_its_files_and_goes_on() -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("rl-{}", std::process::id()));
    let told = |rest: &str, out: &str| {
        let mut told = arguments(&format!("--quiet --seed 3 {rest}"));
        told.out = Some(dir.join(out));
        told
    };
    let small = r#"{"num_envs":2,"num_steps":16,"epochs":2,"minibatch_size":16,"hidden":[8]}"#;
    let mut whole = told(
        "--alg PPO --env CartPole-v1 --stop-iterations 4 --checkpoint-freq 2",
        "whole",
    );
    whole.config = Some(small.to_owned());
    let outcome = run(&whole)?;
    assert_eq!(
        (outcome.ended_by, outcome.steps),
        ("--stop-iterations", 128)
    );
    // Two iterations, then two more from the checkpoint: the same as four.
    let mut rest = told("--stop-iterations 4 --checkpoint-freq 4", "rest");
    rest.restore = Some(dir.join("whole/checkpoint-000002"));
    // In the folder of the first, as far as it had come: its curve goes on.
    std::fs::create_dir_all(dir.join("rest")).expect("a folder");
    std::fs::copy(
        dir.join("whole/result.jsonl"),
        dir.join("rest/result.jsonl"),
    )
    .expect("copied");
    run(&rest)?;
    let curve =
        |out: &str| std::fs::read_to_string(dir.join(out).join("curve.svg")).expect("a picture");
    assert_eq!(curve("whole"), curve("rest"));
    let checkpoint =
        |out: &str| mobula::rl::Checkpoint::read(&dir.join(out).join("checkpoint-000004"));
    assert_eq!(checkpoint("whole")?, checkpoint("rest")?);
    let lines = std::fs::read_to_string(dir.join("whole/result.jsonl")).expect("results");
    let rows: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3]["steps"], 128);
    assert!(rows[3]["metrics"]["value_loss"].is_number(), "{}", rows[3]);
    let config = std::fs::read_to_string(dir.join("whole/config.json")).expect("settings");
    assert!(config.contains("\"num_envs\": 2"), "{config}");
    assert!(
        std::fs::read_to_string(dir.join("whole/curve.svg"))
            .expect("a picture")
            .contains("<svg")
    );
    let mut judged = arguments("--quiet --episodes 3");
    judged.evaluate = Some(dir.join("whole/checkpoint-000004"));
    assert_eq!(
        run(&judged)?
            .evaluation
            .expect("an evaluation")
            .returns
            .len(),
        3
    );
    let mut agent = restore(&dir.join("whole/checkpoint-000004"))?;
    assert!(matches!(agent.act(&[0.0; 8])?, Actions::Discrete(choices) if choices.len() == 2));
    std::fs::remove_dir_all(&dir).expect("removed");
    Ok(())
}

#[test]
fn what_the_command_cannot_do_is_refused_with_what_it_can() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let refused = |words: &str, says: &str| {
        let error = Arguments::parse(words.split_whitespace()).and_then(|a| run(&a));
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(says), "{words}: {error}");
    };
    refused("--stop-rewards 1", "did you mean --stop-reward?");
    refused("--seed x", "--seed needs a number");
    refused("--alg PPO", "--env is missing");
    refused("--alg PP0 --env CartPole-v1", "did you mean \"PPO\"?");
    refused(
        "--alg PPO --env CartPol-v1",
        "did you mean \"CartPole-v1\"?",
    );
    refused(
        "--alg PPO --env CartPole-v1 --config {\"gama\":1}",
        "did you mean \"gamma\"?",
    );
    refused("--tuned cartpole-pp", "did you mean \"cartpole-ppo\"?");
    refused("--restore no-such-file", "no-such-file");
    refused("--rendr", "did you mean --render?");
    refused("--alg PPO --env CartPole-v1 --render", "--evaluate");
}
