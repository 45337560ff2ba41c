//! The atomic under an object's state word: the real one, or loom's model of it under `cfg(loom)`.
//!
//! Invariant: in a real build it is the standard library's. Left out: everything that holds no
//! lock-free protocol; the other files use the real primitives always.

#[cfg(loom)]
pub use loom::sync::atomic::AtomicU32;
#[cfg(not(loom))]
pub use std::sync::atomic::AtomicU32;
