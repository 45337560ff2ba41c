//! A thousand nodes, of the pure machines in virtual time: how fast a node decides, what membership costs, how old views are.

use std::time::{Duration, Instant};

use crate::core::members::net::figures;
use crate::core::placement::rate;
use crate::report::Report;
use crate::row;

const NODES: u64 = 1_000;
/// What a node tells of itself, encoded: capacities, what is free, some labels.
const VIEW: usize = 64;

pub fn rows(report: &mut Report) {
    if report.wants("sched_1000_decisions") {
        let view = rate::cluster(NODES);
        let decide = |n: u32| {
            let begin = Instant::now();
            std::hint::black_box(rate::decide(&view, n, 1));
            f64::from(n) / begin.elapsed().as_secs_f64()
        };
        decide(10_000);
        let values = (0..report.samples(7)).map(|_| decide(20_000)).collect();
        row(report, "sched_1000_decisions", "1/s", values, None, None);
    }
    let gossip = [
        "gossip_1000_bytes",
        "gossip_1000_datagrams",
        "gossip_1000_age",
        "gossip_1000_age_p99",
        "gossip_1000_death",
    ];
    if !gossip.iter().any(|bench| report.wants(bench)) {
        return;
    }
    let (nodes, span) = match report.quick() {
        true => (200, Duration::from_secs(2)),
        false => (NODES as usize, Duration::from_secs(6)),
    };
    if report.quick() {
        report.note("--quick: the gossip of 200 nodes, not of 1000");
    }
    let f = figures(nodes, span, VIEW, 1);
    let ms = |d: Duration| vec![d.as_secs_f64() * 1e3];
    row(report, gossip[0], "B/s", vec![f.bytes], None, None);
    row(report, gossip[1], "1/s", vec![f.datagrams], None, None);
    row(report, gossip[2], "ms", ms(f.age_median), None, None);
    row(report, gossip[3], "ms", ms(f.age_p99), None, None);
    row(report, gossip[4], "ms", ms(f.death), None, None);
}
