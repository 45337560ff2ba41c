//! A million tasks and objects leave memory, store and threads where they began.

mod common;

use common::{alone, until};
use mobula::prelude::*;
use mobula::{Config, value};

#[value]
struct Holder {
    refs: Vec<ObjectRef<u64>>,
    text: String,
}

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn add(a: u64, b: u64) -> u64 {
    a.wrapping_add(b)
}

#[remote]
fn refuse(x: u64) -> Result<u64, String> {
    Err(format!("no {x}"))
}

#[remote]
fn fill(n: usize) -> Vec<u8> {
    vec![1; n]
}

#[remote]
fn len(v: &[u8]) -> usize {
    v.len()
}

#[remote]
fn total(v: Vec<u64>) -> u64 {
    v.iter().fold(0, |a, b| a.wrapping_add(*b))
}

#[remote]
fn look(h: Holder) -> u64 {
    h.text.len() as u64 + mobula::get(&h.refs).unwrap().len() as u64
}

#[remote]
async fn soon(x: u64) -> u64 {
    tokio::task::yield_now().await;
    x
}

#[remote]
fn nested(x: u64) -> u64 {
    mobula::get(square::remote(x)).unwrap()
}

/// Some 2,500 tasks and objects of all kinds.
fn some(round: u64) {
    let squares: Vec<_> = (0..1000).map(square::remote).collect();
    let sums: Vec<_> = squares.iter().map(|r| add::remote(r, round)).collect();
    assert_eq!(
        mobula::get(total::remote(&sums)).unwrap(),
        332_833_500 + 1000 * round
    );
    assert_eq!(mobula::get(&sums).unwrap()[999], 998_001 + round);
    for i in 0..200u64 {
        drop(square::remote(i));
        drop(mobula::put(&i).unwrap());
    }
    let stored: Vec<_> = (0..20)
        .map(|i| mobula::put(&vec![0u8; 600 + i * 100]).unwrap())
        .collect();
    let made: Vec<_> = (0..20).map(|i| fill::remote(600 + i * 100)).collect();
    for r in stored.iter().chain(&made) {
        assert_eq!(
            mobula::get(len::remote(r)).unwrap(),
            mobula::view(r).unwrap().len()
        );
    }
    let failed = refuse::remote(round);
    assert!(mobula::get(add::remote(&failed, 1)).is_err());
    let cancelled = add::remote(soon::remote(1), nested::remote(3));
    let _ = mobula::cancel(&cancelled);
    let _ = mobula::get(cancelled);
    let special: Vec<_> = (0..10)
        .map(|x| square::options().num_cpus(0.5).remote(x))
        .collect();
    mobula::wait(&special).num_returns(10).run().unwrap();
    for padding in [1, 2000] {
        let holder = Holder {
            refs: squares[..50].to_vec(),
            text: " ".repeat(padding),
        };
        assert_eq!(
            mobula::get(look::remote(holder)).unwrap(),
            padding as u64 + 50
        );
    }
    let timeout = std::time::Duration::ZERO;
    let _ = mobula::get_timeout(&nested::remote(2), timeout);
    let _ = mobula::wait(&[nested::remote(2)]).timeout(timeout).run();
    assert_eq!(mobula::get(soon::remote(round)).unwrap(), round);
    drop(mobula::create::<f32>(500).unwrap());
    assert!(mobula::put_archived::<String>(&[0xff; 700]).is_err());
    if round.is_multiple_of(10) {
        std::thread::spawn(|| drop((square::remote(1), mobula::get(nested::remote(1)))))
            .join()
            .unwrap();
    }
}

fn resident_kib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
}

#[test]
fn a_million_tasks_and_objects_leave_nothing() {
    alone(
        // What is recorded fills its memory little by little, up to its bound.
        Config::new()
            .num_cpus(2.0)
            .object_store_memory(256 << 20)
            .trace_memory(1 << 20),
        |mobula| {
            let settle = || {
                until(|| mobula.store().used == 0 && mobula.store().objects == 0);
                until(|| mobula.executors() == 2);
            };
            (0..100).for_each(some);
            settle();
            let (before, reserved) = (resident_kib(), mobula.store().reserved);
            (0..400).for_each(some);
            settle();
            let after = resident_kib();
            // 16 bytes for each of a million would be 15 MiB.
            assert!(
                after < before + (6 << 10),
                "{before} KiB before, {after} KiB after"
            );
            assert!(mobula.holders(1).is_empty());
            assert!(
                mobula.store().reserved <= reserved + (2 << 20),
                "{reserved}, then {:?}",
                mobula.store()
            );
        },
    );
}
