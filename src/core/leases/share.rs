//! Who may have how many slots: the fair division of a node between those who want some of it.
//!
//! Higher priorities first. Within one, slot by slot to whoever has least so far, measured by the resource of which it
//! has the largest part (dominant resource fairness). So nobody can get more without somebody with less losing some.
//!
//! Invariant: together at most what there is and [`MAX_TICKETS`] slots; nobody gets more than it wants; the same claims
//! give the same answer, and between equals whoever has the slot keeps it. Left out: who the claimants are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::MAX_TICKETS;
use crate::base::Demand;
use crate::core::amounts::{dominant, fits, subtract};

/// Somebody's wish for slots of one shape.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose: claims of one submitter share its part. An index into the parts.
    pub who: usize,
    /// One slot.
    pub demand: &'a Demand,
    /// Higher comes first.
    pub priority: i32,
    /// Slots wanted.
    pub want: u32,
    /// Slots it keeps if it is its turn as much as another's.
    pub has: u32,
    /// Whose turn it is among equals: lowest first.
    pub rank: u64,
}

/// How many slots each claim gets. `parts` is what each submitter has beyond its claims, in millionths of the node.
pub fn divide(
    whole: &Demand,
    mut free: Demand,
    claims: &[Claim<'_>],
    parts: &mut [u64],
) -> Vec<u32> {
    let mut given = vec![0u32; claims.len()];
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_by_key(|at| Reverse(claims[*at].priority));
    let mut left = MAX_TICKETS;
    for level in order.chunk_by(|a, b| claims[*a].priority == claims[*b].priority) {
        let key = |at: usize, given: u32, part: u64| {
            let keeps = given < claims[at].has;
            let own = dominant(claims[at].demand, whole).saturating_mul(given.into());
            Reverse((part, !keeps, own, claims[at].rank, at))
        };
        let wants = level.iter().filter(|at| claims[**at].want > 0);
        let mut heap: BinaryHeap<_> = wants
            .map(|at| key(*at, 0, parts[claims[*at].who]))
            .collect();
        while let Some(Reverse((part, .., at))) = heap.pop() {
            let claim = &claims[at];
            if part < parts[claim.who] {
                // Another claim of the same submitter got a slot meanwhile.
                heap.push(key(at, given[at], parts[claim.who]));
                continue;
            }
            if left == 0 || !fits(&free, claim.demand) {
                continue;
            }
            left -= 1;
            subtract(&mut free, claim.demand);
            given[at] += 1;
            parts[claim.who] = part.saturating_add(dominant(claim.demand, whole));
            if given[at] < claim.want {
                heap.push(key(at, given[at], parts[claim.who]));
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Units;
    use proptest::prelude::*;

    fn cpus(n: u64) -> Demand {
        Demand::cpu_only(Units::whole(n))
    }

    fn split(free: u64, claims: &[(usize, u64, i32, u32, u32)]) -> Vec<u32> {
        let demands: Vec<_> = claims.iter().map(|c| cpus(c.1)).collect();
        let claims: Vec<_> = claims
            .iter()
            .zip(&demands)
            .map(|(&(who, _, priority, want, has), demand)| Claim {
                who,
                demand,
                priority,
                want,
                has,
                rank: 0,
            })
            .collect();
        divide(&cpus(free), cpus(free), &claims, &mut [0; 8])
    }

    #[test]
    fn shares_are_even_unless_somebody_wants_less() {
        assert_eq!(split(8, &[(0, 1, 0, 9, 0), (1, 1, 0, 9, 0)]), [4, 4]);
        assert_eq!(
            split(8, &[(0, 1, 0, 1, 0), (1, 1, 0, 9, 0), (2, 1, 0, 3, 0)]),
            [1, 4, 3]
        );
        // Two shapes of one submitter share its part.
        assert_eq!(
            split(8, &[(0, 1, 0, 9, 0), (0, 1, 0, 9, 0), (1, 1, 0, 9, 0)]),
            [2, 2, 4]
        );
        // Large slots count for more.
        assert_eq!(split(8, &[(0, 2, 0, 9, 0), (1, 1, 0, 9, 0)]), [2, 4]);
    }

    #[test]
    fn priority_comes_first_and_the_holder_keeps_the_odd_one() {
        assert_eq!(split(4, &[(0, 1, 0, 9, 0), (1, 1, 1, 3, 0)]), [1, 3]);
        assert_eq!(split(3, &[(0, 1, 0, 9, 1), (1, 1, 0, 9, 2)]), [1, 2]);
        assert_eq!(split(3, &[(0, 1, 0, 9, 2), (1, 1, 0, 9, 1)]), [2, 1]);
    }

    proptest! {
        #[test]
        fn nobody_with_less_could_have_more(
            free in 0..20u64,
            claims in proptest::collection::vec((0..4usize, 1..3u64, 0..2i32, 0..12u32, 0..4u32), 0..8),
        ) {
            let given = split(free, &claims);
            let mut used = 0;
            let mut parts = [0; 4];
            for (c, n) in claims.iter().zip(&given) {
                prop_assert!(*n <= c.3);
                used += c.1 * u64::from(*n);
                parts[c.0] += c.1 * u64::from(*n);
            }
            prop_assert!(used <= free);
            for (c, n) in claims.iter().zip(&given) {
                // Whoever lacks a slot that would fit into what a poorer one or nobody has was passed over.
                if *n < c.3 {
                    prop_assert!(c.1 > free - used, "{:?} {:?}", claims, given);
                    for (d, m) in claims.iter().zip(&given) {
                        let rich = parts[d.0] > parts[c.0] + c.1.max(d.1) && d.1 >= c.1;
                        let single = claims.iter().filter(|x| x.0 == d.0).count() == 1;
                        prop_assert!(*m == 0 || d.2 > c.2 || !(rich && single), "{:?} {:?}", claims, given);
                    }
                }
            }
        }
    }
}
