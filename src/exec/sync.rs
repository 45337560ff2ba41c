//! The primitives under the lock-free parts ([`phase`](super::phase), [`mail`](super::mail), [`waiter`](super::waiter)):
//! the real ones, or loom's models of them under `cfg(loom)`, with which `loom_tests` tries every order of events.
//!
//! Invariant: in a real build each item is the standard library's or `parking_lot`'s, with nothing added.
//! Left out: everything that holds no lock-free protocol; the other modules use the real primitives always.

#[cfg(not(loom))]
pub use real::*;

#[cfg(loom)]
pub use model::*;

#[cfg(not(loom))]
mod real {
    use parking_lot::lock_api::RawMutex as _;

    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize};
    pub use std::thread::{Thread, current};

    /// A cell whose users see to it themselves that nobody else is at it.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[inline(always)]
        pub const fn new(value: T) -> UnsafeCell<T> {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }

        /// A look inside, through a pointer that must not leave `f`.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// A change, through a pointer that must not leave `f`.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// A lock of one byte, around data that lies elsewhere.
    pub struct Lock(parking_lot::RawMutex);

    /// See [`Lock::hold`].
    pub struct Held<'a>(&'a Lock);

    impl Lock {
        #[inline(always)]
        pub const fn new() -> Lock {
            Lock(parking_lot::RawMutex::INIT)
        }

        /// Takes the lock until the guard goes.
        #[inline(always)]
        pub fn hold(&self) -> Held<'_> {
            self.0.lock();
            Held(self)
        }
    }

    impl Drop for Held<'_> {
        #[inline(always)]
        fn drop(&mut self) {
            // SAFETY: `hold` locked it, and the guard is the only one to unlock.
            unsafe { self.0.0.unlock() };
        }
    }
}

#[cfg(loom)]
mod model {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize};
    pub use loom::thread::{Thread, current};

    /// As the real one.
    pub struct Lock(loom::sync::Mutex<()>);

    impl Lock {
        pub fn new() -> Lock {
            Lock(loom::sync::Mutex::new(()))
        }

        pub fn hold(&self) -> loom::sync::MutexGuard<'_, ()> {
            self.0.lock().expect("a model that panicked is over")
        }
    }
}
