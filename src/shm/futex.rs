//! Sleeping on a word of shared memory, across processes.
//!
//! One side sleeps until the other has news for it. A sleeper says so before it looks for the last time, and whoever
//! brings news looks for a sleeper after it has brought them, so that one of the two sees the other. The wake-up itself
//! is a count, so that one that comes between the last look and the sleep is not lost.
//!
//! Invariant: news brought before [`Bell::ring`] are seen by a sleeper that is woken by it, or found them itself.
//! Left out: what the news are (`ring`).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::sync::{AtomicU32, fence, futex_wait, futex_wake};

/// Where one side of a ring sleeps. Lies in shared memory: plain words, any contents are valid.
#[repr(C)]
#[derive(Debug)]
pub struct Bell {
    /// Somebody sleeps, or is about to.
    waiting: AtomicU32,
    /// Counts wake-ups.
    rung: AtomicU32,
}

impl Bell {
    /// Nobody sleeps.
    #[cfg(all(test, loom))]
    pub fn new() -> Bell {
        Bell {
            waiting: AtomicU32::new(0),
            rung: AtomicU32::new(0),
        }
    }

    /// Wakes the sleeper, if there is one. The news come first, in memory order too. A few nanoseconds if nobody sleeps,
    /// a system call if somebody does.
    #[inline]
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.shake();
        }
    }

    /// Wakes whoever sleeps here, whether it said so or not: for news that do not come through the shared memory.
    #[cold]
    pub fn shake(&self) {
        self.waiting.store(0, Ordering::Relaxed);
        self.rung.fetch_add(1, Ordering::SeqCst);
        futex_wake(&self.rung);
    }

    /// Sleeps until `news` says that there are some, for at most `limit`; whether there are.
    pub fn wait(&self, limit: Option<Duration>, mut news: impl FnMut() -> bool) -> bool {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let rung = self.rung.load(Ordering::SeqCst);
            self.waiting.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if news() {
                self.waiting.store(0, Ordering::Relaxed);
                return true;
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.waiting.store(0, Ordering::Relaxed);
                return false;
            }
            futex_wait(&self.rung, rung, left);
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::shm::sync::AtomicU32 as Word;
    use loom::sync::Arc;

    /// Every order of events in which no thread is interrupted more than three times.
    fn model(f: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(f);
    }

    #[test]
    fn loom_no_news_are_slept_through() {
        model(|| {
            let shared = Arc::new((Word::new(0), Bell::new()));
            let sender = Arc::clone(&shared);
            let sends = loom::thread::spawn(move || {
                sender.0.store(1, Ordering::Release);
                sender.1.ring();
            });
            shared
                .1
                .wait(None, || shared.0.load(Ordering::Acquire) == 1);
            sends.join().unwrap();
        });
    }

    /// The end of the other side comes from a third thread and not through the shared memory.
    #[test]
    fn loom_the_end_is_not_slept_through() {
        model(|| {
            let shared = Arc::new((Word::new(0), Word::new(0), Bell::new()));
            let (sender, reaper) = (Arc::clone(&shared), Arc::clone(&shared));
            let sends = loom::thread::spawn(move || {
                sender.0.store(1, Ordering::Release);
                sender.2.ring();
            });
            let reaps = loom::thread::spawn(move || {
                reaper.1.store(1, Ordering::SeqCst);
                reaper.2.shake();
            });
            shared.2.wait(None, || shared.1.load(Ordering::SeqCst) == 1);
            sends.join().unwrap();
            reaps.join().unwrap();
        });
    }
}
