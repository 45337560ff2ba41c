//! The loop around an agent's iterations.
//!
//! Invariant: each iteration ends with its line in result.jsonl; a run that fails has kept its last checkpoint. The goal is
//! reached only when 100 greedy episodes say so; a sample of 10 comes first, since it costs less. Left out:
//! learning.

use super::arguments::Arguments;
use super::curve::svg;
use super::events::Events;
use super::show::show;
use crate::rl::agent::{Agent, Progress, agent, restore};
use crate::rl::error::{Error, Result};
use crate::rl::evaluate::Evaluation;
use crate::rl::tuned::{Tuned, tuned};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// By what: the option that was reached.
    pub ended_by: &'static str,
    /// Environment steps.
    pub steps: u64,
    /// Iterations.
    pub iterations: u64,
    /// The time spent in training, evaluations and files included.
    pub time: Duration,
    /// The evaluation that reached `--stop-reward`, or what `--evaluate` found.
    pub evaluation: Option<Evaluation>,
}

/// Does what the command was told, on the node that runs. Prints progress to standard output.
///
/// # Errors
/// [`Error::Usage`] for options that do not go together, and whatever training fails with.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    if let Some(path) = &arguments.evaluate {
        return judge(arguments, path);
    }
    if arguments.render {
        return Err(Error::Usage(
            "--render shows what --evaluate plays: give both".to_owned(),
        ));
    }
    let mut agent = make(arguments)?;
    let mut files = arguments
        .out
        .as_deref()
        .map(|dir| Files::new(dir, &*agent, arguments))
        .transpose()?;
    if files.is_none() && arguments.checkpoint_freq.is_some() {
        return Err(Error::Usage("--checkpoint-freq needs --out".to_owned()));
    }
    train(&mut *agent, arguments, files.as_mut())
}

fn judge(arguments: &Arguments, path: &Path) -> Result<Outcome> {
    let mut agent = restore(path)?;
    let start = Instant::now();
    let evaluation = match arguments.render {
        true => {
            let terminal = std::io::stdout().is_terminal();
            let pace = if terminal { FRAME } else { Duration::ZERO };
            show(&mut *agent, arguments, pace, &mut std::io::stdout().lock())?
        }
        false => agent.evaluate(arguments.episodes, arguments.seed)?,
    };
    if !arguments.quiet {
        println!(
            "{} on {}: {} episodes, mean return {:.1} +- {:.1}",
            agent.algorithm(),
            agent.env(),
            evaluation.returns.len(),
            evaluation.mean(),
            evaluation.spread()
        );
    }
    Ok(Outcome {
        ended_by: "--evaluate",
        steps: evaluation.lengths.iter().map(|n| u64::from(*n)).sum(),
        iterations: 0,
        time: start.elapsed(),
        evaluation: Some(evaluation),
    })
}

/// How long a frame stays on a terminal.
const FRAME: Duration = Duration::from_millis(40);

/// The agent that the arguments ask for.
fn make(arguments: &Arguments) -> Result<Box<dyn Agent>> {
    if let Some(path) = &arguments.restore {
        if arguments.config.is_some() || arguments.num_workers.is_some() {
            return Err(Error::Usage(
                "--restore goes on with the settings of the checkpoint: leave out --config and \
                 --num-workers"
                    .to_owned(),
            ));
        }
        return restore(path);
    }
    let found = arguments.tuned.as_deref().map(tuned).transpose()?;
    let pick = |given: &Option<String>, option: &str, known: fn(&Tuned) -> &'static str| {
        given
            .clone()
            .or_else(|| found.map(|tuned| known(tuned).to_owned()))
            .ok_or_else(|| Error::Usage(format!("{option} is missing (--help shows all options)")))
    };
    let algorithm = pick(&arguments.algorithm, "--alg", |t| t.algorithm)?;
    let env = pick(&arguments.env, "--env", |t| t.env)?;
    let mut settings = object(found.map_or("{}", |tuned| tuned.config))?;
    settings.extend(object(arguments.config.as_deref().unwrap_or("{}"))?);
    if let Some(workers) = arguments.num_workers {
        settings.insert("num_workers".to_owned(), workers.into());
    }
    let settings = Value::Object(settings).to_string();
    agent(&algorithm, &env, &settings, arguments.seed)
}

fn object(json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json)
        .map_err(|error| Error::Usage(format!("--config {json:?} is no JSON object: {error}")))
}

fn train(
    agent: &mut dyn Agent,
    arguments: &Arguments,
    mut files: Option<&mut Files>,
) -> Result<Outcome> {
    let start = Instant::now();
    let mut shown = start;
    let mut first_steps = None;
    let frequency = arguments.checkpoint_freq.unwrap_or(0);
    loop {
        let progress = agent.train()?;
        let begun = *first_steps.get_or_insert(progress.steps);
        let time = start.elapsed();
        let iteration = progress.training_iteration;
        let evaluation = match arguments.stop_reward {
            Some(goal) if promising(&progress, goal) => reached(agent, goal)?,
            _ => None,
        };
        let ended_by = if evaluation.is_some() {
            Some("--stop-reward")
        } else if arguments.stop_steps.is_some_and(|n| progress.steps >= n) {
            Some("--stop-steps")
        } else if arguments.stop_iterations.is_some_and(|n| iteration >= n) {
            Some("--stop-iterations")
        } else if arguments.stop_time.is_some_and(|s| time.as_secs_f64() >= s) {
            Some("--stop-time")
        } else {
            None
        };
        if let Some(files) = files.as_deref_mut() {
            files.add(&progress, time)?;
            let due = frequency > 0 && iteration.is_multiple_of(frequency);
            if due || (ended_by.is_some() && frequency > 0) {
                agent.save(&files.dir.join(format!("checkpoint-{iteration:06}")))?;
            }
        }
        if !arguments.quiet && (ended_by.is_some() || shown.elapsed() > Duration::from_millis(500))
        {
            shown = Instant::now();
            println!(
                "{}",
                line(&progress, progress.steps - begun, time, arguments)
            );
        }
        if let Some(ended_by) = ended_by {
            if let Some(files) = files {
                files.picture(agent)?;
            }
            if !arguments.quiet {
                let greedy = evaluation
                    .as_ref()
                    .map(|e| {
                        format!(
                            ": {:.1} +- {:.1} in 100 greedy episodes",
                            e.mean(),
                            e.spread()
                        )
                    })
                    .unwrap_or_default();
                println!(
                    "ended by {ended_by} after {:.2} s and {} steps{greedy}",
                    start.elapsed().as_secs_f64(),
                    progress.steps
                );
            }
            return Ok(Outcome {
                ended_by,
                steps: progress.steps,
                iterations: iteration,
                time: start.elapsed(),
                evaluation,
            });
        }
    }
}

/// Whether the greedy policy may be at the goal: drawn actions are worse than the best ones, so training's own returns
/// count half, and now and then it is tried anyway.
fn promising(progress: &Progress, goal: f32) -> bool {
    let near = |mean: f32| match goal > 0.0 {
        true => mean >= 0.4 * goal,
        false => mean >= 2.0 * goal,
    };
    progress.training_iteration.is_multiple_of(16) || progress.episode_return_mean.is_some_and(near)
}

/// The evaluation, if it is at the goal. Its episodes are the same ones each time.
fn reached(agent: &dyn Agent, goal: f32) -> Result<Option<Evaluation>> {
    for (episodes, seed) in [(10, 0xe7a1), (100, 0xe7a2)] {
        let evaluation = agent.evaluate(episodes, seed)?;
        // The sample's starts may be harder than most: it rules out only what is an error of its mean away.
        let slack = match episodes {
            100 => 0.0,
            n => evaluation.spread() / (n as f32).sqrt(),
        };
        if evaluation.mean() + slack < goal {
            return Ok(None);
        }
        if episodes == 100 {
            return Ok(Some(evaluation));
        }
    }
    Ok(None)
}

/// A line of progress.
fn line(progress: &Progress, steps: u64, time: Duration, arguments: &Arguments) -> String {
    let seconds = time.as_secs_f64().max(1e-9);
    let rate = steps as f64 / seconds;
    let mut left: Vec<f64> = Vec::new();
    if let Some(n) = arguments.stop_steps {
        left.push(n.saturating_sub(progress.steps) as f64 / rate.max(1e-9));
    }
    if let Some(all) = arguments.stop_time {
        left.push((all - seconds).max(0.0));
    }
    if let Some(n) = arguments.stop_iterations {
        let each = seconds / progress.training_iteration.max(1) as f64;
        left.push(n.saturating_sub(progress.training_iteration) as f64 * each);
    }
    let left = left.into_iter().reduce(f64::min);
    let left = left.map_or_else(|| "-".to_owned(), |s| format!("at most {s:.1} s"));
    let mean = progress
        .episode_return_mean
        .map_or_else(|| "-".to_owned(), |r| format!("{r:.1}"));
    format!(
        "{:7.1} s  iteration {:5}  steps {:8}  {:7.1} k steps/s  return {mean}  left {left}",
        seconds,
        progress.training_iteration,
        progress.steps,
        rate / 1e3
    )
}

/// What a run leaves behind.
struct Files {
    dir: PathBuf,
    results: File,
    events: Events,
    points: Vec<(u64, f32)>,
    /// Steps and time at the last iteration.
    last: Option<(u64, Duration)>,
}

impl Files {
    fn new(dir: &Path, agent: &dyn Agent, arguments: &Arguments) -> Result<Files> {
        std::fs::create_dir_all(dir).map_err(|error| at(dir, &error))?;
        let settings: Value = serde_json::from_str(&agent.config()).unwrap_or_default();
        let config = json!({
            "algorithm": agent.algorithm(),
            "env": agent.env(),
            "seed": arguments.seed,
            "config": settings,
        });
        let path = dir.join("config.json");
        std::fs::write(&path, format!("{config:#}\n")).map_err(|error| at(&path, &error))?;
        let path = dir.join("result.jsonl");
        // A run that goes on has a curve from its beginning.
        let before = match &arguments.restore {
            Some(_) => std::fs::read_to_string(&path).unwrap_or_default(),
            None => String::new(),
        };
        let point = |line: &str| {
            let row: Value = serde_json::from_str(line).ok()?;
            Some((
                row["steps"].as_u64()?,
                row["episode_return_mean"].as_f64()? as f32,
            ))
        };
        let results = File::options()
            .create(true)
            .append(arguments.restore.is_some())
            .truncate(arguments.restore.is_none())
            .write(true)
            .open(&path)
            .map_err(|error| at(&path, &error))?;
        let events = Events::new(dir, arguments.restore.is_some());
        Ok(Files {
            dir: dir.to_owned(),
            results,
            events: events.map_err(|error| at(dir, &error))?,
            points: before.lines().filter_map(point).collect(),
            last: None,
        })
    }

    fn add(&mut self, progress: &Progress, time: Duration) -> Result<()> {
        let path = self.dir.join("result.jsonl");
        let mut row = serde_json::to_value(progress)
            .map_err(|error| at(&path, &std::io::Error::other(error)))?;
        row["time_total_s"] = json!(time.as_secs_f64());
        writeln!(self.results, "{row}").map_err(|error| at(&path, &error))?;
        // What the run before did behind the checkpoint is done again.
        self.points.retain(|(steps, _)| *steps < progress.steps);
        if let Some(mean) = progress.episode_return_mean {
            self.points.push((progress.steps, mean));
        }
        let scalars = self.scalars(progress, time);
        self.last = Some((progress.steps, time));
        let added = self.events.add(progress.steps, &scalars);
        added.map_err(|error| at(&self.dir, &error))
    }

    /// What TensorBoard shows of an iteration; its speed is not known of the first.
    fn scalars(&self, progress: &Progress, time: Duration) -> Vec<(String, f32)> {
        let mut scalars = Vec::new();
        let mut add = |tag: &str, number: Option<f32>| {
            scalars.extend(number.map(|number| (tag.to_owned(), number)));
        };
        add("episode/return", progress.episode_return_mean);
        add("episode/length", progress.episode_length_mean);
        let speed = self.last.map(|(steps, then)| {
            let seconds = time.saturating_sub(then).as_secs_f64().max(1e-9);
            ((progress.steps - steps) as f64 / seconds) as f32
        });
        add("time/steps_per_second", speed);
        for (name, number) in &progress.metrics {
            add(&format!("train/{name}"), Some(*number));
        }
        scalars
    }

    fn picture(&self, agent: &dyn Agent) -> Result<()> {
        let title = format!("{} on {}", agent.algorithm(), agent.env());
        let path = self.dir.join("curve.svg");
        std::fs::write(&path, svg(&title, &self.points)).map_err(|error| at(&path, &error))
    }
}

fn at(path: &Path, error: &std::io::Error) -> Error {
    Error::File {
        path: path.to_owned(),
        why: error.to_string(),
    }
}
