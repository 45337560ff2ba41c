//! The calls that have not ended: which run, which wait, and for what.
//!
//! Running calls are glimpses of what each thread publishes. Calls that wait for resources are read off the ledger,
//! those that wait for arguments off their list. Calls in queues are taken out, looked at and put back, at most
//! [`PEEKED`] for one look: which call runs first is promised to nobody.
//!
//! Invariant: calls taken out of a queue come back, or fail if the runtime closes meanwhile. Left out: calls in mailboxes,
//! which only their drainer may touch.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::cell::{self, Phase, RawRef, Record};
use super::super::engine::Engine;
use super::super::entry::FnEntry;
use super::super::executor::steal;
use super::super::local::Local;
use crate::base::query::Query;
use crate::base::snapshot::{Id, List, Micros, Task, TaskState};

/// The most queued calls that are looked at for one snapshot.
pub const PEEKED: usize = 4096;
/// The most waiting calls whose places in line are worked out for one snapshot.
const IN_LINE: usize = 1024;

impl Engine {
    /// The calls that have not ended, as far as they can be seen.
    pub(super) fn tasks_now(
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
pub(super) struct Running {
    pub(super) id: Id,
    pub(super) entry: &'static FnEntry,
    pub(super) since: Option<Micros>,
    /// The call that it waits for, and which runs on its own thread meanwhile.
    pub(super) runs: Option<Id>,
    /// It waits for some call on its own thread.
    pub(super) blocks: bool,
    /// The call that it sleeps for.
    pub(super) awaits: Option<Id>,
    pub(super) actor: Option<Id>,
    /// The thread or the process that runs it.
    pub(super) place: String,
    /// It is what an executor does now.
    pub(super) executor: bool,
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
