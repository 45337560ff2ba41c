//! What observations and actions can be, in Gymnasium's terms.
//!
//! Invariant: an observation is always a row of `f32`, whatever its shape; an action is a number of a choice or a
//! row of `f32`. Left out: dictionaries and tuples of spaces.

/// The set of all observations, or of all actions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Space {
    /// One of `n` choices, counted from 0.
    Discrete(usize),
    /// Numbers between bounds, in rows of `shape`.
    Box {
        /// The lowest value of each number.
        low: Vec<f32>,
        /// The highest value of each number.
        high: Vec<f32>,
        /// How the numbers are arranged; its product is their count.
        shape: Vec<usize>,
    },
}

impl Space {
    /// A box whose numbers are one row, each between `-high` and `high`.
    pub fn symmetric(high: &[f32]) -> Space {
        Space::Box {
            low: high.iter().map(|h| -h).collect(),
            high: high.to_vec(),
            shape: vec![high.len()],
        }
    }

    /// A box of `shape` with the same bounds for each number.
    pub fn uniform(low: f32, high: f32, shape: &[usize]) -> Space {
        let count = shape.iter().product();
        Space::Box {
            low: vec![low; count],
            high: vec![high; count],
            shape: shape.to_vec(),
        }
    }

    /// How many numbers an element has as a row.
    pub fn len(&self) -> usize {
        match self {
            Space::Discrete(_) => 1,
            Space::Box { low, .. } => low.len(),
        }
    }

    /// Whether an element has no numbers at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In words, for errors.
    pub fn describe(&self) -> String {
        match self {
            Space::Discrete(n) => format!("{n} choices"),
            Space::Box { shape, .. } => format!("numbers of shape {shape:?}"),
        }
    }
}

/// One action.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action<'a> {
    /// The number of a choice.
    Discrete(usize),
    /// A row of numbers.
    Continuous(&'a [f32]),
}

impl<'a> Action<'a> {
    /// The choice; 0 for numbers.
    #[inline]
    pub fn choice(self) -> usize {
        match self {
            Action::Discrete(choice) => choice,
            Action::Continuous(_) => 0,
        }
    }

    /// The numbers; none for a choice.
    #[inline]
    pub fn numbers(self) -> &'a [f32] {
        match self {
            Action::Discrete(_) => &[],
            Action::Continuous(numbers) => numbers,
        }
    }
}

/// One action for each of several environments.
#[derive(Clone, Debug, PartialEq)]
pub enum Actions {
    /// Numbers of choices.
    Discrete(Vec<u32>),
    /// Rows of numbers, one after the other.
    Continuous {
        /// All rows.
        numbers: Vec<f32>,
        /// The length of one.
        width: usize,
    },
}

impl Actions {
    /// Zeros for `n` environments with this space of actions.
    pub fn zeros(space: &Space, n: usize) -> Actions {
        match space {
            Space::Discrete(_) => Actions::Discrete(vec![0; n]),
            Space::Box { low, .. } => Actions::Continuous {
                numbers: vec![0.0; n * low.len()],
                width: low.len(),
            },
        }
    }

    /// The action of environment `i`.
    #[inline]
    pub fn row(&self, i: usize) -> Action<'_> {
        match self {
            Actions::Discrete(choices) => Action::Discrete(choices[i] as usize),
            Actions::Continuous { numbers, width } => {
                Action::Continuous(&numbers[i * width..(i + 1) * width])
            }
        }
    }
}
