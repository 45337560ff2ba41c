//! A cluster to choose in, for measuring how fast that is.
//!
//! Invariant: the same arguments give the same cluster and the same choices. Left out: the clock, which the caller holds.

use super::{Choice, Request, choose};
use crate::base::{Capacity, Demand, NodeId, Strategy, Units};
use crate::core::view::{NodeView, View};

/// A view of so many nodes, each with 16 CPUs, some of them taken. Node 1 is the chooser's, and full.
pub fn cluster(nodes: u64) -> View {
    let mut view = View::new();
    for n in 1..=nodes {
        let free = if n == 1 { 0 } else { n * 7 % 17 };
        let told = NodeView {
            capacity: Capacity::new(Units::whole(16), 0),
            free: Demand::cpu_only(Units::whole(free)),
            labels: [("zone".to_owned(), (n % 3).to_string())].into(),
            queued: if free == 0 { 3 } else { 0 },
            version: 1,
            ..NodeView::default()
        };
        if let Some(node) = NodeId::new(n) {
            view.merge(node, told);
        }
    }
    view
}

/// Makes so many decisions for common calls with two inputs, each counted into the view; says how many went to others.
pub fn decide(view: &View, decisions: u32, seed: u64) -> u32 {
    let mut view = view.clone();
    let nodes = view.len().max(1) as u64;
    let Some(me) = NodeId::new(1) else { return 0 };
    let (one, default) = (Demand::ONE_CPU, Strategy::Default);
    let mut remote = 0;
    for i in 0..u64::from(decisions) {
        let input = |k: u64| {
            (
                NodeId::new(1 + (i * 31 + k * 17) % nodes).unwrap_or(me),
                k * 300_000,
            )
        };
        let request = Request {
            bytes: &[input(0), input(1)],
            seed: seed.wrapping_add(i),
            ..Request::new(&one, &default)
        };
        if let Choice::At(node) = choose(&view, me, &request) {
            view.sent(node, &one);
            remote += 1;
        }
    }
    remote
}
