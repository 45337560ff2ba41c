//! More nodes than two: how long one takes to join, and one object to reach eight.

use mobula::prelude::*;

use crate::nodes::Cluster;
use crate::report::{Report, time};

/// Nodes that an object is sent to.
const NODES: usize = 8;
const LEN: usize = 100_000_000;

#[remote]
fn length(v: &[u8]) -> usize {
    v.len()
}

pub fn rows(report: &mut Report) {
    if report.wants("join_time") {
        let mut cluster = Cluster::new(64 << 20, false);
        cluster.add(); // does not count
        let samples = report.samples(9);
        let values = (0..samples)
            .map(|_| time(|| cluster.add()).as_secs_f64() * 1e3)
            .collect();
        report.bounded("join_time", "ms", values, None, None);
    }
    if report.wants("broadcast_100mb_8") {
        let mut cluster = Cluster::new(512 << 20, false);
        cluster.start(NODES);
        let others = cluster.others();
        let broadcast = || {
            let put = mobula::put(&vec![7u8; LEN]).unwrap();
            let took = time(|| {
                let calls: Vec<_> = others
                    .iter()
                    .map(|node| length::options().on_node(*node).remote(&put))
                    .collect();
                assert_eq!(mobula::get(&calls).unwrap(), [LEN; NODES]);
            });
            took.as_secs_f64()
        };
        broadcast();
        let values = (0..report.samples(5)).map(|_| broadcast()).collect();
        report.bounded("broadcast_100mb_8", "s", values, None, None);
    }
}
