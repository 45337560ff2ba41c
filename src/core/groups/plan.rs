//! On which node each bundle of a group goes.
//!
//! Strict spreading is a matching of bundles and nodes, and found if there is one. Packing of several resources at once
//! has no quick best answer: bundles are taken by size, the largest first, and put where the strategy likes them most.
//!
//! Invariant: what is planned fits the amounts given, several bundles of one node together, and is as a strict strategy
//! wants. O(bundles x nodes), for strict spreading O(bundles² x nodes). Left out: whether the amounts are still right.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::BadGroup;
use crate::base::{Demand, GroupStrategy, Infeasible, NodeId, Units};
use crate::core::amounts::{add, dominant, feasible, fits, subtract, whole};
use crate::core::view::View;

/// Where bundles go, by their place in the group.
pub type Plan = BTreeMap<u32, NodeId>;

/// What to plan.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// How the bundles lie.
    pub strategy: GroupStrategy,
    /// All of the group's.
    pub bundles: &'a [Demand],
    /// Those that have a place and keep it; the others are planned.
    pub placed: &'a Plan,
}

/// A node that may get some.
struct Bin {
    node: NodeId,
    left: Demand,
    /// What the node has; the measure of what is left of it.
    all: Demand,
    has: u32,
}

impl Bin {
    fn fullness(&self) -> u64 {
        let mut used = self.all.clone();
        subtract(&mut used, &self.left);
        dominant(&used, &self.all)
    }

    fn take(&mut self, demand: &Demand) {
        subtract(&mut self.left, demand);
        self.has += 1;
    }
}

/// Plans into what is free now, or else into what the nodes have, where the bundles then wait for room.
pub fn plan(view: &View, task: Task<'_>) -> Result<Plan, BadGroup> {
    place(bins(view, task, true), task).or_else(|_| {
        let mut bins = bins(view, task, false);
        // What the group holds itself never comes free for it.
        for (bundle, node) in task.placed {
            if let (Some(bin), Some(demand)) = (
                bins.iter_mut().find(|bin| bin.node == *node),
                task.bundles.get(*bundle as usize),
            ) {
                subtract(&mut bin.left, demand);
            }
        }
        place(bins, task).map_err(|placed| why(view, task, placed))
    })
}

fn bins(view: &View, task: Task<'_>, free: bool) -> Vec<Bin> {
    let nodes = view.iter().filter(|(_, known)| !known.view.draining);
    let bin = nodes.map(|(node, known)| {
        let all = whole(&known.view.capacity);
        Bin {
            node,
            left: if free {
                known.view.free.clone()
            } else {
                all.clone()
            },
            all,
            has: task.placed.values().filter(|n| **n == node).count() as u32,
        }
    });
    bin.collect()
}

/// The plan, or how many bundles found a place.
fn place(mut bins: Vec<Bin>, task: Task<'_>) -> Result<Plan, usize> {
    let missing = (0..task.bundles.len() as u32).filter(|b| !task.placed.contains_key(b));
    let mut missing: Vec<(u32, &Demand)> =
        missing.map(|b| (b, &task.bundles[b as usize])).collect();
    if missing.is_empty() {
        return Ok(Plan::new());
    }
    match task.strategy {
        GroupStrategy::StrictPack => together(&bins, task, &missing),
        GroupStrategy::StrictSpread => apart(&bins, &missing),
        GroupStrategy::Pack | GroupStrategy::Spread => {
            let mut most = Demand::NONE;
            bins.iter().for_each(|bin| add(&mut most, &bin.all));
            missing
                .sort_by_cached_key(|(bundle, demand)| (Reverse(dominant(demand, &most)), *bundle));
            let spread = task.strategy == GroupStrategy::Spread;
            let mut rest = sum(missing.iter().map(|(_, demand)| *demand));
            let mut plan = Plan::new();
            for (bundle, demand) in missing {
                let fitting = bins.iter_mut().filter(|bin| fits(&bin.left, demand));
                let liked = |bin: &Bin| match spread {
                    true => (u64::from(bin.has), bin.fullness(), bin.node),
                    // Where some are already; else where all the rest fit, tightly; else where there is most room.
                    false if bin.has > 0 => (0, 0, bin.node),
                    false if fits(&bin.left, &rest) => {
                        (1, 1_000_000 - bin.fullness().min(1_000_000), bin.node)
                    }
                    false => (2, dominant(&rest, &bin.left), bin.node),
                };
                let best = fitting.min_by_key(|bin| liked(bin));
                let Some(bin) = best else {
                    return Err(plan.len());
                };
                bin.take(demand);
                subtract(&mut rest, demand);
                plan.insert(bundle, bin.node);
            }
            Ok(plan)
        }
    }
}

fn sum<'a>(demands: impl Iterator<Item = &'a Demand>) -> Demand {
    demands.fold(Demand::NONE, |mut all, demand| {
        add(&mut all, demand);
        all
    })
}

fn together(bins: &[Bin], task: Task<'_>, missing: &[(u32, &Demand)]) -> Result<Plan, usize> {
    let rest = sum(missing.iter().map(|(_, demand)| *demand));
    let home = task.placed.values().next();
    let mut fitting = bins
        .iter()
        .filter(|bin| home.is_none_or(|n| *n == bin.node) && fits(&bin.left, &rest));
    let first = fitting.next().ok_or(0usize)?;
    let best = fitting.fold(first, |best, bin| {
        if bin.fullness() < best.fullness() {
            bin
        } else {
            best
        }
    });
    Ok(missing
        .iter()
        .map(|(bundle, _)| (*bundle, best.node))
        .collect())
}

/// Bundles to nodes of their own: whoever finds its node taken asks that one's bundle to move.
fn apart(bins: &[Bin], missing: &[(u32, &Demand)]) -> Result<Plan, usize> {
    let mut order: Vec<usize> = (0..bins.len()).filter(|at| bins[*at].has == 0).collect();
    order.sort_by_cached_key(|at| (bins[*at].fullness(), bins[*at].node));
    let takes = |(_, demand): &(u32, &Demand)| {
        let fitting = order.iter().filter(|at| fits(&bins[**at].left, demand));
        fitting.copied().collect::<Vec<usize>>()
    };
    let choices: Vec<Vec<usize>> = missing.iter().map(takes).collect();
    let mut owner: Vec<Option<usize>> = vec![None; bins.len()];
    let mut placed = 0;
    for bundle in 0..missing.len() {
        placed += usize::from(find(
            bundle,
            &choices,
            &mut owner,
            &mut vec![false; bins.len()],
        ));
    }
    if placed < missing.len() {
        return Err(placed);
    }
    let taken = owner.iter().enumerate();
    Ok(taken
        .filter_map(|(at, bundle)| Some((missing[(*bundle)?].0, bins[at].node)))
        .collect())
}

/// Depth is at most the number of bundles.
fn find(
    bundle: usize,
    choices: &[Vec<usize>],
    owner: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    // A node nobody has, if there is one; only then somebody's.
    if let Some(at) = choices[bundle].iter().find(|at| owner[**at].is_none()) {
        owner[*at] = Some(bundle);
        return true;
    }
    for at in &choices[bundle] {
        if std::mem::replace(&mut seen[*at], true) {
            continue;
        }
        if owner[*at].is_none_or(|other| find(other, choices, owner, seen)) {
            owner[*at] = Some(bundle);
            return true;
        }
    }
    false
}

fn why(view: &View, task: Task<'_>, placed: usize) -> BadGroup {
    let nodes = || view.iter().filter(|(_, known)| !known.view.draining);
    // The node that has most of what the bundle lacks there.
    let nearest = |demand: &Demand| {
        let lacks =
            nodes().filter_map(|(node, known)| Some((known.view.capacity.lacks(demand)?, node)));
        lacks.max_by_key(|(why, node)| (why.capacity, Reverse(*node)))
    };
    for (bundle, demand) in task.bundles.iter().enumerate() {
        if !nodes().any(|(_, known)| feasible(&known.view.capacity, demand)) {
            let none = || Infeasible {
                resource: "cpu".to_owned(),
                requested: demand.cpu,
                capacity: Units::ZERO,
            };
            let near = nearest(demand);
            let best = near.as_ref().map(|(_, node)| *node);
            let why = near.map_or_else(none, |(why, _)| why);
            return BadGroup::Bundle {
                bundle: bundle as u32,
                why,
                best,
            };
        }
    }
    if task.strategy == GroupStrategy::StrictPack
        && let Some((why, best)) = nearest(&sum(task.bundles.iter()))
    {
        return BadGroup::Together { why, best };
    }
    BadGroup::Nodes {
        placed,
        bundles: task.bundles.len(),
        nodes: nodes().count(),
        apart: task.strategy == GroupStrategy::StrictSpread,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;
    use crate::core::view::NodeView;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(n as u64).unwrap()
    }

    fn demand((cpu, a): (u64, u64)) -> Demand {
        Demand::cpu_only(Units::whole(cpu)).with_custom("a", Units::whole(a))
    }

    fn view(all: &[(u64, u64)]) -> View {
        let mut view = View::new();
        for (n, (cpu, a)) in all.iter().enumerate() {
            let capacity = Capacity::new(Units::whole(*cpu), 0).with_custom("a", Units::whole(*a));
            view.merge(node(n + 1), NodeView::idle(capacity));
        }
        view
    }

    fn planned(
        strategy: GroupStrategy,
        nodes: &[(u64, u64)],
        bundles: &[(u64, u64)],
    ) -> Result<Vec<u64>, String> {
        let bundles: Vec<_> = bundles.iter().map(|b| demand(*b)).collect();
        let task = Task {
            strategy,
            bundles: &bundles,
            placed: &Plan::new(),
        };
        let plan = plan(&view(nodes), task).map_err(|e| e.to_string())?;
        Ok(plan.values().map(|n| n.get()).collect())
    }

    #[test]
    fn packs_on_few_and_spreads_on_many() {
        let nodes = [(2, 0), (4, 0), (4, 0)];
        let four = [(1, 0); 4];
        let distinct = |plan: Result<Vec<u64>, String>| {
            plan.unwrap()
                .into_iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len()
        };
        assert_eq!(distinct(planned(GroupStrategy::Pack, &nodes, &four)), 1);
        assert_eq!(
            distinct(planned(GroupStrategy::StrictPack, &nodes, &four)),
            1
        );
        assert_eq!(distinct(planned(GroupStrategy::Spread, &nodes, &four)), 3);
        assert_eq!(
            distinct(planned(GroupStrategy::StrictSpread, &nodes, &four[1..])),
            3
        );
        assert_eq!(
            distinct(planned(GroupStrategy::Pack, &nodes, &[(1, 0); 6])),
            2
        );
    }

    #[test]
    fn says_by_name_what_cannot_be() {
        let nodes = [(2, 0), (4, 1)];
        for (strategy, bundles, expect) in [
            (
                GroupStrategy::Pack,
                &[(1, 0), (5, 0)][..],
                "bundle 1 needs 5 of `cpu`, but the nearest has 4",
            ),
            (
                GroupStrategy::StrictPack,
                &[(3, 0), (3, 0)],
                "on one node and need 6 of `cpu`, but the nearest has 4",
            ),
            (
                GroupStrategy::StrictSpread,
                &[(1, 0); 3],
                "only 2 of its 3 bundles find room on 2 nodes, each on",
            ),
            (
                GroupStrategy::Spread,
                &[(2, 0); 4],
                "only 3 of its 4 bundles find room on 2 nodes:",
            ),
        ] {
            let e = planned(strategy, &nodes, bundles).unwrap_err();
            assert!(e.contains(expect), "{e}");
        }
        assert!(
            planned(GroupStrategy::Pack, &[], &[(1, 0)])
                .unwrap_err()
                .contains("no node is known")
        );
    }

    #[test]
    fn a_matching_is_found_where_greed_finds_none() {
        // Only node 1 has an `a`; whoever needs none must leave it.
        assert_eq!(
            planned(
                GroupStrategy::StrictSpread,
                &[(4, 1), (1, 0)],
                &[(1, 0), (1, 1)]
            ),
            Ok(vec![2, 1])
        );
    }

    fn any_strategy() -> impl Strategy<Value = GroupStrategy> {
        prop_oneof![
            Just(GroupStrategy::Pack),
            Just(GroupStrategy::Spread),
            Just(GroupStrategy::StrictPack),
            Just(GroupStrategy::StrictSpread),
        ]
    }

    proptest! {
        #[test]
        fn a_plan_fits_and_obeys(
            strategy in any_strategy(),
            nodes in vec((0..6u64, 0..3u64), 0..5),
            bundles in vec((0..4u64, 0..2u64), 1..6),
            lost in any::<u8>(),
        ) {
            let view = view(&nodes);
            let demands: Vec<_> = bundles.iter().map(|b| demand(*b)).collect();
            let none = Plan::new();
            let task = Task { strategy, bundles: &demands, placed: &none };
            let Ok(whole) = plan(&view, task) else {
                // With one bundle, there is no plan only if no node holds it.
                let alone = view.iter().any(|(_, k)| feasible(&k.view.capacity, &demands[0]));
                prop_assert!(bundles.len() > 1 || !alone);
                return Ok(());
            };
            // A part of it lost is planned again beside the rest.
            let mut placed = whole.clone();
            placed.retain(|b, _| lost & (1 << b) == 0);
            let again = plan(&view, Task { placed: &placed, ..task });
            for all in [Some(whole), again.ok().map(|mut p| { p.extend(placed); p })].into_iter().flatten() {
                prop_assert_eq!(all.len(), bundles.len());
                let mut nodes: Vec<_> = all.values().collect();
                nodes.sort();
                nodes.dedup();
                match strategy {
                    GroupStrategy::StrictPack => prop_assert_eq!(nodes.len(), 1),
                    GroupStrategy::StrictSpread => prop_assert_eq!(nodes.len(), bundles.len()),
                    _ => {}
                }
            }
        }
    }
}
