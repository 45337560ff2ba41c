//! Cancelling calls in every state, and what becomes of those who depend on them.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Gate, arrive, pass, shared, until};
use mobula::prelude::*;
use mobula::{Cancel, Error};

#[remote]
fn stand(gate: u64) -> u64 {
    pass(gate)
}

#[remote]
fn plus_one(x: u64) -> u64 {
    x + 1
}

#[remote]
fn size_of_all(v: Vec<Vec<u8>>) -> usize {
    v.iter().map(Vec::len).sum()
}

#[remote]
fn obeys(gate: u64) -> Result<u64, Error> {
    arrive(gate);
    loop {
        mobula::check_cancelled()?;
        std::thread::yield_now();
    }
}

#[remote]
fn looks(gate: u64) -> bool {
    pass(gate);
    mobula::is_cancelled()
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

#[remote]
async fn never_ends(gate: u64) -> u64 {
    let _dropped = Dropped;
    arrive(gate);
    std::future::pending().await
}

#[remote]
fn cancels(r: Vec<ObjectRef<u64>>) -> bool {
    r.iter()
        .all(|r| mobula::cancel(r).unwrap() == Cancel::Dequeued)
}

fn cancelled<T: Value + std::fmt::Debug>(r: &ObjectRef<T>) -> Error {
    let e = mobula::get(r).unwrap_err();
    assert!(e.is_cancelled(), "{e}");
    e
}

/// Both CPUs stand at a gate.
fn occupy() -> (Gate, Vec<ObjectRef<u64>>) {
    let gate = Gate::new();
    let busy: Vec<_> = (0..2).map(|_| stand::remote(gate.id())).collect();
    gate.await_arrivals(2);
    (gate, busy)
}

#[test]
fn a_queued_call_never_runs() {
    shared(|_| {
        let (gate, busy) = occupy();
        let never = Gate::new();
        let r = looks::remote(never.id());
        let behind = plus_one::remote(stand::remote(never.id()));
        assert_eq!(mobula::cancel(&r).unwrap(), Cancel::Dequeued);
        assert!(
            matches!(cancelled(&r), Error::Cancelled { function } if function == "cancel::looks")
        );
        assert_eq!(mobula::cancel(&r).unwrap(), Cancel::TooLate);
        assert_eq!(mobula::cancel(&behind).unwrap(), Cancel::Dequeued);
        gate.open();
        never.open();
        mobula::get(busy).unwrap();
        // What was queued behind it runs.
        assert_eq!(mobula::get(plus_one::remote(1)).unwrap(), 2);
        until(|| never.arrived() == 1); // the argument of `behind`, which nobody cancelled
    });
}

#[test]
fn a_call_that_waits_for_arguments_and_those_behind_it() {
    shared(|mobula| {
        let gate = Gate::new();
        let slow = stand::remote(gate.id());
        let a = plus_one::remote(&slow);
        let b = plus_one::remote(&a);
        let c = plus_one::remote(&b);
        assert_eq!(mobula::cancel(&b).unwrap(), Cancel::Dequeued);
        assert!(matches!(cancelled(&b), Error::Cancelled { .. }));
        match cancelled(&c) {
            Error::DependencyFailed { through, .. } => assert_eq!(through, ["cancel::plus_one"]),
            e => panic!("{e}"),
        }
        gate.open();
        assert_eq!(mobula::get(&a).unwrap(), 1);
        // A cancelled call lets go of its arguments.
        let big = mobula::put(&vec![0u8; 100_000]).unwrap();
        let gate = Gate::new();
        let never = stand_vec::remote(gate.id());
        let r = size_of_all::remote(vec![big, never.clone()]);
        mobula::cancel(&r).unwrap();
        cancelled(&r);
        drop(r);
        gate.open();
        mobula::get(never).unwrap();
        until(|| mobula.store().used == 0);
    });
}

#[remote]
fn stand_vec(gate: u64) -> Vec<u8> {
    pass(gate);
    Vec::new()
}

#[test]
fn a_running_call_is_told() {
    shared(|_| {
        let gate = Gate::new();
        let r = obeys::remote(gate.id());
        gate.await_arrivals(1);
        assert_eq!(mobula::cancel(&r).unwrap(), Cancel::Requested);
        assert!(
            matches!(cancelled(&r), Error::Cancelled { function } if function == "cancel::obeys")
        );
        // One that does not listen ends as it would have.
        let gate = Gate::new();
        let r = looks::remote(gate.id());
        gate.await_arrivals(1);
        assert_eq!(mobula::cancel(&r).unwrap(), Cancel::Requested);
        gate.open();
        assert!(mobula::get(&r).unwrap(), "it saw that it was cancelled");
        assert_eq!(mobula::cancel(&r).unwrap(), Cancel::TooLate);
        // Those after it on the same thread are not cancelled.
        let gate = Gate::new();
        gate.open();
        assert!(!mobula::get(looks::remote(gate.id())).unwrap());
        assert!(!mobula::is_cancelled());
        mobula::check_cancelled().unwrap();
    });
}

#[test]
fn an_async_call_is_dropped_where_it_awaits() {
    shared(|_| {
        DROPPED.store(0, Ordering::SeqCst);
        let gate = Gate::new();
        let all: Vec<_> = (0..50).map(|_| never_ends::remote(gate.id())).collect();
        let behind = plus_one::remote(&all[0]);
        gate.await_arrivals(50);
        for r in &all {
            assert_eq!(mobula::cancel(r).unwrap(), Cancel::Requested);
        }
        for r in &all {
            cancelled(r);
        }
        cancelled(&behind);
        assert_eq!(DROPPED.load(Ordering::SeqCst), 50);
    });
}

#[test]
fn a_task_may_cancel() {
    shared(|_| {
        let gate = Gate::new();
        let slow = stand::remote(gate.id());
        let waiting: Vec<_> = (0..3).map(|_| plus_one::remote(&slow)).collect();
        assert!(mobula::get(cancels::remote(waiting.clone())).unwrap());
        waiting.iter().for_each(|r| drop(cancelled(r)));
        gate.open();
    });
}

#[test]
fn a_call_that_waits_for_resources() {
    shared(|_| {
        let gate = Gate::new();
        let slot = |gate: &Gate| stand::options().resource("slot", 1.0).remote(gate.id());
        let holder = slot(&gate);
        gate.await_arrivals(1);
        let (second, third) = (slot(&gate), slot(&gate));
        assert_eq!(mobula::cancel(&second).unwrap(), Cancel::Dequeued);
        cancelled(&second);
        assert!(!third.is_ready());
        // A running one that is cancelled keeps its resource until it ends.
        let told = obeys::options().resource("slot", 1.0).remote(gate.id());
        gate.open();
        mobula::get((holder, third)).unwrap();
        gate.await_arrivals(3);
        assert_eq!(mobula::cancel(&told).unwrap(), Cancel::Requested);
        cancelled(&told);
        assert_eq!(
            mobula::get(slot(&gate)).unwrap(),
            3,
            "the slot is free again"
        );
    });
}

#[remote]
fn counted(gate: u64) -> u64 {
    arrive(gate)
}

#[test]
fn cancelling_races_with_running_and_nothing_is_lost() {
    shared(|_| {
        let gate = Gate::new();
        let (mut ran, mut not) = (0, 0);
        for round in 0..50 {
            let refs: Vec<_> = (0..40).map(|_| counted::remote(gate.id())).collect();
            let behind: Vec<_> = refs.iter().map(plus_one::remote).collect();
            let mut dequeued = 0;
            std::thread::scope(|s| {
                let taker = s.spawn(|| refs.iter().map(mobula::get).collect::<Vec<_>>());
                for r in refs.iter().rev().skip(round % 7) {
                    dequeued += u64::from(mobula::cancel(r).unwrap() == Cancel::Dequeued);
                }
                let taken = taker.join().unwrap();
                let lost = taken
                    .iter()
                    .filter(|t| t.as_ref().is_err_and(Error::is_cancelled))
                    .count() as u64;
                assert_eq!(lost, dequeued);
                for (taken, behind) in taken.iter().zip(&behind) {
                    assert_eq!(taken.is_ok(), mobula::get(behind).is_ok());
                }
                ran += taken.len() as u64 - lost;
                not += lost;
            });
        }
        assert_eq!((gate.arrived(), ran + not), (ran, 2000));
    });
}
