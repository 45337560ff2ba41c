//! A set of numbers as ranges: which bytes of a mapping this process has written to before.
//!
//! Pure. Invariant: ranges never overlap and never adjoin. Left out: taking numbers out again.

use std::collections::BTreeMap;

/// The ranges, begin to end.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// Whether all of `begin..end` is in the set.
    pub fn covers(&self, begin: usize, end: usize) -> bool {
        let before = self.0.range(..=begin).next_back();
        begin >= end || before.is_some_and(|(_, until)| *until >= end)
    }

    /// Adds `begin..end`.
    pub fn add(&mut self, begin: usize, end: usize) {
        if begin >= end {
            return;
        }
        let (mut first, mut last) = (begin, end);
        // From the last range that begins before the end backwards, those that touch it.
        while let Some((&at, &until)) = self.0.range(..=last).next_back()
            && until >= first
        {
            first = first.min(at);
            last = last.max(until);
            self.0.remove(&at);
        }
        self.0.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_become_one() {
        let mut ranges = Ranges::default();
        ranges.add(10, 20);
        ranges.add(30, 40);
        ranges.add(5, 5);
        assert!(ranges.covers(10, 20) && ranges.covers(12, 13) && ranges.covers(50, 50));
        assert!(!ranges.covers(10, 21) && !ranges.covers(9, 11) && !ranges.covers(5, 6));
        ranges.add(20, 30);
        assert!(ranges.covers(10, 40));
        assert_eq!(ranges.0.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

        /// Against a bitmap.
        #[test]
        fn agrees_with_a_bitmap(steps in prop::collection::vec((0usize..64, 0usize..64), 1..40)) {
            let mut ranges = Ranges::default();
            let mut bits = [false; 64];
            for (a, b) in steps {
                let (begin, end) = (a.min(b), a.max(b));
                prop_assert_eq!(ranges.covers(begin, end), bits[begin..end].iter().all(|b| *b));
                ranges.add(begin, end);
                bits[begin..end].fill(true);
                let apart: Vec<_> = ranges.0.iter().collect();
                prop_assert!(apart.windows(2).all(|w| w[0].1 < w[1].0));
            }
        }
    }
}
