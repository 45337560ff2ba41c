//! The dashboard of a node that runs: what it shows is what the program did.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mobula::prelude::*;

use crate::browser::{Browser, installed};
use crate::http::get;

#[remote]
fn f(_x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(1));
    1
}

#[remote]
fn g(_ys: Vec<u64>) -> u64 {
    1
}

#[remote]
fn breaks(_x: u64) -> u64 {
    panic!("this one breaks")
}

#[remote]
struct Totals {
    sum: u64,
}

#[remote]
impl Totals {
    pub fn new() -> Self {
        Totals { sum: 0 }
    }

    pub fn add(&mut self, n: u64) -> u64 {
        self.sum += n;
        self.sum
    }
}

/// There is one node in a process at a time.
static ONE: Mutex<()> = Mutex::new(());

/// Where its dashboard listens.
fn address(mobula: &mobula::Mobula) -> SocketAddr {
    let url = mobula.dashboard_url().expect("a dashboard");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    address.parse().expect("an address")
}

/// Asks until the answer is as wanted.
#[track_caller]
fn until(
    at: SocketAddr,
    path: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    crate::wait::until(path, Duration::from_secs(30), || {
        let answer = get(at, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        last = answer.json();
        wanted(&last)
    });
    last
}

#[test]
fn a_running_program_shows_its_calls_errors_and_actors() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mobula = Config::new()
        .num_cpus(2)
        .trace(mobula::Trace::Full)
        .on_unobserved_failure(|_| {})
        .dashboard_addr(([127, 0, 0, 1], 0))
        .init()
        .expect("a node");
    let url = mobula.dashboard_url().expect("a dashboard");
    let at = address(&mobula);
    let mut x = mobula::put(&1_u64).expect("an object");
    for _ in 0..3 {
        let ys: Vec<_> = (0..8).map(|_| f::remote(&x)).collect();
        x = g::remote(ys);
    }
    assert_eq!(mobula::get(&x).expect("a value"), 1);
    assert!(mobula::get(breaks::remote(1)).is_err());
    let totals = Totals::remote();
    assert_eq!(mobula::get(totals.add(2)).expect("a sum"), 2);

    let is = |name: &'static str| {
        move |f: &serde_json::Value| f["name"].as_str().is_some_and(|n| n.ends_with(name))
    };
    let functions = until(at, "/api/functions", |a| {
        a["functions"]
            .as_array()
            .is_some_and(|f| f.iter().any(is("::add")))
    });
    let functions = functions["functions"].as_array().expect("a list").clone();
    let of = |name| {
        functions
            .iter()
            .find(|f| is(name)(f))
            .unwrap_or_else(|| panic!("{name} in {functions:?}"))
    };
    assert_eq!(
        (of("::f")["count"].as_u64(), of("::g")["count"].as_u64()),
        (Some(24), Some(3))
    );
    assert_eq!(of("::breaks")["failed"].as_u64(), Some(1));
    assert!(
        of("::f")["min"].as_u64() >= Some(1_000_000),
        "each sleeps 1 ms: {}",
        of("::f")
    );

    let timeline = get(at, "/api/timeline").json();
    let kinds: Vec<u64> = timeline["edges"]["kind"]
        .as_array()
        .expect("arrows")
        .iter()
        .filter_map(|k| k.as_u64())
        .collect();
    let count = |kind| kinds.iter().filter(|&&k| k == kind).count();
    // The put goes into 8, each later g into 8, the eights into g.
    assert_eq!((count(2), count(1)), (8, 16 + 24), "{timeline}");
    assert!(count(0) >= 27, "{} submissions", count(0));

    let found = get(at, "/api/search?q=breaks").json();
    let id = found
        .as_array()
        .expect("results")
        .iter()
        .find_map(|f| f["id"].as_str())
        .expect("a call")
        .to_owned();
    let about = get(at, &format!("/api/task/{id}")).json();
    assert_eq!(about["recorded"]["outcome"], "failed");
    assert!(
        about["recorded"]["error"]
            .as_str()
            .is_some_and(|e| e.contains("this one breaks")),
        "{about}"
    );
    let last = get(at, "/api/search?q=%3A%3Ag").json();
    let last = last
        .as_array()
        .expect("results")
        .iter()
        .find_map(|f| f["id"].as_str())
        .expect("a call")
        .to_owned();
    let about = get(at, &format!("/api/task/{last}")).json();
    assert_eq!(
        about["recorded"]["inputs"].as_array().map(Vec::len),
        Some(8)
    );
    assert_eq!(
        about["recorded"]["path"].as_array().map(Vec::len),
        Some(6),
        "three rounds of f and g: {about}"
    );

    let trace = get(at, "/api/trace.json").json();
    assert!(
        trace["traceEvents"]
            .as_array()
            .is_some_and(|t| t.len() > 100)
    );
    let none = get(at, "/api/trace.json?from=0&to=0").json();
    let boxes = none["traceEvents"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|e| e["ph"] == "X")
        .count();
    assert_eq!(boxes, 0, "nothing began at the very start");
    let snapshot = until(at, "/api/snapshot", |s| {
        s["errors"]["items"]
            .as_array()
            .is_some_and(|e| !e.is_empty())
    });
    assert!(
        snapshot["errors"]["items"][0]["cause"]
            .as_str()
            .is_some_and(|c| c.contains("this one breaks"))
    );
    assert!(
        snapshot["actors"]["items"].to_string().contains("Totals"),
        "{snapshot}"
    );
    assert!(
        get(at, "/metrics")
            .text()
            .contains("mobula_calls_finished_total")
    );

    if let Some(program) = installed() {
        let mut browser = Browser::start(&program, 1440, 900);
        browser.open(&format!("{url}#timeline"));
        browser.until("mobula.stats().boxes >= 27 && mobula.stats().edges >= 27 + 24");
        browser.picture("node-timeline");
        assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
    } else {
        crate::skip::skipped("the browser's part: no chromium is installed");
    }
    drop(mobula);
    assert!(
        std::net::TcpStream::connect(at).is_err(),
        "the dashboard ends with its node"
    );
}

/// Whether the calls of the tests below may go on.
static GO: AtomicBool = AtomicBool::new(false);

fn wait_for_go() {
    let soon = Duration::from_secs(120);
    crate::wait::until("it may go on", soon, || GO.load(Ordering::Acquire));
}

#[remote]
fn holds(_x: u64) -> u64 {
    wait_for_go();
    1
}

#[remote]
fn asks(x: ObjectRef<u64>) -> u64 {
    mobula::get(&x).unwrap_or(0)
}

#[remote]
fn takes(x: u64) -> u64 {
    x
}

#[remote]
struct Slow {}

#[remote]
impl Slow {
    pub fn new() -> Self {
        Slow {}
    }

    pub fn step(&mut self, n: u64) -> u64 {
        wait_for_go();
        n
    }
}

#[test]
fn whatever_waits_says_why() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mobula = Config::new()
        .num_cpus(4)
        .resource("licence", 1.0)
        .trace(mobula::Trace::Full)
        .dashboard_addr(([127, 0, 0, 1], 0))
        .init()
        .expect("a node");
    let at = address(&mobula);
    let first = holds::options().resource("licence", 1.0).remote(1);
    until(at, &format!("/api/task/{:#x}", first.id()), |a| {
        a["now"]["state"] == "running"
    });
    let starved = holds::options().resource("licence", 1.0).remote(2);
    let blocked = asks::remote(first.clone());
    let taker = takes::remote(&first);
    let slow = Slow::remote();
    let step = slow.step(1);
    let queued = slow.step(2);
    let about = |id: u64, wanted: &dyn Fn(&serde_json::Value) -> bool| {
        until(at, &format!("/api/task/{id:#x}"), wanted)
    };
    let says = |a: &serde_json::Value, words: &[&str]| {
        a["now"]["why"]
            .as_str()
            .is_some_and(|why| words.iter().all(|w| why.contains(w)))
    };
    let id = |r: u64| format!("{r:#x}");
    // For a resource: which one, how much there is, and who has it.
    about(starved.id(), &|a| {
        a["now"]["state"] == "waiting-resources"
            && says(a, &["licence", "1"])
            && a["now"]["waits_for"][0] == id(first.id())
    });
    // In a get: for which call.
    about(blocked.id(), &|a| {
        a["now"]["state"] == "blocked" && says(a, &[&id(first.id())])
    });
    // For an argument: which one.
    about(taker.id(), &|a| {
        a["now"]["state"] == "waiting-arguments"
            && says(a, &["holds", &id(first.id())])
            && a["recorded"]["waiting"]
                .as_str()
                .is_some_and(|w| w.contains("holds"))
    });
    // In a mailbox: behind earlier calls of which actor.
    about(step.id(), &|a| a["now"]["state"] == "running");
    about(queued.id(), &|a| {
        a["recorded"]["waiting"]
            .as_str()
            .is_some_and(|w| w.contains("mailbox") && w.contains(&id(slow.id())))
    });
    if let Some(program) = installed() {
        let url = mobula.dashboard_url().expect("a dashboard");
        let mut b = Browser::start(&program, 1280, 800);
        b.open(&format!("{url}#tasks"));
        b.until(
            "document.getElementById('view-tasks').textContent.includes('waits for resources')",
        );
        for (call, words) in [
            (starved.id(), "licence"),
            (blocked.id(), "result of"),
            (queued.id(), "mailbox"),
        ] {
            b.eval(&format!("mobula.choose('{call:#x}')"));
            b.until(&format!(
                "document.querySelector('#detail .why').textContent.includes('{words}')"
            ));
        }
        b.picture("node-why");
        assert!(b.complaints.is_empty(), "{:?}", b.complaints);
    }
    GO.store(true, Ordering::Release);
    assert_eq!(mobula::get(&queued).expect("it goes on when it may"), 2);
    assert_eq!(mobula::get(&taker).expect("a value"), 1);
    about(taker.id(), &|a| a["recorded"]["outcome"] == "done");
}

#[test]
fn a_trace_of_a_window_has_that_window_only() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mobula = Config::new()
        .num_cpus(2)
        .trace(mobula::Trace::Full)
        .dashboard_addr(([127, 0, 0, 1], 0))
        .init()
        .expect("a node");
    let at = address(&mobula);
    let mut x = mobula::put(&1_u64).expect("an object");
    for _ in 0..60 {
        x = f::remote(&x);
    }
    assert_eq!(mobula::get(&x).expect("a value"), 1);
    let timeline = until(at, "/api/timeline", |t| t["recorded"] == 60);
    let time = |list: &str, i: usize| {
        let base = timeline["from"].as_i64().expect("a time");
        (base + timeline["boxes"][list][i].as_i64().expect("a time")) as f64 / 1e3
    };
    // From within the 20th to within the 25th: these, and nothing that is a millisecond away from them.
    let (from, to) = (time("start", 19) + 200.0, time("start", 24) + 200.0);
    let path = format!(
        "/api/trace.json?from={}&to={}",
        (from * 1e3) as u64,
        (to * 1e3) as u64
    );
    let trace = get(at, &path).json();
    let boxes: Vec<&serde_json::Value> = trace["traceEvents"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|e| e["ph"] == "X" && e["name"].as_str().is_some_and(|n| n.ends_with("f")))
        .collect();
    assert!((5..=8).contains(&boxes.len()), "{} boxes", boxes.len());
    for b in boxes {
        let (ts, dur) = (
            b["ts"].as_f64().expect("a time"),
            b["dur"].as_f64().expect("a time"),
        );
        assert!(
            ts <= to + 500.0 && ts + dur >= from - 500.0,
            "{b} is not within {from} to {to}"
        );
    }
}
