//! `mobula logs`: what the worker processes of a running program printed last.
//!
//! Invariant: as [`clean`](crate::show::clean) leaves it. Left out: what the program itself prints, which goes to its own
//! output.

use std::fmt::Write;

use mobula::inspect::{Part, Query, Snapshot};

use crate::Failure;
use crate::attached::Attached;
use crate::show::clean;

/// Shows what the worker processes of a running program printed last.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula logs\n  \
    mobula logs --worker 4250 --lines 100\n  \
    mobula logs --watch")]
pub struct Args {
    #[command(flatten)]
    attached: Attached,

    /// Only the worker with this process id
    #[arg(long, value_name = "PID")]
    worker: Option<u32>,

    /// At most so many lines of each; a program keeps a few dozen
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut query = Query::of(&[Part::Workers])
        .limit(10_000)
        .lines(args.lines as usize);
    query.id = args.worker.map(u64::from);
    args.attached.look(&query, |s| s.workers, text)
}

fn text(s: &Snapshot) -> String {
    let mut out = String::new();
    for w in &s.workers.items {
        let runs = w.runs.as_deref().unwrap_or("nothing");
        // Writing to a string does not fail.
        let _ = writeln!(out, "process {} (runs {})", w.pid, clean(runs));
        if w.lines.is_empty() {
            out.push_str("    it printed nothing\n");
        }
        for line in &w.lines {
            let _ = writeln!(out, "    {}", clean(line));
        }
    }
    if out.is_empty() {
        out.push_str("no worker processes\n");
    }
    out
}
