//! The timeline: what is in it, what arrows lead where, and that Perfetto opens it.
//!
//! Invariant: a timeline is read back from its file, as a viewer would. Left out: what recording costs (`benches/trace`).

mod common;
#[path = "timeline/importer.rs"]
mod importer;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{alone, until};
use importer::{Trace, import};
use mobula::prelude::*;
use mobula::{Error, Timeline};

#[remote]
fn f(_x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    1
}

#[remote]
fn g(_ys: Vec<u64>) -> u64 {
    1
}

/// The demo of three rounds; the last result.
fn demo() -> ObjectRef<u64> {
    let mut x = mobula::put(&1_u64).unwrap();
    for _round in 0..3 {
        let ys: Vec<_> = (0..8).map(|_| f::remote(&x)).collect();
        x = g::remote(ys);
    }
    x
}

/// A file of this process's own, gone when dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        let name = format!("mobula-timeline-{}-{name}.json", std::process::id());
        File(std::env::temp_dir().join(name))
    }

    fn read(&self) -> Trace {
        import(&std::fs::read_to_string(&self.0).expect("the timeline was written"))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The timeline of what happened so far.
fn timeline() -> (Timeline, Trace) {
    let file = File::new("now");
    let written = mobula::timeline(&file.0).unwrap();
    let trace = file.read();
    assert_eq!(trace.complaints, Vec::<String>::new());
    (written, trace)
}

fn two() -> Config {
    Config::new().num_cpus(2.0)
}

/// How many arrows of a kind lead from boxes of one name to boxes of another.
fn arrows(trace: &Trace) -> BTreeMap<(String, String, String), usize> {
    let mut found = BTreeMap::new();
    for flow in &trace.flows {
        let name = |at: usize| trace.slices[at].name.clone();
        *found
            .entry((flow.kind.clone(), name(flow.from), name(flow.to)))
            .or_default() += 1;
    }
    found
}

#[test]
fn the_demo_has_exactly_its_boxes_and_arrows() {
    alone(two(), |_| {
        assert_eq!(mobula::get(&demo()).unwrap(), 1);
        let (written, trace) = timeline();
        assert_eq!(
            (written.boxes, written.submissions, written.inputs),
            (27, 27, 48)
        );
        assert_eq!(
            (written.passed, written.overwritten, written.unreadable),
            (0, 0, 0)
        );
        let count = |name: &str, category: &str| {
            trace
                .named(name)
                .filter(|(_, s)| s.category == category)
                .count()
        };
        assert_eq!((count("f", "task"), count("g", "task")), (24, 3));
        assert_eq!(trace.of("task").count(), 27);
        assert_eq!(
            (count("submit f", "submit"), count("submit g", "submit")),
            (24, 3)
        );
        let arrow = |kind: &str, from: &str, to: &str| (kind.into(), from.into(), to.into());
        let expected: BTreeMap<_, usize> = [
            (arrow("submit", "submit f", "f"), 24),
            (arrow("submit", "submit g", "g"), 3),
            (arrow("data", "put", "f"), 8),
            (arrow("data", "g", "f"), 16),
            (arrow("data", "f", "g"), 24),
        ]
        .into();
        assert_eq!(arrows(&trace), expected);
        for flow in &trace.flows {
            let (from, to) = (&trace.slices[flow.from], &trace.slices[flow.to]);
            if flow.kind == "data" {
                assert!(
                    from.end() <= to.begin,
                    "{to:?} began before {from:?} was there"
                );
            } else {
                assert_eq!(from.arg("call"), to.arg("call"));
            }
        }
        // Which eight a `g` takes: those of its round, each once.
        let mut taken: HashMap<usize, Vec<usize>> = HashMap::new();
        for flow in trace
            .flows
            .iter()
            .filter(|f| trace.slices[f.to].name == "g")
        {
            if flow.kind == "data" {
                taken.entry(flow.to).or_default().push(flow.from);
            }
        }
        assert_eq!(taken.len(), 3);
        for mut eight in taken.into_values() {
            eight.sort_unstable();
            eight.dedup();
            assert_eq!(eight.len(), 8);
        }
        for (_, slice) in trace.named("f").filter(|(_, s)| s.category == "task") {
            assert!(
                slice.length >= 1_000_000,
                "{slice:?} slept for a millisecond"
            );
            assert_eq!(slice.arg("outcome"), "done");
            assert_eq!(slice.arg("function"), "timeline::f");
            assert!(slice.args["bytes"].as_u64() > Some(0));
        }
        let threads: Vec<&str> = trace.threads.values().map(String::as_str).collect();
        assert!(
            threads.iter().any(|t| t.starts_with("executor")),
            "{threads:?}"
        );
        assert!(
            threads.iter().any(|t| t.starts_with("driver")),
            "{threads:?}"
        );
        assert!(trace.process.starts_with("node"), "{}", trace.process);
    });
}

#[remote]
fn inner(x: u64) -> u64 {
    let _span = mobula::span!("deep", x);
    x + 1
}

#[cfg(feature = "tracing")]
#[remote]
fn instrumented(x: u64) -> u64 {
    let load = tracing::info_span!("load", batch = x, late = tracing::field::Empty);
    load.record("late", true);
    load.in_scope(|| {
        let _inside = tracing::info_span!("parse").entered();
    });
    x
}

#[cfg(feature = "tracing")]
#[test]
fn spans_of_tracing_are_inside_their_call() {
    use tracing_subscriber::layer::SubscriberExt as _;
    let subscriber = tracing_subscriber::registry().with(mobula::TimelineLayer::new());
    // Of this whole test program, since calls run on other threads.
    let _ = tracing::subscriber::set_global_default(subscriber);
    alone(two(), |_| {
        let _outside = tracing::info_span!("outside").entered();
        assert_eq!(mobula::get(instrumented::remote(9)).unwrap(), 9);
        let (_, trace) = timeline();
        let at = |name: &str| {
            trace
                .named(name)
                .next()
                .unwrap_or_else(|| panic!("{name}"))
                .0
        };
        let (call, load) = (at("instrumented"), at("load"));
        assert!(trace.within(load, call) && trace.within(at("parse"), load));
        assert_eq!(trace.slices[load].arg("fields"), "batch=9 late=true");
        assert_eq!(trace.named("outside").count(), 0, "it has not ended");
    });
}

#[remote]
fn outer(x: u64) -> u64 {
    let _span = mobula::span!("work");
    mobula::counter!("level", x);
    mobula::get(inner::remote(x)).unwrap()
}

#[test]
fn what_a_call_does_is_inside_its_box() {
    alone(two(), |_| {
        assert_eq!(mobula::get(outer::remote(3)).unwrap(), 4);
        let (_, trace) = timeline();
        let at = |name: &str| {
            trace
                .named(name)
                .next()
                .unwrap_or_else(|| panic!("{name}"))
                .0
        };
        let (outer, inner) = (at("outer"), at("inner"));
        assert!(trace.within(at("work"), outer));
        assert!(trace.within(at("submit inner"), at("work")));
        assert!(trace.within(at("deep"), inner));
        assert_eq!(trace.slices[at("deep")].arg("fields"), "x=3");
        assert_eq!(
            trace.slices[at("deep")].arg("call"),
            trace.slices[inner].arg("call")
        );
        assert_eq!(trace.counters["level"], [3.0]);
        assert_eq!(
            trace.slices[at("submit inner")].arg("caller"),
            trace.slices[outer].arg("call")
        );
    });
}

#[remote]
fn fails(what: String) -> Result<u64, std::io::Error> {
    Err(std::io::Error::other(what))
}

#[remote(retry_panics = true, max_retries = 2)]
fn panics(_x: u64) -> u64 {
    panic!("on purpose")
}

#[test]
fn failures_say_why_in_their_boxes() {
    alone(two().on_unobserved_failure(|_| {}), |_| {
        // Longer than an event holds.
        let long = "a \"long\" story ".repeat(8);
        let failed = fails::remote(long.clone());
        assert!(mobula::get(&failed).is_err());
        assert!(mobula::get(inner::remote(&failed_number(&failed))).is_err());
        assert!(mobula::get(panics::remote(1)).is_err());
        let (_, trace) = timeline();
        let (_, slice) = trace.of("task").find(|(_, s)| s.name == "fails").unwrap();
        assert_eq!(slice.arg("outcome"), "failed");
        assert!(slice.arg("error").contains(&long), "{}", slice.arg("error"));
        let attempts: Vec<_> = trace
            .of("task")
            .filter(|(_, s)| s.name == "panics")
            .map(|(_, s)| {
                (
                    s.args["attempt"].as_u64().unwrap(),
                    s.arg("outcome").to_owned(),
                )
            })
            .collect();
        let again = "tried again".to_owned();
        assert_eq!(
            attempts,
            [(1, again.clone()), (2, again), (3, "failed".into())]
        );
    });
}

/// The same reference.
fn failed_number(r: &ObjectRef<u64>) -> ObjectRef<u64> {
    r.clone()
}

#[remote(max_restarts = 1, restart_on_panic = true)]
struct Moody {
    left: u64,
}

#[remote(max_restarts = 1, restart_on_panic = true)]
impl Moody {
    pub fn new(left: u64) -> Self {
        Moody { left }
    }

    pub fn poke(&mut self) -> u64 {
        assert!(self.left > 0, "enough");
        self.left -= 1;
        self.left
    }
}

#[test]
fn an_actors_life_is_told() {
    alone(two().on_unobserved_failure(|_| {}), |_| {
        let moody = Moody::remote(1);
        let results: Vec<_> = (0..4).map(|_| mobula::get(moody.poke()).is_ok()).collect();
        assert_eq!(results, [true, false, true, false]);
        assert!(mobula::get(moody.poke()).is_err());
        let (_, trace) = timeline();
        let pokes: Vec<_> = trace
            .of("method")
            .filter(|(_, s)| s.name == "Moody::poke")
            .collect();
        assert_eq!(pokes.len(), 4);
        let born = trace.named("Moody created").count();
        assert_eq!((born, trace.named("Moody restarted").count()), (2, 1));
        let (_, ended) = trace.named("Moody ended").next().unwrap();
        assert!(
            ended.arg("cause").contains("restarts are used up"),
            "{ended:?}"
        );
        assert_eq!(ended.arg("actor"), pokes[0].1.arg("actor"));
    });
}

#[test]
fn large_objects_are_made_taken_and_freed() {
    alone(two(), |_| {
        let big = mobula::put(&vec![1_u64; 10_000]).unwrap();
        let mut room = mobula::create::<u64>(5_000).unwrap();
        room.fill(2);
        let sealed = room.seal();
        let sums = [g::remote(&big), g::remote(&sealed)];
        mobula::get(&sums).unwrap();
        drop((big, sealed, sums));
        let mut found = BTreeMap::new();
        // The last reference may go with a call's arguments, on another thread.
        until(|| {
            let (_, trace) = timeline();
            found = arrows(&trace);
            trace.named("free").count() == 2
        });
        let data = |from: &str| found[&("data".into(), from.into(), "g".into())];
        assert_eq!((data("put"), data("seal")), (1, 1));
    });
}

#[remote]
async fn naps(x: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(2)).await;
    x
}

#[test]
fn async_calls_have_a_box_for_each_poll() {
    alone(two(), |_| {
        let nap = naps::remote(1);
        assert_eq!(mobula::get(inner::remote(&nap)).unwrap(), 2);
        let (_, trace) = timeline();
        let polls: Vec<_> = trace.of("task").filter(|(_, s)| s.name == "naps").collect();
        assert!(polls.len() >= 2, "{polls:?}");
        let (last, before) = polls.split_last().unwrap();
        assert_eq!(last.1.arg("outcome"), "done");
        assert!(before.iter().all(|(_, s)| s.arg("outcome") == "pending"));
        let found = arrows(&trace);
        let arrow =
            |kind: &str, from: &str, to: &str| found[&(kind.into(), from.into(), to.into())];
        assert_eq!(arrow("submit", "submit naps", "naps"), 1);
        assert_eq!(arrow("data", "naps", "inner"), 1);
        let data = trace.flows.iter().find(|f| f.kind == "data").unwrap();
        assert_eq!(
            data.from, last.0,
            "the arrow leaves where the value was made"
        );
    });
}

#[remote(isolate, max_retries = 0)]
fn dies(x: u64) {
    let mine = mobula::span!("before the end", x);
    drop(mine);
    let me = std::process::id().to_string();
    let _ = Command::new("kill").args(["-KILL", &me]).status();
    unreachable!("nothing survives that signal");
}

#[remote(isolate)]
fn lives(x: u64) -> u64 {
    let _span = mobula::span!("elsewhere");
    x
}

#[test]
fn what_a_killed_worker_did_last_is_there() {
    alone(two().on_unobserved_failure(|_| {}), |_| {
        assert_eq!(mobula::get(lives::remote(5)).unwrap(), 5);
        assert!(mobula::get(dies::remote(7)).is_err());
        let (_, trace) = timeline();
        let there = |name: &str| {
            let mut all = trace.of("process").filter(|(_, s)| s.name == name);
            all.next()
                .unwrap_or_else(|| panic!("{name} ran in no worker"))
        };
        let (lived, _) = there("lives");
        let elsewhere = trace.named("elsewhere").next().unwrap().0;
        assert!(trace.within(elsewhere, lived));
        let (died, slice) = there("dies");
        assert_eq!(slice.arg("outcome"), "lost with its process");
        let last = trace.named("before the end").next().unwrap();
        assert!(trace.within(last.0, died), "{last:?} in {slice:?}");
        assert_eq!(last.1.arg("fields"), "x=7");
        assert!(trace.threads[&slice.thread].starts_with("worker"));
        // The node's own box waits for it, and says how it ended.
        let (_, here) = trace.of("task").find(|(_, s)| s.name == "dies").unwrap();
        assert_eq!(here.arg("outcome"), "failed");
        assert!(
            here.arg("error").contains("SIGKILL"),
            "{}",
            here.arg("error")
        );
        let arrow = |name: &str| {
            let key = ("process".into(), name.into(), name.into());
            arrows(&trace).remove(&key).unwrap_or(0)
        };
        assert_eq!((arrow("lives"), arrow("dies")), (1, 1));
    });
}

#[test]
fn little_memory_keeps_the_newest_and_counts_the_rest() {
    let config = two().trace(mobula::Trace::Full).trace_memory(1 << 20);
    alone(config, |_| {
        let mut last = 0;
        for i in 0..20_000 {
            last = mobula::get(inner::remote(i)).unwrap();
        }
        assert_eq!(last, 20_000);
        let (written, trace) = timeline();
        assert!(written.overwritten > 20_000, "{written:?}");
        assert_eq!(written.unreadable, 0);
        let newest = trace.named("deep").map(|(_, s)| s).max_by_key(|s| s.begin);
        assert_eq!(newest.unwrap().arg("fields"), "x=19999");
        assert_eq!(written.boxes, trace.of("task").count() as u64);
    });
}

#[test]
fn calls_that_come_too_fast_are_counted() {
    // How many those are depends on how fast this machine is now.
    alone(two(), |_| {
        for i in 0..12_000_u64 {
            assert_eq!(mobula::get(quick::remote(i)).unwrap(), i);
        }
        let (written, trace) = timeline();
        let all = written.boxes + written.passed;
        assert!((11_900..=12_000).contains(&all), "{written:?}");
        let counted: f64 = trace
            .counters
            .iter()
            .filter(|(name, _)| name.starts_with("calls not recorded"))
            .flat_map(|(_, values)| values)
            .sum();
        assert_eq!(counted as u64, written.passed);
    });
}

#[remote]
fn quick(x: u64) -> u64 {
    x
}

#[test]
fn a_timeline_that_cannot_be_had_says_why() {
    assert!(matches!(
        mobula::timeline("nowhere"),
        Err(Error::NotInitialized | Error::ShutDown)
    ));
    alone(two().trace(mobula::Trace::Off), |_| {
        let _span = mobula::span!("nothing");
        mobula::counter!("nothing", 1);
        let e = mobula::timeline("nowhere").unwrap_err();
        assert!(e.to_string().contains("Trace::Adaptive"), "{e}");
    });
    alone(two(), |_| {
        let e = mobula::timeline("/no such folder/trace.json").unwrap_err();
        assert!(e.to_string().contains("/no such folder/trace.json"), "{e}");
    });
    let e = two().trace_memory(1000).init().unwrap_err();
    assert!(e.to_string().contains("trace_memory"), "{e}");
}

/// What a child of this test does: the demo, and then a panic, while the node is up.
#[test]
fn child_panics() {
    if std::env::var_os("MOBULA_TIMELINE").is_none() {
        return;
    }
    let _mobula = two().init().unwrap();
    assert_eq!(mobula::get(&demo()).unwrap(), 1);
    panic!("as it should");
}

#[test]
fn a_program_that_panics_leaves_its_timeline() {
    let file = File::new("panic");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_panics", "--test-threads=1"])
        .env("MOBULA_TIMELINE", &file.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(said.contains("as it should"), "{said}");
    let trace = file.read();
    assert_eq!(trace.complaints, Vec::<String>::new());
    assert_eq!(trace.of("task").count(), 27);
}

/// A Python with the package `perfetto`, in a folder of its own beside the build; or why there is none.
fn python() -> Result<PathBuf, String> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("perfetto");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| -> Result<(), String> {
        let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        let last = said
            .lines()
            .rfind(|l| !l.trim().is_empty())
            .unwrap_or_default();
        Err(format!("{command:?}: {}: {last}", done.status))
    };
    let has = |python: &PathBuf| run(Command::new(python).args(["-c", "import perfetto"]));
    if has(&python).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--retries",
            "1",
            "--timeout",
            "10",
        ]);
        run(pip.arg("perfetto==0.59.1"))?;
    }
    has(&python).map(|()| python)
}

#[test]
fn perfetto_opens_it_and_finds_what_there_is() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            println!("skipped: no Python with the package perfetto: {why}");
            return;
        }
    };
    let file = File::new("perfetto");
    alone(two(), |_| {
        assert_eq!(mobula::get(&demo()).unwrap(), 1);
        mobula::timeline(&file.0).unwrap();
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/timeline/open_trace.py");
    let done = Command::new(python)
        .arg(script)
        .arg(&file.0)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.code() == Some(3) {
        let last = said.lines().last().unwrap_or_default();
        println!("skipped: {last} (it is downloaded at its first use, which needs the network)");
        return;
    }
    assert!(done.status.success(), "{said}");
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(found["errors"], serde_json::json!([]), "{found}");
    let count = |of: &str, keys: &[(&str, &str)]| -> u64 {
        let rows = found[of].as_array().unwrap().iter();
        rows.filter(|row| keys.iter().all(|(key, value)| row[key] == *value))
            .map(|row| row["n"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(count("slices", &[("category", "task")]), 27);
    assert_eq!(count("slices", &[("category", "submit")]), 27);
    assert_eq!(
        count("flows", &[("source", "submit"), ("target", "task")]),
        27
    );
    assert_eq!(
        count("flows", &[("source", "object"), ("target", "task")]),
        8
    );
    assert_eq!(
        count("flows", &[("source", "task"), ("target", "task")]),
        40
    );
    assert!(count("nested", &[("outer", "task"), ("inner", "phase")]) > 0);
}
