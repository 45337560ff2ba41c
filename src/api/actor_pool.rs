//! A pool of like actors that share work.
//!
//! Invariant: an actor of the pool has at most one call of the pool's at a time. Left out: making the actors.

use std::collections::VecDeque;

use super::{Handle, ObjectRef, get, wait};
use crate::base::Result;
use crate::exec::tasks::Actor;
use crate::value::Value;

/// Spreads calls over actors: each call goes to the actor that is free first.
///
/// ```
/// # use mobula::prelude::*;
/// # #[remote] struct Squarer;
/// # #[remote] impl Squarer {
/// #     pub fn new() -> Self { Squarer }
/// #     pub fn square(&mut self, x: u64) -> u64 { x * x }
/// # }
/// # let _mobula = mobula::init()?;
/// let mut pool = mobula::ActorPool::new((0..4).map(|_| Squarer::remote()));
/// assert_eq!(pool.map(0..5, |actor, x| actor.square(x))?, [0, 1, 4, 9, 16]);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug)]
pub struct ActorPool<A: Actor> {
    free: VecDeque<Handle<A>>,
}

impl<A: Actor> ActorPool<A> {
    /// A pool of these actors.
    pub fn new(actors: impl IntoIterator<Item = Handle<A>>) -> ActorPool<A> {
        ActorPool {
            free: actors.into_iter().collect(),
        }
    }

    /// Adds an actor.
    pub fn push(&mut self, actor: Handle<A>) {
        self.free.push_back(actor);
    }

    /// How many actors there are.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Calls `f` once an item and returns the results in the order of the items. Blocks until all are there.
    ///
    /// # Errors
    /// The first failure that is met, in order of completion; calls under way go on. An empty pool is
    /// [`Error::Config`](crate::Error::Config).
    pub fn map<I, T: Value>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        f: impl FnMut(&Handle<A>, I) -> ObjectRef<T>,
    ) -> Result<Vec<T>> {
        let mut results: Vec<(usize, T)> = Vec::new();
        self.run(items, f, |i, value| results.push((i, value)))?;
        results.sort_by_key(|(i, _)| *i);
        Ok(results.into_iter().map(|(_, value)| value).collect())
    }

    /// As [`map`](Self::map), but returns the results in the order in which they came.
    ///
    /// # Errors
    /// As for [`map`](Self::map).
    pub fn map_unordered<I, T: Value>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        f: impl FnMut(&Handle<A>, I) -> ObjectRef<T>,
    ) -> Result<Vec<T>> {
        let mut results = Vec::new();
        self.run(items, f, |_, value| results.push(value))?;
        Ok(results)
    }

    fn run<I, T: Value>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        mut f: impl FnMut(&Handle<A>, I) -> ObjectRef<T>,
        mut done: impl FnMut(usize, T),
    ) -> Result<()> {
        let mut running: Vec<(usize, Handle<A>, ObjectRef<T>)> = Vec::new();
        let mut outcome = Ok(());
        for (i, item) in items.into_iter().enumerate() {
            if self.free.is_empty() {
                outcome = self.collect(&mut running, &mut done);
                if outcome.is_err() {
                    break;
                }
            }
            let Some(actor) = self.free.pop_front() else {
                return Err(crate::base::Error::Config {
                    setting: "ActorPool",
                    why: "the pool has no actors: give it some with push()".into(),
                });
            };
            let r = f(&actor, item);
            running.push((i, actor, r));
        }
        while outcome.is_ok() && !running.is_empty() {
            outcome = self.collect(&mut running, &mut done);
        }
        self.free
            .extend(running.into_iter().map(|(_, actor, _)| actor));
        outcome
    }

    /// Waits for one call or more and frees their actors.
    fn collect<T: Value>(
        &mut self,
        running: &mut Vec<(usize, Handle<A>, ObjectRef<T>)>,
        done: &mut impl FnMut(usize, T),
    ) -> Result<()> {
        let refs: Vec<ObjectRef<T>> = running.iter().map(|(_, _, r)| r.clone()).collect();
        wait(&refs).run()?;
        let ready = running
            .extract_if(.., |(_, _, r)| r.is_ready())
            .collect::<Vec<_>>();
        let mut outcome = Ok(());
        for (i, actor, r) in ready {
            self.free.push_back(actor);
            match get(&r) {
                Ok(value) => done(i, value),
                Err(e) => outcome = outcome.and(Err(e)),
            }
        }
        outcome
    }
}
