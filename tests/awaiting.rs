//! `async fn` tasks, and references awaited from tokio.

mod common;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::{Gate, pass, shared};
use mobula::prelude::*;

#[remote]
fn cube(x: u64) -> u64 {
    x * x * x
}

#[remote]
fn hold(gate: u64) -> u64 {
    pass(gate)
}

#[remote]
async fn triple(x: u64) -> u64 {
    tokio::task::yield_now().await;
    3 * x
}

#[remote]
async fn lines(text: &str, numbers: &[f32]) -> Result<(usize, f32), String> {
    tokio::time::sleep(std::time::Duration::from_micros(1)).await;
    if text.is_empty() {
        return Err("no text".into());
    }
    Ok((text.lines().count(), numbers.iter().sum()))
}

#[remote]
async fn awaits_others(x: u64) -> mobula::Result<u64> {
    let (a, b) = (cube::remote(x), triple::remote(x));
    let nested = if x > 0 {
        awaits_others::remote(x - 1).await?
    } else {
        0
    };
    Ok(a.await? + (&b).await? + nested)
}

/// Blocks its thread, which async code should not: but it must not hang.
#[remote]
async fn blocks_on_others(depth: u64) -> u64 {
    if depth == 0 {
        1
    } else {
        1 + mobula::get(blocks_on_others::remote(depth - 1)).unwrap()
    }
}

#[remote]
async fn bursts(x: u64) -> u64 {
    tokio::task::yield_now().await;
    assert!(x != 7, "seven is refused");
    x
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn async_tasks_are_tasks() {
    shared(|_| {
        assert_eq!(mobula::get(triple::remote(4)).unwrap(), 12);
        assert_eq!(mobula::get(triple::remote(cube::remote(2))).unwrap(), 24);
        assert_eq!(mobula::get(cube::remote(triple::remote(1))).unwrap(), 27);
        let many: Vec<_> = (0..2000).map(triple::remote).collect();
        assert_eq!(mobula::get(&many).unwrap()[1999], 5997);
        assert_eq!(
            mobula::get(lines::remote("a\nb", vec![1.0; 3000])).unwrap(),
            (2, 3000.0)
        );
        let e = mobula::get(lines::remote("", Vec::<f32>::new())).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "no text");
    });
}

#[test]
fn async_tasks_may_await_others() {
    shared(|_| {
        let expected = (0..=50u64).map(|x| x * x * x + 3 * x).sum::<u64>();
        assert_eq!(mobula::get(awaits_others::remote(50)).unwrap(), expected);
    });
}

#[test]
fn async_tasks_that_block_do_not_hang() {
    shared(|_| assert_eq!(mobula::get(blocks_on_others::remote(20)).unwrap(), 21));
}

#[test]
fn an_async_panic_is_its_own_failure_only() {
    shared(|_| {
        let all: Vec<_> = (0..20).map(bursts::remote).collect();
        for (x, r) in all.iter().enumerate() {
            match mobula::get(r) {
                Ok(y) => assert_eq!(y, x as u64),
                Err(e) => {
                    assert_eq!(x, 7);
                    let f = e.failure().unwrap();
                    assert_eq!(f.message, "seven is refused");
                    assert!(f.location.contains("awaiting.rs"), "{}", f.location);
                    assert!(f.backtrace.is_some());
                }
            }
        }
    });
}

#[test]
fn references_are_futures_for_any_executor() {
    shared(|_| {
        tokio_runtime().block_on(async {
            assert_eq!(cube::remote(3).await.unwrap(), 27);
            let r = cube::remote(4);
            assert_eq!((&r).await.unwrap(), 64);
            assert_eq!(r.await.unwrap(), 64);
            let tasks: Vec<_> = (0..500)
                .map(|x| tokio::spawn(async move { cube::remote(x).await }))
                .collect();
            for (x, t) in tasks.into_iter().enumerate() {
                assert_eq!(t.await.unwrap().unwrap(), (x as u64).pow(3));
            }
            let put = mobula::put(&vec![1u8; 1000]).unwrap();
            assert_eq!(put.await.unwrap().len(), 1000);
        });
    });
}

#[test]
fn an_abandoned_await_harms_nobody() {
    shared(|_| {
        let gate = Gate::new();
        let r = hold::remote(gate.id());
        tokio_runtime().block_on(async {
            for _ in 0..100 {
                let soon = std::time::Duration::from_micros(10);
                assert!(tokio::time::timeout(soon, &r).await.is_err());
            }
            gate.open();
            assert_eq!(r.await.unwrap(), 0);
        });
    });
}

#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Count>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_future_that_moved_after_it_was_polled_is_woken_still() {
    shared(|_| {
        let gate = Gate::new();
        let r = hold::remote(gate.id());
        let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let mut place: Option<ObjectRef<u64>> = None;
        let mut moved = Vec::new();
        for count in &counts {
            // Each is polled at the same place and then moved.
            let future = Pin::new(place.insert(r.clone()));
            let waker = Waker::from(count.clone());
            assert!(future.poll(&mut Context::from_waker(&waker)).is_pending());
            moved.extend(place.take());
        }
        gate.open();
        for count in &counts {
            common::until(|| count.0.load(Ordering::SeqCst) > 0);
        }
    });
}

#[test]
fn the_latest_waker_counts() {
    shared(|_| {
        let gate = Gate::new();
        let mut future = pin!(hold::remote(gate.id()));
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        for count in [&first, &second] {
            let waker = Waker::from(count.clone());
            assert!(
                future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        gate.open();
        common::until(|| second.0.load(Ordering::SeqCst) == 1);
        let done = tokio_runtime().block_on(poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(v) => Poll::Ready(v),
            Poll::Pending => Poll::Pending,
        }));
        assert_eq!(done.unwrap(), 0);
    });
}
