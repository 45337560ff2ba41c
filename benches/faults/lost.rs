//! Deaths of whole nodes.

use mobula::prelude::*;
use mobula::{NodeId, Strategy};

use crate::nodes::Cluster;
use crate::report::{Bound, Report, time};
use crate::row;

/// More than travels with the news that a call has ended.
const MANY: usize = 50_000;

#[remote]
fn makes(from: u64) -> Vec<u64> {
    (from..from + MANY as u64).collect()
}

/// There, or where it can be.
fn at(node: NodeId) -> Strategy {
    Strategy::Node { node, soft: true }
}

pub fn rows(report: &mut Report) {
    if report.wants("node_kill_to_rebuilt_object") {
        let samples = report.samples(9);
        let mut cluster = Cluster::new(64 << 20, false);
        cluster.start(samples + 1);
        // Doubts take longer for two seconds after somebody came.
        std::thread::sleep(std::time::Duration::from_millis(2200));
        let values = (0..samples)
            .map(|_| {
                let node = cluster.last();
                let object = makes::options().strategy(at(node)).remote(5);
                let (ready, _) = mobula::wait(std::slice::from_ref(&object)).run().unwrap();
                assert_eq!(ready.len(), 1);
                let took = time(|| {
                    cluster.kill_last();
                    assert_eq!(mobula::get(&object).unwrap()[MANY - 1], 4 + MANY as u64);
                });
                took.as_secs_f64() * 1e3
            })
            .collect();
        let bound = Some(Bound::AtMost(500.0));
        let bench = "node_kill_to_rebuilt_object";
        row(report, bench, "ms", values, None, bound);
    }
}
