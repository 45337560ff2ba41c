//! One more thread for the learner: half of a pass while the learner does the other half.
//!
//! Invariant: a job that the thread has not begun is taken back and done by whoever gave it, so nobody waits for a thread that gets no
//! processor; which of them does it changes no result. Between jobs the thread spins for a moment, since a thread that sleeps takes
//! longer to wake than half a pass takes, and then sleeps. There is one in a process; who finds it busy does both halves. Left
//! out: more threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long the thread spins for the next job.
const PATIENCE: Duration = Duration::from_micros(150);

type Job = Box<dyn FnOnce() + Send>;

/// Where jobs are handed over.
#[derive(Default)]
struct Side {
    job: Mutex<Option<Job>>,
    /// Whether there is one, to be looked at without the lock.
    given: AtomicBool,
    asleep: AtomicBool,
}

impl Side {
    /// Hands a job over; gives it back if there is one already.
    fn give(&self, job: Job) -> Option<Job> {
        let mut slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_some() {
            return Some(job);
        }
        *slot = Some(job);
        self.given.store(true, Ordering::SeqCst);
        None
    }

    fn take(&self) -> Option<Job> {
        let mut slot = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        self.given.store(false, Ordering::SeqCst);
        slot.take()
    }

    fn serve(&self) {
        let mut idle = Instant::now();
        loop {
            if self.given.load(Ordering::Acquire) {
                if let Some(job) = self.take() {
                    job();
                }
                idle = Instant::now();
            } else if idle.elapsed() < PATIENCE {
                std::hint::spin_loop();
            } else {
                self.asleep.store(true, Ordering::SeqCst);
                // A job that was given meanwhile was given by somebody who may not have seen that it sleeps.
                if !self.given.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = Instant::now();
            }
        }
    }
}

/// The thread; none where it cannot be had, or where there is one processor.
fn helper() -> Option<&'static (Arc<Side>, Thread)> {
    static HELPER: OnceLock<Option<(Arc<Side>, Thread)>> = OnceLock::new();
    let start = || {
        thread::available_parallelism()
            .ok()
            .filter(|n| n.get() > 1)?;
        let side = Arc::new(Side::default());
        let its = side.clone();
        let thread = thread::Builder::new().name("mobula-learn".to_owned());
        let handle = thread.spawn(move || its.serve()).ok()?;
        Some((side, handle.thread().clone()))
    };
    HELPER.get_or_init(start).as_ref()
}

/// Does both, side by side if the thread is free. A panic of either is one here.
pub(super) fn join<B: Send + 'static>(
    here: impl FnOnce(),
    there: impl FnOnce() -> B + Send + 'static,
) -> B {
    let Some((side, thread)) = helper() else {
        here();
        return there();
    };
    let (done, result) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let job: Job = {
        let (done, result) = (done.clone(), result.clone());
        Box::new(move || {
            let given = catch_unwind(AssertUnwindSafe(there));
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
            done.store(true, Ordering::Release);
        })
    };
    let refused = side.give(job);
    if refused.is_none() && side.asleep.load(Ordering::SeqCst) {
        thread.unpark();
    }
    let here = catch_unwind(AssertUnwindSafe(here));
    // What was not begun is done here. It may be somebody else's by now: jobs are alike.
    if let Some(job) = refused.or_else(|| side.take()) {
        job();
    }
    let mut spins = 0u32;
    while !done.load(Ordering::Acquire) {
        spins += 1;
        match spins % 1024 {
            // The thread may wait for this very processor.
            0 => thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
    if let Err(panic) = here {
        resume_unwind(panic);
    }
    let given = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    match given.expect("it is there before it is said to be done") {
        Ok(given) => given,
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::wait::until;

    #[test]
    fn both_are_done_once_whoever_does_them() {
        // Several learners, which find the thread busy or asleep.
        let learners = (0..3).map(|learner| {
            thread::spawn(move || {
                for round in 0..400u64 {
                    let mut here = 0;
                    let there = join(|| here = round + 1, move || round * 2 + learner);
                    assert_eq!((here, there), (round + 1, round * 2 + learner));
                    if round % 100 == 0 {
                        // When nobody gives it anything; the others come here too, or end.
                        let (side, _) = helper().expect("there are two processors");
                        until("it sleeps", Duration::from_secs(20), || {
                            side.asleep.load(Ordering::SeqCst)
                        });
                    }
                }
            })
        });
        let learners: Vec<_> = learners.collect();
        learners
            .into_iter()
            .for_each(|l| l.join().expect("all was right"));
    }

    #[test]
    fn panics_come_back_and_the_thread_goes_on() {
        let panics = |here: bool| {
            let both = || join(|| assert!(!here, "here"), move || assert!(here, "there"));
            let panic = catch_unwind(both).expect_err("one of them panics");
            panic.downcast_ref::<&str>().map(|s| (*s).to_owned())
        };
        assert_eq!(panics(true).as_deref(), Some("here"));
        assert_eq!(panics(false).as_deref(), Some("there"));
        assert_eq!(join(|| {}, || 7), 7);
    }
}
