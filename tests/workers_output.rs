//! What workers print reaches the driver: whole lines, in order, behind what printed them.
//!
//! Invariant: no line is lost while somebody takes them, and nobody's memory grows while nobody does. Left out: what of it
//! is in errors (`workers_death`).

mod common;
mod workers_common;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{alone, until};
use mobula::{WorkerOutput, WorkerStream, remote};
use workers_common::{Printed, config};

#[remote(isolate)]
fn says(n: u64) {
    for i in 0..n {
        println!("line {i}");
        eprintln!("error {i}");
    }
}

#[remote]
struct Speaker;

#[remote(isolate)]
impl Speaker {
    pub fn new() -> Self {
        Speaker
    }

    pub fn say(&self, what: String) -> u32 {
        print!("{what}");
        std::process::id()
    }
}

#[test]
fn lines_come_whole_and_in_order_with_their_origin() {
    let printed = Printed::default();
    alone(config().worker_output(printed.output()), |_| {
        mobula::get(says::remote(500)).unwrap();
        until(|| printed.lines().len() == 1000);
        for (stream, word) in [
            (WorkerStream::Stdout, "line"),
            (WorkerStream::Stderr, "error"),
        ] {
            let all = printed.lines().into_iter().filter(|l| l.stream == stream);
            for (i, line) in all.enumerate() {
                assert_eq!(line.text, format!("{word} {i}"));
                assert_eq!(&*line.name, "says");
            }
        }
        let actor = Speaker::options().name("anna").remote();
        let pid = mobula::get(actor.say("half")).unwrap();
        mobula::get(actor.say(" and whole\n")).unwrap();
        until(|| printed.lines().len() == 1001);
        let last = printed.lines().pop().unwrap();
        assert_eq!((&*last.name, last.pid), ("Speaker \"anna\"", pid));
        assert_eq!(last.text, "half and whole");
        mobula::get(actor.say(format!("{}\n", "x".repeat(100_000)))).unwrap();
        until(|| printed.lines().len() == 1002);
        let long = printed.lines().pop().unwrap().text;
        assert!(long.len() < 10_000, "{}", long.len());
        assert!(long.ends_with(" more bytes)"), "{}", &long[8000..]);
    });
}

#[test]
fn the_end_of_the_node_shows_what_was_printed_before() {
    let printed = Printed::default();
    alone(config().worker_output(printed.output()), |_| {
        let actor = Speaker::remote();
        mobula::get(actor.say("last words")).unwrap();
    });
    assert_eq!(printed.texts(), ["last words"]);
}

#[remote(isolate)]
fn floods(mib: usize) -> usize {
    use std::io::Write;
    let line = format!("{}\n", "flood ".repeat(170));
    let lines = (mib << 20) / line.len();
    let mut out = std::io::stdout().lock();
    for _ in 0..lines {
        out.write_all(line.as_bytes()).unwrap();
    }
    lines
}

fn own_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let field = |n| statm.split(' ').nth(n).unwrap().parse::<u64>().unwrap();
    (field(1) - field(2)) * 4096
}

#[test]
fn a_flood_passes_without_filling_memory() {
    let lines = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&lines);
    let output = WorkerOutput::sink(move |line| {
        assert!(line.text.starts_with("flood"));
        counts.fetch_add(1, Ordering::Relaxed);
    });
    alone(config().worker_output(output), |_| {
        mobula::get(floods::remote(1)).unwrap();
        let (before, counted) = (own_memory(), lines.load(Ordering::Relaxed));
        let mut most = 0;
        let call = [floods::remote(100)];
        while mobula::wait(&call)
            .timeout(Duration::from_millis(20))
            .run()
            .unwrap()
            .0
            .is_empty()
        {
            most = most.max(own_memory());
        }
        let printed = mobula::get(&call[0]).unwrap() as u64;
        until(|| lines.load(Ordering::Relaxed) >= counted + printed);
        let grown = most.max(own_memory()).saturating_sub(before);
        assert!(grown < 32 << 20, "{} MiB", grown >> 20);
    });
}

#[remote(isolate, max_retries = 0)]
fn floods_and_dies(mib: usize) {
    floods(mib);
    std::process::abort();
}

#[test]
fn a_sink_that_stands_still_holds_up_those_who_print_and_nobody_else() {
    let open = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
    let gate = Arc::clone(&open);
    let output = WorkerOutput::sink(move |_| {
        let open = gate.0.lock().unwrap();
        drop(gate.1.wait_while(open, |open| !*open).unwrap());
    });
    let release = || {
        *open.0.lock().unwrap() = true;
        open.1.notify_all();
    };
    alone(config().worker_output(output), |_| {
        let call = [floods::remote(20)];
        let before = own_memory();
        // Others work on, and a worker that dies is still reported, with its last words.
        let actor = Speaker::remote();
        for _ in 0..20 {
            mobula::get(actor.say(String::new())).unwrap();
        }
        let pid = mobula::get(actor.say("before the end\n")).unwrap();
        workers_common::signal(pid, "KILL");
        until(|| !workers_common::is_there(pid));
        let e = mobula::get(actor.say(String::new())).unwrap_err();
        assert!(e.to_string().contains("before the end"), "{e}");
        let (ready, _) = mobula::wait(&call)
            .timeout(Duration::from_millis(200))
            .run()
            .unwrap();
        assert!(ready.is_empty(), "it waits for room");
        assert!(own_memory().saturating_sub(before) < 16 << 20);
        release();
        mobula::get(&call[0]).unwrap();
        assert!(mobula::get(floods_and_dies::remote(1)).is_err());
    });
}

/// Set for the process that plays a driver at a terminal.
const ROLE: &str = "MOBULA_TEST_PRINTS";

#[test]
fn plays_a_driver_whose_workers_print() {
    if std::env::var(ROLE).is_err() {
        return; // only the next test starts it
    }
    let _mobula = mobula::Config::new().num_cpus(1.0).init().unwrap();
    mobula::get(says::remote(2)).unwrap();
    let actor = Speaker::options().name("anna").remote();
    mobula::get(actor.say("colour-free\n")).unwrap();
}

#[test]
fn the_terminal_shows_who_printed() {
    let driver = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_a_driver_whose_workers_print"])
        .env(ROLE, "1")
        .output()
        .unwrap();
    assert!(driver.status.success());
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        // The number of the process is not known here.
        let shown = text.lines().filter(|l| l.contains(" pid="));
        shown
            .map(|l| {
                let (before, rest) = l.split_once(" pid=").unwrap();
                let (pid, after) = rest.split_once(')').unwrap();
                assert!(pid.parse::<u32>().is_ok(), "{l}");
                format!("{before}){after}")
            })
            .collect()
    };
    // Two workers print through two pipes: each keeps its order, and either may be read first.
    let (of_actor, of_task): (Vec<_>, Vec<_>) = lines(&driver.stdout)
        .into_iter()
        .partition(|line| line.starts_with("(Speaker"));
    assert_eq!(of_task, ["(says) line 0", "(says) line 1"]);
    assert_eq!(of_actor, ["(Speaker \"anna\") colour-free"]);
    assert_eq!(lines(&driver.stderr), ["(says) error 0", "(says) error 1"]);
}
