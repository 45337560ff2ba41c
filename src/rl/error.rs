//! What training can refuse or fail with.
//!
//! Invariant: each error names the thing, what was given and what would be right. Left out: failures of the node
//! beneath, which pass through as they are.

use std::path::PathBuf;

/// The result of a call of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong. Its `Debug` form is its `Display` form, since that is what a `main` that returns it prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No environment has this name.
    #[error("there is no environment {name:?}{}; there are {}", did_you_mean(.nearest), .known.join(", "))]
    UnknownEnv {
        /// What was asked for.
        name: String,
        /// The known name that is nearest to it, if one is near.
        nearest: Option<String>,
        /// All that there are.
        known: Vec<String>,
    },
    /// No algorithm has this name.
    #[error("there is no algorithm {name:?}{}; there are {}", did_you_mean(.nearest), .known.join(", "))]
    UnknownAlgorithm {
        /// What was asked for.
        name: String,
        /// The known name that is nearest to it, if one is near.
        nearest: Option<String>,
        /// All that there are.
        known: Vec<String>,
    },
    /// An environment cannot be made, or plays no more.
    #[error("environment {env}: {why}")]
    Environment {
        /// The environment.
        env: String,
        /// Why, and what would help.
        why: String,
    },
    /// A configuration has a key that the algorithm does not know.
    #[error("{algorithm} has no setting {key:?}{}; it has {}", did_you_mean(.nearest), .known.join(", "))]
    UnknownKey {
        /// The algorithm.
        algorithm: &'static str,
        /// The key.
        key: String,
        /// The known key that is nearest to it, if one is near.
        nearest: Option<String>,
        /// All settings.
        known: Vec<String>,
    },
    /// A configuration's value cannot be used.
    #[error("{algorithm}: setting {key:?}: {why}")]
    BadValue {
        /// The algorithm.
        algorithm: &'static str,
        /// The setting.
        key: String,
        /// What is wrong with it, and what to give instead.
        why: String,
    },
    /// The environment's actions or observations are not of the kind that is needed.
    #[error("{what} needs {needed}, but {env} has {found}")]
    WrongSpace {
        /// What cannot use it.
        what: &'static str,
        /// What it needs.
        needed: &'static str,
        /// The environment.
        env: String,
        /// What the environment has.
        found: String,
    },
    /// A loss or a weight is no longer a number: training stopped before the weights were replaced.
    #[error(
        "training stopped: {what} became {value} in iteration {iteration}, after {steps} steps; \
         lower the learning rate, or restore an earlier checkpoint"
    )]
    NotFinite {
        /// What it was.
        what: &'static str,
        /// Its value.
        value: f32,
        /// In which iteration.
        iteration: u64,
        /// After how many environment steps.
        steps: u64,
    },
    /// A file of a run could not be read or written.
    #[error("{}: {why}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The command was called with arguments that it cannot use.
    #[error("{0}")]
    Usage(String),
    /// A computation on tensors failed.
    #[error("tensors: {0}")]
    Tensor(String),
    /// The node beneath failed.
    #[error("{0}")]
    Node(crate::base::Error),
}

impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<crate::base::Error> for Error {
    fn from(error: crate::base::Error) -> Error {
        Error::Node(error)
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Tensor(error.to_string())
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!(" (did you mean {name:?}?)"))
        .unwrap_or_default()
}

/// The name among `known` that a typing error could have turned into `name`.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (distance(&name.to_lowercase(), &known.to_lowercase()), known))
        .min()
        .filter(|(distance, known)| *distance <= 2.max(known.chars().count() / 3))
        .map(|(_, known)| known.to_owned())
}

/// How many letters must be put in, taken out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let known = ["clip", "gamma", "lambda", "learning_rate"];
        assert_eq!(nearest("lamda", known).as_deref(), Some("lambda"));
        assert_eq!(
            nearest("learnin_rates", known).as_deref(),
            Some("learning_rate")
        );
        assert_eq!(nearest("entropy_of_it", known), None);
    }
}
