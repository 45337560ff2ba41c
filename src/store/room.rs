//! Waiting for room: the threads behind the [`Line`].
//!
//! Invariant: who waits is counted in `waiting` before it looks for room for the last time, and who
//! makes room looks at `waiting` afterwards. Both go through the lock of the place where the room
//! is: whichever comes second there sees what the first did, so no wake-up is lost and the look
//! needs no fence. Readers that let go of an object make no room themselves; they wake too, but
//! without that guarantee, which is why nobody sleeps for longer than [`NAP`]. Left out: making room.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::line::Line;

/// The longest sleep between two looks.
pub const NAP: Duration = Duration::from_millis(20);

/// The line and those who stand in it.
#[derive(Default)]
pub struct Room {
    waiting: AtomicUsize,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    line: Line,
    /// Counts changes that may have made room.
    epoch: u64,
    /// Counts steps of moving objects out of the way.
    moved: u64,
}

/// One who waits; leaves the line when it goes.
pub struct Place<'a> {
    room: &'a Room,
    ticket: u64,
}

impl Room {
    /// Whether anyone waits.
    #[inline(always)]
    pub fn is_awaited(&self) -> bool {
        self.waiting.load(Relaxed) != 0
    }

    /// Room may have come about.
    #[inline(always)]
    pub fn changed(&self) {
        if self.is_awaited() {
            self.wake();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        self.state.lock().epoch += 1;
        self.wake.notify_all();
    }

    /// Objects were moved to disk, or a part of that was done.
    pub fn moved(&self) {
        let mut state = self.state.lock();
        state.epoch += 1;
        state.moved += 1;
        drop(state);
        self.wake.notify_all();
    }

    /// Joins the line.
    pub fn enter(&self, who: u64, bytes: u64) -> Place<'_> {
        self.waiting.fetch_add(1, SeqCst);
        let ticket = self.state.lock().line.enter(who, bytes);
        Place { room: self, ticket }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.state.lock().line.len()
    }

    /// Bytes that those who wait ask for together.
    pub fn wanted(&self) -> u64 {
        self.state.lock().line.bytes()
    }

    /// How much room `who` waits for, if it does.
    pub fn awaited_by(&self, who: u64) -> Option<u64> {
        if !self.is_awaited() {
            return None;
        }
        self.state.lock().line.awaited_by(who)
    }
}

impl Place<'_> {
    /// Whether it may take room now; a mark of the moment, for [`sleep`](Self::sleep); and how
    /// far moving has come.
    pub fn look(&self) -> (bool, u64, u64) {
        let state = self.room.state.lock();
        (state.line.may_try(self.ticket), state.epoch, state.moved)
    }

    /// Sleeps until something changes after `epoch`, at most for `longest`.
    pub fn sleep(&self, epoch: u64, longest: Duration) {
        let mut state = self.room.state.lock();
        if state.epoch == epoch {
            self.room.wake.wait_for(&mut state, longest.min(NAP));
        }
    }

    /// Whether it has waited in vain for long, and should hold up nobody.
    pub fn set_stuck(&self, stuck: bool) {
        self.room.state.lock().line.set_stuck(self.ticket, stuck);
    }

    /// It has its room.
    pub fn served(&self) {
        self.room.state.lock().line.served(self.ticket);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.room.state.lock().line.leave(self.ticket);
        self.room.waiting.fetch_sub(1, SeqCst);
        // Who stood behind may be the next.
        self.room.changed();
    }
}
