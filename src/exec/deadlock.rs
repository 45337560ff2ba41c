//! Circles of waiting calls, found before the last of them goes to sleep.
//!
//! An actor's method that waits keeps its actor from the calls behind it. Where the awaited call waits in turn, on another
//! thread, for one of those, nobody would ever wake. Each call that is about to sleep without a deadline enters here what
//! it waits for and what it keeps from running; whoever would close a circle gets an error instead.
//!
//! Invariant: what is entered belongs to a frame that sleeps, or is about to. A circle that is found is one: each link is
//! a call that cannot go on before the next has ended. Left out: waits of futures, waits outside of calls (nobody waits
//! for those), and calls that wait for their arguments.

use parking_lot::Mutex;

use super::cell::{Phase, RawRef, Record, finished, phase};
use super::entry::Kind;
use super::local::Local;
use crate::base::Error;

/// Beyond so many awaited calls only these are looked at.
const LOOKED_AT: usize = 64;

/// A frame that sleeps.
struct Sleeper {
    /// The thread.
    key: usize,
    /// Actors whose calls run on this thread: their mailboxes stand still.
    actors: Vec<usize>,
    /// Calls that run on this thread, with the actors whose state they use.
    calls: Vec<(usize, usize)>,
    awaited: Vec<RawRef>,
    /// How many of `awaited` must end.
    needed: usize,
}

static SLEEPERS: Mutex<Vec<Sleeper>> = Mutex::new(Vec::new());

/// Takes the sleeper out again.
pub(super) struct Entered(usize);

impl Drop for Entered {
    fn drop(&mut self) {
        let gone = {
            let mut sleepers = SLEEPERS.lock();
            let at = sleepers.iter().rposition(|s| s.key == self.0);
            at.map(|at| sleepers.swap_remove(at))
        };
        drop(gone); // may free records, and what they hold
    }
}

/// Enters that the call which runs here is about to wait for `needed` of `awaited`; an error if that could never end.
pub(super) fn enter(
    local: &Local,
    awaited: &[&RawRef],
    needed: usize,
) -> Result<Option<Entered>, Error> {
    let mut calls = Vec::new();
    local.each_current(|record| calls.push((address(record), actor_of(record))));
    if calls.is_empty() || (awaited.len() > LOOKED_AT && needed < awaited.len()) {
        return Ok(None);
    }
    let key = local.outbox_key();
    let awaited: Vec<RawRef> = awaited
        .iter()
        .take(LOOKED_AT)
        .map(|r| RawRef::clone(r))
        .collect();
    let needed = needed.min(awaited.len());
    let actors = local.on_stack.borrow().iter().map(|a| a.addr()).collect();
    let entered = Entered(key);
    let circle = {
        let mut sleepers = SLEEPERS.lock();
        sleepers.push(Sleeper {
            key,
            actors,
            calls,
            awaited,
            needed,
        });
        let me = sleepers.len() - 1;
        let mut seen = vec![false; sleepers.len()];
        stuck(&sleepers, me, me, &mut seen).map(|r| r.entry.name)
    };
    match circle {
        None => Ok(Some(entered)),
        Some(name) => Err(Error::Deadlock {
            what: format!(
                "{} waits for {name}, which can only go on after it; return the reference instead of waiting, or await it in an async method",
                local.current_record(|r| r.entry.name).unwrap_or_default()
            ),
        }),
    }
}

fn address(record: &Record) -> usize {
    std::ptr::from_ref(record).addr()
}

fn actor_of(record: &Record) -> usize {
    record.target().map_or(0, |actor| actor.mark().addr())
}

/// An awaited call of sleeper `at` that needs sleeper `me` to go on, if so many do that `at` cannot.
fn stuck<'a>(
    sleepers: &'a [Sleeper],
    at: usize,
    me: usize,
    seen: &mut [bool],
) -> Option<&'a RawRef> {
    let sleeper = &sleepers[at];
    let mut possible = sleeper.awaited.len();
    let mut example = None;
    for record in &sleeper.awaited {
        if !finished(record.state()) && needs(sleepers, record, me, seen) {
            possible -= 1;
            example = Some(record);
        }
    }
    example.filter(|_| possible < sleeper.needed)
}

/// Whether `record` cannot end before sleeper `me` goes on.
fn needs(sleepers: &[Sleeper], record: &RawRef, me: usize, seen: &mut [bool]) -> bool {
    let begun = phase(record.state()) == Phase::Running;
    let (itself, actor) = (address(record), actor_of(record));
    let alone = matches!(
        record.entry.kind,
        Kind::Exclusive | Kind::Consuming | Kind::AsyncExclusive
    );
    let held_up = |s: &Sleeper| {
        if begun || actor == 0 {
            return s.calls.iter().any(|c| c.0 == itself);
        }
        s.actors.contains(&actor) || (alone && s.calls.iter().any(|c| c.1 == actor))
    };
    for at in 0..sleepers.len() {
        if !held_up(&sleepers[at]) {
            continue;
        }
        if at == me {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) && stuck(sleepers, at, me, seen).is_some() {
            return true;
        }
    }
    false
}
