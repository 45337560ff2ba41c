//! One actor's admission: which calls may run side by side.
//!
//! Invariant: an exclusive call (`&mut self`) runs alone; shared calls (`&self`) run together, at
//! most
//! `max_concurrency` of them. Calls are admitted in the order of the mailbox: one that must wait
//! parks the mailbox, and nothing passes it, so that a stream of shared calls cannot starve an
//! exclusive one. Left out: the mailbox itself, the order per caller (`order`), and running the
//! calls.

/// How a method takes its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `&mut self` or `self`: alone.
    Exclusive,
    /// `&self`: beside other shared calls.
    Shared,
}

/// Whether the call at the head of the mailbox may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Admit {
    /// It runs now, until [`Gate::leave`].
    Run,
    /// It stays at the head, and the mailbox is parked until [`Gate::leave`] says to resume it.
    Wait,
}

/// Admission to one actor.
///
/// Only the one who drains the mailbox asks, and only for its head. A caller that runs a call in
/// place counts as the drainer: it may ask when the mailbox is empty and not parked.
#[derive(Clone, Debug)]
pub struct Gate {
    max: u32,
    shared: u32,
    exclusive: bool,
    parked: Option<Kind>,
}

impl Gate {
    /// A gate that lets at most `max_concurrency` shared calls run side by side. With 1 (or 0,
    /// which means the same) everything runs one at a time.
    pub const fn new(max_concurrency: u32) -> Gate {
        let max = if max_concurrency == 0 {
            1
        } else {
            max_concurrency
        };
        Gate {
            max,
            shared: 0,
            exclusive: false,
            parked: None,
        }
    }

    /// Asks for the call at the head of the mailbox. While the mailbox is parked the answer is
    /// `Wait`: whoever asks then is not its head.
    pub fn admit(&mut self, kind: Kind) -> Admit {
        if self.parked.is_some() {
            return Admit::Wait;
        }
        if !self.has_room(kind) {
            self.parked = Some(kind);
            return Admit::Wait;
        }
        match kind {
            Kind::Exclusive => self.exclusive = true,
            Kind::Shared => self.shared += 1,
        }
        Admit::Run
    }

    /// A running call of this kind ended. True, once per parking: the head of the mailbox fits now,
    /// so the caller must drain it (asking [`Gate::admit`] again for its head).
    #[must_use = "a parked mailbox that is not resumed hangs its actor"]
    pub fn leave(&mut self, kind: Kind) -> bool {
        match kind {
            Kind::Exclusive => {
                debug_assert!(self.exclusive, "an exclusive call left that never entered");
                self.exclusive = false;
            }
            Kind::Shared => {
                debug_assert!(self.shared > 0, "a shared call left that never entered");
                self.shared = self.shared.saturating_sub(1);
            }
        }
        match self.parked {
            Some(head) if self.has_room(head) => {
                self.parked = None;
                true
            }
            _ => false,
        }
    }

    /// Forgets the parked head, which was cancelled before it ran. True: there was one, so the
    /// caller must drain what is behind it.
    #[must_use = "a parked mailbox that is not resumed hangs its actor"]
    pub fn unpark(&mut self) -> bool {
        self.parked.take().is_some()
    }

    /// How many calls run now.
    pub const fn running(&self) -> u32 {
        self.shared + self.exclusive as u32
    }

    /// Whether any call runs.
    pub const fn busy(&self) -> bool {
        self.running() > 0
    }

    /// Whether nothing runs and nothing is parked: the actor may be run in place, moved or dropped.
    #[cfg(test)]
    pub const fn idle(&self) -> bool {
        !self.busy() && self.parked.is_none()
    }

    /// Whether the mailbox waits for a [`Gate::leave`].
    pub const fn parked(&self) -> bool {
        self.parked.is_some()
    }

    fn has_room(&self, kind: Kind) -> bool {
        match kind {
            Kind::Exclusive => !self.busy(),
            Kind::Shared => !self.exclusive && self.shared < self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Admit::{Run, Wait};
    use super::Kind::{Exclusive, Shared};
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn with_one_everything_runs_one_at_a_time() {
        for max in [0, 1] {
            for (first, second) in [(Shared, Shared), (Shared, Exclusive), (Exclusive, Shared)] {
                let mut gate = Gate::new(max);
                assert!(gate.idle());
                assert_eq!(gate.admit(first), Run);
                assert_eq!(gate.admit(second), Wait);
                assert!(gate.leave(first));
                assert!(gate.idle());
                assert_eq!(gate.admit(second), Run);
                assert!(!gate.leave(second));
            }
        }
    }

    #[test]
    fn shared_calls_run_side_by_side_up_to_the_limit() {
        let mut gate = Gate::new(3);
        assert_eq!(
            [gate.admit(Shared), gate.admit(Shared), gate.admit(Shared)],
            [Run; 3]
        );
        assert_eq!(gate.admit(Shared), Wait);
        assert!(gate.leave(Shared), "one left, so the parked one fits");
        assert!(!gate.leave(Shared), "the mailbox is resumed once");
        assert_eq!(gate.running(), 1);
    }

    #[test]
    fn shared_calls_do_not_pass_a_waiting_exclusive_one() {
        let mut gate = Gate::new(8);
        assert_eq!([gate.admit(Shared), gate.admit(Shared)], [Run; 2]);
        assert_eq!(gate.admit(Exclusive), Wait);
        assert_eq!(
            gate.admit(Shared),
            Wait,
            "there is room, but it is not the head"
        );
        assert!(!gate.leave(Shared));
        assert!(gate.leave(Shared));
        assert_eq!(gate.admit(Exclusive), Run);
        assert_eq!(gate.admit(Shared), Wait);
        assert!(gate.leave(Exclusive));
        assert_eq!(gate.admit(Shared), Run);
    }

    #[test]
    fn a_cancelled_head_frees_what_is_behind_it() {
        let mut gate = Gate::new(8);
        assert_eq!(gate.admit(Shared), Run);
        assert_eq!(gate.admit(Exclusive), Wait);
        assert!(gate.unpark());
        assert!(!gate.unpark());
        assert_eq!(gate.admit(Shared), Run);
    }

    proptest! {
        /// A mailbox driven through the gate runs every call, in order of admission, within the
        /// rules.
        #[test]
        fn every_call_runs_in_order_and_within_the_rules(
            max in 0u32..5,
            calls in prop::collection::vec(any::<bool>(), 0..80),
            leaves in prop::collection::vec(any::<prop::sample::Index>(), 80),
        ) {
            let mut gate = Gate::new(max);
            let mut mailbox: VecDeque<(usize, Kind)> = calls
                .iter()
                .map(|&shared| if shared { Shared } else { Exclusive })
                .enumerate()
                .collect();
            let (mut running, mut started) = (Vec::new(), Vec::new());
            let mut leaves = leaves.into_iter();
            let mut resume = true;
            loop {
                while resume && let Some(&(id, kind)) = mailbox.front() {
                    if gate.admit(kind) == Wait {
                        break;
                    }
                    mailbox.pop_front();
                    running.push(kind);
                    started.push(id);
                    let exclusive = running.iter().filter(|k| **k == Exclusive).count();
                    prop_assert!(exclusive == 0 || running.len() == 1);
                    prop_assert!(running.len() <= max.max(1) as usize);
                }
                if running.is_empty() {
                    break;
                }
                let at = leaves.next().unwrap().index(running.len());
                resume = gate.leave(running.swap_remove(at));
                prop_assert_eq!(gate.running() as usize, running.len());
            }
            prop_assert_eq!(started, (0..calls.len()).collect::<Vec<_>>());
            prop_assert!(gate.idle());
        }
    }
}
