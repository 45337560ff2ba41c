//! Networks with filters learn where something is in a picture. Whether they solve a game is asked of release builds, in .ci/run.

use super::TURN;
use mobula::rl::{Action, Env, Error, Rng, Space, Step, Words, add_env, agent};
use std::sync::PoisonError;

/// Two pixels by two are lit somewhere in one quarter of a picture; the choice of that quarter's number is worth 1. Ten choices are an
/// episode.
struct Quarters {
    lit: usize,
    steps: u64,
    rng: Rng,
}

impl Quarters {
    fn show(&mut self, picture: &mut [f32]) {
        self.lit = self.rng.below(4);
        let (row, column) = (self.rng.below(3), self.rng.below(3));
        let corner = (self.lit / 2 * 4 + row) * 8 + self.lit % 2 * 4 + column;
        picture.fill(0.0);
        for pixel in [0, 1, 8, 9] {
            picture[corner + pixel] = 1.0;
        }
    }
}

impl Env for Quarters {
    fn observation_space(&self) -> Space {
        Space::uniform(0.0, 1.0, &[1, 8, 8])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(4)
    }

    fn reset(&mut self, seed: Option<u64>, picture: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.steps = 0;
        self.show(picture);
    }

    fn step(&mut self, action: Action<'_>, picture: &mut [f32]) -> Step {
        let right = action.choice() == self.lit;
        self.steps += 1;
        self.show(picture);
        Step {
            reward: f32::from(u8::from(right)),
            terminated: self.steps == 10,
            truncated: false,
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.lit as u64, self.steps]);
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.lit = words.word() as usize;
        self.steps = words.word();
        self.rng = words.rng();
    }
}

fn learns(algorithm: &str, settings: &str, iterations: usize) -> Result<(), Error> {
    add_env("Quarters-v0", || {
        Box::new(Quarters {
            lit: 0,
            steps: 0,
            rng: Rng::new(0),
        })
    });
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    let settings = format!(
        r#"{{"net": "cnn", "gamma": 0.0, "hidden": [8], "activation": "relu", {settings}}}"#
    );
    let mut agent = agent(algorithm, "Quarters-v0", &settings, 1)?;
    let mut means = vec![agent.evaluate(20, 3)?.mean()];
    while means[means.len() - 1] < 9.0 && means.len() <= iterations {
        agent.train()?;
        means.push(agent.evaluate(20, 3)?.mean());
    }
    let last = means[means.len() - 1];
    assert!(means[0] < 6.0 && last >= 9.0, "{algorithm}: {means:?}");
    Ok(())
}

#[test]
fn dqn_learns_from_pictures() -> Result<(), Error> {
    let settings = r#""updates": 16, "batch_size": 32, "learning_starts": 128, "epsilon_steps": 1000, "n_step": 1"#;
    learns("DQN", settings, 60)
}

#[test]
fn a3c_learns_from_pictures() -> Result<(), Error> {
    learns("A3C", r#""learning_rate": 0.01"#, 60)
}

#[test]
fn ppo_learns_from_pictures() -> Result<(), Error> {
    let settings = r#""epochs": 4, "minibatch_size": 64, "learning_rate": 0.01"#;
    learns("PPO", settings, 60)
}

#[test]
fn filters_over_what_is_no_picture_are_refused() -> Result<(), Error> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _mobula = mobula::init()?;
    for algorithm in ["PPO", "DQN", "A3C"] {
        let refused = agent(algorithm, "CartPole-v1", r#"{"net": "cnn"}"#, 1);
        let why = refused.err().expect("refused").to_string();
        assert!(
            why.contains("at least 8 x 8") && why.contains("CartPole-v1"),
            "{why}"
        );
    }
    let refused = agent("DQN", "Catch-v0", r#"{"net": "rnn"}"#, 1);
    let why = refused.err().expect("refused").to_string();
    assert!(why.contains("cnn") && why.contains("net"), "{why}");
    Ok(())
}
