//! Deaths of whole nodes.

use mobula::prelude::*;
use mobula::{NodeId, Strategy};

use crate::nodes::Cluster;
use crate::report::{Bound, Report, time};

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

/// Keeps its state over the death of its node.
#[remote(max_restarts = 3)]
pub struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// As many nodes as are to be killed, and one that stays; who came last is doubted for longer for two seconds.
fn nodes(kills: usize) -> Cluster {
    let mut cluster = Cluster::new(64 << 20, false);
    cluster.start(kills + 1);
    std::thread::sleep(std::time::Duration::from_millis(2200));
    cluster
}

pub fn rows(report: &mut Report) {
    let bound = Some(Bound::AtMost(500.0));
    if report.wants("node_kill_to_actor_answer") {
        let samples = report.samples(9);
        let mut cluster = nodes(samples);
        let values = (0..samples)
            .map(|_| {
                let counter = Counter::options().strategy(at(cluster.last())).remote();
                for n in 1..=10 {
                    assert_eq!(mobula::get(counter.add(1)).unwrap(), n);
                }
                let took = time(|| {
                    cluster.kill_last();
                    assert_eq!(mobula::get(counter.add(1)).unwrap(), 11);
                });
                took.as_secs_f64() * 1e3
            })
            .collect();
        report.bounded("node_kill_to_actor_answer", "ms", values, None, bound);
    }
    if report.wants("node_kill_to_rebuilt_object") {
        let samples = report.samples(9);
        let mut cluster = nodes(samples);
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
        let bench = "node_kill_to_rebuilt_object";
        report.bounded(bench, "ms", values, None, bound);
    }
}
