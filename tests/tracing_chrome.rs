//! The layer of `tracing-chrome` beside a node: what it writes, and what it leaves to the timeline.
//!
//! Invariant: one test, since the subscriber is the whole program's. Left out: what a timeline has, see `tests/timeline.rs`.
#![cfg(all(feature = "tracing-chrome", feature = "tracing"))]

mod common;

use std::collections::BTreeSet;

use common::alone;
use mobula::prelude::*;
use mobula::tracing_chrome::ChromeLayerBuilder;
use serde_json::Value;
use tracing_subscriber::layer::SubscriberExt as _;

#[remote]
fn works(x: u64) -> u64 {
    let _span = tracing::info_span!("part", x).entered();
    x + 1
}

fn read(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the file was written");
    std::fs::remove_file(path).expect("it can be removed");
    let whole: Value = serde_json::from_str(&text).expect("it is JSON");
    match whole {
        Value::Array(events) => events,
        mut whole => match whole["traceEvents"].take() {
            Value::Array(events) => events,
            other => panic!("{other} is no list of events"),
        },
    }
}

#[test]
fn spans_of_one_process_without_arrows() {
    let place = |name: &str| {
        let name = format!("mobula-chrome-{}-{name}.json", std::process::id());
        std::env::temp_dir().join(name)
    };
    let (plain, own) = (place("plain"), place("own"));
    let (layer, guard) = ChromeLayerBuilder::new()
        .file(&plain)
        .include_args(true)
        .build();
    let subscriber = tracing_subscriber::registry()
        .with(layer)
        .with(mobula::TimelineLayer::new());
    tracing::subscriber::set_global_default(subscriber).expect("there is no other");
    {
        // Before there is a node.
        let _span = tracing::info_span!("early").entered();
    }
    alone(Config::new().num_cpus(2.0), |_| {
        let first = works::remote(1);
        assert_eq!(mobula::get(works::remote(&first)).unwrap(), 3);
        mobula::timeline(&own).unwrap();
    });
    drop(guard);

    let events = read(&plain);
    let phases: BTreeSet<&str> = events.iter().filter_map(|e| e["ph"].as_str()).collect();
    assert!(phases.contains("B") && phases.contains("E"), "{phases:?}");
    assert!(!phases.contains("s") && !phases.contains("f"), "{phases:?}");
    let begun = |events: &[Value], name: &str, phase: &str| {
        let mut of = events.iter().filter(|e| e["name"] == name);
        of.by_ref().filter(|e| e["ph"] == phase).count()
    };
    assert_eq!(
        (begun(&events, "part", "B"), begun(&events, "early", "B")),
        (2, 1)
    );
    assert_eq!(begun(&events, "works", "B"), 0, "calls are no spans");
    assert!(events.iter().all(|e| e["pid"] == 1), "one process, by name");

    let timeline = read(&own);
    let (parts, early) = (
        begun(&timeline, "part", "X"),
        begun(&timeline, "early", "X"),
    );
    assert_eq!((parts, early), (2, 0), "there was no node then");
    assert_eq!(begun(&timeline, "works", "X"), 2);
    assert!(timeline.iter().any(|e| e["ph"] == "s"));
}
