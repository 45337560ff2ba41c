//! `gym:NAME`: environments of Gymnasium, in a Python process of their own.
//!
//! Invariant: one process plays all environments of one [`VecEnv`], so that a step of all is one question and one answer; observations lie in memory that both share. Every
//! episode begins with a seed from our own generator, so an episode under way is its seed and its actions: saved so, and played
//! again on loading. A process that ends or answers nonsense is a failure with the last lines it printed; steps after it
//! mean nothing, and whoever plays asks for it. Left out: a bound on how long a step may take.

use super::episode::Episode;
use super::vector::seed_of;
use super::{Env, Step, Steps, VecEnv, Words};
use crate::rl::error::{Error, Result};
use crate::rl::rng::Rng;
use crate::rl::space::{Action, Actions, Space};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

const SCRIPT: &str = include_str!("gym.py");
/// Which interpreter runs it.
const PYTHON: &str = "MOBULA_PYTHON";
/// Lines of what it printed that an error shows.
const KEPT_LINES: usize = 12;

/// Environments in one process.
pub(super) struct Gym {
    name: String,
    /// What was started, in a process group of its own: `python3` may be a script that starts the interpreter.
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What each environment showed last, a row for each. The process writes it in place.
    rows: File,
    printed: Arc<Mutex<VecDeque<String>>>,
    observations: Space,
    actions: Space,
    episodes: Vec<Episode>,
    bytes: Vec<u8>,
    failure: Option<String>,
}

fn no(name: &str, why: impl Into<String>) -> Error {
    Error::Environment {
        env: format!("gym:{name}"),
        why: why.into(),
    }
}

/// A space, as the script describes it.
fn space(told: &Value) -> Option<Space> {
    if let Some(n) = told["n"].as_u64() {
        return Some(Space::Discrete(n as usize));
    }
    let numbers = |key: &str, infinite: f32| -> Option<Vec<f32>> {
        let row = told[key].as_array()?.iter();
        Some(
            row.map(|x| x.as_f64().map_or(infinite, |x| x as f32))
                .collect(),
        )
    };
    let shape = told["shape"].as_array()?.iter();
    let shape: Option<Vec<usize>> = shape.map(|n| n.as_u64().map(|n| n as usize)).collect();
    Some(Space::Box {
        low: numbers("low", f32::NEG_INFINITY)?,
        high: numbers("high", f32::INFINITY)?,
        shape: shape?,
    })
}

impl Gym {
    /// `n` environments of Gymnasium's `name`.
    pub fn new(name: &str, n: usize) -> Result<Gym> {
        let python = std::env::var(PYTHON).unwrap_or_else(|_| "python3".to_owned());
        Gym::start(&python, name, n)
    }

    fn start(python: &str, name: &str, n: usize) -> Result<Gym> {
        let rows = memfd_create("mobula-gym", MemfdFlags::CLOEXEC);
        let rows = rows.map_err(|e| no(name, format!("no memory to share with it: {e}")))?;
        // By this name the process opens it; no other one inherits it.
        let path = format!("/proc/{}/fd/{}", std::process::id(), rows.as_raw_fd());
        let mut child = Command::new(python)
            .args(["-u", "-c", SCRIPT, name, &n.to_string(), &path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let help = "is needed; MOBULA_PYTHON names another interpreter";
                no(name, format!("{python} {help}: {error}"))
            })?;
        let (Some(requests), Some(answers), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(no(name, "its pipes were not made"));
        };
        let printed = Arc::new(Mutex::new(VecDeque::new()));
        let lines = Arc::clone(&printed);
        // Ends with the process. Without it a process that prints much would stop.
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(|line| line.ok()) {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push_back(line);
                if lines.len() > KEPT_LINES {
                    lines.pop_front();
                }
            }
        });
        let mut gym = Gym {
            name: name.to_owned(),
            child,
            requests: Some(requests),
            answers: BufReader::new(answers),
            rows: File::from(rows),
            printed,
            observations: Space::Discrete(1),
            actions: Space::Discrete(1),
            episodes: Vec::new(),
            bytes: Vec::new(),
            failure: None,
        };
        let mut line = String::new();
        let read = gym.answers.read_line(&mut line);
        let told: Value = match read {
            Ok(1..) => serde_json::from_str(&line).unwrap_or_default(),
            _ => return Err(no(name, gym.ended())),
        };
        if let Some(error) = told["error"].as_str() {
            return Err(no(name, error));
        }
        let (Some(observations), Some(actions)) =
            (space(&told["observations"]), space(&told["actions"]))
        else {
            return Err(no(name, format!("it answered {line:?}")));
        };
        (gym.observations, gym.actions) = (observations, actions);
        gym.episodes = (0..n).map(|i| Episode::new(i as u64)).collect();
        Ok(gym)
    }

    /// Ends what was started and all that it started, once: after that the child is waited for, and its number may be another's.
    fn kill(&mut self) {
        if self.requests.take().is_some() {
            let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        }
    }

    /// Why the process answers no more.
    fn ended(&mut self) -> String {
        // It closed its pipe; the rest of its end takes a moment, and then all it printed is there.
        self.kill();
        let status = match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(1);
        while Arc::strong_count(&self.printed) > 1 && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = printed.iter().map(String::as_str).collect();
        format!("its Python process ended ({status}): {}", lines.join("\n"))
    }

    /// Sends what is in `bytes` and reads so many bytes into it. Zeros once something failed.
    fn ask(&mut self, answer: usize) {
        if self.failure.is_none() {
            let sent = match &mut self.requests {
                Some(pipe) => pipe.write_all(&self.bytes).and_then(|()| pipe.flush()),
                None => Ok(()),
            };
            self.bytes.resize(answer, 0);
            let read = sent.and_then(|()| self.answers.read_exact(&mut self.bytes));
            if read.is_err() {
                self.failure = Some(self.ended());
            }
        }
        if self.failure.is_some() {
            self.bytes.clear();
            self.bytes.resize(answer, 0);
        }
    }

    /// Reads what the environments from `first` on show. Zeros once something failed.
    fn look(&mut self, first: usize, observations: &mut [f32]) {
        self.bytes.clear();
        self.bytes.resize(4 * observations.len(), 0);
        if self.failure.is_none() {
            let at = 4 * first * self.observations.len();
            if let Err(error) = self.rows.read_exact_at(&mut self.bytes, at as u64) {
                self.bytes.fill(0);
                self.failure = Some(format!("its observations cannot be read: {error}"));
            }
        }
        read_numbers(&self.bytes, observations);
    }

    /// Begins an episode.
    fn begin(&mut self, i: usize, observation: &mut [f32]) {
        self.episodes[i].begin();
        self.send_begin(i, observation);
    }

    fn send_begin(&mut self, i: usize, observation: &mut [f32]) {
        self.bytes.clear();
        self.bytes.push(b'r');
        self.bytes.extend((i as u32).to_le_bytes());
        self.bytes.extend(self.episodes[i].seed.to_le_bytes());
        self.ask(1);
        self.look(i, observation);
    }

    fn push_action(&mut self, i: usize, action: Action<'_>) {
        let sent = self.episodes[i].act(action).iter();
        self.bytes.extend(sent.flat_map(|word| word.to_le_bytes()));
    }

    /// How many words an action has.
    fn action_words(&self) -> usize {
        self.actions.len()
    }

    /// Takes an action in each. What environment `i` gave is told to `each`, with its observation.
    fn step_all<'a>(
        &mut self,
        action: impl Fn(usize) -> Action<'a>,
        observations: &mut [f32],
        mut each: impl FnMut(usize, Step),
    ) {
        let n = self.episodes.len();
        self.bytes.clear();
        self.bytes.push(b's');
        for i in 0..n {
            self.push_action(i, action(i));
        }
        self.ask(4 * n + n);
        let mut rewards = vec![0.0; n];
        read_numbers(&self.bytes[..4 * n], &mut rewards);
        let flags = self.bytes[4 * n..].to_vec();
        self.look(0, observations);
        for (i, (reward, flags)) in rewards.into_iter().zip(flags).enumerate() {
            let step = Step {
                reward,
                terminated: flags & 1 != 0,
                // Whoever plays until an episode is over must come to an end.
                truncated: flags & 2 != 0 || self.failure.is_some(),
            };
            each(i, step);
        }
    }

    fn save_all(&self, words: &mut Vec<u64>) {
        for episode in &self.episodes {
            episode.save(words);
        }
    }

    fn load_all(&mut self, words: &mut Words<'_>) {
        let mut observation = vec![0.0; self.observations.len()];
        for i in 0..self.episodes.len() {
            self.episodes[i] = Episode::load(words);
            // It comes to where it was by doing what was done.
            self.send_begin(i, &mut observation);
            for at in (0..self.episodes[i].actions.len()).step_by(self.action_words()) {
                self.bytes.clear();
                self.bytes.push(b'o');
                self.bytes.extend((i as u32).to_le_bytes());
                let end = (at + self.action_words()).min(self.episodes[i].actions.len());
                let sent = self.episodes[i].actions[at..end].iter();
                self.bytes.extend(sent.flat_map(|word| word.to_le_bytes()));
                self.ask(1);
            }
        }
    }
}

fn read_numbers(bytes: &[u8], to: &mut [f32]) {
    for (x, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *x = f32::from_le_bytes(*bytes);
    }
}

impl Drop for Gym {
    fn drop(&mut self) {
        // Between two requests it waits for the next: nothing is lost.
        self.kill();
        let _ = self.child.wait();
    }
}

/// The first of them alone.
impl Env for Gym {
    fn observation_space(&self) -> Space {
        self.observations.clone()
    }

    fn action_space(&self) -> Space {
        self.actions.clone()
    }

    fn reset(&mut self, seed: Option<u64>, observation: &mut [f32]) {
        if let Some(seed) = seed {
            self.episodes[0].rng = Rng::new(seed);
        }
        self.begin(0, observation);
    }

    fn step(&mut self, action: Action<'_>, observation: &mut [f32]) -> Step {
        let mut out = Step::default();
        self.step_all(|_| action, observation, |_, step| out = step);
        out
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.save_all(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.load_all(words);
    }

    fn failure(&self) -> Option<Error> {
        self.failure.clone().map(|why| no(&self.name, why))
    }
}

impl VecEnv for Gym {
    fn count(&self) -> usize {
        self.episodes.len()
    }

    fn observation_space(&self) -> Space {
        self.observations.clone()
    }

    fn action_space(&self) -> Space {
        self.actions.clone()
    }

    fn reset(&mut self, seed: u64, observations: &mut [f32]) {
        let width = self.observations.len();
        for (i, row) in observations.chunks_exact_mut(width).enumerate() {
            self.episodes[i].rng = Rng::new(seed_of(seed, i));
            self.begin(i, row);
        }
    }

    fn step(&mut self, actions: &Actions, out: &mut Steps) {
        let width = self.observations.len();
        let Steps {
            observations,
            rewards,
            terminated,
            truncated,
            last,
        } = out;
        self.step_all(
            |i| actions.row(i),
            observations,
            |i, step| {
                rewards[i] = step.reward;
                terminated[i] = step.terminated;
                truncated[i] = step.truncated;
            },
        );
        for (i, row) in observations.chunks_exact_mut(width).enumerate() {
            if terminated[i] || truncated[i] {
                last[i * width..(i + 1) * width].copy_from_slice(row);
                self.begin(i, row);
            }
        }
    }

    fn save(&self, words: &mut Vec<u64>) {
        self.save_all(words);
    }

    fn load(&mut self, words: &mut Words<'_>) {
        self.load_all(words);
    }

    fn failure(&self) -> Option<Error> {
        Env::failure(self)
    }
}

#[cfg(test)]
mod tests;
