//! Calls that wait until it is known where the bundles of their group are.
//!
//! Invariant: at most so many wait as may, those of all groups together; each is taken out once. Left out: the calls themselves.

use std::collections::HashMap;
use std::fmt;

use crate::base::{GroupId, NodeId};

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    pub of_group: usize,
    pub limit: usize,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooMany { of_group, limit } = self;
        write!(
            f,
            "has {of_group} calls waiting for it, and {limit} wait for groups, which is the bound: take results first"
        )
    }
}

/// See the file.
pub(super) struct Waiting<T> {
    of: HashMap<GroupId, Vec<T>>,
    count: usize,
    limit: usize,
}

impl<T> Waiting<T> {
    pub fn new(limit: usize) -> Waiting<T> {
        Waiting {
            of: HashMap::new(),
            count: 0,
            limit,
        }
    }

    /// A call waits for its group, if it may.
    pub fn add(&mut self, group: GroupId, call: T) -> Result<(), TooMany> {
        if self.count >= self.limit {
            return Err(TooMany {
                of_group: self.of.get(&group).map_or(0, Vec::len),
                limit: self.limit,
            });
        }
        self.count += 1;
        self.of.entry(group).or_default().push(call);
        Ok(())
    }

    /// Those that waited for this group, in the order in which they came.
    pub fn take(&mut self, group: GroupId) -> Vec<T> {
        let calls = self.of.remove(&group).unwrap_or_default();
        self.count -= calls.len();
        calls
    }

    /// Those that waited for groups of this node, group by group.
    pub fn take_of(&mut self, node: NodeId) -> Vec<Vec<T>> {
        let groups = self.of.keys().filter(|group| group.node == node);
        let groups: Vec<GroupId> = groups.copied().collect();
        groups.into_iter().map(|group| self.take(group)).collect()
    }

    /// All.
    pub fn take_all(&mut self) -> Vec<T> {
        self.count = 0;
        std::mem::take(&mut self.of)
            .into_values()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(node: u64, number: u64) -> GroupId {
        let node = NodeId::new(node).unwrap();
        GroupId { node, number }
    }

    #[test]
    fn beyond_the_bound_a_call_is_refused_and_no_other_is_lost() {
        let mut waiting = Waiting::new(4);
        for call in 0..4 {
            assert_eq!(waiting.add(group(1, call % 2), call), Ok(()));
        }
        let full = waiting.add(group(1, 0), 4).unwrap_err();
        assert_eq!(
            full,
            TooMany {
                of_group: 2,
                limit: 4
            }
        );
        assert!(
            full.to_string()
                .contains("has 2 calls waiting for it, and 4")
        );
        // A group that nobody waits for has no more room either.
        let full = waiting.add(group(2, 0), 4);
        assert_eq!(
            full,
            Err(TooMany {
                of_group: 0,
                limit: 4
            })
        );
        assert_eq!(waiting.take(group(1, 0)), [0, 2]);
        assert!(waiting.take(group(1, 0)).is_empty());
        // There is room again for as many as went.
        assert_eq!(waiting.add(group(2, 0), 5), Ok(()));
        assert_eq!(waiting.add(group(2, 1), 6), Ok(()));
        assert!(waiting.add(group(2, 2), 7).is_err());
        assert_eq!(waiting.take_of(NodeId::new(1).unwrap()), [[1, 3]]);
        assert_eq!(waiting.add(group(2, 0), 8), Ok(()));
        let mut rest = waiting.take_all();
        rest.sort_unstable();
        assert_eq!(rest, [5, 6, 8]);
        assert!((0..4).all(|call| waiting.add(group(1, 1), call).is_ok()));
        assert!(waiting.add(group(1, 1), 4).is_err());
    }
}
