//! Where a call stands, who may move it, and who waits for its end: the lock-free heart of a record.
//!
//! ```text
//! Waiting --make_ready--> Queued --claim--> Running --finish--> Done | Failed
//!    \______claim_waiting______________________/ \__unclaim__> Queued
//! ```
//! One word holds the phase and a few flags. Only the phase's holder moves it: whoever readied it, then whoever claimed
//! it. Waiters stand in a list under a small lock, and a flag in the word tells the finisher whether to look at it.
//!
//! Invariant: exactly one thread holds the claim of a running call. The list changes only under `lock`, and after a
//! waiter was added it is given out by `finish` or `remove_waiter`, once: a waiter is added either before the word says
//! that the call ended, and then the finisher sees `HAS_WAITERS` and takes the list, or not at all.
//! Left out: the outcome, which the claimer writes into the record before `finish`; firing waiters (`engine`).

use std::sync::atomic::Ordering;

use super::sync::{AtomicU32, Lock, UnsafeCell};
use super::waiter::Waiter;

/// Where a call stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Some argument, or a resource, is not there yet.
    Waiting = 0,
    /// Ready to run, claimed by nobody.
    Queued = 1,
    /// Claimed.
    Running = 2,
    /// The value is there.
    Done = 3,
    /// The error is there.
    Failed = 4,
}

const PHASE: u32 = 7;
/// Somebody is in the list of waiters.
const HAS_WAITERS: u32 = 8;
/// Cancellation was asked for while it ran.
pub const CANCEL: u32 = 16;
/// Somebody has seen the error.
pub const OBSERVED: u32 = 32;
/// Its bytes came from another node: they are to be checked before a typed read.
pub const FOREIGN: u32 = 64;
/// They were.
pub const CHECKED: u32 = 128;

/// The phase inside a state word.
#[inline(always)]
pub fn phase(state: u32) -> Phase {
    match state & PHASE {
        0 => Phase::Waiting,
        1 => Phase::Queued,
        2 => Phase::Running,
        3 => Phase::Done,
        _ => Phase::Failed,
    }
}

/// Whether a state word says that the call ended.
#[inline(always)]
pub fn finished(state: u32) -> bool {
    state & PHASE >= Phase::Done as u32
}

/// The state word and the waiters.
#[repr(C)]
pub struct Progress {
    /// Newest first; boxes leaked by `add_waiter`.
    waiters: UnsafeCell<*mut Waiter>,
    state: AtomicU32,
    lock: Lock,
}

impl Progress {
    /// A call that begins in this phase, with nobody waiting.
    #[inline(always)]
    pub fn new(phase: Phase) -> Progress {
        Progress {
            waiters: UnsafeCell::new(std::ptr::null_mut()),
            state: AtomicU32::new(phase as u32),
            lock: Lock::new(),
        }
    }

    /// The state word.
    #[inline(always)]
    pub fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire)
    }

    /// Sets flags; returns the word before.
    #[inline]
    pub fn set_flag(&self, flag: u32) -> u32 {
        self.state.fetch_or(flag, Ordering::AcqRel)
    }

    /// One phase to another, if it is in that one.
    #[inline(always)]
    fn advance(&self, from: Phase, to: Phase, order: Ordering) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & PHASE == from as u32 {
            let next = s + (to as u32 - from as u32);
            match self
                .state
                .compare_exchange_weak(s, next, order, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    /// Takes the right to run it. The claimer sees what was written before the call became ready, and by the claimer of
    /// an attempt before this one.
    #[inline]
    pub fn claim(&self) -> bool {
        self.advance(Phase::Queued, Phase::Running, Ordering::Acquire)
    }

    /// Takes the right to end it although an argument is missing (cancellation).
    pub fn claim_waiting(&self) -> bool {
        self.advance(Phase::Waiting, Phase::Running, Ordering::Acquire)
    }

    /// `Waiting` to `Queued`; false if it was cancelled meanwhile. Releases: the claimer sees what this thread had seen of
    /// the call's inputs.
    #[inline]
    pub fn make_ready(&self) -> bool {
        self.advance(Phase::Waiting, Phase::Queued, Ordering::AcqRel)
    }

    /// `Running` back to `Queued`, for another attempt. The caller holds the claim.
    pub fn unclaim(&self) {
        let old = self.state.fetch_sub(1, Ordering::Release);
        debug_assert_eq!(old & PHASE, Phase::Running as u32);
    }

    /// `Running` back to `Waiting`: whoever claimed it does not run it after all. The caller holds the claim.
    pub fn wait_again(&self) {
        let old = self.state.fetch_sub(2, Ordering::Release);
        debug_assert_eq!(old & PHASE, Phase::Running as u32);
    }

    /// Ends the call: the outcome, set before, becomes visible. Returns the waiters, newest first. The caller holds the
    /// claim, and gives it up.
    #[inline]
    pub fn finish(&self, phase: Phase) -> Option<Box<Waiter>> {
        let old = self
            .state
            .fetch_add(phase as u32 - Phase::Running as u32, Ordering::AcqRel);
        debug_assert_eq!(old & PHASE, Phase::Running as u32);
        if old & HAS_WAITERS == 0 {
            return None;
        }
        self.take_waiters()
    }

    fn take_waiters(&self) -> Option<Box<Waiter>> {
        let _held = self.lock.hold();
        // SAFETY: under the lock.
        let list = self
            .waiters
            .with_mut(|w| unsafe { std::mem::replace(&mut *w, std::ptr::null_mut()) });
        // SAFETY: the list's boxes were leaked into it by `add_waiter`; null is an empty list.
        (!list.is_null()).then(|| unsafe { Box::from_raw(list) })
    }

    /// Adds a waiter, unless the call has ended: then it comes back.
    pub fn add_waiter(&self, mut waiter: Box<Waiter>) -> Result<(), Box<Waiter>> {
        let _held = self.lock.hold();
        // The finisher either set its phase before this, which is seen here, or sees the flag, and then waits for the
        // lock before it takes the list.
        if finished(self.state.fetch_or(HAS_WAITERS, Ordering::AcqRel)) {
            return Err(waiter);
        }
        // SAFETY: under the lock.
        self.waiters.with_mut(|w| unsafe {
            waiter.next = *w;
            *w = Box::into_raw(waiter);
        });
        Ok(())
    }

    /// Takes the waiter with this key out again; nothing if it has fired.
    pub fn remove_waiter(&self, key: usize) -> Option<Box<Waiter>> {
        let _held = self.lock.hold();
        // SAFETY: under the lock; links are boxes leaked by `add_waiter`.
        self.waiters.with_mut(|first| unsafe {
            let mut link: *mut *mut Waiter = first;
            while !(*link).is_null() {
                if (**link).key == key {
                    let mut waiter = Box::from_raw(*link);
                    *link = std::mem::replace(&mut waiter.next, std::ptr::null_mut());
                    return Some(waiter);
                }
                link = &raw mut (**link).next;
            }
            None
        })
    }
}

// SAFETY: the list is touched only under the lock, and waiters are Send.
unsafe impl Sync for Progress {}
// SAFETY: as above.
unsafe impl Send for Progress {}
