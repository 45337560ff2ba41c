//! Calls in worker processes, beside what two processes can do without a library.

use std::hint::black_box;
use std::time::{Duration, Instant};

use mobula::prelude::*;

use crate::raw::Echo;
use crate::report::{Beside, Bound, Report, Row, ask, median, time};

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

/// What a child process does: prints how many milliseconds it took to the first result of a worker.
pub fn child(role: &str) {
    assert_eq!(role, "worker_start", "no such role");
    let begin = Instant::now();
    let _mobula = start();
    assert_eq!(mobula::get(add::remote(1, 2)).unwrap(), 3);
    println!("{}", begin.elapsed().as_secs_f64() * 1e3);
}

const ROWS: [&str; 7] = [
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
        row(
            report,
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
    let mut echo = Echo::start(); // before there are threads
    let _mobula = start();
    assert_eq!(mobula::get(add::remote(1, 2)).unwrap(), 3);
    let (mut spin, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..report.samples(21) {
        spin.push(echo.spinning(20_000));
        let mut each: Vec<f64> = (0..5_000).map(|_| micros(round_trip)).collect();
        each.sort_by(f64::total_cmp);
        p50.push(each[each.len() / 2]);
        p99.push(each[each.len() / 100 * 99]);
    }
    let limit = Some(median(&spin));
    row(
        report,
        "isolated_task_p50",
        "us",
        p50,
        limit,
        Some(Bound::AtMost(2.5)),
    );
    row(report, "isolated_task_p99", "us", p99, limit, None);
    row(report, "raw_spin", "us", spin, None, None);

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
    row(
        report,
        "isolated_task_asleep",
        "us",
        asleep,
        limit,
        Some(Bound::TimesLimit(1.2)),
    );
    row(report, "raw_futex", "us", futex, None, None);

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
        row(
            report,
            "isolated_tasks",
            "1/s",
            values,
            None,
            Some(Bound::AtLeast(500e3)),
        );
    }
    if report.wants("crash_to_retried_result") {
        let values = (0..report.samples(11)).map(crash).collect();
        row(
            report,
            "crash_to_retried_result",
            "ms",
            values,
            None,
            Some(Bound::AtMost(20.0)),
        );
    }
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

fn row(
    report: &mut Report,
    bench: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    limit: Option<f64>,
    bound: Option<Bound>,
) {
    let row = Row {
        bench,
        unit,
        values,
        limit,
        every: false,
    };
    let beside = Beside {
        bound,
        ..Beside::default()
    };
    if report.wants(bench) {
        report.row_beside(row, beside);
    }
}
