//! A small game of pixels: balls fall one after the other, a paddle at the bottom catches them.
//!
//! Invariant: what is seen is the picture alone, so a policy must find the paddle and the ball in it. Ten balls are an
//! episode, each worth 1 when caught and -1 when not: the best return is 10, and a paddle that stands still gets about -7.5 (of
//! eight columns). Left out: colours.

use super::{Env, Step, Words};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};

/// Balls of one episode.
const BALLS: u64 = 10;

/// The game on `SIDE` x `SIDE` places, each of which is shown as `SCALE` x `SCALE` pixels. Actions: 0 moves the paddle left, 1
/// leaves it, 2 moves it right.
pub struct CatchOn<const SIDE: usize, const SCALE: usize> {
    row: usize,
    column: usize,
    paddle: usize,
    fallen: u64,
    rng: Rng,
}

/// A picture of 8 x 8 pixels.
pub type Catch = CatchOn<8, 1>;

/// A picture of 20 x 20 pixels, in which everything is 2 x 2.
pub type CatchPixels = CatchOn<10, 2>;

impl<const SIDE: usize, const SCALE: usize> CatchOn<SIDE, SCALE> {
    /// A game that has not begun.
    pub fn new() -> Self {
        CatchOn {
            row: 0,
            column: 0,
            paddle: SIDE / 2,
            fallen: 0,
            rng: Rng::new(0),
        }
    }

    fn draw(&self, picture: &mut [f32]) {
        picture.fill(0.0);
        for (row, column) in [(self.row, self.column), (SIDE - 1, self.paddle)] {
            for line in 0..SCALE {
                let from = ((row * SCALE + line) * SIDE + column) * SCALE;
                picture[from..from + SCALE].fill(1.0);
            }
        }
    }

    fn drop_ball(&mut self) {
        self.row = 0;
        self.column = self.rng.below(SIDE);
    }
}

impl<const SIDE: usize, const SCALE: usize> Default for CatchOn<SIDE, SCALE> {
    fn default() -> Self {
        CatchOn::new()
    }
}

impl<const SIDE: usize, const SCALE: usize> Env for CatchOn<SIDE, SCALE> {
    fn observation_space(&self) -> Space {
        Space::uniform(0.0, 1.0, &[1, SIDE * SCALE, SIDE * SCALE])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(3)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.paddle = SIDE / 2;
        self.fallen = 0;
        self.drop_ball();
        self.draw(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        match action.choice() {
            0 => self.paddle = self.paddle.saturating_sub(1),
            1 => {}
            _ => self.paddle = (self.paddle + 1).min(SIDE - 1),
        }
        self.row += 1;
        let mut step = Step::default();
        if self.row == SIDE - 1 {
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
        self.row = (words.word() as usize).min(SIDE - 1);
        self.column = (words.word() as usize).min(SIDE - 1);
        self.paddle = (words.word() as usize).min(SIDE - 1);
        self.fallen = words.word();
        self.rng = words.rng();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_show_the_game_at_twice_its_size() {
        let (mut game, side) = (CatchPixels::new(), 20);
        let mut picture = vec![0.5; side * side];
        game.reset(Some(3), &mut picture);
        for action in [0, 0, 2, 1] {
            game.step(Action::Discrete(action), &mut picture);
            let lit = (0..side * side).filter(|i| picture[*i] == 1.0);
            let mut places: Vec<_> = lit.map(|i| (i / side / 2, i % side / 2)).collect();
            assert_eq!(places.len(), 8);
            places.dedup();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places, [(game.row, game.column), (9, game.paddle)]);
        }
        assert_eq!((game.row, game.paddle), (4, 4));
    }
}
