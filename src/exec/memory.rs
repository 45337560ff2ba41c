//! Memory for call records: blocks of a few sizes, recycled through per-thread magazines.
//!
//! A record is made by one thread and often freed by another; the general allocator pays for that at every free. Here
//! a thread frees into its own magazine and whole magazines change hands, so that the common case is a pointer pop. A
//! thread has two magazines a size, so that it visits the depot at most once in [`ROUNDS`] calls, whatever their order.
//!
//! Invariant: a block is in one magazine or in use, never both; what lies idle beyond [`KEEP`] bytes a size and the
//! threads' own magazines goes back to the general allocator. A thread that ends leaves its blocks to the depot; what is
//! freed after that, by destructors of its other thread-locals, goes to the general allocator.
//! Left out: anything above [`LARGEST`] bytes, which goes there directly.

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
/// Bytes that lie idle per size, for threads in need: what a burst of 64 k small calls leaves behind.
const KEEP: usize = 8 << 20;

struct Blocks(Vec<NonNull<u8>>);
// SAFETY: the blocks are free memory that nobody refers to; owning the list is owning them.
unsafe impl Send for Blocks {}

static DEPOT: [Mutex<Vec<Blocks>>; SIZES.len()] = [const { Mutex::new(Vec::new()) }; SIZES.len()];

/// One thread's blocks of one size. `previous` is full or empty.
struct Magazine {
    loaded: Vec<NonNull<u8>>,
    previous: Vec<NonNull<u8>>,
}

struct Magazines([Magazine; SIZES.len()]);

impl Drop for Magazines {
    fn drop(&mut self) {
        for (class, m) in self.0.iter_mut().enumerate() {
            deposit(class, Blocks(std::mem::take(&mut m.loaded)));
            deposit(class, Blocks(std::mem::take(&mut m.previous)));
        }
    }
}

thread_local! {
    static MAGAZINES: UnsafeCell<Magazines> = const {
        UnsafeCell::new(Magazines(
            [const { Magazine { loaded: Vec::new(), previous: Vec::new() } }; SIZES.len()],
        ))
    };
}

/// Runs `f` with this thread's blocks of one size, unless the thread is ending and has none any more.
#[inline(always)]
fn with_magazine<R>(class: usize, f: impl FnOnce(&mut Magazine) -> R) -> Option<R> {
    // SAFETY: the magazines are this thread's, and no `f` in this module comes back here: they move blocks and call the
    // allocator.
    MAGAZINES
        .try_with(|m| f(unsafe { &mut (&mut (*m.get()).0)[class] }))
        .ok()
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
    if size <= LARGEST
        && let Some(Some(block)) = with_magazine(class_of(size), |m| m.loaded.pop())
    {
        return block;
    }
    take_slowly(size)
}

#[cold]
#[inline(never)]
fn take_slowly(size: usize) -> NonNull<u8> {
    if size <= LARGEST {
        let class = class_of(size);
        let previous = with_magazine(class, |m| {
            std::mem::swap(&mut m.loaded, &mut m.previous);
            m.loaded.pop()
        });
        if let Some(Some(block)) = previous {
            return block;
        }
        let full = DEPOT[class].lock().pop();
        if let Some(Blocks(mut blocks)) = full {
            let block = blocks.pop();
            // Both of the thread's magazines are empty.
            with_magazine(class, |m| std::mem::swap(&mut m.loaded, &mut blocks));
            deposit(class, Blocks(blocks));
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
        let taken = with_magazine(class_of(size), |m| {
            let room = m.loaded.len() < ROUNDS;
            if room {
                m.loaded.push(block);
            }
            room
        });
        if taken == Some(true) {
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { give_slowly(block, size) }
}

/// # Safety
/// As for [`give`].
#[cold]
#[inline(never)]
unsafe fn give_slowly(block: NonNull<u8>, size: usize) {
    if size <= LARGEST {
        let class = class_of(size);
        let full = with_magazine(class, |m| {
            // `loaded` is full: it becomes the previous one, and the one before that goes.
            std::mem::swap(&mut m.loaded, &mut m.previous);
            let full = std::mem::take(&mut m.loaded);
            m.loaded.push(block);
            full
        });
        if let Some(full) = full {
            deposit(class, Blocks(full));
            return;
        }
    }
    // SAFETY: the caller's promise, and no magazine has the block.
    unsafe { dealloc(block.as_ptr(), layout(size)) }
}

#[cold]
#[inline(never)]
fn deposit(class: usize, blocks: Blocks) {
    if blocks.0.is_empty() {
        return;
    }
    let mut depot = DEPOT[class].lock();
    if depot.len() < KEEP / (ROUNDS * SIZES[class]) {
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
        let n = if cfg!(miri) { 900 } else { 5000 };
        let blocks: Vec<_> = (0..n)
            .map(|i| i % 1000)
            .map(|i| (take(100 + i), 100 + i))
            .collect();
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
        let again = take(128);
        assert!(seen.contains(&again.as_ptr().addr()));
        // SAFETY: taken just now.
        unsafe { give(again, 128) };
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
        let (ships, load) = if cfg!(miri) { (10, 200) } else { (100, 5000) };
        for _ in 0..ships {
            tx.send(Ship((0..load).map(|_| take(700)).collect()))
                .unwrap();
        }
        drop(tx);
        freer.join().unwrap();
        assert!(idle(5) * SIZES[5] <= KEEP, "{} idle", idle(5));
    }

    #[test]
    fn going_to_and_fro_does_not_visit_the_depot() {
        std::thread::spawn(|| {
            let magazine = || with_magazine(4, |m| (m.loaded.len(), m.previous.len())).unwrap();
            let take = |n: usize| (0..n).map(|_| take(512)).collect::<Vec<_>>();
            let give_all = |blocks: Vec<NonNull<u8>>| {
                for b in blocks {
                    // SAFETY: taken with this size.
                    unsafe { give(b, 512) };
                }
            };
            give_all(take(ROUNDS + 1));
            let (loaded, previous) = magazine();
            assert!(previous == ROUNDS && loaded >= 1, "{loaded} {previous}");
            for _ in 0..3 {
                give_all(take(loaded + 1));
                let (now, before) = magazine();
                assert_eq!(now + before, loaded + previous);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_may_take_and_give_while_it_ends() {
        struct Late(Option<NonNull<u8>>);
        impl Drop for Late {
            fn drop(&mut self) {
                if let Some(block) = self.0.take() {
                    // SAFETY: taken with this size.
                    unsafe { give(block, 200) };
                    let block = take(100);
                    // SAFETY: the block has 100 bytes and goes back as it came.
                    unsafe {
                        block.as_ptr().write_bytes(1, 100);
                        give(block, 100);
                    }
                }
            }
        }
        thread_local! {
            static BEFORE: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) };
            static AFTER: std::cell::RefCell<Late> = const { std::cell::RefCell::new(Late(None)) };
        }
        // One of the two is destroyed after the magazines, whichever order the system destroys in.
        std::thread::spawn(|| {
            BEFORE.with(|_| {});
            let (a, b) = (take(200), take(200));
            AFTER.with(|l| l.borrow_mut().0 = Some(a));
            BEFORE.with(|l| l.borrow_mut().0 = Some(b));
        })
        .join()
        .unwrap();
    }
}
