//! Why no node can run a call, in words that say what to change.
//!
//! Invariant: every answer names what was asked for, what there is, and the remedy. Left out: choosing.

use std::error::Error;
use std::fmt;

use super::{Request, feasible, mismatch};
use crate::base::{GroupId, Infeasible, LabelMatch, NodeId, Strategy};
use crate::core::view::{Known, View};

/// Why a call can run nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// No node that suits has enough of something.
    Infeasible {
        /// What the best node lacks.
        why: Infeasible,
        /// The node that comes nearest; none is known at all if this is `None`.
        best: Option<NodeId>,
        /// How many nodes were looked at.
        nodes: usize,
    },
    /// The node asked for is not known.
    Unknown {
        /// Which.
        node: NodeId,
    },
    /// The node asked for died or left.
    Dead {
        /// Which.
        node: NodeId,
    },
    /// The node asked for, or the only one that could, is leaving.
    Draining {
        /// Which.
        node: NodeId,
    },
    /// No node has the labels.
    Labels {
        /// The label that the most nodes fail on.
        label: String,
        /// What was asked of it.
        wants: LabelMatch,
        /// How many nodes were looked at.
        nodes: usize,
    },
    /// The placement group is removed or has no bundle for it.
    Group {
        /// Which.
        group: GroupId,
    },
}

impl fmt::Display for Nowhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Nowhere::Infeasible {
                why, best: None, ..
            } => {
                let Infeasible {
                    resource,
                    requested,
                    ..
                } = why;
                write!(
                    f,
                    "needs {requested} of `{resource}` but no node is known: start one that has it"
                )
            }
            Nowhere::Infeasible {
                why,
                best: Some(best),
                nodes,
            } => {
                let Infeasible {
                    resource,
                    requested,
                    capacity,
                } = why;
                write!(
                    f,
                    "needs {requested} of `{resource}` but none of {nodes} nodes can give it; nearest is node {best} \
                     with {capacity}: lower the request or join a node that has it"
                )
            }
            Nowhere::Unknown { node } => {
                write!(
                    f,
                    "is to run on node {node}, which is not in this cluster: see `mobula list nodes`"
                )
            }
            Nowhere::Dead { node } => write!(
                f,
                "is to run on node {node}, which is gone: choose another, or let it run elsewhere with a soft affinity"
            ),
            Nowhere::Draining { node } => write!(
                f,
                "can run on node {node} only, which is leaving and takes nothing new: choose or join another"
            ),
            Nowhere::Labels {
                label,
                wants,
                nodes,
            } => write!(
                f,
                "needs a node whose label `{label}` is {wants}, which none of {nodes} nodes has: change the request, or \
                 start a node with that label"
            ),
            Nowhere::Group { group } => {
                write!(
                    f,
                    "is to run in placement group {group}, which is removed or has no such bundle"
                )
            }
        }
    }
}

impl Error for Nowhere {}

/// Why no node of the view may get the call, given that none may.
pub fn why(view: &View, request: &Request<'_>) -> Nowhere {
    let labels = match request.strategy {
        Strategy::Labels(labels) => labels.as_slice(),
        _ => &[],
    };
    let matching = || {
        view.iter()
            .filter(|(_, known)| mismatch(known, labels).is_none())
    };
    if matching().next().is_none() && !view.is_empty() && !labels.is_empty() {
        return unlabelled(view, labels);
    }
    if let Some((node, _)) = matching().find(|(_, k)| feasible(&k.view.capacity, request.demand)) {
        return Nowhere::Draining { node };
    }
    // The nearest lacks the fewest resources, and has most of the first that it lacks.
    let lacks = |known: &Known| known.view.capacity.lacks(request.demand);
    let nearest = matching().filter_map(|(node, known)| Some((node, lacks(known)?, known)));
    let nearest = nearest.min_by_key(|(_, why, known)| {
        (
            short_of(known, request),
            std::cmp::Reverse(why.capacity),
            why.resource.clone(),
        )
    });
    match nearest {
        Some((node, why, _)) => Nowhere::Infeasible {
            why,
            best: Some(node),
            nodes: matching().count(),
        },
        None => {
            let all = crate::base::Capacity::default();
            let none = || Infeasible {
                resource: "cpu".to_owned(),
                requested: request.demand.cpu,
                capacity: all.cpu,
            };
            Nowhere::Infeasible {
                why: all.lacks(request.demand).unwrap_or_else(none),
                best: None,
                nodes: 0,
            }
        }
    }
}

/// How many resources the node has too little of.
fn short_of(known: &Known, request: &Request<'_>) -> usize {
    let all = &known.view.capacity;
    let custom = request.demand.custom().iter().filter(|(name, need)| {
        let at = all.custom().binary_search_by(|(n, _)| n.cmp(name));
        at.map_or(true, |at| all.custom()[at].1 < *need)
    });
    custom.count()
        + usize::from(request.demand.cpu > all.cpu)
        + usize::from(request.demand.gpu > all.gpu())
}

/// The label that the most nodes fail on.
fn unlabelled(view: &View, labels: &[(String, LabelMatch)]) -> Nowhere {
    let fails = |(name, m): &(String, LabelMatch)| {
        let value = |known: &Known| known.view.labels.get(name).cloned();
        view.iter()
            .filter(|(_, known)| !m.matches(value(known).as_deref()))
            .count()
    };
    let (label, wants) = labels
        .iter()
        .max_by_key(|l| fails(l))
        .expect("some label failed");
    Nowhere::Labels {
        label: label.clone(),
        wants: wants.clone(),
        nodes: view.len(),
    }
}
