//! Chrome trace JSON read as Perfetto's trace processor reads it: boxes into stacks, arrows to the boxes on top.
//!
//! It follows the importer's rules as of version 59: times are doubles of microseconds cut to whole nanoseconds, events are
//! sorted by time and otherwise keep their order, a box that begins closes those that have ended, an arrow binds to the box on top of its
//! thread's stack. Invariant: what the trace processor would drop or count as an error is a complaint here.
//! Left out: everything that these timelines do not use.

use std::collections::HashMap;

use serde_json::Value;

/// A box.
#[derive(Debug)]
pub struct Slice {
    pub name: String,
    pub category: String,
    pub thread: u64,
    pub begin: i64,
    pub length: i64,
    pub parent: Option<usize>,
    pub args: Value,
}

impl Slice {
    pub fn end(&self) -> i64 {
        self.begin + self.length
    }

    pub fn arg(&self, key: &str) -> &str {
        self.args[key].as_str().unwrap_or_default()
    }
}

/// An arrow between two boxes, by their places.
#[derive(Debug)]
pub struct Flow {
    pub kind: String,
    pub from: usize,
    pub to: usize,
}

/// A trace.
#[derive(Debug, Default)]
pub struct Trace {
    pub slices: Vec<Slice>,
    pub flows: Vec<Flow>,
    /// Values of counters by name, in order of time.
    pub counters: HashMap<String, Vec<f64>>,
    /// Names of threads.
    pub threads: HashMap<u64, String>,
    pub process: String,
    pub complaints: Vec<String>,
    pub other: Value,
}

/// Microseconds as the importer turns them into nanoseconds.
fn nanos(event: &Value, key: &str) -> i64 {
    let micros = event[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{event} has no {key}"));
    (micros * 1000.0) as i64
}

fn id(event: &Value) -> u64 {
    let id = event["id"].as_str().expect("an arrow has an id");
    let digits = id.strip_prefix("0x").unwrap_or(id);
    u64::from_str_radix(digits, 16).expect("an arrow's id is a number")
}

/// Reads a trace.
pub fn import(json: &str) -> Trace {
    let mut whole: Value = serde_json::from_str(json).expect("the trace is JSON");
    let mut trace = Trace {
        other: whole["otherData"].take(),
        ..Trace::default()
    };
    let Value::Array(mut events) = whole["traceEvents"].take() else {
        panic!("there are no events");
    };
    let time = |e: &Value| if e["ph"] == "M" { 0 } else { nanos(e, "ts") };
    events.sort_by_key(time);
    let mut stacks: HashMap<u64, Vec<usize>> = HashMap::new();
    let mut open: HashMap<(u64, String, String), usize> = HashMap::new();
    for event in events {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let thread = event["tid"].as_u64().unwrap_or(0);
        let stack = stacks.entry(thread).or_default();
        match event["ph"].as_str().expect("an event has a phase") {
            "M" => match event["name"].as_str() {
                Some("thread_name") => {
                    let name = event["args"]["name"].as_str().unwrap_or_default();
                    trace.threads.insert(thread, name.to_owned());
                }
                Some("process_name") => {
                    let name = event["args"]["name"].as_str().unwrap_or_default();
                    name.clone_into(&mut trace.process);
                }
                _ => {}
            },
            phase @ ("X" | "i") => {
                let begin = nanos(&event, "ts");
                let length = if phase == "X" {
                    nanos(&event, "dur")
                } else {
                    0
                };
                while let Some(&top) = stack.last() {
                    let top = &trace.slices[top];
                    let both = top.length == 0 && length == 0;
                    if top.end() < begin || (top.end() == begin && !both) {
                        stack.pop();
                    } else {
                        break;
                    }
                }
                let overlapped = stack.iter().map(|s| &trace.slices[*s]);
                let overlapped = overlapped.filter(|s| begin < s.end() && begin + length > s.end());
                for other in overlapped {
                    trace.complaints.push(format!(
                        "{} at {begin}+{length} overlaps {} at {}+{}",
                        event["name"], other.name, other.begin, other.length
                    ));
                }
                let parent = stack.last().copied();
                stack.push(trace.slices.len());
                trace.slices.push(Slice {
                    name: text("name"),
                    category: text("cat"),
                    thread,
                    begin,
                    length,
                    parent,
                    args: event["args"].clone(),
                });
            }
            phase @ ("s" | "f") => {
                let key = (id(&event), text("cat"), text("name"));
                let Some(&top) = stack.last() else {
                    trace.complaints.push(format!("{event} is in no box"));
                    continue;
                };
                if phase == "s" {
                    if open.insert(key, top).is_some() {
                        trace.complaints.push(format!("{event} began before"));
                    }
                } else if event["bp"] != "e" {
                    trace
                        .complaints
                        .push(format!("{event} binds to what follows"));
                } else if let Some(from) = open.remove(&key) {
                    trace.flows.push(Flow {
                        kind: key.1,
                        from,
                        to: top,
                    });
                } else {
                    trace.complaints.push(format!("{event} never began"));
                }
            }
            "C" => {
                let value = event["args"]["value"].as_f64().unwrap_or(f64::NAN);
                trace.counters.entry(text("name")).or_default().push(value);
            }
            other => trace
                .complaints
                .push(format!("{other} is no phase used here")),
        }
    }
    let dangling = open.len();
    if dangling > 0 {
        trace
            .complaints
            .push(format!("{dangling} arrows never end"));
    }
    trace
}

impl Trace {
    /// The boxes of a category.
    pub fn of<'a>(&'a self, category: &'a str) -> impl Iterator<Item = (usize, &'a Slice)> {
        self.slices
            .iter()
            .enumerate()
            .filter(move |(_, s)| s.category == category)
    }

    /// The boxes of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (usize, &'a Slice)> {
        self.slices
            .iter()
            .enumerate()
            .filter(move |(_, s)| s.name == name)
    }

    /// Whether `inner` is somewhere inside `outer`.
    pub fn within(&self, inner: usize, outer: usize) -> bool {
        let mut at = self.slices[inner].parent;
        while let Some(parent) = at {
            if parent == outer {
                return true;
            }
            at = self.slices[parent].parent;
        }
        false
    }
}
