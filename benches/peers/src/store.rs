//! Mobula in the rows that no Rust peer has and Ray does: big objects, waiting, shapes of graphs,
//! start and rest. `ray/compare.py` gives Ray's figures under the same names and units.

use std::hint::black_box;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use mobula::prelude::*;

use crate::row::Clock;

/// References in the object that holds many, and tasks that flow into one.
const MANY: u64 = 10_000;
/// Leaves of the tree, and elements (`f32`) of each.
const LEAVES: u64 = 1024;
const LEAF: usize = 250_000;

static GIGABYTE: LazyLock<Vec<u8>> = LazyLock::new(|| vec![7; 1_000_000_000]);

fn put(bytes: &Vec<u8>) -> f64 {
    let mut clock = Clock::new();
    while clock.more(1) {
        drop(black_box(mobula::put(black_box(bytes)).expect("room")));
    }
    let view = mobula::view(&mobula::put(bytes).expect("room")).expect("the object");
    assert_eq!((view.len(), view[view.len() - 1]), (bytes.len(), 7));
    clock.rate() * bytes.len() as f64 / 1e9
}

/// `put_1mb`.
pub fn put_1mb() -> f64 {
    put(&vec![7; 1_000_000])
}

/// `put_1gb_warm`.
pub fn put_1gb() -> f64 {
    put(&GIGABYTE)
}

fn copy(bytes: &[u8], threads: usize) -> f64 {
    let (mut to, mut clock) = (vec![0u8; bytes.len()], Clock::new());
    let part = bytes.len().div_ceil(threads);
    while clock.more(1) {
        thread::scope(|scope| {
            let mut parts = to.chunks_mut(part).zip(bytes.chunks(part));
            let (to, from) = parts.next().expect("at least one part");
            for (to, from) in parts {
                scope.spawn(|| to.copy_from_slice(from));
            }
            to.copy_from_slice(from);
        });
        black_box(&mut to);
    }
    assert_eq!(to.last(), Some(&7));
    clock.rate() * bytes.len() as f64 / 1e9
}

/// The limit of `put_1mb`: one thread copies into memory that is there.
pub fn copy_1mb() -> f64 {
    copy(&vec![7; 1_000_000], 1)
}

/// A limit of `put_1gb_warm`.
pub fn copy_1gb() -> f64 {
    copy(&GIGABYTE, 1)
}

/// The limit of `put_1gb_warm`.
pub fn copy_1gb_two_threads() -> f64 {
    copy(&GIGABYTE, 2)
}

#[remote]
fn one(x: u64) -> u64 {
    x + 1
}

/// `wait_1k`: one call on 1,000 results that are there.
pub fn wait_1k() -> f64 {
    let refs: Vec<_> = (0..1000).map(one::remote).collect();
    assert_eq!(mobula::get(&refs).expect("the results").len(), 1000);
    let mut clock = Clock::new();
    while clock.more(1) {
        let (ready, pending) = mobula::wait(&refs).num_returns(1000).run().expect("a wait");
        assert_eq!((ready.len(), pending.len()), (1000, 0));
    }
    clock.rate()
}

/// `wait_1k_drain`: 1,000 tasks submitted and waited for one at a time.
pub fn wait_1k_drain() -> f64 {
    let mut clock = Clock::new();
    while clock.more(1) {
        let mut pending: Vec<_> = (0..1000).map(one::remote).collect();
        for _ in 0..1000 {
            let (ready, rest) = mobula::wait(&pending).num_returns(1).run().expect("a wait");
            assert_eq!(ready.len(), 1);
            pending = rest;
        }
        assert!(pending.is_empty());
    }
    clock.rate()
}

#[remote]
fn holder(n: u64) -> Vec<ObjectRef<u64>> {
    (0..n).map(|x| mobula::put(&x).expect("room")).collect()
}

/// `get_object_with_10k_refs`: each `get` gives 10,000 references of its own.
pub fn get_refs() -> f64 {
    let (object, mut clock) = (holder::remote(MANY), Clock::new());
    while clock.more(1) {
        let refs = mobula::get(&object).expect("the references");
        assert_eq!(refs.len() as u64, MANY);
    }
    let last = mobula::get(&object)
        .expect("the references")
        .pop()
        .expect("the last");
    assert_eq!(mobula::get(&last).expect("its object"), MANY - 1);
    clock.rate()
}

#[remote]
fn total(results: Vec<u64>) -> u64 {
    results.iter().sum()
}

/// `fan_out_10k_in`: milliseconds for 10,000 tasks and the one they flow into.
pub fn fan_out() -> f64 {
    let mut clock = Clock::new();
    while clock.more(1) {
        let refs: Vec<_> = (0..MANY).map(one::remote).collect();
        let total = mobula::get(&total::remote(refs)).expect("the total");
        assert_eq!(total, MANY * (MANY + 1) / 2);
    }
    clock.micros() / 1e3
}

#[remote]
fn leaf(x: f32) -> Vec<f32> {
    let mut v = vec![x; LEAF];
    v[LEAF - 1] += 1.0;
    v
}

#[remote]
fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `tree_reduce_1024x1mb`: seconds to make and add up 1,024 vectors of 1 MB, pair by pair.
pub fn tree_reduce() -> f64 {
    let mut clock = Clock::new();
    while clock.more(1) {
        let mut level: Vec<_> = (0..LEAVES).map(|_| leaf::remote(1.0)).collect();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| add::remote(&pair[0], &pair[1]))
                .collect();
        }
        let root = mobula::view(&level[0]).expect("the root");
        let root = root.as_slice();
        assert_eq!(
            (root.len(), root[0], root[LEAF - 1]),
            (LEAF, 1024.0, 2048.0)
        );
    }
    clock.micros() / 1e6
}

/// `init_to_first_result`, in a process of its own: milliseconds.
pub fn init_to_first_result() -> f64 {
    let start = Instant::now();
    let _node = crate::mobula::start();
    assert_eq!(mobula::get(&one::remote(1)).expect("a result"), 2);
    start.elapsed().as_secs_f64() * 1e3
}

/// `idle_rss`, in a process of its own: MiB of the whole process some time after its first result.
pub fn idle_rss() -> f64 {
    let _node = crate::mobula::start();
    assert_eq!(mobula::get(&one::remote(1)).expect("a result"), 2);
    thread::sleep(Duration::from_secs(2));
    crate::row::resident() / (1 << 20) as f64
}
