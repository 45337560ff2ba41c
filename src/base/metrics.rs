//! The metrics of a running program, as Prometheus reads them.
//!
//! | metric | type | what it says |
//! |---|---|---|
//! | `mobula_info` | gauge | 1, with the labels `version` and `program` |
//! | `mobula_start_time_seconds` | gauge | when the node started, in seconds since 1970 |
//! | `mobula_resident_bytes` | gauge | memory that the program has resident, shared memory included |
//! | `mobula_cpu_seconds_total` | counter | CPU time that the program has used |
//! | `mobula_calls_submitted_total` | counter | calls submitted: tasks, constructors and methods |
//! | `mobula_calls_finished_total` | counter | calls that ended, failed ones included |
//! | `mobula_calls_failed_total` | counter | calls that ended in an error, cancelled ones included |
//! | `mobula_calls_cancelled_total` | counter | calls that were cancelled |
//! | `mobula_calls_retried_total` | counter | further attempts at calls that had failed |
//! | `mobula_calls` | gauge | calls under way, by `state`: `running`, `queued`, `waiting_resources`, `waiting_arguments` |
//! | `mobula_actors` | gauge | actors in memory |
//! | `mobula_executors` | gauge | threads that run calls, by `state`: `busy`, `blocked`, `idle` |
//! | `mobula_resource` | gauge | what the nodes have, by `resource` |
//! | `mobula_resource_free` | gauge | what of it nobody holds, by `resource` |
//! | `mobula_store_capacity_bytes` | gauge | bytes that the object store may hold |
//! | `mobula_store_used_bytes` | gauge | bytes of its objects |
//! | `mobula_store_reserved_bytes` | gauge | bytes taken for them, rounding included |
//! | `mobula_store_pinned_bytes` | gauge | bytes of objects that are pinned in memory |
//! | `mobula_store_objects` | gauge | objects in the store |
//! | `mobula_store_spilled_bytes` | gauge | bytes of objects that are on disk now |
//! | `mobula_store_spilled_objects` | gauge | objects that are on disk now |
//! | `mobula_store_spilled_bytes_total` | counter | bytes that moved to disk |
//! | `mobula_store_restored_bytes_total` | counter | bytes that were read back |
//! | `mobula_store_waiting` | gauge | producers that wait for room |
//! | `mobula_workers` | gauge | worker processes |
//! | `mobula_worker_resident_bytes` | gauge | memory that worker processes have resident together |
//! | `mobula_function_calls_total` | counter | calls that ended, by `function` |
//! | `mobula_function_failed_total` | counter | those of them that failed, by `function` |
//! | `mobula_function_running` | gauge | calls that run now, by `function` |
//! | `mobula_function_duration_seconds` | histogram | how long calls ran, by `function`; short calls are sampled |
//!
//! Invariant: the number of series is bounded: the first [`FUNCTIONS_MAX`] functions seen have a label of their own for as
//! long as the program runs, all others are `other` together. Left out: serving it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::query::{LIMIT_MAX, Part, Query};
use super::snapshot::{Function, Snapshot};

/// The most functions with a label of their own.
pub const FUNCTIONS_MAX: usize = 100;
/// The most of the program's own resources that are shown.
const RESOURCES_MAX: usize = 50;
/// The label of all functions beyond them.
const OTHER: &str = "other";
/// Upper bounds of the histogram: these powers of two, in microseconds.
const BOUNDS: [usize; 14] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26];

/// Every metric: its name, its type and what it says.
pub const METRICS: [(&str, &str, &str); 30] = [
    (
        "mobula_info",
        "gauge",
        "1, with the labels `version` and `program`",
    ),
    (
        "mobula_start_time_seconds",
        "gauge",
        "when the node started, in seconds since 1970",
    ),
    (
        "mobula_resident_bytes",
        "gauge",
        "memory that the program has resident, shared memory included",
    ),
    (
        "mobula_cpu_seconds_total",
        "counter",
        "CPU time that the program has used",
    ),
    (
        "mobula_calls_submitted_total",
        "counter",
        "calls submitted: tasks, constructors and methods",
    ),
    (
        "mobula_calls_finished_total",
        "counter",
        "calls that ended, failed ones included",
    ),
    (
        "mobula_calls_failed_total",
        "counter",
        "calls that ended in an error, cancelled ones included",
    ),
    (
        "mobula_calls_cancelled_total",
        "counter",
        "calls that were cancelled",
    ),
    (
        "mobula_calls_retried_total",
        "counter",
        "further attempts at calls that had failed",
    ),
    (
        "mobula_calls",
        "gauge",
        "calls under way, by `state`: `running`, `queued`, `waiting_resources`, `waiting_arguments`",
    ),
    ("mobula_actors", "gauge", "actors in memory"),
    (
        "mobula_executors",
        "gauge",
        "threads that run calls, by `state`: `busy`, `blocked`, `idle`",
    ),
    (
        "mobula_resource",
        "gauge",
        "what the nodes have, by `resource`",
    ),
    (
        "mobula_resource_free",
        "gauge",
        "what of it nobody holds, by `resource`",
    ),
    (
        "mobula_store_capacity_bytes",
        "gauge",
        "bytes that the object store may hold",
    ),
    ("mobula_store_used_bytes", "gauge", "bytes of its objects"),
    (
        "mobula_store_reserved_bytes",
        "gauge",
        "bytes taken for them, rounding included",
    ),
    (
        "mobula_store_pinned_bytes",
        "gauge",
        "bytes of objects that are pinned in memory",
    ),
    ("mobula_store_objects", "gauge", "objects in the store"),
    (
        "mobula_store_spilled_bytes",
        "gauge",
        "bytes of objects that are on disk now",
    ),
    (
        "mobula_store_spilled_objects",
        "gauge",
        "objects that are on disk now",
    ),
    (
        "mobula_store_spilled_bytes_total",
        "counter",
        "bytes that moved to disk",
    ),
    (
        "mobula_store_restored_bytes_total",
        "counter",
        "bytes that were read back",
    ),
    (
        "mobula_store_waiting",
        "gauge",
        "producers that wait for room",
    ),
    ("mobula_workers", "gauge", "worker processes"),
    (
        "mobula_worker_resident_bytes",
        "gauge",
        "memory that worker processes have resident together",
    ),
    (
        "mobula_function_calls_total",
        "counter",
        "calls that ended, by `function`",
    ),
    (
        "mobula_function_failed_total",
        "counter",
        "those of them that failed, by `function`",
    ),
    (
        "mobula_function_running",
        "gauge",
        "calls that run now, by `function`",
    ),
    (
        "mobula_function_duration_seconds",
        "histogram",
        "how long calls ran, by `function`; short calls are sampled",
    ),
];

/// Writes the metrics; one for each place that shows them, since it remembers which functions have labels.
#[derive(Debug, Default)]
pub struct Exposition {
    named: BTreeSet<String>,
}

impl Exposition {
    /// No function has a label yet.
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// What to ask for, to have all that is written.
    pub fn query() -> Query {
        Query::of(&[Part::Nodes, Part::Functions, Part::Workers]).limit(LIMIT_MAX)
    }

    /// The metrics of this moment: `text/plain; version=0.0.4`.
    ///
    /// ```
    /// use mobula::inspect::{Snapshot, metrics::Exposition};
    /// let text = Exposition::new().text(&Snapshot::default());
    /// assert!(text.contains("\nmobula_calls{state=\"running\"} 0\n"));
    /// ```
    pub fn text(&mut self, snapshot: &Snapshot) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out, snapshot);
        out
    }

    fn write(&mut self, out: &mut String, s: &Snapshot) -> fmt::Result {
        let functions = self.functions(s);
        let c = &s.counts;
        let workers = s.workers.total();
        let sum = |f: fn(&super::snapshot::StoreNow) -> u64| {
            s.nodes.items.iter().map(|n| f(&n.store)).sum::<u64>() as f64
        };
        for (name, kind, help) in METRICS {
            writeln!(out, "# HELP {name} {help}")?;
            writeln!(out, "# TYPE {name} {kind}")?;
            let mut one = |value: f64| writeln!(out, "{name} {value}");
            match name {
                "mobula_info" => {
                    let (version, program) =
                        (escaped(&s.program.version), escaped(&s.program.name));
                    writeln!(
                        out,
                        "{name}{{version=\"{version}\",program=\"{program}\"}} 1"
                    )?;
                }
                "mobula_start_time_seconds" => one(s.program.started as f64 / 1e6)?,
                "mobula_resident_bytes" => one(s.program.resident_bytes as f64)?,
                "mobula_cpu_seconds_total" => one(s.program.cpu_micros as f64 / 1e6)?,
                "mobula_calls_submitted_total" => one(c.submitted as f64)?,
                "mobula_calls_finished_total" => one(c.finished as f64)?,
                "mobula_calls_failed_total" => one(c.failed as f64)?,
                "mobula_calls_cancelled_total" => one(c.cancelled as f64)?,
                "mobula_calls_retried_total" => one(c.retried as f64)?,
                "mobula_calls" => {
                    let states = [
                        ("running", c.running),
                        ("queued", c.queued),
                        ("waiting_resources", c.waiting_resources),
                        ("waiting_arguments", c.waiting_arguments),
                    ];
                    labelled(out, name, "state", states.map(|(s, n)| (s, n as f64)))?;
                }
                "mobula_actors" => one(c.actors as f64)?,
                "mobula_executors" => {
                    let of = |f: fn(&super::snapshot::Node) -> u64| {
                        s.nodes.items.iter().map(f).sum::<u64>() as f64
                    };
                    let states = [
                        ("busy", of(|n| n.busy)),
                        ("blocked", of(|n| n.blocked)),
                        ("idle", of(|n| n.idle)),
                    ];
                    labelled(out, name, "state", states)?;
                }
                "mobula_resource" | "mobula_resource_free" => {
                    // Of all nodes together: a series twice is refused by whoever reads it.
                    let mut all = BTreeMap::new();
                    for r in s.nodes.items.iter().flat_map(|n| &n.resources) {
                        *all.entry(r.name.as_str()).or_insert(0.0) += match name {
                            "mobula_resource" => r.total,
                            _ => r.free,
                        };
                    }
                    labelled(out, name, "resource", all.into_iter().take(RESOURCES_MAX))?;
                }
                "mobula_store_capacity_bytes" => one(sum(|s| s.capacity))?,
                "mobula_store_used_bytes" => one(sum(|s| s.used))?,
                "mobula_store_reserved_bytes" => one(sum(|s| s.reserved))?,
                "mobula_store_pinned_bytes" => one(sum(|s| s.pinned_bytes))?,
                "mobula_store_objects" => one(sum(|s| s.objects))?,
                "mobula_store_spilled_bytes" => one(sum(|s| s.spilled_bytes))?,
                "mobula_store_spilled_objects" => one(sum(|s| s.spilled_objects))?,
                "mobula_store_spilled_bytes_total" => one(sum(|s| s.moved_bytes))?,
                "mobula_store_restored_bytes_total" => one(sum(|s| s.restored_bytes))?,
                "mobula_store_waiting" => one(sum(|s| s.waiting))?,
                "mobula_workers" => one(workers as f64)?,
                "mobula_worker_resident_bytes" => {
                    let resident = s.workers.items.iter().filter_map(|w| w.resident_bytes);
                    one(resident.sum::<u64>() as f64)?;
                }
                "mobula_function_calls_total" => by_function(out, name, &functions, |f| f.calls)?,
                "mobula_function_failed_total" => {
                    by_function(out, name, &functions, |f| f.failed)?;
                }
                "mobula_function_running" => by_function(out, name, &functions, |f| f.running)?,
                _ => functions.iter().try_for_each(|f| histogram(out, name, f))?,
            }
        }
        Ok(())
    }

    /// The functions with labels of their own, and all others together.
    fn functions(&mut self, s: &Snapshot) -> Vec<Function> {
        let mut all = BTreeMap::new();
        for f in &s.functions.items {
            if self.named.len() < FUNCTIONS_MAX {
                self.named.insert(f.name.clone());
            }
            let name = match self.named.contains(&f.name) {
                true => f.name.as_str(),
                false => OTHER,
            };
            // Two functions of one module may have one name, each in a block of its own.
            let sum: &mut Function = all.entry(name).or_insert_with(|| Function {
                name: name.to_owned(),
                ..Function::default()
            });
            sum.calls += f.calls;
            sum.failed += f.failed;
            sum.running += f.running;
            sum.busy_micros += f.busy_micros;
            if sum.times.len() < f.times.len() {
                sum.times.resize(f.times.len(), 0);
            }
            for (sum, n) in sum.times.iter_mut().zip(&f.times) {
                *sum += n;
            }
        }
        all.into_values().collect()
    }
}

fn labelled<'a>(
    out: &mut String,
    name: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) -> fmt::Result {
    for (value_of_label, value) in values {
        let of = escaped(value_of_label);
        writeln!(out, "{name}{{{label}=\"{of}\"}} {value}")?;
    }
    Ok(())
}

fn by_function(
    out: &mut String,
    name: &str,
    functions: &[Function],
    value: fn(&Function) -> u64,
) -> fmt::Result {
    let values = functions.iter().map(|f| (f.name.as_str(), value(f) as f64));
    labelled(out, name, "function", values)
}

fn histogram(out: &mut String, name: &str, f: &Function) -> fmt::Result {
    let of = escaped(&f.name);
    for bound in BOUNDS {
        // What took less than 2^bound microseconds lies in the slots up to there.
        let within: u64 = f.times.iter().take(bound + 1).sum();
        let le = (1u64 << bound) as f64 / 1e6;
        writeln!(
            out,
            "{name}_bucket{{function=\"{of}\",le=\"{le}\"}} {within}"
        )?;
    }
    let all: u64 = f.times.iter().sum();
    writeln!(out, "{name}_bucket{{function=\"{of}\",le=\"+Inf\"}} {all}")?;
    let seconds = f.busy_micros / 1e6;
    writeln!(out, "{name}_sum{{function=\"{of}\"}} {seconds}")?;
    writeln!(out, "{name}_count{{function=\"{of}\"}} {all}")
}

/// A label's value between quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
