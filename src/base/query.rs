//! What is asked of a running program: which parts, which entries, how many.
//!
//! Invariant: no question can be made expensive: limits are capped by whoever answers ([`LIMIT_MAX`]). Left out: the
//! answer, which is a [`Snapshot`](super::snapshot::Snapshot).

#[cfg(feature = "attach")]
use serde::{Deserialize, Serialize};

/// The most entries of one list that are given at once.
pub const LIMIT_MAX: usize = 10_000;

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Part {
    /// Nodes with their resources and stores.
    Nodes,
    /// Remote functions and how long they take.
    Functions,
    /// Calls that have not ended.
    Tasks,
    /// Actors.
    Actors,
    /// Objects, and where they were made.
    Objects,
    /// Worker processes.
    Workers,
    /// Failures.
    Errors,
}

impl Part {
    /// Every part.
    pub const ALL: [Part; 7] = [
        Part::Nodes,
        Part::Functions,
        Part::Tasks,
        Part::Actors,
        Part::Objects,
        Part::Workers,
        Part::Errors,
    ];
}

/// A question: the program and its counts come always, the rest as asked.
///
/// ```
/// use mobula::inspect::{Part, Query};
/// let query = Query::of(&[Part::Tasks]).state("running").limit(10);
/// assert_eq!(query.limit, 10);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "attach", derive(Serialize, Deserialize))]
#[cfg_attr(feature = "attach", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Query {
    /// Which parts.
    pub parts: Vec<Part>,
    /// The most entries of each list; at most [`LIMIT_MAX`] count.
    pub limit: usize,
    /// Only tasks, actors or objects in this state, by its name: `running`, `dead`, `spilled`.
    pub state: Option<String>,
    /// Only what has this in its function's, type's or origin's path.
    pub function: Option<String>,
    /// Only actors that have this in their name, nodes and workers likewise.
    pub name: Option<String>,
    /// Only what has this id; for workers, this process id.
    pub id: Option<u64>,
    /// Lines of each worker's output.
    pub lines: usize,
}

impl Default for Query {
    fn default() -> Query {
        Query {
            parts: Vec::new(),
            limit: 100,
            state: None,
            function: None,
            name: None,
            id: None,
            lines: 0,
        }
    }
}

impl Query {
    /// Everything, up to 100 entries a list.
    pub fn all() -> Query {
        Query::of(&Part::ALL)
    }

    /// These parts, up to 100 entries a list.
    pub fn of(parts: &[Part]) -> Query {
        Query {
            parts: parts.to_vec(),
            ..Query::default()
        }
    }

    /// At most so many entries of each list.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Query {
        self.limit = limit;
        self
    }

    /// Only what is in this state.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Query {
        self.state = Some(state.into());
        self
    }

    /// Only what has this in its function's path.
    #[must_use]
    pub fn function(mut self, function: impl Into<String>) -> Query {
        self.function = Some(function.into());
        self
    }

    /// Only what has this in its name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Query {
        self.name = Some(name.into());
        self
    }

    /// Only what has this id.
    #[must_use]
    pub fn id(mut self, id: u64) -> Query {
        self.id = Some(id);
        self
    }

    /// With so many of the last lines that each worker printed.
    #[must_use]
    pub fn lines(mut self, lines: usize) -> Query {
        self.lines = lines;
        self
    }

    /// Whether this part is asked for.
    pub fn wants(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }

    /// The limit that counts.
    pub fn bound(&self) -> usize {
        self.limit.min(LIMIT_MAX)
    }

    /// Whether something in this state is asked for.
    pub fn takes_state(&self, state: &str) -> bool {
        self.state.as_deref().is_none_or(|s| s == state)
    }

    /// Whether something with this path is asked for.
    pub fn takes_function(&self, function: &str) -> bool {
        self.function
            .as_deref()
            .is_none_or(|f| function.contains(f))
    }

    /// Whether something with this name is asked for.
    pub fn takes_name(&self, name: Option<&str>) -> bool {
        self.name
            .as_deref()
            .is_none_or(|n| name.is_some_and(|name| name.contains(n)))
    }

    /// Whether something with this id is asked for.
    pub fn takes_id(&self, id: u64) -> bool {
        self.id.is_none_or(|i| i == id)
    }
}
