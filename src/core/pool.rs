//! Which worker process a call gets, how many are kept, and when those that nobody needs end.
//!
//! A worker is starting, idle, or out with a call; an actor's never comes back. There is no bound on how many are out,
//! since whoever holds one may wait for a call that needs another: how much runs at once is the ledger's to decide.
//! The one used last is used next, since its caches are warm, and the others grow old.
//!
//! Invariant: while somebody waits, as many are starting as wait. From the first use on one is ready, or starting, in
//! advance, until nobody has asked for [`LAST`]. Left out: processes, threads and clocks; times are handed in.

use std::time::Duration;

/// An idle worker beyond one per CPU ends after this.
const SURPLUS: Duration = Duration::from_secs(1);
/// The others, but the last.
const IDLE: Duration = Duration::from_secs(10);
/// The last one.
const LAST: Duration = Duration::from_secs(60);

/// The books of a node's worker processes; `W` names one.
#[derive(Debug)]
pub struct Pool<W> {
    /// With the time since when, longest first.
    idle: Vec<(W, Duration)>,
    starting: usize,
    waiting: usize,
    cpus: usize,
    /// When somebody last took one.
    asked: Option<Duration>,
}

impl<W: Clone + PartialEq> Pool<W> {
    /// Of a node with so many CPUs.
    pub fn new(cpus: usize) -> Pool<W> {
        Pool {
            idle: Vec::new(),
            starting: 0,
            waiting: 0,
            cpus: cpus.max(1),
            asked: None,
        }
    }

    /// Somebody needs one: the idle one used last, if there is one.
    pub fn take(&mut self, now: Duration) -> Option<W> {
        self.asked = Some(now);
        self.idle.pop().map(|(worker, _)| worker)
    }

    /// Somebody who got none waits, or no longer does.
    pub fn wait(&mut self) {
        self.waiting += 1;
    }

    /// See [`wait`](Self::wait).
    pub fn waited(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// How many must be started now. They count as starting from here on.
    #[must_use = "so many are counted as starting"]
    pub fn start(&mut self) -> usize {
        let in_advance = usize::from(self.asked.is_some());
        let there = self.starting + self.idle.len();
        let missing = (self.waiting + in_advance).saturating_sub(there);
        self.starting += missing;
        missing
    }

    /// One that was starting is ready, or will never be.
    pub fn started(&mut self) {
        self.starting = self.starting.saturating_sub(1);
    }

    /// One that was starting never will be ready: none is started in advance until somebody asks again, or a
    /// machine that refuses processes would be asked for them without end.
    pub fn failed(&mut self) {
        self.started();
        self.asked = None;
    }

    /// It is free.
    pub fn give_back(&mut self, worker: W, now: Duration) {
        self.idle.push((worker, now));
    }

    /// It died. Whether it was idle.
    pub fn died(&mut self, worker: &W) -> bool {
        let before = self.idle.len();
        self.idle.retain(|(w, _)| w != worker);
        self.idle.len() < before
    }

    /// Those that should end now: they count as gone.
    pub fn tick(&mut self, now: Duration) -> Vec<W> {
        let mut ended = Vec::new();
        while let Some((worker, since)) = self.idle.first() {
            let patience = match self.idle.len() {
                1 => LAST,
                n if n <= self.cpus => IDLE,
                _ => SURPLUS,
            };
            // The last one stays while others are in use.
            let begin = if self.idle.len() == 1 {
                self.asked.unwrap_or_default().max(*since)
            } else {
                *since
            };
            if self.waiting > 0 || now.saturating_sub(begin) < patience {
                break;
            }
            ended.push(worker.clone());
            self.idle.remove(0);
        }
        if self.idle.is_empty() && !ended.is_empty() {
            self.asked = None; // none in advance until somebody asks again
        }
        ended
    }

    /// Whether nobody needs to look at the time.
    pub fn is_quiet(&self) -> bool {
        self.idle.is_empty()
    }

    /// How many somebody waits for.
    pub fn waiting(&self) -> usize {
        self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_first_use_starts_one_to_use_and_one_in_advance() {
        let mut pool = Pool::<u32>::new(2);
        assert_eq!(pool.start(), 0, "nobody asked");
        assert_eq!(pool.take(s(0)), None);
        pool.wait();
        assert_eq!(pool.start(), 2);
        assert_eq!(pool.start(), 0);
        pool.started();
        pool.give_back(7, s(0));
        pool.waited();
        assert_eq!(pool.take(s(0)), Some(7));
        assert_eq!(pool.start(), 0, "one is starting");
    }

    #[test]
    fn the_one_used_last_is_used_next() {
        let mut pool = Pool::new(2);
        pool.give_back(1, s(0));
        pool.give_back(2, s(1));
        assert_eq!(pool.take(s(1)), Some(2));
        assert_eq!(pool.take(s(1)), Some(1));
    }

    #[test]
    fn idle_ones_end_the_older_first_and_the_last_late() {
        let mut pool = Pool::new(2);
        for w in 0..4 {
            pool.give_back(w, s(0));
        }
        assert!(pool.tick(s(0)).is_empty());
        assert_eq!(pool.tick(s(2)), [0, 1]);
        assert!(pool.tick(s(9)).is_empty());
        assert_eq!(pool.tick(s(11)), [2]);
        assert!(pool.tick(s(59)).is_empty());
        assert_eq!(pool.take(s(59)), Some(3));
        pool.give_back(3, s(60));
        assert!(pool.tick(s(100)).is_empty());
        assert_eq!(pool.tick(s(121)), [3]);
        assert_eq!(pool.start(), 0, "none in advance for nobody");
        assert!(pool.is_quiet());
    }

    proptest! {
        #[test]
        fn whoever_waits_has_one_starting_and_none_is_given_twice(
            events in proptest::collection::vec(0u8..6, 1..200),
        ) {
            let mut pool = Pool::new(2);
            let (mut out, mut starting, mut waiting, mut next) = (Vec::new(), 0, 0, 0u32);
            let mut now = Duration::ZERO;
            for event in events {
                now += Duration::from_millis(700);
                match event {
                    0 | 1 => match pool.take(now) {
                        Some(w) => {
                            prop_assert!(!out.contains(&w));
                            out.push(w);
                        }
                        None => {
                            pool.wait();
                            waiting += 1;
                        }
                    },
                    2 if starting > 0 => {
                        starting -= 1;
                        pool.started();
                        pool.give_back(next, now);
                        next += 1;
                        if waiting > 0 {
                            waiting -= 1;
                            pool.waited();
                            out.extend(pool.take(now));
                        }
                    }
                    3 if starting > 0 => {
                        starting -= 1;
                        pool.started();
                    }
                    4 => {
                        if let Some(w) = out.pop() {
                            pool.give_back(w, now);
                            if waiting > 0 {
                                waiting -= 1;
                                pool.waited();
                                out.extend(pool.take(now));
                            }
                        }
                    }
                    _ => {
                        for w in pool.tick(now) {
                            prop_assert!(!out.contains(&w));
                        }
                    }
                }
                starting += pool.start();
                prop_assert!(starting >= waiting);
            }
        }
    }
}
