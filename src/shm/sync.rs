//! The primitives under the rings: the real ones, or loom's models of them under `cfg(loom)`.
//!
//! Invariant: in a real build each item is the standard library's or the kernel's, with nothing added. Left out:
//! everything of this room that holds no lock-free protocol.

#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
pub use model::*;

#[cfg(not(loom))]
mod real {
    use std::time::Duration;

    use rustix::thread::futex;
    pub use std::sync::atomic::{AtomicU32, fence};

    /// Sleeps while the word is `seen`, until it is woken, for at most `limit`, or for no reason.
    pub fn futex_wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
        let limit = limit.map(|limit| rustix::thread::Timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        // Not private: the other side is another process.
        let _ = futex::wait(word, futex::Flags::empty(), seen, limit.as_ref());
    }

    /// Wakes everybody who sleeps on the word.
    pub fn futex_wake(word: &AtomicU32) {
        let _ = futex::wake(word, futex::Flags::empty(), i32::MAX.cast_unsigned());
    }
}

#[cfg(loom)]
mod model {
    use std::time::Duration;

    pub use loom::sync::atomic::{AtomicU32, fence};

    loom::lazy_static! {
        static ref SLEEPERS: (loom::sync::Mutex<()>, loom::sync::Condvar) =
            (loom::sync::Mutex::new(()), loom::sync::Condvar::new());
    }

    pub fn futex_wait(word: &AtomicU32, seen: u32, _: Option<Duration>) {
        let guard = SLEEPERS.0.lock().expect("a model that panicked is over");
        // The kernel compares under its lock, which wakers take too.
        if word.load(std::sync::atomic::Ordering::SeqCst) == seen {
            drop(SLEEPERS.1.wait(guard));
        }
    }

    pub fn futex_wake(_: &AtomicU32) {
        let _guard = SLEEPERS.0.lock().expect("a model that panicked is over");
        SLEEPERS.1.notify_all();
    }
}
