//! Models of a call's claim, its end and who waits for it: `phase` and `waiter`.
//!
//! Invariant: a call is run or cancelled by one thread, and who waits for it is let go. Left out: what a call is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::super::phase::{CANCEL, Phase, Progress, finished, phase};
use super::super::sync::UnsafeCell;
use super::super::waiter::{Latch, Waiter, WaiterKind};
use super::model;

/// A record as far as these models go: its progress, and an outcome that loom watches for unordered accesses.
struct Call {
    progress: Progress,
    outcome: UnsafeCell<u32>,
    claims: AtomicUsize,
    fired: AtomicUsize,
}

// SAFETY: the outcome is written by the claimer before it finishes, and read only after; loom checks it.
unsafe impl Send for Call {}
// SAFETY: as above.
unsafe impl Sync for Call {}

impl Call {
    fn new(phase: Phase) -> Arc<Call> {
        Arc::new(Call {
            progress: Progress::new(phase),
            outcome: UnsafeCell::new(0),
            claims: AtomicUsize::new(0),
            fired: AtomicUsize::new(0),
        })
    }

    /// What whoever claimed it does: puts an outcome, ends the call and fires the waiters.
    fn run(&self, outcome: u32, end: Phase) {
        self.claims.fetch_add(1, Relaxed);
        assert_eq!(phase(self.progress.state()), Phase::Running);
        // SAFETY: claimed.
        self.outcome.with_mut(|o| unsafe { *o = outcome });
        fire(self.progress.finish(end));
    }

    /// The outcome of a call that ended.
    fn read(&self) -> u32 {
        assert!(finished(self.progress.state()));
        // SAFETY: ended.
        self.outcome.with(|o| unsafe { *o })
    }

    /// A waiter that counts how often it fired and looks at the outcome when it does.
    fn waiter(self: &Arc<Call>, key: usize) -> Box<Waiter> {
        let call = Arc::clone(self);
        let fired = move || {
            assert_ne!(call.read(), 0);
            call.fired.fetch_add(1, Relaxed);
        };
        Waiter::new(key, WaiterKind::Call(Box::new(fired)))
    }
}

/// As `Engine::fire`, for the kinds of waiters that are used here.
fn fire(mut list: Option<Box<Waiter>>) {
    while let Some(mut waiter) = list {
        list = waiter.take_next();
        match waiter.kind {
            WaiterKind::Call(f) => f(),
            WaiterKind::Latch(latch) => latch.hit(false),
            _ => unreachable!(),
        }
    }
}

/// An executor and a canceller both want a queued call while somebody enters a waiter: one of the two runs it, and the
/// waiter fires once, or its caller is told that the call had ended and may read the outcome.
///
/// Planted and caught: `claim` as a load and a store (both claim); `add_waiter` that sets `HAS_WAITERS` after it looked at
/// the phase, or not at all (never fires); `finish` or `state` with `Relaxed` (the outcome is read
/// unordered); `finish` that looks at the flag before it moves the phase.
#[test]
fn a_waiter_fires_or_is_told_that_the_call_ended() {
    model(|| {
        let call = Call::new(Phase::Queued);
        let executor = {
            let call = Arc::clone(&call);
            thread::spawn(move || {
                if call.progress.claim() {
                    call.run(1, Phase::Done);
                }
            })
        };
        let canceller = {
            let call = Arc::clone(&call);
            thread::spawn(move || {
                if call.progress.claim() {
                    call.run(2, Phase::Failed);
                } else {
                    call.progress.set_flag(CANCEL);
                }
            })
        };
        if finished(call.progress.state()) {
            assert_ne!(call.read(), 0);
        }
        let entered = call.progress.add_waiter(call.waiter(7)).is_ok();
        if !entered {
            assert_ne!(call.read(), 0);
        }
        executor.join().unwrap();
        canceller.join().unwrap();
        assert_eq!(call.claims.load(Relaxed), 1);
        assert_eq!(call.fired.load(Relaxed), usize::from(entered));
        let end = if call.read() == 1 {
            Phase::Done
        } else {
            Phase::Failed
        };
        assert_eq!(phase(call.progress.state()), end);
    });
}

/// Two wait and one of them gives up while the call ends: who gave up in time never fires, the other always does, and
/// no entry is given out twice.
///
/// Planted and caught: `take_waiters` without the lock (loom: unordered accesses to the list); `remove_waiter` that
/// leaves the entry in the list (freed twice).
#[test]
fn a_waiter_that_gives_up_fires_or_comes_back() {
    model(|| {
        let call = Call::new(Phase::Queued);
        assert!(call.progress.claim());
        let runner = {
            let call = Arc::clone(&call);
            thread::spawn(move || call.run(1, Phase::Done))
        };
        let stays = {
            let call = Arc::clone(&call);
            thread::spawn(move || call.progress.add_waiter(call.waiter(1)).is_ok())
        };
        let entered = call.progress.add_waiter(call.waiter(2)).is_ok();
        let back = call.progress.remove_waiter(2);
        assert!(back.is_none() || entered);
        let stays = stays.join().unwrap();
        runner.join().unwrap();
        let fires = usize::from(stays) + usize::from(entered && back.is_none());
        assert_eq!(call.fired.load(Relaxed), fires);
        assert!(call.progress.remove_waiter(1).is_none(), "it fired");
    });
}

/// A call that waits for an argument is readied by one thread, which runs it, and cancelled by another: one ends it.
///
/// Planted and caught: `claim_waiting` that also takes a queued call by adding 2 to its word (runs in the phase of an
/// ended call).
#[test]
fn a_waiting_call_is_readied_or_cancelled() {
    model(|| {
        let call = Call::new(Phase::Waiting);
        let input = {
            let call = Arc::clone(&call);
            thread::spawn(move || {
                if call.progress.make_ready() && call.progress.claim() {
                    call.run(1, Phase::Done);
                }
            })
        };
        if call.progress.claim_waiting() || call.progress.claim() {
            call.run(2, Phase::Failed);
        }
        input.join().unwrap();
        assert_eq!(call.claims.load(Relaxed), 1);
        assert_ne!(call.read(), 0);
    });
}

/// An attempt that failed puts the call back: the next one, on another thread, sees what the first left.
///
/// Planted and caught: `unclaim` with `Relaxed`; `claim` with `Relaxed` (either: the second attempt is unordered).
#[test]
fn the_next_attempt_sees_the_one_before() {
    model(|| {
        let call = Call::new(Phase::Queued);
        let attempt = |call: &Call| {
            if call.progress.claim() {
                // SAFETY: claimed.
                let n = call.outcome.with_mut(|o| unsafe {
                    *o += 1;
                    *o
                });
                if n == 1 {
                    call.progress.unclaim()
                } else {
                    fire(call.progress.finish(Phase::Done))
                }
            }
        };
        let other = {
            let call = Arc::clone(&call);
            thread::spawn(move || {
                attempt(&call);
                attempt(&call);
            })
        };
        attempt(&call);
        other.join().unwrap();
        attempt(&call);
        attempt(&call);
        assert_eq!(call.read(), 2);
    });
}

/// A thread of its own waits for a latch that these threads hit, which loom wants: it takes a late `unpark` of a thread that
/// is blocked by something else for that something.
fn wait_for(
    fail_fast: bool,
    hits: impl FnOnce(&Arc<Latch>) -> Vec<thread::JoinHandle<()>> + 'static,
    then: impl FnOnce() + 'static,
) -> Arc<Latch> {
    let waiting = thread::spawn(move || {
        let latch = Latch::new(2, fail_fast);
        let threads = hits(&latch);
        while !latch.is_open() {
            thread::park();
        }
        then();
        (latch, threads)
    });
    let (latch, threads) = waiting.join().unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    latch
}

/// A thread waits for two calls at once while they end: it is let go when both have.
///
/// Planted and caught: `hit` that opens at the first (too early); `unpark` before `open` is set, or never (sleeps for
/// ever); `open` stored with `Relaxed` (what the calls did is read unordered).
#[test]
fn a_latch_opens_after_the_last() {
    model(|| {
        let call = Call::new(Phase::Running);
        let looks = Arc::clone(&call);
        let look = move |call: &Call| {
            assert_eq!(call.claims.load(Relaxed), 2);
            // SAFETY: nobody writes it any more; loom checks it.
            assert_eq!(call.outcome.with(|o| unsafe { *o }), 1);
        };
        let latch = wait_for(
            false,
            move |latch| {
                let hit = |n| {
                    let (latch, call) = (Arc::clone(latch), Arc::clone(&call));
                    thread::spawn(move || {
                        if n == 0 {
                            // SAFETY: this thread's alone until the latch opens; loom checks it.
                            call.outcome.with_mut(|o| unsafe { *o = 1 });
                        }
                        call.claims.fetch_add(1, Relaxed);
                        latch.hit(false);
                    })
                };
                // In loom nothing comes between opening and unparking, which would order what follows by itself.
                let polls = {
                    let (latch, call) = (Arc::clone(latch), Arc::clone(&call));
                    thread::spawn(move || {
                        if latch.is_open() {
                            look(&call);
                        }
                    })
                };
                vec![hit(0), hit(1), polls]
            },
            move || look(&looks),
        );
        latch.hit(false); // one more than it waited for does no harm
        assert!(latch.is_open());
    });
}

/// A latch that was told to open at the first failure does so, whichever call ends first.
///
/// Planted and caught: a `hit` that opens at the last only if that did not fail.
#[test]
fn a_latch_opens_at_the_first_failure() {
    model(|| {
        let hits = |latch: &Arc<Latch>| {
            let hit = |failed| {
                let latch = Arc::clone(latch);
                thread::spawn(move || latch.hit(failed))
            };
            vec![hit(true), hit(false)]
        };
        wait_for(true, hits, || {});
    });
}

/// And does not wait for the others.
///
/// Planted and caught: a failure that counts like any other end (sleeps for ever).
#[test]
fn a_latch_opens_at_a_failure_though_another_call_never_ends() {
    model(|| {
        let hits = |latch: &Arc<Latch>| {
            let latch = Arc::clone(latch);
            vec![thread::spawn(move || latch.hit(true))]
        };
        wait_for(true, hits, || {});
    });
}

/// `Engine::sleep_for` over two calls that end meanwhile: entered or told, the latch opens, and no entry is left.
///
/// Planted and caught: a refused waiter that is not counted as a hit (sleeps for ever).
#[test]
fn a_latch_in_the_lists_of_two_calls_opens() {
    model(|| {
        let calls = [Call::new(Phase::Queued), Call::new(Phase::Queued)];
        let enter = calls.clone();
        wait_for(
            false,
            move |latch| {
                let threads = enter.clone().map(|call| {
                    thread::spawn(move || {
                        assert!(call.progress.claim());
                        call.run(1, Phase::Done);
                    })
                });
                for call in &enter {
                    let waiter = Waiter::new(1, WaiterKind::Latch(Arc::clone(latch)));
                    if call.progress.add_waiter(waiter).is_err() {
                        latch.hit(false);
                    }
                }
                threads.into()
            },
            || {},
        );
        for call in &calls {
            assert_eq!(call.read(), 1);
            assert!(call.progress.remove_waiter(1).is_none());
        }
    });
}
