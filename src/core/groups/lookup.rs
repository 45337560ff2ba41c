//! Where the bundles of groups are, for nodes that run calls in groups of others.
//!
//! Invariant: the coordinator is asked once per group and tells every change; at most [`MAX_KNOWN`] groups are known, and the
//! one that was longest unused is forgotten first. Left out: choosing among bundles, which `core::placement` does.

use std::collections::{BTreeMap, BTreeSet};

use super::GroupMsg;
use crate::base::{Demand, GroupId, NodeId};
use crate::core::amounts;

/// Groups that are known.
pub const MAX_KNOWN: usize = 4_096;

/// What is known of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Its coordinator was asked; send the message if there is one.
    Asked(Option<GroupMsg>),
    /// Nodes with a bundle that could ever run the call: none now if empty, as while it is degraded.
    At(Vec<NodeId>),
    /// No bundle of the group, or not the one asked for, could ever run the call.
    TooSmall,
    /// It was removed, or its coordinator is dead.
    Gone,
}

#[derive(Debug, Default)]
struct Known {
    version: u64,
    /// `None` inside: gone. `None` outside: not told yet.
    bundles: Option<Option<Vec<(Option<NodeId>, Demand)>>>,
    used: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lookup {
    groups: BTreeMap<GroupId, Known>,
    dead: BTreeSet<NodeId>,
    uses: u64,
}

impl Lookup {
    /// Knows no group.
    pub fn new() -> Lookup {
        Lookup::default()
    }

    /// Where a call of this demand could run.
    pub fn locate(&mut self, group: GroupId, bundle: Option<u32>, demand: &Demand) -> Located {
        if self.dead.contains(&group.node) {
            return Located::Gone;
        }
        self.uses += 1;
        let Some(known) = self.groups.get_mut(&group) else {
            self.make_room();
            let made = Known {
                used: self.uses,
                ..Known::default()
            };
            self.groups.insert(group, made);
            return Located::Asked(Some(GroupMsg::Locate { group }));
        };
        known.used = self.uses;
        let bundles = match &known.bundles {
            None => return Located::Asked(None),
            Some(None) => return Located::Gone,
            Some(Some(bundles)) => bundles,
        };
        let chosen = bundles
            .iter()
            .zip(0u32..)
            .filter(|(_, at)| bundle.is_none_or(|b| b == *at));
        let large = chosen.filter(|((_, holds), _)| amounts::fits(holds, demand));
        let mut any = false;
        let mut nodes: Vec<NodeId> = large
            .inspect(|_| any = true)
            .filter_map(|((node, _), _)| *node)
            .collect();
        nodes.sort();
        nodes.dedup();
        if any {
            Located::At(nodes)
        } else {
            Located::TooSmall
        }
    }

    fn make_room(&mut self) {
        if self.groups.len() >= MAX_KNOWN {
            let oldest = self.groups.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(group, _)| *group) {
                self.groups.remove(&oldest);
            }
        }
    }

    /// A message of a coordinator; others are ignored. True: something changed, choose again for calls that wait.
    pub fn handle(&mut self, from: NodeId, msg: &GroupMsg) -> bool {
        let GroupMsg::Located {
            group,
            version,
            bundles,
        } = msg
        else {
            return false;
        };
        let Some(known) = self.groups.get_mut(group).filter(|_| group.node == from) else {
            return false;
        };
        let news = known.bundles.is_none() || known.version < *version;
        if news {
            known.version = *version;
            known.bundles = Some(bundles.clone());
        }
        news
    }

    /// A node is dead: its groups are gone. The bundles it held are told by their coordinators.
    pub fn died(&mut self, node: NodeId) {
        self.groups.retain(|group, _| group.node != node);
        self.dead.insert(node);
        if self.dead.len() > MAX_KNOWN {
            self.dead.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_is_asked_once_and_tells_changes() {
        let node = |n| NodeId::new(n).unwrap();
        let group = GroupId {
            node: node(1),
            number: 7,
        };
        let mut lookup = Lookup::new();
        let one = Demand::ONE_CPU;
        let ask = Located::Asked(Some(GroupMsg::Locate { group }));
        assert_eq!(lookup.locate(group, None, &one), ask);
        assert_eq!(lookup.locate(group, None, &one), Located::Asked(None));
        let told = |version, bundles| GroupMsg::Located {
            group,
            version,
            bundles,
        };
        let both = Some(vec![(Some(node(2)), Demand::ONE_CPU), (None, Demand::NONE)]);
        assert!(
            !lookup.handle(node(3), &told(1, None)),
            "not its coordinator"
        );
        assert!(lookup.handle(node(1), &told(2, both)));
        assert!(!lookup.handle(node(1), &told(1, None)), "old");
        assert_eq!(lookup.locate(group, None, &one), Located::At(vec![node(2)]));
        assert_eq!(lookup.locate(group, Some(1), &one), Located::TooSmall);
        assert_eq!(
            lookup.locate(group, Some(1), &Demand::NONE),
            Located::At(vec![])
        );
        assert_eq!(
            lookup.locate(group, Some(2), &Demand::NONE),
            Located::TooSmall
        );
        assert!(lookup.handle(node(1), &told(3, None)));
        assert_eq!(lookup.locate(group, None, &one), Located::Gone);
        lookup.died(node(1));
        assert_eq!(lookup.locate(group, None, &one), Located::Gone);
        for number in 0..2 * MAX_KNOWN as u64 {
            lookup.locate(
                GroupId {
                    node: node(9),
                    number,
                },
                None,
                &one,
            );
        }
        assert_eq!(lookup.groups.len(), MAX_KNOWN);
    }
}
