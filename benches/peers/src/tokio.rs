//! Tokio: tasks by `spawn`, an actor by hand from an mpsc channel and oneshot answers.

use std::sync::{Arc, LazyLock};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};

use crate::actors::{Alive, Peer};
use crate::row::Clock;
use crate::{BATCH, BIG, FIB, FIB_CALLS, FIB_OF, WORKERS};

/// The runtime of this peer and of the actor crates that live on tokio.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Runs `client` as a task on a worker.
pub fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
    RUNTIME.block_on(RUNTIME.spawn(client)).expect("no panic")
}

/// Runs `client` on this thread; what it spawns runs on the workers.
pub fn outside<T>(client: impl Future<Output = T>) -> T {
    RUNTIME.block_on(client)
}

async fn inc(x: u64) -> u64 {
    x + 1
}

async fn tasks_in_a_row() -> f64 {
    let (mut clock, mut x) = (Clock::new(), 0);
    while clock.more(100) {
        for _ in 0..100 {
            let y = tokio::spawn(inc(x)).await.expect("no panic");
            assert_eq!(y, x + 1);
            x = y;
        }
    }
    clock.micros()
}

/// `task_round_trip` from outside: the workers have to be woken.
pub fn task_round_trip() -> f64 {
    outside(tasks_in_a_row())
}

/// `task_round_trip` from a task.
pub fn task_round_trip_inside() -> f64 {
    inside(tasks_in_a_row())
}

async fn tasks() -> f64 {
    let mut clock = Clock::new();
    while clock.more(BATCH) {
        let handles: Vec<_> = (0..BATCH).map(|x| tokio::spawn(inc(x))).collect();
        for (x, handle) in (0..).zip(handles) {
            assert_eq!(handle.await.expect("no panic"), x + 1);
        }
    }
    clock.rate()
}

/// `tasks_async` from outside.
pub fn tasks_async() -> f64 {
    outside(tasks())
}

/// `tasks_async` from a task.
pub fn tasks_async_inside() -> f64 {
    inside(tasks())
}

fn fib(n: u64) -> std::pin::Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if n < 2 {
            return n;
        }
        let (a, b) = (tokio::spawn(fib(n - 1)), tokio::spawn(fib(n - 2)));
        a.await.expect("no panic") + b.await.expect("no panic")
    })
}

/// `fib_25_nested`: each of the calls is a task.
pub fn fib_nested() -> f64 {
    inside(async {
        let mut clock = Clock::new();
        while clock.more(FIB_CALLS) {
            assert_eq!(fib(FIB_OF).await, FIB);
        }
        clock.nanos()
    })
}

fn fib_half(n: u64) -> std::pin::Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if n < 2 {
            return n;
        }
        let a = tokio::spawn(fib_half(n - 1));
        fib_half(n - 2).await + a.await.expect("no panic")
    })
}

/// `fib_25_half`: one call of each pair is a task.
pub fn fib_halved() -> f64 {
    inside(async {
        let mut clock = Clock::new();
        while clock.more(FIB_CALLS) {
            assert_eq!(fib_half(FIB_OF).await, FIB);
        }
        clock.nanos()
    })
}

/// `pass_vec_1m`: the vector moves, as a pointer, from the task that made it to the next.
pub fn pass_vec() -> f64 {
    inside(async {
        let (mut clock, mut x) = (Clock::new(), 0.0);
        while clock.more(1) {
            let made = tokio::spawn(async move { crate::make(x) });
            let sum = tokio::spawn(async move { crate::sum(&made.await.expect("no panic")) });
            assert_eq!(sum.await.expect("no panic"), crate::sum_of_made(x));
            x = if x > 9.0 { 0.0 } else { x + 1.0 };
        }
        clock.micros()
    })
}

/// `task_big_arg`: an `Arc` is cloned, nothing is copied.
pub fn big_arg() -> f64 {
    inside(async {
        let (big, mut clock) = (Arc::new(crate::make(1.0)), Clock::new());
        while clock.more(100) {
            for _ in 0..100 {
                let big = big.clone();
                let ends = tokio::spawn(async move { crate::ends(&big) });
                assert_eq!(ends.await.expect("no panic"), (BIG, 2.0));
            }
        }
        clock.micros()
    })
}

enum Message {
    Add(u64, oneshot::Sender<u64>),
    Tell(u64),
}

/// An actor as the tokio documentation advises to write one by hand.
pub struct Channel(mpsc::UnboundedSender<Message>);

impl Channel {
    fn post(&self, message: Message) {
        assert!(self.0.send(message).is_ok(), "the actor is alive");
    }
}

impl Peer for Channel {
    fn inside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        inside(client)
    }

    fn outside<T: Send + 'static>(client: impl Future<Output = T> + Send + 'static) -> T {
        outside(client)
    }

    async fn start() -> Self {
        let (sender, mut mailbox) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let _alive = Alive::new();
            let mut total = 0;
            while let Some(message) = mailbox.recv().await {
                match message {
                    Message::Tell(n) => total += n,
                    Message::Add(n, answer) => {
                        total += n;
                        let _ = answer.send(total);
                    }
                }
            }
        });
        Channel(sender)
    }

    async fn ask(&self, n: u64) -> u64 {
        self.call(n).await.await
    }

    async fn call(&self, n: u64) -> impl Future<Output = u64> + Send {
        let (answer, answered) = oneshot::channel();
        self.post(Message::Add(n, answer));
        async { answered.await.expect("an answer") }
    }

    async fn tell(&self, n: u64) {
        self.post(Message::Tell(n));
    }
}
