//! Environments by name: those that come with the crate, those that a program adds, and both in wrappers.
//!
//! Invariant: a name that is not known is refused with the nearest one. `NAME+wrapper=value` is NAME within a wrapper; several
//! stand in the order in which they are put around it. Left out: other settings of environments.

use super::bodies::BODIES;
use super::gym::Gym;
use super::{
    Acrobot, Batch, CartPole, Catch, CatchPixels, Classic, ClipReward, Each, Env, FrameStack,
    Identity, MountainCar, MountainCarContinuous, Pendulum, Recall, TimeLimit, VecEnv,
};
use crate::rl::error::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One environment, and many of it.
type Makers = (fn() -> Box<dyn Env>, fn(usize) -> Box<dyn VecEnv>);

/// The makers of a problem with a time limit.
macro_rules! classic {
    ($laws:ident, $state:literal, $seen:literal, $limit:literal) => {
        (
            || Box::new(Classic::<$laws, $state, $seen>::new($limit)),
            |n| Box::new(Batch::<$laws, $state, $seen>::new(n, $limit)),
        )
    };
}

/// The makers of a game.
macro_rules! game {
    ($game:ident) => {
        (
            || Box::new($game::new()),
            |n| Box::new(Each::new((0..n).map(|_| $game::new()).collect())),
        )
    };
}

/// Every environment of the crate.
const TABLE: &[(&str, Makers)] = &[
    ("CartPole-v0", classic!(CartPole, 4, 4, 200)),
    ("CartPole-v1", classic!(CartPole, 4, 4, 500)),
    ("MountainCar-v0", classic!(MountainCar, 2, 2, 200)),
    (
        "MountainCarContinuous-v0",
        classic!(MountainCarContinuous, 3, 2, 999),
    ),
    ("Acrobot-v1", classic!(Acrobot, 4, 6, 500)),
    ("Pendulum-v1", classic!(Pendulum, 2, 3, 200)),
    ("Catch-v0", game!(Catch)),
    ("CatchPixels-v0", game!(CatchPixels)),
    ("Identity-v0", game!(Identity)),
    ("Recall-v0", game!(Recall)),
];

/// The body of this name.
fn body(name: &str) -> Option<Result<Box<dyn Env>>> {
    let i = BODIES.iter().position(|known| *known == name)?;
    #[cfg(feature = "mujoco")]
    return Some(super::mujoco::MuJoCo::new(i).map(|body| Box::new(body) as Box<dyn Env>));
    #[cfg(not(feature = "mujoco"))]
    Some(Err(Error::Environment {
        env: BODIES[i].to_owned(),
        why: "the program was built without the feature mujoco, which needs MuJoCo 3.17.0; docs/rl.md has the commands".to_owned(),
    }))
}

/// Environments of the crate gym-rs, behind its name.
const GYM_RS: &str = "gym-rs:";

#[cfg(feature = "gym-rs")]
fn of_gym_rs(name: &str) -> Result<Box<dyn Env>> {
    use gym_rs::envs::classical_control::{cartpole::CartPoleEnv, mountain_car::MountainCarEnv};
    use gym_rs::utils::renderer::RenderMode::None;
    let whole = format!("{GYM_RS}{name}");
    Ok(Box::new(match name {
        "CartPole" => super::GymRs::new(&whole, || CartPoleEnv::new(None))?,
        "MountainCar" => super::GymRs::new(&whole, || MountainCarEnv::new(None))?,
        _ => {
            return Err(Error::Environment {
                env: whole,
                why: "gym-rs has CartPole and MountainCar".to_owned(),
            });
        }
    }))
}

#[cfg(not(feature = "gym-rs"))]
fn of_gym_rs(name: &str) -> Result<Box<dyn Env>> {
    Err(Error::Environment {
        env: format!("{GYM_RS}{name}"),
        why: "the program was built without the feature gym-rs, which needs cmake and SDL2_gfx; docs/rl.md has the commands".to_owned(),
    })
}

/// Environments of the program's own.
static ADDED: Mutex<BTreeMap<String, fn() -> Box<dyn Env>>> = Mutex::new(BTreeMap::new());

/// What stands before the name of an environment of Gymnasium's.
const GYM: &str = "gym:";

/// Every wrapper that can stand in a name.
const WRAPPERS: &[&str] = &["time_limit", "frame_stack", "clip_reward"];

/// Makes an environment of the program's own known by a name; one that has the name already is replaced. It is
/// known in this process alone: nodes that others start run no `main`, so collectors there cannot play it.
///
/// ```
/// use mobula::rl::{NormalizeObservation, add_env, make};
/// add_env("Level-v0", || {
///     Box::new(NormalizeObservation::new(make("CartPole-v1").expect("it is there")))
/// });
/// assert_eq!(make("Level-v0")?.observation_space().len(), 4);
/// # Ok::<(), mobula::rl::Error>(())
/// ```
pub fn add_env(name: &str, make: fn() -> Box<dyn Env>) {
    let mut added = ADDED.lock().unwrap_or_else(PoisonError::into_inner);
    added.insert(name.to_owned(), make);
}

fn unknown(name: &str) -> Error {
    let mut known: Vec<String> = env_names().map(str::to_owned).collect();
    known.extend(
        ADDED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned(),
    );
    Error::UnknownEnv {
        name: name.to_owned(),
        nearest: nearest(name, known.iter().map(String::as_str)),
        known,
    }
}

fn added(name: &str) -> Option<fn() -> Box<dyn Env>> {
    let added = ADDED.lock().unwrap_or_else(PoisonError::into_inner);
    added.get(name).copied()
}

fn find(name: &str) -> Option<&'static Makers> {
    let mut table = TABLE.iter();
    table.find(|(known, _)| *known == name).map(|(_, m)| m)
}

/// Puts a wrapper, as it stands in a name, around an environment.
fn wrap(env: Box<dyn Env>, wrapper: &str) -> Result<Box<dyn Env>> {
    let (kind, value) = wrapper.split_once('=').unwrap_or((wrapper, ""));
    let whole = || match value.parse::<u64>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(Error::Usage(format!(
            "the wrapper {kind} needs a whole number above 0, as in {kind}=4, and has {value:?}"
        ))),
    };
    Ok(match kind {
        "time_limit" => Box::new(TimeLimit::new(env, whole()?)),
        "frame_stack" => Box::new(FrameStack::new(env, whole()? as usize)),
        "clip_reward" => {
            let bound = value.parse().ok().filter(|x: &f32| *x > 0.0);
            let bound = bound.ok_or_else(|| {
                Error::Usage(format!(
                    "the wrapper clip_reward needs a number above 0, as in clip_reward=1, and has {value:?}"
                ))
            })?;
            Box::new(ClipReward::new(env, -bound, bound))
        }
        other => {
            let near = nearest(other, WRAPPERS.iter().copied());
            let near = near.map_or_else(String::new, |w| format!(" (did you mean {w:?}?)"));
            return Err(Error::Usage(format!(
                "there is no wrapper {other:?}{near}; there are {}",
                WRAPPERS.join(", ")
            )));
        }
    })
}

/// The names of all environments that come with the crate, built as it is: those on MuJoCo with its feature.
pub fn env_names() -> impl Iterator<Item = &'static str> {
    let bodies = cfg!(feature = "mujoco").then_some(BODIES);
    let classic = TABLE.iter().map(|(name, _)| *name);
    classic.chain(bodies.into_iter().flatten())
}

/// The environment of this name, within the wrappers behind it. `gym:NAME` is Gymnasium's NAME, in a Python process of its own:
/// `python3`, or what `MOBULA_PYTHON` names, which needs the package gymnasium. It takes about a second to start. `gym-rs:NAME` is that of the crate gym-rs, with the feature of this name.
///
/// # Errors
/// [`Error::UnknownEnv`], with the nearest name that there is; [`Error::Usage`] for a wrapper that there is not;
/// [`Error::Environment`] where Python or a package is missing.
///
/// ```
/// let env = mobula::rl::make("Catch-v0+frame_stack=2")?;
/// assert_eq!(env.observation_space().len(), 2 * 64);
/// # Ok::<(), mobula::rl::Error>(())
/// ```
pub fn make(name: &str) -> Result<Box<dyn Env>> {
    let mut parts = name.split('+');
    let bare = parts.next().unwrap_or_default();
    if let Some(gym) = bare.strip_prefix(GYM) {
        return parts.try_fold(Box::new(Gym::new(gym, 1)?) as Box<dyn Env>, wrap);
    }
    if let Some(name) = bare.strip_prefix(GYM_RS) {
        return parts.try_fold(of_gym_rs(name)?, wrap);
    }
    let env = match (find(bare), added(bare)) {
        (_, Some(make)) => make(),
        (Some(makers), None) => makers.0(),
        (None, None) => body(bare).unwrap_or_else(|| Err(unknown(bare)))?,
    };
    parts.try_fold(env, wrap)
}

/// `n` environments of this name, at least one, that step together.
///
/// # Errors
/// As [`make`].
pub fn make_vec(name: &str, n: usize) -> Result<Box<dyn VecEnv>> {
    let n = n.max(1);
    if let Some(gym) = name.strip_prefix(GYM).filter(|name| !name.contains('+')) {
        return Ok(Box::new(Gym::new(gym, n)?));
    }
    match (find(name), added(name)) {
        (Some(makers), None) => Ok(makers.1(n)),
        _ => {
            let envs = (0..n).map(|_| make(name)).collect::<Result<Vec<_>>>()?;
            Ok(Box::new(Each::new(envs)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_feature_brings_is_there_or_says_which_feature() {
        for (name, feature, there) in [
            ("Humanoid-v5", "mujoco", cfg!(feature = "mujoco")),
            ("gym-rs:CartPole", "gym-rs", cfg!(feature = "gym-rs")),
        ] {
            match make(name) {
                Ok(_) => assert!(there),
                Err(Error::Environment { env, why }) => {
                    assert!(!there && env == name && why.contains(feature), "{why}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}
