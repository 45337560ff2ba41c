//! What the command is told.
//!
//! Invariant: an option that there is not is refused with the nearest one; nothing is ignored. Left out: the settings
//! of algorithms, which `--config` passes on.

use crate::rl::error::{Error, Result, nearest};
use std::path::PathBuf;

/// The text of `--help`.
pub const HELP: &str = "\
Trains an agent, or evaluates one.

  train --alg PPO --env CartPole-v1 --stop-reward 475 --seed 1
  train --tuned cartpole-ppo --out runs/one --checkpoint-freq 10
  train --restore runs/one/checkpoint-000010 --stop-steps 50000
  train --evaluate runs/one/checkpoint-000010 --episodes 100

  --alg NAME              the algorithm: PPO, DQN, A3C, ES
  --env NAME              the environment; wrappers follow behind a +: Catch-v0+frame_stack=2+time_limit=50;
                          gym:NAME is one of Gymnasium's, played by Python
  --tuned NAME            an algorithm, an environment and settings that were found to be good together
  --config JSON           settings that differ from the defaults: '{\"gamma\": 0.99}'
  --address HOST:PORT     share the machines of the launchers there (MOBULA_ADDRESS, see `mobula start`); a token
                          that is not known here follows behind a ?
  --num-workers N         actors that play, or tasks of ES, as the setting num_workers
  --device cpu            where networks run: on the processors, which is all there is
  --seed N                everything random follows from it (default 0)
  --stop-reward R         end when 100 greedy episodes have this mean return
  --stop-steps N          end after so many environment steps
  --stop-time SECONDS     end after so long
  --stop-iterations N     end after so many iterations
  --out DIR               write result.jsonl, config.json, curve.svg, TensorBoard's events and checkpoints there
  --checkpoint-freq N     write a checkpoint every N iterations, and at the end (needs --out)
  --restore FILE          go on from a checkpoint
  --evaluate FILE         play greedy episodes with a checkpoint's agent
  --episodes N            how many (default 100, with --render 1)
  --render                with --evaluate: draw each step in the terminal (classic problems and games of pixels)
  --quiet                 no progress lines
";

/// Everything the command can be told.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Arguments {
    /// `--alg`.
    pub algorithm: Option<String>,
    /// `--env`.
    pub env: Option<String>,
    /// `--tuned`.
    pub tuned: Option<String>,
    /// `--config`.
    pub config: Option<String>,
    /// `--address`, which whoever starts the runtime goes by.
    pub address: Option<String>,
    /// `--num-workers`.
    pub num_workers: Option<usize>,
    /// `--seed`.
    pub seed: u64,
    /// `--stop-reward`.
    pub stop_reward: Option<f32>,
    /// `--stop-steps`.
    pub stop_steps: Option<u64>,
    /// `--stop-time`, in seconds.
    pub stop_time: Option<f64>,
    /// `--stop-iterations`.
    pub stop_iterations: Option<u64>,
    /// `--out`.
    pub out: Option<PathBuf>,
    /// `--checkpoint-freq`.
    pub checkpoint_freq: Option<u64>,
    /// `--restore`.
    pub restore: Option<PathBuf>,
    /// `--evaluate`.
    pub evaluate: Option<PathBuf>,
    /// `--episodes`.
    pub episodes: usize,
    /// `--render`.
    pub render: bool,
    /// `--quiet`.
    pub quiet: bool,
    /// `--help`.
    pub help: bool,
}

/// All options that take a value.
const OPTIONS: &[&str] = &[
    "--alg",
    "--env",
    "--tuned",
    "--config",
    "--address",
    "--device",
    "--num-workers",
    "--seed",
    "--stop-reward",
    "--stop-steps",
    "--stop-time",
    "--stop-iterations",
    "--out",
    "--checkpoint-freq",
    "--restore",
    "--evaluate",
    "--episodes",
];

/// Those that take none.
const FLAGS: &[&str] = &["--render", "--quiet", "--help"];

impl Arguments {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// [`Error::Usage`], which names the word and what would be right.
    ///
    /// ```
    /// use mobula::rl::command::Arguments;
    /// let words = ["--alg", "PPO", "--env", "CartPole-v1", "--stop-reward", "475"];
    /// assert_eq!(Arguments::parse(words)?.stop_reward, Some(475.0));
    /// assert!(Arguments::parse(["--stop-rewards", "1"]).is_err());
    /// # Ok::<(), mobula::rl::Error>(())
    /// ```
    pub fn parse<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Result<Arguments> {
        let mut arguments = Arguments {
            episodes: 100,
            ..Arguments::default()
        };
        let mut words = words.into_iter().map(Into::into);
        let mut counted = false;
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quiet" => arguments.quiet = true,
                "--render" => arguments.render = true,
                "--help" | "-h" => arguments.help = true,
                option if OPTIONS.contains(&option) => {
                    let value = words
                        .next()
                        .ok_or_else(|| Error::Usage(format!("{option} needs a value behind it")))?;
                    counted |= option == "--episodes";
                    arguments.set(option, value)?;
                }
                other => {
                    let near = nearest(other, OPTIONS.iter().chain(FLAGS).copied())
                        .map(|option| format!("; did you mean {option}?"))
                        .unwrap_or_default();
                    return Err(Error::Usage(format!(
                        "there is no option {other:?}{near} (--help shows all)"
                    )));
                }
            }
        }
        if arguments.render && !counted {
            arguments.episodes = 1;
        }
        Ok(arguments)
    }

    fn set(&mut self, option: &str, value: String) -> Result<()> {
        match option {
            "--alg" => self.algorithm = Some(value),
            "--env" => self.env = Some(value),
            "--tuned" => self.tuned = Some(value),
            "--config" => self.config = Some(value),
            "--address" => self.address = Some(value),
            "--device" if value == "cpu" => {}
            "--device" => {
                return Err(Error::Usage(format!(
                    "--device {value}: networks run on the processors alone, --device cpu"
                )));
            }
            "--num-workers" => self.num_workers = Some(number(option, &value)?),
            "--seed" => self.seed = number(option, &value)?,
            "--stop-reward" => self.stop_reward = Some(number(option, &value)?),
            "--stop-steps" => self.stop_steps = Some(number(option, &value)?),
            "--stop-time" => self.stop_time = Some(number(option, &value)?),
            "--stop-iterations" => self.stop_iterations = Some(number(option, &value)?),
            "--out" => self.out = Some(value.into()),
            "--checkpoint-freq" => self.checkpoint_freq = Some(number(option, &value)?),
            "--restore" => self.restore = Some(value.into()),
            "--evaluate" => self.evaluate = Some(value.into()),
            _ => self.episodes = number(option, &value)?,
        }
        Ok(())
    }
}

fn number<N: std::str::FromStr>(option: &str, value: &str) -> Result<N> {
    value.parse().map_err(|_| {
        Error::Usage(format!(
            "{option} needs a number that fits, but was given {value:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_runs_is_told_or_refused() -> Result<()> {
        let told = Arguments::parse(["--address", "10.0.0.1:7677", "--device", "cpu"])?;
        assert_eq!(told.address.as_deref(), Some("10.0.0.1:7677"));
        let error = Arguments::parse(["--device", "cuda"]).expect_err("there is none");
        assert!(error.to_string().contains("--device cpu"), "{error}");
        let error = Arguments::parse(["--adress", "x"]).expect_err("a slip");
        assert!(error.to_string().contains("--address"), "{error}");
        for option in OPTIONS.iter().chain(FLAGS).filter(|o| **o != "--help") {
            assert!(
                HELP.contains(&format!("\n  {option} ")),
                "{option} is in the help"
            );
        }
        Ok(())
    }
}
