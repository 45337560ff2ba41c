//! The easiest problem that asks for memory: a light is shown once, and its number is asked for some steps later.
//!
//! Invariant: when it is asked for, what is seen is the same whichever light it was, so whoever goes by what is seen alone is
//! right one time in four. An episode is one question: a right answer is worth 1, so the best return is 1, and chance is 0.25.
//! What is chosen before changes nothing. Left out: anything that distracts meanwhile, and waits of several lengths.

use super::{Env, Step, Words};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Space};

/// Lights, and choices.
const LIGHTS: usize = 4;
/// Steps from the light to the question.
const WAIT: u64 = 5;

/// The problem. An observation is a picture of one row: the lights, then whether the answer is asked for.
pub struct Recall {
    shown: usize,
    steps: u64,
    rng: Rng,
}

impl Recall {
    /// One that has not begun.
    pub fn new() -> Recall {
        Recall {
            shown: 0,
            steps: 0,
            rng: Rng::new(0),
        }
    }

    fn show(&self, observation: &mut [f32]) {
        observation.fill(0.0);
        match self.steps {
            0 => observation[self.shown] = 1.0,
            WAIT => observation[LIGHTS] = 1.0,
            _ => {}
        }
    }
}

impl Default for Recall {
    fn default() -> Recall {
        Recall::new()
    }
}

impl Env for Recall {
    fn observation_space(&self) -> Space {
        Space::uniform(0.0, 1.0, &[1, 1, LIGHTS + 1])
    }

    fn action_space(&self) -> Space {
        Space::Discrete(LIGHTS)
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.rng = Rng::new(seed);
        }
        self.shown = self.rng.below(LIGHTS);
        self.steps = 0;
        self.show(observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let answered = self.steps == WAIT;
        let right = answered && action.choice() == self.shown;
        self.steps += 1;
        self.show(observation);
        Step {
            reward: if right { 1.0 } else { 0.0 },
            terminated: answered,
            truncated: false,
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        words.extend([self.shown as u64, self.steps]);
        words.extend(self.rng.words());
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.shown = (words.word() as usize).min(LIGHTS - 1);
        self.steps = words.word();
        self.rng = words.rng();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_does_not_tell_the_answer_and_only_the_answer_counts() {
        let (mut recall, mut seen) = (Recall::new(), [0.0; LIGHTS + 1]);
        let (mut questions, mut lights) = (Vec::new(), [0; LIGHTS]);
        for seed in 0..40 {
            recall.reset(Some(seed), &mut seen);
            let light = seen.iter().position(|x| *x == 1.0).expect("it is on");
            lights[light] += 1;
            for t in 0..WAIT {
                assert_eq!(seen.iter().sum::<f32>(), if t == 0 { 1.0 } else { 0.0 });
                let step = recall.step(Action::Discrete(light), &mut seen);
                assert_eq!(step, Step::default());
            }
            questions.push(seen);
            // Each answer is tried; one is right.
            let answer = (light + seed as usize) % LIGHTS;
            let step = recall.step(Action::Discrete(answer), &mut seen);
            assert!(step.terminated && !step.truncated);
            assert_eq!(step.reward, if answer == light { 1.0 } else { 0.0 });
        }
        questions.dedup();
        assert_eq!(questions, [[0.0, 0.0, 0.0, 0.0, 1.0]]);
        assert!(lights.iter().all(|n| *n >= 3), "{lights:?}");
    }
}
