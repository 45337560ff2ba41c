//! Actors keep their state when the process that has it dies.
//!
//! Invariant: every call that was answered is in the state once, in order. Left out: deaths of whole nodes.

mod common;
mod workers_common;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{alone, until};
use mobula::inspect::{History, Part, Query, snapshot};
use mobula::{Error, ObjectRef, remote};
use workers_common::{Folder, config, is_there, signal};

fn kill(pid: u32) {
    signal(pid, "KILL");
}

#[remote(isolate, max_restarts = 100)]
struct Counter {
    total: u64,
    seen: Vec<(u32, u64)>,
}

#[remote]
impl Counter {
    pub fn new(total: u64) -> Self {
        Counter {
            total,
            seen: Vec::new(),
        }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn see(&mut self, caller: u32, n: u64) -> u64 {
        self.seen.push((caller, n));
        self.seen.len() as u64
    }

    pub fn seen(&self) -> Vec<(u32, u64)> {
        self.seen.clone()
    }

    pub fn sum(&mut self, of: Vec<u64>) -> u64 {
        self.total += of.iter().sum::<u64>();
        self.total
    }

    pub fn panics(&mut self) -> u64 {
        self.total += 1000;
        panic!("after it has changed something")
    }

    pub fn aborts(&mut self) -> u64 {
        self.total += 1000;
        std::process::abort()
    }

    /// Says that it has begun, and ends when it may.
    pub fn holds(&mut self, begun: String, go: String) -> u64 {
        std::fs::write(begun, "").unwrap();
        until(|| Path::new(&go).exists());
        self.total += 1;
        self.total
    }

    /// Changes the state, and gives what no store has room for.
    pub fn overflows(&mut self) -> Vec<u8> {
        self.total += 5;
        vec![0; 300 << 20]
    }
}

/// A state without an archive.
struct Bare {
    total: u64,
}

#[remote(isolate, max_restarts = 10)]
impl Bare {
    pub fn new() -> Self {
        Bare { total: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.total += n;
        self.total
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// What is kept of an actor.
fn history(counter: &mobula::Handle<Counter>) -> History {
    let look = snapshot(&Query::of(&[Part::Actors])).unwrap();
    let mut all = look.actors.items.into_iter();
    let own = all.find(|a| a.id.0 == counter.id());
    own.and_then(|a| a.history).expect("it keeps a history")
}

fn ten_and_one(counter: &mobula::Handle<Counter>) -> Duration {
    for _ in 0..10 {
        mobula::get(counter.add(1)).unwrap();
    }
    let before = mobula::get(counter.total()).unwrap();
    kill(mobula::get(counter.pid()).unwrap());
    let killed = Instant::now();
    assert_eq!(mobula::get(counter.add(1)).unwrap(), before + 1);
    killed.elapsed()
}

#[test]
fn after_ten_increments_and_a_kill_the_counter_says_eleven() {
    alone(config(), |_| {
        let counter = Counter::remote(0);
        let mut took: Vec<_> = (0..10).map(|_| ten_and_one(&counter)).collect();
        assert_eq!(mobula::get(counter.total()).unwrap(), 110);
        took.sort_unstable();
        println!("killed to answered: {took:?}");
    });
}

#[test]
fn checkpoints_cut_the_log_and_change_nothing_else() {
    alone(config(), |_| {
        for options in [
            Counter::options().checkpoint_every(1),
            Counter::options().checkpoint_every(7),
            Counter::options().checkpoint_interval(Duration::from_nanos(1)),
            Counter::options().log_bytes(200),
        ] {
            let counter = options.remote(5);
            for _ in 0..3 {
                ten_and_one(&counter);
            }
            assert_eq!(mobula::get(counter.total()).unwrap(), 38);
            let seen = history(&counter);
            assert!(seen.saved > 0 && seen.logged < 33, "{seen:?}");
        }
        let counter = Counter::remote(1);
        mobula::get(counter.add(1)).unwrap();
        mobula::get(counter.checkpoint()).unwrap();
        mobula::get(counter.add(1)).unwrap();
        kill(mobula::get(counter.pid()).unwrap());
        assert_eq!(mobula::get(counter.total()).unwrap(), 3);
    });
}

#[test]
fn calls_in_flight_at_a_kill_run_once_and_in_order() {
    alone(config(), |_| {
        let counter = Counter::options().checkpoint_every(50).remote(0);
        let pid = mobula::get(counter.pid()).unwrap();
        let callers: Vec<_> = (0..2)
            .map(|caller| {
                let counter = counter.clone();
                std::thread::spawn(move || {
                    let calls: Vec<_> = (0..400).map(|n| counter.see(caller, n)).collect();
                    mobula::get(&calls).unwrap()
                })
            })
            .collect();
        until(|| mobula::get(counter.seen()).unwrap().len() > 20);
        kill(pid);
        let mut told: Vec<u64> = callers
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect();
        told.sort_unstable();
        assert_eq!(told, (1..=800).collect::<Vec<_>>(), "each once");
        let seen = mobula::get(counter.seen()).unwrap();
        for caller in 0..2 {
            let its: Vec<_> = seen.iter().filter(|s| s.0 == caller).map(|s| s.1).collect();
            assert_eq!(its, (0..400).collect::<Vec<_>>(), "in its order");
        }
    });
}

#[test]
fn a_call_that_is_killed_from_outside_runs_again_once() {
    alone(config(), |mobula| {
        let folder = Folder::new();
        let file = |name: &str| folder.file(name);
        let counter = Counter::remote(0);
        let pid = mobula::get(counter.pid()).unwrap();
        let held = counter.holds(file("begun"), file("go"));
        until(|| Path::new(&file("begun")).exists());
        std::fs::remove_file(file("begun")).unwrap();
        kill(pid);
        until(|| Path::new(&file("begun")).exists());
        std::fs::write(file("go"), "").unwrap();
        assert_eq!(mobula::get(held).unwrap(), 1);
        // Killed twice under one call, it is the call's failure. The one before is not to run again, without its file.
        mobula::get(counter.checkpoint()).unwrap();
        std::fs::remove_file(file("go")).unwrap();
        std::fs::remove_file(file("begun")).unwrap();
        let held = counter.holds(file("begun"), file("go"));
        for _ in 0..2 {
            until(|| Path::new(&file("begun")).exists());
            std::fs::remove_file(file("begun")).unwrap();
            let own = mobula.workers().iter().find(|w| w.actor).unwrap().pid;
            kill(own);
            until(|| !is_there(own));
        }
        let e = mobula::get(held).unwrap_err();
        assert!(matches!(e, Error::WorkerDied(_)), "{e}");
        assert_eq!(mobula::get(counter.total()).unwrap(), 1);
    });
}

#[test]
fn a_call_that_ends_the_process_fails_and_leaves_nothing_behind() {
    alone(config(), |_| {
        let counter = Counter::remote(3);
        mobula::get(counter.add(1)).unwrap();
        let e = mobula::get(counter.aborts()).unwrap_err();
        assert!(matches!(e, Error::WorkerDied(_)), "{e}");
        assert_eq!(mobula::get(counter.total()).unwrap(), 4);
        // A panic is a failure like any other: what it had changed stays, here and in the log.
        mobula::get(counter.panics()).unwrap_err();
        assert_eq!(mobula::get(counter.total()).unwrap(), 1004);
        kill(mobula::get(counter.pid()).unwrap());
        assert_eq!(mobula::get(counter.total()).unwrap(), 1004);
    });
}

#[test]
fn a_call_whose_result_found_no_room_is_in_the_state_all_the_same() {
    alone(config(), |_| {
        let counter = Counter::remote(1);
        let e = mobula::get(counter.overflows()).unwrap_err();
        assert!(matches!(e, Error::StoreFull(_)), "{e}");
        assert_eq!(mobula::get(counter.total()).unwrap(), 6);
        kill(mobula::get(counter.pid()).unwrap());
        assert_eq!(mobula::get(counter.total()).unwrap(), 6);
    });
}

#[test]
fn a_state_without_an_archive_is_kept_by_its_log_alone() {
    alone(config(), |_| {
        let bare = Bare::remote();
        mobula::get(bare.add(3)).unwrap();
        let e = mobula::get(bare.checkpoint()).unwrap_err();
        assert!(e.to_string().contains("#[remote]"), "{e}");
        kill(mobula::get(bare.pid()).unwrap());
        assert_eq!(mobula::get(bare.add(1)).unwrap(), 4);
    });
}

#[test]
fn beyond_its_bound_a_log_is_given_up_and_that_is_said() {
    let told = Arc::new(Mutex::new(String::new()));
    let tell = Arc::clone(&told);
    let config =
        config().on_unobserved_failure(move |e| tell.lock().unwrap().push_str(&e.to_string()));
    alone(config, |_| {
        let bare = Bare::options().log_bytes(200).remote();
        for n in 1..=10 {
            assert_eq!(mobula::get(bare.add(1)).unwrap(), n);
        }
        assert!(told.lock().unwrap().contains("was given up"));
        kill(mobula::get(bare.pid()).unwrap());
        assert_eq!(mobula::get(bare.add(1)).unwrap(), 1);
    });
}

#[test]
fn what_is_kept_can_be_seen() {
    alone(config(), |_| {
        let counter = Counter::remote(0);
        let look = || history(&counter);
        for _ in 0..5 {
            mobula::get(counter.add(1)).unwrap();
        }
        mobula::get(counter.total()).unwrap();
        let seen = look();
        assert_eq!((seen.order, seen.logged, seen.saved), (5, 5, 0));
        assert!(seen.log_bytes > 0);
        mobula::get(counter.checkpoint()).unwrap();
        mobula::get(counter.add(1)).unwrap();
        let seen = look();
        assert_eq!((seen.order, seen.logged, seen.saved), (6, 1, 5));
        assert!(seen.state_bytes > 0);
    });
}

#[test]
fn objects_among_the_arguments_live_as_long_as_the_log_needs_them() {
    alone(config(), |mobula| {
        let counter = Counter::remote(0);
        let numbers: ObjectRef<Vec<u64>> = mobula::put(&vec![1; 100_000]).unwrap();
        assert_eq!(mobula::get(counter.sum(&numbers)).unwrap(), 100_000);
        drop(numbers);
        kill(mobula::get(counter.pid()).unwrap());
        assert_eq!(mobula::get(counter.add(1)).unwrap(), 100_001);
        assert!(mobula.store().used > 800_000);
        mobula::get(counter.checkpoint()).unwrap();
        until(|| mobula.store().used < 800_000);
    });
}

#[test]
fn a_restart_that_was_asked_for_begins_anew() {
    alone(config(), |_| {
        let counter = Counter::remote(7);
        mobula::get(counter.add(1)).unwrap();
        mobula::get(counter.checkpoint()).unwrap();
        counter.restart();
        assert_eq!(mobula::get(counter.total()).unwrap(), 7);
        mobula::get(counter.add(1)).unwrap();
        kill(mobula::get(counter.pid()).unwrap());
        assert_eq!(mobula::get(counter.total()).unwrap(), 8);
    });
}

#[test]
fn nonsense_is_refused_by_name() {
    alone(config(), |_| {
        let e = Counter::options()
            .checkpoint_every(0)
            .try_remote(1)
            .unwrap_err();
        assert!(e.to_string().contains("checkpoint_every"), "{e}");
        let e = Counter::options().log_bytes(0).try_remote(1).unwrap_err();
        assert!(e.to_string().contains("log_bytes"), "{e}");
        let plain = Counter::options().isolate(false).remote(1);
        let e = mobula::get(plain.checkpoint()).unwrap_err();
        assert!(e.to_string().contains("isolated"), "{e}");
    });
}
