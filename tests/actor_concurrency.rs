//! Methods side by side: `&self` up to the limit, `&mut self` alone, writers not starved; and all of it at once.

#[path = "common/actors.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use common::{gates, runtime, until, within};
use mobula::prelude::*;
use mobula::{Error, WhenFull};

#[remote]
fn opened(gate: u64) -> u64 {
    gates::pass(gate);
    gate
}

/// Counts who is inside.
struct Room {
    readers: AtomicI64,
    most: AtomicI64,
    writers: u64,
    order: Mutex<Vec<u64>>,
}

#[remote]
impl Room {
    pub fn new() -> Self {
        Room {
            readers: AtomicI64::new(0),
            most: AtomicI64::new(0),
            writers: 0,
            order: Mutex::new(Vec::new()),
        }
    }

    /// Comes in, waits until `n` are at the gate, and leaves.
    pub fn meet(&self, gate: u64, n: u64) -> u64 {
        self.enter();
        gates::reach(gate);
        gates::await_reached(gate, n);
        self.readers.fetch_sub(1, Ordering::SeqCst);
        n
    }

    pub fn read(&self, gate: u64) -> u64 {
        self.enter();
        gates::pass(gate);
        self.readers.fetch_sub(1, Ordering::SeqCst);
        self.writers
    }

    pub fn look(&self, mark: u64) -> u64 {
        self.enter();
        self.order.lock().unwrap().push(mark);
        self.readers.fetch_sub(1, Ordering::SeqCst);
        self.writers
    }

    pub fn write(&mut self, mark: u64) -> u64 {
        assert_eq!(
            self.readers.load(Ordering::SeqCst),
            0,
            "a reader beside a writer"
        );
        self.order.lock().unwrap().push(mark);
        self.writers += 1;
        self.writers
    }

    pub fn most(&self) -> i64 {
        self.most.load(Ordering::SeqCst)
    }

    pub fn order(&self) -> Vec<u64> {
        self.order.lock().unwrap().clone()
    }

    pub fn blow(&self) -> u64 {
        panic!("in the room")
    }

    pub fn leave_with(self) -> u64 {
        assert_eq!(self.readers.load(Ordering::SeqCst), 0);
        self.writers
    }
}

impl Room {
    fn enter(&self) {
        let now = self.readers.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }
}

#[test]
fn shared_methods_run_at_the_same_time_up_to_the_limit() {
    runtime();
    within(20, || {
        // More of them than there are CPUs, and each waits for all.
        let room = Room::options().max_concurrency(8).remote();
        let gate = gates::new();
        let all: Vec<_> = (0..8).map(|_| room.meet(gate, 8)).collect();
        assert_eq!(mobula::get(&all).unwrap(), [8; 8]);

        let room = Room::options().max_concurrency(3).remote();
        let gate = gates::new();
        let all: Vec<_> = (0..9).map(|_| room.read(gate)).collect();
        gates::await_reached(gate, 3);
        gates::open(gate);
        mobula::get(&all).unwrap();
        assert_eq!(mobula::get(room.most()).unwrap(), 3);
    });
}

#[test]
fn without_the_option_one_runs_at_a_time() {
    runtime();
    within(20, || {
        let room = Room::remote();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for i in 0..500 {
                        mobula::get(room.look(i)).unwrap();
                    }
                });
            }
        });
        assert_eq!(mobula::get(room.most()).unwrap(), 1);
    });
}

#[test]
fn a_writer_is_alone_and_not_passed() {
    runtime();
    within(20, || {
        let room = Room::options().max_concurrency(4).remote();
        let gate = gates::new();
        let reader = room.read(gate);
        gates::await_reached(gate, 1);
        // There is room for these, but the writer stands before them.
        let writer = room.write(1);
        let behind: Vec<_> = (2..5).map(|mark| room.look(mark)).collect();
        let probe = room.look(9);
        assert!(mobula::get_timeout(&probe, std::time::Duration::from_millis(30)).is_err());
        assert!(!writer.is_ready() && behind.iter().all(|r| !r.is_ready()));
        gates::open(gate);
        assert_eq!(mobula::get(&writer).unwrap(), 1);
        assert_eq!(mobula::get(&reader).unwrap(), 0);
        assert_eq!(mobula::get(&behind).unwrap(), [1; 3]);
        mobula::get(&probe).unwrap();
        assert_eq!(mobula::get(room.order()).unwrap()[0], 1);
    });
}

#[test]
fn a_stream_of_readers_does_not_starve_writers() {
    runtime();
    within(20, || {
        let room = Room::options().max_concurrency(4).remote();
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let reads: Vec<_> = (0..8).map(|i| room.look(1_000 + i)).collect();
                        mobula::get(&reads).unwrap();
                    }
                });
            }
            for n in 1..=100 {
                assert_eq!(mobula::get(room.write(n)).unwrap(), n);
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_cancelled_writer_lets_readers_pass() {
    runtime();
    within(20, || {
        let room = Room::options().max_concurrency(4).remote();
        let gate = gates::new();
        let reader = room.read(gate);
        gates::await_reached(gate, 1);
        let writer = room.write(1);
        let behind = room.look(2);
        assert_eq!(mobula::cancel(&writer).unwrap(), mobula::Cancel::Dequeued);
        // The reader is still inside.
        assert_eq!(mobula::get(&behind).unwrap(), 0);
        assert!(!reader.is_ready());
        gates::open(gate);
        assert_eq!(mobula::get(&reader).unwrap(), 0);
        assert_eq!(mobula::get(room.write(3)).unwrap(), 1);
    });
}

#[test]
fn a_stop_waits_for_shared_methods_under_way() {
    runtime();
    within(20, || {
        let room = Room::options().max_concurrency(4).remote();
        let gate = gates::new();
        let readers = [room.read(gate), room.read(gate)];
        gates::await_reached(gate, 2);
        room.stop();
        let late = room.look(1);
        assert!(room.is_alive());
        assert!(mobula::get_timeout(&late, std::time::Duration::from_millis(30)).is_err());
        gates::open(gate);
        assert_eq!(mobula::get(&readers[..]).unwrap(), [0, 0]);
        assert!(matches!(mobula::get(late), Err(Error::ActorDied { .. })));
    });
}

#[test]
fn a_kill_and_a_restart_wait_for_shared_methods_under_way() {
    runtime();
    within(20, || {
        for restart in [false, true] {
            let room = Room::options().max_concurrency(4).max_restarts(1).remote();
            let gate = gates::new();
            let reader = room.read(gate);
            gates::await_reached(gate, 1);
            if restart {
                room.restart()
            } else {
                room.kill()
            }
            let late = room.write(1);
            gates::open(gate);
            assert_eq!(mobula::get(reader).unwrap(), 0);
            match (restart, mobula::get(late)) {
                (true, Ok(n)) => assert_eq!(n, 1),
                (false, Err(Error::ActorDied { cause, .. })) => {
                    assert_eq!(&*cause, "it was killed")
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_panic_in_a_shared_method_restarts_before_the_next_call() {
    runtime();
    within(20, || {
        let room = Room::options()
            .max_concurrency(4)
            .max_restarts(100)
            .restart_on_panic(true)
            .remote();
        for _ in 0..50 {
            assert_eq!(mobula::get(room.write(1)).unwrap(), 1);
            mobula::get(room.blow()).unwrap_err();
        }
    });
}

#[test]
fn a_consuming_method_waits_for_the_others() {
    runtime();
    within(20, || {
        let room = Room::options().max_concurrency(4).remote();
        mobula::get(room.write(1)).unwrap();
        let gate = gates::new();
        let readers: Vec<_> = (0..3).map(|_| room.read(gate)).collect();
        let end = room.leave_with();
        gates::await_reached(gate, 3);
        assert!(!end.is_ready());
        gates::open(gate);
        assert_eq!(mobula::get(&readers).unwrap(), [1; 3]);
        assert_eq!(mobula::get(end).unwrap(), 1);
    });
}

/// One whose states are counted, by the number it is made with, and which checks that it is used properly.
struct Tested {
    number: u64,
    inside: AtomicI64,
    sum: u64,
}

static STATES: Mutex<BTreeMap<u64, i64>> = Mutex::new(BTreeMap::new());

fn states(number: u64) -> i64 {
    STATES.lock().unwrap().get(&number).copied().unwrap_or(0)
}

#[remote]
impl Tested {
    pub fn new(number: u64) -> Self {
        *STATES.lock().unwrap().entry(number).or_default() += 1;
        Tested {
            number,
            inside: AtomicI64::new(0),
            sum: 0,
        }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        assert_eq!(
            self.inside.fetch_sub(1_000, Ordering::SeqCst),
            0,
            "not alone"
        );
        self.sum += n;
        self.inside.fetch_add(1_000, Ordering::SeqCst);
        self.sum
    }

    pub fn sum(&self) -> u64 {
        assert!(
            self.inside.fetch_add(1, Ordering::SeqCst) >= 0,
            "beside a writer"
        );
        let sum = self.sum;
        self.inside.fetch_sub(1, Ordering::SeqCst);
        sum
    }

    pub async fn later(&self) -> u64 {
        assert!(
            self.inside.fetch_add(1, Ordering::SeqCst) >= 0,
            "beside a writer"
        );
        // It may be dropped at the await.
        let _inside = Leave(&self.inside);
        tokio::task::yield_now().await;
        self.sum
    }

    pub fn blow(&mut self, on: bool) -> u64 {
        assert!(!on, "blown");
        self.sum
    }

    pub fn end(self) -> u64 {
        self.sum
    }
}

struct Leave<'a>(&'a AtomicI64);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Tested {
    fn drop(&mut self) {
        assert_eq!(
            self.inside.load(Ordering::SeqCst),
            0,
            "dropped while in use"
        );
        *STATES.lock().unwrap().entry(self.number).or_default() -= 1;
    }
}

#[remote]
fn use_elsewhere(actor: Handle<Tested>, n: u64) -> mobula::Result<u64> {
    mobula::get(actor.add(n))
}

/// A small generator, so that failures repeat.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Every call of every kind ends, in a value or in an error that says why, and every state is dropped once.
#[test]
fn everything_at_once() {
    runtime();
    let outcomes = within(40, || {
        let rounds = 500;
        std::thread::scope(|s| {
            let workers: Vec<_> = (0..6)
                .map(|seed| {
                    s.spawn(move || (0..rounds).map(|r| storm(seed * 1_000 + r)).sum::<u64>())
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum::<u64>()
        })
    });
    assert!(outcomes > 6 * 500 * 20, "{outcomes} calls ended");
}

/// One actor's life under fire; how many calls ended.
fn storm(seed: u64) -> u64 {
    let mut dice = Dice(seed * 2_654_435_761 + 88_172_645);
    let mut options = Tested::options().max_concurrency(1 + dice.roll(4) as u32);
    if dice.roll(2) == 0 {
        options = options.max_restarts(2).restart_on_panic(dice.roll(2) == 0);
    }
    if dice.roll(3) == 0 {
        let when = if dice.roll(2) == 0 {
            WhenFull::Fail
        } else {
            WhenFull::Wait
        };
        options = options.max_pending(4).when_full(when);
    }
    if dice.roll(3) == 0 {
        options = options.num_cpus(0.25);
    }
    let door = gates::new();
    let late = opened::remote(door);
    let actor = if dice.roll(8) == 0 {
        options.remote(&late)
    } else {
        options.remote(door)
    };
    let mut calls = Vec::new();
    let mut story = vec![format!("{actor:?}")];
    let mut opened_yet = false;
    for step in 0..30 {
        let what = dice.roll(20);
        story.push(format!("{what}{}", if opened_yet { "" } else { "-" }));
        calls.push(match what {
            0..6 => actor.add(step),
            6..9 => actor.sum(),
            9..12 => actor.later(),
            12 if !opened_yet => actor.add(&late),
            13 => actor.blow(dice.roll(3) == 0),
            14 => use_elsewhere::remote(&actor, step),
            15 if dice.roll(6) == 0 => actor.end(),
            16 => {
                let call = actor.add(step);
                mobula::cancel(&call).unwrap();
                call
            }
            17 if dice.roll(6) == 0 => {
                match dice.roll(3) {
                    0 => actor.stop(),
                    1 => actor.kill(),
                    _ => actor.restart(),
                }
                actor.sum()
            }
            18 => {
                // Drops references, of calls that run on.
                drop((actor.add(1), actor.later()));
                actor.sum()
            }
            _ => {
                let call = actor.add(step);
                if opened_yet {
                    let _ = mobula::get(&call);
                }
                call
            }
        });
        if !opened_yet && dice.roll(10) == 0 {
            gates::open(door);
            opened_yet = true;
        }
        // A full mailbox may wait for room that only the door's opening gives.
        if step == 0 && !opened_yet {
            gates::open(door);
            opened_yet = true;
        }
    }
    drop(actor);
    for call in &calls {
        match mobula::get(call) {
            Ok(_) => {}
            Err(
                Error::TaskFailed(_)
                | Error::ActorDied { .. }
                | Error::Cancelled { .. }
                | Error::MailboxFull { .. }
                | Error::DependencyFailed { .. },
            ) => {}
            Err(other) => panic!("seed {seed}: {other:?}"),
        }
    }
    until(&format!("the state's end, seed {seed}: {story:?}"), || {
        states(door) == 0
    });
    calls.len() as u64
}
