//! Very many actors: their memory comes back. Alone in its binary, since it measures the whole program's.

#[path = "common/actors.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use common::{runtime, until, within};
use mobula::prelude::*;

/// Counts the bytes in use, so that what is not given back is seen.
struct Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static BORN: AtomicU64 = AtomicU64::new(0);
static BURIED: AtomicU64 = AtomicU64::new(0);

/// One of very many.
struct Ant {
    steps: u64,
}

#[remote]
impl Ant {
    pub fn new(steps: u64) -> Self {
        BORN.fetch_add(1, Ordering::Relaxed);
        Ant { steps }
    }

    pub fn step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }
}

impl Drop for Ant {
    fn drop(&mut self) {
        BURIED.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_hundred_thousand_actors_come_and_go() {
    runtime();
    within(40, || {
        let round = |n: u64| {
            let before = BURIED.load(Ordering::Relaxed);
            let ants: Vec<_> = (0..n).map(Ant::remote).collect();
            let steps: Vec<_> = ants.iter().map(|ant| ant.step()).collect();
            let idle = BYTES.load(Ordering::Relaxed);
            let sum: u64 = mobula::get(&steps).unwrap().iter().sum();
            assert_eq!(sum, n * (n + 1) / 2);
            drop((steps, ants));
            until("all ends", || BURIED.load(Ordering::Relaxed) == before + n);
            idle
        };
        // What a burst leaves behind for the next one is kept, up to a bound.
        let _ = round(100_000);
        let before = BYTES.load(Ordering::Relaxed);
        let during = round(100_000);
        assert!(during - before > 100_000 * 64, "the allocator counts");
        until("the memory", || {
            BYTES.load(Ordering::Relaxed) - before < 1 << 20
        });
        assert!(BORN.load(Ordering::Relaxed) == BURIED.load(Ordering::Relaxed));
    });
}
