//! Plays episodes and draws each step.
//!
//! Invariant: what is drawn is what the agent saw. On a terminal one frame takes the place of the other, `pace` later; elsewhere
//! they follow each other. Left out: the drawing itself, which is `picture.rs`.

use super::arguments::Arguments;
use crate::rl::agent::Agent;
use crate::rl::env::make;
use crate::rl::error::{Error, Result};
use crate::rl::evaluate::Evaluation;
use crate::rl::picture::picture;
use std::io::{self, Write};
use std::time::Duration;

/// To the corner, and nothing behind it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Plays the episodes asked for, always with the best action. Frames stay for `pace`; with none they follow each other.
pub(super) fn show(
    agent: &mut dyn Agent,
    arguments: &Arguments,
    pace: Duration,
    out: &mut impl Write,
) -> Result<Evaluation> {
    let name = agent.env().to_owned();
    let mut env = make(&name)?;
    let mut seen = vec![0.0; env.observation_space().len()];
    let mut result = Evaluation {
        returns: Vec::new(),
        lengths: Vec::new(),
    };
    for episode in 1..=arguments.episodes.max(1) {
        env.reset(Some(arguments.seed + episode as u64 - 1), &mut seen);
        agent.forget(0);
        let (mut total, mut length) = (0.0, 0);
        loop {
            let drawn = picture(&name, &seen)?;
            let before = if pace.is_zero() { "" } else { CLEAR };
            let frame =
                format!("{before}{drawn}episode {episode}  step {length}  return {total:.1}\n\n");
            out.write_all(frame.as_bytes())
                .and_then(|()| out.flush())
                .map_err(|error| unwritten(&error))?;
            std::thread::sleep(pace);
            let actions = agent.act(&seen)?;
            let step = env.step(actions.row(0), &mut seen);
            if let Some(failure) = env.failure() {
                return Err(failure);
            }
            total += step.reward;
            length += 1;
            if step.over() {
                break;
            }
        }
        result.returns.push(total);
        result.lengths.push(length);
    }
    Ok(result)
}

fn unwritten(error: &io::Error) -> Error {
    Error::File {
        path: "standard output".into(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rl::agent::agent;

    #[test]
    fn every_step_of_every_episode_is_one_frame() -> Result<()> {
        let _turn = crate::rl::turn();
        let _node = crate::api::init()?;
        let name = "CartPole-v1+time_limit=4";
        let mut es = agent("ES", name, "{}", 1)?;
        let arguments = Arguments::parse(["--episodes", "2", "--seed", "5"])?;
        let mut out = Vec::new();
        let shown = show(&mut *es, &arguments, Duration::ZERO, &mut out)?;
        assert_eq!((shown.returns, shown.lengths), (vec![4.0; 2], vec![4; 2]));
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches("[===]").count(), 8, "{text}");
        assert!(text.contains("episode 2  step 3  return 3.0\n"), "{text}");
        assert!(!text.contains('\x1b'));
        // On a terminal each takes the place of the one before.
        let mut out = Vec::new();
        show(&mut *es, &arguments, Duration::from_nanos(1), &mut out)?;
        let text = String::from_utf8(out).expect("text");
        assert_eq!(text.matches(CLEAR).count(), 8);
        // One that nobody knows how to draw.
        let mut other = agent("ES", "Identity-v0", "{}", 1)?;
        let refused = show(&mut *other, &arguments, Duration::ZERO, &mut Vec::new());
        let why = refused.expect_err("refused").to_string();
        assert!(why.contains("CartPole-v1"), "{why}");
        Ok(())
    }

    #[test]
    fn an_agent_that_remembers_begins_each_episode_anew() -> Result<()> {
        let _turn = crate::rl::turn();
        let _node = crate::api::init()?;
        let settings = r#"{"lstm": 4, "hidden": [], "num_workers": 1}"#;
        let mut a3c = agent("A3C", "Pendulum-v1+time_limit=4", settings, 1)?;
        let mut returns = |episodes: &str, seed: &str| -> Result<Vec<f32>> {
            let arguments = Arguments::parse(["--episodes", episodes, "--seed", seed])?;
            let shown = show(&mut *a3c, &arguments, Duration::ZERO, &mut Vec::new())?;
            Ok(shown.returns)
        };
        let both = returns("2", "5")?;
        assert_eq!(both, [returns("1", "5")?, returns("1", "6")?].concat());
        // What it remembers does count: without a new beginning it acts otherwise.
        let seen = [0.0, 1.0, 0.5];
        a3c.forget(0);
        let first = a3c.act(&seen)?;
        assert_ne!(a3c.act(&seen)?, first);
        a3c.forget(0);
        assert_eq!(a3c.act(&seen)?, first);
        Ok(())
    }
}
