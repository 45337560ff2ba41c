//! Actors keep their state when the process that has it dies.
//!
//! Invariant: every call that was answered is in the state once, in order. Left out: deaths of whole nodes.

mod common;

use std::time::{Duration, Instant};

use common::{alone, until};
use mobula::{Config, Error, ObjectRef, remote};
use rustix::process::{Pid, Signal, kill_process};

fn config() -> Config {
    Config::new().num_cpus(2.0).object_store_memory(1 << 28)
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process");
    kill_process(pid, Signal::KILL).expect("it is there");
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

    pub fn naps(&mut self, ms: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(ms));
        self.total += 1;
        self.total
    }
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
    alone(config(), |_| {
        let counter = Counter::remote(0);
        let pid = mobula::get(counter.pid()).unwrap();
        let nap = counter.naps(300);
        std::thread::sleep(Duration::from_millis(50));
        kill(pid);
        assert_eq!(mobula::get(nap).unwrap(), 1);
        let nap = counter.naps(300);
        let first = mobula::get(counter.total()); // behind the nap
        assert_eq!((mobula::get(nap).unwrap(), first.unwrap()), (2, 2));
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
