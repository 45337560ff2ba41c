//! Wrappers against Gymnasium's: what went into each and what came out was recorded by record.py.

use mobula::rl::{
    Action, ClipReward, Env, FrameStack, NormalizeObservation, NormalizeReward, Space, Step,
    TimeLimit, Words, make, make_vec,
};
use serde_json::Value;

fn numbers(row: &Value) -> Vec<f32> {
    let numbers = row[0].as_array().expect("an observation");
    let number = |x: &Value| x.as_f64().expect("a number") as f32;
    numbers.iter().map(number).collect()
}

fn step(row: &Value) -> Step {
    Step {
        reward: row[1].as_f64().unwrap_or(0.0) as f32,
        terminated: row[2] == true,
        truncated: row[3] == true,
    }
}

/// Plays what was recorded, whatever is done.
struct Recorded {
    rows: Vec<Value>,
    at: usize,
}

impl Recorded {
    fn next(&mut self, observation: &mut [f32]) -> Step {
        let row = &self.rows[self.at];
        self.at += 1;
        observation.copy_from_slice(&numbers(row));
        step(row)
    }
}

impl Env for Recorded {
    fn observation_space(&self) -> Space {
        Space::uniform(-1.0, 1.0, &[numbers(&self.rows[0]).len()])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(1)
    }

    fn reset(&mut self, _: Option<u64>, observation: &mut [f32]) {
        self.next(observation);
    }

    fn step(&mut self, _: Action<'_>, observation: &mut [f32]) -> Step {
        self.next(observation)
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.push(self.at as u64);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.at = words.word() as usize;
    }
}

fn wrapped(kind: &str, env: Recorded) -> Box<dyn Env> {
    match kind {
        "time_limit" => Box::new(TimeLimit::new(env, 25)),
        "frame_stack" => Box::new(FrameStack::new(env, 3)),
        "clip_reward" => Box::new(ClipReward::new(env, -1.5, 0.75)),
        "normalize_observation" => Box::new(NormalizeObservation::new(env)),
        "normalize_reward" => Box::new(NormalizeReward::new(env, 0.9)),
        other => panic!("no wrapper {other}"),
    }
}

#[test]
fn wrappers_do_what_gymnasiums_do() {
    let golden: Value = serde_json::from_str(include_str!("wrappers.json")).expect("JSON");
    let recordings = golden.as_array().expect("recordings");
    assert_eq!(recordings.len(), 10);
    for recording in recordings {
        let kind = recording["wrapper"].as_str().expect("a name");
        let fresh = || {
            let rows = recording["within"].as_array().expect("rows").clone();
            wrapped(kind, Recorded { rows, at: 0 })
        };
        let mut env = fresh();
        let mut observation = vec![0.0; env.observation_space().len()];
        let mut ends = [0, 0];
        for (t, row) in recording["around"]
            .as_array()
            .expect("rows")
            .iter()
            .enumerate()
        {
            let at = format!("{kind} of {} at {t}", recording["env"]);
            if t % 20 == 7 {
                // What was saved goes on as if nothing had happened.
                let mut words = Vec::new();
                env.save(&mut words);
                env = fresh();
                let mut words = Words::new(&words);
                env.load(&mut words);
                assert!(words.complete(), "{at}");
            }
            let want = step(row);
            let mut got = Step::default();
            if row[1].is_null() {
                env.reset(None, &mut observation);
            } else {
                got = env.step(Action::Discrete(0), &mut observation);
            }
            for (x, want) in observation.iter().zip(numbers(row)) {
                // Gymnasium counts observations in 32 bits.
                assert!(
                    (x - want).abs() < 2e-4 * want.abs().max(1.0),
                    "{at}: {x} {want}"
                );
            }
            assert!(
                (got.reward - want.reward).abs() < 1e-5 * want.reward.abs().max(1.0),
                "{at}"
            );
            assert_eq!(
                (got.terminated, got.truncated),
                (want.terminated, want.truncated),
                "{at}"
            );
            ends[0] += u32::from(got.terminated);
            ends[1] += u32::from(got.truncated);
        }
        assert!(ends[0] + ends[1] >= 2, "{kind}: {ends:?}");
    }
}

#[test]
fn what_was_learned_can_be_frozen() {
    let mut env = NormalizeObservation::new(make("Pendulum-v1").expect("it is there"));
    let mut observation = [0.0; 3];
    env.reset(Some(1), &mut observation);
    env.freeze(true);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    env.save(&mut before);
    env.step(Action::Continuous(&[1.0]), &mut observation);
    env.save(&mut after);
    let learned = before.len() - 9..;
    assert_eq!(before[learned.clone()], after[learned]);
}

#[test]
fn wrappers_stand_in_names_and_wrong_ones_are_refused() {
    let many = make_vec("CartPole-v1+time_limit=7+frame_stack=3", 2).expect("it is there");
    assert_eq!(many.observation_space().len(), 12);
    let mut env = make("CartPole-v1+time_limit=7+clip_reward=0.5").expect("it is there");
    let mut observation = [0.0; 4];
    env.reset(Some(1), &mut observation);
    let steps: Vec<Step> = (0..7)
        .map(|t| env.step(Action::Discrete(t % 2), &mut observation))
        .collect();
    assert!(steps[6].truncated && !steps[5].over() && steps[0].reward == 0.5);
    let refused = |name: &str, says: &str| {
        let error = make(name).err().expect("refused").to_string();
        assert!(error.contains(says), "{error}");
    };
    refused("CartPole-v1+frame_stak=2", "did you mean \"frame_stack\"?");
    refused("CartPole-v1+frame_stack=0", "a whole number above 0");
    refused("CartPole-v1+clip_reward=", "a number above 0");
    refused("CartPol-v1+frame_stack=2", "did you mean \"CartPole-v1\"?");
}
