//! Up to ten thousand nodes, of the pure machines in virtual time: how fast a node decides, what membership costs, how old
//! views are.
//!
//! Invariant: but for the decisions a second, the figures are the same on every machine. Left out: the network's own bytes.

use std::time::{Duration, Instant};

use crate::core::members::net::figures;
use crate::core::placement::rate;
use crate::report::Report;

/// Rows of decisions, and among how many nodes they are made.
const DECISIONS: [(&str, u64, u32); 2] = [
    ("sched_1000_decisions", 1_000, 20_000),
    ("sched_10000_decisions", 10_000, 2_000),
];

/// Rows of gossip, and of how many nodes: bytes, datagrams, age of views, that of the 99th of 100, and a death.
const GOSSIP: [([&str; 5], usize); 3] = [
    (
        [
            "gossip_100_bytes",
            "gossip_100_datagrams",
            "gossip_100_age",
            "gossip_100_age_p99",
            "gossip_100_death",
        ],
        100,
    ),
    (
        [
            "gossip_300_bytes",
            "gossip_300_datagrams",
            "gossip_300_age",
            "gossip_300_age_p99",
            "gossip_300_death",
        ],
        300,
    ),
    (
        [
            "gossip_1000_bytes",
            "gossip_1000_datagrams",
            "gossip_1000_age",
            "gossip_1000_age_p99",
            "gossip_1000_death",
        ],
        1_000,
    ),
];

/// What a node tells of itself, encoded: capacities, what is free, some labels.
const VIEW: usize = 64;

pub fn rows(report: &mut Report) {
    for (name, nodes, decisions) in DECISIONS {
        if !report.wants(name) {
            continue;
        }
        let view = rate::cluster(nodes);
        let decide = |n: u32| {
            let begin = Instant::now();
            std::hint::black_box(rate::decide(&view, n, 1));
            f64::from(n) / begin.elapsed().as_secs_f64()
        };
        decide(decisions / 2);
        let values = (0..report.samples(7)).map(|_| decide(decisions)).collect();
        report.bounded(name, "1/s", values, None, None);
    }
    for (names, nodes) in GOSSIP {
        if names.iter().any(|name| report.wants(name)) {
            gossip(report, names, nodes);
        }
    }
}

fn gossip(report: &mut Report, names: [&'static str; 5], nodes: usize) {
    let (shown, span) = match report.quick() {
        true => (nodes.min(200), Duration::from_secs(2)),
        false => (nodes, Duration::from_secs(6)),
    };
    if shown < nodes {
        report.note("--quick: the gossip of 200 nodes, not of as many as the row says");
    }
    let f = figures(shown, span, VIEW, 1);
    let ms = |d: Duration| vec![d.as_secs_f64() * 1e3];
    report.bounded(names[0], "B/s", vec![f.bytes], None, None);
    report.bounded(names[1], "1/s", vec![f.datagrams], None, None);
    report.bounded(names[2], "ms", ms(f.age_median), None, None);
    report.bounded(names[3], "ms", ms(f.age_p99), None, None);
    report.bounded(names[4], "ms", ms(f.death), None, None);
}
