//! How many slots each lease should have, and whose turn it is.
//!
//! Invariant: a lease that gets no slot while others of its priority have some gets one within as many [`QUANTUM`]s as
//! there are leases. Left out: the division itself, which `share` does, and the steps to it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Effect, Grantor, Key, Lease, QUANTUM};
use crate::base::Demand;
use crate::core::amounts;
use crate::core::leases::share::{self, Claim};
use crate::core::leases::{Ending, MAX_SLOTS, TERM};

impl Grantor {
    /// Time passed: leases of which nothing was heard for [`TERM`] end, and those without a slot have their turn. To be
    /// called a few times per second.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let silent = |lease: &Lease| now.saturating_sub(lease.heard) > TERM && lease.busy == 0;
        let all = self.leases.iter().filter(|(_, lease)| silent(lease));
        let lapsed: Vec<Key> = all.map(|(key, _)| *key).collect();
        for key in &lapsed {
            self.end(*key, Some(Ending::Lapsed), out);
        }
        let turn = now.saturating_sub(self.round.1) >= QUANTUM && self.starves();
        if turn {
            self.round = (self.round.0 + 1, now);
        }
        if turn || self.stale || !lapsed.is_empty() {
            self.rebalance(turn, out);
        }
        // Those that found no ticket left.
        let lacks = |lease: &Lease| lease.working() + (lease.pending.len() as u32) < lease.goal();
        let lacking: Vec<Key> = self
            .leases
            .iter()
            .filter(|(_, l)| lacks(l))
            .map(|(k, _)| *k)
            .collect();
        for key in lacking {
            self.settle(key, out);
        }
    }

    /// Whether a lease has nothing that another of its priority has.
    fn starves(&self) -> bool {
        let local = (0, self.local_share.0, self.local.0);
        let all = || {
            let leases = self
                .leases
                .values()
                .map(|l| (l.priority, l.share, l.useful()));
            leases.chain([local])
        };
        let has: BTreeSet<i32> = all()
            .filter(|(_, share, _)| *share > 0)
            .map(|(p, _, _)| p)
            .collect();
        all().any(|(p, share, want)| share == 0 && want > 0 && has.contains(&p))
    }

    /// What every lease should have, and the steps there. With a `turn`, nobody keeps what others wait for.
    pub(super) fn rebalance(&mut self, turn: bool, out: &mut Vec<Effect>) {
        self.stale = false;
        if self.leases.is_empty() {
            return;
        }
        let (own, shares) = self.divided(turn);
        let mut moved = Vec::new();
        self.local_share.0 = own;
        if own > 0 {
            self.local_share.1 = self.round.0;
        }
        for ((key, lease), share) in self.leases.iter_mut().zip(shares) {
            if share > 0 {
                lease.round = self.round.0;
            }
            if lease.share != share {
                let grows = share > lease.share;
                lease.share = share;
                moved.push((grows, *key));
            }
        }
        // Those that lose first: what they give back is there when the others ask the ledger.
        moved.sort_by_key(|(grows, _)| *grows);
        for (_, key) in moved {
            self.settle(key, out);
        }
    }

    /// What is this node's own, and what every lease should have, in their order.
    fn divided(&self, turn: bool) -> (u32, Vec<u32>) {
        let one = Demand::ONE_CPU;
        let mut claims = vec![Claim {
            who: 0,
            demand: &one,
            priority: 0,
            want: self.local.0.min(MAX_SLOTS),
            has: if turn { 0 } else { self.local_share.0 },
            rank: self.local_share.1,
        }];
        let mut parts = vec![amounts::dominant(&self.local.1, &self.whole)];
        let mut last = self.me;
        for ((node, _), lease) in &self.leases {
            if parts.len() == 1 || *node != last {
                parts.push(0);
                last = *node;
            }
            claims.push(Claim {
                who: parts.len() - 1,
                demand: &lease.demand,
                priority: lease.priority,
                want: lease.useful(),
                has: if turn { 0 } else { lease.share },
                rank: lease.round,
            });
        }
        let mut free = self.whole.clone();
        amounts::subtract(&mut free, &self.local.1);
        let mut shares = share::divide(&self.whole, free, &claims, &mut parts);
        let leases = shares.split_off(1);
        (shares[0], leases)
    }

    /// Whether nothing that is nobody's would do for a slot that a lease could use.
    #[cfg(test)]
    pub(in crate::core::leases) fn is_divided(&self) -> bool {
        let mut free = self.whole.clone();
        amounts::subtract(&mut free, &self.local.1);
        let held = |n: u32, demand: &Demand, free: &mut Demand| {
            (0..n).for_each(|_| amounts::subtract(free, demand));
        };
        held(self.local_share.0, &Demand::ONE_CPU, &mut free);
        for lease in self.leases.values() {
            held(lease.goal(), &lease.demand, &mut free);
        }
        let mut lacking = self.leases.values().filter(|l| l.share < l.useful());
        !lacking.any(|lease| amounts::fits(&free, &lease.demand))
    }
}
