//! The options that `#[remote(...)]` writes down at compile time.
//!
//! Invariant: every field is optional, so that a call's own options override the attribute's and the
//! attribute's override the runtime's. Left out: checking; the macro refuses bad values at their spans and
//! the runtime checks again when it turns them into a demand.

/// Options of a function, struct or impl block as its `#[remote(...)]` attribute gave them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// CPUs a call takes while it runs (an actor: while it lives).
    pub num_cpus: Option<f64>,
    /// GPUs likewise.
    pub num_gpus: Option<f64>,
    /// Custom resources likewise.
    pub resources: &'static [(&'static str, f64)],
    /// How often a call is tried again after a crash, or after a panic with `retry_panics`.
    pub max_retries: Option<u32>,
    /// Whether a panic counts as worth another try.
    pub retry_panics: Option<bool>,
    /// Higher runs first; 0 is the default.
    pub priority: Option<i32>,
    /// How often an actor is made again by its constructor.
    pub max_restarts: Option<u32>,
    /// How many `&self` methods of an actor may run side by side.
    pub max_concurrency: Option<u32>,
    /// How many calls an actor's mailbox holds before it pushes back.
    pub max_pending: Option<u32>,
    /// Whether a panic in a method ends the actor (which then restarts if it may).
    pub restart_on_panic: Option<bool>,
    /// Whether it runs in a worker process.
    pub isolate: Option<bool>,
    /// Bytes that its worker process may take.
    pub memory: Option<u64>,
    /// After how many calls an actor's state is saved.
    pub checkpoint_every: Option<u32>,
    /// After how many seconds, if it was called.
    pub checkpoint_interval: Option<f64>,
    /// Bytes that the log of its calls may take.
    pub log_bytes: Option<u64>,
    /// How many other nodes keep an actor's history.
    pub replicas: Option<u32>,
    /// Whether its checkpoints are written outside of all nodes, too.
    pub durable_checkpoints: Option<bool>,
    /// The name under which an actor registers.
    pub name: Option<&'static str>,
}

impl Defaults {
    /// Nothing said.
    pub const NONE: Defaults = Defaults {
        num_cpus: None,
        num_gpus: None,
        resources: &[],
        max_retries: None,
        retry_panics: None,
        priority: None,
        max_restarts: None,
        max_concurrency: None,
        max_pending: None,
        restart_on_panic: None,
        isolate: None,
        memory: None,
        checkpoint_every: None,
        checkpoint_interval: None,
        log_bytes: None,
        replicas: None,
        durable_checkpoints: None,
        name: None,
    };

    /// Whether `memory` is given to something that does not run in a worker process of its own.
    pub const fn memory_without_isolate(&self) -> bool {
        self.memory.is_some() && !matches!(self.isolate, Some(true))
    }

    /// `self` where it says something, else `other`.
    pub const fn over(self, other: Defaults) -> Defaults {
        macro_rules! pick {
            ($($f:ident)*) => { Defaults {
                resources: if self.resources.is_empty() { other.resources } else { self.resources },
                $($f: if self.$f.is_some() { self.$f } else { other.$f },)*
            } };
        }
        pick!(num_cpus num_gpus max_retries retry_panics priority max_restarts max_concurrency
              max_pending restart_on_panic isolate memory checkpoint_every checkpoint_interval log_bytes replicas
              durable_checkpoints name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_wins_and_the_second_fills_gaps() {
        let a = Defaults {
            num_cpus: Some(2.0),
            ..Defaults::NONE
        };
        let b = Defaults {
            num_cpus: Some(1.0),
            max_restarts: Some(3),
            ..Defaults::NONE
        };
        let both = a.over(b);
        assert_eq!(both.num_cpus, Some(2.0));
        assert_eq!(both.max_restarts, Some(3));
        assert_eq!(both.name, None);
    }
}
