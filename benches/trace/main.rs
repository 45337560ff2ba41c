//! What the timeline costs: calls with recording off, adaptive and full, in one run; and writing it out.
//!
//! `cargo bench --bench trace [-- --json] [--quick] [--only substring]`. The modes take turns within a sample, each with a node of its own, so
//! that a slow moment of the machine meets all of them; overheads are medians of the ratios within samples. Left out: what
//! is in a timeline (`tests/timeline.rs`).

#[path = "../shared/report.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod report;

use std::hint::black_box;
use std::time::Instant;

use mobula::Trace;
use mobula::prelude::*;
use report::{Report, Row};

#[remote]
fn inc(x: u64) -> u64 {
    x + 1
}

/// Nanoseconds per call, one after the other, and per call of many submitted at once.
fn calls(mode: Trace) -> (f64, f64) {
    const N: u64 = 200_000;
    let _mobula = Config::new()
        .num_cpus(2.0)
        .trace(mode)
        .init()
        .expect("the runtime starts");
    let round_trips = || {
        for i in 0..N {
            assert_eq!(mobula::get(inc::remote(black_box(i))).unwrap(), i + 1);
        }
    };
    // Past what a full purse records.
    round_trips();
    let one = report::time(round_trips).as_secs_f64() * 1e9 / N as f64;
    let many = report::time(|| {
        let refs: Vec<_> = (0..N).map(inc::remote).collect();
        assert_eq!(mobula::get(&refs).unwrap()[0], 1);
    });
    (one, many.as_secs_f64() * 1e9 / N as f64)
}

fn costs(report: &mut Report) {
    let names = [
        (Trace::Off, "trace_task_off", "trace_tasks_async_off"),
        (
            Trace::Adaptive,
            "trace_task_adaptive",
            "trace_tasks_async_adaptive",
        ),
        (Trace::Full, "trace_task_full", "trace_tasks_async_full"),
    ];
    let samples = report.samples(21);
    let mut all = [(); 3].map(|()| (Vec::new(), Vec::new()));
    for sample in 0..samples {
        for turn in 0..3 {
            // Nobody is always first.
            let i = (turn + sample) % 3;
            let (one, many) = calls(names[i].0);
            all[i].0.push(one);
            all[i].1.push(many);
        }
    }
    let row = |report: &mut Report, bench, unit, values: Vec<f64>, limit| {
        report.row(Row {
            bench,
            unit,
            values,
            limit,
            every: false,
        });
    };
    let ratios = |of: &[f64], to: &[f64]| -> Vec<f64> {
        of.iter()
            .zip(to)
            .map(|(a, b)| (a / b - 1.0) * 100.0)
            .collect()
    };
    for (i, (_, one, many)) in names.iter().enumerate() {
        row(report, one, "ns", all[i].0.clone(), None);
        row(report, many, "ns", all[i].1.clone(), None);
    }
    let off = all[0].clone();
    row(
        report,
        "trace_overhead_adaptive",
        "%",
        ratios(&all[1].0, &off.0),
        Some(3.0),
    );
    row(
        report,
        "trace_overhead_adaptive_async",
        "%",
        ratios(&all[1].1, &off.1),
        None,
    );
    row(
        report,
        "trace_overhead_full",
        "%",
        ratios(&all[2].0, &off.0),
        None,
    );
}

/// A million calls, recorded in full and written out.
fn export(report: &mut Report) {
    let n = if report.quick() { 100_000 } else { 1_000_000 };
    let mobula = Config::new()
        .num_cpus(2.0)
        .trace(Trace::Full)
        .trace_memory(n as usize * 3 * 64 + (4 << 20))
        .init()
        .expect("the runtime starts");
    for i in 0..n {
        assert_eq!(mobula::get(inc::remote(i)).unwrap(), i + 1);
    }
    let path = std::env::temp_dir().join(format!("mobula-bench-{}.json", std::process::id()));
    let (mut rates, mut sizes, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..report.samples(5) {
        let before = report::resident();
        let begin = Instant::now();
        let written = mobula.timeline(&path).expect("the timeline is written");
        rates.push(written.events as f64 / begin.elapsed().as_secs_f64());
        assert_eq!((written.boxes, written.submissions), (n, n), "{written:?}");
        sizes.push(written.bytes as f64);
        memory.push(report::resident().saturating_sub(before) as f64);
    }
    let _ = std::fs::remove_file(&path);
    let rows = [
        ("export_events_per_second", "1/s", rates),
        ("export_file", "bytes", sizes),
        ("export_memory_kept", "bytes", memory),
    ];
    for (bench, unit, values) in rows {
        report.row(Row {
            bench,
            unit,
            values,
            limit: None,
            every: false,
        });
    }
}

fn main() {
    let mut report = Report::from_args();
    if report.wants("trace_") {
        costs(&mut report);
    }
    if report.wants("export_") {
        export(&mut report);
    }
    report.end();
}
