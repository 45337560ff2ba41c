//! Deaths of worker processes.

use mobula::prelude::*;

use crate::kill;
use crate::report::{Bound, Report, time};

/// Crashes unless the file is there; leaves it behind.
#[remote(isolate, max_retries = 3)]
fn crash_once(file: String) -> u64 {
    if std::path::Path::new(&file).exists() {
        return 1;
    }
    std::fs::write(&file, "x").expect("a temporary file");
    std::process::abort()
}

/// Keeps its state over the death of its process.
#[remote(isolate, max_restarts = 1_000_000)]
struct Counter {
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

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

const ROWS: [&str; 4] = [
    "worker_crash_to_result",
    "actor_kill_to_answer",
    "replay_10000_calls",
    "replay_10000_calls_checkpointed",
];

pub fn rows(report: &mut Report) {
    if !ROWS.iter().any(|bench| report.wants(bench)) {
        return;
    }
    let _mobula = crate::logs::start();
    let at_most = |ms| Some(Bound::AtMost(ms));
    if report.wants(ROWS[0]) {
        crash(0);
        let values = (1..=report.samples(21)).map(crash).collect();
        report.bounded(ROWS[0], "ms", values, None, at_most(20.0));
    }
    if report.wants(ROWS[1]) {
        dies_after(10, None);
        let values = (0..report.samples(21)).map(|_| dies_after(10, None));
        let values = values.collect();
        report.bounded(ROWS[1], "ms", values, None, at_most(20.0));
    }
    for (bench, every) in [(ROWS[2], None), (ROWS[3], Some(1000))] {
        if report.wants(bench) {
            let values = (0..report.samples(9)).map(|_| dies_after(9_999, every));
            let values = values.collect();
            report.bounded(bench, "ms", values, None, None);
        }
    }
}

fn crash(sample: usize) -> f64 {
    let name = format!("mobula-faults-{}-{sample}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let path = file.to_str().expect("a plain name").to_owned();
    let took = time(|| assert_eq!(mobula::get(crash_once::remote(path)).unwrap(), 1));
    let _ = std::fs::remove_file(&file);
    took.as_secs_f64() * 1e3
}

/// From the kill to the next answer, in ms.
fn dies_after(calls: u64, checkpoint_every: Option<u32>) -> f64 {
    let options = match checkpoint_every {
        Some(calls) => Counter::options().checkpoint_every(calls),
        // More than there are: all of them run again.
        None => Counter::options().checkpoint_every(u32::MAX),
    };
    let counter = options.remote();
    let answers: Vec<_> = (0..calls).map(|_| counter.add(1)).collect();
    assert!(mobula::get(&answers).unwrap().into_iter().eq(1..=calls));
    let pid = mobula::get(counter.pid()).unwrap();
    let took = time(|| {
        kill(pid);
        assert_eq!(mobula::get(counter.add(1)).unwrap(), calls + 1);
    });
    took.as_secs_f64() * 1e3
}
