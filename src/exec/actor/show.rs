//! What can be said of actors to somebody who looks from outside.
//!
//! Invariant: a look takes no actor's run lock and so never holds up a call. Left out: finding them (`roll`).

use std::sync::atomic::Ordering;

use super::super::engine::Engine;
use super::roll::{self, Look};
use super::{ActorCell, ActorRef, Life};
use crate::base::query::Query;
use crate::base::snapshot::{Actor, ActorState, Id, List};

/// Causes of death that the program asked for.
pub(super) const STOPPED: &str = "it was stopped";
pub(super) const KILLED: &str = "it was killed";
pub(super) const CONSUMED: &str = " consumed it";

/// Notes a death, unless the program asked for it.
pub(super) fn died(engine: &Engine, actor: &ActorCell, cause: &str) {
    let asked = [STOPPED, KILLED].iter().any(|c| cause.starts_with(c)) || cause.ends_with(CONSUMED);
    if !asked {
        let now = super::super::inspect::now();
        engine.mishaps.died(actor.entry.name, cause, now);
        tell(engine, actor, cause, false);
    }
}

/// Tells the program of a death.
pub(super) fn tell(engine: &Engine, actor: &ActorCell, cause: &str, restarted: bool) {
    engine.deaths.tell(|| ActorDeath {
        type_name: actor.entry.name,
        name: actor.name().map(str::to_owned),
        cause: cause.to_owned(),
        restarts: actor.restarts(),
        restarted,
    });
}

/// An actor died that nobody had asked to end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorDeath {
    /// Its type's registered name.
    pub type_name: &'static str,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// Why it died: what its constructor or a method panicked with, how its process or which node ended.
    pub cause: String,
    /// How often it was made again, this time included.
    pub restarts: u32,
    /// It is being made again; else its calls fail from now on.
    pub restarted: bool,
}

/// The most actors that are looked at for one list.
const LOOKED_AT: usize = 1_000_000;

/// The actors of this start of the runtime that are asked for: those that have something to do, then idle ones, then
/// dead ones. Cost: some tens of nanoseconds for each there is.
pub(in super::super) fn list(query: &Query, generation: u64) -> List<Actor> {
    let mut seen = 0;
    let mut left_out = 0;
    let mut refs: [Vec<ActorRef>; 3] = [const { Vec::new() }; 3];
    let limit = query.bound();
    roll::each(&mut refs, |actor, lists| {
        seen += 1;
        if seen > LOOKED_AT {
            return Look::Stop;
        }
        if actor.born != generation || !asked_for(actor, query) {
            return Look::Skip;
        }
        let rank = match actor.state_now() {
            ActorState::Idle => 1,
            ActorState::Dead => 2,
            _ => 0,
        };
        if lists[rank].len() < limit {
            return Look::Take(rank);
        }
        left_out += 1;
        Look::Skip
    });
    let mut list = List {
        left_out,
        incomplete: seen > LOOKED_AT,
        ..List::default()
    };
    for actor in refs.iter().flatten() {
        list.offer(limit, || show(actor));
    }
    list
}

fn asked_for(actor: &ActorCell, query: &Query) -> bool {
    query.takes_id(actor.id)
        && query.takes_function(actor.entry.name)
        && query.takes_name(actor.name())
        && query.takes_state(actor.state_now().name())
}

fn show(actor: &ActorRef) -> Actor {
    let more = actor.more.get();
    let bound = more.map_or(0, |m| m.max_pending);
    let state = actor.state_now();
    let own = more.filter(|m| m.keeps_history()).map(|m| m.shown.look());
    let (history, kept) = actor.backups().map(|b| b.look()).unzip();
    Actor {
        id: Id(actor.id),
        type_name: actor.entry.name.to_owned(),
        name: actor.name().map(str::to_owned),
        state,
        pending: match state {
            ActorState::Idle | ActorState::Dead => Some(0),
            _ if bound > 0 => Some(u64::from(actor.pending())),
            ActorState::Running => Some(u64::from(actor.taken.load(Ordering::Relaxed))),
            _ => None,
        },
        max_pending: (bound > 0).then_some(bound),
        restarts: actor.restarts(),
        max_restarts: more.map_or(0, |m| m.max_restarts),
        running: under_way(actor),
        cause: more
            .filter(|_| actor.life() == Life::Dead)
            .and_then(|m| m.cause.lock().as_deref().map(str::to_owned)),
        handles: u64::from(actor.handles.load(Ordering::Relaxed)),
        history: own.or(history),
        kept,
    }
}

/// The async methods that wait or run, a few at most.
#[cfg(feature = "async")]
fn under_way(actor: &ActorCell) -> Vec<String> {
    let more = actor.more.get();
    more.map_or_else(Vec::new, |more| {
        let polled = more.wakers.lock();
        let names = polled.values().take(8).map(|p| p.entry.name.to_owned());
        names.collect()
    })
}

#[cfg(not(feature = "async"))]
fn under_way(_: &ActorCell) -> Vec<String> {
    Vec::new()
}

/// How many actors of this process are in memory, dead ones included.
pub(in super::super) fn count() -> u64 {
    roll::len()
}
