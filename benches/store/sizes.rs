//! Puts and fills in place at every size, in cold, warm and prefaulted memory, in small and in huge pages.
//!
//! The limit of a put is `memcpy` into a plain mapping in the same state and pages, over one thread or, where the store
//! uses more, two; that of a fill in place is the same fill there. Each sample measures its limits first.

use std::hint::black_box;
use std::time::Instant;

use mobula::{Config, HugePages, Mobula};

use crate::memory::Plain;
use crate::pool::Reserved;
use crate::report::{Beside, Bound, Report, Row, median, time};

const SIZES: [(&str, usize); 7] = [
    ("1kb", 1 << 10),
    ("10kb", 10 << 10),
    ("100kb", 100 << 10),
    ("1mb", 1 << 20),
    ("10mb", 10 << 20),
    ("100mb", 100 << 20),
    ("1gb", 1 << 30),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Cold,
    Warm,
    Prefaulted,
}

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    size: usize,
    state: State,
    huge: bool,
}

impl Case {
    fn bench(self, what: &str) -> &'static str {
        let state = match self.state {
            State::Cold => "cold",
            State::Warm => "warm",
            State::Prefaulted => "prefaulted",
        };
        let pages = if self.huge { "_huge" } else { "" };
        // Lives as long as the program, like every row's name.
        format!("{what}_{}_{state}{pages}", self.name).leak()
    }

    /// Objects of a sample: as many as make a clock's reading worth it. Cold and prefaulted memory
    /// is used once, so they all live to the sample's end.
    fn batch(self) -> usize {
        match self.state {
            State::Warm => ((32 << 20) / self.size).clamp(1, 20_000),
            _ => ((16 << 20) / self.size).max(1),
        }
    }

    /// Bytes between the places of a batch: warm ones use the same again.
    fn stride(self) -> usize {
        match self.state {
            State::Warm => 0,
            _ => self.size.next_multiple_of(64),
        }
    }

    fn span(self) -> usize {
        self.size + self.stride() * (self.batch() - 1)
    }

    /// Bytes of store: what a batch takes with its rounding, and some for chunks.
    fn store(self) -> u64 {
        (self.size.next_multiple_of(4096).max(self.span()) * 9 / 8 + (8 << 20)) as u64
    }

    /// Threads that the store uses for one such put.
    fn threads(self) -> usize {
        let from = match self.state {
            State::Cold => 8 << 20,
            State::Warm | State::Prefaulted => 64 << 20,
        };
        if self.size >= from { 2 } else { 1 }
    }

    fn start(self) -> Mobula {
        let ahead = match self.state {
            State::Prefaulted => self.store(),
            State::Cold | State::Warm => 0,
        };
        let pages = if self.huge {
            HugePages::Require
        } else {
            HugePages::Off
        };
        let patience = Instant::now();
        let mobula = loop {
            let config = Config::new()
                .num_cpus(2.0)
                .prefault(ahead)
                .huge_pages(pages);
            match config.object_store_memory(self.store()).init() {
                Ok(mobula) => break mobula,
                // The pages of the store before come back with its last thread.
                Err(e) => assert!(patience.elapsed().as_secs() < 20, "{e}"),
            }
            std::thread::yield_now();
        };
        while mobula.store().prefaulted < ahead {
            assert!(patience.elapsed().as_secs() < 60, "it was not faulted in");
            std::thread::yield_now();
        }
        mobula
    }

    fn plain(self) -> Plain {
        let plain = if self.huge {
            Plain::huge(self.span())
        } else {
            Some(Plain::small(self.span()))
        };
        let mut plain = plain.expect("as many pages as were reserved");
        match self.state {
            State::Cold => {}
            State::Prefaulted => plain.populate(),
            State::Warm => plain.bytes().fill(1),
        }
        plain
    }

    fn bound(self) -> Option<Bound> {
        match (self.name, self.state) {
            ("1kb", State::Warm) => Some(Bound::AtLeast(4e6)),
            ("1mb" | "10mb", State::Warm) => Some(Bound::OfLimit(0.9)),
            ("1gb", State::Warm) => Some(Bound::Steady(0.95, 0.85)),
            ("1gb", _) => Some(Bound::OfLimit(0.95)),
            _ => None,
        }
    }
}

/// GB/s of `batch` times `size` bytes.
fn speed(case: Case, mut f: impl FnMut(usize)) -> f64 {
    let took = time(|| (0..case.batch()).for_each(&mut f));
    (case.batch() * case.size) as f64 / took.as_secs_f64() / 1e9
}

fn copies(case: Case, plain: &mut Plain, from: &[u8], threads: usize) -> f64 {
    if threads > 1 {
        return plain.copy(from, threads);
    }
    let to = plain.bytes();
    speed(case, |i| {
        let at = i * case.stride();
        to[at..at + case.size].copy_from_slice(black_box(from));
        black_box(&mut to[at]);
    })
}

fn fills(case: Case, plain: &mut Plain) -> f64 {
    let to = plain.bytes();
    speed(case, |i| {
        let at = i * case.stride();
        to[at..at + case.size].fill(black_box(3));
        black_box(&mut to[at]);
    })
}

fn puts(case: Case, from: &Vec<u8>) -> f64 {
    let mut kept = Vec::with_capacity(case.batch());
    speed(case, |_| {
        let object = mobula::put(black_box(from)).unwrap();
        // Warm: dropped, so that the next one is written there. The last one after the clock.
        if case.state != State::Warm || case.batch() == 1 {
            kept.push(object);
        }
    })
}

fn creates(case: Case) -> f64 {
    let mut kept = Vec::with_capacity(case.batch());
    speed(case, |_| {
        let mut place = mobula::create::<u8>(case.size).unwrap();
        place.fill(black_box(3));
        let object = place.seal();
        if case.state != State::Warm || case.batch() == 1 {
            kept.push(object);
        }
    })
}

#[derive(Default)]
struct Samples {
    puts: Vec<f64>,
    one: Vec<f64>,
    two: Vec<f64>,
    creates: Vec<f64>,
    fills: Vec<f64>,
}

/// What a measured function needs: the store and a plain mapping in the case's state. Warm ones stay, others are new each
/// time, and the one is gone before the other is made.
fn sample(report: &Report, case: Case, from: &Vec<u8>) -> Samples {
    let (wants_put, wants_create) = (
        report.wants(case.bench("put")),
        report.wants(case.bench("create")),
    );
    let mut s = Samples::default();
    let n = report.samples(match (case.size, case.state) {
        (1.., State::Warm) if case.name == "1gb" => 50,
        (1.., _) if case.name == "1gb" => 7,
        (_, State::Warm) => 51,
        _ => 15,
    });
    let two = case.size >= 1 << 20;
    if case.state == State::Warm {
        let mobula = case.start();
        let mut plain = case.plain();
        puts(case, from);
        for i in 0..n {
            if wants_put {
                s.one.push(copies(case, &mut plain, from, 1));
                if two {
                    s.two.push(copies(case, &mut plain, from, 2));
                }
                s.puts.push(puts(case, from));
            }
            // Filling is the caller's own work: fewer of the long ones will do.
            if wants_create && (case.name != "1gb" || i % 5 == 0) {
                s.fills.push(fills(case, &mut plain));
                s.creates.push(creates(case));
            }
        }
        drop(mobula);
        return s;
    }
    for _ in 0..n {
        if wants_put {
            s.one.push(copies(case, &mut case.plain(), from, 1));
            if two {
                s.two.push(copies(case, &mut case.plain(), from, 2));
            }
            let mobula = case.start();
            s.puts.push(puts(case, from));
            drop(mobula);
        }
        if wants_create {
            s.fills.push(fills(case, &mut case.plain()));
            let mobula = case.start();
            s.creates.push(creates(case));
            drop(mobula);
        }
    }
    s
}

fn report_case(report: &mut Report, case: Case, s: Samples) {
    // Of the smallest the number counts, not the bytes.
    let (unit, per) = match case.size {
        1024 => ("1/s", 1e9 / 1024.0),
        _ => ("GB/s", 1.0),
    };
    let scale = |values: Vec<f64>| values.iter().map(|v| v * per).collect::<Vec<_>>();
    let s = Samples {
        puts: scale(s.puts),
        one: scale(s.one),
        two: scale(s.two),
        creates: scale(s.creates),
        fills: scale(s.fills),
    };
    let row = |bench, values, limit, every| Row {
        bench,
        unit,
        values,
        limit,
        every,
    };
    if !s.puts.is_empty() {
        let limit = if case.threads() == 2 { &s.two } else { &s.one };
        let limit = Some(median(limit));
        let mut limits = vec![("limit_1thread", s.one)];
        if !s.two.is_empty() {
            limits.push(("limit_2threads", s.two));
        }
        let beside = Beside {
            limits,
            bound: case.bound(),
        };
        let row = row(case.bench("put"), s.puts, limit, case.name == "1gb");
        report.row_beside(row, beside);
    }
    if !s.creates.is_empty() {
        let limit = Some(median(&s.fills));
        report.row(row(case.bench("create"), s.creates, limit, false));
    }
}

pub fn rows(report: &mut Report) {
    let mut told = false;
    for huge in [false, true] {
        for (name, size) in SIZES {
            let states = [State::Cold, State::Prefaulted, State::Warm];
            let cases = states.map(|state| Case {
                name,
                size,
                state,
                huge,
            });
            let wanted = |c: &Case| report.wants(c.bench("put")) || report.wants(c.bench("create"));
            // A shortened run leaves out what takes seconds a sample.
            let short = |c: &Case| {
                !report.quick() || size <= 100 << 20 || (!huge && c.state == State::Warm)
            };
            let cases: Vec<Case> = cases
                .into_iter()
                .filter(|c| wanted(c) && short(c))
                .collect();
            if cases.is_empty() {
                continue;
            }
            let most = cases
                .iter()
                .map(|c| c.store() + c.span() as u64 + (4 << 20))
                .max();
            let _pages = match huge.then(|| Reserved::bytes(most.unwrap_or(0))) {
                Some(Err(why)) => {
                    if !told {
                        report.note(&format!("no rows in huge pages from {name} on: {why}"));
                    }
                    told = true;
                    continue;
                }
                Some(Ok(pages)) => Some(pages),
                None => None,
            };
            let from = vec![7u8; size];
            for case in cases {
                let samples = sample(report, case, &from);
                report_case(report, case, samples);
            }
        }
    }
}
