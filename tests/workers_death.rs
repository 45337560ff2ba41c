//! How workers die, what the error says, and how often a call is tried.
//!
//! Invariant: every end of a process that a program can bring about has an error with its cause. Left out: memory
//! (`workers_memory`), and drivers that die (`workers_orphans`).

mod common;
mod workers_common;

use std::time::Instant;

use common::{LIMIT, alone, until};
use mobula::{Error, Exit, WorkerDeath, remote};
use workers_common::{Folder, config, count, counted, is_there, signal};

fn death<T>(result: mobula::Result<T>) -> WorkerDeath {
    match result {
        Err(Error::WorkerDied(death)) => (*death).clone(),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it lived"),
    }
}

#[remote(isolate, max_retries = 0)]
fn dies(how: String) {
    println!("dying by {how}");
    match how.as_str() {
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "overflow" => {
            fn deeper(n: u64) -> u64 {
                let here = std::hint::black_box([n; 64]);
                if n == 0 { 0 } else { deeper(n - 1) + here[7] }
            }
            std::hint::black_box(deeper(u64::MAX));
        }
        // Of its own, as a fault of memory would.
        signal => workers_common::signal(std::process::id(), signal),
    }
    loop {
        std::thread::park();
    }
}

#[test]
fn each_way_to_die_is_told_from_the_others() {
    alone(config(), |_| {
        for (how, exit) in [
            ("abort", Exit::Signal(6)),
            ("exit", Exit::Code(3)),
            ("SEGV", Exit::Signal(11)),
            ("BUS", Exit::Signal(7)),
            ("TERM", Exit::Signal(15)),
            ("overflow", Exit::Signal(11)),
        ] {
            let death = death(mobula::get(dies::remote(how.to_owned())));
            assert_eq!(death.exit, exit, "{how}");
            assert_eq!(death.function, "workers_death::dies");
            assert_eq!(death.out_of_memory, None, "{how}");
            assert_eq!(death.attempts, 1);
            assert_eq!(death.log[0], format!("dying by {how}"));
            assert!(!is_there(death.pid));
        }
    });
}

#[remote(isolate, max_retries = 0)]
fn tells_and_stays(file: String) {
    std::fs::write(file, std::process::id().to_string()).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_kill_from_outside_is_a_bare_signal_and_a_cancelled_call_is_no_death() {
    alone(config(), |_| {
        let folder = Folder::new();
        for cancelled in [false, true] {
            let name = format!("pid{cancelled}");
            let call = tells_and_stays::remote(folder.file(&name));
            until(|| !folder.read(&name).is_empty());
            let pid: u32 = folder.read(&name).parse().unwrap();
            if cancelled {
                mobula::cancel(&call).unwrap();
                let e = mobula::get(&call).unwrap_err();
                assert!(matches!(e, Error::Cancelled { .. }), "{e}");
            } else {
                signal(pid, "KILL");
                let death = death(mobula::get(&call));
                assert_eq!((death.pid, death.exit), (pid, Exit::Signal(9)));
                assert_eq!(death.out_of_memory, None);
                let text = death.to_string();
                assert!(text.contains("SIGKILL"), "{text}");
                assert!(text.ends_with("it printed nothing"), "{text}");
            }
            until(|| !is_there(pid));
        }
    });
}

#[remote(isolate)]
fn dies_until(file: String, succeeds_at: u64) -> u64 {
    let before = count(&file);
    if before < succeeds_at {
        std::process::abort();
    }
    before
}

#[test]
fn attempts_are_counted_exactly() {
    alone(config(), |_| {
        let folder = Folder::new();
        let never = u64::MAX;
        // The default is three more.
        let file = folder.file("default");
        let attempts = death(mobula::get(dies_until::remote(file.clone(), never))).attempts;
        assert_eq!((attempts, counted(&file)), (4, 4));
        let file = folder.file("none");
        let once = dies_until::options().max_retries(0);
        let attempts = death(mobula::get(once.remote(file.clone(), never))).attempts;
        assert_eq!((attempts, counted(&file)), (1, 1));
        let file = folder.file("last");
        assert_eq!(mobula::get(dies_until::remote(file.clone(), 3)).unwrap(), 3);
        assert_eq!(counted(&file), 4);
        let file = folder.file("six");
        let six = dies_until::options().max_retries(6);
        assert_eq!(mobula::get(six.remote(file.clone(), 5)).unwrap(), 5);
        assert_eq!(counted(&file), 6);
    });
}

#[remote(isolate, max_retries = 0)]
fn prints_and_dies(lines: u32) {
    for n in 0..lines {
        if n % 2 == 0 {
            println!("out {n}");
        } else {
            eprintln!("err {n}");
        }
    }
    eprint!("and half a li");
    std::process::abort();
}

#[test]
fn the_last_lines_are_in_the_error() {
    alone(config(), |_| {
        let dead = death(mobula::get(prints_and_dies::remote(4)));
        let of = |kind: &str| -> Vec<&str> {
            let of = dead.log.iter().map(String::as_str);
            of.filter(|l| l.starts_with(kind)).collect()
        };
        // Two streams: each in its own order.
        assert_eq!(of("out"), ["out 0", "out 2"]);
        assert_eq!(of("err"), ["err 1", "err 3"]);
        assert!(dead.log.contains(&"and half a li".to_owned()));
        let text = Error::WorkerDied(std::sync::Arc::new(dead.clone())).to_string();
        for part in ["prints_and_dies", "SIGABRT", "its last lines:\n    "] {
            assert!(text.contains(part), "{text}");
        }
        let many = death(mobula::get(prints_and_dies::remote(5000)));
        assert_eq!(many.log.len(), 20);
        assert!(many.log.contains(&"and half a li".to_owned()), "{many:?}");
    });
}

#[remote(isolate, max_retries = 0)]
fn leaves_a_child(file: String) {
    let child = std::process::Command::new("sleep")
        .arg("3600")
        .spawn()
        .unwrap();
    std::fs::write(file, child.id().to_string()).unwrap();
    std::process::abort();
}

#[test]
fn what_a_worker_started_goes_with_it() {
    alone(config(), |_| {
        let folder = Folder::new();
        let began = Instant::now();
        // The child has the worker's output open: the report does not wait for its end.
        death(mobula::get(leaves_a_child::remote(folder.file("pid"))));
        assert!(began.elapsed() < LIMIT);
        let pid: u32 = folder.read("pid").parse().unwrap();
        until(|| !is_there(pid));
    });
}

#[remote]
struct Fragile {
    calls: u64,
}

#[remote(isolate)]
impl Fragile {
    pub fn new() -> Self {
        println!("made");
        Fragile { calls: 0 }
    }

    pub fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn crash(&mut self) {
        eprintln!("crashing after {} calls", self.calls);
        std::process::abort();
    }
}

#[test]
fn an_actor_restarts_as_often_as_it_may_and_its_end_says_why() {
    alone(config(), |mobula| {
        let actor = Fragile::options().max_restarts(1).name("glass").remote();
        assert_eq!(mobula::get(actor.call()).unwrap(), 1);
        assert_eq!(mobula::get(actor.call()).unwrap(), 2);
        let first = death(mobula::get(actor.crash()));
        assert_eq!(first.function, "workers_death::Fragile::crash");
        assert_eq!(first.log, ["made", "crashing after 2 calls"]);
        assert_eq!(mobula::get(actor.call()).unwrap(), 3, "with its state");
        let told = mobula.workers();
        let own = told.iter().find(|w| w.actor).unwrap();
        assert_eq!(own.runs.as_deref(), Some("Fragile \"glass\""));
        assert_eq!(own.restarts, 1);
        assert_eq!(Some(own.pid), mobula::get(actor.pid()).ok());
        death(mobula::get(actor.crash()));
        let e = mobula::get(actor.call()).unwrap_err();
        let Error::ActorDied {
            cause, restarts, ..
        } = &e
        else {
            panic!("{e}")
        };
        assert_eq!(*restarts, 1);
        for part in ["SIGABRT", "crashing after 3 calls", "all 1 of its restarts"] {
            assert!(cause.contains(part), "{cause}");
        }
    });
}

#[test]
fn an_actor_that_may_not_restart_dies_with_its_process() {
    alone(config(), |mobula| {
        let actor = Fragile::remote();
        let pid = mobula::get(actor.pid()).unwrap();
        signal(pid, "KILL");
        // A call sent before the node has heard of it would be the one that its death interrupts.
        until(|| mobula.workers().iter().all(|w| w.pid != pid));
        let e = mobula::get(actor.call()).unwrap_err();
        let text = e.to_string();
        for part in [&pid.to_string(), "SIGKILL", "made", "died after 0 restarts"] {
            assert!(text.contains(part), "{text}");
        }
    });
}

#[remote(isolate)]
fn waits_for(file: String) -> u32 {
    until(|| std::fs::read(&file).is_ok());
    std::process::id()
}

#[test]
fn workers_are_listed_with_what_they_run() {
    alone(config(), |mobula| {
        let folder = Folder::new();
        let call = waits_for::options()
            .memory("512M")
            .remote(folder.file("go"));
        let running = || {
            let all = mobula.workers();
            all.into_iter()
                .find(|w| w.runs.as_deref() == Some("waits_for"))
        };
        until(|| running().is_some());
        let told = running().unwrap();
        assert!(!told.actor && told.restarts == 0);
        assert_eq!(told.memory_bound, Some(512 << 20));
        assert!(told.memory.unwrap() > 0);
        assert!(told.running_for.unwrap() < LIMIT);
        std::fs::write(folder.file("go"), "").unwrap();
        assert_eq!(mobula::get(&call).unwrap(), told.pid);
        until(|| running().is_none());
        let idle = mobula.workers();
        let same = idle.iter().find(|w| w.pid == told.pid).unwrap();
        assert_eq!((&same.runs, same.memory_bound), (&None, None));
    });
}
