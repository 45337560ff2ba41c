//! Which runs of pages are free: a pure state machine, no memory behind it.
//!
//! Pages below the *frontier* have been handed out at least once and are warm; pages above it were
//! never touched. Invariants: free runs lie below the frontier, never overlap and never adjoin
//! (neighbours are merged); both indexes hold the same runs. Warm runs are used before the frontier
//! moves, best fit first and lowest address among equals. The frontier never passes a limit, which
//! whoever watches the machine's memory raises step by step. Left out: locks, origins, bytes.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes of one page, the unit of this allocator.
pub const PAGE: u64 = 4096;

/// The free runs of an arena of a fixed number of pages.
#[derive(Debug)]
pub struct Extents {
    total: u64,
    limit: u64,
    frontier: u64,
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
}

impl Extents {
    /// All of `total` pages free and untouched.
    pub fn new(total: u64) -> Extents {
        Extents {
            total,
            limit: total,
            frontier: 0,
            by_start: BTreeMap::new(),
            by_size: BTreeSet::new(),
        }
    }

    /// First page that was never handed out.
    pub fn frontier(&self) -> u64 {
        self.frontier
    }

    /// How far the frontier may move.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Lets the frontier move up to `limit`: at least where it is, at most to the end.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit.clamp(self.frontier, self.total);
    }

    /// The limit at which [`take_aligned`](Self::take_aligned) would return a run; `None` if it returns
    /// one as it is, or would at no limit.
    pub fn limit_for(&self, pages: u64, align: u64) -> Option<u64> {
        let start = self.tail().0.checked_next_multiple_of(align)?;
        let end = start.checked_add(pages)?;
        let fits =
            |&(size, start): &(u64, u64)| start.next_multiple_of(align) + pages <= start + size;
        let warm = self.by_size.range((pages, 0)..).any(fits);
        (!warm && end > self.limit && end <= self.total).then_some(end)
    }

    /// Pages in the longest run that [`take`](Self::take) could still return.
    pub fn largest_free(&self) -> u64 {
        let warm = self.by_size.last().map_or(0, |&(pages, _)| pages);
        warm.max(self.tail().1 + self.total - self.frontier)
    }

    /// Takes a run of `pages` and returns its first page; `None` if no run is long enough.
    /// Logarithmic in the number of free runs.
    pub fn take(&mut self, pages: u64) -> Option<u64> {
        assert!(pages > 0, "a run has at least one page");
        if let Some(&(size, start)) = self.by_size.range((pages, 0)..).next() {
            self.remove(start, size);
            if size > pages {
                self.insert(start + pages, size - pages);
            }
            return Some(start);
        }
        // The warm run that ends at the frontier, if any, is the start of the new one: otherwise
        // an emptied arena could not serve a run as long as itself.
        let (start, warm) = self.tail();
        if warm + self.limit - self.frontier < pages {
            return None;
        }
        if warm > 0 {
            self.remove(start, warm);
        }
        self.frontier = start + pages;
        Some(start)
    }

    /// As [`take`](Self::take), a run that begins at a multiple of `align` pages. Among the free runs
    /// that are longer than `pages` by less than `align` it tries one after the other.
    pub fn take_aligned(&mut self, pages: u64, align: u64) -> Option<u64> {
        if align == 1 {
            return self.take(pages);
        }
        assert!(pages > 0, "a run has at least one page");
        let fits = |&(size, start): &(u64, u64)| {
            let at = start.next_multiple_of(align);
            (at + pages <= start + size).then_some((size, start, at))
        };
        if let Some((size, start, at)) = self.by_size.range((pages, 0)..).find_map(fits) {
            self.remove(start, size);
            self.insert_some(start, at - start);
            self.insert_some(at + pages, start + size - at - pages);
            return Some(at);
        }
        let (start, warm) = self.tail();
        let at = start.next_multiple_of(align);
        if at.checked_add(pages)? > self.limit {
            return None;
        }
        if warm > 0 {
            self.remove(start, warm);
        }
        self.insert_some(start, at - start);
        self.frontier = at + pages;
        Some(at)
    }

    /// Gives a run back and merges it with its free neighbours. Logarithmic.
    ///
    /// # Panics
    /// If any page of it is free already or was never taken, before anything is changed.
    pub fn give(&mut self, start: u64, pages: u64) {
        let end = start + pages;
        let before = self
            .by_start
            .range(..end)
            .next_back()
            .map(|(&s, &n)| (s, n));
        let overlaps = before.is_some_and(|(s, n)| s + n > start) || end > self.frontier;
        assert!(
            !overlaps && pages > 0,
            "pages {start}..{end} were given back but are not taken (double free?)"
        );
        let (mut first, mut count) = (start, pages);
        if let Some((s, n)) = before
            && s + n == start
        {
            self.remove(s, n);
            (first, count) = (s, n + pages);
        }
        if let Some(&n) = self.by_start.get(&end) {
            self.remove(end, n);
            count += n;
        }
        self.insert(first, count);
    }

    /// The free run that ends at the frontier: its start and length, (frontier, 0) if none.
    fn tail(&self) -> (u64, u64) {
        match self.by_start.last_key_value() {
            Some((&s, &n)) if s + n == self.frontier => (s, n),
            _ => (self.frontier, 0),
        }
    }

    fn insert_some(&mut self, start: u64, pages: u64) {
        if pages > 0 {
            self.insert(start, pages);
        }
    }

    fn insert(&mut self, start: u64, pages: u64) {
        self.by_start.insert(start, pages);
        self.by_size.insert((pages, start));
    }

    fn remove(&mut self, start: u64, pages: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(pages, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn best_fit_then_lowest_address_then_frontier() {
        let mut e = Extents::new(100);
        let runs: Vec<u64> = [4, 1, 2, 1, 2, 1]
            .iter()
            .map(|&n| e.take(n).unwrap())
            .collect();
        assert_eq!(runs, [0, 4, 5, 7, 8, 10]);
        for (start, pages) in [(0, 4), (5, 2), (8, 2)] {
            e.give(start, pages);
        }
        assert_eq!(
            e.take(2),
            Some(5),
            "the smallest that fits, lowest of two equals"
        );
        assert_eq!(e.take(3), Some(0));
        assert_eq!(e.frontier(), 11);
        assert_eq!(e.take(3), Some(11), "no warm run is long enough");
        assert_eq!(e.frontier(), 14);
    }

    #[test]
    fn a_warm_tail_grows_into_the_wilderness() {
        let mut e = Extents::new(10);
        let a = e.take(3).unwrap();
        e.give(a, 3);
        assert_eq!(e.largest_free(), 10);
        assert_eq!(e.take(10), Some(0));
        assert_eq!((e.take(1), e.largest_free()), (None, 0));
    }

    #[test]
    fn the_frontier_stops_at_the_limit() {
        let mut e = Extents::new(10);
        e.set_limit(3);
        assert_eq!((e.take(4), e.limit_for(4, 1)), (None, Some(4)));
        assert_eq!((e.take(2), e.limit_for(1, 1)), (Some(0), None));
        e.give(0, 2);
        assert_eq!((e.limit_for(2, 1), e.limit_for(3, 1)), (None, None));
        assert_eq!(e.limit_for(4, 1), Some(4), "the warm tail counts");
        assert_eq!(e.limit_for(11, 1), None, "there are not that many");
        assert_eq!(e.limit_for(4, 4), Some(4));
        e.set_limit(99);
        assert_eq!((e.limit(), e.take(10)), (10, Some(0)));
        e.set_limit(0);
        assert_eq!(e.limit(), 10, "not below the frontier");
    }

    #[test]
    fn aligned_runs_leave_what_is_around_them() {
        let mut e = Extents::new(32);
        assert_eq!(e.take(3), Some(0));
        assert_eq!(e.take_aligned(8, 8), Some(8));
        assert_eq!(e.take(5), Some(3), "what was skipped is free");
        assert_eq!(e.take_aligned(8, 8), Some(16));
        e.give(8, 8);
        e.give(3, 5);
        assert_eq!(e.take_aligned(4, 4), Some(4), "a warm run, in its middle");
        assert_eq!(e.take(1), Some(3));
        assert_eq!(e.take_aligned(8, 8), Some(8));
        assert_eq!(e.take_aligned(9, 8), None);
        assert_eq!(e.take_aligned(8, 8), Some(24), "the last grain");
        assert_eq!((e.take(1), e.largest_free()), (None, 0));
        assert_eq!(e.take_aligned(u64::MAX, 8), None);
    }

    #[test]
    #[should_panic(expected = "double free")]
    fn giving_twice_panics() {
        let mut e = Extents::new(10);
        let a = e.take(3).unwrap();
        e.take(1).unwrap();
        e.give(a, 3);
        e.give(a + 1, 1);
    }

    #[test]
    #[should_panic(expected = "double free")]
    fn giving_the_wilderness_panics() {
        Extents::new(10).give(0, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

        /// An aligned run is taken wherever one is free, and overlaps nothing.
        #[test]
        fn aligned_runs_agree_with_a_bitmap(
            steps in prop::collection::vec((0u8..3, 1u64..40, 0u32..4), 1..80)
        ) {
            const TOTAL: u64 = 128;
            let mut e = Extents::new(TOTAL);
            let mut taken = [false; TOTAL as usize];
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (step, n, align) in steps {
                let align = 1 << align;
                if step == 0 && !live.is_empty() {
                    let (start, pages) = live.swap_remove(n as usize % live.len());
                    e.give(start, pages);
                    taken[start as usize..(start + pages) as usize].fill(false);
                    continue;
                }
                let free = |start: u64| (start..start + n).all(|i| !taken[i as usize]);
                let mut starts = (0..=TOTAL - n).step_by(align as usize);
                match e.take_aligned(n, align) {
                    Some(start) => {
                        prop_assert!(start % align == 0 && free(start));
                        taken[start as usize..(start + n) as usize].fill(true);
                        live.push((start, n));
                    }
                    None => prop_assert!(!starts.any(free)),
                }
            }
            for (start, pages) in live {
                e.give(start, pages);
            }
            prop_assert_eq!(e.take(TOTAL), Some(0));
        }

        /// Against a bitmap: no overlap, nothing refused that would fit, all of it comes back.
        #[test]
        fn agrees_with_a_bitmap(steps in prop::collection::vec((any::<bool>(), 1u64..40), 1..80)) {
            const TOTAL: u64 = 128;
            let mut e = Extents::new(TOTAL);
            let mut taken = [false; TOTAL as usize];
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (give, n) in steps {
                if give && !live.is_empty() {
                    let (start, pages) = live.swap_remove(n as usize % live.len());
                    e.give(start, pages);
                    taken[start as usize..(start + pages) as usize].fill(false);
                } else {
                    let longest = taken.split(|t| *t).map(<[bool]>::len).max().unwrap_or(0) as u64;
                    prop_assert_eq!(e.largest_free(), longest);
                    match e.take(n) {
                        Some(start) => {
                            let run = &mut taken[start as usize..(start + n) as usize];
                            prop_assert!(run.iter().all(|t| !t));
                            run.fill(true);
                            live.push((start, n));
                        }
                        None => prop_assert!(n > longest),
                    }
                }
            }
            for (start, pages) in live {
                e.give(start, pages);
            }
            prop_assert_eq!(e.largest_free(), TOTAL);
            prop_assert_eq!(e.take(TOTAL), Some(0));
        }
    }
}
