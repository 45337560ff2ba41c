//! Where a call runs: here, on another node, nowhere, or as soon as somebody has room.
//!
//! Local first. Another node is chosen if this one has no room now, or if input bytes lie there that would cost more to
//! move than the call: the best of those with room by bytes already there, then by load, the load in coarse steps, for a
//! finer one is out of date when it arrives and would send everybody to the same node. What is left equal is decided by
//! a seed, so that nodes that know the same do not all choose the same.
//!
//! If nobody has room now, the call waits where its bytes are, or here; a node that has a long line already gets no more
//! of it, and a call that cannot run here then waits with the chooser, for whoever has room first.
//!
//! Invariant: the answer depends on the arguments alone and costs O(nodes) without allocating, unless it is `Nowhere`. A
//! node is chosen only if it is known, alive, not draining, could run the call when empty, and suits the strategy; one
//! exception: a draining node keeps what it makes itself and nobody else can run, or the calls that do so would never
//! end. Left out: whether the view is right, which the chosen node finds out.

pub mod rate;
mod reason;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use super::amounts::{feasible, fits};
use super::view::{Known, View};
use crate::base::{Demand, LabelMatch, NodeId, Strategy, Units};
pub use reason::Nowhere;

/// Bytes that are not worth a journey: in the time that sending a call away takes, so many come here.
pub const LIGHT: u64 = 128 * 1024;
/// Waiting calls per CPU above which a node gets no more to wait.
pub const MAX_LINE: u64 = 4;
/// Steps of load per CPU that are told apart.
const LOAD_STEPS: u64 = 8;

/// What is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it holds while it runs.
    pub demand: &'a Demand,
    /// Where it may run.
    pub strategy: &'a Strategy,
    /// Above 0 it overtakes the lines of others, below it goes only where there is none.
    pub priority: i32,
    /// Bytes of its input that lie on each node, in any order; a few nodes at most.
    pub bytes: &'a [(NodeId, u64)],
    /// For [`Strategy::Group`]: the nodes that hold a bundle of it which could run the call, as `core::groups` says; none now
    /// while it is degraded, and `None` if it is removed. The resources are those of the bundle, not what is free on the
    /// node.
    pub bundles: Option<&'a [NodeId]>,
    /// Wait for a node that can run it rather than fail: nodes are still joining.
    pub patient: bool,
    /// Decides between equals.
    pub seed: u64,
}

impl<'a> Request<'a> {
    /// A call with nothing special.
    pub fn new(demand: &'a Demand, strategy: &'a Strategy) -> Request<'a> {
        Request {
            demand,
            strategy,
            priority: 0,
            bytes: &[],
            bundles: None,
            patient: false,
            seed: 0,
        }
    }

    fn bytes_at(&self, node: NodeId) -> u64 {
        let here = self.bytes.iter().filter(|(n, _)| *n == node);
        here.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// On this node, at once or in its line.
    Here,
    /// On that node.
    At(NodeId),
    /// It could never run: fail it.
    Nowhere(Nowhere),
    /// Nobody has room for it now: keep it and choose again when the view has changed.
    Wait,
}

/// Chooses for `me`, which is in the view like any other node if it takes calls at all.
pub fn choose(view: &View, me: NodeId, request: &Request<'_>) -> Choice {
    let chosen = match request.strategy {
        Strategy::Default | Strategy::Labels(_) => best(view, me, request, None),
        Strategy::Spread => spread(view, me, request),
        Strategy::Node { node, soft } => match one(view, me, request, *node) {
            Ok(()) => Found::Node(*node),
            Err(_) if *soft => best(view, me, request, Some(*node)),
            Err(why) => return Choice::Nowhere(why),
        },
        Strategy::Group { group, .. } => match request.bundles {
            Some(bundles) => bundle(view, request, bundles),
            None => return Choice::Nowhere(Nowhere::Group { group: *group }),
        },
    };
    match chosen {
        Found::Node(node) if node == me => Choice::Here,
        Found::Node(node) => Choice::At(node),
        Found::Busy => Choice::Wait,
        // A draining node finishes what only it can run.
        Found::None if own(view, me, request) => Choice::Here,
        Found::None => nowhere(request, reason::why(view, request)),
    }
}

fn nowhere(request: &Request<'_>, why: Nowhere) -> Choice {
    if request.patient {
        Choice::Wait
    } else {
        Choice::Nowhere(why)
    }
}

enum Found {
    Node(NodeId),
    /// Some could run it, but have no room to wait.
    Busy,
    /// None could ever run it.
    None,
}

/// Whether the node may get the call at all.
fn suits(known: &Known, request: &Request<'_>) -> bool {
    !known.view.draining && able(known, request)
}

/// The same of a node that may be leaving.
fn able(known: &Known, request: &Request<'_>) -> bool {
    let labels = match request.strategy {
        Strategy::Labels(labels) => labels.as_slice(),
        _ => &[],
    };
    feasible(&known.view.capacity, request.demand) && mismatch(known, labels).is_none()
}

fn own(view: &View, me: NodeId, request: &Request<'_>) -> bool {
    view.get(me).is_some_and(|known| able(known, request))
}

/// The first label asked for that the node does not match.
fn mismatch<'a>(
    known: &Known,
    labels: &'a [(String, LabelMatch)],
) -> Option<&'a (String, LabelMatch)> {
    let value = |name: &String| known.view.labels.get(name).map(String::as_str);
    labels.iter().find(|(name, m)| !m.matches(value(name)))
}

/// Whether it could start there now.
fn ready(known: &Known, request: &Request<'_>) -> bool {
    // Who overtakes the line is not kept out by it.
    let line = known.view.queued == 0 || request.priority > 0;
    line && fits(&known.view.free, request.demand)
}

/// Calls that wait or run there, per CPU, in steps.
fn load(known: &Known) -> u64 {
    let view = &known.view;
    let cpus = view.capacity.cpu.steps().max(Units::PER_ONE);
    let used = view
        .capacity
        .cpu
        .steps()
        .saturating_sub(view.free.cpu.steps());
    let calls = used.saturating_add(line(known) * Units::PER_ONE);
    calls.saturating_mul(LOAD_STEPS) / cpus
}

/// Calls that wait there, with those that are on their way and find no room.
fn line(known: &Known) -> u64 {
    let full = known.view.free.cpu.is_zero();
    u64::from(known.view.queued) + if full { u64::from(known.unseen) } else { 0 }
}

/// Whether its line is so long that a call would be better off waiting for whoever is first.
fn crowded(known: &Known, request: &Request<'_>) -> bool {
    let cpus = known
        .view
        .capacity
        .cpu
        .steps()
        .div_ceil(Units::PER_ONE)
        .max(1);
    request.priority <= 0 && line(known) >= cpus * MAX_LINE
}

/// A node that may be the best.
struct Candidate {
    /// No room, few bytes, not here: less is better.
    key: (bool, u64, bool),
    load: u64,
    tie: u64,
    node: NodeId,
}

/// By room, bytes, nearness, load, seed. `not` is left out.
fn best(view: &View, me: NodeId, request: &Request<'_>, not: Option<NodeId>) -> Found {
    let mut best: Option<Candidate> = None;
    let mut found = Found::None;
    for (node, known) in view.iter() {
        if Some(node) == not || !suits(known, request) {
            continue;
        }
        let here = node == me;
        let ready = ready(known, request);
        if !ready && !here && (crowded(known, request) || request.priority < 0) {
            found = Found::Busy;
            continue;
        }
        let key = (!ready, u64::MAX - request.bytes_at(node) / LIGHT, !here);
        // What costs more to know is looked at only where it decides.
        let order = best
            .as_ref()
            .map_or(Ordering::Less, |best| key.cmp(&best.key));
        let (load, tie) = match (order, &best) {
            (Ordering::Greater, _) => continue,
            (Ordering::Equal, Some(best)) => {
                let load = load(known);
                if load > best.load {
                    continue;
                }
                let tie = tie(node, request.seed);
                if load == best.load && tie >= best.tie {
                    continue;
                }
                (load, tie)
            }
            _ => (load(known), tie(node, request.seed)),
        };
        best = Some(Candidate {
            key,
            load,
            tie,
            node,
        });
    }
    best.map_or(found, |best| Found::Node(best.node))
}

/// In turn: the fewest unfinished calls of this node, then who had none for longest.
fn spread(view: &View, me: NodeId, request: &Request<'_>) -> Found {
    let all = view.iter().filter(|(_, known)| suits(known, request));
    let key = |node: NodeId, known: &Known| {
        let turn = (known.outstanding, known.turn, !ready(known, request));
        (turn, load(known), node != me, tie(node, request.seed))
    };
    let least = all.min_by_key(|(node, known)| key(*node, known));
    least.map_or(Found::None, |(node, _)| Found::Node(node))
}

/// Whether the one node asked for will do.
fn one(view: &View, me: NodeId, request: &Request<'_>, node: NodeId) -> Result<(), Nowhere> {
    let Some(known) = view.get(node) else {
        let dead = view.is_gone(node);
        return Err(if dead {
            Nowhere::Dead { node }
        } else {
            Nowhere::Unknown { node }
        });
    };
    if let Some(why) = known.view.capacity.lacks(request.demand) {
        let best = Some(node);
        return Err(Nowhere::Infeasible {
            why,
            best,
            nodes: 1,
        });
    }
    if known.view.draining && node != me {
        return Err(Nowhere::Draining { node });
    }
    Ok(())
}

/// The node of the group with the fewest unfinished calls of this node.
fn bundle(view: &View, request: &Request<'_>, bundles: &[NodeId]) -> Found {
    let all = bundles
        .iter()
        .filter_map(|node| Some((*node, view.get(*node)?)));
    let turn = |known: &Known| (known.outstanding, known.turn);
    let least = all.min_by_key(|(node, known)| (turn(known), tie(*node, request.seed)));
    // The bundles of dead nodes will be placed anew.
    least.map_or(Found::Busy, |(node, _)| Found::Node(node))
}

/// A number of the node and the seed that looks like chance.
fn tie(node: NodeId, seed: u64) -> u64 {
    let mut x = node.get() ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
