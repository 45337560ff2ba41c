//! Calls in worker processes, beside what two processes can do without a library.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mobula::prelude::*;

use crate::raw::{Answers, Echo};
use crate::report::{Bound, Report, ask, median, time};

#[remote(isolate)]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

/// Crashes unless the file is there; leaves it behind.
#[remote(isolate, max_retries = 3)]
fn crash_once(file: String) -> u64 {
    if std::path::Path::new(&file).exists() {
        return 1;
    }
    std::fs::write(&file, "x").expect("a temporary file");
    std::process::abort()
}

fn start() -> mobula::Mobula {
    mobula::Config::new()
        .num_cpus(2.0)
        .object_store_memory(256 << 20)
        .init()
        .expect("the runtime starts")
}

/// What a child process does: says how many milliseconds it took to the first result of a worker.
pub fn child() {
    let begin = Instant::now();
    let _mobula = start();
    assert_eq!(mobula::get(add::remote(1, 2)).unwrap(), 3);
    println!("{}", begin.elapsed().as_secs_f64() * 1e3);
}

/// An actor in a process of its own.
#[remote(isolate)]
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

const ROWS: [&str; 10] = [
    "isolated_actor_p50",
    "isolated_actor_p99",
    "isolated_actors_created",
    "isolated_task_p50",
    "isolated_task_p99",
    "isolated_task_asleep",
    "isolated_tasks",
    "raw_spin",
    "raw_futex",
    "crash_to_retried_result",
];

pub fn rows(report: &mut Report) {
    if report.wants("worker_start") {
        let values = (0..report.samples(11))
            .map(|_| ask("worker_start")[0])
            .collect();
        report.bounded(
            "worker_start",
            "ms",
            values,
            None,
            Some(Bound::AtMost(60.0)),
        );
    }
    if !ROWS.iter().any(|bench| report.wants(bench)) {
        return;
    }
    let mut echo = Echo::start(Answers::Page); // before there are threads
    let _mobula = start();
    assert_eq!(mobula::get(add::remote(1, 2)).unwrap(), 3);
    let (mut spin, mut tasks, mut actor) = (Vec::new(), Tails::default(), Tails::default());
    let counter = Counter::remote(0);
    for _ in 0..report.samples(21) {
        spin.push(echo.spinning(20_000));
        tasks.sample(round_trip);
        actor.sample(|| {
            black_box(mobula::get(counter.add(1)).unwrap());
        });
    }
    drop(counter);
    let limit = Some(median(&spin));
    let bound = Some(Bound::AtMost(2.5));
    report.bounded("isolated_task_p50", "us", tasks.p50, limit, bound);
    report.bounded("isolated_task_p99", "us", tasks.p99, limit, None);
    report.bounded("isolated_actor_p50", "us", actor.p50, limit, bound);
    report.bounded("isolated_actor_p99", "us", actor.p99, limit, None);
    report.bounded("raw_spin", "us", spin, None, None);

    let (mut futex, mut asleep) = (Vec::new(), Vec::new());
    for _ in 0..report.samples(21) {
        // Longer than anybody spins.
        let idle = Duration::from_millis(10);
        futex.push(median(&echo.sleeping(20, idle)));
        let each: Vec<f64> = (0..20)
            .map(|_| {
                std::thread::sleep(idle);
                micros(round_trip)
            })
            .collect();
        asleep.push(median(&each));
    }
    let limit = Some(median(&futex));
    report.bounded(
        "isolated_task_asleep",
        "us",
        asleep,
        limit,
        Some(Bound::TimesLimit(1.2)),
    );
    report.bounded("raw_futex", "us", futex, None, None);

    if report.wants("isolated_tasks") {
        const N: u64 = 50_000;
        let rate = || {
            let took = time(|| {
                let all: Vec<_> = (0..N).map(|i| add::remote(i, 1)).collect();
                assert_eq!(mobula::get(&all).unwrap()[N as usize - 1], N);
            });
            N as f64 / took.as_secs_f64()
        };
        rate();
        let values = (0..report.samples(11)).map(|_| rate()).collect();
        report.bounded(
            "isolated_tasks",
            "1/s",
            values,
            None,
            Some(Bound::AtLeast(500e3)),
        );
    }
    if report.wants("isolated_actors_created") {
        create();
        let values = (0..report.samples(11)).map(|_| create()).collect();
        let bound = Some(Bound::AtLeast(200.0));
        report.bounded("isolated_actors_created", "1/s", values, None, bound);
    }
    if report.wants("crash_to_retried_result") {
        let values = (0..report.samples(11)).map(crash).collect();
        report.bounded(
            "crash_to_retried_result",
            "ms",
            values,
            None,
            Some(Bound::AtMost(20.0)),
        );
    }
}

/// The middle and the slowest hundredth of some round trips, by sample.
#[derive(Default)]
struct Tails {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Tails {
    fn sample(&mut self, mut f: impl FnMut()) {
        let mut each: Vec<f64> = (0..5_000).map(|_| micros(&mut f)).collect();
        each.sort_by(f64::total_cmp);
        self.p50.push(each[each.len() / 2]);
        self.p99.push(each[each.len() / 100 * 99]);
    }
}

/// Actors a second, made, asked once, and ended, some at a time.
fn create() -> f64 {
    const N: usize = 16;
    let mut all = Vec::new();
    let took = time(|| {
        all = (0..N as u64).map(Counter::remote).collect::<Vec<_>>();
        let refs: Vec<_> = all.iter().map(|actor| actor.add(1)).collect();
        assert_eq!(mobula::get(&refs).unwrap()[N - 1], N as u64);
    });
    for actor in &all {
        actor.stop();
    }
    let begin = Instant::now();
    while all.iter().any(Handle::is_alive) {
        assert!(begin.elapsed().as_secs() < 20, "stopped actors end");
        std::thread::yield_now();
    }
    N as f64 / took.as_secs_f64()
}

fn round_trip() {
    assert_eq!(mobula::get(add::remote(black_box(1), 2)).unwrap(), 3);
}

fn micros(f: impl FnOnce()) -> f64 {
    time(f).as_secs_f64() * 1e6
}

fn crash(sample: usize) -> f64 {
    let name = format!("mobula-bench-{}-{sample}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let path = file.to_str().expect("a plain name").to_owned();
    let took = time(|| assert_eq!(mobula::get(crash_once::remote(path)).unwrap(), 1));
    let _ = std::fs::remove_file(&file);
    took.as_secs_f64() * 1e3
}
