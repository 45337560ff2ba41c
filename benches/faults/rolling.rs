//! All nodes replaced, one after the other, while clients call actors on them.
//!
//! Each node is told to leave when its successor has joined. Every client calls one actor, synchronously; what it is answered says
//! whether a call was lost or counted twice, and then the benchmark fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula::Strategy;
use mobula::prelude::*;

use crate::lost::Counter;
use crate::nodes::Cluster;
use crate::report::Report;

/// Nodes beside the head, and actors, one on each.
const NODES: usize = 3;

/// Calls until it is over: how many, and the longest that one took.
fn client(counter: &Handle<Counter>, over: &AtomicBool) -> (u64, Duration) {
    let (mut made, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Acquire) {
        let began = Instant::now();
        made += 1;
        let answer = mobula::get(counter.add(1)).expect("it goes on elsewhere");
        assert_eq!(answer, made, "each call counts once");
        longest = longest.max(began.elapsed());
    }
    (made, longest)
}

pub fn rows(report: &mut Report) {
    let names = [
        "rolling_restart_per_node",
        "rolling_restart_longest_call",
        "rolling_restart_calls_lost",
    ];
    if !names.iter().any(|name| report.wants(name)) {
        return;
    }
    let samples = report.samples(5);
    let (mut each, mut longest, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..samples {
        let mut cluster = Cluster::new(64 << 20, false);
        cluster.start(NODES);
        let on = |node| Counter::options().strategy(Strategy::Node { node, soft: true });
        let counters: Vec<_> = cluster.others().into_iter().map(on).collect();
        let counters: Vec<_> = counters.into_iter().map(|o| o.remote()).collect();
        let over = AtomicBool::new(false);
        let over = &over;
        std::thread::scope(|scope| {
            let clients = counters
                .iter()
                .map(|c| scope.spawn(move || client(c, over)));
            let clients: Vec<_> = clients.collect();
            let began = Instant::now();
            for _ in 0..NODES {
                cluster.add();
                cluster.retire_first();
            }
            each.push(began.elapsed().as_secs_f64() * 1e3 / NODES as f64);
            over.store(true, Ordering::Release);
            let ended = clients.into_iter().map(|c| c.join().expect("all counted"));
            let (made, waits): (Vec<u64>, Vec<Duration>) = ended.unzip();
            let waited = waits.into_iter().max().unwrap_or_default();
            longest.push(waited.as_secs_f64() * 1e3);
            let counted = counters
                .iter()
                .map(|c| mobula::get(c.add(0)).expect("it is there"));
            let counted: u64 = counted.sum();
            let made: u64 = made.iter().sum();
            lost.push(made.abs_diff(counted) as f64);
        });
    }
    report.bounded(names[0], "ms", each, None, None);
    report.bounded(names[1], "ms", longest, None, None);
    report.bounded(
        names[2],
        "calls",
        lost,
        None,
        Some(crate::report::Bound::AtMost(0.0)),
    );
}
