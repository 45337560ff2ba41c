//! Work that may die: `#[remote(isolate)]` runs it in a worker process of its own.
//!
//! A native library that aborts, a model that takes more memory than it should, an actor whose process somebody kills: the
//! program goes on, tries again where that helps, and where it does not, the error says what happened.
//!
//! ```sh
//! cargo run --release --example isolated
//! ```

use std::time::Duration;

use mobula::prelude::*;
use mobula::{Error, ObjectRef};

/// A library that crashes at times. Three more attempts are made unless `max_retries` says otherwise.
#[remote(isolate)]
fn flaky(seen: String, name: String) -> String {
    let attempt = std::fs::read(&seen).map_or(0, |bytes| bytes.len()) + 1;
    std::fs::write(&seen, vec![b'x'; attempt])
        .expect("the folder for temporary files takes a small file");
    println!("attempt {attempt} for {name}");
    if attempt < 3 {
        eprintln!("the library has found an inconsistency and gives up");
        std::process::abort();
    }
    format!("{name}, at attempt {attempt}")
}

/// Takes what it is told to, and may take 64 MiB.
#[remote(isolate, memory = "64M", max_retries = 1)]
fn hungry(mib: usize) -> usize {
    println!("about to take {mib} MiB");
    let taken = vec![1u8; mib << 20];
    std::hint::black_box(&taken).len() >> 20
}

/// An actor in a process of its own.
#[remote(isolate, max_restarts = 1)]
struct Counter {
    count: u64,
}

#[remote]
impl Counter {
    pub fn new() -> Self {
        println!("a counter begins, in process {}", std::process::id());
        Counter { count: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.count += n;
        self.count
    }

    pub fn process(&self) -> u32 {
        std::process::id()
    }
}

fn show<T: mobula::Value + std::fmt::Debug>(what: &str, call: &ObjectRef<T>) {
    match mobula::get(call) {
        Ok(value) => println!("{what}: {value:?}\n"),
        Err(e) => println!("{what} failed:\n  {e}\n"),
    }
}

fn main() -> mobula::Result<()> {
    let mobula = mobula::init()?;

    let seen = std::env::temp_dir().join(format!("mobula-isolated-{}", std::process::id()));
    let file = seen.display().to_string();
    show("A task that crashes twice", &flaky::remote(&file, "result"));
    let _ = std::fs::remove_file(&seen);

    let never = flaky::options().max_retries(1).remote(&file, "nothing");
    match mobula::get(&never) {
        Err(Error::WorkerDied(death)) => println!(
            "A task that crashes too often: {} after {} attempts; the last thing it said: {:?}\n",
            death.exit,
            death.attempts,
            death.log.last()
        ),
        other => println!("A task that should have crashed: {other:?}"),
    }
    let _ = std::fs::remove_file(&seen);

    show("A task within its memory", &hungry::remote(32usize));
    show("A task beyond its memory", &hungry::remote(256usize));

    let counter = Counter::options().name("hits").remote();
    show("An actor", &counter.add(5));
    for kill in 1..=2 {
        let process = mobula::get(counter.process())?;
        println!("killing process {process}, the actor's");
        let status = std::process::Command::new("kill")
            .args(["-KILL", &process.to_string()])
            .status();
        if !status.is_ok_and(|s| s.success()) {
            println!("there is no `kill` here: the actor lives on");
        }
        while mobula.workers().iter().any(|w| w.pid == process && w.actor) {
            std::thread::sleep(Duration::from_millis(1));
        }
        show(&format!("The actor after kill {kill}"), &counter.add(5));
    }
    Ok(())
}
