//! What a call or a group of them says about where it may run, as plain data.
//!
//! Invariant: a strategy names nodes, labels and groups; it holds no state of theirs. Left out: choosing, which is
//! `core::placement`, and reserving, which is `core::groups`.

use std::fmt;

use super::{Demand, NodeId};

/// Where a call may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Here if there is room and the data is not elsewhere, else where it suits best.
    #[default]
    Default,
    /// In turn over all nodes that can run it, those with the fewest unfinished calls first.
    Spread,
    /// On one node.
    Node {
        /// Which.
        node: NodeId,
        /// Elsewhere if that node is gone, leaves, or can never run it; otherwise the call fails then.
        soft: bool,
    },
    /// On a node whose labels match all of these.
    Labels(Vec<(String, LabelMatch)>),
    /// Inside a placement group.
    Group {
        /// Which.
        group: GroupId,
        /// In this bundle of it; in any of them if none is named.
        bundle: Option<u32>,
    },
}

/// What is asked of one label. A node without the label differs from every value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelMatch {
    /// It has this value.
    Equals(String),
    /// It is missing or has another value.
    NotEquals(String),
    /// It has one of these values.
    In(Vec<String>),
    /// It is missing or has none of these values.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is missing.
    Absent,
}

impl LabelMatch {
    /// Whether a label of this value (`None`: missing) matches.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let is_in = |list: &[String]| value.is_some_and(|v| list.iter().any(|x| x == v));
        match self {
            LabelMatch::Equals(x) => value == Some(x),
            LabelMatch::NotEquals(x) => value != Some(x),
            LabelMatch::In(list) => is_in(list),
            LabelMatch::NotIn(list) => !is_in(list),
            LabelMatch::Exists => value.is_some(),
            LabelMatch::Absent => value.is_none(),
        }
    }
}

impl fmt::Display for LabelMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LabelMatch::Equals(x) => write!(f, "= {x}"),
            LabelMatch::NotEquals(x) => write!(f, "!= {x}"),
            LabelMatch::In(list) => write!(f, "in ({})", list.join(", ")),
            LabelMatch::NotIn(list) => write!(f, "not in ({})", list.join(", ")),
            LabelMatch::Exists => write!(f, "present"),
            LabelMatch::Absent => write!(f, "absent"),
        }
    }
}

/// A placement group: the node that made it and keeps it together, and that node's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// Its coordinator.
    pub node: NodeId,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.node, self.number)
    }
}

/// How the bundles of a group lie on the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupStrategy {
    /// On as few nodes as there is room on.
    #[default]
    Pack,
    /// On as many nodes as there are, several on one if there are too few.
    Spread,
    /// All on one node, or not at all.
    StrictPack,
    /// Each on another node, or not at all.
    StrictSpread,
}

/// A placement group as asked for: resources that are reserved together, bundle by bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// How they lie.
    pub strategy: GroupStrategy,
    /// What each bundle reserves on one node; a bundle is named by its place here.
    pub bundles: Vec<Demand>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_label_differs_from_every_value() {
        let list = || vec!["a".to_owned(), "b".to_owned()];
        // Each with what it says of: the label missing, `a`, `c`.
        for (m, expect) in [
            (LabelMatch::Equals("a".into()), [false, true, false]),
            (LabelMatch::NotEquals("a".into()), [true, false, true]),
            (LabelMatch::In(list()), [false, true, false]),
            (LabelMatch::NotIn(list()), [true, false, true]),
            (LabelMatch::Exists, [false, true, true]),
            (LabelMatch::Absent, [true, false, false]),
        ] {
            assert_eq!(
                [None, Some("a"), Some("c")].map(|v| m.matches(v)),
                expect,
                "{m}"
            );
        }
    }
}
