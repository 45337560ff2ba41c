//! Bounds of memory, and the monitor that acts when the machine runs out.
//!
//! Invariant: a bound ends what exceeds it, and nothing else. Left out: control groups, which few machines let a test
//! make; the unit tests of `exec::isolate::cgroup` have them.

mod common;
mod workers_common;

use common::{alone, until};
use mobula::{Error, Exit, WorkerDeath, remote};
use workers_common::{Folder, config, count, counted};

fn death<T>(result: mobula::Result<T>) -> WorkerDeath {
    match result {
        Err(Error::WorkerDied(death)) => (*death).clone(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it lived"),
    }
}

/// Takes so many MiB, and uses them.
#[remote(isolate)]
fn take(mib: usize, file: String) -> usize {
    count(&file);
    let taken = vec![1u8; mib << 20];
    std::hint::black_box(&taken).len() >> 20
}

#[test]
fn beyond_its_bound_a_call_dies_of_memory_and_is_tried_again() {
    alone(config(), |_| {
        let folder = Folder::new();
        let file = folder.file("tries");
        let bounded = || take::options().memory("64M");
        assert_eq!(mobula::get(bounded().remote(32, file.clone())).unwrap(), 32);
        assert_eq!(counted(&file), 1);
        let dead = death(mobula::get(
            bounded().max_retries(1).remote(200, file.clone()),
        ));
        assert_eq!((dead.attempts, counted(&file)), (2, 3));
        let why = dead.out_of_memory.clone().expect("out of memory");
        assert!(
            why.contains("64.0 MiB") && why.contains("memory = .."),
            "{why}"
        );
        let text = dead.to_string();
        assert!(text.contains("; out of memory: "), "{text}");
        let once = bounded().max_retries(0);
        assert!(death(mobula::get(once.remote(200, file.clone()))).attempts == 1);
        assert_eq!(counted(&file), 4);
    });
}

#[remote(isolate)]
fn leak(mib: usize) -> u32 {
    std::mem::forget(vec![1u8; mib << 20]);
    std::process::id()
}

#[test]
fn a_bound_ends_with_its_call_and_counts_only_what_the_call_takes() {
    alone(config(), |_| {
        let folder = Folder::new();
        let file = folder.file("tries");
        // One worker, used again and again: nobody else takes one meanwhile.
        for _ in 0..3 {
            let bounded = take::options().memory("48M").max_retries(0);
            assert_eq!(mobula::get(bounded.remote(32, file.clone())).unwrap(), 32);
            mobula::get(leak::remote(64)).unwrap();
        }
        let free = take::options().max_retries(0);
        assert_eq!(mobula::get(free.remote(300, file.clone())).unwrap(), 300);
    });
}

#[remote(isolate, memory = "24M")]
fn big_result(mib: usize) -> Vec<u8> {
    vec![7; mib << 20]
}

#[remote(isolate, memory = "16M")]
fn sum(values: &[u8]) -> u64 {
    // One of each few: tests are not optimized.
    values.iter().step_by(1 << 12).map(|v| u64::from(*v)).sum()
}

#[test]
fn what_lies_in_the_store_does_not_count() {
    alone(config(), |_| {
        let large = mobula::put_slice(&vec![1u8; 40 << 20]).unwrap();
        assert_eq!(mobula::get(sum::remote(&large)).unwrap(), 40 << 8);
        // 16 MiB of the worker's own, and as many of the store's.
        let result = big_result::remote(16);
        assert_eq!(mobula::view(&result).unwrap().len(), 16 << 20);
    });
}

#[remote(isolate, memory = "64M")]
struct Hoard {
    held: Vec<Vec<u8>>,
}

#[remote]
impl Hoard {
    pub fn new() -> Self {
        Hoard { held: Vec::new() }
    }

    pub fn take(&mut self, mib: usize) -> usize {
        self.held.push(vec![1; mib << 20]);
        self.held.len()
    }
}

#[test]
fn an_actor_is_bounded_while_it_lives() {
    alone(config(), |_| {
        let actor = Hoard::options().max_restarts(1).remote();
        assert_eq!(mobula::get(actor.take(20)).unwrap(), 1);
        assert_eq!(mobula::get(actor.take(20)).unwrap(), 2);
        let dead = death(mobula::get(actor.take(40)));
        assert!(dead.out_of_memory.unwrap().contains("64.0 MiB"));
        assert_eq!(
            mobula::get(actor.take(10)).unwrap(),
            3,
            "as before that call, bounded anew"
        );
        assert!(death(mobula::get(actor.take(40))).out_of_memory.is_some());
        let e = mobula::get(actor.take(1)).unwrap_err().to_string();
        assert!(e.contains("out of memory"), "{e}");
    });
}

/// As when the system runs out by itself: no bound is set.
#[remote(isolate, max_retries = 0)]
fn asks_for_everything() -> usize {
    let all: Vec<u8> = Vec::with_capacity(1 << 46);
    std::hint::black_box(&all).capacity()
}

#[test]
fn an_allocation_that_the_system_refuses_is_out_of_memory_too() {
    alone(config(), |_| {
        let dead = death(mobula::get(asks_for_everything::remote()));
        let why = dead.out_of_memory.expect("out of memory");
        assert!(why.contains("the system granted no more"), "{why}");
        assert_eq!(dead.exit, Exit::Signal(6));
    });
}

#[test]
fn a_bound_needs_a_process() {
    alone(config(), |_| {
        let here = take::options().isolate(false).memory("64M");
        let e = mobula::get(here.remote(1, "unused")).unwrap_err();
        assert!(e.to_string().contains("isolate(true)"), "{e}");
        let odd = take::options().memory("lots");
        let e = mobula::get(odd.remote(1, "unused")).unwrap_err();
        assert!(matches!(e, Error::BadBytes { .. }), "{e}");
    });
    let refused = config().memory_threshold(1.5).init().unwrap_err();
    assert!(
        refused.to_string().contains("memory_threshold"),
        "{refused}"
    );
}

#[remote(isolate)]
fn stays(file: String) {
    count(&file);
    loop {
        std::thread::park();
    }
}

#[remote]
struct Calm;

#[remote(isolate)]
impl Calm {
    pub fn new() -> Self {
        Calm
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// With a threshold of nothing every machine is too full.
#[test]
fn the_monitor_ends_calls_before_actors_and_says_why() {
    alone(config().memory_threshold(0.0), |_| {
        let folder = Folder::new();
        let for_good = Calm::remote();
        let calm = mobula::get(for_good.pid()).unwrap();
        let retried = folder.file("retried");
        let call = stays::options().max_retries(1).remote(retried.clone());
        let dead = death(mobula::get(&call));
        assert_eq!((dead.attempts, counted(&retried)), (2, 2));
        assert_eq!(dead.exit, Exit::Signal(9));
        let why = dead.out_of_memory.expect("out of memory");
        for part in [
            "threshold of 0 %",
            "Config::memory_threshold",
            "this worker held",
        ] {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(
            mobula::get(for_good.pid()).unwrap(),
            calm,
            "it may not restart"
        );
        drop(for_good);
        let anew = Calm::options().max_restarts(1).remote();
        let first = mobula::get(anew.pid()).unwrap();
        let mut now = first;
        until(|| {
            // A call that is under way when its process ends fails.
            now = mobula::get(anew.pid()).unwrap_or(first);
            now != first
        });
    });
}
