//! Queues between tasks, and pools of actors.
#![cfg(feature = "async")]

#[path = "common/actors.rs"]
mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{gates, runtime, until, within};
use mobula::prelude::*;
use mobula::{ActorPool, Error, Queue};

#[remote]
fn produce(queue: Queue<u64>, from: u64, n: u64) -> mobula::Result<u64> {
    for item in from..from + n {
        queue.put(&item)?;
    }
    Ok(n)
}

#[remote]
fn consume(queue: Queue<u64>, n: u64) -> mobula::Result<u64> {
    let mut sum = 0;
    for _ in 0..n {
        sum += queue.take()?;
    }
    Ok(sum)
}

/// Blocks inside of an async function.
#[remote]
async fn consume_later(queue: Queue<u64>, n: u64) -> mobula::Result<u64> {
    let mut sum = 0;
    for _ in 0..n {
        sum += queue.take()?;
        tokio::task::yield_now().await;
    }
    Ok(sum)
}

#[remote]
fn fails() -> Result<u64, String> {
    Err("spoilt".to_string())
}

#[test]
fn items_come_out_once_and_in_order() {
    runtime();
    within(20, || {
        let queue = Queue::<String>::unbounded();
        for i in 0..200 {
            queue.put(&format!("item {i}")).unwrap();
        }
        assert_eq!(queue.len().unwrap(), 200);
        for i in 0..100 {
            assert_eq!(queue.take().unwrap(), format!("item {i}"));
        }
        for i in 100..200 {
            assert_eq!(queue.try_take().unwrap(), Some(format!("item {i}")));
        }
        assert_eq!(queue.try_take().unwrap(), None);
        assert!(queue.is_empty().unwrap());
    });
}

#[test]
fn large_items_and_references_go_through_uncopied() {
    runtime();
    within(20, || {
        let queue = Queue::<Vec<f64>>::bounded(2);
        let item = mobula::put(&vec![1.5f64; 100_000]).unwrap();
        queue.put_ref(&item).unwrap();
        let taken = queue.take_ref().unwrap();
        assert_eq!(taken, item, "the very object");
        assert_eq!(mobula::view(&taken).unwrap().len(), 100_000);

        let queue = Queue::<u64>::bounded(2);
        queue.put_ref(&fails::remote()).unwrap();
        assert_eq!(
            queue.take().unwrap_err().failure().unwrap().message,
            "spoilt"
        );
    });
}

#[test]
fn a_full_queue_makes_putters_wait() {
    runtime();
    within(20, || {
        let queue = Queue::<u64>::bounded(3);
        let put = AtomicU64::new(0);
        std::thread::scope(|s| {
            let putter = s.spawn(|| {
                for i in 0..20 {
                    queue.put(&i).unwrap();
                    put.fetch_add(1, Ordering::SeqCst);
                }
            });
            until("a full queue", || put.load(Ordering::SeqCst) == 3);
            assert_eq!(queue.len().unwrap(), 3);
            assert!(!putter.is_finished());
            for i in 0..20 {
                assert_eq!(queue.take().unwrap(), i);
                assert!(put.load(Ordering::SeqCst) <= i + 5);
            }
        });
        assert!(queue.is_empty().unwrap());
    });
}

#[test]
fn tasks_and_threads_share_a_queue() {
    runtime();
    within(30, || {
        for capacity in [1, 7, usize::MAX] {
            let queue = Queue::<u64>::bounded(capacity);
            // More blocked tasks than CPUs, consumers first.
            let mut takers: Vec<_> = (0..6).map(|_| consume::remote(&queue, 100)).collect();
            takers.extend((0..2).map(|_| consume_later::remote(&queue, 100)));
            let makers: Vec<_> = (0..6)
                .map(|i| produce::remote(&queue, i * 100, 100))
                .collect();
            std::thread::scope(|s| {
                s.spawn(|| (600..800).for_each(|i| queue.put(&i).unwrap()));
            });
            mobula::get(&makers).unwrap();
            let sum: u64 = mobula::get(&takers).unwrap().iter().sum();
            assert_eq!(sum, (0..800).sum::<u64>());
            assert!(queue.is_empty().unwrap());
        }
    });
}

#[test]
fn a_timeout_takes_nothing_and_loses_nothing() {
    runtime();
    within(30, || {
        let queue = Queue::<u64>::unbounded();
        let e = queue.take_timeout(Duration::from_millis(5)).unwrap_err();
        assert!(matches!(e, Error::Timeout { .. }), "{e:?}");
        queue.put(&1).unwrap();
        assert_eq!(queue.take_timeout(Duration::from_secs(5)).unwrap(), 1);

        // Takers that give up at any moment, against a steady producer.
        const N: u64 = 3_000;
        let (sum, count, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|s| {
            for patience in [0, 3, 20, 50] {
                let (queue, sum, count, done) = (&queue, &sum, &count, &done);
                s.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        match queue.take_timeout(Duration::from_micros(patience)) {
                            Ok(item) => {
                                sum.fetch_add(item, Ordering::SeqCst);
                                count.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(Error::Timeout { .. }) => {}
                            Err(e) => panic!("{e:?}"),
                        }
                    }
                });
            }
            for item in 1..=N {
                queue.put(&item).unwrap();
            }
            until("all items", || count.load(Ordering::SeqCst) == N);
            done.store(true, Ordering::SeqCst);
        });
        assert_eq!(sum.load(Ordering::SeqCst), N * (N + 1) / 2);
    });
}

#[test]
fn a_taker_that_gave_up_passes_its_turn_on() {
    runtime();
    within(20, || {
        for _ in 0..200 {
            let queue = Queue::<u64>::unbounded();
            std::thread::scope(|s| {
                let lasting = s.spawn(|| queue.take().unwrap());
                let brief = s.spawn(|| queue.take_timeout(Duration::from_micros(100)));
                queue.put(&1).unwrap();
                // Whoever got it, the other gets the second.
                match brief.join().unwrap() {
                    Ok(item) => {
                        assert_eq!(item, 1);
                        queue.put(&2).unwrap();
                        assert_eq!(lasting.join().unwrap(), 2);
                    }
                    Err(_) => assert_eq!(lasting.join().unwrap(), 1),
                }
            });
        }
    });
}

#[test]
fn closing_fails_whoever_waits_and_whoever_comes() {
    runtime();
    within(20, || {
        let empty = Queue::<u64>::unbounded();
        let full = Queue::<u64>::bounded(1);
        full.put(&1).unwrap();
        let ended = std::thread::scope(|s| {
            let taker = s.spawn(|| empty.take().map(|_| ()));
            let putter = s.spawn(|| full.put(&2));
            let task = consume::remote(&empty, 1);
            // Closed once they wait; if they come later, they fail as well.
            until("a round", || full.len().is_ok_and(|n| n == 1));
            empty.close();
            full.close();
            [
                taker.join().unwrap(),
                putter.join().unwrap(),
                mobula::get(task).map(|_| ()),
            ]
        });
        let [taker, putter, task] = ended.map(Result::unwrap_err);
        assert!(matches!(taker, Error::ActorDied { .. }), "{taker:?}");
        assert!(matches!(putter, Error::ActorDied { .. }), "{putter:?}");
        assert!(task.to_string().contains("killed"), "{task}");
        assert!(matches!(empty.take(), Err(Error::ActorDied { .. })));
        assert!(matches!(empty.put(&1), Err(Error::ActorDied { .. })));
        assert!(matches!(full.try_take(), Err(Error::ActorDied { .. })));
        assert!(full.len().is_err());
    });
}

struct Worker {
    number: u64,
    busy: AtomicBool,
}

#[remote]
impl Worker {
    pub fn new(number: u64) -> Self {
        Worker {
            number,
            busy: AtomicBool::new(false),
        }
    }

    pub fn square(&mut self, x: u64) -> u64 {
        x * x
    }

    /// All wait for each other, so that each actor has to take one.
    pub fn meet(&mut self, gate: u64, n: u64) -> u64 {
        gates::reach(gate);
        gates::await_reached(gate, n);
        self.number
    }

    pub fn wait_for(&mut self, gate: u64, x: u64) -> u64 {
        if x == 0 {
            gates::pass(gate);
        }
        x
    }

    pub fn alone(&self, x: u64) -> u64 {
        assert!(
            !self.busy.swap(true, Ordering::SeqCst),
            "two of the pool's calls at once"
        );
        std::thread::yield_now();
        self.busy.store(false, Ordering::SeqCst);
        x
    }

    pub fn odd_only(&mut self, x: u64) -> Result<u64, String> {
        if x % 2 == 1 {
            Ok(x)
        } else {
            Err(format!("{x} is even"))
        }
    }
}

fn pool(n: u64) -> ActorPool<Worker> {
    ActorPool::new((0..n).map(Worker::remote))
}

#[test]
fn a_pool_maps_in_order() {
    runtime();
    within(20, || {
        let mut pool = pool(3);
        let squares = pool.map(0..500, |w, x| w.square(x)).unwrap();
        assert_eq!(squares, (0..500).map(|x| x * x).collect::<Vec<_>>());
        assert!(pool.map(0..0, |w, x: u64| w.square(x)).unwrap().is_empty());
        assert_eq!(pool.len(), 3);
    });
}

#[test]
fn a_pool_uses_all_its_actors_one_call_each() {
    runtime();
    within(20, || {
        let mut pool = pool(3);
        pool.push(Worker::remote(3));
        let gate = gates::new();
        let mut numbers = pool.map(0..4, |w, _| w.meet(gate, 4)).unwrap();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);

        let workers = (0..2).map(|n| Worker::options().max_concurrency(4).remote(n));
        let mut pool = ActorPool::new(workers);
        pool.map(0..200, |w, x| w.alone(x)).unwrap();
    });
}

#[test]
fn an_unordered_map_gives_what_comes_first() {
    runtime();
    within(20, || {
        let mut pool = pool(2);
        let gate = gates::new();
        // The first item is let go when all but the last are through.
        let got = pool.map_unordered(0..10, |w, x| {
            if x == 9 {
                gates::open(gate);
            }
            w.wait_for(gate, x)
        });
        let got = got.unwrap();
        assert_eq!(got[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(got[8] + got[9], 9);
    });
}

#[test]
fn a_failure_ends_the_map_and_not_the_pool() {
    runtime();
    within(20, || {
        let mut pool = pool(2);
        let e = pool.map([1, 3, 4, 5, 7], |w, x| w.odd_only(x)).unwrap_err();
        assert_eq!(e.failure().unwrap().message, "4 is even");
        assert_eq!(pool.len(), 2);
        assert_eq!(pool.map([1, 3], |w, x| w.odd_only(x)).unwrap(), [1, 3]);
    });
}

#[test]
fn an_empty_pool_says_so() {
    runtime();
    within(20, || {
        let mut empty = pool(0);
        assert!(empty.is_empty());
        assert!(empty.map(0..0, |w, x: u64| w.square(x)).unwrap().is_empty());
        let e = empty.map(0..3, |w, x| w.square(x)).unwrap_err();
        assert!(e.to_string().contains("push()"), "{e}");
        empty.push(Worker::remote(0));
        assert_eq!(empty.map(0..3, |w, x| w.square(x)).unwrap(), [0, 1, 4]);
    });
}
