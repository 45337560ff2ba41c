//! Async methods: side by side at their awaits, alone where they are `&mut self`, and what ends them.
#![cfg(feature = "async")]

#[path = "common/actors.rs"]
mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use common::{gates, runtime, until, within};
use mobula::Error;
use mobula::prelude::*;

#[remote]
fn double(x: u64) -> u64 {
    2 * x
}

#[remote]
async fn double_later(x: u64) -> u64 {
    tokio::task::yield_now().await;
    2 * x
}

/// Blocks the thread that polls it, once a level.
#[remote]
async fn nested(depth: u64) -> mobula::Result<u64> {
    if depth == 0 {
        Ok(0)
    } else {
        Ok(mobula::get(nested::remote(depth - 1))? + 1)
    }
}

#[remote]
fn opened(gate: u64) -> u64 {
    gates::pass(gate);
    gate
}

/// Rings that wait to be heard, and whoever listens.
#[derive(Default)]
struct Bell(Mutex<(u64, Vec<Waker>)>);

impl Bell {
    fn ring(&self) {
        let mut bell = self.0.lock().unwrap();
        bell.0 += 1;
        bell.1.drain(..).for_each(Waker::wake);
    }

    async fn heard(&self) {
        std::future::poll_fn(|cx| {
            let mut bell = self.0.lock().unwrap();
            if bell.0 == 0 {
                bell.1.push(cx.waker().clone());
                return Poll::Pending;
            }
            bell.0 -= 1;
            Poll::Ready(())
        })
        .await;
    }
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

struct Desk {
    bell: Bell,
    rung: u64,
    alive: Mutex<u64>,
    trace: Mutex<Vec<String>>,
}

/// Leaves when the future that holds it goes; the state must still be there.
struct Visit<'a>(&'a Desk);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        *self.0.alive.lock().unwrap() -= 1;
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

impl Desk {
    fn visit(&self) -> Visit<'_> {
        *self.alive.lock().unwrap() += 1;
        Visit(self)
    }
}

#[remote]
impl Desk {
    pub fn new() -> Self {
        Desk {
            bell: Bell::default(),
            rung: 0,
            alive: Mutex::new(0),
            trace: Mutex::default(),
        }
    }

    /// Waits until somebody rings.
    pub async fn wait(&self, gate: u64) -> u64 {
        let _visit = self.visit();
        gates::reach(gate);
        self.bell.heard().await;
        gate
    }

    /// Waits for a gate, without blocking.
    pub async fn wait_open(&self, gate: u64) -> u64 {
        gates::reach(gate);
        while !gates::is_open(gate) {
            tokio::task::yield_now().await;
        }
        gate
    }

    pub async fn ring(&self) {
        self.bell.ring();
    }

    pub fn ring_now(&self) {
        self.bell.ring();
    }

    /// Alone, across many awaits.
    pub async fn alone(&mut self, mark: u64) -> u64 {
        self.trace.lock().unwrap().push(format!("+{mark}"));
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        self.trace.lock().unwrap().push(format!("-{mark}"));
        self.rung += 1;
        self.rung
    }

    pub fn touch(&mut self) -> u64 {
        self.trace.lock().unwrap().push("touch".to_string());
        self.rung
    }

    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap().clone()
    }

    pub async fn join(&self, numbers: &[f64], text: &str) -> String {
        tokio::task::yield_now().await;
        format!("{text}{}", numbers.len())
    }

    pub async fn add_up(&self, n: u64) -> mobula::Result<u64> {
        let mut sum = 0;
        for i in 0..n {
            sum += double::remote(i).await? + double_later::remote(i).await?;
        }
        Ok(sum)
    }

    pub async fn ask(&self, other: Handle<Desk>) -> mobula::Result<u64> {
        other.touch().await
    }

    pub async fn ask_blocking(&self, other: Handle<Desk>) -> mobula::Result<String> {
        mobula::get(other.join(&[1.0, 2.0], "blocked "))
    }

    pub async fn blow(&self) -> u64 {
        tokio::task::yield_now().await;
        panic!("async and blown")
    }

    pub async fn refuse(&mut self) -> Result<u64, String> {
        tokio::task::yield_now().await;
        Err("no".to_string())
    }
}

fn died(e: &Error) -> String {
    match e {
        Error::ActorDied { cause, .. } => cause.to_string(),
        other => panic!("expected ActorDied, got {other:?}"),
    }
}

#[test]
fn async_methods_interleave_at_their_awaits() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(100).remote();
        let gate = gates::new();
        let waiting: Vec<_> = (0..50).map(|_| desk.wait(gate)).collect();
        gates::await_reached(gate, 50);
        for _ in 0..25 {
            desk.ring();
            desk.ring_now();
        }
        assert_eq!(mobula::get(&waiting).unwrap(), vec![gate; 50]);
    });
}

#[test]
fn an_exclusive_async_method_is_alone_across_its_awaits() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(8).remote();
        let mut calls = Vec::new();
        for mark in 0..20 {
            calls.push(desk.alone(mark));
            calls.push(desk.touch());
        }
        mobula::get(&calls).unwrap();
        let expected: Vec<_> = (0..20)
            .flat_map(|m| [format!("+{m}"), format!("-{m}"), "touch".to_string()])
            .collect();
        assert_eq!(mobula::get(desk.trace()).unwrap(), expected);
    });
}

#[test]
fn without_the_option_async_methods_run_in_order() {
    runtime();
    within(20, || {
        let desk = Desk::remote();
        let gate = gates::new();
        let first = desk.wait(gate);
        let second = desk.wait(gate);
        gates::await_reached(gate, 1);
        let probe = desk.trace();
        assert!(mobula::get_timeout(&probe, std::time::Duration::from_millis(30)).is_err());
        assert_eq!(gates::reached(gate), 1);
        for call in [&first, &second] {
            assert_ne!(mobula::cancel(call).unwrap(), mobula::Cancel::TooLate);
        }
        mobula::get(probe).unwrap();
        assert!(matches!(mobula::get(first), Err(Error::Cancelled { .. })));
        assert!(matches!(mobula::get(second), Err(Error::Cancelled { .. })));
    });
}

#[test]
fn they_borrow_arguments_await_calls_and_fail_like_others() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(4).remote();
        let numbers = mobula::put(&vec![1.0f64; 5_000]).unwrap();
        assert_eq!(
            mobula::get(desk.join(&numbers, "n = ")).unwrap(),
            "n = 5000"
        );
        assert_eq!(mobula::get(desk.add_up(10)).unwrap(), 180);
        assert_eq!(mobula::get(desk.ask(Desk::remote())).unwrap(), 0);
        let e = mobula::get(desk.blow()).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "async and blown");
        assert!(e.failure().unwrap().location.contains("async_actors.rs"));
        let e = mobula::get(desk.refuse()).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "no");
        assert_eq!(mobula::get(desk.touch()).unwrap(), 0);
    });
}

#[test]
fn a_blocking_wait_inside_holds_up_nobody_else() {
    runtime();
    within(20, || {
        assert_eq!(mobula::get(nested::remote(20)).unwrap(), 20);
        let (a, b) = (Desk::options().max_concurrency(4).remote(), Desk::remote());
        let all: Vec<_> = (0..4).map(|_| a.ask_blocking(&b)).collect();
        assert_eq!(mobula::get(&all).unwrap(), ["blocked 2"; 4]);
    });
}

#[test]
fn a_cancelled_call_is_dropped_at_its_await() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(4).remote();
        let gate = gates::new();
        let waiting = desk.wait(gate);
        gates::await_reached(gate, 1);
        assert_eq!(mobula::cancel(&waiting).unwrap(), mobula::Cancel::Requested);
        assert!(matches!(
            mobula::get(&waiting),
            Err(Error::Cancelled { .. })
        ));
        // It has left: one that wants to be alone may come in.
        assert_eq!(mobula::get(desk.alone(1)).unwrap(), 1);

        // One that waits to be let in.
        let waiting = desk.wait(gate);
        let (parked, behind) = (desk.alone(2), desk.join(&[1.0], "behind "));
        gates::await_reached(gate, 2);
        assert_eq!(mobula::cancel(&parked).unwrap(), mobula::Cancel::Dequeued);
        assert_eq!(mobula::get(&behind).unwrap(), "behind 1");
        assert!(matches!(mobula::get(&parked), Err(Error::Cancelled { .. })));
        desk.ring();
        mobula::get(waiting).unwrap();

        // One whose argument is not there.
        let door = gates::new();
        let held = desk.wait(opened::remote(door));
        assert_eq!(mobula::cancel(&held).unwrap(), mobula::Cancel::Dequeued);
        assert!(matches!(mobula::get(held), Err(Error::Cancelled { .. })));
        gates::open(door);
    });
}

#[test]
fn a_kill_ends_calls_that_wait_and_then_the_state() {
    runtime();
    within(20, || {
        for _ in 0..50 {
            let desk = Desk::options().max_concurrency(16).remote();
            let gate = gates::new();
            let waiting: Vec<_> = (0..8).map(|_| desk.wait(gate)).collect();
            gates::await_reached(gate, 8);
            let before = DROPPED.load(Ordering::SeqCst);
            let parked = desk.alone(1);
            desk.kill();
            for call in waiting.into_iter().chain([parked]) {
                assert_eq!(died(&mobula::get(call).unwrap_err()), "it was killed");
            }
            assert!(DROPPED.load(Ordering::SeqCst) >= before + 8);
            assert!(!desk.is_alive() || mobula::get(desk.touch()).is_err());
        }
    });
}

#[test]
fn a_restart_ends_calls_that_wait_and_goes_on() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(4).max_restarts(1).remote();
        let gate = gates::new();
        mobula::get(desk.alone(1)).unwrap();
        let waiting = desk.wait(gate);
        gates::await_reached(gate, 1);
        desk.restart();
        assert_eq!(
            died(&mobula::get(waiting).unwrap_err()),
            "it was told to restart"
        );
        assert_eq!(mobula::get(desk.alone(1)).unwrap(), 1, "made anew");
    });
}

#[test]
fn a_panic_restarts_before_the_next_call() {
    runtime();
    within(20, || {
        let desk = Desk::options()
            .max_concurrency(4)
            .max_restarts(50)
            .restart_on_panic(true)
            .remote();
        for _ in 0..50 {
            assert_eq!(mobula::get(desk.alone(1)).unwrap(), 1);
            mobula::get(desk.blow()).unwrap_err();
        }
        mobula::get(desk.blow()).unwrap_err();
        assert!(died(&mobula::get(desk.touch()).unwrap_err()).contains("Desk::blow panicked"));
    });
}

#[test]
fn a_stop_and_the_last_handle_let_them_finish() {
    runtime();
    within(20, || {
        for stop in [true, false] {
            let desk = Desk::options().max_concurrency(4).remote();
            let gate = gates::new();
            let waiting = desk.wait_open(gate);
            gates::await_reached(gate, 1);
            let parked = desk.alone(1);
            let last = desk.touch();
            let running = desk.wait_open(gate);
            let late = stop.then(|| {
                desk.stop();
                desk.touch()
            });
            drop(desk);
            assert!(!parked.is_ready() && !last.is_ready() && !running.is_ready());
            gates::open(gate);
            let all = mobula::get((waiting, parked, last, running)).unwrap();
            assert_eq!(all, (gate, 1, 1, gate));
            if let Some(late) = late {
                assert_eq!(died(&mobula::get(late).unwrap_err()), "it was stopped");
            }
        }
    });
}

#[test]
fn a_call_whose_reference_is_gone_goes_on() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(4).remote();
        let gate = gates::new();
        drop(desk.wait(gate));
        gates::await_reached(gate, 1);
        let before = DROPPED.load(Ordering::SeqCst);
        desk.ring();
        assert_eq!(mobula::get(desk.alone(1)).unwrap(), 1);
        until("its end", || DROPPED.load(Ordering::SeqCst) > before);
    });
}

#[test]
fn references_are_futures_anywhere() {
    runtime();
    within(20, || {
        let desk = Desk::options().max_concurrency(4).remote();
        let other = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        other.block_on(async {
            let gate = gates::new();
            let waiting = desk.wait(gate);
            assert_eq!(desk.touch_after(gate).await, 1);
            desk.ring().await.unwrap();
            assert_eq!(waiting.await.unwrap(), gate);
            desk.kill();
            assert_eq!(died(&desk.touch().await.unwrap_err()), "it was killed");
        });
    });
}

/// What the test above does between two awaits.
trait TouchAfter {
    fn touch_after(&self, gate: u64) -> impl Future<Output = u64>;
}

impl TouchAfter for Handle<Desk> {
    async fn touch_after(&self, gate: u64) -> u64 {
        gates::await_reached(gate, 1);
        assert_eq!(self.join(&[], "").await.unwrap(), "0");
        gates::reached(gate)
    }
}
