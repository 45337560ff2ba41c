//! The roll: every actor of this process, so that they can be listed.
//!
//! Invariant: a cell is on the roll from its creation until it is freed, which takes it off first, under the lock of its
//! part; so what is seen under that lock is alive, though perhaps about to be freed. A place on the roll is no count:
//! it keeps no actor. Left out: what is said of an actor (`inspect`).

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{ActorCell, ActorRef};

/// Parts with a lock each: threads that create actors do not meet.
const PARTS: usize = 16;

/// Where a cell is that is not on the roll.
pub(super) const NOWHERE: u32 = u32::MAX;

struct Part(Mutex<Vec<NonNull<ActorCell>>>);

// SAFETY: the pointers are followed only under the lock, while the cells are alive.
unsafe impl Sync for Part {}

static ROLL: [Part; PARTS] = [const { Part(Mutex::new(Vec::new())) }; PARTS];

fn part(id: u64) -> &'static Part {
    // Ids of one thread differ in their low bits only.
    &ROLL[(id >> 40) as usize % PARTS]
}

/// Enters an actor.
pub(super) fn enter(actor: &ActorRef) {
    let mut part = part(actor.id).0.lock();
    // One more than a list can number goes without a place.
    if let Ok(place) = u32::try_from(part.len())
        && place != NOWHERE
    {
        actor.place.store(place, Ordering::Relaxed);
        part.push(actor.0);
    }
}

/// Takes an actor off that is about to be freed.
pub(super) fn leave(actor: &ActorCell) {
    if actor.place.load(Ordering::Relaxed) == NOWHERE {
        return;
    }
    let mut part = part(actor.id).0.lock();
    // Read again: another that left may have moved this one.
    let place = actor.place.load(Ordering::Relaxed);
    part.swap_remove(place as usize);
    if let Some(moved) = part.get(place as usize) {
        // SAFETY: on the roll, and its part's lock is held.
        unsafe { moved.as_ref() }
            .place
            .store(place, Ordering::Relaxed);
    }
    if part.capacity() > 1024 && part.len() < part.capacity() / 4 {
        let room = part.len() * 2;
        part.shrink_to(room);
    }
}

/// What to do with an actor that is shown.
pub(super) enum Look {
    /// Show no more.
    Stop,
    /// Nothing.
    Skip,
    /// Put it into this list.
    Take(usize),
}

/// How many actors are looked at before others get at the roll again.
const STRIDE: usize = 1024;

/// Shows every actor to `look`, which says in which of `lists` a reference to it is to be put, if in any; stops when it
/// says [`Look::Stop`]. `look` runs under a lock: it must neither drop actors nor make them. An actor that comes, or is moved
/// by one that goes, may be missed or seen twice.
pub(super) fn each(
    lists: &mut [Vec<ActorRef>],
    mut look: impl FnMut(&ActorCell, &[Vec<ActorRef>]) -> Look,
) {
    for part in &ROLL {
        let mut from = 0;
        loop {
            let part = part.0.lock();
            if from >= part.len() {
                break;
            }
            for cell in part.iter().skip(from).take(STRIDE) {
                // SAFETY: on the roll, and its part's lock is held.
                let actor = unsafe { cell.as_ref() };
                let list = match look(actor, lists) {
                    Look::Stop => return,
                    Look::Skip => continue,
                    Look::Take(list) => list,
                };
                // One that nobody has is about to be taken off.
                let counted = actor
                    .refs
                    .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| {
                        (n > 0).then_some(n + 1)
                    });
                if counted.is_ok() {
                    lists[list].push(ActorRef(*cell));
                }
            }
            from += STRIDE;
        }
    }
}

/// How many are on the roll.
pub(super) fn len() -> u64 {
    ROLL.iter().map(|part| part.0.lock().len() as u64).sum()
}
