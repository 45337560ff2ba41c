//! A look at the running program from outside: what runs, what waits and why, who holds what.
//!
//! Running calls are glimpses of what each thread publishes. Calls that wait for resources are read off the ledger.
//! Calls in queues are taken out, looked at and put back, at most [`PEEKED`] for one look: which call runs first is
//! promised to nobody.
//!
//! Invariant: a look stops no thread and holds no lock for longer than some thousand entries take; calls that it takes
//! out of a queue come back, or fail if the runtime closes meanwhile. Left out: who asks (`node`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::actor;
use super::books::{self, Sums};
use super::cell::{self, Phase, RawRef, Record};
use super::engine::Engine;
use super::entry::{self, FnEntry, Kind};
use super::executor::steal;
use super::local::Local;
use crate::base::query::{Part, Query};
use crate::base::snapshot::{
    Counts, Function, Id, List, Micros, Node, Object, OriginGroup, Place, Program, Resource,
    Snapshot, StoreNow, Task, TaskState, Worker,
};

/// The most queued calls that are looked at for one snapshot.
pub const PEEKED: usize = 4096;
/// The most waiting calls whose places in line are worked out for one snapshot.
const IN_LINE: usize = 1024;
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
            let node = self.node(&running, amounts);
            if query.takes_name(Some(&node.name)) {
                snapshot.nodes.items.push(node);
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

    /// Async calls to functions that wait or run: up to [`PEEKED`] are added, and the number of others is given.
    #[cfg(feature = "async")]
    fn under_way(&self, taken: Micros, running: &mut Vec<Running>) -> u64 {
        let clock = books::clock();
        let (some, all) = self.futures.under_way(PEEKED);
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
                list.offer(query.bound(), || Worker {
                    pid: told.pid,
                    runs,
                    actor: told.actor,
                    since: told
                        .since
                        .map(|s| taken.saturating_sub(s.as_micros() as Micros)),
                    resident_bytes: told.memory,
                    memory_limit: told.bound,
                    lines: worker.watched.last_lines(query.lines),
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

    /// The calls that have not ended, as far as they can be seen.
    fn tasks_now(
        self: &Arc<Engine>,
        local: &Local,
        running: Vec<Running>,
        query: &Query,
    ) -> List<Task> {
        let mut all = Found::new(query);
        running.into_iter().for_each(|r| all.offer(r.into_task()));
        if all.may_take(TaskState::WaitingResources) {
            self.in_line(&mut all);
        }
        if all.may_take(TaskState::WaitingArguments) {
            self.without_arguments(&mut all);
        }
        if all.may_take(TaskState::Queued) {
            self.peek(local, &mut all);
        }
        all.list
    }

    /// Calls that wait for resources, in their order.
    fn in_line(&self, all: &mut Found<'_>) {
        // Records are let go after the lock.
        let mut records = Vec::new();
        let a = self.admission.lock();
        let waiting = a.ledger.queued();
        let looked = match all.query.id {
            Some(id) => a.ledger.waiting(id).map(|w| (id, w)).into_iter().collect(),
            None => a.ledger.line(IN_LINE),
        };
        let holders = a.ledger.holders();
        let (n, unseen) = (looked.len(), waiting.saturating_sub(looked.len()));
        for (id, why) in looked {
            let Some(record) = a.parked.get(&id) else {
                continue;
            };
            records.push(record.clone());
            let mut task = Queued::of(record).task(TaskState::WaitingResources);
            task.why = Some(why.to_string());
            task.waits_for = holders.iter().take(8).map(|(id, _)| Id(*id)).collect();
            all.offer(task);
        }
        drop(a);
        if n > 0 && all.query.id.is_none() {
            all.unseen(unseen);
        }
    }

    /// Calls that wait for arguments.
    fn without_arguments(&self, all: &mut Found<'_>) {
        let (notes, more) = self.waiting.list();
        for note in notes {
            let named = || note.named.into_iter().flatten();
            let names: Vec<String> = named()
                .map(|(id, entry)| format!("{} ({})", entry.name, Id(id)))
                .collect();
            let mut why = format!("waits for the results of {}", names.join(", "));
            if note.missing as usize > names.len() {
                why += &format!(" and of {} more", note.missing as usize - names.len());
            }
            all.offer(Task {
                id: Id(note.call),
                function: note.entry.name.to_owned(),
                state: TaskState::WaitingArguments,
                attempt: 1,
                actor: Some(note.actor).filter(|id| *id != 0).map(Id),
                why: Some(why),
                waits_for: named().map(|(id, _)| Id(id)).collect(),
                ..Task::default()
            });
        }
        all.unseen(more as usize);
    }

    /// Looks at queued calls.
    fn peek(self: &Arc<Engine>, local: &Local, all: &mut Found<'_>) {
        let outboxes = self.outboxes();
        let unfiltered = all.query.function.is_none() && all.query.id.is_none();
        let most = if unfiltered {
            all.query.bound().min(PEEKED)
        } else {
            PEEKED
        };
        let mut out = PutBack(self, local, Vec::new());
        for queue in outboxes.iter().map(|o| &o.tasks) {
            // No more than there were: they are put back where they may be found again.
            out.take(queue.len().min(most - out.2.len()), || queue.steal());
        }
        out.take(self.tasks.len().min(most - out.2.len()), || {
            self.tasks.steal()
        });
        let unseen = self.queued_tasks();
        // Entries of calls that a waiting caller ran itself are only thrown away when they come up.
        let queued = out.2.iter();
        let queued = queued.filter(|r| cell::phase(r.state()) == Phase::Queued);
        let seen: Vec<Queued> = queued.map(|r| Queued::of(r)).collect();
        drop(out);
        for (i, queued) in seen.into_iter().enumerate() {
            let mut task = queued.task(TaskState::Queued);
            task.why = Some(format!("waits for a thread, behind {i} others or so"));
            all.offer(task);
        }
        all.unseen(unseen as usize);
    }
}

/// Calls taken out of queues: they go back, whatever happens.
struct PutBack<'a>(&'a Arc<Engine>, &'a Local, Vec<RawRef>);

impl PutBack<'_> {
    fn take(&mut self, n: usize, mut next: impl FnMut() -> crossbeam_deque::Steal<RawRef>) {
        for _ in 0..n {
            match steal(&mut next) {
                Some(record) => self.2.push(record),
                None => break,
            }
        }
    }
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let PutBack(engine, local, taken) = self;
        if taken.is_empty() {
            return;
        }
        taken.drain(..).for_each(|r| engine.tasks.push(r));
        engine.crew.notify_injected();
        if engine.is_closing() {
            engine.drain_all(local);
        }
    }
}

/// A running call.
#[derive(Clone)]
struct Running {
    id: Id,
    entry: &'static FnEntry,
    since: Option<Micros>,
    /// The call that it waits for, and which runs on its own thread meanwhile.
    runs: Option<Id>,
    /// It waits for some call on its own thread.
    blocks: bool,
    /// The call that it sleeps for.
    awaits: Option<Id>,
    actor: Option<Id>,
    /// The thread or the process that runs it.
    place: String,
    /// It is what an executor does now.
    executor: bool,
}

impl Running {
    fn into_task(self) -> Task {
        let why = match (self.runs, self.awaits) {
            (Some(id), _) => Some(format!(
                "waits for the result of {id}, which its thread runs"
            )),
            (None, Some(id)) => Some(format!("waits for the result of {id}")),
            (None, None) => self
                .blocks
                .then(|| "waits for a call that its thread runs".into()),
        };
        Task {
            id: self.id,
            function: self.entry.name.to_owned(),
            state: match why {
                Some(_) => TaskState::Blocked,
                None => TaskState::Running,
            },
            since: self.since,
            attempt: 1,
            runs_on: Some(self.place),
            actor: self.actor,
            waits_for: self.runs.or(self.awaits).into_iter().collect(),
            why,
        }
    }
}

/// What is noted of a call that has not begun.
struct Queued {
    id: u64,
    entry: &'static FnEntry,
    attempt: u32,
    actor: Option<u64>,
}

impl Queued {
    fn of(record: &Record) -> Queued {
        let begun = record.extra().map_or(0, |e| e.attempts.load(Relaxed));
        Queued {
            id: record.id,
            entry: record.entry,
            attempt: begun + 1,
            actor: record.target().map(|a| a.id()),
        }
    }

    fn task(&self, state: TaskState) -> Task {
        Task {
            id: Id(self.id),
            function: self.entry.name.to_owned(),
            state,
            attempt: self.attempt,
            actor: self.actor.map(Id),
            ..Task::default()
        }
    }
}

/// Calls that were found, and whether they are asked for.
struct Found<'a> {
    query: &'a Query,
    list: List<Task>,
}

impl<'a> Found<'a> {
    fn new(query: &'a Query) -> Found<'a> {
        Found {
            query,
            list: List::default(),
        }
    }

    fn may_take(&self, state: TaskState) -> bool {
        self.query.takes_state(state.name())
    }

    fn offer(&mut self, task: Task) {
        let takes = self.query.takes_state(task.state.name())
            && self.query.takes_function(&task.function)
            && self.query.takes_id(task.id.0);
        if takes {
            self.list.offer(self.query.bound(), || task);
        }
    }

    /// So many were not looked at.
    fn unseen(&mut self, n: usize) {
        if n > 0 && self.query.function.is_none() && self.query.id.is_none() {
            self.list.left_out += n as u64;
        }
        self.list.incomplete |= n > 0;
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
