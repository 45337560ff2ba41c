//! Environments of the crate [`gym_rs`].
//!
//! Invariant: such an environment can draw to a window and may not change threads, so each is made on a thread of its own and stays there; a
//! step is a question to it and an answer, some ten microseconds. An episode under way is saved as its seed and its actions. An environment that
//! panics is a failure; steps after it mean nothing. Left out: windows.

use super::episode::Episode;
use super::{Env, Step, Words};
use crate::rl::error::{Error, Result};
use crate::rl::space::{Action, Space};
use gym_rs::core::{ActionReward, Env as Theirs};
use gym_rs::spaces::{BoxR, Discrete};
use gym_rs::utils::custom::traits::Sample;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

enum Request {
    Reset(u64),
    Step(usize),
}

struct Answer {
    observation: Vec<f64>,
    step: Step,
}

/// One environment of gym-rs, whose actions are choices. It has no limit of steps unless one is put around it
/// ([`TimeLimit`](super::TimeLimit)); its CartPole is not Gymnasium's.
pub struct GymRs {
    name: String,
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    observations: Space,
    actions: Space,
    episode: Episode,
    failed: bool,
}

impl GymRs {
    /// The environment that `make` makes. `name` is for errors.
    ///
    /// # Errors
    /// [`Error::Environment`] if it panics.
    ///
    /// ```
    /// use gym_rs::{envs::classical_control::mountain_car::MountainCarEnv, utils::renderer::RenderMode};
    /// use mobula::rl::{Env, GymRs, add_env, make};
    /// add_env("Hill-v0", || {
    ///     let hill = GymRs::new("Hill-v0", || MountainCarEnv::new(RenderMode::None));
    ///     Box::new(hill.expect("it can be made"))
    /// });
    /// assert_eq!(make("Hill-v0+time_limit=200")?.observation_space().len(), 2);
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn new<E>(name: &str, make: impl FnOnce() -> E + Send + 'static) -> Result<GymRs>
    where
        E: Theirs<
                Action = usize,
                ActionSpace = Discrete,
                ObservationSpace = BoxR<<E as Theirs>::Observation>,
            > + 'static,
        E::Observation: Sample + Into<Vec<f64>> + Clone,
    {
        let (requests, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let (tell, told) = sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("gym-rs {name}"));
        let started = thread.spawn(move || {
            let mut env = make();
            let space: &BoxR<E::Observation> = env.observation_space();
            let bounds: [Vec<f64>; 2] = [space.low.clone().into(), space.high.clone().into()];
            let Discrete(choices) = *env.action_space();
            let mut sent = tell.send((bounds, choices)).is_ok();
            while let (true, Ok(request)) = (sent, asked.recv()) {
                let given = match request {
                    Request::Reset(seed) => Answer {
                        observation: env.reset(Some(seed), false, None).0.into(),
                        step: Step::default(),
                    },
                    Request::Step(choice) => {
                        let ActionReward {
                            observation,
                            reward,
                            done,
                            truncated,
                            ..
                        } = env.step(choice);
                        Answer {
                            observation: observation.into(),
                            step: Step {
                                reward: reward.into_inner() as f32,
                                terminated: done && !truncated,
                                truncated,
                            },
                        }
                    }
                };
                sent = answer.send(given).is_ok();
            }
        });
        let told = started.map_err(|error| error.to_string()).and_then(|_| {
            let ended = |_| "it panicked when it was made".to_owned();
            told.recv().map_err(ended)
        });
        let ([low, high], choices) = told.map_err(|why| Error::Environment {
            env: name.to_owned(),
            why,
        })?;
        let row = |row: Vec<f64>| row.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        Ok(GymRs {
            name: name.to_owned(),
            requests,
            answers,
            observations: Space::Box {
                shape: vec![low.len()],
                low: row(low),
                high: row(high),
            },
            actions: Space::Discrete(choices),
            episode: Episode::new(0),
            failed: false,
        })
    }

    /// Asks; what comes back is written to `observation`. Zeros once it failed.
    fn ask(&mut self, request: Request, observation: &mut [f32]) -> Step {
        let sent = !self.failed && self.requests.send(request).is_ok();
        let answer = sent.then(|| self.answers.recv().ok()).flatten();
        let Some(answer) = answer.filter(|a| a.observation.len() == observation.len()) else {
            self.failed = true;
            observation.fill(0.0);
            // Whoever plays until an episode is over must come to an end.
            return Step {
                truncated: true,
                ..Step::default()
            };
        };
        for (to, x) in observation.iter_mut().zip(answer.observation) {
            *to = x as f32;
        }
        answer.step
    }

    fn choice(&self, word: usize) -> usize {
        match self.actions {
            Space::Discrete(n) => word.min(n.saturating_sub(1)),
            Space::Box { .. } => 0,
        }
    }
}

impl Env for GymRs {
    fn observation_space(&self) -> Space {
        self.observations.clone()
    }

    fn action_space(&self) -> Space {
        self.actions.clone()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.episode = Episode::new(seed);
        }
        let seed = self.episode.begin();
        self.ask(Request::Reset(seed), observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let choice = self.choice(action.choice());
        self.episode.act(Action::Discrete(choice));
        self.ask(Request::Step(choice), observation)
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.episode.save(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.episode = Episode::load(words);
        let mut observation = vec![0.0; self.observations.len()];
        self.ask(Request::Reset(self.episode.seed), &mut observation);
        // It comes to where it was by doing what was done.
        for word in self.episode.actions.clone() {
            self.ask(Request::Step(self.choice(word as usize)), &mut observation);
        }
    }

    fn failure(&self) -> Option<Error> {
        self.failed.then(|| Error::Environment {
            env: self.name.clone(),
            why: "it panicked; its thread's message says why".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::env::make;
    use gym_rs::envs::classical_control::cartpole::CartPoleEnv;
    use gym_rs::utils::renderer::RenderMode;

    #[test]
    fn plays_and_goes_on_from_what_was_saved() -> Result<()> {
        for (name, width, choices) in [("gym-rs:CartPole", 4, 2), ("gym-rs:MountainCar", 2, 3)] {
            let (mut env, mut other) = (make(name)?, make(name)?);
            assert_eq!(env.observation_space().len(), width);
            assert_eq!(env.action_space(), Space::Discrete(choices));
            let (mut a, mut b) = (vec![0.0; width], vec![0.0; width]);
            env.reset(Some(3), &mut a);
            let first = a.clone();
            env.reset(Some(3), &mut a);
            assert_eq!(a, first, "the same seed");
            env.step(Action::Discrete(1), &mut a);
            let mut words = Vec::new();
            env.save(&mut words);
            other.load(&mut Words::new(&words));
            for t in 0..50 {
                let action = Action::Discrete(t % choices);
                let (x, y) = (env.step(action, &mut a), other.step(action, &mut b));
                assert_eq!((x, &a), (y, &b), "{name} {t}");
                if x.over() {
                    env.reset(None, &mut a);
                    other.reset(None, &mut b);
                    assert_eq!(a, b, "{name} {t}: the next episode");
                }
            }
            assert!(env.failure().is_none());
        }
        let limited = make("gym-rs:CartPole+time_limit=500")?;
        assert_eq!(limited.action_space(), Space::Discrete(2));
        Ok(())
    }

    #[test]
    fn one_that_panics_is_a_failure() {
        let broken = || -> CartPoleEnv { panic!("no window") };
        let error = GymRs::new("Broken-v0", broken)
            .map(drop)
            .expect_err("it panicked");
        assert!(error.to_string().contains("Broken-v0"), "{error}");
        // Its steps assert that an action is one; ours are.
        let mut env = GymRs::new("It", || CartPoleEnv::new(RenderMode::None)).expect("made");
        let mut seen = [0.0; 4];
        env.reset(Some(1), &mut seen);
        env.step(Action::Discrete(99), &mut seen);
        assert!(env.failure().is_none());
        // A thread that is gone.
        env.requests = sync_channel(1).0;
        assert!(env.step(Action::Discrete(0), &mut seen).truncated);
        assert!(env.failure().is_some());
    }
}
