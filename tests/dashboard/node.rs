//! The dashboard of a node that runs: what it shows is what the program did.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

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

/// Asks until the answer is as wanted.
#[track_caller]
fn until(
    at: SocketAddr,
    path: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let start = Instant::now();
    loop {
        let answer = get(at, path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let answer = answer.json();
        if wanted(&answer) {
            return answer;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{path}: {answer}"
        );
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_running_program_shows_its_calls_errors_and_actors() {
    let mobula = Config::new()
        .num_cpus(2)
        .trace(mobula::Trace::Full)
        .on_unobserved_failure(|_| {})
        .dashboard_addr(([127, 0, 0, 1], 0))
        .init()
        .expect("a node");
    let url = mobula.dashboard_url().expect("a dashboard");
    let at: SocketAddr = url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .parse()
        .expect("an address");
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
        println!("the browser's part was skipped: no chromium is installed");
    }
    drop(mobula);
    assert!(
        std::net::TcpStream::connect(at).is_err(),
        "the dashboard ends with its node"
    );
}
