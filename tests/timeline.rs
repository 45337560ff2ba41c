//! The timeline: what is in it, what arrows lead where, and that Perfetto opens it.
//!
//! Invariant: a timeline is read back from its file, as a viewer would. Left out: what recording costs (`benches/trace`).

#[path = "../src/base/skip.rs"]
mod skip;

mod common;
#[path = "timeline/deaths.rs"]
mod deaths;
#[path = "timeline/importer.rs"]
mod importer;
#[path = "timeline/objects.rs"]
mod objects;
#[path = "timeline/perfetto.rs"]
mod perfetto;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use common::alone;
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
        assert_eq!(trace.other["events"], written.events);
        assert!(written.events >= 55, "two for each call, one for the put");
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
        assert!(mobula::get(inner::remote(failed_number(&failed))).is_err());
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
    common::serial(|| {
        assert!(matches!(
            mobula::timeline("nowhere"),
            Err(Error::NotInitialized | Error::ShutDown)
        ));
    });
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
    common::serial(|| {
        let e = two().trace_memory(1000).init().unwrap_err();
        assert!(e.to_string().contains("trace_memory"), "{e}");
    });
}
