//! The actors of a run: calls to all of them, and new ones for those that are lost.
//!
//! Invariant: answers come in the members' order, whatever the order in which they are ready, so that a run follows from its
//! seed. A member that died, or whose machine did, is made anew with other random numbers and called again; a failure of
//! the member's own code is an error. Left out: what members do.

use super::error::Result;
use crate::api::private::Actor;
use crate::api::{Handle, ObjectRef, View, get, view};
use crate::base::Error as NodeError;

/// Some actors of one kind, each made of a setup `S`.
pub(super) struct Crew<S, A: Actor> {
    setups: Vec<S>,
    handles: Vec<Handle<A>>,
    hire: fn(&S) -> Handle<A>,
    /// Gives a setup random numbers that it has not had before.
    renew: fn(&mut S),
    replaced: u64,
}

/// How often in one round members may be replaced before it is an error.
const REPLACEMENTS: usize = 8;

/// Whether an error says that the member, or what it gave, went down with a process or a machine.
pub(super) fn is_loss(error: &NodeError) -> bool {
    matches!(
        error,
        NodeError::ActorDied { .. }
            | NodeError::NodeLost { .. }
            | NodeError::WorkerDied(_)
            | NodeError::ObjectLost(_)
            | NodeError::CopyLost(_)
    )
}

impl<S, A: Actor> Crew<S, A> {
    pub fn new(setups: Vec<S>, hire: fn(&S) -> Handle<A>, renew: fn(&mut S)) -> Crew<S, A> {
        Crew {
            handles: setups.iter().map(hire).collect(),
            setups,
            hire,
            renew,
            replaced: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Calls every member, and waits for none.
    pub fn call<T>(&self, call: impl Fn(&Handle<A>) -> ObjectRef<T>) -> Vec<ObjectRef<T>> {
        self.handles.iter().map(call).collect()
    }

    /// Calls one member.
    pub fn call_one<T>(&self, i: usize, call: impl Fn(&Handle<A>) -> ObjectRef<T>) -> ObjectRef<T> {
        call(&self.handles[i])
    }

    /// Makes member `i` anew.
    pub fn replace(&mut self, i: usize) {
        self.replaced += 1;
        (self.renew)(&mut self.setups[i]);
        self.handles[i] = (self.hire)(&self.setups[i]);
    }

    /// What each member answers to `calls`, read where it lies. Who is lost is replaced and called by `call`.
    pub fn answers<T: crate::value::Value>(
        &mut self,
        mut calls: Vec<ObjectRef<T>>,
        call: impl Fn(&Handle<A>) -> ObjectRef<T>,
    ) -> Result<Vec<View<T>>> {
        let mut answers = Vec::with_capacity(calls.len());
        let mut tries = 0;
        for (i, called) in calls.iter_mut().enumerate() {
            loop {
                match view(called) {
                    Ok(answer) => break answers.push(answer),
                    Err(error) if is_loss(&error) && tries < REPLACEMENTS => {
                        tries += 1;
                        self.replace(i);
                        *called = call(&self.handles[i]);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(answers)
    }

    /// The state of each, which `save` asks for.
    pub fn save(&self, save: impl Fn(&Handle<A>) -> ObjectRef<Vec<u64>>) -> Result<Vec<Vec<u64>>> {
        Ok(get(&self.call(save))?)
    }

    /// Gives each its state back.
    pub fn load(
        &mut self,
        states: Vec<Vec<u64>>,
        load: impl Fn(&Handle<A>, Vec<u64>) -> ObjectRef<()>,
    ) -> Result<()> {
        if states.len() != self.handles.len() {
            return Err(super::error::Error::Usage(format!(
                "the checkpoint is of {} actors, not of {}",
                states.len(),
                self.handles.len()
            )));
        }
        let calls = self.handles.iter().zip(states).map(|(c, s)| load(c, s));
        get(&calls.collect::<Vec<_>>())?;
        Ok(())
    }

    /// How many members were replaced so far.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Ends member `i`, as a lost machine would.
    #[cfg(test)]
    pub fn kill(&self, i: usize) {
        self.handles[i].kill();
    }
}
