//! Tasks: alone, in streams, in chains, in trees, and waiting for many.

use std::hint::black_box;

use mobula::prelude::*;

use crate::report::Report;

#[remote]
fn inc(x: u64) -> u64 {
    x + 1
}

#[remote]
fn total(xs: Vec<u64>) -> u64 {
    xs.iter().sum()
}

#[remote]
fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = (fib::remote(n - 1), fib::remote(n - 2));
    mobula::get(&b).unwrap() + mobula::get(&a).unwrap()
}

/// Tasks that `fib(n)` makes.
fn fib_tasks(n: u64) -> u64 {
    if n < 2 {
        1
    } else {
        1 + fib_tasks(n - 1) + fib_tasks(n - 2)
    }
}

#[remote]
fn many_refs(n: u64) -> Vec<ObjectRef<u64>> {
    (0..n).map(|i| mobula::put(&i).unwrap()).collect()
}

pub fn rows(report: &mut Report) {
    report.latency("task_round_trip", 21, 20_000, || {
        for i in 0..20_000 {
            assert_eq!(mobula::get(inc::remote(black_box(i))).unwrap(), i + 1);
        }
    });
    report.rate("tasks_async", 21, 100_000, || {
        let refs: Vec<_> = (0..100_000).map(inc::remote).collect();
        assert_eq!(mobula::get(&refs).unwrap()[99_999], 100_000);
    });
    report.measure("chain_1000", "us", 21, || {
        let begin = std::time::Instant::now();
        let mut r = inc::remote(0);
        for _ in 1..1000 {
            r = inc::remote(r);
        }
        assert_eq!(mobula::get(&r).unwrap(), 1000);
        begin.elapsed().as_secs_f64() * 1e6
    });
    report.measure("fan_out_10k_in", "ms", 21, || {
        let begin = std::time::Instant::now();
        let refs: Vec<_> = (0..10_000).map(inc::remote).collect();
        assert_eq!(mobula::get(total::remote(refs)).unwrap(), 50_005_000);
        begin.elapsed().as_secs_f64() * 1e3
    });
    let tasks = fib_tasks(25) as f64;
    report.measure("fib_25_nested", "ns", 11, || {
        let begin = std::time::Instant::now();
        assert_eq!(mobula::get(fib::remote(25)).unwrap(), 75_025);
        begin.elapsed().as_secs_f64() * 1e9 / tasks
    });
    let refs: Vec<_> = (0..1000).map(inc::remote).collect();
    mobula::get(&refs).unwrap();
    report.rate("wait_1k", 21, 200, || {
        for _ in 0..200 {
            let (ready, _) = mobula::wait(&refs).num_returns(1000).run().unwrap();
            assert_eq!(ready.len(), 1000);
        }
    });
    report.rate("wait_1k_drain", 11, 1, || {
        let mut left: Vec<_> = (0..1000).map(inc::remote).collect();
        while !left.is_empty() {
            left = mobula::wait(&left).run().unwrap().1;
        }
    });
    let holder = many_refs::remote(10_000);
    mobula::get(&holder).unwrap();
    report.rate("get_object_with_10k_refs", 21, 20, || {
        for _ in 0..20 {
            assert_eq!(mobula::get(&holder).unwrap().len(), 10_000);
        }
    });
}
