//! How far the link's thread is behind: since when it has always had something to do.
//!
//! A thread that never gets to wait has not read what lies in its socket. Whoever judges others by their silence asks here
//! first, since what they said may lie there.
//!
//! Invariant: all that had arrived before [`Lag::behind`] ago has been handed on. Left out: what follows from it (`node`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// See the file.
pub(crate) struct Lag {
    started: Instant,
    /// Microseconds from the start until the thread last had nothing to do; 0: it has nothing to do now.
    since: AtomicU64,
}

impl Lag {
    /// Of a thread that has nothing to do yet.
    pub fn new() -> Lag {
        Lag {
            started: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    /// The thread has nothing to do.
    pub fn rests(&self) {
        self.since.store(0, Relaxed);
    }

    /// The thread had nothing to do until now.
    pub fn works(&self) {
        let now = self.started.elapsed().as_micros() as u64;
        self.since.store(now.max(1), Relaxed);
    }

    /// For how long it has been busy.
    pub fn behind(&self) -> Duration {
        match self.since.load(Relaxed) {
            0 => Duration::ZERO,
            since => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_micros(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_rests_is_not_behind() {
        let lag = Lag::new();
        assert_eq!(lag.behind(), Duration::ZERO);
        lag.works();
        while lag.behind() < Duration::from_millis(1) {}
        lag.rests();
        assert_eq!(lag.behind(), Duration::ZERO);
    }
}
