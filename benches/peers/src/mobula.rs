//! Mobula, as its users write it. Except for [`Mobula`], who awaits, the callers are plain threads.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use mobula::prelude::*;

use crate::actors::{Alive, Peer, started};
use crate::row::{Clock, resident};
use crate::{ACTORS, BATCH, BIG, FIB, FIB_CALLS, FIB_OF, TELLS, WORKERS};

/// Starts the node of this process; it lasts as long as what comes back.
pub fn start() -> impl Sized {
    mobula::Config::new()
        .num_cpus(WORKERS as f64)
        .init()
        .expect("a node")
}

#[remote]
fn inc(x: u64) -> u64 {
    x + 1
}

/// `task_round_trip`.
pub fn task_round_trip() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            let y = mobula::get(&inc::remote(x)).expect("a result");
            assert_eq!(y, x + 1);
            x = y;
        }
    }
    clock.micros()
}

/// `tasks_async`.
pub fn tasks_async() -> f64 {
    let mut clock = Clock::new();
    while clock.more(BATCH) {
        let refs: Vec<_> = (0..BATCH).map(inc::remote).collect();
        for (x, y) in (0..).zip(mobula::get(&refs).expect("the results")) {
            assert_eq!(y, x + 1);
        }
    }
    clock.rate()
}

#[remote]
fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = mobula::get((&fib::remote(n - 1), &fib::remote(n - 2))).expect("both");
    a + b
}

/// `fib_25_nested`: each of the calls is a task.
pub fn fib_nested() -> f64 {
    let mut clock = Clock::new();
    while clock.more(FIB_CALLS) {
        assert_eq!(mobula::get(&fib::remote(FIB_OF)).expect("a result"), FIB);
    }
    clock.nanos()
}

#[remote]
fn half(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let a = half::remote(n - 1);
    half(n - 2) + mobula::get(&a).expect("a result")
}

/// `fib_25_half`: one call of each pair is a task.
pub fn fib_half() -> f64 {
    let mut clock = Clock::new();
    while clock.more(FIB_CALLS) {
        assert_eq!(mobula::get(&half::remote(FIB_OF)).expect("a result"), FIB);
    }
    clock.nanos()
}

#[remote]
struct Counter {
    total: u64,
}

#[remote]
impl Counter {
    pub fn new(total: u64) -> Self {
        std::mem::forget(Alive::new()); // counts starts; the end of a mobula actor is not waited for
        Counter { total }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }
}

/// `actor_round_trip`.
pub fn actor_round_trip() -> f64 {
    let counter = Counter::remote(0);
    let (mut clock, mut total) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            total += 1;
            assert_eq!(mobula::get(&counter.add(1)).expect("an answer"), total);
        }
    }
    clock.micros()
}

/// `actor_async`.
pub fn actor_async() -> f64 {
    let counter = Counter::remote(0);
    let (mut clock, mut total) = (Clock::new(), 0);
    while clock.more(BATCH) {
        let answers: Vec<_> = (0..BATCH).map(|_| counter.add(1)).collect();
        for answer in mobula::get(&answers).expect("the answers") {
            total += 1;
            assert_eq!(answer, total);
        }
    }
    clock.rate()
}

/// `actor_tell`.
pub fn actor_tell() -> f64 {
    let counter = Counter::remote(0);
    let (mut clock, mut total) = (Clock::new(), 0);
    while clock.more(TELLS) {
        for _ in 1..TELLS {
            drop(counter.add(1));
        }
        total += TELLS;
        assert_eq!(mobula::get(&counter.add(1)).expect("an answer"), total);
    }
    clock.rate()
}

/// As its peers do it: the clock stops when all constructors have run; then each gets one call.
fn create_many() -> (f64, Vec<Handle<Counter>>) {
    let before = started();
    let mut counters = Vec::with_capacity(ACTORS);
    let start = Instant::now();
    for _ in 0..ACTORS {
        counters.push(Counter::remote(0));
    }
    while started() - before < ACTORS {
        thread::yield_now();
    }
    let elapsed = start.elapsed().as_secs_f64();
    for counter in &counters {
        assert_eq!(mobula::get(&counter.add(7)).expect("an answer"), 7);
    }
    (elapsed, counters)
}

/// `actors_create`.
pub fn actors_create() -> f64 {
    let (elapsed, counters) = create_many();
    drop(counters);
    thread::sleep(Duration::from_millis(100));
    ACTORS as f64 / elapsed
}

/// `actor_idle_bytes`, in a process of its own.
pub fn idle_bytes() -> f64 {
    let _node = start();
    let first = Counter::remote(0);
    assert_eq!(mobula::get(&first.add(1)).expect("an answer"), 1);
    let before = resident();
    let (_, counters) = create_many();
    thread::sleep(Duration::from_millis(200));
    (resident() - before) / counters.len() as f64
}

/// A handle whose answers are awaited, in a task of tokio.
pub struct Mobula(Handle<Counter>);

impl Peer for Mobula {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        crate::tokio::outside(client)
    }

    async fn start() -> Self {
        Mobula(Counter::remote(0))
    }

    async fn ask(&self, n: u64) -> u64 {
        self.0.add(n).await.expect("an answer")
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let answered = self.0.add(n);
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        drop(self.0.add(n));
    }
}

/// `put_1kb`.
pub fn put_1kb() -> f64 {
    let (value, mut clock) = (vec![7u8; 1000], Clock::new());
    while clock.more(100) {
        for _ in 0..100 {
            black_box(mobula::put(black_box(&value)).expect("room"));
        }
    }
    let view = mobula::view(&mobula::put(&value).expect("room")).expect("the object");
    assert_eq!(view[..], value);
    clock.rate()
}

/// `view_1kb`.
pub fn view_1kb() -> f64 {
    let (object, mut clock) = (mobula::put(&vec![7u8; 1000]).expect("room"), Clock::new());
    while clock.more(1000) {
        for _ in 0..1000 {
            let view = mobula::view(black_box(&object)).expect("the object");
            assert_eq!(black_box(view)[999], 7);
        }
    }
    clock.nanos()
}

#[remote]
fn make(x: f32) -> Vec<f32> {
    crate::make(x)
}

#[remote]
fn sum(v: &[f32]) -> f64 {
    crate::sum(v)
}

#[remote]
fn ends(v: &[f32]) -> (usize, f32) {
    crate::ends(v)
}

/// `task_big_arg`: the object stays where it is, the task reads it in place.
pub fn big_arg() -> f64 {
    let (big, mut clock) = (mobula::put(&crate::make(1.0)).expect("room"), Clock::new());
    while clock.more(100) {
        for _ in 0..100 {
            let ends = mobula::get(&ends::remote(&big)).expect("a result");
            assert_eq!(ends, (BIG, 2.0));
        }
    }
    clock.micros()
}

/// `pass_vec_1m`: the result is copied once, into the store that other processes read too.
pub fn pass_vec() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0.0);
    while clock.more(1) {
        let sum = mobula::get(&sum::remote(make::remote(x))).expect("a result");
        assert_eq!(sum, crate::sum_of_made(x));
        x = if x > 9.0 { 0.0 } else { x + 1.0 };
    }
    clock.micros()
}
