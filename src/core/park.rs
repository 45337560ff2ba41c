//! When executors wake, look, nap and sleep: the policy, without a clock.
//!
//! Waking a sleeping thread costs a system call and about 100 us, so a caller that submits and then
//! gets should do neither: it runs its task itself. Yet a task that nobody gets must start within
//! 200 us. The answer is one executor that *dozes*: timed naps, after each of which it looks by
//! itself. A single job that is new since its last look it leaves alone, for its submitter is
//! probably about to run it in place; a job that was there before, or two, it takes.
//!
//! Invariant: a queued job never waits for longer than one nap of a dozing executor, or one
//! wake-up. Left out: the threads, the counters and the futex (the driver's), and who may run at
//! all (`ledger`).

/// The length of a nap.
pub const NAP_MICROS: u64 = 60;

/// Naps in a row without a push after which an executor sleeps for good: about 5 ms.
pub const NAPS_BEFORE_SLEEP: u32 = 83;

/// The longest that an executor spins before it dozes.
pub const MAX_SPIN_MICROS: u32 = 20;

/// What a dozing executor does after a look at the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Look {
    /// Take a job and work.
    Take,
    /// Nap for [`NAP_MICROS`], then look again.
    Nap,
    /// Sleep until woken. Announce it first, then look at the queue once more: a push in between
    /// saw a dozing executor and woke nobody.
    Sleep,
}

/// One executor's doze: what it remembers from look to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doze {
    last_pushes: u64,
    idle_naps: u32,
}

impl Doze {
    /// Begins a doze when the count of pushes was `pushes`.
    ///
    /// An executor that ran out of work passes the count it sees. One that was woken passes the
    /// count at which it was woken (including the push that woke it): waking took longer than a
    /// nap, so a single job that is still there and has had no successor is one that nobody runs in
    /// place.
    pub const fn new(pushes: u64) -> Doze {
        Doze {
            last_pushes: pushes,
            idle_naps: 0,
        }
    }

    /// A look at the queue: `pushes` counts all jobs ever pushed, `queued` those there now.
    pub fn on_look(&mut self, pushes: u64, queued: usize) -> Look {
        let pushed = pushes != self.last_pushes;
        self.last_pushes = pushes;
        if queued >= 2 || (queued == 1 && !pushed) {
            self.idle_naps = 0;
            return Look::Take;
        }
        if pushed {
            self.idle_naps = 0;
            return Look::Nap;
        }
        self.idle_naps += 1;
        if self.idle_naps >= NAPS_BEFORE_SLEEP {
            Look::Sleep
        } else {
            Look::Nap
        }
    }
}

/// How many executors are in each state of idleness; those that work are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idlers {
    /// Looking for work right now, or woken to do so: they will see whatever is queued.
    pub searching: u32,
    /// Napping: they will look within [`NAP_MICROS`].
    pub dozing: u32,
    /// Asleep until woken.
    pub asleep: u32,
}

/// Whom a submission wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Wake {
    /// Nobody: someone will look, or everyone works.
    None,
    /// One sleeper, to doze: see [`Doze::new`].
    Doze,
    /// One napper, else one sleeper, to work at once. Count it as searching from here on, so that
    /// the next submission does not wake another.
    Work,
}

/// Whom to wake after a push onto a queue that held `queued_before` jobs.
pub const fn on_submit(queued_before: usize, idlers: Idlers) -> Wake {
    if idlers.searching > 0 {
        return Wake::None;
    }
    if queued_before == 0 {
        // The submitter is probably about to run this one itself; a napper checks on it.
        return if idlers.dozing == 0 && idlers.asleep > 0 {
            Wake::Doze
        } else {
            Wake::None
        };
    }
    if idlers.dozing + idlers.asleep > 0 {
        Wake::Work
    } else {
        Wake::None
    }
}

/// Whom the executor that stops searching, because it found a job, wakes when `queued_after` more
/// are left: it was the one who would have seen them.
pub const fn on_found(queued_after: usize, others: Idlers) -> Wake {
    if queued_after == 0 {
        Wake::None
    } else {
        on_submit(queued_after, others)
    }
}

/// How long an executor that just worked spins for more before it dozes: longer where spinning
/// found work, not at all where it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spin {
    budget_micros: u32,
    /// Misses since the budget went to 0.
    quiet: u32,
}

impl Spin {
    /// Misses at no budget after which one microsecond is tried again: work may have come closer.
    const PROBE_AFTER: u32 = 32;

    /// Begins without spinning: an executor has to find that it pays.
    pub const fn new() -> Spin {
        Spin {
            budget_micros: 0,
            quiet: 0,
        }
    }

    /// How long to spin now, in microseconds; 0: do not.
    pub const fn budget_micros(&self) -> u32 {
        self.budget_micros
    }

    /// There was work: while spinning, or at the last look before the first nap.
    pub fn found(&mut self) {
        self.budget_micros = (self.budget_micros * 2 + 1).min(MAX_SPIN_MICROS);
        self.quiet = 0;
    }

    /// The budget went by (it may be 0) and there was no work.
    pub fn missed(&mut self) {
        if self.budget_micros > 0 {
            self.budget_micros /= 2;
            return;
        }
        self.quiet += 1;
        if self.quiet >= Spin::PROBE_AFTER {
            self.budget_micros = 1;
            self.quiet = 0;
        }
    }
}

impl Default for Spin {
    fn default() -> Spin {
        Spin::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn idlers(searching: u32, dozing: u32, asleep: u32) -> Idlers {
        Idlers {
            searching,
            dozing,
            asleep,
        }
    }

    #[test]
    fn the_first_job_wakes_a_sleeper_into_a_doze_only_if_nobody_looks() {
        assert_eq!(on_submit(0, idlers(0, 0, 3)), Wake::Doze);
        assert_eq!(on_submit(0, idlers(0, 1, 3)), Wake::None);
        assert_eq!(on_submit(0, idlers(1, 0, 3)), Wake::None);
        assert_eq!(on_submit(0, idlers(0, 0, 0)), Wake::None, "everyone works");
    }

    #[test]
    fn a_second_job_wakes_one_to_work_unless_someone_searches() {
        assert_eq!(on_submit(1, idlers(0, 1, 0)), Wake::Work);
        assert_eq!(on_submit(7, idlers(0, 0, 1)), Wake::Work);
        assert_eq!(on_submit(1, idlers(1, 1, 1)), Wake::None);
        assert_eq!(on_submit(1, idlers(0, 0, 0)), Wake::None, "everyone works");
    }

    #[test]
    fn who_stops_searching_hands_the_search_on() {
        assert_eq!(on_found(0, idlers(0, 1, 1)), Wake::None);
        assert_eq!(on_found(1, idlers(0, 1, 1)), Wake::Work);
        assert_eq!(on_found(1, idlers(1, 1, 1)), Wake::None);
        assert_eq!(on_found(1, idlers(0, 0, 0)), Wake::None);
    }

    #[test]
    fn a_new_single_job_is_left_once_and_an_old_one_taken() {
        let mut doze = Doze::new(10);
        assert_eq!(
            doze.on_look(11, 1),
            Look::Nap,
            "new: its submitter may run it"
        );
        assert_eq!(doze.on_look(11, 1), Look::Take, "still there");
        assert_eq!(doze.on_look(12, 1), Look::Nap);
        assert_eq!(doze.on_look(12, 0), Look::Nap, "it was run in place");
        assert_eq!(doze.on_look(14, 2), Look::Take, "two are work for two");
        assert_eq!(doze.on_look(900, 1), Look::Nap);
        assert_eq!(
            doze.on_look(1_900, 1),
            Look::Nap,
            "a loop of submit and get"
        );
    }

    #[test]
    fn one_that_was_woken_takes_the_job_it_was_woken_for() {
        assert_eq!(Doze::new(11).on_look(11, 1), Look::Take);
        assert_eq!(
            Doze::new(11).on_look(12, 1),
            Look::Nap,
            "that one is another"
        );
        assert_eq!(
            Doze::new(11).on_look(11, 0),
            Look::Nap,
            "it was run in place"
        );
    }

    #[test]
    fn without_pushes_a_doze_ends_in_sleep() {
        let mut doze = Doze::new(5);
        for nap in 1..NAPS_BEFORE_SLEEP {
            assert_eq!(doze.on_look(5, 0), Look::Nap, "nap {nap}");
        }
        assert_eq!(doze.on_look(5, 0), Look::Sleep);
        // A push in between begins the count anew.
        let mut doze = Doze::new(5);
        for pushes in [5, 6] {
            for _ in 1..NAPS_BEFORE_SLEEP {
                assert_eq!(doze.on_look(pushes, 0), Look::Nap);
            }
        }
        assert_eq!(
            doze.on_look(6, 0),
            Look::Nap,
            "the look that saw the push is not idle"
        );
        assert_eq!(doze.on_look(6, 0), Look::Sleep);
        let dozed = u64::from(NAPS_BEFORE_SLEEP) * NAP_MICROS;
        assert!((4_000..6_000).contains(&dozed), "a doze of {dozed} us");
    }

    #[test]
    fn spinning_grows_while_it_pays_and_ends_when_it_does_not() {
        let mut spin = Spin::new();
        let mut budgets = Vec::new();
        for _ in 0..6 {
            spin.found();
            budgets.push(spin.budget_micros());
        }
        assert_eq!(budgets, [1, 3, 7, 15, 20, 20]);
        budgets.clear();
        for _ in 0..5 {
            spin.missed();
            budgets.push(spin.budget_micros());
        }
        assert_eq!(budgets, [10, 5, 2, 1, 0]);
    }

    #[test]
    fn after_long_quiet_a_microsecond_is_tried() {
        let mut spin = Spin::new();
        let spun: u32 = (0..33 * 10)
            .map(|_| (spin.missed(), spin.budget_micros()).1)
            .sum();
        assert_eq!(spun, 10);
        for _ in 1..32 {
            spin.missed();
        }
        spin.found();
        assert_eq!(spin.budget_micros(), 1);
    }

    proptest! {
        /// Whatever the pushes and in-place runs, a job that stays is taken at the second look
        /// after its push unless newer pushes kept the queue at one, and a doze never sleeps on a
        /// job.
        #[test]
        fn no_job_is_slept_on(looks in prop::collection::vec((0u64..3, 0usize..4), 1..400)) {
            let mut doze = Doze::new(0);
            let mut pushes = 0;
            for (pushed, queued) in looks {
                pushes += pushed;
                let look = doze.on_look(pushes, queued);
                match queued {
                    0 => prop_assert_ne!(look, Look::Take),
                    1 => prop_assert_eq!(look, if pushed > 0 { Look::Nap } else { Look::Take }),
                    _ => prop_assert_eq!(look, Look::Take),
                }
            }
        }

        /// A push wakes someone whenever nobody would otherwise look and somebody could.
        #[test]
        fn somebody_looks_after_every_push(
            queued in 0usize..4, searching in 0u32..3, dozing in 0u32..3, asleep in 0u32..3,
        ) {
            let wake = on_submit(queued, idlers(searching, dozing, asleep));
            let looked_at = searching > 0 || dozing > 0 || wake != Wake::None;
            prop_assert_eq!(looked_at, searching + dozing + asleep > 0);
            prop_assert!(wake != Wake::Doze || asleep > 0);
        }
    }
}
