//! Memory for call records: blocks of a few sizes, recycled through per-thread magazines.
//!
//! A record is made by one thread and often freed by another; the general allocator pays for that at every free. Here
//! a thread frees into its own magazine and whole magazines change hands, so that the common case is a pointer pop.
//!
//! Invariant: a block is in one magazine or in use, never both; what lies idle beyond [`KEEP_BYTES`] a size
//! goes back to the general allocator. Left out: anything above [`LARGEST`] bytes, which goes there directly.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

use parking_lot::Mutex;

/// Every block is aligned so that archives inside are.
pub const ALIGN: usize = 64;
/// The sizes that are recycled.
const SIZES: [usize; 6] = [128, 192, 256, 384, 512, 768];
/// The largest of them.
pub const LARGEST: usize = SIZES[SIZES.len() - 1];
/// Blocks a magazine holds.
const ROUNDS: usize = 64;
/// Idle memory kept per size: what a burst of 64 k small calls leaves behind.
const KEEP_BYTES: usize = 8 << 20;

/// Full magazines kept of a size.
const fn keep(class: usize) -> usize {
    KEEP_BYTES / (SIZES[class] * ROUNDS)
}

struct Blocks(Vec<NonNull<u8>>);
// SAFETY: the blocks are free memory that nobody refers to; owning the list is owning them.
unsafe impl Send for Blocks {}

static DEPOT: [Mutex<Vec<Blocks>>; SIZES.len()] = [const { Mutex::new(Vec::new()) }; SIZES.len()];

struct Magazines([Vec<NonNull<u8>>; SIZES.len()]);

impl Drop for Magazines {
    fn drop(&mut self) {
        for (class, blocks) in self.0.iter_mut().enumerate() {
            deposit(class, Blocks(std::mem::take(blocks)));
        }
    }
}

thread_local! {
    static MAGAZINES: UnsafeCell<Magazines> =
        const { UnsafeCell::new(Magazines([const { Vec::new() }; SIZES.len()])) };
}

#[inline(always)]
fn class_of(size: usize) -> usize {
    match size {
        0..=128 => 0,
        129..=192 => 1,
        193..=256 => 2,
        257..=384 => 3,
        385..=512 => 4,
        _ => 5,
    }
}

/// The size of the block that a request for `size` bytes gets.
#[inline(always)]
pub fn rounded(size: usize) -> usize {
    if size > LARGEST {
        size.next_multiple_of(ALIGN)
    } else {
        SIZES[class_of(size)]
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(rounded(size), ALIGN).expect("record sizes are far below isize::MAX")
}

/// A block of at least `size` bytes, uninitialised.
#[inline]
pub fn take(size: usize) -> NonNull<u8> {
    if size <= LARGEST {
        let class = class_of(size);
        let popped = MAGAZINES.try_with(|m| {
            // SAFETY: the magazines are this thread's, and nothing below calls back into this module.
            unsafe { (&mut (*m.get()).0)[class].pop() }
        });
        if let Ok(Some(block)) = popped {
            return block;
        }
    }
    take_slowly(size)
}

#[cold]
#[inline(never)]
fn take_slowly(size: usize) -> NonNull<u8> {
    if size <= LARGEST {
        let class = class_of(size);
        let full = DEPOT[class].lock().pop();
        if let Some(Blocks(mut blocks)) = full {
            let block = blocks.pop();
            let _ = MAGAZINES.try_with(|m| {
                // SAFETY: as in `take`; the replaced magazine is empty, since `take` found nothing in it.
                unsafe { std::mem::swap(&mut (&mut (*m.get()).0)[class], &mut blocks) }
            });
            if !blocks.is_empty() {
                deposit(class, Blocks(blocks));
            }
            if let Some(block) = block {
                return block;
            }
        }
    }
    let layout = layout(size);
    // SAFETY: the layout's size is not zero.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives a block back.
///
/// # Safety
/// `block` came from [`take`] with a size of the same [`rounded`] value and is not used again.
#[inline]
pub unsafe fn give(block: NonNull<u8>, size: usize) {
    if size <= LARGEST {
        let class = class_of(size);
        let full = MAGAZINES.try_with(|m| {
            // SAFETY: as in `take`.
            let magazine = unsafe { &mut (&mut (*m.get()).0)[class] };
            if magazine.len() < ROUNDS {
                magazine.push(block);
                return None;
            }
            let mut fresh = Vec::with_capacity(ROUNDS);
            fresh.push(block);
            Some(std::mem::replace(magazine, fresh))
        });
        match full {
            Ok(None) => {}
            Ok(Some(blocks)) => deposit(class, Blocks(blocks)),
            Err(_) => deposit(class, Blocks(vec![block])),
        }
        return;
    }
    // SAFETY: the caller's promise; large blocks come straight from the allocator.
    unsafe { dealloc(block.as_ptr(), layout(size)) }
}

#[cold]
#[inline(never)]
fn deposit(class: usize, blocks: Blocks) {
    if blocks.0.is_empty() {
        return;
    }
    let mut depot = DEPOT[class].lock();
    if depot.len() < keep(class) {
        depot.push(blocks);
        return;
    }
    drop(depot);
    let layout = layout(SIZES[class]);
    for block in blocks.0 {
        // SAFETY: blocks in magazines are free and came from the allocator with this layout.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
}

/// Blocks that lie idle in the depot, for the leak test.
#[cfg(test)]
fn idle(class: usize) -> usize {
    DEPOT[class].lock().iter().map(|b| b.0.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_distinct_and_reused() {
        let mut seen = std::collections::HashSet::new();
        let blocks: Vec<_> = (0..1000).map(|i| (take(100 + i), 100 + i)).collect();
        for (b, size) in &blocks {
            assert!(b.as_ptr().addr().is_multiple_of(ALIGN));
            assert!(seen.insert(b.as_ptr().addr()));
            // SAFETY: the block has `size` bytes and is ours.
            unsafe { b.as_ptr().write_bytes(0xab, *size) };
        }
        for (b, size) in blocks {
            // SAFETY: taken above with this size.
            unsafe { give(b, size) };
        }
        assert!(seen.contains(&take(128).as_ptr().addr()) || idle(0) > 0);
    }

    #[test]
    fn idle_blocks_are_bounded_when_one_thread_makes_and_another_frees() {
        struct Ship(Vec<NonNull<u8>>);
        // SAFETY: plain memory handed over.
        unsafe impl Send for Ship {}
        let (tx, rx) = std::sync::mpsc::channel::<Ship>();
        let freer = std::thread::spawn(move || {
            for ship in rx {
                for b in ship.0 {
                    // SAFETY: taken with this size by the other thread and handed over.
                    unsafe { give(b, 700) };
                }
            }
        });
        for _ in 0..100 {
            tx.send(Ship((0..5000).map(|_| take(700)).collect()))
                .unwrap();
        }
        drop(tx);
        freer.join().unwrap();
        assert!(idle(5) <= keep(5) * (ROUNDS + 1), "{} idle", idle(5));
    }
}
