//! The exposition, read by a parser of the format; the table in the docs against the metrics.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::snapshot::{List, Node, Resource, StoreNow, Worker};

/// One line of values: its name, its labels, its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format, strictly: every family is announced before its values and only once, names and labels have
/// the form they must have, and no series comes twice.
fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let (mut family, mut kind) = (String::new(), String::new());
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap_or_default().to_owned();
            if !families.insert(family.clone()) {
                return Err(format!("{family} comes twice"));
            }
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, its) = rest.split_once(' ').ok_or("no type")?;
            if name != family || !["gauge", "counter", "histogram"].contains(&its) {
                return Err(format!("a type out of place: {line}"));
            }
            kind = its.to_owned();
        } else {
            let sample = sample(line)?;
            let base = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|s| sample.0.strip_suffix(s)),
                _ => Some(sample.0.as_str()),
            };
            if base != Some(family.as_str()) {
                return Err(format!("a value outside of its family: {line}"));
            }
            if kind == "counter" && !family.ends_with("_total") {
                return Err(format!("a counter without _total: {family}"));
            }
            if !series.insert((sample.0.clone(), sample.1.clone())) {
                return Err(format!("a series twice: {line}"));
            }
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Result<Sample, String> {
    let bad = |why: &str| format!("{why}: {line}");
    let end = line.find(['{', ' ']).ok_or(bad("no value"))?;
    let (name, mut rest) = line.split_at(end);
    let word = |s: &str| {
        let mut chars = s.chars();
        chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !word(name) {
        return Err(bad("no name"));
    }
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or(bad("no label"))?;
            if !word(label) {
                return Err(bad("no label's name"));
            }
            let (mut value, mut escape, mut end) = (String::new(), false, None);
            for (i, c) in after.char_indices() {
                match (escape, c) {
                    (true, 'n') => value.push('\n'),
                    (true, '"' | '\\') => value.push(c),
                    (true, _) => return Err(bad("a bad escape")),
                    (false, '\\') => {
                        escape = true;
                        continue;
                    }
                    (false, '"') => {
                        end = Some(i);
                        break;
                    }
                    (false, c) => value.push(c),
                }
                escape = false;
            }
            labels.insert(label.to_owned(), value);
            rest = &after[end.ok_or(bad("an open quote"))? + 1..];
            if let Some(more) = rest.strip_prefix(',') {
                rest = more;
            } else {
                rest = rest.strip_prefix('}').ok_or(bad("no end"))?;
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or(bad("no space"))?;
    let value = value.parse().map_err(|_| bad("no number"))?;
    Ok((name.to_owned(), labels, value))
}

fn function(name: &str, calls: u64) -> Function {
    Function {
        name: name.to_owned(),
        calls,
        failed: 1,
        times: vec![0, calls / 2, calls - calls / 2],
        busy_micros: calls as f64 * 1.5,
        ..Function::default()
    }
}

#[test]
fn functions_of_one_name_are_one_series() {
    let mut snapshot = Snapshot::default();
    snapshot.functions.items = vec![function("m::f", 4), function("m::f", 6)];
    let samples = parse(&Exposition::new().text(&snapshot)).unwrap();
    let of = |name| get(&samples, name, &[("function", "m::f")]);
    assert_eq!(of("mobula_function_calls_total"), Some(10.0));
    assert_eq!(of("mobula_function_failed_total"), Some(2.0));
    assert_eq!(of("mobula_function_duration_seconds_count"), Some(10.0));
}

fn get(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels: BTreeMap<String, String> = labels
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    let found = samples.iter().find(|(n, l, _)| n == name && *l == labels);
    found.map(|(_, _, value)| *value)
}

#[test]
fn every_metric_is_there_and_reads_back() {
    let mut snapshot = Snapshot::default();
    snapshot.counts.running = 3;
    snapshot.counts.submitted = 12_345_678_901;
    snapshot.program.name = "a \"quoted\\\nname".into();
    snapshot.nodes = List::whole(vec![Node {
        busy: 2,
        resources: vec![Resource {
            name: "tpu".into(),
            total: 4.0,
            free: 0.5,
        }],
        store: StoreNow {
            used: 1 << 40,
            ..StoreNow::default()
        },
        ..Node::default()
    }]);
    snapshot.functions = List::whole(vec![function("app::<f>", 10)]);
    snapshot.workers = List::whole(vec![Worker {
        resident_bytes: Some(7),
        ..Worker::default()
    }]);
    let text = Exposition::new().text(&snapshot);
    let samples = parse(&text).unwrap();
    let names: BTreeSet<&str> = samples.iter().map(|(name, ..)| name.as_str()).collect();
    for (name, kind, _) in METRICS {
        let name = match kind {
            "histogram" => format!("{name}_count"),
            _ => name.to_owned(),
        };
        assert!(names.contains(name.as_str()), "{name} is missing");
    }
    let is =
        |name, labels: &[_], value| assert_eq!(get(&samples, name, labels), Some(value), "{name}");
    is("mobula_calls", &[("state", "running")], 3.0);
    is("mobula_calls_submitted_total", &[], 12_345_678_901.0);
    is(
        "mobula_info",
        &[("program", "a \"quoted\\\nname"), ("version", "")],
        1.0,
    );
    is("mobula_resource_free", &[("resource", "tpu")], 0.5);
    is("mobula_store_used_bytes", &[], (1u64 << 40) as f64);
    is("mobula_worker_resident_bytes", &[], 7.0);
    let f = ("function", "app::<f>");
    let bucket = |le| {
        get(
            &samples,
            "mobula_function_duration_seconds_bucket",
            &[f, ("le", le)],
        )
    };
    assert_eq!(bucket("0.000001"), Some(0.0));
    assert_eq!(bucket("0.000004"), Some(10.0));
    assert_eq!(bucket("+Inf"), Some(10.0));
    is("mobula_function_duration_seconds_sum", &[f], 1.5e-5);
}

#[test]
fn resources_of_all_nodes_are_added_up_and_bounded() {
    let resource = |name: &str, total| Resource {
        name: name.into(),
        total,
        free: 1.0,
    };
    let node = |resources| Node {
        resources,
        ..Node::default()
    };
    let many = (0..1000).map(|i| resource(&format!("r{i}"), 1.0)).collect();
    let snapshot = Snapshot {
        nodes: List::whole(vec![
            node(vec![resource("cpu", 4.0)]),
            node(vec![resource("cpu", 2.0)]),
            node(many),
        ]),
        ..Snapshot::default()
    };
    let samples = parse(&Exposition::new().text(&snapshot)).unwrap();
    let is = |name, value| assert_eq!(get(&samples, name, &[("resource", "cpu")]), Some(value));
    is("mobula_resource", 6.0);
    is("mobula_resource_free", 2.0);
    let shown = samples.iter().filter(|(n, ..)| n == "mobula_resource");
    assert_eq!(shown.count(), RESOURCES_MAX);
}

#[test]
fn buckets_never_fall() {
    let mut snapshot = Snapshot::default();
    snapshot.functions.items = vec![Function {
        name: "f".into(),
        times: (0..40).collect(),
        ..Function::default()
    }];
    let samples = parse(&Exposition::new().text(&snapshot)).unwrap();
    let buckets: Vec<f64> = samples
        .iter()
        .filter(|(name, ..)| name.ends_with("_bucket"))
        .map(|(_, _, n)| *n)
        .collect();
    assert_eq!(buckets.len(), BOUNDS.len() + 1);
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&780.0));
}

#[test]
fn thousands_of_functions_are_a_bounded_number_of_series_that_only_grow() {
    let mut exposition = Exposition::new();
    let mut snapshot = Snapshot::default();
    snapshot.functions.items = (0..5_000).map(|i| function(&format!("f{i}"), 10)).collect();
    let before = parse(&exposition.text(&snapshot)).unwrap();
    let series = before
        .iter()
        .filter(|(n, ..)| n.starts_with("mobula_function"));
    assert!(series.count() <= (FUNCTIONS_MAX + 1) * (3 + BOUNDS.len() + 3));
    let other = |samples: &[Sample]| {
        get(
            samples,
            "mobula_function_calls_total",
            &[("function", OTHER)],
        )
    };
    assert_eq!(other(&before), Some(49_000.0));
    // The busiest are others now; those with labels keep them.
    snapshot.functions.items.reverse();
    snapshot.functions.items.push(function("new", 1));
    let after = parse(&exposition.text(&snapshot)).unwrap();
    assert_eq!(other(&after), Some(49_001.0));
    let f0 = get(&after, "mobula_function_calls_total", &[("function", "f0")]);
    assert_eq!(f0, Some(10.0));
}

#[test]
fn the_table_in_the_docs_is_complete() {
    let docs: Vec<String> = include_str!("../metrics.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `mobula"))
        .map(|line| format!("| `mobula{line}"))
        .collect();
    let metrics: Vec<String> = METRICS
        .iter()
        .map(|(name, kind, help)| format!("| `{name}` | {kind} | {help} |"))
        .collect();
    assert_eq!(docs, metrics);
}

#[test]
fn the_parser_sees_what_is_wrong() {
    for bad in [
        "# HELP a x\n# TYPE a gauge\nb 1",
        "# HELP a x\n# TYPE a gauge\na 1\na 2",
        "# HELP a x\n# TYPE a counter\na 1",
        "# HELP a x\n# TYPE a gauge\na{b=\"c} 1",
        "# HELP a x\n# TYPE a gauge\na{b=\"\\c\"} 1",
        "# HELP a x\n# TYPE a gauge\na one",
        "# HELP a x\n# TYPE a gauge\n# HELP a x",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}
