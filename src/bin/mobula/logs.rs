//! `mobula logs`: what the worker processes of a running program printed last, and go on to print.
//!
//! Invariant: a line is shown once while it is followed, and lines that went by between two looks are counted. Shown as
//! [`clean`](crate::show::clean) leaves it. Left out: what the program itself prints, which goes to its own output.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::time::Duration;

use mobula::inspect::{Part, Query, Snapshot, Worker};
use serde_json::json;

use crate::Failure;
use crate::attached::{Attached, failure, print};
use crate::show::{clean, number};

/// How often somebody who follows looks.
const OFTEN: Duration = Duration::from_millis(100);
/// The most lines that one look brings of each worker; a program keeps fewer.
const MOST: usize = 10_000;

/// Shows what the worker processes of a running program printed last.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula logs\n  \
    mobula logs --worker 4250 --lines 100\n  \
    mobula logs --follow --task resize\n  \
    mobula logs --follow --actor Simulator --json")]
pub struct Args {
    #[command(flatten)]
    attached: Attached,

    /// Only the worker with this process id
    #[arg(long, value_name = "PID")]
    worker: Option<u32>,

    /// Only workers that run a task with this in its function's path
    #[arg(long, value_name = "PART", conflicts_with = "actor")]
    task: Option<String>,

    /// Only workers that hold an actor with this in its type's path or its name
    #[arg(long, value_name = "PART")]
    actor: Option<String>,

    /// At most so many lines of each; a program keeps a few dozen
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: u32,

    /// Go on with what they print, until the program ends
    #[arg(short, long, conflicts_with = "watch")]
    follow: bool,
}

impl Args {
    fn query(&self, lines: usize) -> Query {
        let mut query = Query::of(&[Part::Workers]).limit(10_000).lines(lines);
        query.id = self.worker.map(u64::from);
        query
    }

    fn wants(&self, worker: &Worker) -> bool {
        let runs = worker.runs.as_deref().unwrap_or_default();
        match (&self.task, &self.actor) {
            (Some(part), _) => !worker.actor && runs.contains(part.as_str()),
            (_, Some(part)) => worker.actor && runs.contains(part.as_str()),
            _ => true,
        }
    }
}

pub fn run(args: &Args) -> Result<(), Failure> {
    if args.follow {
        return follow(args);
    }
    let query = args.query(args.lines as usize);
    let only = |mut s: Snapshot| {
        s.workers.items.retain(|w| args.wants(w));
        s
    };
    args.attached
        .look(&query, |s| only(s).workers, |s| text(&only(s.clone())))
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

/// Line by line, as they come.
fn follow(args: &Args) -> Result<(), Failure> {
    let mut client = args.attached.client()?;
    let mut seen = Seen::default();
    let mut query = args.query(args.lines as usize);
    loop {
        let snapshot = client.snapshot(&query).map_err(failure)?;
        let mut out = String::new();
        for worker in &snapshot.workers.items {
            let (skipped, lines) = seen.news(worker);
            // What is not wanted is known all the same: it is not new when the worker runs something else.
            if !args.wants(worker) {
                continue;
            }
            if skipped > 0 && !args.attached.json {
                let n = number(skipped);
                let _ = writeln!(out, "[{}] ... {n} lines went by ...", worker.pid);
            }
            for line in lines {
                let _ = match args.attached.json {
                    true => {
                        let said = json!({ "worker": worker.pid, "runs": worker.runs, "line": line, "skipped": skipped });
                        writeln!(out, "{said}")
                    }
                    false => writeln!(out, "[{}] {}", worker.pid, clean(line)),
                };
            }
        }
        if !out.is_empty() {
            print(&out)?;
        }
        // What comes later is all wanted; the bound is what the program keeps.
        query = args.query(MOST);
        let there = snapshot.workers.items.iter().map(|w| w.pid).collect();
        seen.forget_all_but(&there);
        std::thread::sleep(OFTEN);
    }
}

/// How many lines of each worker were seen.
#[derive(Default)]
struct Seen {
    lines: HashMap<u32, u64>,
    begun: bool,
}

impl Seen {
    /// The lines that are new, and how many before them are not there any more.
    fn news<'a>(&mut self, worker: &'a Worker) -> (u64, &'a [String]) {
        let Some(printed) = worker.printed else {
            return (0, &[]); // it cannot be told now; the next look tells
        };
        let lines = worker.lines.as_slice();
        let new = match self.lines.insert(worker.pid, printed) {
            Some(before) if before <= printed => printed - before,
            // At first what was asked for; later a worker that is new is new from its first line.
            None if !self.begun => return (0, lines),
            _ => printed,
        };
        let there = (lines.len() as u64).min(new);
        (new - there, &lines[lines.len() - there as usize..])
    }

    /// A process id may come again for another worker.
    fn forget_all_but(&mut self, there: &HashSet<u32>) {
        self.begun = true;
        self.lines.retain(|pid, _| there.contains(pid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(lines: &[&str], printed: Option<u64>) -> Worker {
        let mut worker = Worker::default();
        worker.pid = 7;
        worker.lines = lines.iter().map(|l| (*l).to_owned()).collect();
        worker.printed = printed;
        worker
    }

    #[test]
    fn lines_are_shown_once_and_gaps_are_counted() {
        let mut seen = Seen::default();
        assert_eq!(seen.news(&worker(&["b", "c"], Some(3))).1, ["b", "c"]);
        seen.begun = true;
        let same = worker(&["a", "b", "c"], Some(3));
        assert_eq!(seen.news(&same), (0, &[][..]));
        let more = worker(&["b", "c", "d", "e"], Some(5));
        assert_eq!(seen.news(&more).1, ["d", "e"]);
        assert_eq!(seen.news(&worker(&[], None)), (0, &[][..]));
        let many = worker(&["y", "z"], Some(12));
        assert_eq!((seen.news(&many).0, seen.news(&many).0), (5, 0));
        // A worker that begins while it is followed is new from its first line.
        let other = Worker::default();
        assert_eq!(seen.news(&other), (0, &[][..]));
        let mut other = worker(&["first"], Some(1));
        other.pid = 8;
        assert_eq!(seen.news(&other).1, ["first"]);
        // A process id that came again and has printed less.
        assert_eq!(seen.news(&worker(&["q"], Some(1))).1, ["q"]);
    }
}
