//! A mailbox's word and the lock of whoever drains it: the lock-free heart of an actor.
//!
//! A push is one compare-and-swap; the drainer swaps the list out and turns it around, so that per call it touches
//! shared memory once a batch. The same word says whether the owner is idle, so the caller that wakes it knows it.
//!
//! Invariant: what was pushed is taken, once, in the order it was pushed, and somebody comes for it:
//! - The drainer empties the mailbox under the [`RunLock`], unlocks, and only then declares it idle; failing that because
//!   mail came, it tries the lock again. Whoever finds it idle at a push sees to it that somebody drains.
//! - A push that finds it busy leaves its mail to the drainer. Say drainer D found that mail in `settle_idle`, after it had
//!   unlocked, and its `try_lock` failed because of E. All these operations are `SeqCst`, so they have one order: the push,
//!   D's look at the mail, D's look at the lock, E's unlock, E's `settle_idle`, which therefore finds the mail, or that a
//!   later drainer took it. With weaker orders E's last look could miss it, for D's failed attempt writes nothing that E
//!   would have to see.
//!
//! Idle mail is possible while somebody drains (D declares it idle after E has locked): then one drainer more comes
//! than is needed, never one too few. Left out: executing calls (`actor`).

use std::marker::PhantomData;
use std::ptr::without_provenance_mut;
use std::sync::atomic::Ordering;

use super::sync::{AtomicBool, AtomicPtr, UnsafeCell};

/// What can lie in a mailbox.
pub trait Link: Sized {
    /// The next node, of the list that the node is in.
    fn link(&self) -> &UnsafeCell<*mut Self>;
}

/// The node after this one.
///
/// # Safety
/// The node is alive, and it and its list are the caller's.
#[inline(always)]
pub unsafe fn next<N: Link>(node: *mut N) -> *mut N {
    // SAFETY: the caller's promise.
    unsafe { (*node).link().with(|next| *next) }
}

/// Puts a node before others.
///
/// # Safety
/// The node is alive and the caller's, and in no list.
#[inline(always)]
pub unsafe fn set_next<N: Link>(node: *mut N, after: *mut N) {
    // SAFETY: the caller's promise.
    unsafe { (*node).link().with_mut(|next| *next = after) }
}

/// What a push found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an idle mailbox that is not scheduled hangs its owner"]
pub enum Pushed {
    /// It was idle: the caller must see to it that somebody drains.
    Woke,
    /// Somebody will come.
    Queued,
    /// It is closed: the node is still the caller's.
    Refused,
}

/// The mailbox: newest first, or one of three words that say why there is no mail.
pub struct Mail<N: Link> {
    head: AtomicPtr<N>,
    nodes: PhantomData<*mut N>,
}

// SAFETY: nodes move from the threads that push to the one that takes, and are touched by their holder alone.
unsafe impl<N: Link + Send> Send for Mail<N> {}
// SAFETY: as above.
unsafe impl<N: Link + Send> Sync for Mail<N> {}

impl<N: Link> Mail<N> {
    /// No mail, nobody drains.
    const IDLE: *mut N = without_provenance_mut(0);
    /// No mail, but queued, drained or waiting for a call under way.
    const BUSY: *mut N = without_provenance_mut(1);
    /// No mail is taken, ever again.
    const CLOSED: *mut N = without_provenance_mut(2);

    fn is_node(p: *mut N) -> bool {
        p.addr() > Self::CLOSED.addr()
    }

    fn with(head: *mut N) -> Mail<N> {
        const {
            assert!(
                align_of::<N>() > 2,
                "the three words are no addresses of nodes"
            )
        };
        Mail {
            head: AtomicPtr::new(head),
            nodes: PhantomData,
        }
    }

    /// An empty mailbox that somebody will come to.
    pub fn busy() -> Mail<N> {
        Mail::with(Self::BUSY)
    }

    /// A mailbox that takes nothing.
    pub fn closed() -> Mail<N> {
        Mail::with(Self::CLOSED)
    }

    /// Adds a node, unless closed.
    ///
    /// # Safety
    /// The node is alive and the caller's, which it is no longer unless refused.
    #[inline]
    pub unsafe fn push(&self, node: *mut N) -> Pushed {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == Self::CLOSED {
                return Pushed::Refused;
            }
            // SAFETY: until the exchange succeeds, the node is ours.
            unsafe { set_next(node, head) };
            match self
                .head
                .compare_exchange_weak(head, node, Ordering::SeqCst, Ordering::Relaxed)
            {
                Ok(_) if head == Self::IDLE => return Pushed::Woke,
                Ok(_) => return Pushed::Queued,
                Err(now) => head = now,
            }
        }
    }

    /// The same without the count.
    #[cfg(loom)]
    pub fn take(&self) -> *mut N {
        self.take_counted().0
    }

    /// Takes all mail, oldest first, and counts it; null if there is none. Only the holder of the run lock may call this.
    #[inline]
    pub fn take_counted(&self) -> (*mut N, u32) {
        // Nobody else takes, so mail seen here is still there below. An old word seen here is made up for by
        // `settle_idle`; and a closed mailbox stays closed.
        if !Self::is_node(self.head.load(Ordering::Relaxed)) {
            return (std::ptr::null_mut(), 0);
        }
        Self::turn_around(self.head.swap(Self::BUSY, Ordering::SeqCst))
    }

    /// Closes the mailbox; its last mail, oldest first. Only the holder of the run lock may call this.
    pub fn close(&self) -> *mut N {
        Self::turn_around(self.head.swap(Self::CLOSED, Ordering::SeqCst)).0
    }

    #[inline]
    fn turn_around(mut node: *mut N) -> (*mut N, u32) {
        let (mut oldest, mut n) = (std::ptr::null_mut(), 0u32);
        while Self::is_node(node) {
            // SAFETY: the list was swapped out, which made its nodes this thread's.
            unsafe {
                let after = next(node);
                set_next(node, oldest);
                oldest = node;
                node = after;
            }
            n = n.wrapping_add(1);
        }
        (oldest, n)
    }

    /// Whether there is no mail and nobody is to come.
    pub fn is_idle(&self) -> bool {
        self.head.load(Ordering::Relaxed) == Self::IDLE
    }

    /// Declares the mailbox idle, if no mail came meanwhile; whether there is none. To be called after unlocking: if it
    /// says false, somebody must try the lock again.
    #[inline]
    pub fn settle_idle(&self) -> bool {
        match self
            .head
            .compare_exchange(Self::BUSY, Self::IDLE, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(_) => true,
            Err(now) => !Self::is_node(now),
        }
    }
}

/// The right to drain. Nobody waits for it: who does not get it may count on its holder, see the module.
pub struct RunLock {
    held: AtomicBool,
}

impl RunLock {
    /// Held by nobody.
    pub fn new() -> RunLock {
        RunLock {
            held: AtomicBool::new(false),
        }
    }

    /// Takes the lock, if nobody holds it.
    #[inline]
    pub fn try_lock(&self) -> bool {
        self.held
            .compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Whether somebody has it, as last seen.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives the lock back.
    ///
    /// # Safety
    /// The caller holds it, and no longer touches what it guards.
    #[inline]
    pub unsafe fn unlock(&self) {
        self.held.swap(false, Ordering::SeqCst);
    }
}
