//! The process as a whole: its start, and what it takes when idle.

use std::time::{Duration, Instant};

use mobula::prelude::*;

use crate::report::{Report, Row, ask, resident};

#[remote]
fn first(x: u64) -> u64 {
    x + 1
}

/// Seconds of CPU that this process has used.
fn cpu_seconds() -> f64 {
    let all: u64 = std::fs::read_dir("/proc/self/task")
        .expect("procfs is there")
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok())
        .filter_map(|s| s.split(' ').next()?.parse::<u64>().ok())
        .sum();
    all as f64 / 1e9
}

/// What a child process does: prints its figure.
pub fn child(role: &str) {
    let begin = Instant::now();
    let _mobula = mobula::Config::new()
        .num_cpus(2.0)
        .init()
        .expect("the runtime starts");
    assert_eq!(mobula::get(first::remote(1)).unwrap(), 2);
    match role {
        "init" => println!("{}", begin.elapsed().as_secs_f64() * 1e3),
        "idle" => {
            // Past the naps that follow work.
            std::thread::sleep(Duration::from_millis(50));
            let (before, at) = (cpu_seconds(), Instant::now());
            std::thread::sleep(Duration::from_secs(1));
            let cpu = (cpu_seconds() - before) / at.elapsed().as_secs_f64() * 100.0;
            println!("{} {cpu}", resident());
        }
        "actors" => println!("{}", crate::actors::idle_bytes()),
        other => panic!("no such role: {other}"),
    }
}

pub fn rows(report: &mut Report) {
    if report.wants("init_to_first_result") {
        let values = (0..report.samples(21)).map(|_| ask("init")[0]).collect();
        report.row(Row {
            bench: "init_to_first_result",
            unit: "ms",
            values,
            limit: None,
            every: false,
        });
    }
    if report.wants("idle_rss") || report.wants("idle_cpu") {
        let both: Vec<_> = (0..report.samples(5)).map(|_| ask("idle")).collect();
        let (rss, cpu) = (
            both.iter().map(|b| b[0]).collect(),
            both.iter().map(|b| b[1]).collect(),
        );
        report.row(Row {
            bench: "idle_rss",
            unit: "bytes",
            values: rss,
            limit: None,
            every: false,
        });
        report.row(Row {
            bench: "idle_cpu",
            unit: "%",
            values: cpu,
            limit: None,
            every: false,
        });
    }
}
