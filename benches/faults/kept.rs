//! What being kept by another node costs while nothing happens: an actor with a backup beside an actor without.
//!
//! Of each kind one runs on the node that calls, and one on another; a third node may be backup. Rows of the two kinds are measured in
//! turn. `remote` rows call over the network, so that what a call pays for its backup stands beside one round trip; `local` rows
//! call on the actor's own node, where the limit is a call that never leaves the thread's memory.

use mobula::Strategy;
use mobula::prelude::*;

use crate::calls::{p50, rate};
use crate::lost::Counter as Kept;
use crate::nodes::Cluster;
use crate::report::{Bound, Report, median};

/// Ends with its node.
#[remote]
pub struct Bare {
    total: u64,
}

#[remote]
impl Bare {
    pub fn new() -> Self {
        Bare { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// Of calls on another node and on this one: synchronous, then pipelined, each kept and then bare.
const ROWS: [[&str; 4]; 2] = [
    [
        "kept_remote_call_p50",
        "bare_remote_call_p50",
        "kept_remote_calls",
        "bare_remote_calls",
    ],
    [
        "kept_local_call_p50",
        "bare_local_call_p50",
        "kept_local_calls",
        "bare_local_calls",
    ],
];

pub fn rows(report: &mut Report) {
    if !ROWS.as_flattened().iter().any(|bench| report.wants(bench)) {
        return;
    }
    let mut cluster = Cluster::new(64 << 20, false);
    cluster.start(2);
    let here = cluster.head();
    for (rows, node) in ROWS.iter().zip([cluster.last(), here]) {
        let on = Strategy::Node { node, soft: true };
        let kept = Kept::options().strategy(on.clone()).remote();
        let bare = Bare::options().strategy(on).remote();
        let mut both = |names: [&'static str; 2], unit, bound, one: &dyn Fn() -> [f64; 2]| {
            if !names.iter().any(|name| report.wants(name)) {
                return;
            }
            one();
            let rounds = (0..report.samples(9)).map(|_| one());
            let (kept, bare): (Vec<f64>, Vec<f64>) = rounds.map(<(f64, f64)>::from).unzip();
            report.bounded(names[0], unit, kept, Some(median(&bare)), bound);
            report.bounded(names[1], unit, bare, None, None);
        };
        both([rows[0], rows[1]], "us", None, &|| {
            [p50(1_000, || kept.add(1)), p50(1_000, || bare.add(1))]
        });
        let half = Some(Bound::OfLimit(0.5));
        both([rows[2], rows[3]], "1/s", half, &|| {
            [rate(|| kept.add(1)), rate(|| bare.add(1))]
        });
    }
}
