//! Models of an actor's mailbox, its run lock and the gate: `mail`, and how `actor::run` uses it.
//!
//! Invariant: what was pushed is taken, once and in order, whoever drains. Left out: executing calls.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, SeqCst};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::super::mail::{self, Link, Mail, Pushed, RunLock};
use super::super::sync::UnsafeCell;
use super::model;
use crate::core::gate::{Admit, Gate, Kind};

/// A letter: from whom, and which of theirs.
struct Letter {
    link: UnsafeCell<*mut Letter>,
    from: usize,
    number: usize,
    kind: Kind,
}

impl Link for Letter {
    fn link(&self) -> &UnsafeCell<*mut Letter> {
        &self.link
    }
}

/// An actor as far as these models go.
struct Actor {
    mail: Mail<Letter>,
    run: RunLock,
    inner: UnsafeCell<Inner>,
    gate: Mutex<Gate>,
    /// Entries in the executors' queues.
    entries: AtomicUsize,
}

struct Inner {
    backlog: *mut Letter,
    ran: Vec<(usize, usize)>,
}

// SAFETY: `inner` is touched under the run lock; loom checks it.
unsafe impl Send for Actor {}
// SAFETY: as above.
unsafe impl Sync for Actor {}

impl Actor {
    /// One that was born, queued, drained, and is idle.
    fn idle() -> Arc<Actor> {
        let actor = Actor {
            mail: Mail::busy(),
            run: RunLock::new(),
            inner: UnsafeCell::new(Inner {
                backlog: std::ptr::null_mut(),
                ran: Vec::new(),
            }),
            gate: Mutex::new(Gate::new(2)),
            entries: AtomicUsize::new(0),
        };
        assert!(actor.mail.settle_idle());
        Arc::new(actor)
    }

    fn post(&self, from: usize, number: usize, kind: Kind) -> Pushed {
        let link = UnsafeCell::new(std::ptr::null_mut());
        let node = Box::into_raw(Box::new(Letter {
            link,
            from,
            number,
            kind,
        }));
        // SAFETY: a fresh box.
        let pushed = unsafe { self.mail.push(node) };
        match pushed {
            Pushed::Woke => drop(self.entries.fetch_add(1, SeqCst)),
            Pushed::Queued => {}
            // SAFETY: refused, so still ours.
            Pushed::Refused => drop(unsafe { Box::from_raw(node) }),
        }
        pushed
    }

    /// As `drain_here`, with a turn that ends at a letter which the gate does not let in.
    fn drain(&self) {
        loop {
            if !self.run.try_lock() {
                return;
            }
            let parked = self.turn();
            // SAFETY: locked above.
            unsafe { self.run.unlock() };
            if parked {
                if self.gate.lock().unwrap().parked() {
                    return;
                }
            } else if self.mail.settle_idle() {
                return;
            }
        }
    }

    /// Takes letters until there are none, or one must wait: whether that is so. The caller holds the run lock.
    fn turn(&self) -> bool {
        self.inner.with_mut(|inner| {
            // SAFETY: the run lock.
            let inner = unsafe { &mut *inner };
            loop {
                if inner.backlog.is_null() {
                    inner.backlog = self.mail.take();
                }
                let node = inner.backlog;
                if node.is_null() {
                    return false;
                }
                // SAFETY: letters in the backlog are ours.
                let (kind, after) = unsafe { ((*node).kind, mail::next(node)) };
                if self.gate.lock().unwrap().admit(kind) == Admit::Wait {
                    return true;
                }
                inner.backlog = after;
                // SAFETY: taken out of the list; made by `post`.
                let letter = unsafe { Box::from_raw(node) };
                inner.ran.push((letter.from, letter.number));
                let resume = self.gate.lock().unwrap().leave(kind);
                assert!(!resume, "nothing parks while its drainer runs a call");
            }
        })
    }

    /// What an executor does: takes an entry out of a queue, if there is one, and drains.
    fn work(&self) -> bool {
        let took = self
            .entries
            .fetch_update(AcqRel, Acquire, |n| n.checked_sub(1))
            .is_ok();
        if took {
            self.drain();
        }
        took
    }

    /// When all threads have stopped and the queues are empty: what ran.
    fn settled(&self) -> Vec<(usize, usize)> {
        while self.work() {}
        assert!(self.run.try_lock(), "the lock is free");
        let ran = self.inner.with_mut(|inner| {
            // SAFETY: the run lock.
            let inner = unsafe { &mut *inner };
            assert!(inner.backlog.is_null(), "nothing is left behind");
            std::mem::take(&mut inner.ran)
        });
        // SAFETY: locked above.
        unsafe { self.run.unlock() };
        assert_eq!(self.post(9, 9, Kind::Shared), Pushed::Woke, "it is idle");
        while self.work() {}
        ran
    }
}

/// Two send while an executor and a caller that waits for a result drain: every letter is taken once, each sender's in
/// order, and the mailbox ends idle with nobody left behind.
///
/// Planted and caught: a drain that ends without `settle_idle`, or does not try again when it says false (letters left
/// behind); a push that does not report `Woke`; `take` without turning the list around; `settle_idle` as a load and a
/// store (a letter is overwritten); `unlock` with `Relaxed` (the state is touched unordered).
#[test]
fn no_letter_is_lost() {
    model(|| {
        let actor = Actor::idle();
        let sender = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || {
                let _ = actor.post(1, 1, Kind::Exclusive);
                let _ = actor.post(1, 2, Kind::Exclusive);
            })
        };
        let executor = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || actor.work())
        };
        let waiting = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || actor.drain())
        };
        let _ = actor.post(2, 1, Kind::Exclusive);
        sender.join().unwrap();
        executor.join().unwrap();
        waiting.join().unwrap();
        let ran = actor.settled();
        assert_eq!(ran.len(), 3, "{ran:?}");
        let first: Vec<_> = ran.iter().filter(|(from, _)| *from == 1).collect();
        assert_eq!(first, [&(1, 1), &(1, 2)]);
    });
}

/// A call that runs apart ends just when the drainer finds that the next one must wait for it: somebody goes on.
///
/// Planted and caught: a parked drainer that does not look at the gate again after it unlocked; one that looks before.
#[test]
fn a_parked_actor_is_resumed() {
    model(|| {
        let actor = Actor::idle();
        assert_eq!(actor.gate.lock().unwrap().admit(Kind::Shared), Admit::Run);
        let apart = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || {
                let resume = actor.gate.lock().unwrap().leave(Kind::Shared);
                if resume {
                    actor.entries.fetch_add(1, SeqCst);
                    actor.work();
                }
            })
        };
        let sender = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || {
                let _ = actor.post(1, 1, Kind::Exclusive);
                actor.work();
            })
        };
        let _ = actor.post(2, 1, Kind::Exclusive);
        actor.work();
        apart.join().unwrap();
        sender.join().unwrap();
        let mut ran = actor.settled();
        ran.sort_unstable();
        assert_eq!(ran, [(1, 1), (2, 1)]);
    });
}

/// An actor dies while one sends and a queue entry is left over: a letter is refused, or comes out of `close`, and the dead
/// mailbox stays closed.
///
/// Planted and caught: `take` that swaps without looking, as it once did (a late drainer turns the closed mailbox into an
/// idle one, which takes letters for a state that is gone).
#[test]
fn a_closed_mailbox_stays_closed() {
    model(|| {
        let actor = Actor::idle();
        let sender = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || actor.post(1, 1, Kind::Exclusive) == Pushed::Refused)
        };
        let late = {
            let actor = Arc::clone(&actor);
            thread::spawn(move || actor.drain())
        };
        let mut left = 0;
        while !actor.run.try_lock() {
            thread::yield_now();
        }
        let mut node = actor.mail.close();
        while !node.is_null() {
            // SAFETY: the list is ours.
            let (letter, after) = unsafe { (Box::from_raw(node), mail::next(node)) };
            left += 1;
            node = after;
            drop(letter);
        }
        // SAFETY: locked above.
        unsafe { actor.run.unlock() };
        assert!(actor.mail.settle_idle());
        let refused = sender.join().unwrap();
        late.join().unwrap();
        while actor.work() {}
        // SAFETY: nobody else is left.
        let ran = actor.inner.with(|inner| unsafe { (*inner).ran.len() });
        assert_eq!(left + ran + usize::from(refused), 1);
        actor.drain();
        assert_eq!(actor.post(2, 1, Kind::Exclusive), Pushed::Refused);
    });
}
