//! Waiting for some of many.
//!
//! Invariant: every reference given comes back, in `ready` or in `pending`, in the order given.
//! Left out: taking values (`get`).

use std::time::{Duration, Instant};

use super::ObjectRef;
use crate::base::{Error, Result};
use crate::exec::{RawRef, local};

/// So many seconds, for timeouts.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Begins a wait for some of many calls; see [`Wait`].
///
/// ```
/// # use mobula::prelude::*;
/// # #[remote] fn square(x: u64) -> u64 { x * x }
/// # let _mobula = mobula::init()?;
/// let squares: Vec<_> = (0..4).map(square::remote).collect();
/// let (ready, pending) = mobula::wait(&squares).num_returns(2).timeout(secs(1)).run()?;
/// assert_eq!((ready.len(), pending.len()), (2, 2));
/// # Ok::<(), mobula::Error>(())
/// ```
pub fn wait<T>(refs: &[ObjectRef<T>]) -> Wait<'_, T> {
    Wait {
        refs,
        num_returns: 1,
        timeout: None,
    }
}

/// A wait for some of many calls.
#[derive(Debug)]
#[must_use = "a wait does nothing before run()"]
pub struct Wait<'a, T> {
    refs: &'a [ObjectRef<T>],
    num_returns: usize,
    timeout: Option<Duration>,
}

impl<T> Wait<'_, T> {
    /// How many to wait for; default 1, at most as many as there are.
    pub fn num_returns(mut self, n: usize) -> Self {
        self.num_returns = n;
        self
    }

    /// Gives up after this time and returns what there is. Default: never. Zero only looks.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Waits until `num_returns` calls have ended, well or not, or time is up. Returns the first `num_returns` of those that
    /// have, and the rest.
    ///
    /// Costs some 20 ns a reference when nothing has to be awaited; sleeps, with its CPU lent, when something has.
    ///
    /// # Errors
    /// [`Error::NotInitialized`] or [`Error::ShutDown`] without a runtime. Running out of time is none.
    pub fn run(self) -> Result<(Vec<ObjectRef<T>>, Vec<ObjectRef<T>>)> {
        let enough = self.num_returns.min(self.refs.len());
        let mut ended = self
            .refs
            .iter()
            .filter(|r| r.is_ready())
            .take(enough)
            .count();
        if ended < enough && self.timeout != Some(Duration::ZERO) {
            let deadline = self.timeout.and_then(|t| Instant::now().checked_add(t));
            let raws: Vec<&RawRef> = self.refs.iter().map(|r| &r.raw).collect();
            let waited = local::with(|local| {
                local.engine.hurry();
                local
                    .engine
                    .sleep_for(local, &raws, enough, false, deadline)
            })?;
            match waited {
                Ok(()) | Err(Error::Timeout { .. }) => {}
                Err(e) => return Err(e),
            }
        } else {
            local::with(|_| ())?;
        }
        let mut ready = Vec::with_capacity(enough);
        let mut pending = Vec::with_capacity(self.refs.len() - enough);
        ended = 0;
        for r in self.refs {
            if ended < enough && r.is_ready() {
                ended += 1;
                ready.push(r.clone());
            } else {
                pending.push(r.clone());
            }
        }
        Ok((ready, pending))
    }
}
