//! Start and end of the runtime: twice, before, after, and in the middle of everything.

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{Gate, arrive, pass, serial, until};
use mobula::prelude::*;
use mobula::{Config, Error};

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
fn stand(gate: u64) -> u64 {
    pass(gate)
}

#[remote]
fn fill(n: usize) -> Vec<u8> {
    vec![7; n]
}

#[remote]
async fn waits(gate: u64) -> u64 {
    arrive(gate);
    std::future::pending().await
}

#[remote]
fn blocked_on(r: ObjectRef<u64>, gate: u64) -> Result<u64, Error> {
    arrive(gate);
    mobula::get(r)
}

fn two() -> mobula::Mobula {
    Config::new()
        .num_cpus(2.0)
        .resource("slot", 1.0)
        .init()
        .unwrap()
}

fn shut<T: std::fmt::Debug>(r: mobula::Result<T>) {
    let e = r.unwrap_err();
    assert!(matches!(e, Error::ShutDown), "{e}");
}

/// Run by the test below, alone in its process.
#[test]
#[ignore = "is run by another test, in a process of its own"]
fn in_a_process_without_a_runtime() {
    let not_up = |e: Error| assert!(matches!(e, Error::NotInitialized), "{e}");
    not_up(mobula::get(square::remote(1)).unwrap_err());
    not_up(mobula::get(square::options().num_cpus(0.5).remote(1)).unwrap_err());
    not_up(mobula::get(waits::remote(1)).unwrap_err());
    not_up(mobula::put(&1).unwrap_err());
    not_up(mobula::put_slice(&[1f32]).unwrap_err());
    not_up(mobula::create::<u8>(1).unwrap_err());
    not_up(mobula::put_archived::<u8>(&[1]).unwrap_err());
    let r = square::remote(2);
    not_up(mobula::view(&r).unwrap_err());
    not_up(mobula::wait(std::slice::from_ref(&r)).run().unwrap_err());
    not_up(mobula::cancel(&r).unwrap_err());
    not_up(
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(r.clone())
            .unwrap_err(),
    );
    assert!(!mobula::is_cancelled() && mobula::gpu_ids().is_empty());
    let text = mobula::get(r).unwrap_err().to_string();
    assert!(text.contains("mobula::init()"), "{text}");
    // And afterwards it starts as ever.
    let _mobula = mobula::init().unwrap();
    assert_eq!(mobula::get(square::remote(3)).unwrap(), 9);
}

#[test]
fn use_before_init_says_so() {
    let me = std::env::current_exe().unwrap();
    let args = [
        "--exact",
        "in_a_process_without_a_runtime",
        "--ignored",
        "--test-threads=1",
    ];
    let out = Command::new(me).args(args).output().unwrap();
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_second_init_is_refused_and_harms_nobody() {
    serial(|| {
        let mobula = two();
        assert!(matches!(
            mobula::init().unwrap_err(),
            Error::AlreadyInitialized
        ));
        assert_eq!(mobula::get(square::remote(3)).unwrap(), 9);
        drop(mobula);
        // Of many at once, one wins.
        let up = std::thread::scope(|s| {
            let all: Vec<_> = (0..8)
                .map(|_| s.spawn(|| Config::new().num_cpus(1.0).init()))
                .collect();
            all.into_iter()
                .map(|t| t.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(up.iter().filter(|r| r.is_ok()).count(), 1);
        assert!(
            up.iter()
                .flat_map(|r| r.as_ref().err())
                .all(|e| matches!(e, Error::AlreadyInitialized))
        );
        assert_eq!(mobula::get(square::remote(3)).unwrap(), 9);
    });
}

#[test]
fn use_after_shutdown_says_so() {
    serial(|| {
        let mobula = two();
        let done = square::remote(3);
        mobula::get(&done).unwrap();
        let big = fill::remote(100_000);
        let view = mobula::view(&big).unwrap();
        let draft = mobula::create::<u32>(1000).unwrap();
        drop(mobula);
        shut(mobula::get(square::remote(1)));
        shut(mobula::get(square::options().priority(3).remote(1)));
        shut(mobula::put(&1));
        shut(mobula::put_slice(&[1f32; 3]));
        shut(mobula::create::<u8>(9));
        shut(mobula::put_archived::<u8>(&[1]));
        shut(mobula::cancel(&done));
        shut(mobula::wait(std::slice::from_ref(&done)).run());
        shut(mobula::get(draft.seal()));
        // What was there stays readable.
        assert_eq!(mobula::get(&done).unwrap(), 9);
        assert!(view.as_slice() == vec![7; 100_000]);
        assert_eq!(mobula::view(&big).unwrap().as_slice().len(), 100_000);
    });
}

#[test]
fn references_of_one_runtime_work_in_the_next() {
    serial(|| {
        let mobula = two();
        let (small, big) = (square::remote(3), fill::remote(5000));
        mobula::get((&small, &big)).unwrap();
        let gate = Gate::new();
        let busy: Vec<_> = (0..2).map(|_| stand::remote(gate.id())).collect();
        gate.await_arrivals(2);
        let never = square::remote(5);
        std::thread::scope(|s| {
            s.spawn(|| drop(mobula));
            until(|| never.is_ready());
            gate.open();
        });
        let mobula = two();
        assert_eq!(mobula::get(square::remote(&small)).unwrap(), 81);
        assert_eq!(mobula::get(&big).unwrap().len(), 5000);
        shut(mobula::get(&never));
        let e = mobula::get(square::remote(&never)).unwrap_err();
        assert!(e.to_string().contains("shut down"), "{e}");
        assert_eq!(mobula::get(busy).unwrap().len(), 2);
        assert_eq!(mobula.store().used, 0, "the old store holds it");
    });
}

#[test]
fn fifty_runtimes_one_after_the_other() {
    serial(|| {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let maps = || {
            std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .count()
        };
        let (mut first_threads, mut first_maps) = (0, 0);
        for i in 0..50 {
            let mobula = two();
            let refs: Vec<_> = (0..50).map(square::remote).collect();
            assert_eq!(mobula::get(&refs).unwrap()[49], 49 * 49);
            drop(fill::remote(100_000));
            std::thread::spawn(|| mobula::get(square::remote(2)).unwrap())
                .join()
                .unwrap();
            drop(mobula);
            shut(mobula::get(square::remote(2)));
            if i == 5 {
                (first_threads, first_maps) = (threads(), maps());
            }
        }
        until(|| threads() <= first_threads);
        assert!(
            maps() <= first_maps + 10,
            "{} mappings, then {}",
            first_maps,
            maps()
        );
    });
}

#[test]
fn shutdown_in_the_middle_of_everything() {
    serial(|| {
        let mobula = two();
        let (gate, came) = (Gate::new(), Gate::new());
        let special = |g: &Gate| {
            stand::options()
                .num_cpus(0.0)
                .resource("slot", 1.0)
                .remote(g.id())
        };
        // Running; blocked; holding a resource; async.
        let running = stand::remote(gate.id());
        gate.await_arrivals(1);
        let holder = special(&gate);
        gate.await_arrivals(2);
        let asleep = waits::remote(came.id());
        came.await_arrivals(1);
        let blocked = blocked_on::remote(mobula::put(&running).unwrap(), came.id());
        came.await_arrivals(2);
        let second = stand::remote(gate.id());
        gate.await_arrivals(3);
        // Waiting for arguments, for a resource, for an async call; queued.
        let for_running = square::remote(&running);
        let for_async = square::remote(square::remote(&asleep));
        let for_slot = special(&gate);
        let queued: Vec<_> = (0..100).map(square::remote).collect();
        let behind: Vec<_> = queued.iter().map(square::remote).collect();
        let (tell, told) = channel();
        let waiters: Vec<_> = [
            &running,
            &for_running,
            &for_async,
            &for_slot,
            &queued[50],
            &behind[50],
        ]
        .into_iter()
        .map(|r| {
            let (r, tell) = (r.clone(), tell.clone());
            std::thread::spawn(move || {
                tell.send(()).unwrap();
                mobula::get(r)
            })
        })
        .collect();
        let awaiting = {
            let all: Vec<_> = [&for_async, &for_slot, &for_running, &behind[7], &asleep]
                .map(Clone::clone)
                .into();
            std::thread::spawn(move || {
                let rt = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .build()
                    .unwrap();
                rt.block_on(async {
                    let all: Vec<_> = all.into_iter().map(|r| tokio::spawn(r)).collect();
                    tell.send(()).unwrap();
                    for r in all {
                        assert!(r.await.unwrap().is_err());
                    }
                })
            })
        };
        (0..7).for_each(|_| told.recv().unwrap());
        let closer = std::thread::spawn(move || drop(mobula));
        until(|| queued.iter().chain(&behind).all(ObjectRef::is_ready));
        gate.open();
        closer.join().unwrap();
        // What ran has ended, well; all the rest failed; nobody hangs.
        assert_eq!(mobula::get(&running).unwrap(), 0);
        mobula::get((&holder, &second)).unwrap();
        shut(mobula::get(&for_slot));
        queued.iter().for_each(|r| shut(mobula::get(r)));
        for r in behind.iter().chain([&for_running, &for_async, &asleep]) {
            assert!(
                mobula::get(r)
                    .unwrap_err()
                    .to_string()
                    .contains("shut down")
            );
        }
        let blocked = mobula::get(&blocked);
        assert!(
            blocked
                .as_ref()
                .map_or_else(|e| e.to_string().contains("shut down"), |v| *v == 0),
            "{blocked:?}"
        );
        for w in waiters {
            let _ = w.join().unwrap();
        }
        awaiting.join().unwrap();
    });
}

#[remote]
async fn step(x: u64) -> u64 {
    x + 1
}

#[test]
fn shutdown_with_a_chain_of_a_hundred_thousand() {
    serial(|| {
        let mobula = two();
        let gate = Gate::new();
        let busy: Vec<_> = (0..2).map(|_| stand::remote(gate.id())).collect();
        gate.await_arrivals(2);
        let head = square::remote(1);
        let mut last = head.clone();
        for i in 0..100_000 {
            last = if i % 1000 < 300 {
                step::remote(last)
            } else {
                square::remote(last)
            };
        }
        std::thread::scope(|s| {
            s.spawn(|| drop(mobula));
            until(|| last.is_ready());
            gate.open();
        });
        shut(mobula::get(head));
        assert!(mobula::get(last).is_err());
        mobula::get(busy).unwrap();
    });
}

#[test]
fn a_call_that_does_not_end_is_left_behind() {
    serial(|| {
        let mobula = Config::new()
            .num_cpus(1.0)
            .shutdown_timeout(Duration::from_millis(20))
            .init()
            .unwrap();
        let gate = Gate::new();
        let (running, after) = (stand::remote(gate.id()), Arc::new(AtomicBool::new(false)));
        let dependant = square::remote(&running);
        gate.await_arrivals(1);
        let began = Instant::now();
        drop(mobula);
        assert!(began.elapsed() < Duration::from_secs(5));
        shut(mobula::get(&running));
        // A new runtime is up while it still runs; then it ends.
        let mobula = two();
        let waiting = {
            let (running, after) = (running.clone(), after.clone());
            std::thread::spawn(move || {
                after.store(true, Ordering::SeqCst);
                mobula::get(running)
            })
        };
        until(|| after.load(Ordering::SeqCst));
        gate.open();
        assert_eq!(waiting.join().unwrap().unwrap(), 0);
        until(|| dependant.is_ready());
        shut_through(mobula::get(&dependant));
        assert_eq!(mobula::get(square::remote(&running)).unwrap(), 0);
        drop(mobula);
    });
}

fn shut_through(r: mobula::Result<u64>) {
    assert!(r.is_err_and(|e| e.to_string().contains("shut down")));
}

#[remote]
fn submits(gate: u64) -> Result<u64, Error> {
    pass(gate);
    mobula::get(square::remote(2))
}

#[test]
fn a_call_that_submits_during_shutdown_fails_or_succeeds_but_ends() {
    serial(|| {
        for round in 0..30 {
            let mobula = two();
            let gate = Gate::new();
            let calls: Vec<_> = (0..4).map(|_| submits::remote(gate.id())).collect();
            gate.await_arrivals(2);
            std::thread::scope(|s| {
                let submitter = s.spawn(|| (0..200).map(square::remote).collect::<Vec<_>>());
                if round % 2 == 0 {
                    gate.open();
                }
                s.spawn(|| drop(mobula));
                gate.open();
                for r in submitter.join().unwrap() {
                    let _ = mobula::get(&r);
                }
            });
            calls.iter().for_each(|r| drop(mobula::get(r)));
            until(|| calls.iter().all(ObjectRef::is_ready));
        }
    });
}
