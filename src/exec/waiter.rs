//! Who wants to know that a call ended.
//!
//! Invariant: a waiter fires at most once, after the outcome is visible. Left out: what firing a dependant means;
//! the engine readies it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::cell::RawRef;
use super::sync::{self, AtomicBool, AtomicUsize};

/// One entry of a record's list.
pub struct Waiter {
    pub(super) next: *mut Waiter,
    /// By which it is found again.
    pub(super) key: usize,
    pub kind: WaiterKind,
}

/// What to do when the call ends.
pub enum WaiterKind {
    /// Unpark this thread.
    Thread(std::thread::Thread),
    /// Wake this future.
    Waker(Waker),
    /// Count down this call's missing arguments.
    Dependent(RawRef),
    /// Count down this gate.
    Latch(Arc<Latch>),
    /// Run this.
    Call(Box<dyn FnOnce() + Send>),
}

impl Waiter {
    /// A waiter, not yet in any list.
    pub fn new(key: usize, kind: WaiterKind) -> Box<Waiter> {
        Box::new(Waiter {
            next: std::ptr::null_mut(),
            key,
            kind,
        })
    }

    /// The rest of a list that was taken from its record.
    pub(super) fn take_next(&mut self) -> Option<Box<Waiter>> {
        let next = std::mem::replace(&mut self.next, std::ptr::null_mut());
        // SAFETY: links are boxes leaked by `Record::add_waiter`, and the list is the caller's.
        (!next.is_null()).then(|| unsafe { Box::from_raw(next) })
    }
}

/// Waits for many calls at once: opens when enough have ended, or at the first failure if so asked.
#[derive(Debug)]
pub struct Latch {
    missing: AtomicUsize,
    fail_fast: bool,
    open: AtomicBool,
    thread: sync::Thread,
}

impl Latch {
    /// Opens after `missing` calls ended.
    pub fn new(missing: usize, fail_fast: bool) -> Arc<Latch> {
        Arc::new(Latch {
            missing: AtomicUsize::new(missing),
            fail_fast,
            open: AtomicBool::new(missing == 0),
            thread: sync::current(),
        })
    }

    /// One call ended.
    pub fn hit(&self, failed: bool) {
        let last = self
            .missing
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |m| m.checked_sub(1));
        if last == Ok(1) || (failed && self.fail_fast) {
            self.open.store(true, Ordering::Release);
            self.thread.unpark();
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}
