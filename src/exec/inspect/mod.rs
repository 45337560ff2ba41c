//! A look at the running program from outside: what runs, what waits and why, who holds what.
//!
//! Invariant: a look stops no thread and holds no lock for longer than some thousand entries take; what it
//! takes out of a queue comes back. Left out: calls that have not ended (`tasks`), and who asks (`node`).

mod tasks;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::actor;
use super::books::{self, Sums};
use super::engine::Engine;
use super::entry::{self, Kind};
use super::local::Local;
use crate::base::query::{Part, Query};
use crate::base::snapshot::{
    Counts, Function, Id, List, Micros, Node, Object, OriginGroup, Place, Program, Resource,
    Snapshot, StoreNow, Task, TaskState, Worker,
};
use tasks::Running;

/// The most objects that are looked at for one snapshot.
const OBJECTS: u64 = 200_000;
/// A rate is measured over at least this time.
const RATE_OVER: Duration = Duration::from_millis(200);
/// The most calls that are remembered from one look to the next.
const REMEMBERED: usize = 20_000;

/// Now, by the machine's clock.
pub fn now() -> Micros {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as Micros)
}

/// What is kept from one look to the next.
#[derive(Debug)]
pub struct Looks {
    started: Micros,
    /// When calls were counted, how many had ended by then, and how many per second before that.
    counted: (Instant, u64),
    rate: Option<f64>,
    /// In which state a call was seen, and since when.
    seen: HashMap<u64, (TaskState, Micros)>,
}

impl Looks {
    /// Nobody has looked yet.
    pub fn new() -> Looks {
        Looks {
            started: now(),
            counted: (Instant::now(), 0),
            rate: None,
            seen: HashMap::new(),
        }
    }

    /// Calls per second, since about the last look.
    fn per_second(&mut self, ended: u64) -> f64 {
        let (at, before) = self.counted;
        let passed = at.elapsed();
        if passed >= RATE_OVER || self.rate.is_none() {
            let rate = ended.saturating_sub(before) as f64 / passed.as_secs_f64().max(1e-6);
            if passed >= RATE_OVER {
                self.counted = (Instant::now(), ended);
                self.rate = Some(rate);
            }
            return rate;
        }
        self.rate.unwrap_or(0.0)
    }

    /// Fills in since when each call is in its state.
    fn remember(&mut self, tasks: &mut [Task], now: Micros) {
        let mut seen = HashMap::with_capacity(tasks.len());
        for task in tasks.iter_mut().take(REMEMBERED) {
            let known = self.seen.get(&task.id.0).filter(|(s, _)| *s == task.state);
            let since = task.since.or(known.map(|(_, since)| *since));
            seen.insert(task.id.0, (task.state, since.unwrap_or(now)));
            task.since = since;
        }
        self.seen = seen;
    }
}

impl Engine {
    /// A look at the program. Some tens of microseconds, and about a tenth of one for each entry looked at.
    pub fn inspect(self: &Arc<Engine>, local: &Local, query: &Query) -> Snapshot {
        let taken = now();
        let sums = self.sums();
        let mut running = self.glimpses(taken);
        let polled = self.under_way(taken, &mut running);
        let (waiting_resources, amounts) = {
            let a = self.admission.lock();
            (a.ledger.queued() as u64, a.ledger.amounts())
        };
        let (ended, failed) = sums.ended();
        let (started, per_second) = {
            let mut looks = self.looks.lock();
            (looks.started, looks.per_second(ended))
        };
        let mut snapshot = Snapshot {
            taken,
            parts: query.parts.clone(),
            program: program(started),
            counts: Counts {
                submitted: sums.submitted,
                finished: ended,
                failed,
                cancelled: sums.cancelled,
                retried: sums.retried,
                running: running.len() as u64 + polled,
                queued: self.queued_tasks(),
                waiting_resources,
                waiting_arguments: self.waiting.count(),
                per_second,
                actors: actor::count(),
            },
            ..Snapshot::default()
        };
        if query.wants(Part::Nodes) {
            let mut nodes = vec![self.node(&running, amounts)];
            if let Some(far) = self.far() {
                far.describe(&mut nodes);
            }
            for node in nodes {
                if query.takes_name(Some(&node.name)) {
                    snapshot.nodes.offer(query.bound(), || node);
                }
            }
        }
        if query.wants(Part::Functions) {
            snapshot.functions = functions(&sums, &running, query);
        }
        if query.wants(Part::Tasks) {
            snapshot.tasks = self.tasks_now(local, running.clone(), query);
            let mut looks = self.looks.lock();
            looks.remember(&mut snapshot.tasks.items, taken);
        }
        if query.wants(Part::Actors) {
            snapshot.actors = actor::list(query, local.generation());
            for actor in &mut snapshot.actors.items {
                let here = running.iter().filter(|r| r.actor == Some(actor.id));
                let names = here.map(|r| r.entry.name.to_owned());
                actor.running.extend(names.take(8));
            }
        }
        if query.wants(Part::Objects) {
            snapshot.origins = self.origins(query);
            snapshot.objects = self.objects(query);
        }
        if query.wants(Part::Workers) {
            snapshot.workers = self.workers_now(query, taken);
        }
        if query.wants(Part::Errors) {
            snapshot.errors = self.mishaps.list(query);
        }
        snapshot
    }

    /// The counts of all threads, those that ended included.
    fn sums(&self) -> Sums {
        let outboxes = self.outboxes.read();
        let mut sums = self.past.lock().clone();
        outboxes.iter().for_each(|o| sums.add(&o.books));
        sums
    }

    /// What runs on each thread now.
    fn glimpses(&self, taken: Micros) -> Vec<Running> {
        let clock = books::clock();
        let since = |began: u64| taken.saturating_sub(clock.saturating_sub(began) / 1000);
        let outboxes = self.outboxes.read();
        let mut all = Vec::new();
        for o in outboxes.iter() {
            let glimpse = o.books.glimpse();
            let calls = &glimpse.calls;
            for (i, seen) in calls.iter().enumerate() {
                let kind = seen.entry.kind;
                let method = !matches!(kind, Kind::Task | Kind::AsyncTask | Kind::Object);
                let runs = calls.get(i + 1).map(|inner| Id(inner.call));
                let innermost = runs.is_none() && glimpse.deeper == 0;
                all.push(Running {
                    id: Id(seen.call),
                    entry: seen.entry,
                    since: seen.began.map(since),
                    runs,
                    blocks: glimpse.deeper > 0 || runs.is_some(),
                    awaits: glimpse.awaits.filter(|_| innermost).map(Id),
                    actor: glimpse.actor.filter(|_| method).map(Id),
                    place: match glimpse.process.filter(|_| innermost) {
                        Some(pid) => format!("process {pid}"),
                        None => o.thread.to_string(),
                    },
                    executor: o.executor && innermost,
                });
            }
        }
        all
    }

    /// Async calls to functions that wait or run: up to [`tasks::PEEKED`] are added, and the number of others is given.
    #[cfg(feature = "async")]
    fn under_way(&self, taken: Micros, running: &mut Vec<Running>) -> u64 {
        let clock = books::clock();
        let (some, all) = self.futures.under_way(tasks::PEEKED);
        let more = all - some.len();
        running.extend(some.into_iter().map(|(id, entry, began)| Running {
            id: Id(id),
            entry,
            since: Some(taken.saturating_sub(clock.saturating_sub(began) / 1000)),
            runs: None,
            blocks: false,
            awaits: None,
            actor: None,
            place: "the async runtime".to_owned(),
            executor: false,
        }));
        more as u64
    }

    #[cfg(not(feature = "async"))]
    fn under_way(&self, _: Micros, _: &mut Vec<Running>) -> u64 {
        0
    }

    fn queued_tasks(&self) -> u64 {
        let mut queued = self.tasks.len() + self.started.len();
        queued += self
            .outboxes
            .read()
            .iter()
            .map(|o| o.tasks.len())
            .sum::<usize>();
        queued as u64
    }

    fn node(
        &self,
        running: &[Running],
        amounts: Vec<(String, crate::base::Units, crate::base::Units)>,
    ) -> Node {
        let executors = self.threads() as u64;
        let mine = || running.iter().filter(|r| r.executor);
        let blocked = mine().filter(|r| r.awaits.is_some()).count() as u64;
        let busy = mine().count() as u64 - blocked;
        let stats = self.store().stats();
        let spilled = self.store().spill_stats();
        // Which are pinned is found out by looking at each of them.
        let pins = stats.objects <= OBJECTS;
        Node {
            name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            resources: amounts
                .into_iter()
                .map(|(name, total, free)| Resource {
                    name,
                    total: total.to_f64(),
                    free: free.to_f64(),
                })
                .collect(),
            executors,
            busy,
            blocked,
            idle: executors.saturating_sub(busy + blocked),
            store: StoreNow {
                capacity: stats.capacity,
                used: stats.used,
                objects: stats.objects,
                reserved: stats.reserved,
                prefaulted: stats.prefaulted,
                pinned_bytes: if pins { self.store().pinned() } else { 0 },
                spilled_bytes: spilled.bytes,
                spilled_objects: spilled.objects,
                moved_bytes: spilled.moved,
                restored_bytes: spilled.restored,
                waiting: spilled.waiting as u64,
            },
            ..Node::default()
        }
    }

    fn origins(&self, query: &Query) -> List<OriginGroup> {
        let mut list = List::default();
        for holder in self.store().holders(usize::MAX) {
            let origin = holder.origin.to_string();
            if query.takes_function(&origin) {
                list.offer(query.bound(), || OriginGroup {
                    origin,
                    bytes: holder.bytes,
                    objects: holder.objects,
                    spilled_bytes: holder.spilled,
                });
            }
        }
        list
    }

    /// The worker processes, those that run something first.
    fn workers_now(&self, query: &Query, taken: Micros) -> List<Worker> {
        let all = self.workers.all();
        let mut told: Vec<_> = all.iter().map(|w| (w, w.watched.told())).collect();
        told.sort_by_key(|(_, t)| (t.runs.is_none(), t.pid));
        let mut list = List::default();
        for (worker, told) in told {
            let runs = told.runs.as_deref().map(str::to_owned);
            let takes = query.takes_id(told.pid.into())
                && query.takes_function(runs.as_deref().unwrap_or_default())
                && query.takes_name(runs.as_deref());
            if takes {
                list.offer(query.bound(), || {
                    let (lines, printed) = worker.watched.last_lines(query.lines).unzip();
                    Worker {
                        pid: told.pid,
                        runs,
                        actor: told.actor,
                        since: told
                            .since
                            .map(|s| taken.saturating_sub(s.as_micros() as Micros)),
                        resident_bytes: told.memory,
                        memory_limit: told.bound,
                        lines: lines.unwrap_or_default(),
                        printed,
                    }
                });
            }
        }
        list
    }

    /// The largest objects in the store's memory.
    fn objects(&self, query: &Query) -> List<Object> {
        let (found, seen) = self
            .store()
            .largest(query.bound(), OBJECTS, |offset, origin| {
                let place = Place::Store.name();
                query.takes_id(offset)
                    && query.takes_state(place)
                    && (query.function.is_none() || query.takes_function(&origin.to_string()))
            });
        let mut list = List {
            left_out: seen.matching.saturating_sub(found.len() as u64),
            incomplete: !seen.all || self.store().spill_stats().objects > 0,
            ..List::default()
        };
        for (offset, bytes, origin, pinned) in found {
            list.items.push(Object {
                id: Id(offset),
                bytes,
                origin: origin.to_string(),
                references: None,
                pins: (!pinned).then_some(0),
                place: Place::Store,
            });
        }
        list
    }
}

fn functions(sums: &Sums, running: &[Running], query: &Query) -> List<Function> {
    let mut called: Vec<_> = entry::numbered()
        .iter()
        .zip(&sums.functions[1..])
        .map(|(entry, sum)| {
            let runs = running.iter().filter(|r| std::ptr::eq(r.entry, *entry));
            (entry, sum, runs.count() as u64)
        })
        .filter(|(entry, sum, runs)| sum.calls + runs > 0 && query.takes_function(entry.name))
        .collect();
    called.sort_by_key(|(entry, sum, _)| (std::cmp::Reverse(sum.calls), entry.name));
    let mut list = List::default();
    for (entry, sum, running) in called {
        list.offer(query.bound(), || Function {
            name: entry.name.to_owned(),
            at: format!("{}:{}", entry.file, entry.line),
            calls: sum.calls,
            failed: sum.failed,
            running,
            times: books::in_micros(&sum.slots),
            p50: books::quantile(&sum.slots, 0.5),
            p99: books::quantile(&sum.slots, 0.99),
            samples: sum.samples,
            busy_micros: sum.nanos as f64 / 1e3,
        });
    }
    list
}

fn program(started: Micros) -> Program {
    let name = std::env::current_exe()
        .ok()
        .and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    Program {
        name: name.unwrap_or_else(|| "unknown".to_owned()),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started,
        resident_bytes: resident().unwrap_or(0),
        cpu_micros: cpu_micros().unwrap_or(0),
    }
}

fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

fn cpu_micros() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 1_000_000 / rustix::param::clock_ticks_per_second().max(1))
}
