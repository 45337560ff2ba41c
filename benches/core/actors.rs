//! Actors: calls alone, in streams, told and forgotten, among many; making them; what an idle one takes.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula::prelude::*;

use crate::report::{Report, Row, time};
use crate::whole::resident;

struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new(start: u64) -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Counter { total: start }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

static MADE: AtomicU64 = AtomicU64::new(0);

pub fn rows(report: &mut Report) {
    let counter = Counter::remote(0);
    mobula::get(counter.add(0)).unwrap();
    report.latency("actor_round_trip", 21, 20_000, || {
        for _ in 0..20_000 {
            black_box(mobula::get(counter.add(black_box(1))).unwrap());
        }
    });
    report.rate("actor_async", 21, 100_000, || {
        let before = mobula::get(counter.add(0)).unwrap();
        let refs: Vec<_> = (0..100_000).map(|_| counter.add(1)).collect();
        assert_eq!(mobula::get(&refs).unwrap()[99_999], before + 100_000);
    });
    report.rate("actor_tell", 21, 100_000, || {
        let before = mobula::get(counter.add(0)).unwrap();
        for _ in 0..100_000 {
            counter.add(1);
        }
        assert_eq!(mobula::get(counter.add(0)).unwrap(), before + 100_000);
    });
    let actors: Vec<_> = (0..2).map(|_| Counter::remote(0)).collect();
    report.rate("actor_n_to_n", 21, 2 * 50_000, || {
        std::thread::scope(|s| {
            for actor in &actors {
                s.spawn(|| {
                    let refs: Vec<_> = (0..50_000).map(|_| actor.add(1)).collect();
                    mobula::get(&refs).unwrap();
                });
            }
        });
    });
    let n = 100_000;
    let mut bytes = Vec::new();
    let mut rates = Vec::new();
    if report.wants("actors_create") || report.wants("actor_idle_bytes") {
        for sample in 0..=report.samples(7) {
            let begin = MADE.load(Ordering::Relaxed);
            let before = resident();
            let mut all = Vec::with_capacity(n);
            let took = time(|| {
                all.extend((0..n as u64).map(Counter::remote));
                while MADE.load(Ordering::Relaxed) < begin + n as u64 {
                    std::hint::spin_loop();
                }
            });
            assert_eq!(mobula::get(all[n / 2].add(1)).unwrap(), n as u64 / 2 + 1);
            if sample == 0 {
                // Memory that later samples reuse was not there before the first.
                bytes.push(
                    (resident() - before) as f64 / n as f64 - size_of::<Handle<Counter>>() as f64,
                );
            } else {
                rates.push(n as f64 / took.as_secs_f64());
            }
            // The last handle's drop only sends the end; wait for it, so that the next sample starts clean.
            drop(all);
            let last = Counter::remote(0);
            mobula::get(last.add(1)).unwrap();
        }
        report.row(Row {
            bench: "actors_create",
            unit: "1/s",
            values: rates,
            limit: None,
            every: false,
        });
        report.row(Row {
            bench: "actor_idle_bytes",
            unit: "bytes",
            values: bytes,
            limit: None,
            every: false,
        });
    }
}
