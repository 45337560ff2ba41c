//! The state word of a stored object: who reads it, and whether it is moving to disk or back.
//!
//! Reading is a count up and a count down; everything else gives way to it. A move copies the bytes
//! while they stay readable and takes effect only if nobody reads at that moment, else it comes to
//! nothing. An object that is away is brought back by the first who wants to read it; the others
//! wait for that. An object whose owner drops it is never moved.
//!
//! Invariant: the bytes are in memory, and stay where they are, for as long as anyone who found the
//! object [`Here`](Seen::Here) keeps its count. Left out: where the bytes are, and waiting.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::sync::AtomicU32;

/// Bits of the count; half of them are never reached.
const PINS: u32 = (1 << 28) - 1;
/// More readers than this are a bug that must not wrap around.
const MANY: u32 = 1 << 27;
/// The bytes are being copied to disk; they are still here.
const MOVING: u32 = 1 << 28;
/// The bytes are on disk.
const AWAY: u32 = 1 << 29;
/// Somebody changes which of the two it is.
const CHANGING: u32 = 1 << 30;
/// The owner is about to free it.
const DYING: u32 = 1 << 31;

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// In memory.
    Here,
    /// On disk.
    Away,
    /// Between the two: look again when the change is over.
    Changing,
}

/// The word.
pub struct Word(AtomicU32);

impl Word {
    /// In memory, nobody reads.
    pub fn new() -> Word {
        Word(AtomicU32::new(0))
    }

    /// Not in memory, nobody reads.
    pub fn away() -> Word {
        Word(AtomicU32::new(AWAY))
    }

    /// Counts a reader; whether the bytes are here. If not, the count stands all the same, so that
    /// they cannot leave again once they are.
    #[inline(always)]
    pub fn pin(&self) -> bool {
        // Acquire: what brought the bytes back is seen before they are read.
        let before = self.0.fetch_add(1, Acquire);
        before < MANY || Word::pinned_slowly(before)
    }

    #[cold]
    #[inline(never)]
    fn pinned_slowly(before: u32) -> bool {
        if before & PINS >= MANY {
            // Only leaked readers get here; wrapping around would let bytes move under the others.
            std::process::abort();
        }
        before & (AWAY | CHANGING) == 0
    }

    /// Takes a reader's count back.
    #[inline(always)]
    pub fn unpin(&self) {
        // Release: what was read was read before the bytes may leave.
        let before = self.0.fetch_sub(1, Release);
        debug_assert!(before & PINS > 0, "unpinned more often than pinned");
    }

    /// Where the bytes are.
    pub fn look(&self) -> Seen {
        let now = self.0.load(Acquire);
        match (now & CHANGING != 0, now & AWAY != 0) {
            (true, _) => Seen::Changing,
            (_, true) => Seen::Away,
            _ => Seen::Here,
        }
    }

    /// Whether it could be moved now: here, and nobody reads or moves or frees it.
    pub fn idle(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Begins a move to disk, if it could be moved now.
    pub fn begin_move(&self) -> bool {
        // Acquire: the bytes' writer is done. Nothing is promised to readers yet.
        self.0.compare_exchange(0, MOVING, Acquire, Relaxed).is_ok()
    }

    /// Ends it: true if nobody has come to read, and then the word says that it is changing until
    /// [`moved`](Self::moved); else the object stays.
    pub fn end_move(&self) -> bool {
        // Acquire: the reads of those who came and went are over before the bytes are given away.
        let won = self
            .0
            .compare_exchange(MOVING, AWAY | CHANGING, AcqRel, Relaxed);
        if won.is_err() {
            self.0.fetch_and(!MOVING, Relaxed);
        }
        won.is_ok()
    }

    /// Says that the bytes are away, and where has been written down.
    pub fn moved(&self) {
        self.0.fetch_and(!CHANGING, Release);
    }

    /// Ends a move that came to nothing.
    pub fn stay(&self) {
        self.0.fetch_and(!MOVING, Relaxed);
    }

    /// Begins to bring the bytes back. The caller is counted as a reader.
    pub fn begin_return(&self) -> bool {
        let before = self.0.fetch_or(CHANGING, Acquire);
        let begun = before & CHANGING == 0;
        if begun && before & AWAY == 0 {
            // They are back already.
            self.0.fetch_and(!CHANGING, Relaxed);
            return false;
        }
        begun
    }

    /// Ends that: the bytes are here, or still away.
    pub fn end_return(&self, here: bool) {
        let gone = if here { AWAY | CHANGING } else { CHANGING };
        // Release: whoever pins from here on sees the bytes.
        self.0.fetch_and(!gone, Release);
    }

    /// The owner frees it; whether it is simply here. If not, what the move or the disk has of it must be
    /// told.
    #[inline]
    pub fn die(&self) -> bool {
        // Acquire: readers are done, as their owner's count says; a move is told by its flag.
        self.0.fetch_or(DYING, AcqRel) & (MOVING | AWAY | CHANGING) == 0
    }

    /// Whether it is being copied to disk.
    pub fn moving(&self) -> bool {
        self.0.load(Acquire) & MOVING != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_the_bytes() {
        let word = Word::new();
        assert!(word.pin() && !word.idle());
        assert!(!word.begin_move());
        word.unpin();
        assert!(word.begin_move() && word.moving());
        assert!(word.pin(), "still readable while it is copied");
        assert!(!word.end_move(), "a reader came: it stays");
        assert_eq!((word.look(), word.moving()), (Seen::Here, false));
        word.unpin();
        assert!(word.idle());
    }

    #[test]
    fn goes_away_and_comes_back() {
        let word = Word::new();
        assert!(word.begin_move() && word.end_move());
        assert_eq!(word.look(), Seen::Changing);
        word.moved();
        assert_eq!(word.look(), Seen::Away);
        assert!(!word.pin(), "away");
        assert!(word.begin_return());
        assert!(!word.begin_return(), "one brings it back");
        word.end_return(false);
        assert_eq!(word.look(), Seen::Away);
        assert!(word.begin_return());
        word.end_return(true);
        assert_eq!(word.look(), Seen::Here);
        assert!(!word.begin_return(), "it is back already");
        assert_eq!(word.look(), Seen::Here);
        assert!(!word.begin_move(), "the count stood all the while");
        word.unpin();
        assert!(word.idle());
    }

    #[test]
    fn what_dies_is_not_moved() {
        let word = Word::new();
        assert!(word.die());
        assert!(!word.begin_move());
        let word = Word::new();
        assert!(word.begin_move());
        assert!(!word.die(), "the move must be told");
        assert!(!word.end_move());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// An object whose memory is taken away by a move and written again when it comes back. The mutex
    /// is the spiller's books.
    struct Object {
        word: Word,
        bytes: UnsafeCell<u32>,
        books: Mutex<()>,
    }

    impl Object {
        fn new() -> Arc<Object> {
            Arc::new(Object {
                word: Word::new(),
                bytes: UnsafeCell::new(7),
                books: Mutex::new(()),
            })
        }

        fn read(&self) {
            let mut here = self.word.pin();
            while !here {
                let books = self.books.lock().unwrap();
                match self.word.look() {
                    Seen::Here => here = true,
                    Seen::Changing => {
                        drop(books);
                        thread::yield_now();
                        continue;
                    }
                    Seen::Away => {
                        assert!(self.word.begin_return());
                        drop(books);
                        // SAFETY: loom checks that nobody else is at it.
                        self.bytes.with_mut(|b| unsafe { *b = 7 });
                        let _books = self.books.lock().unwrap();
                        self.word.end_return(true);
                        here = true;
                    }
                }
            }
            // SAFETY: as above.
            self.bytes.with(|b| assert_eq!(unsafe { *b }, 7));
            self.word.unpin();
        }

        fn spill(&self) {
            if !self.word.begin_move() {
                return;
            }
            // SAFETY: as above: the copy to disk reads.
            self.bytes.with(|b| assert_eq!(unsafe { *b }, 7));
            let _books = self.books.lock().unwrap();
            if self.word.end_move() {
                // SAFETY: as above: the memory is another's now.
                self.bytes.with_mut(|b| unsafe { *b = 0 });
                self.word.moved();
            }
        }
    }

    #[test]
    fn readers_never_see_memory_that_was_given_away() {
        loom::model(|| {
            let object = Object::new();
            let spiller = {
                let object = Arc::clone(&object);
                thread::spawn(move || object.spill())
            };
            object.read();
            spiller.join().unwrap();
            object.read();
        });
    }

    #[test]
    fn two_readers_bring_it_back_once() {
        loom::model(|| {
            let object = Object::new();
            object.spill();
            let other = {
                let object = Arc::clone(&object);
                thread::spawn(move || object.read())
            };
            object.read();
            other.join().unwrap();
            assert!(object.word.idle());
        });
    }

    #[test]
    fn a_move_while_one_reads_and_one_moves_again() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let object = Object::new();
            let reader = {
                let object = Arc::clone(&object);
                thread::spawn(move || object.read())
            };
            object.spill();
            object.spill();
            reader.join().unwrap();
            object.read();
            assert!(object.word.idle());
        });
    }
}
