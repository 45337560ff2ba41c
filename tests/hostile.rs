//! Programs that do at the worst moment what they may: panic, end the runtime, call back.

mod common;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Gate, alone, pass, until};
use mobula::prelude::*;
use mobula::rkyv::rancor::Fallible;
use mobula::rkyv::{Archive, Deserialize, Place, Serialize};
use mobula::{Config, Error, Mobula};

#[remote]
fn cube(x: u64) -> u64 {
    x * x * x
}

#[remote]
fn hold(gate: u64) -> u64 {
    pass(gate)
}

#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Panics>) {
        panic!("a waker that panics")
    }
}

#[test]
fn a_waker_that_panics_takes_nobody_with_it() {
    alone(Config::new().num_cpus(1.0), |_| {
        let gate = Gate::new();
        let (r, count) = (hold::remote(gate.id()), Arc::<Count>::default());
        gate.await_arrivals(1);
        for waker in [Waker::from(Arc::new(Panics)), Waker::from(count.clone())] {
            let mut future = r.clone();
            assert!(
                Pin::new(&mut future)
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        gate.open();
        until(|| count.0.load(Ordering::SeqCst) > 0);
        // The only executor lives, and its CPU is free.
        let (ready, _) = mobula::wait(&[cube::remote(2)]).run().unwrap();
        assert_eq!(ready.len(), 1);
    });
}

#[test]
fn a_shutdown_may_wait_for_as_long_as_it_takes() {
    alone(Config::new().shutdown_timeout(Duration::MAX), |_| {
        assert_eq!(mobula::get(cube::remote(2)).unwrap(), 8);
    });
}

/// Where [`Restarts`] finds the runtime.
static RUNTIME: Mutex<Option<Mobula>> = Mutex::new(None);

/// Ends the runtime while it is archived, starts the next, and calls it.
struct Restarts;

impl Archive for Restarts {
    type Archived = ();
    type Resolver = ();
    fn resolve(&self, (): (), _: Place<()>) {}
}

impl<S: Fallible + ?Sized> Serialize<S> for Restarts {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        drop(RUNTIME.lock().unwrap().take());
        *RUNTIME.lock().unwrap() = Some(Config::new().num_cpus(1.0).init().unwrap());
        assert_eq!(mobula::get(cube::remote(3)).unwrap(), 27);
        Ok(())
    }
}

impl<D: Fallible + ?Sized> Deserialize<Restarts, D> for () {
    fn deserialize(&self, _: &mut D) -> Result<Restarts, D::Error> {
        Ok(Restarts)
    }
}

#[remote]
fn take(_: Restarts, x: u64) -> u64 {
    x
}

#[test]
fn the_runtime_may_end_and_begin_anew_in_the_middle_of_a_call() {
    common::serial(|| {
        *RUNTIME.lock().unwrap() = Some(Config::new().num_cpus(1.0).init().unwrap());
        let earlier = cube::remote(2);
        // Submitted to the runtime that ended meanwhile.
        let e = mobula::get(take::remote(Restarts, earlier)).unwrap_err();
        assert!(
            matches!(e, Error::ShutDown | Error::DependencyFailed { .. }),
            "{e}"
        );
        let put = mobula::put(&Restarts).unwrap();
        assert!(put.is_ready());
        assert_eq!(mobula::get(cube::remote(2)).unwrap(), 8);
        drop(RUNTIME.lock().unwrap().take());
    });
}

#[test]
fn two_threads_that_never_wait_get_two_executors() {
    alone(Config::new().num_cpus(2.0), |_| {
        for _ in 0..300 {
            let gate = Gate::new();
            let calls: Vec<_> = std::thread::scope(|s| {
                let id = gate.id();
                let submitters = [0; 2].map(|_| s.spawn(move || (hold::remote(id), pass(id))));
                // Both submitters and both calls stand at the gate at once.
                gate.await_arrivals(4);
                gate.open();
                submitters
                    .into_iter()
                    .map(|t| t.join().unwrap().0)
                    .collect()
            });
            mobula::get(calls).unwrap();
        }
    });
}

#[remote(num_cpus = 0.5)]
fn modest(x: u64) -> u64 {
    x
}

#[test]
fn calls_that_meet_a_shutdown_all_end() {
    common::serial(|| {
        for round in 0..60 {
            let mobula = Config::new().num_cpus(1.0).init().unwrap();
            let started = Gate::new();
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let begun = started.id();
                    std::thread::spawn(move || {
                        let mut futures = Vec::new();
                        // Until the runtime is gone; those it took must end, whoever awaits them.
                        loop {
                            let first = modest::remote(1);
                            if first.is_ready() && mobula::get(&first).is_err() {
                                return futures;
                            }
                            let mut second = modest::remote(&first);
                            let count = Arc::<Count>::default();
                            let waker = Waker::from(count.clone());
                            if Pin::new(&mut second)
                                .poll(&mut Context::from_waker(&waker))
                                .is_pending()
                            {
                                futures.push((second, count));
                            }
                            common::arrive(begun);
                        }
                    })
                })
                .collect();
            started.await_arrivals(round);
            drop(mobula);
            for caller in callers {
                for (r, count) in caller.join().unwrap() {
                    until(|| r.is_ready() && count.0.load(Ordering::SeqCst) > 0);
                }
            }
        }
    });
}

/// A result that panics while it is archived.
struct Unfit;

impl Archive for Unfit {
    type Archived = ();
    type Resolver = ();
    fn resolve(&self, (): (), _: Place<()>) {}
}

impl<S: Fallible + ?Sized> Serialize<S> for Unfit {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        panic!("this result cannot be archived")
    }
}

impl<D: Fallible + ?Sized> Deserialize<Unfit, D> for () {
    fn deserialize(&self, _: &mut D) -> Result<Unfit, D::Error> {
        Ok(Unfit)
    }
}

#[remote(retry_panics = true, max_retries = 2)]
fn gives_unfit(_x: u64) -> Unfit {
    Unfit
}

#[test]
fn a_result_that_panics_is_told_as_it_was() {
    alone(Config::new().num_cpus(1.0), |_| {
        let Err(e) = mobula::get(gives_unfit::remote(1)) else {
            panic!("a value")
        };
        assert_eq!(
            e.failure().unwrap().message,
            "this result cannot be archived"
        );
    });
}
