//! Environments by name.
//!
//! Invariant: one table has every name; a name that is not in it is refused with the nearest one. Left out: settings
//! of environments.

use super::{
    Acrobot, Batch, CartPole, Catch, Classic, Each, Env, MountainCar, MountainCarContinuous,
    Pendulum, VecEnv,
};
use crate::rl::error::{Error, Result, nearest};

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

/// Every environment.
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
    (
        "Catch-v0",
        (
            || Box::new(Catch::new()),
            |n| Box::new(Each::new((0..n).map(|_| Catch::new()).collect())),
        ),
    ),
];

fn find(name: &str) -> Result<&'static Makers> {
    TABLE
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, makers)| makers)
        .ok_or_else(|| Error::UnknownEnv {
            name: name.to_owned(),
            nearest: nearest(name, env_names()),
            known: env_names().map(str::to_owned).collect(),
        })
}

/// The names of all environments.
pub fn env_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The environment of this name.
///
/// # Errors
/// [`Error::UnknownEnv`], with the nearest name that there is.
pub fn make(name: &str) -> Result<Box<dyn Env>> {
    Ok(find(name)?.0())
}

/// `n` environments of this name, at least one, that step together.
///
/// # Errors
/// As [`make`].
pub fn make_vec(name: &str, n: usize) -> Result<Box<dyn VecEnv>> {
    Ok(find(name)?.1(n.max(1)))
}
