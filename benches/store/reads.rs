//! Taking objects out again, in the process that has the store.

use std::hint::black_box;

use mobula::prelude::*;

use crate::report::{Beside, Bound, Report, Row, time};

/// Nanoseconds each, of `n` in a row.
fn each(n: usize, mut f: impl FnMut()) -> f64 {
    let took = time(|| (0..n).for_each(|_| f()));
    took.as_secs_f64() * 1e9 / n as f64
}

pub fn rows(report: &mut Report) {
    if !["view_1kb", "view_10mb", "get_1kb", "get_1mb"]
        .iter()
        .any(|b| report.wants(b))
    {
        return;
    }
    let _mobula = mobula::Config::new()
        .num_cpus(2.0)
        .object_store_memory(64 << 20)
        .init()
        .expect("the runtime starts");
    let small = mobula::put(&vec![7u8; 1 << 10]).unwrap();
    let middle = mobula::put(&vec![7u8; 1 << 20]).unwrap();
    let large = mobula::put(&vec![7u8; 10 << 20]).unwrap();
    let look = |object: &ObjectRef<Vec<u8>>| {
        let view = mobula::view(black_box(object)).unwrap();
        black_box(view[view.len() - 1]);
    };
    let take = |object: &ObjectRef<Vec<u8>>| {
        black_box(mobula::get(black_box(object)).unwrap());
    };
    let bound = Some(Bound::AtMost(50.0));
    latency(report, "view_1kb", 100_000, bound, || look(&small));
    latency(report, "view_10mb", 100_000, bound, || look(&large));
    latency(report, "get_1kb", 20_000, None, || take(&small));
    latency(report, "get_1mb", 50, None, || take(&middle));
}

fn latency(
    report: &mut Report,
    bench: &'static str,
    n: usize,
    bound: Option<Bound>,
    mut f: impl FnMut(),
) {
    if !report.wants(bench) {
        return;
    }
    each(n, &mut f);
    let values = (0..report.samples(21)).map(|_| each(n, &mut f)).collect();
    let row = Row {
        bench,
        unit: "ns",
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
