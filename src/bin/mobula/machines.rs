//! `mobula status` of launchers: the machines, what of them is free, and which jobs hold the rest.
//!
//! Invariant: what others wrote is shown without control characters. Left out: what a job's calls do, which `status` of its
//! program shows.

use std::fmt::Write;

use mobula::launch::{Demand, Guest, Machine, Past};
use serde_json::{Map, Value, json};

use crate::Failure;
use crate::attached::print;
use crate::run::whom;
use crate::show::{amount, clean, rows, table};

/// Jobs of the past that people are shown.
const SHOWN: usize = 8;

/// Shows them once.
pub fn run(address: Option<&str>, token: Option<&str>, as_json: bool) -> Result<(), Failure> {
    let (addr, token) = whom(address, token)?;
    let (machines, past) = Guest::enter(addr, &token)?.list()?;
    match as_json {
        true => print(&json!({ "machines": machines.iter().map(machine).collect::<Vec<_>>(), "jobs": past.iter().map(job).collect::<Vec<_>>() }).to_string()),
        false => print(&text(&machines, &past)),
    }
}

fn amounts(demand: &Demand) -> Value {
    let mut all = Map::new();
    all.insert("cpu".to_owned(), demand.cpu.to_f64().into());
    all.insert("gpu".to_owned(), demand.gpu.to_f64().into());
    all.extend(
        demand
            .custom()
            .iter()
            .map(|(name, n)| (name.clone(), n.to_f64().into())),
    );
    Value::Object(all)
}

fn machine(m: &Machine) -> Value {
    let jobs = m.jobs.iter().map(|j| json!({ "job": format!("{:016x}", j.job), "name": j.name, "holds": amounts(&j.holds), "pid": j.pid }));
    json!({
        "name": m.name, "address": m.addr.to_string(), "head": m.head, "arch": m.arch, "libc": m.libc,
        "labels": m.labels.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "whole": amounts(&m.whole), "left": amounts(&m.left), "waiting": m.waiting, "jobs": jobs.collect::<Vec<_>>(),
    })
}

fn job(p: &Past) -> Value {
    json!({ "job": format!("{:016x}", p.job), "args": p.args, "submitted": p.submitted, "state": p.state })
}

fn of(left: &Demand, whole: &Demand) -> String {
    let custom = |name: &str| {
        left.custom()
            .iter()
            .find(|(n, _)| n == name)
            .map_or(0.0, |(_, n)| n.to_f64())
    };
    let mut text = format!(
        "{} of {} cpu",
        amount(left.cpu.to_f64()),
        amount(whole.cpu.to_f64())
    );
    if !whole.gpu.is_zero() {
        text += &format!(
            ", {} of {} gpu",
            amount(left.gpu.to_f64()),
            amount(whole.gpu.to_f64())
        );
    }
    for (name, n) in whole.custom() {
        text += &format!(
            ", {} of {} {}",
            amount(custom(name)),
            amount(n.to_f64()),
            clean(name)
        );
    }
    text
}

fn text(machines: &[Machine], past: &[Past]) -> String {
    let mut t = table(&["machine", "address", "free", "wait", "labels", "libc"]);
    for m in machines {
        let labels: Vec<String> = m
            .labels
            .iter()
            .map(|(name, value)| clean(&format!("{name}={value}")))
            .collect();
        let name = clean(&m.name) + if m.head { " (first)" } else { "" };
        let libc = clean(&format!("{} {}", m.arch, m.libc));
        t.add_row([
            name,
            m.addr.to_string(),
            of(&m.left, &m.whole),
            m.waiting.to_string(),
            labels.join(","),
            libc,
        ]);
    }
    let mut out = rows(&t, "no machines");
    let mut t = table(&["job", "machine", "holds", "process"]);
    for m in machines {
        for j in &m.jobs {
            let pid = if j.pid == 0 {
                String::new()
            } else {
                j.pid.to_string()
            };
            t.add_row([
                clean(&j.name),
                clean(&m.name),
                clean(&j.holds.to_string()),
                pid,
            ]);
        }
    }
    // Writing to a string does not fail.
    let _ = write!(out, "\n{}", rows(&t, "no jobs"));
    if !past.is_empty() {
        let mut t = table(&["what ran last", "state"]);
        for p in past.iter().take(SHOWN) {
            t.add_row([clean(&p.args.join(" ")), clean(&p.state)]);
        }
        let _ = write!(out, "\n{}", rows(&t, ""));
    }
    out
}
