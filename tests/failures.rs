//! What goes wrong in user code: how it is told, how far it reaches, how often it is tried.

mod common;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use common::{Gate, arrive, pass, until};
use mobula::prelude::*;
use mobula::{Config, Error, FailureKind, Mobula};

/// What the runtime reported as unobserved.
static REPORTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn reported() -> Vec<String> {
    REPORTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

fn alone<R>(f: impl FnOnce(&Mobula) -> R) -> R {
    let config = Config::new()
        .num_cpus(2.0)
        .object_store_memory(1 << 28)
        .on_unobserved_failure(|e| {
            REPORTED
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(e.to_string());
        });
    common::alone(config, |mobula| {
        REPORTED
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        f(mobula)
    })
}

#[derive(Debug)]
struct Inner;

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk is gone")
    }
}

impl std::error::Error for Inner {}

#[derive(Debug)]
struct Outer(Inner);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot load")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[remote]
fn ok(x: u64) -> u64 {
    x
}

#[remote]
fn refuse(x: u64) -> Result<u64, Outer> {
    if x == 0 { Err(Outer(Inner)) } else { Ok(x) }
}

#[remote]
fn burst(x: u64) -> u64 {
    panic!("burst with {x}");
}

const BURST_LINE: u32 = line!() - 3;

#[remote]
fn plus_one(x: u64) -> u64 {
    x + 1
}

#[remote]
fn sum_all(xs: Vec<u64>) -> u64 {
    xs.iter().sum()
}

#[remote]
fn stand(gate: u64) -> u64 {
    pass(gate)
}

fn is_failure(e: &Error) -> &mobula::Failure {
    match e {
        Error::TaskFailed(f) => f,
        e => panic!("{e}"),
    }
}

#[test]
fn a_returned_error_tells_its_message_type_sources_and_place() {
    alone(|_| {
        assert_eq!(mobula::get(refuse::remote(3)).unwrap(), 3);
        let e = mobula::get(refuse::remote(0)).unwrap_err();
        let f = is_failure(&e);
        assert_eq!(
            (f.kind, f.message.as_str()),
            (FailureKind::Returned, "cannot load")
        );
        assert_eq!(f.function, "failures::refuse");
        assert!(f.type_name.ends_with("Outer"), "{}", f.type_name);
        assert_eq!(f.sources, ["the disk is gone"]);
        assert!(
            f.location.starts_with("tests/failures.rs:"),
            "{}",
            f.location
        );
        assert_eq!(f.attempts, 1);
        let text = e.to_string();
        for part in [
            "failures::refuse",
            "cannot load",
            "the disk is gone",
            "Outer",
            "tests/failures.rs",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    });
}

#[test]
fn a_panic_tells_its_message_place_and_stack() {
    alone(|_| {
        let e = mobula::get(burst::remote(7)).unwrap_err();
        let f = is_failure(&e);
        assert_eq!(
            (f.kind, f.message.as_str()),
            (FailureKind::Panicked, "burst with 7")
        );
        assert_eq!((f.function, f.type_name), ("failures::burst", "String"));
        assert!(
            f.location
                .starts_with(&format!("tests/failures.rs:{BURST_LINE}:")),
            "{}",
            f.location
        );
        let stack = f.backtrace.as_ref().unwrap().to_string();
        assert!(stack.contains("failures::burst"), "{stack}");
    });
}

#[test]
fn executors_outlive_panics() {
    alone(|mobula| {
        let bad: Vec<_> = (0..500).map(burst::remote).collect();
        for r in &bad {
            assert!(mobula::get(r).is_err());
        }
        assert_eq!(
            mobula::get(&(0..500).map(ok::remote).collect::<Vec<_>>())
                .unwrap()
                .len(),
            500
        );
        until(|| mobula.executors() == 2);
    });
}

struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1));
        }
    }
}

struct Endless;

impl Drop for Endless {
    fn drop(&mut self) {
        std::panic::panic_any(Endless);
    }
}

#[remote]
fn odd_panic(what: u32) -> u64 {
    match what {
        0 => std::panic::panic_any(42u64),
        1 => std::panic::panic_any("a static text"),
        2 => std::panic::panic_any(String::from("a made text")),
        3 => std::panic::panic_any(Box::new(Inner)),
        4 => std::panic::panic_any(()),
        5 => std::panic::panic_any(Bomb(1)),
        6 => std::panic::panic_any(Bomb(5)),
        7 => std::panic::panic_any(Endless),
        _ => std::panic::resume_unwind(Box::new("no hook saw this")),
    }
}

#[test]
fn panics_with_payloads_of_odd_types() {
    alone(|mobula| {
        for what in 0..9 {
            // Both here and on an executor.
            for timeout in [None, Some(common::LIMIT)] {
                let r = odd_panic::remote(what);
                let e = match timeout {
                    None => mobula::get(&r),
                    Some(t) => mobula::get_timeout(&r, t),
                };
                let e = e.unwrap_err();
                let f = is_failure(&e);
                assert_eq!(f.kind, FailureKind::Panicked);
                match what {
                    1 => assert_eq!((f.message.as_str(), f.type_name), ("a static text", "&str")),
                    2 => assert_eq!((f.message.as_str(), f.type_name), ("a made text", "String")),
                    8 => assert_eq!(f.message, "no hook saw this"),
                    _ => assert!(!f.message.is_empty()),
                }
            }
        }
        assert_eq!(mobula::get(ok::remote(1)).unwrap(), 1);
        until(|| mobula.executors() == 2);
    });
}

#[remote]
async fn odd_async_panic(early: bool) -> u64 {
    let _bomb = Bomb(0);
    if !early {
        tokio::task::yield_now().await;
    }
    std::panic::panic_any(Bomb(3));
}

#[test]
fn async_panics_with_odd_payloads() {
    alone(|_| {
        for early in [true, false] {
            let e = mobula::get(odd_async_panic::remote(early)).unwrap_err();
            assert_eq!(is_failure(&e).kind, FailureKind::Panicked);
        }
    });
}

#[test]
fn a_failure_passes_through_those_who_depend_on_it() {
    alone(|_| {
        let root = burst::remote(1);
        let a = plus_one::remote(&root);
        let b = plus_one::remote(&a);
        let c = sum_all::remote(vec![ok::remote(1), b.clone(), ok::remote(2)]);
        match mobula::get(&c).unwrap_err() {
            Error::DependencyFailed { cause, through } => {
                assert_eq!(is_failure(&cause).message, "burst with 1");
                assert_eq!(
                    through,
                    [
                        "failures::plus_one",
                        "failures::plus_one",
                        "failures::sum_all"
                    ]
                );
            }
            e => panic!("{e}"),
        }
        let e = mobula::get(&b).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "burst with 1");
        assert!(
            e.to_string().contains("failures::plus_one") && e.to_string().contains("burst with 1"),
            "{e}"
        );
        let source = std::error::Error::source(&e).unwrap().to_string();
        assert!(source.contains("burst with 1"), "{source}");
        // Every view, wait and await of it says the same.
        assert!(mobula::view(&c).unwrap_err().failure().is_some());
        assert_eq!(mobula::wait(&[c]).run().unwrap().0.len(), 1);
    });
}

#[test]
fn a_failure_passes_through_a_chain_of_four_thousand() {
    alone(|_| {
        let gate = Gate::new();
        let slow = stand::remote(gate.id());
        let mut r = sum_all::remote(vec![burst::remote(0), slow]);
        for _ in 0..4_000 {
            r = plus_one::remote(r);
        }
        gate.open();
        let Err(Error::DependencyFailed { cause, through }) = mobula::get(r) else {
            panic!()
        };
        assert_eq!(
            (is_failure(&cause).message.as_str(), through.len()),
            ("burst with 0", 4_001)
        );
    });
}

#[test]
fn one_failure_of_many_is_told_at_once() {
    alone(|_| {
        let gate = Gate::new();
        let refs = vec![stand::remote(gate.id()), ok::remote(1), refuse::remote(0)];
        // The first stands at its gate: this get returns only if it does not wait for it.
        gate.await_arrivals(1);
        let e = mobula::get(&refs).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "cannot load");
        // Again, now that the failure is there before the wait begins; and one that comes while it lasts.
        assert!(mobula::get(&refs).is_err());
        let trigger = Gate::new();
        let late = vec![refs[0].clone(), fails_when_told::remote(trigger.id())];
        std::thread::scope(|s| {
            let waiting = s.spawn(|| mobula::get(&late).unwrap_err());
            trigger.await_arrivals(1);
            trigger.open();
            assert_eq!(waiting.join().unwrap().failure().unwrap().message, "told");
        });
        gate.open();
    });
}

#[remote]
fn fails_when_told(gate: u64) -> Result<u64, String> {
    pass(gate);
    Err("told".into())
}

#[remote]
fn catches(x: u64) -> Result<String, Error> {
    match mobula::get(burst::remote(x)) {
        Ok(_) => Ok("nothing".into()),
        Err(e) if x > 0 => Ok(e.failure().map_or_else(String::new, |f| f.message.clone())),
        Err(e) => Err(e),
    }
}

#[test]
fn a_nested_failure_can_be_caught_or_passed_on() {
    alone(|_| {
        assert_eq!(mobula::get(catches::remote(3)).unwrap(), "burst with 3");
        let e = mobula::get(catches::remote(0)).unwrap_err();
        let f = is_failure(&e);
        assert_eq!(
            (f.function, f.kind),
            ("failures::catches", FailureKind::Returned)
        );
        assert!(f.message.contains("burst with 0"), "{}", f.message);
    });
}

static TRIES: AtomicU64 = AtomicU64::new(0);

#[remote]
fn works_the_third_time(gate: u64, owned: Vec<u8>, by_ref: Vec<String>) -> (usize, usize) {
    let tries = arrive(gate);
    let out = (owned.len(), by_ref.len());
    assert_eq!((owned[0], by_ref[0].as_str()), (9, "kept"));
    drop((owned, by_ref));
    assert!(tries >= 2, "try {tries}");
    out
}

#[remote(retry_panics = true, max_retries = 2)]
fn never_works(gate: u64, v: &[f32]) -> u64 {
    TRIES.fetch_add(v.len() as u64, Ordering::SeqCst);
    panic!("try {}", arrive(gate));
}

#[remote(retry_panics = true, max_retries = 5)]
async fn async_works_the_third_time(gate: u64, text: String) -> String {
    tokio::task::yield_now().await;
    assert!(arrive(gate) >= 2);
    text
}

#[test]
fn panics_are_retried_if_asked_with_the_arguments_intact() {
    alone(|mobula| {
        for options in [
            works_the_third_time::options(),
            works_the_third_time::options().num_cpus(0.5).priority(1),
        ] {
            let gate = Gate::new();
            let strings = mobula::put(&vec!["kept".to_owned(); 1000]).unwrap();
            let r = options
                .retry_panics(true)
                .remote(gate.id(), vec![9u8; 2000], strings);
            assert_eq!(mobula::get(r).unwrap(), (2000, 1000));
            assert_eq!(gate.arrived(), 3);
        }
        let gate = Gate::new();
        TRIES.store(0, Ordering::SeqCst);
        let e = mobula::get(never_works::remote(gate.id(), vec![1.0, 2.0])).unwrap_err();
        let f = is_failure(&e);
        assert_eq!((f.attempts, f.message.as_str()), (3, "try 2"));
        assert!(e.to_string().contains("after 3 attempts"), "{e}");
        assert_eq!((gate.arrived(), TRIES.load(Ordering::SeqCst)), (3, 6));
        let gate = Gate::new();
        let text = "long ".repeat(200);
        assert_eq!(
            mobula::get(async_works_the_third_time::remote(gate.id(), &text)).unwrap(),
            text
        );
        assert_eq!(gate.arrived(), 3);
        until(|| mobula.store().used == 0);
    });
}

#[remote]
fn counts_and_bursts(gate: u64) -> u64 {
    panic!("number {}", arrive(gate));
}

#[remote(retry_panics = true)]
fn counts_and_refuses(gate: u64) -> Result<u64, String> {
    Err(format!("number {}", arrive(gate)))
}

#[test]
fn nothing_else_is_retried() {
    alone(|_| {
        let gate = Gate::new();
        assert_eq!(
            is_failure(&mobula::get(counts_and_bursts::remote(gate.id())).unwrap_err()).attempts,
            1
        );
        let more = counts_and_bursts::options()
            .max_retries(7)
            .remote(gate.id());
        assert!(mobula::get(more).is_err());
        assert!(mobula::get(counts_and_refuses::remote(gate.id())).is_err());
        assert_eq!(gate.arrived(), 3);
    });
}

#[test]
fn a_failure_that_nobody_took_is_reported_once() {
    alone(|_| {
        let (a, b) = (burst::remote(1), refuse::remote(0));
        mobula::wait(&[a.clone(), b.clone()])
            .num_returns(2)
            .run()
            .unwrap();
        assert!(reported().is_empty());
        drop(a.clone());
        assert!(reported().is_empty(), "there is another reference");
        drop((a, b));
        until(|| reported().len() >= 2);
        let all = reported().concat();
        assert!(
            all.contains("burst with 1") && all.contains("cannot load"),
            "{all}"
        );
        // Dropped before it ran.
        drop(burst::remote(2));
        until(|| reported().len() == 3);
        assert!(reported()[2].contains("burst with 2"));
        // Taken ones are not reported, nor is a success.
        assert!(mobula::get(burst::remote(3)).is_err());
        assert!(mobula::view(&burst::remote(3)).is_err());
        drop(ok::remote(1));
        drop(burst::remote(4));
        until(|| reported().len() == 4);
        assert!(reported()[3].contains("burst with 4"), "{:?}", reported());
    });
}

#[test]
fn a_failure_is_reported_when_only_a_dependant_met_it() {
    alone(|_| {
        // The dependant took the failure over; then nobody took the dependant's.
        drop(plus_one::remote(plus_one::remote(burst::remote(5))));
        until(|| !reported().is_empty());
        assert!(reported()[0].contains("burst with 5"), "{:?}", reported());
        // Whoever took the dependant's has seen it.
        assert!(mobula::get(plus_one::remote(burst::remote(6))).is_err());
        drop(burst::remote(7));
        until(|| reported().iter().any(|r| r.contains("burst with 7")));
        assert_eq!(reported().len(), 2, "{:?}", reported());
    });
}

#[test]
fn a_refused_call_that_nobody_looked_at_is_reported() {
    alone(|_| {
        drop(ok::options().num_cpus(99.0).remote(1));
        assert_eq!(reported().len(), 1);
        assert!(reported()[0].contains("99"), "{:?}", reported());
    });
}

#[test]
fn a_reporter_that_panics_harms_nobody() {
    let config = Config::new()
        .num_cpus(1.0)
        .on_unobserved_failure(|_| std::panic::panic_any(Bomb(3)));
    common::alone(config, |_| {
        for _ in 0..10 {
            drop(burst::remote(1));
        }
        assert_eq!(
            mobula::get(&(0..10).map(ok::remote).collect::<Vec<_>>())
                .unwrap()
                .len(),
            10
        );
    });
}
