//! Models of the hand-off from a submitter to an executor that goes to sleep: `crew`'s protocol, written out again, since
//! the real one is made of system calls and crossbeam's deques.
//!
//! Invariant: a queued job is seen by the executor, or the executor is woken. Left out: naps, which end by themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, fence};
use loom::thread;

use super::model;

const NOTHING: usize = 0;
const TO_WORK: usize = 2;

/// The executors' side of `crew`, with one executor.
struct Crew {
    /// The end of a submitter's deque.
    jobs: AtomicUsize,
    /// Sleepers, as `Crew::idlers` counts them.
    asleep: AtomicUsize,
    /// Who sleeps, and may be woken.
    bunk: Mutex<Option<thread::Thread>>,
    order: AtomicUsize,
}

impl Crew {
    /// As `push_task` and `Crew::notify`: a plain store, a plain load. The `membarrier` of whoever goes to sleep acts as if
    /// a fence stood between them.
    fn submit(&self, membarrier: bool) {
        self.jobs.store(self.jobs.load(Relaxed) + 1, Release);
        if membarrier {
            fence(SeqCst);
        }
        if self.asleep.load(Relaxed) != 0 {
            let mut bunk = self.bunk.lock().unwrap();
            if let Some(thread) = bunk.take() {
                self.asleep.fetch_sub(1, SeqCst);
                self.order.store(TO_WORK, Release);
                drop(bunk);
                thread.unpark();
            }
        }
    }

    /// As the sleeping part of `Engine::lie_down`: announce, barrier, look again, park. Ends when there is work.
    fn sleep(&self, membarrier: bool) {
        {
            let mut bunk = self.bunk.lock().unwrap();
            self.asleep.fetch_add(1, SeqCst);
            *bunk = Some(thread::current());
        }
        loop {
            if membarrier {
                fence(SeqCst);
            }
            if self.jobs.load(Acquire) > 0 && self.get_up() {
                return;
            }
            thread::park();
            if self.order.swap(NOTHING, Acquire) == TO_WORK {
                assert!(self.jobs.load(Acquire) > 0, "woken for work that is there");
                return;
            }
        }
    }

    fn get_up(&self) -> bool {
        let alone = self.bunk.lock().unwrap().take().is_some();
        if alone {
            self.asleep.fetch_sub(1, SeqCst);
        }
        alone
    }
}

fn hand_off(membarrier: bool) {
    model(move || {
        let crew = Arc::new(Crew {
            jobs: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            bunk: Mutex::new(None),
            order: AtomicUsize::new(NOTHING),
        });
        let executor = {
            let crew = Arc::clone(&crew);
            thread::spawn(move || crew.sleep(membarrier))
        };
        crew.submit(membarrier);
        executor.join().unwrap();
        assert_eq!(crew.asleep.load(Relaxed), 0);
    });
}

/// A job is submitted while the executor goes to sleep: it looks again and finds it, or it is woken.
///
/// Planted and caught: no second look after announcing; a sleeper that got up although it was woken counts itself out
/// twice; and see the next one.
#[test]
fn a_sleeper_sees_the_job_or_is_woken() {
    hand_off(true);
}

/// As above without the barrier: the store of the job and the load of the sleepers pass each other, and so do the
/// announcement and the look, and nobody wakes the executor.
#[test]
#[should_panic(expected = "deadlock")]
fn without_the_barrier_a_wake_up_is_lost() {
    hand_off(false);
}
