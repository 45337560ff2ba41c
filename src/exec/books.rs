//! What a thread counts of the calls it makes and runs, for whoever looks at the program from outside.
//!
//! Each thread has books of its own, which it alone writes: a count is a load and a store, never a locked operation.
//! Readers add the books of all threads up; what ended threads had counted is kept in [`Past`].
//!
//! Durations need a clock, which costs more than a short call. So one call in [`ONE_IN`] is timed and counts for as many;
//! but every one is while calls are long, and after one of the first calls of a function on a thread.
//!
//! Invariant: counts only grow; nothing here is waited for. What a reader sees is a glimpse: the counts of one thread may
//! be of slightly different moments. Left out: adding up (`inspect`).

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::entry::{self, FnEntry};

/// How many short calls one timed call stands for.
const ONE_IN: u64 = 256;
/// So many calls of a function on a thread are its first.
const FIRST: u64 = 8;
/// A call that runs longer does not mind the clock.
const LONG: Duration = Duration::from_micros(20);
/// How many calls that run on one thread, one called by the other, can be seen.
const LEVELS: usize = 8;
/// Ids leave their lowest bit to the caller.
const ID_STEP: u64 = 2;
/// Slots of a histogram: powers of two of 1/1024 microsecond, up to half an hour.
pub const SLOTS: usize = 42;

/// Adds to a count that this thread alone writes.
#[inline(always)]
fn add(count: &AtomicU64, n: u64) {
    count.store(
        count.load(Ordering::Relaxed).wrapping_add(n),
        Ordering::Relaxed,
    );
}

/// A histogram of durations.
#[derive(Debug)]
pub struct Times {
    slots: [AtomicU64; SLOTS],
    samples: AtomicU64,
    nanos: AtomicU64,
}

/// One function's counts on one thread.
#[derive(Debug, Default)]
pub struct Page {
    /// Calls that ended.
    calls: AtomicU64,
    /// Those that failed.
    failed: AtomicU64,
    times: OnceLock<Box<Times>>,
}

/// A call that runs.
#[derive(Debug, Default)]
struct Level {
    /// Its id.
    call: AtomicU64,
    /// Its function.
    entry: AtomicPtr<FnEntry>,
}

/// One thread's counts.
#[derive(Debug)]
pub struct Books {
    /// How many calls run here, one called by the other.
    depth: AtomicU64,
    /// The outermost of them.
    stack: [Level; LEVELS],
    /// When each of these began, if it is timed, in nanoseconds of [`clock`]; else 0.
    began: [AtomicU64; LEVELS],
    /// The call that the thread waits for; 0 if it does not.
    awaits: AtomicU64,
    /// The actor that is drained here, innermost; 0 if none is.
    actor: AtomicU64,
    /// The worker process in which the innermost call runs; 0 if it is this one.
    process: AtomicU64,
    /// The id given out last; they go up by [`ID_STEP`].
    ids: AtomicU64,
    /// That before the first, as if all had been of the last series; odd while it changes.
    first: AtomicU64,
    /// Ids that were no calls: objects and messages of the runtime's own.
    no_calls: AtomicU64,
    cancelled: AtomicU64,
    retried: AtomicU64,
    pages: Box<[Page]>,
}

/// What only the owner of the books keeps: which calls are timed.
#[derive(Debug)]
pub struct Pace {
    /// Calls to pass before the next that is timed.
    left: Cell<u32>,
    /// Every one is.
    every: Cell<bool>,
    dice: Cell<u64>,
}

impl Pace {
    /// Every call is timed, until some have been short.
    pub fn new() -> Pace {
        Pace {
            left: Cell::new(0),
            every: Cell::new(true),
            dice: Cell::new(0),
        }
    }

    /// How many pass from now on: by chance, so that calls which come in a pattern are all timed in their turn.
    fn roll(&self) {
        if self.every.get() {
            return self.left.set(0);
        }
        let dice = &self.dice;
        dice.set(
            dice.get()
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1),
        );
        // As many below the mean as above it.
        self.left
            .set((dice.get() >> 32) as u32 % (2 * ONE_IN as u32 - 1));
    }

    fn set(&self, every: bool) {
        if self.every.replace(every) || every {
            self.roll();
        }
    }
}

/// When a call began, by [`clock`], if it is timed; else 0. The lowest bit says that it stands for itself alone.
#[derive(Clone, Copy, Debug)]
pub struct Timed(u64);

/// What runs on a thread, as last seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Glimpse {
    /// The calls that run there, one called by the other, outermost first.
    pub calls: Vec<Seen>,
    /// How many more run there, called by these.
    pub deeper: u64,
    /// The call that the innermost waits for.
    pub awaits: Option<u64>,
    /// The actor whose methods run there, perhaps further up.
    pub actor: Option<u64>,
    /// The worker process in which the innermost runs.
    pub process: Option<u64>,
}

/// A call that was seen running.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The call's id.
    pub call: u64,
    /// Its function.
    pub entry: &'static FnEntry,
    /// When it began, in nanoseconds of [`clock`], if that was noted.
    pub began: Option<u64>,
}

impl PartialEq for Seen {
    fn eq(&self, other: &Seen) -> bool {
        self.call == other.call && std::ptr::eq(self.entry, other.entry)
    }
}

/// Nanoseconds since somewhat before the first use of it in this process; never 0 nor 1.
pub fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 2
}

impl Books {
    /// Empty books; the ids given out follow this one.
    pub fn new(first: u64) -> Books {
        Books {
            depth: AtomicU64::new(0),
            stack: std::array::from_fn(|_| Level::default()),
            began: [const { AtomicU64::new(0) }; LEVELS],
            awaits: AtomicU64::new(0),
            actor: AtomicU64::new(0),
            process: AtomicU64::new(0),
            ids: AtomicU64::new(first),
            first: AtomicU64::new(first),
            no_calls: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            pages: (0..=entry::numbered().len())
                .map(|_| Page::default())
                .collect(),
        }
    }

    /// The next id of this thread; the lowest bit is 0, for the caller to use.
    #[inline(always)]
    pub fn next_id(&self) -> u64 {
        let id = self.ids.load(Ordering::Relaxed).wrapping_add(ID_STEP);
        self.ids.store(id, Ordering::Relaxed);
        id
    }

    /// The ids given out from now on follow this one. As many count as given out as before.
    #[cold]
    pub fn begin_series(&self, after: u64) {
        let ids = self.ids.load(Ordering::Relaxed);
        let given = ids.wrapping_sub(self.first.load(Ordering::Relaxed));
        self.first.store(1, Ordering::Relaxed);
        self.ids.store(after, Ordering::Release);
        self.first
            .store(after.wrapping_sub(given), Ordering::Release);
    }

    /// How many ids were given out.
    fn given(&self) -> u64 {
        loop {
            let first = self.first.load(Ordering::Acquire);
            let ids = self.ids.load(Ordering::Acquire);
            // The same before and after: these two belong together.
            if first.is_multiple_of(ID_STEP) && first == self.first.load(Ordering::Relaxed) {
                return ids.wrapping_sub(first) / ID_STEP;
            }
            std::hint::spin_loop();
        }
    }

    /// As if the ids up to this one had been given out.
    #[cfg(test)]
    pub fn set_ids(&self, id: u64) {
        self.ids.store(id, Ordering::Relaxed);
    }

    /// The id given out last is no call's.
    #[inline]
    pub fn no_call(&self) {
        add(&self.no_calls, 1);
    }

    #[inline(always)]
    fn page(&self, entry: &FnEntry) -> &Page {
        let number = entry.number.load(Ordering::Relaxed) as usize;
        match self.pages.get(number) {
            Some(page) => page,
            None => self.page_of_others(),
        }
    }

    #[cold]
    fn page_of_others(&self) -> &Page {
        &self.pages[0]
    }

    /// A call begins to run here.
    #[inline(always)]
    pub fn begin(&self, entry: &'static FnEntry, id: u64, pace: &Pace) -> Timed {
        let depth = self.depth.load(Ordering::Relaxed);
        if let Some(level) = self.stack.get(depth as usize) {
            let entry = std::ptr::from_ref(entry).cast_mut();
            level.entry.store(entry, Ordering::Relaxed);
            level.call.store(id, Ordering::Relaxed);
        }
        self.depth.store(depth + 1, Ordering::Relaxed);
        let (left, now) = pace.left.get().overflowing_sub(1);
        pace.left.set(left);
        if now {
            return self.time(pace);
        }
        Timed(0)
    }

    #[cold]
    #[inline(never)]
    fn time(&self, pace: &Pace) -> Timed {
        let alone = u64::from(pace.every.get());
        pace.roll();
        let began = clock();
        let depth = self.depth.load(Ordering::Relaxed) as usize;
        if let Some(since) = self.began.get(depth - 1) {
            since.store(began, Ordering::Relaxed);
        }
        Timed(began & !1 | alone)
    }

    /// It has run; what it was called from, if anything, goes on.
    #[inline(always)]
    pub fn end(&self, entry: &'static FnEntry, timed: Timed, pace: &Pace) {
        let depth = self.depth.load(Ordering::Relaxed);
        self.depth.store(depth - 1, Ordering::Relaxed);
        if timed.0 != 0 {
            self.note(entry, timed, pace);
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&self, entry: &'static FnEntry, timed: Timed, pace: &Pace) {
        let depth = self.depth.load(Ordering::Relaxed) as usize;
        if let Some(since) = self.began.get(depth) {
            since.store(0, Ordering::Relaxed);
        }
        let took = Duration::from_nanos(clock().saturating_sub(timed.0 & !1));
        let few = self.page(entry).calls.load(Ordering::Relaxed) < FIRST;
        pace.set(few || took >= LONG);
        let weight = if timed.0 & 1 == 1 { 1 } else { ONE_IN };
        self.took(entry, took, weight);
    }

    /// A call ran for so long, and stands for `weight` calls.
    pub fn took(&self, entry: &'static FnEntry, took: Duration, weight: u64) {
        let times = self.page(entry).times.get_or_init(|| {
            Box::new(Times {
                slots: [const { AtomicU64::new(0) }; SLOTS],
                samples: AtomicU64::new(0),
                nanos: AtomicU64::new(0),
            })
        });
        add(&times.slots[slot(took)], weight);
        add(&times.samples, 1);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 8);
        add(
            &times.nanos,
            nanos.saturating_mul(weight).min(u64::MAX >> 8),
        );
    }

    /// A call ended well.
    #[inline(always)]
    pub fn done(&self, entry: &FnEntry) {
        add(&self.page(entry).calls, 1);
    }

    /// A call ended in an error.
    pub fn failed(&self, entry: &FnEntry) {
        let page = self.page(entry);
        add(&page.calls, 1);
        add(&page.failed, 1);
    }

    /// A call was cancelled; it is counted as failed besides.
    pub fn cancelled(&self) {
        add(&self.cancelled, 1);
    }

    /// A call is tried again.
    pub fn retried(&self) {
        add(&self.retried, 1);
    }

    /// The thread waits for this call, or no longer (0); what it waited for before.
    pub fn awaits(&self, id: u64) -> u64 {
        let before = self.awaits.load(Ordering::Relaxed);
        self.awaits.store(id, Ordering::Relaxed);
        before
    }

    /// Calls of this actor run here from now on; of which it was before.
    #[inline]
    pub fn enters(&self, actor: u64) -> u64 {
        let before = self.actor.load(Ordering::Relaxed);
        self.actor.store(actor, Ordering::Relaxed);
        before
    }

    /// The innermost call runs in this process, or in this one (0); what was said before.
    pub fn process(&self, pid: u32) -> u32 {
        let before = self.process.load(Ordering::Relaxed);
        self.process.store(pid.into(), Ordering::Relaxed);
        before as u32
    }

    /// What runs here.
    pub fn glimpse(&self) -> Glimpse {
        let mut seen = self.look();
        // The function and the id are two stores: what does not look the same twice was looked at in between.
        for _ in 0..8 {
            let again = self.look();
            if again == seen {
                return seen;
            }
            seen = again;
        }
        // It changes faster than one can look; what was seen last may name the function of the call before.
        seen
    }

    fn look(&self) -> Glimpse {
        let some = |count: &AtomicU64| Some(count.load(Ordering::Acquire)).filter(|n| *n != 0);
        let depth = self.depth.load(Ordering::Acquire) as usize;
        let levels = self.stack.iter().zip(&self.began);
        let calls = levels.take(depth).filter_map(|(level, began)| {
            let entry = level.entry.load(Ordering::Acquire).cast_const();
            Some(Seen {
                call: some(&level.call)?,
                entry: entry::numbered()
                    .iter()
                    .find(|e| std::ptr::eq(**e, entry))?,
                began: some(began),
            })
        });
        Glimpse {
            calls: calls.collect(),
            deeper: depth.saturating_sub(LEVELS) as u64,
            awaits: some(&self.awaits),
            actor: some(&self.actor),
            process: some(&self.process),
        }
    }
}

/// The slot of a duration.
fn slot(took: Duration) -> usize {
    let parts = took.as_nanos().min(1 << 60) as u64 * 128 / 125;
    (u64::BITS - parts.leading_zeros()).min(SLOTS as u32 - 1) as usize
}

/// The slots of a histogram in microseconds from one in [`SLOTS`].
pub fn in_micros(slots: &[u64; SLOTS]) -> Vec<u64> {
    let mut times = vec![slots[..=10].iter().sum()];
    times.extend_from_slice(&slots[11..]);
    while times.len() > 1 && times.last() == Some(&0) {
        times.pop();
    }
    times
}

/// The duration, in microseconds, that this share of the calls did not exceed.
pub fn quantile(slots: &[u64; SLOTS], share: f64) -> Option<f64> {
    let all: u64 = slots.iter().sum();
    if all == 0 {
        return None;
    }
    let rank = (share * all as f64).max(1.0);
    let mut before = 0.0;
    for (i, n) in slots.iter().enumerate() {
        let here = *n as f64;
        if *n > 0 && before + here >= rank {
            let (low, high) = match i {
                0 => (0.0, 1.0),
                i => (2f64.powi(i as i32 - 1), 2f64.powi(i as i32)),
            };
            return Some((low + (high - low) * (rank - before) / here) / 1024.0);
        }
        before += here;
    }
    None
}

/// One function's counts, added up.
#[derive(Clone, Debug)]
pub struct FnSum {
    /// Calls that ended.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// Timed calls.
    pub samples: u64,
    /// Nanoseconds together, as estimated from them.
    pub nanos: u64,
    /// The histogram.
    pub slots: [u64; SLOTS],
}

/// Counts added up.
#[derive(Clone, Debug)]
pub struct Sums {
    /// Calls made.
    pub submitted: u64,
    /// Calls cancelled.
    pub cancelled: u64,
    /// Further attempts.
    pub retried: u64,
    /// By number of function; the first are those that no program registers.
    pub functions: Vec<FnSum>,
}

impl Sums {
    /// Nothing.
    pub fn new() -> Sums {
        let none = FnSum {
            calls: 0,
            failed: 0,
            samples: 0,
            nanos: 0,
            slots: [0; SLOTS],
        };
        Sums {
            submitted: 0,
            cancelled: 0,
            retried: 0,
            functions: vec![none; entry::numbered().len() + 1],
        }
    }

    /// Adds a thread's books.
    pub fn add(&mut self, books: &Books) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.submitted += books.given().saturating_sub(get(&books.no_calls));
        self.cancelled += get(&books.cancelled);
        self.retried += get(&books.retried);
        for (sum, page) in self.functions.iter_mut().zip(&books.pages) {
            sum.calls += get(&page.calls);
            sum.failed += get(&page.failed);
            if let Some(times) = page.times.get() {
                sum.samples += get(&times.samples);
                sum.nanos = sum.nanos.saturating_add(get(&times.nanos));
                for (sum, slot) in sum.slots.iter_mut().zip(&times.slots) {
                    *sum += get(slot);
                }
            }
        }
    }

    /// Calls that ended, and those that failed.
    pub fn ended(&self) -> (u64, u64) {
        self.functions
            .iter()
            .fold((0, 0), |(c, f), sum| (c + sum.calls, f + sum.failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::entry::Kind;

    static F: FnEntry = FnEntry::inert("f", Kind::Task);

    #[test]
    fn short_calls_are_sampled_and_the_histogram_still_adds_up() {
        let (books, pace) = (Books::new(0), Pace::new());
        let calls = 20_000;
        for id in 1..=calls {
            let timed = books.begin(&F, id, &pace);
            books.end(&F, timed, &pace);
            books.done(&F);
        }
        let mut sums = Sums::new();
        sums.add(&books);
        let f = &sums.functions[0];
        assert_eq!(f.calls, calls);
        assert!(f.samples >= FIRST && f.samples < calls / 4, "{}", f.samples);
        let counted: u64 = f.slots.iter().sum();
        // Now and then the machine makes a call long, and those after it are all timed: then they count one each.
        assert!(counted > calls / 4 && counted < calls * 4, "{counted}");
        assert!(books.glimpse().calls.is_empty());
    }

    #[test]
    fn the_first_calls_of_a_thread_are_timed_whatever_their_ids() {
        let (books, pace) = (Books::new(0), Pace::new());
        for id in [2, 3, 5, 7] {
            let timed = books.begin(&F, id, &pace);
            assert_ne!(timed.0, 0);
            books.end(&F, timed, &pace);
            books.failed(&F);
        }
        let mut sums = Sums::new();
        sums.add(&books);
        sums.add(&books);
        let f = &sums.functions[0];
        assert_eq!((f.calls, f.failed, f.samples), (8, 8, 8));
        assert_eq!(sums.ended(), (8, 8));
    }

    #[test]
    fn durations_fall_into_the_slots_they_should() {
        let mut slots = [0; SLOTS];
        for micros in [0.1, 0.9, 1.5, 3.0, 900.0, 1500.0, 1e12] {
            slots[slot(Duration::from_secs_f64(micros / 1e6))] += 1;
        }
        let times = in_micros(&slots);
        assert_eq!(times[0], 2, "{times:?}");
        assert_eq!((times[1], times[2], times[10], times[11]), (1, 1, 1, 1));
        assert_eq!(times.last(), Some(&1));
        assert_eq!(times.iter().sum::<u64>(), 7);
        assert_eq!(in_micros(&[0; SLOTS]), [0]);
    }

    #[test]
    fn quantiles_lie_in_their_slots() {
        let mut slots = [0; SLOTS];
        assert_eq!(quantile(&slots, 0.5), None);
        slots[slot(Duration::from_micros(100))] = 98;
        slots[slot(Duration::from_millis(10))] = 2;
        let (half, most) = (
            quantile(&slots, 0.5).unwrap(),
            quantile(&slots, 0.99).unwrap(),
        );
        assert!((64.0..=128.0).contains(&half), "{half}");
        assert!((8192.0..=16384.0).contains(&most), "{most}");
    }
}
