//! Rayon: a pool of its own, `spawn` with a channel for the result, `install`, `scope`, `join`.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::row::Clock;
use crate::{BATCH, FIB, FIB_CALLS, FIB_OF, WORKERS};

static POOL: LazyLock<ThreadPool> = LazyLock::new(|| {
    ThreadPoolBuilder::new()
        .num_threads(WORKERS)
        .build()
        .expect("a pool")
});

fn spawn(x: u64) -> oneshot::Receiver<u64> {
    let (answer, answered) = oneshot::channel();
    POOL.spawn(move || answer.send(x + 1).expect("a receiver"));
    answered
}

/// `task_round_trip` by `spawn`.
pub fn task_round_trip() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            let y = spawn(x).recv().expect("an answer");
            assert_eq!(y, x + 1);
            x = y;
        }
    }
    clock.micros()
}

/// `task_round_trip` by `install`, which blocks until the pool has run it.
pub fn task_round_trip_install() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            let y = POOL.install(|| x + 1);
            assert_eq!(y, x + 1);
            x = y;
        }
    }
    clock.micros()
}

/// `tasks_async` by `spawn`.
pub fn tasks_async() -> f64 {
    let mut clock = Clock::new();
    while clock.more(BATCH) {
        let answers: Vec<_> = (0..BATCH).map(spawn).collect();
        for (x, answer) in (0..).zip(answers) {
            assert_eq!(answer.recv(), Ok(x + 1));
        }
    }
    clock.rate()
}

/// `tasks_async` by `scope`: each task writes its result to its place.
pub fn tasks_async_scope() -> f64 {
    let mut clock = Clock::new();
    while clock.more(BATCH) {
        let mut results = vec![0; BATCH as usize];
        POOL.scope(|scope| {
            for (x, result) in (0..).zip(&mut results) {
                scope.spawn(move |_| *result = x + 1);
            }
        });
        for (x, result) in (0..).zip(results) {
            assert_eq!(result, x + 1);
        }
    }
    clock.rate()
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
    a + b
}

/// `fib_25_nested` and `fib_25_half`: `join` runs one side itself and offers the other.
pub fn fib_join() -> f64 {
    POOL.install(|| {
        let mut clock = Clock::new();
        while clock.more(FIB_CALLS) {
            assert_eq!(fib(FIB_OF), FIB);
        }
        clock.nanos()
    })
}
