//! Sums and differences of resource amounts, over CPUs, GPUs and every custom resource.
//!
//! Invariant: amounts never go below zero and nothing is allocated to compare them. A free amount is written as a
//! [`Demand`]: the largest one that fits. Left out: which GPU devices make up a sum, which only their node knows; so
//! what fits a sum may still not fit the node.

use crate::base::{Capacity, Demand, Units};

/// Everything a node has.
pub fn whole(capacity: &Capacity) -> Demand {
    let start = Demand::cpu_only(capacity.cpu).with_gpu(capacity.gpu());
    let add = |all: Demand, (name, amount): &(String, Units)| all.with_custom(name, *amount);
    capacity.custom().iter().fold(start, add)
}

/// Whether a node of this capacity can ever run it: [`Capacity::lacks`] without a message.
pub fn feasible(capacity: &Capacity, demand: &Demand) -> bool {
    let uneven = demand.gpu > Units::ONE && !demand.gpu.is_whole();
    demand.cpu <= capacity.cpu
        && demand.gpu <= capacity.gpu()
        && !uneven
        && covers(capacity.custom(), demand.custom())
}

/// Whether so much is free.
pub fn fits(free: &Demand, demand: &Demand) -> bool {
    demand.cpu <= free.cpu && demand.gpu <= free.gpu && covers(free.custom(), demand.custom())
}

/// Takes it away, of each resource at most what is there.
pub fn subtract(free: &mut Demand, demand: &Demand) {
    let less = |a: Units, b: Units| Units::from_steps(a.steps().saturating_sub(b.steps()));
    free.cpu = less(free.cpu, demand.cpu);
    free.gpu = less(free.gpu, demand.gpu);
    for (name, amount) in demand.custom() {
        let left = less(custom(free, name), *amount);
        *free = std::mem::take(free).with_custom(name, left);
    }
}

/// Adds it.
pub fn add(free: &mut Demand, demand: &Demand) {
    let more = |a: Units, b: Units| Units::from_steps(a.steps().saturating_add(b.steps()));
    free.cpu = more(free.cpu, demand.cpu);
    free.gpu = more(free.gpu, demand.gpu);
    for (name, amount) in demand.custom() {
        let sum = more(custom(free, name), *amount);
        *free = std::mem::take(free).with_custom(name, sum);
    }
}

/// The largest part of any one resource that this is of `all`, in millionths; more than a million if it does not fit.
pub fn dominant(demand: &Demand, all: &Demand) -> u64 {
    let part = |a: Units, of: Units| match (a.steps(), of.steps()) {
        (0, _) => 0,
        (a, of) => a.saturating_mul(1_000_000) / of.max(1),
    };
    let custom = demand
        .custom()
        .iter()
        .map(|(name, a)| part(*a, custom(all, name)));
    custom
        .chain([part(demand.cpu, all.cpu), part(demand.gpu, all.gpu)])
        .max()
        .unwrap_or(0)
}

/// How much of one custom resource there is.
fn custom(amounts: &Demand, name: &str) -> Units {
    let at = amounts
        .custom()
        .binary_search_by(|(n, _)| n.as_str().cmp(name));
    at.map_or(Units::ZERO, |at| amounts.custom()[at].1)
}

/// Both are sorted by name.
fn covers(have: &[(String, Units)], need: &[(String, Units)]) -> bool {
    need.iter().all(|(name, amount)| {
        let at = have.binary_search_by(|(n, _)| n.cmp(name));
        at.is_ok_and(|at| have[at].1 >= *amount)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn demands() -> impl proptest::strategy::Strategy<Value = Demand> {
        let one = 0..5u64;
        (
            one.clone(),
            prop_oneof![Just(0u64), Just(5_000), Just(15_000), Just(20_000)],
            one.clone(),
            one,
        )
            .prop_map(|(cpu, gpu, a, b)| {
                Demand::cpu_only(Units::whole(cpu))
                    .with_gpu(Units::from_steps(gpu))
                    .with_custom("a", Units::whole(a))
                    .with_custom("b", Units::whole(b))
            })
    }

    proptest! {
        #[test]
        fn what_fits_is_taken_and_given_back_exactly(free in demands(), demand in demands()) {
            let mut left = free.clone();
            subtract(&mut left, &demand);
            prop_assert!(fits(&free, &left));
            let mut back = left.clone();
            add(&mut back, &demand);
            prop_assert_eq!(fits(&free, &demand), back == free);
            prop_assert_eq!(fits(&free, &demand), dominant(&demand, &free) <= 1_000_000);
        }

        #[test]
        fn feasible_is_what_lacks_nothing(demand in demands(), cpu in 0..5u64, gpus in 0..3u32, a in 0..5u64) {
            let node = Capacity::new(Units::whole(cpu), gpus).with_custom("a", Units::whole(a));
            prop_assert_eq!(feasible(&node, &demand), node.lacks(&demand).is_none());
            prop_assert!(!feasible(&node, &demand) || fits(&whole(&node), &demand));
        }
    }
}
