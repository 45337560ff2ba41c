//! Who may take room first when the store is full: a line of requests, as a pure machine.
//!
//! First come, first served, with one exception: a request may pass one before it that asks for at
//! least four times as much, as long as all that passed that one is no more than it asks for
//! itself. So small ones go on while a large one waits, yet cannot keep it waiting: it is passed by
//! its own size and no more, and then room is kept for it. A request that has waited in vain for long is *stuck* and holds nobody up any
//! more, because what it needs may never come; it keeps its place and is served if it fits.
//!
//! Invariant: tickets are unique and in the order of entry. Left out: clocks, threads, and whether
//! there is room.

use std::collections::VecDeque;

/// Who passes another asks for no more than this part of it.
const SMALL: u64 = 4;

struct Waiter {
    ticket: u64,
    who: u64,
    bytes: u64,
    /// Bytes of those who came later and were served first.
    passed: u64,
    stuck: bool,
}

/// The line.
#[derive(Default)]
pub struct Line {
    queue: VecDeque<Waiter>,
    tickets: u64,
}

impl Line {
    /// Joins the end, for `bytes`, on behalf of `who`.
    pub fn enter(&mut self, who: u64, bytes: u64) -> u64 {
        self.tickets += 1;
        self.queue.push_back(Waiter {
            ticket: self.tickets,
            who,
            bytes,
            passed: 0,
            stuck: false,
        });
        self.tickets
    }

    /// Whether this one may take room now.
    pub fn may_try(&self, ticket: u64) -> bool {
        let Some(place) = self.place(ticket) else {
            return false;
        };
        let bytes = self.queue[place].bytes;
        let mut before = self.queue.iter().take(place);
        before.all(|w| {
            let small = bytes.saturating_mul(SMALL) <= w.bytes;
            w.stuck || (small && w.passed.saturating_add(bytes) <= w.bytes)
        })
    }

    /// It took its room and leaves; whom it passed remembers.
    pub fn served(&mut self, ticket: u64) {
        if let Some(place) = self.place(ticket) {
            let bytes = self.queue[place].bytes;
            for passed in self.queue.iter_mut().take(place) {
                passed.passed = passed.passed.saturating_add(bytes);
            }
            self.queue.remove(place);
        }
    }

    /// It leaves without.
    pub fn leave(&mut self, ticket: u64) {
        if let Some(place) = self.place(ticket) {
            self.queue.remove(place);
        }
    }

    /// It has waited in vain for long, or has reason to hope again.
    pub fn set_stuck(&mut self, ticket: u64, stuck: bool) {
        if let Some(place) = self.place(ticket) {
            self.queue[place].stuck = stuck;
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The bytes that they ask for together.
    pub fn bytes(&self) -> u64 {
        self.queue
            .iter()
            .fold(0, |sum, w| sum.saturating_add(w.bytes))
    }

    /// What `who` waits for, if it does.
    pub fn awaited_by(&self, who: u64) -> Option<u64> {
        self.queue.iter().find(|w| w.who == who).map(|w| w.bytes)
    }

    fn place(&self, ticket: u64) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket, |w| w.ticket).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equals_are_served_in_order() {
        let mut line = Line::default();
        let [a, b, c] = [1, 2, 3].map(|who| line.enter(who, 10));
        assert!(line.may_try(a) && !line.may_try(b));
        line.leave(b);
        assert!(!line.may_try(c));
        line.served(a);
        assert!(line.may_try(c));
        assert_eq!((line.len(), line.bytes()), (1, 10));
        assert_eq!((line.awaited_by(3), line.awaited_by(1)), (Some(10), None));
        line.leave(c);
        assert_eq!(line.len(), 0);
    }

    #[test]
    fn small_ones_pass_a_large_one_by_its_own_size() {
        let mut line = Line::default();
        let large = line.enter(0, 100);
        for _ in 0..10 {
            let small = line.enter(1, 10);
            assert!(line.may_try(small));
            line.served(small);
        }
        let small = line.enter(1, 10);
        assert!(!line.may_try(small), "now room is kept for the large one");
        line.set_stuck(large, true);
        assert!(line.may_try(small), "unless it waits in vain");
        line.set_stuck(large, false);
        line.leave(large);
        assert!(line.may_try(small));
    }

    #[test]
    fn a_large_one_behind_a_small_one_waits() {
        let mut line = Line::default();
        let small = line.enter(0, 10);
        let large = line.enter(1, 100);
        assert!(!line.may_try(large) && line.may_try(small));
        line.served(small);
        assert!(line.may_try(large));
        assert!(!line.may_try(small), "it has left");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

        /// Nobody is passed by more than it asks for while it is not stuck, and the first may always try.
        #[test]
        fn nobody_is_passed_by_more_than_its_own(steps in prop::collection::vec((0u8..4, 1u64..50), 1..100)) {
            let mut line = Line::default();
            let mut live: Vec<(u64, u64, u64)> = Vec::new(); // ticket, bytes, passed
            for (step, n) in steps {
                match step {
                    0 | 1 => live.push((line.enter(n, n), n, 0)),
                    2 if !live.is_empty() => {
                        prop_assert!(line.may_try(live[0].0));
                        let able: Vec<usize> = (0..live.len()).filter(|&i| line.may_try(live[i].0)).collect();
                        let at = able[n as usize % able.len()];
                        let (ticket, bytes, _) = live.remove(at);
                        line.served(ticket);
                        for before in &mut live[..at] {
                            before.2 += bytes;
                            prop_assert!(before.2 <= before.1);
                        }
                    }
                    3 if !live.is_empty() => {
                        let at = n as usize % live.len();
                        line.leave(live.remove(at).0);
                    }
                    _ => {}
                }
                prop_assert_eq!(line.len(), live.len());
                prop_assert_eq!(line.bytes(), live.iter().map(|l| l.1).sum::<u64>());
            }
        }
    }
}
