//! The machine's own time, which stands still while the process does, and what is due when.
//!
//! A process that was stopped (by the scheduler of a loaded machine, a debugger, a paused virtual machine) wakes up to
//! deadlines that ran out unobserved, while the answers it waited for lie unread in its socket. So the machine does not
//! count time in which it could not have looked: when an event comes much later than what was due, the difference is a
//! stall: all deadlines move by it, and nothing runs until the socket has been read for a little while.
//!
//! Invariant: own time never runs backwards, nor faster than the driver's. What is due is held at most once,
//! so that a machine that is always late still gets on. Left out: stalls of others, which their silence shows.

use std::collections::BTreeMap;
use std::time::Duration;

/// Deadlines in own time.
#[derive(Debug)]
pub struct Clock<Job> {
    due: BTreeMap<(Duration, u64), Job>,
    serial: u64,
    /// The latest of the driver's times.
    seen: Duration,
    /// How far own time is behind.
    lost: Duration,
    /// What was held already.
    excused: Option<(Duration, u64)>,
    /// Nothing runs before, in the driver's time.
    hold: Duration,
    limit: Duration,
    extra: Duration,
}

impl<Job> Clock<Job> {
    /// Lateness beyond `limit` is a stall; `extra` is then given for reading what came meanwhile.
    pub fn new(limit: Duration, extra: Duration) -> Clock<Job> {
        Clock {
            due: BTreeMap::new(),
            serial: 0,
            seen: Duration::ZERO,
            lost: Duration::ZERO,
            excused: None,
            hold: Duration::ZERO,
            limit,
            extra,
        }
    }

    /// Own time.
    pub fn now(&self) -> Duration {
        self.seen.saturating_sub(self.lost)
    }

    /// All time that was not counted.
    pub fn lost(&self) -> Duration {
        self.lost
    }

    /// The driver's time is `now`. Answers how long the process had been stopped, if it had.
    pub fn observe(&mut self, now: Duration) -> Option<Duration> {
        let before = self.now();
        self.seen = self.seen.max(now);
        let (&first, _) = self.due.first_key_value()?;
        let late = self.now() - first.0.max(before).min(self.now());
        if late <= self.limit {
            return None;
        }
        self.lost += late;
        if self.excused != Some(first) {
            self.excused = Some(first);
            self.hold = self.seen + self.extra;
        }
        Some(late)
    }

    /// Notes a job for `after` from now.
    pub fn after(&mut self, after: Duration, job: Job) {
        self.serial += 1;
        let floor = self.now();
        self.due.insert((floor + after, self.serial), job);
    }

    /// The next job that is due.
    pub fn pop(&mut self) -> Option<Job> {
        let (&first, _) = self.due.first_key_value()?;
        let runs = first.0 <= self.now() && self.hold <= self.seen;
        runs.then(|| self.due.pop_first())?.map(|(_, job)| job)
    }

    /// When to come back, in the driver's time.
    pub fn deadline(&self) -> Option<Duration> {
        let first = self.due.first_key_value();
        first.map(|(&(at, _), _)| (at + self.lost).max(self.hold))
    }

    /// How many jobs are noted.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// Forgets everything that is due.
    pub fn clear(&mut self) {
        self.due.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_late_tick_puts_everything_off_once() {
        let mut clock = Clock::new(ms(20), ms(5));
        clock.after(ms(100), "a");
        clock.after(ms(150), "b");
        assert_eq!(clock.observe(ms(115)), None, "a little late is not stopped");
        assert_eq!(clock.pop(), Some("a"));
        assert_eq!(clock.observe(ms(1150)), Some(ms(1000)));
        assert_eq!(clock.pop(), None, "first the socket is read");
        assert_eq!(clock.deadline(), Some(ms(1155)));
        assert_eq!((clock.now(), clock.lost()), (ms(150), ms(1000)));
        assert_eq!(clock.observe(ms(1155)), None);
        assert_eq!(clock.pop(), Some("b"));
    }

    #[test]
    fn one_that_is_always_late_gets_on() {
        let mut clock = Clock::new(ms(20), ms(5));
        for n in 0..10u64 {
            clock.after(ms(10 * n), n);
        }
        let mut ran = Vec::new();
        for turn in 1..=20 {
            clock.observe(ms(500) * turn);
            while let Some(job) = clock.pop() {
                ran.push(job);
            }
        }
        assert_eq!(ran, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn own_time_never_runs_back() {
        let mut clock = Clock::new(ms(20), ms(5));
        clock.after(ms(10), ());
        let mut before = Duration::ZERO;
        for at in [0, 9, 300, 299, 304, 305, 900, 100, 905] {
            clock.observe(ms(at));
            assert!(clock.now() >= before, "at {at}");
            before = clock.now();
        }
    }
}
