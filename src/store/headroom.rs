//! How much memory the machine has left, so that the store never takes what is not there.
//!
//! The arena's file has its length from the start, but its pages come when they are first written;
//! a page that does not come is a SIGBUS or a visit of the kernel's killer. So the arena may use
//! new pages only as far as a limit, which is raised in steps while the machine, and the control
//! group of the process, have as much left and a margin. What was used once stays the store's.
//!
//! Invariant: the limit is raised only after a look at what is left, one thread at a time. Left out:
//! memory that others take between the look and the write, which the margin is for; reserved huge
//! pages, which are no part of what is counted here.

use std::io;
use std::os::fd::BorrowedFd;

use parking_lot::Mutex;

use crate::shm::{MemoryLeft, memory_left};

/// The limit is raised by at least this.
const STEP: u64 = 64 << 20;

/// How the memory is read.
pub type Meter = Box<dyn Fn() -> Option<MemoryLeft> + Send + Sync>;

/// Raises the limit.
pub struct Headroom {
    meter: Meter,
    /// What was left when more was refused.
    refused: Mutex<Option<u64>>,
}

/// What has to be true of an arena to raise its limit.
pub trait Limited {
    /// Bytes from the start that may be used.
    fn limit(&self) -> u64;
    /// Bytes from the start that it could ever use.
    fn capacity(&self) -> u64;
    /// Bytes of memory behind it now.
    fn backed(&self) -> u64;
    /// Changes the limit.
    fn set_limit(&self, bytes: u64);
}

impl Headroom {
    /// Reads this machine's memory.
    pub fn new() -> Headroom {
        Headroom::with(Box::new(memory_left))
    }

    /// Reads it by `meter`.
    pub fn with(meter: Meter) -> Headroom {
        Headroom {
            meter,
            refused: Mutex::new(None),
        }
    }

    /// Raises the limit to `wanted`, if the memory is there; better by a whole step. Reads a few small
    /// files.
    pub fn raise(&self, arena: &impl Limited, wanted: u64) -> bool {
        let mut refused = self.refused.lock();
        let limit = arena.limit();
        if limit >= wanted {
            return true;
        }
        let Some(reading) = (self.meter)() else {
            // Nothing can be told about this machine.
            arena.set_limit(arena.capacity());
            return true;
        };
        let free = reading.left.saturating_sub(margin(reading.total));
        let backed = arena.backed();
        let fits = |to: u64| to.saturating_sub(backed) <= free;
        let step = limit.saturating_add(STEP).min(arena.capacity());
        let to = [step.max(wanted), wanted].into_iter().find(|to| fits(*to));
        match to {
            Some(to) => {
                arena.set_limit(to);
                *refused = None;
                true
            }
            None => {
                *refused = Some(free);
                false
            }
        }
    }

    /// What was left when more was refused last, if it was not granted since.
    pub fn refused(&self) -> Option<u64> {
        *self.refused.lock()
    }
}

/// What must stay for others.
fn margin(total: u64) -> u64 {
    (total / 50).clamp(16 << 20, 512 << 20)
}

/// Bytes of memory behind a file in memory.
pub fn backed(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_blocks as u64 * 512)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    struct Fake {
        limit: Cell<u64>,
        backed: Cell<u64>,
    }

    impl Limited for Fake {
        fn limit(&self) -> u64 {
            self.limit.get()
        }
        fn capacity(&self) -> u64 {
            8 << 30
        }
        fn backed(&self) -> u64 {
            self.backed.get()
        }
        fn set_limit(&self, bytes: u64) {
            self.limit.set(bytes);
        }
    }

    #[test]
    fn raises_in_steps_while_memory_is_left() {
        let left = Arc::new(AtomicU64::new(200 << 20));
        let meter = Arc::clone(&left);
        let headroom = Headroom::with(Box::new(move || {
            Some(MemoryLeft {
                left: meter.load(Relaxed),
                total: 1 << 30,
            })
        }));
        let arena = Fake {
            limit: Cell::new(0),
            backed: Cell::new(0),
        };
        assert!(headroom.raise(&arena, 1 << 20));
        assert_eq!(arena.limit(), STEP, "a whole step");
        assert!(headroom.raise(&arena, 100 << 20));
        assert_eq!(arena.limit(), 128 << 20);
        assert!(!headroom.raise(&arena, 190 << 20), "the margin stays");
        let free = (200 << 20) - margin(1 << 30);
        assert_eq!(headroom.refused(), Some(free));
        assert!(headroom.raise(&arena, 170 << 20), "less than a step");
        assert_eq!((arena.limit(), headroom.refused()), (170 << 20, None));
        // What is backed by memory is no longer among what is left.
        arena.backed.set(170 << 20);
        left.store(80 << 20, Relaxed);
        assert!(headroom.raise(&arena, 200 << 20));
        assert!(!headroom.raise(&arena, 300 << 20));
    }

    #[test]
    fn a_machine_that_tells_nothing_sets_no_bounds() {
        let headroom = Headroom::with(Box::new(|| None));
        let arena = Fake {
            limit: Cell::new(0),
            backed: Cell::new(0),
        };
        assert!(headroom.raise(&arena, 1));
        assert_eq!(arena.limit(), 8 << 30);
    }
}
