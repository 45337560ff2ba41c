//! Round trips of calls that do nothing, one after the other and many at once, beside a bare ping-pong.

use std::hint::black_box;
use std::time::Instant;

use mobula::NodeId;
use mobula::prelude::*;

use crate::nodes::Cluster;
use crate::peers;
use crate::report::{Bound, Report, median, time};

/// Calls that are submitted before the first is waited for.
const MANY: u64 = 20_000;

#[remote]
fn next(x: u64) -> u64 {
    x + 1
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new(start: u64) -> Self {
        Counter { total: start }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// The middle and the slowest hundredth of round trips, by sample.
#[derive(Default)]
struct Tails {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Tails {
    fn sample(&mut self, trips: usize, mut f: impl FnMut()) {
        let mut each: Vec<f64> = (0..trips)
            .map(|_| time(&mut f).as_secs_f64() * 1e6)
            .collect();
        each.sort_by(f64::total_cmp);
        self.p50.push(each[each.len() / 2]);
        self.p99.push(each[each.len() * 99 / 100]);
    }
}

const ROWS: [&str; 16] = [
    "remote_task_p50",
    "remote_task_p99",
    "remote_actor_p50",
    "remote_actor_p99",
    "limit_quinn_pingpong_p50",
    "limit_quinn_pingpong_p99",
    "limit_tcp_pingpong_p50",
    "remote_task_polled_p50",
    "remote_task_polled_p99",
    "remote_actor_polled_p50",
    "remote_task_unix_p50",
    "remote_task_unix_p99",
    "remote_actor_unix_p50",
    "remote_actor_unix_p99",
    "remote_tasks_per_s",
    "remote_actor_calls_per_s",
];

pub fn rows(report: &mut Report) {
    if !ROWS.iter().any(|bench| report.wants(bench)) {
        return;
    }
    let mut cluster = Cluster::new(256 << 20, false);
    cluster.add();
    let there = cluster.others()[0];
    let mut quinn = peers::start("quinn");
    let mut tcp = peers::start("tcp");
    let counter = Counter::options().on_node(there).remote(0);
    let mut task = || {
        let x = black_box(1);
        assert_eq!(
            mobula::get(next::options().on_node(there).remote(x)).unwrap(),
            2
        );
    };
    let mut actor = || {
        black_box(mobula::get(counter.add(1)).unwrap());
    };
    let trips = if report.quick() { 200 } else { 500 };
    for _ in 0..trips {
        task();
        actor();
        quinn.ping();
        tcp.ping();
    }
    let (mut tasks, mut actors) = (Tails::default(), Tails::default());
    let (mut bare, mut sockets) = (Tails::default(), Tails::default());
    for _ in 0..report.samples(15) {
        bare.sample(trips, || quinn.ping());
        tasks.sample(trips, &mut task);
        actors.sample(trips, &mut actor);
        sockets.sample(trips, || tcp.ping());
    }
    let limit = Some(median(&bare.p50));
    let bound = Some(Bound::TimesLimit(1.2));
    report.bounded("remote_task_p50", "us", tasks.p50, limit, bound);
    report.bounded("remote_actor_p50", "us", actors.p50, limit, bound);
    let limit = Some(median(&bare.p99));
    report.bounded("remote_task_p99", "us", tasks.p99, limit, None);
    report.bounded("remote_actor_p99", "us", actors.p99, limit, None);
    report.bounded("limit_quinn_pingpong_p50", "us", bare.p50, None, None);
    report.bounded("limit_quinn_pingpong_p99", "us", bare.p99, None, None);
    report.bounded("limit_tcp_pingpong_p50", "us", sockets.p50, None, None);
    if report.wants("remote_tasks_per_s") {
        let values = rates(report, || tasks_at_once(there));
        report.bounded("remote_tasks_per_s", "1/s", values, None, None);
    }
    if report.wants("remote_actor_calls_per_s") {
        let values = rates(report, || {
            let all: Vec<_> = (0..MANY).map(|_| counter.add(1)).collect();
            black_box(mobula::get(&all).unwrap());
        });
        report.bounded("remote_actor_calls_per_s", "1/s", values, None, None);
    }
    drop(counter);
    drop(cluster);
    polled(report, trips);
    near(report, trips);
}

/// The same with nodes that look for what comes instead of sleeping until it does.
fn polled(report: &mut Report, trips: usize) {
    if !report.wants("polled") && !report.wants("remote_task_p50") {
        return;
    }
    let (tasks, actors) = both(report, trips, Cluster::new(256 << 20, true));
    let bound = Some(Bound::AtMost(30.0));
    report.bounded("remote_task_polled_p50", "us", tasks.p50, None, bound);
    report.bounded("remote_task_polled_p99", "us", tasks.p99, None, None);
    report.bounded("remote_actor_polled_p50", "us", actors.p50, None, bound);
}

/// The same over a socket of this machine.
fn near(report: &mut Report, trips: usize) {
    if !report.wants("unix") && !report.wants("remote_task_p50") {
        return;
    }
    let (tasks, actors) = both(report, trips, Cluster::near(256 << 20));
    report.bounded("remote_task_unix_p50", "us", tasks.p50, None, None);
    report.bounded("remote_task_unix_p99", "us", tasks.p99, None, None);
    report.bounded("remote_actor_unix_p50", "us", actors.p50, None, None);
    report.bounded("remote_actor_unix_p99", "us", actors.p99, None, None);
}

/// Round trips of tasks and of an actor's calls, on another node of this cluster.
fn both(report: &Report, trips: usize, mut cluster: Cluster) -> (Tails, Tails) {
    cluster.add();
    let there = cluster.others()[0];
    let counter = Counter::options().on_node(there).remote(0);
    let (mut tasks, mut actors) = (Tails::default(), Tails::default());
    for sample in 0..=report.samples(15) {
        let mut first = (Tails::default(), Tails::default());
        let (tasks, actors) = match sample {
            0 => (&mut first.0, &mut first.1),
            _ => (&mut tasks, &mut actors),
        };
        tasks.sample(trips, || {
            let x = black_box(1);
            let next = next::options().on_node(there).remote(x);
            assert_eq!(mobula::get(next).unwrap(), 2);
        });
        actors.sample(trips, || {
            black_box(mobula::get(counter.add(1)).unwrap());
        });
    }
    (tasks, actors)
}

fn tasks_at_once(there: NodeId) {
    let all: Vec<_> = (0..MANY)
        .map(|i| next::options().on_node(there).remote(i))
        .collect();
    assert_eq!(mobula::get(&all).unwrap()[MANY as usize - 1], MANY);
}

/// Of so many calls at once, after some that do not count.
fn rates(report: &Report, mut many: impl FnMut()) -> Vec<f64> {
    many();
    (0..report.samples(7))
        .map(|_| {
            let begin = Instant::now();
            many();
            MANY as f64 / begin.elapsed().as_secs_f64()
        })
        .collect()
}
