//! `mobula list`: the tasks, actors, objects, workers, nodes, functions or errors of a running program.
//!
//! Invariant: what is asked for is filtered by the program itself, so that a list costs what it shows. Left out: totals,
//! which `status` and `memory` have.

use clap::{Subcommand, ValueEnum};
use mobula::inspect::{ActorState, History, Id, Kept, Part, Place, Query, Snapshot, TaskState};

use crate::Failure;
use crate::attached::Attached;
use crate::show::{ago, amount, bytes, clean, left_out, number, rows, span, table};

/// Lists the tasks, actors, objects, workers, nodes, functions or errors of a running program.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    mobula list tasks --state running\n  \
    mobula list tasks --function resize --watch\n  \
    mobula list actors --name hits --json\n  \
    mobula list objects --limit 20")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Calls that have not ended: what runs where, what waits, and for what
    #[command(after_help = "Examples:\n  \
        mobula list tasks\n  \
        mobula list tasks --state waiting-resources\n  \
        mobula list tasks --id 0x10000000007 --json")]
    Tasks(Tasks),
    /// Actors: what each does, how many calls it has, how often it was restarted, why it died
    #[command(after_help = "Examples:\n  \
        mobula list actors --state dead\n  \
        mobula list actors --function app::Counter --limit 1000")]
    Actors(Actors),
    /// Objects in the store, largest first: their size, what pins them, where they were made
    #[command(after_help = "Examples:\n  \
        mobula list objects\n  \
        mobula list objects --function 'result of app::load'")]
    Objects(Objects),
    /// Worker processes: what each runs, and its memory
    #[command(after_help = "Examples:\n  mobula list workers --watch 2")]
    Workers(Plain),
    /// Nodes: their resources and what of them is free
    #[command(after_help = "Examples:\n  mobula list nodes --json")]
    Nodes(Plain),
    /// Remote functions: how often they were called, how long they take
    #[command(after_help = "Examples:\n  mobula list functions --function resize")]
    Functions(Plain),
    /// Failures, latest first, with their causes
    #[command(after_help = "Examples:\n  mobula list errors --limit 3")]
    Errors(Plain),
}

/// Options of every list.
#[derive(clap::Args)]
struct Plain {
    #[command(flatten)]
    attached: Attached,

    /// Only what has this in its function's, type's or origin's path
    #[arg(long, value_name = "PART")]
    function: Option<String>,

    /// Only what has this in its name
    #[arg(long, value_name = "PART")]
    name: Option<String>,

    /// Only what has this id; for workers, this process id
    #[arg(long, value_name = "ID")]
    id: Option<Id>,

    /// At most so many; up to 10,000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

#[derive(clap::Args)]
struct Tasks {
    #[command(flatten)]
    plain: Plain,

    /// Only those in this state
    #[arg(long)]
    state: Option<TaskIs>,
}

#[derive(clap::Args)]
struct Actors {
    #[command(flatten)]
    plain: Plain,

    /// Only those in this state
    #[arg(long)]
    state: Option<ActorIs>,
}

#[derive(clap::Args)]
struct Objects {
    #[command(flatten)]
    plain: Plain,

    /// Only those whose bytes are there
    #[arg(long)]
    state: Option<ObjectIs>,
}

/// A state as a value on the command line.
macro_rules! states {
    ($name:ident, $of:ident { $($state:ident),+ }) => {
        #[derive(Clone, Copy, ValueEnum)]
        enum $name { $($state),+ }

        impl $name {
            fn name(self) -> &'static str {
                match self { $($name::$state => $of::$state.name()),+ }
            }
        }
    };
}

states!(
    TaskIs,
    TaskState {
        Running,
        Blocked,
        Queued,

        WaitingResources,
        WaitingArguments
    }
);
states!(
    ActorIs,
    ActorState {
        Starting,
        Idle,
        Running,
        Queued,
        Dead
    }
);
states!(
    ObjectIs,
    Place {
        Record,
        Store,
        Spilled
    }
);

impl Plain {
    fn query(&self, part: Part) -> Query {
        let mut query = Query::of(&[part]).limit(self.limit as usize);
        query.function.clone_from(&self.function);
        query.name.clone_from(&self.name);
        query.id = self.id.map(|id| id.0);
        query
    }
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let in_state = |plain: &Plain, part, state: Option<&str>| {
        let mut query = plain.query(part);
        query.state = state.map(str::to_owned);
        query
    };
    match &args.what {
        What::Tasks(a) => {
            let query = in_state(&a.plain, Part::Tasks, a.state.map(TaskIs::name));
            a.plain.attached.look(&query, |s| s.tasks, tasks)
        }
        What::Actors(a) => {
            let query = in_state(&a.plain, Part::Actors, a.state.map(ActorIs::name));
            a.plain.attached.look(&query, |s| s.actors, actors)
        }
        What::Objects(a) => {
            let query = in_state(&a.plain, Part::Objects, a.state.map(ObjectIs::name));
            a.plain.attached.look(&query, |s| s.objects, objects)
        }
        What::Workers(a) => a
            .attached
            .look(&a.query(Part::Workers), |s| s.workers, workers),
        What::Nodes(a) => a.attached.look(&a.query(Part::Nodes), |s| s.nodes, nodes),
        What::Functions(a) => {
            a.attached
                .look(&a.query(Part::Functions), |s| s.functions, functions)
        }
        What::Errors(a) => a
            .attached
            .look(&a.query(Part::Errors), |s| s.errors, errors),
    }
}

fn tasks(s: &Snapshot) -> String {
    let mut t = table(&["id", "function", "state", "for", "where", "actor", "why"]);
    for task in &s.tasks.items {
        let mut function = clean(&task.function);
        if task.attempt > 1 {
            function += &format!(" (attempt {})", task.attempt);
        }
        t.add_row([
            task.id.to_string(),
            function,
            task.state.to_string(),
            task.since
                .map_or_else(String::new, |since| ago(s.taken, since)),
            clean(task.runs_on.as_deref().unwrap_or_default()),
            task.actor.map_or_else(String::new, |id| id.to_string()),
            clean(task.why.as_deref().unwrap_or_default()),
        ]);
    }
    rows(&t, "no tasks") + &left_out(s.tasks.left_out, s.tasks.incomplete)
}

fn actors(s: &Snapshot) -> String {
    let mut t = table(&[
        "id", "type", "name", "state", "calls", "restarts", "log", "kept", "runs", "died of",
    ]);
    for a in &s.actors.items {
        let calls = match (a.pending, a.max_pending) {
            (Some(n), Some(max)) => format!("{} of {}", number(n), number(max.into())),
            (Some(n), None) => number(n),
            (None, _) => "?".to_owned(),
        };
        t.add_row([
            a.id.to_string(),
            clean(&a.type_name),
            clean(a.name.as_deref().unwrap_or_default()),
            a.state.to_string(),
            calls,
            format!("{} of {}", a.restarts, a.max_restarts),
            a.history.map_or_else(String::new, log),
            a.kept
                .as_ref()
                .map_or_else(String::new, |k| kept(s.taken, k)),
            clean(&a.running.join(", ")),
            clean(a.cause.as_deref().unwrap_or_default()),
        ]);
    }
    rows(&t, "no actors") + &left_out(s.actors.left_out, s.actors.incomplete)
}

/// What would run again if the actor's process died.
fn log(h: History) -> String {
    let since = match h.saved {
        0 => String::new(),
        saved => format!(", saved after {} ({})", number(saved), bytes(h.state_bytes)),
    };
    format!("{} calls, {}{since}", number(h.logged), bytes(h.log_bytes))
}

/// By whom it would be made again if this node died, and why it is here.
fn kept(taken: u64, k: &Kept) -> String {
    let mut text = format!(
        "incarnation {}, {} of {} backups",
        k.incarnation,
        k.backups.len(),
        k.replicas
    );
    if let Some(at) = k.saved_at {
        text += &format!(", saved {} ago", ago(taken, at));
    }
    if let Some(order) = k.durable {
        text += &format!(", durable up to call {}", number(order));
    }
    if let Some(why) = &k.not_durable {
        text += &format!(", no durable checkpoint: {}", clean(why));
    }
    if let Some(death) = &k.last_death {
        text += &format!(", came since {}", clean(death));
    }
    text
}

fn objects(s: &Snapshot) -> String {
    let mut t = table(&["at", "bytes", "where", "in use", "made by"]);
    for o in &s.objects.items {
        t.add_row([
            o.id.to_string(),
            bytes(o.bytes),
            o.place.to_string(),
            if o.pins == Some(0) { "no" } else { "yes" }.to_owned(),
            clean(&o.origin),
        ]);
    }
    rows(&t, "no objects") + &left_out(s.objects.left_out, s.objects.incomplete)
}

fn workers(s: &Snapshot) -> String {
    let mut t = table(&["process", "runs", "for", "memory", "limit"]);
    for w in &s.workers.items {
        let size = |n: Option<u64>| n.map_or_else(String::new, bytes);
        let age = |at: Option<u64>| at.map_or_else(String::new, |at| ago(s.taken, at));
        t.add_row([
            w.pid.to_string(),
            clean(w.runs.as_deref().unwrap_or("nothing")),
            age(w.since),
            size(w.resident_bytes),
            size(w.memory_limit),
        ]);
    }
    rows(&t, "no worker processes") + &left_out(s.workers.left_out, s.workers.incomplete)
}

fn nodes(s: &Snapshot) -> String {
    // Of other machines it is known what they have and what of that is free, and not what they do.
    let cluster = s.nodes.items.iter().any(|n| n.id.is_some());
    let mut columns = vec!["node", "executors", "busy", "blocked", "free", "store"];
    if cluster {
        columns.extend(["id", "address", "by", "labels"]);
    }
    let mut t = table(&columns);
    for n in &s.nodes.items {
        let amounts = n.resources.iter().map(|r| {
            let (free, total) = (amount(r.free), amount(r.total));
            format!("{free} of {total} {}", clean(&r.name))
        });
        let amounts = amounts.collect::<Vec<_>>().join(", ");
        let name = clean(&n.name) + if n.draining { " (leaving)" } else { "" };
        let mut row = match n.away {
            true => vec![name, "".into(), "".into(), "".into(), amounts, "".into()],
            false => vec![
                name,
                number(n.executors),
                number(n.busy),
                number(n.blocked),
                amounts,
                format!("{} of {}", bytes(n.store.used), bytes(n.store.capacity)),
            ],
        };
        if cluster {
            let labels: Vec<String> = n
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            row.push(clean(n.id.as_deref().unwrap_or_default()));
            row.push(clean(n.address.as_deref().unwrap_or_default()));
            let by = match (n.away, n.near) {
                (false, _) => "",
                (true, true) => "socket",
                (true, false) => "network",
            };
            row.push(by.to_owned());
            row.push(clean(&labels.join(",")));
        }
        t.add_row(row);
    }
    rows(&t, "no nodes") + &left_out(s.nodes.left_out, s.nodes.incomplete)
}

fn functions(s: &Snapshot) -> String {
    let mut t = table(&[
        "function",
        "calls",
        "failed",
        "running",
        "half take",
        "99 % take",
        "together",
        "at",
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
            span(f.busy_micros),
            clean(&f.at),
        ]);
    }
    rows(&t, "nothing was called") + &left_out(s.functions.left_out, s.functions.incomplete)
}

fn errors(s: &Snapshot) -> String {
    let mut t = table(&["failed", "how", "times", "last", "call", "cause"]);
    for e in &s.errors.items {
        t.add_row([
            clean(&e.function),
            clean(&e.kind),
            number(e.count),
            format!("{} ago", ago(s.taken, e.last)),
            e.call.map_or_else(String::new, |id| id.to_string()),
            clean(&e.cause),
        ]);
    }
    rows(&t, "nothing failed") + &left_out(s.errors.left_out, s.errors.incomplete)
}
