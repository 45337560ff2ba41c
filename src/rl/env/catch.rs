//! A small game of pixels: balls fall one after the other, a paddle at the bottom catches them.
//!
//! Invariant: what is seen is the picture alone, so a policy must find the paddle and the ball in it. Ten balls are an
//! episode, each worth 1 when caught and -1 when not: the best return is 10, and a paddle that stands still gets about -7.5.
//! Left out: colours and sizes to choose.

use super::{Env, Step, Words};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};

/// Rows of the picture.
const ROWS: usize = 8;
/// Its columns.
const COLUMNS: usize = 8;
/// Balls of one episode.
const BALLS: u64 = 10;

/// The game. Actions: 0 moves the paddle left, 1 leaves it, 2 moves it right.
pub struct Catch {
    row: usize,
    column: usize,
    paddle: usize,
    fallen: u64,
    rng: Rng,
}

impl Catch {
    /// A game that has not begun.
    pub fn new() -> Catch {
        Catch {
            row: 0,
            column: 0,
            paddle: COLUMNS / 2,
            fallen: 0,
            rng: Rng::new(0),
        }
    }

    fn draw(&self, picture: &mut [f32]) {
        picture.fill(0.0);
        picture[self.row * COLUMNS + self.column] = 1.0;
        picture[(ROWS - 1) * COLUMNS + self.paddle] = 1.0;
    }

    fn drop_ball(&mut self) {
        self.row = 0;
        self.column = self.rng.below(COLUMNS);
    }
}

impl Default for Catch {
    fn default() -> Catch {
        Catch::new()
    }
}

impl Env for Catch {
    fn observation_space(&self) -> Space {
        Space::uniform(0.0, 1.0, &[1, ROWS, COLUMNS])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(3)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.paddle = COLUMNS / 2;
        self.fallen = 0;
        self.drop_ball();
        self.draw(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        match action.choice() {
            0 => self.paddle = self.paddle.saturating_sub(1),
            1 => {}
            _ => self.paddle = (self.paddle + 1).min(COLUMNS - 1),
        }
        self.row += 1;
        let mut step = Step::default();
        if self.row == ROWS - 1 {
            step.reward = if self.column == self.paddle {
                1.0
            } else {
                -1.0
            };
            self.fallen += 1;
            step.terminated = self.fallen == BALLS;
            self.drop_ball();
        }
        self.draw(observation);
        step
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend([
            self.row as u64,
            self.column as u64,
            self.paddle as u64,
            self.fallen,
        ]);
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.row = (words.word() as usize).min(ROWS - 1);
        self.column = (words.word() as usize).min(COLUMNS - 1);
        self.paddle = (words.word() as usize).min(COLUMNS - 1);
        self.fallen = words.word();
        self.rng = words.rng();
    }
}
