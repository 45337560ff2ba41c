//! When an actor's log is cut by a checkpoint, and when it is given up.
//!
//! An actor that keeps its history has a log of the calls since its last checkpoint. A checkpoint is due after so many calls, or so
//! long, as its options say; where they say nothing, when replaying the log would take about as long as reading the state.
//!
//! Invariant: what is counted is what the log holds. A log longer than its bound is cut at once, or given up if the state
//! cannot be saved. Left out: the entries and the state themselves (`exec`).

use std::time::Duration;

/// Without options a checkpoint is due after so many calls,
pub const MANY: u64 = 10_000;
/// or so many bytes, or as many as the state has if that is more.
pub const LONG: u64 = 1 << 20;
/// The bound of a log, in bytes, where the options say nothing.
pub const BOUND: u64 = 64 << 20;

/// What the options say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A checkpoint after so many logged calls; 0: see [`MANY`] and [`LONG`].
    pub every: u64,
    /// And when the last is so long ago, if anything was logged since.
    pub interval: Option<Duration>,
    /// The log's bound in bytes.
    pub bound: u64,
    /// Checkpoints are written outside of all nodes, too.
    pub durable: bool,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            every: 0,
            interval: None,
            bound: BOUND,
            durable: false,
        }
    }
}

/// How long a log is.
#[derive(Clone, Debug)]
pub struct Log {
    terms: Terms,
    /// Calls logged since the actor was made.
    order: u64,
    calls: u64,
    bytes: u64,
    /// Bytes of the last checkpoint.
    state: u64,
    saved: Duration,
    /// After a failure to save: the length before which it is not tried again.
    hold: u64,
    given_up: bool,
}

impl Log {
    /// An empty one, of an actor made at `now`.
    pub fn new(terms: Terms, now: Duration) -> Log {
        Log {
            terms,
            order: 0,
            calls: 0,
            bytes: 0,
            state: 0,
            saved: now,
            hold: 0,
            given_up: false,
        }
    }

    /// A call was logged that takes so many bytes.
    pub fn noted(&mut self, bytes: u64) {
        self.order += 1;
        self.calls += 1;
        self.bytes += bytes;
    }

    /// The last call that was noted is no part of the history.
    pub fn forgot(&mut self, bytes: u64) {
        self.order -= 1;
        self.calls -= 1;
        self.bytes -= bytes;
    }

    /// Whether a checkpoint is due.
    pub fn due(&self, now: Duration) -> bool {
        if self.calls == 0 || self.given_up {
            return false;
        }
        if self.is_full() {
            return true;
        }
        if self.calls < self.hold {
            return false;
        }
        let long = match self.terms.every {
            0 => self.calls >= MANY || self.bytes >= LONG.max(self.state),
            every => self.calls >= every,
        };
        let old = || {
            let interval = self.terms.interval;
            interval.is_some_and(|i| now.saturating_sub(self.saved) >= i)
        };
        long || old()
    }

    /// A checkpoint of so many bytes was made: the log is empty, and there is one again if it was given up.
    pub fn saved(&mut self, bytes: u64, now: Duration) {
        (self.calls, self.bytes, self.hold) = (0, 0, 0);
        (self.state, self.saved, self.given_up) = (bytes, now, false);
    }

    /// The state could not be saved: true if the log is over its bound and therefore given up. Else it is tried again when the log
    /// has twice the length.
    pub fn failed(&mut self) -> bool {
        self.hold = self.calls.saturating_mul(2);
        if self.is_full() {
            self.give_up();
        }
        self.given_up
    }

    /// The state can never be saved and the log is over its bound, or nothing is to be kept any more.
    pub fn give_up(&mut self) {
        self.given_up = true;
        (self.calls, self.bytes) = (0, 0);
    }

    /// The actor was made anew, with nothing behind it.
    pub fn begin_anew(&mut self, now: Duration) {
        *self = Log {
            order: self.order,
            ..Log::new(self.terms, now)
        };
    }

    /// Whether the log is over its bound.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.terms.bound
    }

    /// Whether there is no history any more.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether the options ask for the time.
    pub fn is_timed(&self) -> bool {
        self.terms.interval.is_some()
    }

    /// Calls logged since the actor was made.
    pub fn order(&self) -> u64 {
        self.order
    }

    /// Calls, and bytes, in the log.
    pub fn len(&self) -> (u64, u64) {
        (self.calls, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: Terms) -> Log {
        Log::new(terms, Duration::ZERO)
    }

    fn due_after(log: &mut Log, bytes: u64) -> u64 {
        for n in 1.. {
            log.noted(bytes);
            if log.due(Duration::ZERO) {
                return n;
            }
        }
        unreachable!()
    }

    #[test]
    fn small_calls_are_counted_and_long_ones_measured() {
        assert_eq!(due_after(&mut log(Terms::default()), 10), MANY);
        assert_eq!(due_after(&mut log(Terms::default()), LONG / 4), 4);
        let mut large = log(Terms::default());
        large.noted(1);
        large.saved(10 * LONG, Duration::ZERO);
        assert_eq!(due_after(&mut large, LONG), 10, "as much as the state");
    }

    #[test]
    fn options_go_before() {
        let every = Terms {
            every: 3,
            ..Terms::default()
        };
        assert_eq!(due_after(&mut log(every), LONG / 2), 3);
        let interval = Terms {
            interval: Some(Duration::from_secs(1)),
            ..Terms::default()
        };
        let mut log = log(interval);
        assert!(!log.due(Duration::from_secs(9)), "nothing is logged");
        log.noted(1);
        assert!(!log.due(Duration::from_millis(999)));
        assert!(log.due(Duration::from_secs(1)));
        log.saved(1, Duration::from_secs(1));
        log.noted(1);
        assert!(!log.due(Duration::from_millis(1999)));
    }

    #[test]
    fn what_was_forgotten_does_not_count() {
        let mut log = log(Terms::default());
        log.noted(5);
        log.noted(7);
        log.forgot(7);
        assert_eq!((log.order(), log.len()), (1, (1, 5)));
    }

    #[test]
    fn a_log_whose_state_cannot_be_saved_is_given_up_at_its_bound() {
        let terms = Terms {
            every: 2,
            bound: 100,
            ..Terms::default()
        };
        let mut log = log(terms);
        assert_eq!(due_after(&mut log, 10), 2);
        assert!(!log.failed(), "there is room");
        log.noted(10);
        assert!(!log.due(Duration::ZERO), "not before it has doubled");
        log.noted(10);
        assert!(log.due(Duration::ZERO));
        assert!(!log.failed());
        log.noted(60);
        assert!(log.is_full() && log.due(Duration::ZERO));
        assert!(log.failed());
        assert!(log.is_given_up() && log.len() == (0, 0));
        log.noted(1);
        assert!(!log.due(Duration::MAX));
        let mut anew = log.clone();
        anew.begin_anew(Duration::ZERO);
        assert!(!anew.is_given_up());
        log.saved(1, Duration::ZERO);
        assert!(!log.is_given_up(), "there is a state to begin from");
    }
}
