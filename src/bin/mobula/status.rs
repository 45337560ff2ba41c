//! `mobula status`: one screen about a running program.
//!
//! Invariant: fits a screen whatever the program does. Left out: lists, which have commands of their own.

use std::fmt::Write;

use mobula::inspect::{Part, Query, Snapshot};

use crate::Failure;
use crate::attached::Attached;
use crate::show::{ago, amount, bytes, clean, number, rows, span, table};

/// Shows what a running program does: calls, resources, memory, its busiest functions, its latest errors; or, with --machines
/// or --address, the machines of launchers and the jobs on them.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula status\n  \
    mobula status --pid 4242 --watch\n  \
    mobula status --machines\n  \
    mobula status --address 10.0.0.1 --token mobula1-...\n  \
    mobula status --json | jq .counts.running")]
pub struct Args {
    #[command(flatten)]
    attached: Attached,

    /// The machines that this machine's launcher is one of
    #[cfg(feature = "cluster")]
    #[arg(long, conflicts_with_all = ["pid", "watch"])]
    machines: bool,

    /// The machines whose first launcher is at this address
    #[cfg(feature = "cluster")]
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["pid", "watch"])]
    address: Option<String>,

    /// What the first launcher printed [default: that of this machine's launcher; or the variable MOBULA_TOKEN]
    #[cfg(feature = "cluster")]
    #[arg(long, value_name = "TOKEN", requires = "address")]
    token: Option<String>,
}

/// Functions and errors shown.
const SHOWN: usize = 8;

pub fn run(args: &Args) -> Result<(), Failure> {
    #[cfg(feature = "cluster")]
    if args.machines || args.address.is_some() {
        return crate::machines::run(
            args.address.as_deref(),
            args.token.as_deref(),
            args.attached.json,
        );
    }
    let query = Query::of(&[Part::Nodes, Part::Functions, Part::Errors]).limit(SHOWN);
    args.attached.look(&query, |snapshot| snapshot, text)
}

fn text(s: &Snapshot) -> String {
    let mut out = String::new();
    let (p, c) = (&s.program, &s.counts);
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{} (process {}), Mobula {}, up {}, {} of memory, {} of CPU time",
        clean(&p.name),
        p.pid,
        p.version,
        ago(s.taken, p.started),
        bytes(p.resident_bytes),
        span(p.cpu_micros as f64)
    );
    let _ = writeln!(
        out,
        "calls      {} submitted, {} finished, {} failed, {} cancelled, {} tried again; {} a second",
        number(c.submitted),
        number(c.finished),
        number(c.failed),
        number(c.cancelled),
        number(c.retried),
        number(c.per_second.round() as u64)
    );
    let _ = writeln!(
        out,
        "now        {} running, {} queued, {} wait for resources, {} for arguments; {} actors",
        number(c.running),
        number(c.queued),
        number(c.waiting_resources),
        number(c.waiting_arguments),
        number(c.actors)
    );
    let away: Vec<String> = s
        .nodes
        .items
        .iter()
        .filter(|n| n.away)
        .map(|n| clean(&n.name))
        .collect();
    if !away.is_empty() {
        let _ = writeln!(
            out,
            "cluster    {} other nodes: {}",
            number(away.len() as u64),
            away.join(", ")
        );
    }
    for node in s.nodes.items.iter().filter(|n| !n.away) {
        let _ = writeln!(
            out,
            "node       {}: {} executors ({} busy, {} blocked, {} idle)",
            clean(&node.name),
            node.executors,
            node.busy,
            node.blocked,
            node.idle
        );
        let resources: Vec<String> = node
            .resources
            .iter()
            .map(|r| {
                format!(
                    "{} of {} {} free",
                    amount(r.free),
                    amount(r.total),
                    clean(&r.name)
                )
            })
            .collect();
        let _ = writeln!(out, "resources  {}", resources.join(", "));
        let store = &node.store;
        let _ = write!(
            out,
            "store      {} of {} in {} objects",
            bytes(store.used),
            bytes(store.capacity),
            number(store.objects)
        );
        if store.moved_bytes > 0 {
            let _ = write!(
                out,
                "; {} in {} objects on disk",
                bytes(store.spilled_bytes),
                number(store.spilled_objects)
            );
        }
        out.push('\n');
    }
    if !s.functions.items.is_empty() {
        let mut t = table(&[
            "function",
            "calls",
            "failed",
            "running",
            "half take",
            "99 % take",
        ]);
        for f in &s.functions.items {
            let time = |t: Option<f64>| t.map_or_else(|| "?".to_owned(), span);
            t.add_row([
                clean(&f.name),
                number(f.calls),
                number(f.failed),
                number(f.running),
                time(f.p50),
                time(f.p99),
            ]);
        }
        let _ = write!(out, "\n{}", rows(&t, ""));
        if s.functions.left_out > 0 {
            let _ = writeln!(out, "(and {} more)", number(s.functions.left_out));
        }
    }
    if !s.errors.items.is_empty() {
        let mut t = table(&["failed", "how", "times", "last", "cause"]);
        for e in &s.errors.items {
            let mut cause = clean(&e.cause);
            if cause.chars().count() > 100 {
                cause = cause.chars().take(100).collect::<String>() + " ...";
            }
            let last = format!("{} ago", ago(s.taken, e.last));
            t.add_row([
                clean(&e.function),
                clean(&e.kind),
                number(e.count),
                last,
                cause,
            ]);
        }
        let _ = write!(out, "\n{}", rows(&t, ""));
    }
    out
}
