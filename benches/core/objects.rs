//! Objects: small and large puts, views, filling in place, beside what the machine's memory can do.
//!
//! A limit is a plain `memcpy` into shared memory of the same kind, over one or two threads, measured in turn with the puts
//! it stands beside.

use std::hint::black_box;
use std::time::Instant;

use mobula::prelude::*;

use crate::memory::Plain;
use crate::report::{Report, Row, median, time};

const GB: usize = 1 << 30;

#[remote]
fn block(seed: u64) -> Vec<u8> {
    vec![seed as u8; 1 << 20]
}

#[remote]
fn merge(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a.wrapping_add(*b)).collect()
}

pub fn rows(report: &mut Report, _: &mobula::Mobula) {
    // Both sides of the threshold between records and the store.
    let inside: [u64; 64] = [7; 64];
    report.rate("put_512b", 21, 20_000, || {
        for _ in 0..20_000 {
            black_box(mobula::put(black_box(&inside)).unwrap());
        }
    });
    let outside: [u64; 65] = [7; 65];
    report.rate("put_520b", 21, 20_000, || {
        for _ in 0..20_000 {
            black_box(mobula::put(black_box(&outside)).unwrap());
        }
    });
    let kilobyte = vec![7u8; 1024];
    report.rate("put_1kb", 21, 20_000, || {
        for _ in 0..20_000 {
            black_box(mobula::put(black_box(&kilobyte)).unwrap());
        }
    });
    let small = mobula::put(&vec![7u8; 1024]).unwrap();
    report.latency("view_1kb", 21, 100_000, || {
        for _ in 0..100_000 {
            black_box(mobula::view(black_box(&small)).unwrap()[1023]);
        }
    });
    let megabyte = vec![7u8; 1 << 20];
    if report.wants("put_1mb") {
        sized(report, "put_1mb", "limit_memcpy_1mb", &megabyte, 201);
    }
    if report.wants("put_10mb") {
        sized(
            report,
            "put_10mb",
            "limit_memcpy_10mb",
            &vec![7u8; 10 << 20],
            51,
        );
    }
    report.measure("tree_reduce_1024x1mb", "s", 3, || {
        let begin = Instant::now();
        let mut level: Vec<ObjectRef<Vec<u8>>> = (0..1024).map(block::remote).collect();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|p| merge::remote(&p[0], &p[1]))
                .collect();
        }
        let root = mobula::view(&level[0]).unwrap();
        assert_eq!(root.len(), 1 << 20);
        begin.elapsed().as_secs_f64()
    });
    if ["put_1gb_warm", "create_1gb_in_place", "limit_memcpy_1gb"]
        .iter()
        .any(|b| report.wants(b))
    {
        large(report);
    }
}

/// Puts of one size beside plain copies over one thread, in turn.
fn sized(report: &mut Report, bench: &'static str, limit: &'static str, from: &[u8], n: usize) {
    let mut plain = Plain::small(from.len());
    let whole = from.to_vec();
    let (mut puts, mut limits) = (Vec::new(), Vec::new());
    for i in 0..=report.samples(n) {
        let limit = plain.copy(from, 1);
        let mut kept = None;
        let took = time(|| kept = Some(mobula::put(&whole).unwrap()));
        drop(kept);
        if i > 0 {
            limits.push(limit);
            puts.push(from.len() as f64 / took.as_secs_f64() / 1e9);
        }
    }
    let beside = median(&limits);
    report.row(Row {
        bench,
        unit: "GB/s",
        values: puts,
        limit: Some(beside),
        every: false,
    });
    report.row(Row {
        bench: limit,
        unit: "GB/s",
        values: limits,
        limit: None,
        every: false,
    });
}

fn large(report: &mut Report) {
    let from: Vec<f32> = vec![1.5; GB / 4];
    // SAFETY: numbers as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), GB) };
    let mut plain = Plain::small(GB);
    plain.copy(bytes, 2);
    drop(mobula::put(&from).unwrap());
    let (mut puts, mut one, mut two, mut fill, mut plain_fill) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let n = report.samples(50);
    for i in 0..n {
        two.push(plain.copy(bytes, 2));
        let mut kept = None;
        let took = time(|| kept = Some(mobula::put(&from).unwrap()));
        puts.push(GB as f64 / took.as_secs_f64() / 1e9);
        drop(kept);
        if i % 5 == 0 {
            one.push(plain.copy(bytes, 1));
            let took = time(|| {
                let mut place = mobula::create::<f32>(GB / 4).unwrap();
                place.fill(2.5);
                black_box(place.seal());
            });
            fill.push(GB as f64 / took.as_secs_f64() / 1e9);
            plain_fill.push(plain.fill_numbers(GB));
        }
    }
    let limit = median(&two);
    report.row(Row {
        bench: "put_1gb_warm",
        unit: "GB/s",
        values: puts,
        limit: Some(limit),
        every: true,
    });
    let limit = median(&plain_fill);
    report.row(Row {
        bench: "create_1gb_in_place",
        unit: "GB/s",
        values: fill,
        limit: Some(limit),
        every: false,
    });
    report.row(Row {
        bench: "limit_memcpy_1gb",
        unit: "GB/s",
        values: one,
        limit: None,
        every: false,
    });
    report.row(Row {
        bench: "limit_memcpy_1gb_2threads",
        unit: "GB/s",
        values: two,
        limit: None,
        every: false,
    });
}

/// First touches, each in a store of its own, beside first touches of plain shared memory; and after the prefault.
pub fn cold_rows(report: &mut Report) {
    if !report.wants("put_1gb_cold") && !report.wants("put_1gb_prefaulted") {
        return;
    }
    let from: Vec<f32> = vec![1.5; GB / 4];
    // SAFETY: numbers as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.as_ptr().cast::<u8>(), GB) };
    let (mut cold, mut limits, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let put = |config: mobula::Config, ready: u64| {
        let mobula = config
            .num_cpus(2.0)
            .object_store_memory(3 << 30)
            .init()
            .expect("a runtime");
        let patience = Instant::now();
        while mobula.store().prefaulted < ready && patience.elapsed().as_secs() < 20 {
            std::thread::yield_now();
        }
        let took = time(|| drop(mobula::put(&from).unwrap()));
        GB as f64 / took.as_secs_f64() / 1e9
    };
    for _ in 0..report.samples(7) {
        limits.push(Plain::small(GB).copy(bytes, 2));
        cold.push(put(mobula::Config::new(), 0));
        if !report.quick() {
            after.push(put(
                mobula::Config::new().prefault(GB as u64 + (1 << 20)),
                GB as u64 + 4096,
            ));
        }
    }
    let limit = median(&limits);
    report.row(Row {
        bench: "put_1gb_cold",
        unit: "GB/s",
        values: cold,
        limit: Some(limit),
        every: true,
    });
    report.row(Row {
        bench: "limit_memcpy_1gb_cold",
        unit: "GB/s",
        values: limits,
        limit: None,
        every: false,
    });
    if !after.is_empty() {
        report.row(Row {
            bench: "put_1gb_prefaulted",
            unit: "GB/s",
            values: after,
            limit: None,
            every: true,
        });
    }
}
