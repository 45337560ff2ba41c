//! Which worker process is ended when memory runs short: the policy, without a clock.
//!
//! The kernel's own choice is whoever holds most, which may be the driver. Ending one worker early, of which the least is
//! lost, keeps the rest: first a call that will be tried again anyway, the newest, since it has done the least; then the
//! newest of the calls whose failure the program sees; then an actor that begins anew. Actors that could not are left to
//! the kernel.
//!
//! Invariant: one sample ends one worker at most, and none while the one before it is not gone, for its memory is only
//! back then. Left out: sampling, killing and telling (the driver's).

/// How much memory is taken, of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes taken.
    pub used: u64,
    /// Bytes there are.
    pub total: u64,
}

impl Reading {
    /// The share that is taken; 0 of nothing.
    pub fn share(self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        self.used as f64 / self.total as f64
    }
}

/// What a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A call of a function; whether its next death is followed by another attempt.
    Call {
        /// An attempt is left.
        retried: bool,
    },
    /// An actor; whether its next death is followed by a restart.
    Actor {
        /// A restart is left.
        restarts: bool,
    },
}

/// A worker at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Tells this call, or this life of an actor, from all others; later ones have higher numbers.
    pub run: u64,
    /// What it is.
    pub work: Work,
}

impl Running {
    /// How soon it is chosen; `None`: not at all.
    fn rank(self) -> Option<u8> {
        match self.work {
            Work::Call { retried: true } => Some(2),
            Work::Call { retried: false } => Some(1),
            Work::Actor { restarts: true } => Some(0),
            Work::Actor { restarts: false } => None,
        }
    }
}

/// Samples for which a worker that was told to end is waited for; then it hangs in the kernel, and another is chosen.
pub const PATIENCE: u32 = 20;

/// Watches memory from sample to sample.
#[derive(Clone, Debug)]
pub struct Watch {
    threshold: f64,
    ending: Option<u64>,
    waited: u32,
}

impl Watch {
    /// Watches for more than this share of memory.
    pub const fn new(threshold: f64) -> Watch {
        Watch {
            threshold,
            ending: None,
            waited: 0,
        }
    }

    /// The share above which a worker is ended.
    pub const fn threshold(&self) -> f64 {
        self.threshold
    }

    /// A sample: which run to end now, if any.
    pub fn on_sample(&mut self, reading: Reading, running: &[Running]) -> Option<u64> {
        let mut hangs = None;
        if let Some(ending) = self.ending {
            if !running.iter().any(|r| r.run == ending) {
                self.ending = None;
            } else if self.waited < PATIENCE {
                self.waited += 1;
                return None;
            } else {
                hangs = Some(ending);
            }
        }
        // Not `<=`: a reading that is no number ends nobody.
        let over = reading.share() > self.threshold;
        if !over {
            return None;
        }
        let able = running.iter().filter(|r| Some(r.run) != hangs);
        let (_, run) = able.filter_map(|r| Some((r.rank()?, r.run))).max()?;
        self.ending = Some(run);
        self.waited = 0;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FULL: Reading = Reading {
        used: 97,
        total: 100,
    };
    const FINE: Reading = Reading {
        used: 95,
        total: 100,
    };

    fn call(run: u64, retried: bool) -> Running {
        let work = Work::Call { retried };
        Running { run, work }
    }

    fn actor(run: u64, restarts: bool) -> Running {
        let work = Work::Actor { restarts };
        Running { run, work }
    }

    #[test]
    fn the_least_is_lost_first() {
        let mut all = vec![
            actor(9, false),
            actor(8, true),
            actor(7, true),
            call(6, false),
            call(5, false),
            call(4, true),
            call(3, true),
        ];
        let mut watch = Watch::new(0.95);
        assert_eq!(watch.on_sample(FINE, &all), None, "not above");
        for expected in [4, 3, 6, 5, 8, 7] {
            assert_eq!(watch.on_sample(FULL, &all), Some(expected));
            all.retain(|r| r.run != expected);
        }
        assert_eq!(watch.on_sample(FULL, &all), None, "an actor for good");
        assert_eq!(watch.on_sample(FULL, &[]), None);
    }

    #[test]
    fn one_that_is_not_gone_is_waited_for_but_not_for_ever() {
        let all = [call(1, true), call(2, true)];
        let mut watch = Watch::new(0.95);
        assert_eq!(watch.on_sample(FULL, &all), Some(2));
        for _ in 0..PATIENCE {
            assert_eq!(watch.on_sample(FULL, &all), None);
        }
        assert_eq!(watch.on_sample(FULL, &all), Some(1));
        assert_eq!(watch.on_sample(FULL, &all[1..]), Some(2), "once more");
    }

    #[test]
    fn the_threshold_has_sensible_ends() {
        let all = [call(1, true)];
        let nothing = Reading { used: 0, total: 0 };
        assert_eq!(Watch::new(0.0).on_sample(nothing, &all), None);
        assert_eq!(Watch::new(0.0).on_sample(FINE, &all), Some(1));
        let whole = Reading { used: 5, total: 5 };
        assert_eq!(Watch::new(1.0).on_sample(whole, &all), None);
        assert_eq!(Watch::new(f64::NAN).on_sample(FULL, &all), None);
    }

    fn worker() -> impl Strategy<Value = Running> {
        (0u64..12, 0u8..4).prop_map(|(run, kind)| match kind {
            0 | 1 => call(run, kind == 0),
            _ => actor(run, kind == 2),
        })
    }

    proptest! {
        /// Over any life: only above the threshold, one a sample, never a second while the first runs within the
        /// patience, never an actor for good, and never one of which more is lost than of another.
        #[test]
        fn no_choice_breaks_the_rules(
            samples in prop::collection::vec((0u64..=100, prop::collection::vec(worker(), 0..6)), 1..80),
        ) {
            let mut watch = Watch::new(0.5);
            let mut last: Option<(u64, u32)> = None;
            for (used, running) in samples {
                let chosen = watch.on_sample(Reading { used, total: 100 }, &running);
                last = last.filter(|(run, _)| running.iter().any(|r| r.run == *run));
                let waits = last.is_some_and(|(_, since)| since < PATIENCE);
                if let Some((_, since)) = &mut last {
                    *since += 1;
                }
                let Some(run) = chosen else { continue };
                prop_assert!(used > 50 && !waits);
                let of = |run| running.iter().filter(move |r| r.run == run).filter_map(|r| r.rank()).max();
                let rank = of(run);
                prop_assert!(rank.is_some());
                let best = running
                    .iter()
                    .filter(|r| last.is_none_or(|(l, _)| l != r.run))
                    .filter_map(|r| Some((r.rank()?, r.run)))
                    .max();
                if last.is_none_or(|(l, _)| l != run) {
                    prop_assert_eq!(best, rank.map(|rank| (rank, run)));
                }
                last = Some((run, 0));
            }
        }
    }
}
