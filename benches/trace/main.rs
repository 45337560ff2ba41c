//! What the timeline costs: calls with recording off, adaptive and full, in one run; and writing it out.
//!
//! `cargo bench --bench trace [-- --json] [--quick] [--only substring]`. The modes take turns within a sample, each with a node of its own, so
//! that a slow moment of the machine meets all of them; overheads are medians of the ratios within samples. Calls one after
//! the other run on the calling thread, whose CPU time is what is measured: what else runs on the machine hardly counts. Left out: what
//! is in a timeline (`tests/timeline.rs`).

#[path = "../shared/report.rs"]
#[allow(dead_code, reason = "shared with another benchmark")]
mod report;

mod export;
mod opened;

use std::hint::black_box;

use mobula::Trace;
use mobula::prelude::*;
use report::{Beside, Bound, Report, Row};

/// A call that does next to nothing.
#[remote]
pub fn inc(x: u64) -> u64 {
    x + 1
}

/// Nanoseconds of CPU time of this thread.
fn cpu_nanos() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
}

/// Calls of one sample; more than a full purse records.
const N: u64 = 20_000;

fn node(mode: Trace) -> mobula::Mobula {
    let config = Config::new().num_cpus(2.0).trace(mode);
    config.init().expect("the runtime starts")
}

/// Calls one after the other.
fn round_trips() {
    for i in 0..N {
        assert_eq!(mobula::get(inc::remote(black_box(i))).unwrap(), i + 1);
    }
}

/// The part of fast calls that the default records, in percent.
fn share() -> f64 {
    let mobula = node(Trace::Adaptive);
    let recorded = || mobula.timeline("/dev/null").expect("it is written").boxes;
    round_trips();
    let before = recorded();
    round_trips();
    (recorded() - before) as f64 * 100.0 / N as f64
}

/// Nanoseconds per call, one after the other, and per call of many submitted at once.
fn calls(mode: Trace) -> (f64, f64) {
    let _mobula = node(mode);
    // Past what a full purse records.
    round_trips();
    let before = cpu_nanos();
    round_trips();
    let one = (cpu_nanos() - before) / N as f64;
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
    // Short and many: what disturbs one sample is outvoted.
    let samples = if report.quick() { 21 } else { 201 };
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
    let row = |report: &mut Report, bench, values: Vec<f64>| {
        report.row(Row {
            bench,
            unit: "ns",
            values,
            limit: None,
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
        row(report, one, all[i].0.clone());
        row(report, many, all[i].1.clone());
    }
    let shares = (0..report.samples(15)).map(|_| share()).collect();
    report.row(Row {
        bench: "trace_recorded_share",
        unit: "%",
        values: shares,
        limit: None,
        every: false,
    });
    let [(off, off_async), (adaptive, adaptive_async), (full, _)] = all;
    let overheads = [
        (
            "trace_overhead_adaptive",
            ratios(&adaptive, &off),
            Some(Bound::AtMost(3.0)),
        ),
        (
            "trace_overhead_adaptive_async",
            ratios(&adaptive_async, &off_async),
            None,
        ),
        ("trace_overhead_full", ratios(&full, &off), None),
    ];
    for (bench, mut values, bound) in overheads {
        values.sort_by(f64::total_cmp);
        let (low, high) = (values[values.len() / 4], values[values.len() * 3 / 4]);
        bounded(report, bench, "%", values, bound);
        report.note(&format!(
            "{bench}: the middle half of the samples is {low:.1} to {high:.1} %"
        ));
    }
}

/// A row that stands beside nothing but what the design asks for.
fn bounded(
    report: &mut Report,
    bench: &'static str,
    unit: &'static str,
    values: Vec<f64>,
    bound: Option<Bound>,
) {
    let row = Row {
        bench,
        unit,
        values,
        limit: None,
        every: false,
    };
    let beside = Beside {
        bound,
        ..Beside::default()
    };
    report.row_beside(row, beside);
}

fn main() {
    let mut report = Report::from_args();
    if report.wants("trace_") {
        costs(&mut report);
    }
    if report.wants("export_") {
        export::export(&mut report);
    }
    report.end();
}
