//! What keeping a history costs while nothing happens: an actor with one beside an actor without.

use mobula::prelude::*;

use crate::calls::{p50, rate};
use crate::report::{Bound, Report, median};

macro_rules! counter {
    ($name:ident, $($option:tt)*) => {
        #[remote(isolate, $($option)*)]
        struct $name {
            total: u64,
        }

        #[remote]
        impl $name {
            pub fn new() -> Self {
                $name { total: 0 }
            }

            pub fn add(&mut self, n: u64) -> u64 {
                self.total += n;
                self.total
            }
        }
    };
}

counter!(Logged, max_restarts = 10);
counter!(Unlogged, max_restarts = 0);

pub fn start() -> mobula::Mobula {
    mobula::Config::new()
        .num_cpus(2.0)
        .object_store_memory(256 << 20)
        .attach(false)
        .init()
        .expect("the runtime starts")
}

const ROWS: [&str; 4] = [
    "logged_call_p50",
    "unlogged_call_p50",
    "logged_calls",
    "unlogged_calls",
];

pub fn rows(report: &mut Report) {
    if !ROWS.iter().any(|bench| report.wants(bench)) {
        return;
    }
    let _mobula = start();
    let (logged, unlogged) = (Logged::remote(), Unlogged::remote());
    let (mut values, mut n) = ([const { Vec::new() }; 4], 0);
    for _ in 0..report.samples(15) + 1 {
        let one = [
            p50(5_000, || logged.add(1)),
            p50(5_000, || unlogged.add(1)),
            rate(|| logged.add(1)),
            rate(|| unlogged.add(1)),
        ];
        n += 1;
        if n > 1 {
            one.into_iter()
                .zip(&mut values)
                .for_each(|(v, all)| all.push(v));
        }
    }
    let [logged_call, unlogged_call, logged_rate, unlogged_rate] = values;
    let (call, pipelined) = (median(&unlogged_call), median(&unlogged_rate));
    // No hop but the actor's own: the log lies in this process.
    let bound = Some(Bound::TimesLimit(2.0));
    report.bounded(ROWS[0], "us", logged_call, Some(call), bound);
    report.bounded(ROWS[1], "us", unlogged_call, None, None);
    let bound = Some(Bound::OfLimit(0.5));
    report.bounded(ROWS[2], "1/s", logged_rate, Some(pipelined), bound);
    report.bounded(ROWS[3], "1/s", unlogged_rate, None, None);
}
