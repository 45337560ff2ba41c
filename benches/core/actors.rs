//! Actors: calls alone, in streams, told and forgotten, among many; making them; what an idle one takes.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula::prelude::*;

use crate::report::{Report, Row, ask, resident, time};

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
    if report.wants("actors_create") {
        let rates = (0..=report.samples(7)).map(|_| create()).skip(1).collect();
        report.row(Row {
            bench: "actors_create",
            unit: "1/s",
            values: rates,
            limit: None,
            every: false,
        });
    }
    if report.wants("actor_idle_bytes") {
        let bytes = (0..report.samples(5)).map(|_| ask("actors")[0]).collect();
        report.row(Row {
            bench: "actor_idle_bytes",
            unit: "bytes",
            values: bytes,
            limit: None,
            every: false,
        });
    }
}

const MANY: usize = 100_000;

/// Makes many actors and waits until all their constructors have run.
fn make() -> Vec<Handle<Counter>> {
    let begin = MADE.load(Ordering::Relaxed);
    let all: Vec<_> = (0..MANY as u64).map(Counter::remote).collect();
    while MADE.load(Ordering::Relaxed) < begin + MANY as u64 {
        std::hint::spin_loop();
    }
    all
}

/// Actors a second.
fn create() -> f64 {
    let mut all = Vec::new();
    let took = time(|| all = make());
    assert_eq!(
        mobula::get(all[MANY / 2].add(1)).unwrap(),
        MANY as u64 / 2 + 1
    );
    // The last handle's drop only sends the end; see it through, so that the next sample starts clean.
    for actor in &all {
        actor.stop();
    }
    while all.iter().any(Handle::is_alive) {
        std::hint::spin_loop();
    }
    MANY as f64 / took.as_secs_f64()
}

/// Bytes of memory that an idle actor takes, its handle not counted, in a process that did nothing else.
pub fn idle_bytes() -> f64 {
    let before = resident();
    let all = make();
    mobula::get(all[0].add(1)).unwrap();
    let taken = resident() - before;
    let per = taken as f64 / MANY as f64 - size_of::<Handle<Counter>>() as f64;
    std::mem::forget(all); // the process ends here
    per
}
