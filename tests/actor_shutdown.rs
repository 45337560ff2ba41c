//! The runtime's end with actors in every state: whatever was accepted has an outcome, and every state is dropped.

#[path = "common/actors.rs"]
mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use common::{gates, until, within};
use mobula::prelude::*;
use mobula::{Config, Error, Mobula};

static STATES: AtomicI64 = AtomicI64::new(0);
/// One runtime at a time.
static ALONE: Mutex<()> = Mutex::new(());

#[remote]
fn opened(gate: u64) -> u64 {
    gates::pass(gate);
    gate
}

struct Clerk {
    friend: Option<Handle<Clerk>>,
}

#[remote]
impl Clerk {
    pub fn new(n: u64) -> Self {
        STATES.fetch_add(1, Ordering::SeqCst);
        let _ = n;
        Clerk { friend: None }
    }

    pub fn work(&mut self, n: u64) -> u64 {
        n
    }

    pub fn look(&self, gate: u64) -> u64 {
        gates::pass(gate);
        u64::from(self.friend.is_some())
    }

    pub fn hold(&mut self, gate: u64) -> u64 {
        gates::pass(gate);
        u64::from(self.friend.is_some())
    }

    pub fn befriend(&mut self, friend: Handle<Clerk>) {
        self.friend = Some(friend);
    }

    pub async fn forever(&self, gate: u64) -> u64 {
        gates::reach(gate);
        std::future::pending::<()>().await;
        u64::from(self.friend.is_some())
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        STATES.fetch_sub(1, Ordering::SeqCst);
    }
}

fn start() -> Mobula {
    Config::new()
        .num_cpus(4.0)
        .resource("seat", 1.0)
        .object_store_memory(16 << 20)
        .on_unobserved_failure(|_| {})
        .init()
        .unwrap()
}

fn alone<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    within(20, f)
}

#[track_caller]
fn ended_by_shutdown<T: mobula::Value>(call: &ObjectRef<T>) {
    assert!(call.is_ready(), "{call:?} has no outcome");
    match mobula::get(call).map(|_| ()).unwrap_err() {
        Error::ShutDown => {}
        Error::DependencyFailed { cause, .. } if matches!(*cause, Error::ShutDown) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn actors_in_every_state_end() {
    alone(|| {
        let mobula = start();
        let gate = gates::new();
        let mut waiting = Vec::new();

        let idle = Clerk::remote(0);
        mobula::get(idle.work(1)).unwrap();
        let named = Clerk::options()
            .name("shutdown/clerk")
            .detached(true)
            .remote(0);
        mobula::get(named.work(1)).unwrap();
        drop(named);

        // A call runs, others are queued.
        let busy = Clerk::remote(0);
        let running = busy.hold(gate);
        gates::await_reached(gate, 1);
        waiting.extend((0..5).map(|n| busy.work(n)));

        // Shared calls run, an exclusive one is parked, more are behind it.
        let shared = Clerk::options().max_concurrency(2).remote(0);
        let looking = shared.look(gate);
        gates::await_reached(gate, 2);
        waiting.extend((0..5).map(|n| shared.work(n)));

        // Async calls wait for ever.
        let asleep = Clerk::options().max_concurrency(8).remote(0);
        waiting.extend((0..3).map(|_| asleep.forever(gate)));
        gates::await_reached(gate, 5);
        waiting.push(asleep.work(1));

        // Not born: for want of a resource, or of an argument.
        let seated = Clerk::options()
            .resource("seat", 1.0)
            .max_restarts(2)
            .remote(0);
        mobula::get(seated.work(1)).unwrap();
        let standing = Clerk::options()
            .resource("seat", 1.0)
            .max_restarts(2)
            .remote(0);
        waiting.push(standing.work(1));
        let late = opened::options().num_cpus(0.0).remote(gate);
        gates::await_reached(gate, 6);
        let unborn = Clerk::options().max_restarts(2).remote(&late);
        waiting.push(unborn.work(1));
        let unborn_both = Clerk::options().resource("seat", 1.0).remote(&late);
        waiting.push(unborn_both.work(1));
        drop(unborn_both);

        // A call is held for its argument, with a stop behind it.
        let held = Clerk::remote(0);
        waiting.push(held.work(&late));
        waiting.push(held.work(1));
        drop(held);

        let closer = std::thread::spawn(move || drop(mobula));
        // It waits for what runs; calls from now on fail.
        until("the closing", || {
            idle.work(1).is_ready() && Clerk::named("shutdown/clerk").is_err()
        });
        gates::open(gate);
        closer.join().unwrap();

        assert_eq!(
            (
                mobula::get(&running).unwrap(),
                mobula::get(&looking).unwrap()
            ),
            (0, 0)
        );
        waiting.iter().for_each(ended_by_shutdown);
        assert!(matches!(mobula::get(idle.work(1)), Err(Error::ShutDown)));
        drop((
            idle, busy, shared, asleep, seated, standing, unborn, waiting, running, looking, late,
        ));
        until("every state's end", || STATES.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn a_method_that_does_not_return_is_left_behind() {
    alone(|| {
        let gate = gates::new();
        let mobula = Config::new()
            .num_cpus(4.0)
            .object_store_memory(16 << 20)
            .shutdown_timeout(Duration::from_millis(100))
            .init()
            .unwrap();
        let clerk = Clerk::options().max_concurrency(2).remote(0);
        let stuck = [clerk.look(gate), clerk.look(gate)];
        gates::await_reached(gate, 2);
        let behind = clerk.work(1);
        let other = Clerk::remote(0);
        let alone = other.hold(gate);
        gates::await_reached(gate, 3);
        let began = Instant::now();
        drop(mobula);
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(matches!(mobula::get(&behind), Err(Error::ShutDown)));
        // The states outlive the calls that use them.
        drop((clerk, other));
        assert_eq!(STATES.load(Ordering::SeqCst), 2);
        gates::open(gate);
        until("their ends", || {
            stuck.iter().chain([&alone]).all(ObjectRef::is_ready)
        });
        drop((stuck, alone, behind));
        until("every state's end", || STATES.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn handles_of_an_earlier_runtime_fail_and_let_go() {
    alone(|| {
        let first = start();
        let old = Clerk::options()
            .max_restarts(3)
            .resource("seat", 1.0)
            .remote(0);
        mobula::get(old.work(1)).unwrap();
        let older = Clerk::remote(0);
        mobula::get(older.work(1)).unwrap();
        drop(first);
        drop(older);
        assert_eq!(STATES.load(Ordering::SeqCst), 1);

        let second = start();
        assert!(matches!(mobula::get(old.work(1)), Err(Error::ShutDown)));
        let new = Clerk::options().resource("seat", 1.0).remote(0);
        assert_eq!(mobula::get(new.work(2)).unwrap(), 2);
        drop(old);
        until("the old one's end", || STATES.load(Ordering::SeqCst) == 1);
        drop((new, second));
        until("the new one's end", || STATES.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn without_a_runtime_there_is_an_error() {
    alone(|| {
        drop(start());
        assert!(matches!(
            mobula::get(Clerk::remote(0).work(1)),
            Err(Error::ShutDown)
        ));
        assert!(matches!(
            Clerk::options().try_remote(0),
            Err(Error::ShutDown)
        ));
        assert!(matches!(Clerk::named("x"), Err(Error::ShutDown)));
    });
}

#[test]
fn callers_race_with_the_end() {
    alone(|| {
        for round in 0..30 {
            let mobula = start();
            let clerks: Vec<_> = (0..4)
                .map(|n| {
                    let options = Clerk::options().max_concurrency(1 + n % 2).max_restarts(1);
                    if n == 3 {
                        options.max_pending(4).remote(0)
                    } else {
                        options.remote(0)
                    }
                })
                .collect();
            let go = gates::new();
            std::thread::scope(|s| {
                for who in 0..4usize {
                    let clerks = &clerks;
                    s.spawn(move || {
                        gates::pass(go);
                        let mut calls = Vec::new();
                        for n in 0..2_000u64 {
                            let clerk = &clerks[(who + n as usize) % 4];
                            let call = clerk.work(n);
                            match n % 50 {
                                0 => {
                                    let _ = mobula::get(&call);
                                }
                                1 if round % 3 == 0 => clerk.restart(),
                                2 if round % 7 == 0 && n > 1_000 => clerk.stop(),
                                _ => {}
                            }
                            calls.push(call);
                        }
                        for call in &calls {
                            match mobula::get(call) {
                                Ok(_) | Err(Error::ShutDown | Error::ActorDied { .. }) => {}
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    });
                }
                gates::await_reached(go, 4);
                gates::open(go);
                for _ in 0..round * 20 {
                    std::thread::yield_now();
                }
                drop(mobula);
            });
            drop(clerks);
            until("every state's end", || STATES.load(Ordering::SeqCst) == 0);
        }
    });
}
