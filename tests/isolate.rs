//! Calls in worker processes: they give what they give in threads, and their end is only theirs.
//!
//! Invariant: no test leaves a process behind. Left out: actors (`isolate_actors`), what workers print, and memory limits.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{alone, until};
use mobula::{Config, Error, Exit, FailureKind, ObjectRef, remote};

fn config() -> Config {
    Config::new().num_cpus(2.0).object_store_memory(1 << 28)
}

fn is_there(pid: u32) -> bool {
    // A zombie is no process any more, only its epitaph.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

#[remote(isolate)]
fn pid() -> u32 {
    std::process::id()
}

#[remote(isolate)]
fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[mobula::value]
#[derive(Clone, Debug, PartialEq)]
struct Record {
    name: String,
    tags: Vec<String>,
    at: (f64, i8, bool),
    by_key: BTreeMap<String, Option<Vec<u16>>>,
}

fn a_record() -> Record {
    Record {
        name: "r".repeat(40),
        tags: vec!["short".into(), "a tag that is not short at all".into()],
        at: (0.5, -3, true),
        by_key: [
            ("a".to_owned(), None),
            ("b".to_owned(), Some(vec![1, 2, 3])),
        ]
        .into(),
    }
}

/// One body, run in threads and in processes.
macro_rules! both {
    ($($(#[$m:meta])* fn $thread:ident / $process:ident($($a:ident: $t:ty),*) -> $r:ty $body:block)*) => { $(
        #[remote]
        fn $thread($($a: $t),*) -> $r $body
        #[remote(isolate)]
        fn $process($($a: $t),*) -> $r $body
    )* };
}

both! {
    fn shout / shout_there(text: &str, times: u8) -> String { text.to_uppercase().repeat(times.into()) }
    fn turn / turn_there(r: Record) -> Record {
        Record { name: r.name.chars().rev().collect(), tags: r.tags.into_iter().rev().collect(), ..r }
    }
    fn norm / norm_there(values: &[f32], also: Vec<u8>) -> f32 {
        values.iter().map(|v| v * v).sum::<f32>() + also.len() as f32
    }
    fn many / many_there(values: Vec<u64>, of: Option<String>) -> (usize, u64, Option<String>) {
        (values.len(), values.iter().sum(), of)
    }
    fn nothing / nothing_there() -> () {}
    fn large_text / large_text_there(n: u64) -> String { "0123456789abcdef".repeat(n as usize / 16) }
    fn large / large_there(n: u64) -> Vec<f32> { (0..n).map(|i| i as f32).collect() }
    fn strings / strings_there(n: u64) -> Vec<String> { (0..n).map(|i| format!("string number {i}")).collect() }
    fn fails / fails_there(n: u64) -> Result<u64, std::num::ParseIntError> { n.to_string()[..0].parse() }
    fn panics / panics_there(n: u64) -> u64 { panic!("no {n}") }
}

#[test]
fn an_isolated_task_gives_what_a_thread_gives() {
    alone(config(), |_| {
        assert_ne!(mobula::get(&pid::remote()).unwrap(), std::process::id());
        assert_eq!(
            mobula::get(&shout::remote("äbc", 3)).unwrap(),
            mobula::get(&shout_there::remote("äbc", 3)).unwrap()
        );
        assert_eq!(
            mobula::get(&turn::remote(a_record())).unwrap(),
            mobula::get(&turn_there::remote(a_record())).unwrap()
        );
        // Small and large objects, results of other calls, and many references as one argument.
        for len in [0usize, 10, 100, 1000, 100_000, 1 << 20] {
            let values = mobula::put(&vec![0.5f32; len]).unwrap();
            let bytes = vec![7u8; len.min(600)];
            assert_eq!(
                mobula::get(&norm::remote(&values, bytes.clone())).unwrap(),
                mobula::get(&norm_there::remote(&values, bytes)).unwrap(),
                "{len}"
            );
        }
        let parts: Vec<ObjectRef<u64>> = (0..50).map(|i| add::remote(i, 1)).collect();
        let of = Some("x".repeat(700));
        assert_eq!(
            mobula::get(&many::remote(&parts, of.clone())).unwrap(),
            mobula::get(&many_there::remote(&parts, of)).unwrap()
        );
        mobula::get(&nothing::remote()).unwrap();
        mobula::get(&nothing_there::remote()).unwrap();
        for n in [16, 512, 1024, 60_000, 70_000, 200_000, 300_000, 3_000_000] {
            assert_eq!(
                mobula::get(&large_text::remote(n)).unwrap(),
                mobula::get(&large_text_there::remote(n)).unwrap()
            );
            assert_eq!(
                mobula::get(&large::remote(n)).unwrap(),
                mobula::get(&large_there::remote(n)).unwrap()
            );
        }
        for n in [0, 3, 50, 3000, 40_000] {
            assert_eq!(
                mobula::get(&strings::remote(n)).unwrap(),
                mobula::get(&strings_there::remote(n)).unwrap()
            );
        }
        // A result of one worker is another's argument.
        let made = large_there::remote(5000);
        let there = norm_there::remote(&made, vec![0u8; 0]);
        assert_eq!(
            mobula::get(&there).unwrap(),
            mobula::get(&norm::remote(&made, vec![0u8; 0])).unwrap()
        );
    });
}

#[test]
fn failures_read_as_in_threads() {
    alone(config(), |_| {
        let error = |r: ObjectRef<u64>| mobula::get(&r).unwrap_err();
        let (here, there) = (error(fails::remote(1)), error(fails_there::remote(1)));
        let (here, there) = (here.failure().unwrap(), there.failure().unwrap());
        assert_eq!(there.message, here.message);
        assert_eq!(there.type_name, here.type_name);
        assert_eq!(there.kind, FailureKind::Returned);
        assert_eq!(there.function, "isolate::fails_there");
        assert!(
            there.location.contains("tests/isolate.rs:"),
            "{}",
            there.location
        );
        let (here, there) = (error(panics::remote(7)), error(panics_there::remote(7)));
        let (here, there) = (here.failure().unwrap(), there.failure().unwrap());
        assert_eq!(
            (&*there.message, there.kind),
            ("no 7", FailureKind::Panicked)
        );
        assert_eq!(there.type_name, here.type_name);
        assert!(
            there.location.contains("tests/isolate.rs:"),
            "{}",
            there.location
        );
        let stack = there.backtrace.as_ref().unwrap().to_string();
        assert!(stack.contains("panics_there"), "{stack}");
        // The worker lives on.
        let before = mobula::get(&pid::remote()).unwrap();
        error(panics_there::remote(1));
        assert_eq!(mobula::get(&pid::remote()).unwrap(), before);
        // A failed argument names what failed first.
        let dependent = add::remote(fails_there::remote(3), 1);
        let error = mobula::get(&dependent).unwrap_err();
        assert!(matches!(error, Error::DependencyFailed { .. }), "{error}");
    });
}

/// Where the first value lies in this process: in which mapping, with which rights.
#[remote(isolate)]
fn letters(n: usize) -> String {
    "x".repeat(n)
}

#[remote(isolate)]
fn letters_of(a: &str, b: &str, c: &str) -> usize {
    a.len() + b.len() + c.len()
}

#[test]
fn results_of_middling_size_are_in_the_store_and_arguments_together() {
    alone(config(), |mobula| {
        let parts: Vec<_> = (0..3).map(|_| letters::remote(60_000)).collect();
        let sum = letters_of::remote(&parts[0], &parts[1], &parts[2]);
        assert_eq!(mobula::get(&sum).unwrap(), 180_000);
        assert!(mobula.store().used >= 180_000);
    });
}

#[remote(isolate)]
fn mapping_of(values: &[f64]) -> String {
    let address = values.as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of = |line: &&str| {
        let (begin, end) = line.split(' ').next()?.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        (hex(begin)?..hex(end)?).contains(&address).then_some(())
    };
    maps.lines()
        .find(|l| of(l).is_some())
        .unwrap_or("none")
        .to_owned()
}

#[test]
fn a_large_argument_is_read_where_it_is_and_cannot_be_written() {
    alone(config(), |_| {
        let values = mobula::put(&vec![1.5f64; 1 << 16]).unwrap();
        let line = mobula::get(&mapping_of::remote(&values)).unwrap();
        assert!(
            line.contains("memfd:mobula-arena") && line.contains(" r--s "),
            "{line}"
        );
    });
}

#[mobula::value]
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Abort,
    Fault,
    Exit,
    Kill,
}

fn end(how: End) -> ! {
    match how {
        End::Abort => std::process::abort(),
        End::Fault => unsafe {
            std::ptr::without_provenance_mut::<u8>(16).write_volatile(1);
            unreachable!()
        },
        End::Exit => std::process::exit(3),
        End::Kill => unsafe {
            libc_kill(std::process::id().cast_signed(), 9);
            loop {
                std::thread::park();
            }
        },
    }
}

unsafe extern "C" {
    #[link_name = "kill"]
    fn libc_kill(pid: i32, signal: i32) -> i32;
}

/// Ends the process unless a file says that it did so often enough.
#[remote(isolate, max_retries = 2)]
fn ends(how: End, until: u32, counter: String) -> u32 {
    let before = std::fs::read_to_string(&counter).map_or(0, |t| t.len() as u32);
    std::fs::write(&counter, "x".repeat(before as usize + 1)).unwrap();
    if before < until {
        end(how);
    }
    before
}

fn counter(name: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("isolate-{name}"));
    let _ = std::fs::remove_file(&path);
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_crash_is_retried_and_then_an_error_that_says_how_it_ended() {
    alone(config(), |_| {
        let cases = [
            (End::Abort, Exit::Signal(6)),
            (End::Fault, Exit::Signal(11)),
            (End::Exit, Exit::Code(3)),
            (End::Kill, Exit::Signal(9)),
        ];
        for (how, exit) in cases {
            let file = counter("retried");
            assert_eq!(
                mobula::get(&ends::remote(how, 2, file)).unwrap(),
                2,
                "{how:?}"
            );
            let file = counter("given-up");
            let error = mobula::get(&ends::remote(how, u32::MAX, file.clone())).unwrap_err();
            let Error::WorkerDied(death) = &error else {
                panic!("{error}");
            };
            assert_eq!((death.exit, death.attempts), (exit, 3), "{error}");
            assert_eq!(death.function, "isolate::ends");
            assert_eq!(std::fs::read_to_string(file).unwrap().len(), 3);
            // Nobody else was hurt.
            assert_eq!(mobula::get(&add::remote(2, 3)).unwrap(), 5);
        }
        let never = ends::options()
            .max_retries(0)
            .remote(End::Abort, u32::MAX, counter("never"));
        let Err(Error::WorkerDied(death)) = mobula::get(&never) else {
            panic!("it cannot have ended otherwise");
        };
        assert_eq!(death.attempts, 1);
    });
}

#[remote(isolate, retry_panics, max_retries = 3)]
fn panics_at_first(counter: String) -> usize {
    let before = std::fs::read_to_string(&counter).map_or(0, |t| t.len());
    std::fs::write(&counter, "x".repeat(before + 1)).unwrap();
    assert!(before >= 2, "not yet");
    before
}

#[test]
fn panics_are_retried_when_asked_for() {
    alone(config(), |_| {
        let r = panics_at_first::remote(counter("panics"));
        assert_eq!(mobula::get(&r).unwrap(), 2);
    });
}

/// Says which process it is, then runs until it is ended.
#[remote(isolate, num_cpus = 0)]
fn forever(tell: String) -> u64 {
    std::fs::write(format!("{tell}.new"), std::process::id().to_string()).unwrap();
    std::fs::rename(format!("{tell}.new"), tell).unwrap();
    loop {
        std::thread::park();
    }
}

/// The process that runs `forever`, once it does.
fn told(file: &str) -> u32 {
    let mut pid = 0;
    until(|| {
        pid = std::fs::read_to_string(file)
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(0);
        pid != 0
    });
    pid
}

#[test]
fn cancelling_a_running_call_ends_its_process() {
    alone(config(), |_| {
        let file = counter("cancelled");
        let r = forever::remote(file.clone());
        let pid = told(&file);
        assert_eq!(mobula::cancel(&r).unwrap(), mobula::Cancel::Requested);
        let error = mobula::get(&r).unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        until(|| !is_there(pid));
        assert_eq!(mobula::get(&add::remote(2, 3)).unwrap(), 5);
    });
}

#[test]
fn a_process_killed_from_outside_is_a_crash() {
    alone(config(), |_| {
        let file = counter("killed");
        let r = forever::options().max_retries(0).remote(file.clone());
        let pid = told(&file);
        // SAFETY: a signal to a process that this test started.
        unsafe { libc_kill(pid.cast_signed(), 9) };
        let error = mobula::get(&r).unwrap_err();
        assert!(error.to_string().contains("SIGKILL"), "{error}");
    });
}

#[test]
fn a_thousand_calls_use_few_processes() {
    alone(config(), |_| {
        let refs: Vec<_> = (0..1000).map(|_| pid::remote()).collect();
        let pids: HashSet<u32> = mobula::get(&refs).unwrap().into_iter().collect();
        assert!(pids.len() <= 4, "{pids:?}");
        assert!(!pids.contains(&std::process::id()));
    });
}

#[test]
fn calls_that_hold_no_cpu_do_not_hold_up_others() {
    alone(config(), |_| {
        let files: Vec<String> = (0..6).map(|i| counter(&format!("holds-{i}"))).collect();
        let held: Vec<_> = files.iter().map(|f| forever::remote(f.clone())).collect();
        let pids: HashSet<u32> = files.iter().map(|f| told(f)).collect();
        assert_eq!(pids.len(), 6);
        assert_eq!(mobula::get(&add::remote(2, 3)).unwrap(), 5);
        assert_eq!(mobula::get(&shout::remote("a", 2)).unwrap(), "AA");
        for r in &held {
            mobula::cancel(r).unwrap();
        }
        assert!(
            held.iter()
                .all(|r| mobula::get(r).unwrap_err().is_cancelled())
        );
    });
}

#[remote(isolate)]
async fn slowly(n: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(1)).await;
    n + u64::from(std::process::id())
}

#[test]
fn an_async_function_runs_there_too() {
    alone(config(), |_| {
        let here = u64::from(std::process::id());
        let refs: Vec<_> = (0..4).map(slowly::remote).collect();
        for (n, got) in (0..).zip(mobula::get(&refs).unwrap()) {
            assert_ne!(got, here + n);
        }
    });
}

#[remote(isolate)]
fn surroundings() -> (bool, usize, Option<String>) {
    let input = std::io::read_to_string(std::io::stdin()).unwrap();
    let child = std::process::Command::new("sh")
        .args(["-c", "echo $MOBULA_WORKER"])
        .output()
        .unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    let gpus = mobula::gpu_ids().len();
    (
        input.is_empty(),
        gpus,
        Some(said.trim().to_owned()).filter(|s| !s.is_empty()),
    )
}

#[test]
fn a_worker_has_no_input_and_its_children_are_no_workers() {
    alone(config(), |_| {
        assert_eq!(
            mobula::get(&surroundings::remote()).unwrap(),
            (true, 0, None)
        );
    });
}

#[test]
fn the_end_of_the_runtime_leaves_no_process() {
    let mut pids = Vec::new();
    let began = Instant::now();
    alone(
        config().shutdown_timeout(Duration::from_millis(100)),
        |_| {
            let file = counter("left");
            let _running = forever::remote(file.clone());
            pids.push(told(&file));
            let refs: Vec<_> = (0..50).map(|_| pid::remote()).collect();
            pids.extend(mobula::get(&refs).unwrap());
        },
    );
    assert!(pids.iter().all(|p| !is_there(*p)), "{pids:?}");
    assert!(began.elapsed() < common::LIMIT);
}

/// Set for the process that plays a driver.
const ROLE: &str = "MOBULA_TEST_DRIVER";

#[test]
fn plays_a_driver_that_is_killed() {
    let Ok(file) = std::env::var(ROLE) else {
        return; // only the next test starts it
    };
    let _mobula = config().init().unwrap();
    let pids: HashSet<u32> = mobula::get(&(0..50).map(|_| pid::remote()).collect::<Vec<_>>())
        .unwrap()
        .into_iter()
        .collect();
    let _held = forever::remote(format!("{file}.held"));
    let held = told(&format!("{file}.held"));
    let all: Vec<String> = pids
        .iter()
        .chain([&held])
        .map(ToString::to_string)
        .collect();
    std::fs::write(format!("{file}.new"), all.join(" ")).unwrap();
    std::fs::rename(format!("{file}.new"), &file).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_driver_that_is_killed_leaves_no_process() {
    let file = counter("driver");
    counter("driver.held"); // a run before may have left it
    let mut driver = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_a_driver_that_is_killed"])
        .env(ROLE, &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut pids = String::new();
    until(|| {
        pids = std::fs::read_to_string(&file).unwrap_or_default();
        !pids.is_empty()
    });
    let pids: Vec<u32> = pids.split(' ').map(|p| p.parse().unwrap()).collect();
    // Those that are idle may have ended for that; the last has a call.
    let held = pids.last().is_some_and(|p| is_there(*p));
    driver.kill().unwrap();
    driver.wait().unwrap();
    assert!(pids.len() >= 2 && held, "{pids:?}");
    until(|| pids.iter().all(|p| !is_there(*p)));
}

/// Tries what a worker cannot do for its call; what it is told.
#[remote(isolate)]
fn tries_the_runtime() -> Vec<String> {
    let said = |r: mobula::Result<u64>| r.map_or_else(|e| e.to_string(), |v| format!("got {v}"));
    let put = mobula::put(&7u64).and_then(|r| mobula::get(&r));
    let large = mobula::put(&vec![1u8; 1 << 20]).and_then(|r| Ok(mobula::get(&r)?.len() as u64));
    vec![
        said(mobula::get(&add::remote(1, 2))),
        said(mobula::get(&shout::remote("a", 1)).map(|_| 0)),
        said(config().init().map(|_| 0)),
        said(put),
        said(large),
    ]
}

#[remote(isolate)]
fn gives_a_reference() -> ObjectRef<u64> {
    mobula::put(&7u64).unwrap()
}

#[remote(isolate)]
fn takes_references(refs: Vec<ObjectRef<u64>>, _more: u64) -> usize {
    refs.len()
}

#[test]
fn what_a_worker_cannot_do_is_an_error_that_says_so() {
    alone(config(), |_| {
        let said = mobula::get(&tries_the_runtime::remote()).unwrap();
        let not = "not available inside an isolated call";
        assert!(said[0].contains(not) && said[1].contains(not), "{said:#?}");
        assert!(said[2].contains("worker process"), "{said:#?}");
        assert_eq!(
            said[3..],
            ["got 7", "got 1048576"],
            "objects of its own it may have"
        );
        let error = mobula::get(&gives_a_reference::remote()).unwrap_err();
        assert!(
            error.to_string().contains("references cannot leave"),
            "{error}"
        );
        let refs = vec![mobula::put(&1u64).unwrap()];
        // As one value, not as a Vec of arguments.
        let refs = mobula::put(&refs).unwrap();
        let error = mobula::get(&takes_references::remote(&refs, 1)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("references or actor handles inside"),
            "{error}"
        );
    });
}

#[remote(isolate, num_gpus = 1)]
fn gpus() -> Vec<u32> {
    mobula::gpu_ids()
}

#[test]
fn a_call_knows_its_gpus_there_too() {
    alone(config().num_gpus(2), |_| {
        let given = mobula::get(&gpus::remote()).unwrap();
        assert!(given.len() == 1 && given[0] < 2, "{given:?}");
    });
}

#[test]
fn crashes_leave_no_open_files() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    alone(config(), |_| {
        let crash = || {
            let r = ends::options()
                .max_retries(0)
                .remote(End::Abort, u32::MAX, counter("files"));
            assert!(matches!(mobula::get(&r), Err(Error::WorkerDied(_))));
        };
        (0..3).for_each(|_| crash());
        let before = open();
        (0..20).for_each(|_| crash());
        // Of the one in use, the one in advance, and what other tests of this program have open.
        until(|| open() < before + 20);
    });
}

#[test]
fn a_process_that_only_has_the_variable_is_no_worker_and_no_node() {
    const NAME: &str = "a_process_that_only_has_the_variable_is_no_worker_and_no_node";
    if std::env::var_os("MOBULA_WORKER").is_some() {
        let error = config().init().unwrap_err();
        assert!(error.to_string().contains("MOBULA_WORKER"), "{error}");
        return;
    }
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("MOBULA_WORKER", "1")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}
