//! The engine: takes calls in, finds out when they may run, and settles what came of them.
//!
//! It drives two pure machines: the ledger (who may have which resources) and the parking policy. The way of a call:
//! written into a record; if references among its arguments are not there yet, it waits in their lists; if it asks
//! for more than the common task, it waits in the ledger; then it lies in a queue, until an executor or a waiting
//! caller claims it; its outcome is put into the record and whoever waits is told.
//!
//! Invariant: a record that was accepted ends in a value or an error, exactly once. Left out: how executors look for
//! work (`executor`), how callers wait (`wait`), mailboxes (`actor`).

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_deque::Injector;
use parking_lot::{Mutex, RwLock};

use super::actor::ActorRef;
use super::call::{CallError, CallWriter, Outcome, StateRef, each_input};
use super::cell::{self, Blank, Phase, RawRef, finished};
use super::crew::Crew;
use super::entry::{FnEntry, Kind, Run};
use super::local::{Local, Outbox};
use super::options::Extra;
use super::waiter::{Waiter, WaiterKind};
use crate::base::{Capacity, Error, Failure, FailureKind, Infeasible};
use crate::core::{Effect, Ledger};
use crate::store::Store;

/// The ledger and the records that wait in it, by id.
pub(super) struct Admission {
    pub(super) ledger: Ledger,
    pub(super) parked: HashMap<u64, RawRef>,
}

/// A record that may start with these GPUs, or is refused; without one, executors are told to look.
type Decision = (Option<RawRef>, Vec<u32>, Option<Error>);

/// One runtime's machinery.
pub struct Engine {
    store: Store,
    pub(super) admission: Mutex<Admission>,
    /// Executors should give their CPU back between two tasks.
    pub(super) pressed: AtomicBool,
    common_infeasible: Option<Arc<Infeasible>>,
    outboxes: RwLock<Vec<Arc<Outbox>>>,
    /// Counts changes of `outboxes`.
    pub(super) enlisted: AtomicU64,
    pub(super) tasks: Injector<RawRef>,
    pub(super) actors: Injector<ActorRef>,
    /// Calls whose resources the ledger has granted.
    pub(super) started: Injector<RawRef>,
    pub(super) crew: Crew,
    closing: AtomicBool,
    /// Living actors by name.
    pub(super) names: Mutex<HashMap<Arc<str>, ActorRef>>,
    /// Async calls under way.
    #[cfg(feature = "async")]
    pub(super) futures: super::tasks::Futures,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("closing", &self.closing).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with nothing to do and no threads yet.
    pub fn new(capacity: Capacity, store: Store) -> Arc<Engine> {
        let cpus = capacity.cpu.to_f64().ceil().max(1.0) as usize;
        let ledger = Ledger::new(capacity);
        Arc::new(Engine {
            store,
            common_infeasible: ledger.common_task_infeasible().map(Arc::new),
            admission: Mutex::new(Admission { ledger, parked: HashMap::new() }),
            pressed: AtomicBool::new(false),
            outboxes: RwLock::new(Vec::new()),
            enlisted: AtomicU64::new(0),
            tasks: Injector::new(),
            actors: Injector::new(),
            started: Injector::new(),
            crew: Crew::new(cpus),
            closing: AtomicBool::new(false),
            names: Mutex::new(HashMap::new()),
            #[cfg(feature = "async")]
            futures: super::tasks::Futures::default(),
        })
    }

    /// Where large values live.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether no more work is taken.
    #[inline]
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    pub(super) fn enlist(&self, outbox: &Arc<Outbox>) {
        self.outboxes.write().push(Arc::clone(outbox));
        self.enlisted.fetch_add(1, Ordering::Release);
    }

    pub(super) fn delist(&self, outbox: &Arc<Outbox>) {
        self.outboxes.write().retain(|o| !Arc::ptr_eq(o, outbox));
        self.enlisted.fetch_add(1, Ordering::Release);
    }

    pub(super) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.outboxes.read().clone()
    }

    /// How many jobs were ever pushed by threads, and how many are queued now.
    pub(super) fn look(&self) -> (u64, usize) {
        let mut queued = self.tasks.len() + self.actors.len() + self.started.len();
        let mut pushes = 0;
        for o in self.outboxes.read().iter() {
            pushes += o.pushes.load(Ordering::Relaxed);
            queued += o.tasks.len() + o.actors.len();
        }
        (pushes, queued)
    }

    pub(super) fn inject_task(&self, task: RawRef) {
        self.tasks.push(task);
        self.crew.notify_injected();
    }

    pub(super) fn inject_actor(&self, actor: ActorRef) {
        self.actors.push(actor);
        self.crew.notify_injected();
    }

    /// Takes a call to a function in; returns its result, which is not there yet.
    #[inline]
    pub fn submit(
        self: &Arc<Engine>,
        local: &Local,
        entry: &'static FnEntry,
        writer: CallWriter<'_>,
        extra: Option<Box<Extra>>,
    ) -> RawRef {
        let special = extra.is_some();
        let waits = writer.refers || extra.as_ref().is_some_and(|e| e.demand.is_some());
        if let Some(why) = self.refusal(extra.as_deref()) {
            return cell::failed(self.blank(local, entry, 1, Phase::Failed, None), why);
        }
        let direct = !waits && !entry.is_async();
        let (refs, phase) = if direct { (2, Phase::Queued) } else { (1, Phase::Waiting) };
        let blank = self.blank(local, entry, refs, phase, if special { extra } else { None });
        let (record, refers) = writer.finish(blank, entry.result_size);
        if direct {
            if cell::phase(record.state()) == Phase::Failed {
                return record;
            }
            // SAFETY: the record was made with a second count, which the queue takes.
            let queued = unsafe { RawRef::from_raw(std::ptr::from_ref(&*record).cast_mut()) };
            self.push_task(local, queued);
            return record;
        }
        self.submit_slowly(local, &record, refers);
        record
    }

    #[inline]
    fn blank(
        &self,
        local: &Local,
        entry: &'static FnEntry,
        refs: u32,
        phase: Phase,
        extra: Option<Box<Extra>>,
    ) -> Blank {
        Blank {
            entry,
            refs,
            phase,
            caller: local.caller(),
            id: local.next_id(),
            target: None,
            extra,
            caps: None,
        }
    }

    #[inline]
    fn refusal(&self, extra: Option<&Extra>) -> Option<Error> {
        match extra.and_then(|e| e.demand.as_ref()) {
            None => self.common_infeasible.as_ref().map(|why| Error::Infeasible(Arc::clone(why))),
            Some(demand) => {
                let lacks = self.admission.lock().ledger.capacity().lacks(demand);
                lacks.map(Error::from)
            }
        }
    }

    #[inline(never)]
    fn submit_slowly(self: &Arc<Engine>, local: &Local, record: &RawRef, refers: bool) {
        if finished(record.state()) {
            return;
        }
        if refers {
            self.await_inputs(local, record);
        } else {
            self.inputs_ready(local, record.clone());
        }
    }

    /// Enters the record into the lists of its inputs that are not there yet.
    pub(super) fn await_inputs(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        // One more than there are, so that it cannot become ready while this goes on.
        record.deps.store(1, Ordering::Relaxed);
        // SAFETY: the phase is `Waiting` and cannot move on before the count is zero, except by cancellation, which
        // leaves the arguments alone until the record is freed or its claimer drops them: this thread made the
        // record and nobody else has a reference yet.
        unsafe {
            each_input(record, |input| {
                if finished(input.state()) {
                    return;
                }
                record.deps.fetch_add(1, Ordering::Relaxed);
                let key = std::ptr::from_ref(&**record).addr();
                let waiter = Waiter::new(key, WaiterKind::Dependent(record.clone()));
                if input.add_waiter(waiter).is_err() {
                    record.deps.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        self.input_done(local, record.clone());
    }

    fn input_done(self: &Arc<Engine>, local: &Local, record: RawRef) {
        if record.deps.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inputs_ready(local, record);
        }
    }

    /// All references among the arguments are settled, well or not.
    fn inputs_ready(self: &Arc<Engine>, local: &Local, record: RawRef) {
        if let Some(actor) = record.target() {
            let actor = actor.clone();
            if record.entry.kind == Kind::Constructor {
                actor.constructor_ready(local, &record);
            } else {
                actor.call_ready(local, &record);
            }
            return;
        }
        let demands = record.extra().is_some_and(|e| e.demand.is_some());
        // A call that can only fail needs no resources to do so.
        if demands && !self.some_input_failed(&record) {
            self.admit(local, record);
        } else if record.make_ready() {
            self.push_task(local, record);
        }
    }

    fn some_input_failed(&self, record: &RawRef) -> bool {
        let mut failed = false;
        // SAFETY: `Waiting` with no missing inputs: only this thread moves it on; a cancellation that claims it
        // concurrently does not touch the arguments before the last reference goes, and `record` is one.
        unsafe {
            each_input(record, |i| failed |= cell::phase(i.state()) == Phase::Failed);
        }
        failed
    }

    /// Asks the ledger.
    fn admit(self: &Arc<Engine>, local: &Local, record: RawRef) {
        let Some(extra) = record.extra() else { return };
        let Some(demand) = extra.demand.clone() else { return };
        let (id, priority) = (record.id, extra.priority);
        self.with_ledger(local, |a, out| {
            a.parked.insert(id, record.clone());
            a.ledger.submit(id, demand, priority, out);
        });
    }

    /// Changes the ledger and does what follows.
    pub(super) fn with_ledger<R>(
        self: &Arc<Engine>,
        local: &Local,
        change: impl FnOnce(&mut Admission, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let mut todo = Vec::new();
        let result = {
            let mut a = self.admission.lock();
            let result = change(&mut a, &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Start { task, gpus } => {
                        if let Some(record) = a.parked.remove(&task) {
                            todo.push((Some(record), gpus, None));
                        }
                    }
                    Effect::Refuse { task, why } => {
                        if let Some(record) = a.parked.remove(&task) {
                            todo.push((Some(record), Vec::new(), Some(Error::from(why))));
                        }
                    }
                    Effect::Offer => todo.push((None, Vec::new(), None)),
                }
            }
            let pressed = a.ledger.pressed() || a.ledger.free_cpu_steps() < 0;
            self.pressed.store(pressed, Ordering::Relaxed);
            result
        };
        if !todo.is_empty() {
            self.follow(local, todo);
        }
        result
    }

    /// What follows from the ledger's decisions, outside its lock.
    fn follow(self: &Arc<Engine>, local: &Local, todo: Vec<Decision>) {
        for (record, gpus, refused) in todo {
            match (record, refused) {
                (None, _) => self.crew.notify_injected(),
                (Some(record), Some(why)) => {
                    self.fail_waiting(local, &record, why);
                }
                (Some(record), None) => {
                    if let Some(extra) = record.extra() {
                        let _ = extra.gpus.set(gpus);
                    }
                    if let Some(actor) = record.target() {
                        let actor = actor.clone();
                        actor.admitted(local, &record);
                    } else if !record.make_ready() {
                        let id = record.id;
                        self.with_ledger(local, |a, out| a.ledger.finish(id, out));
                    } else if record.entry.is_async() {
                        self.launch(local, record);
                    } else {
                        self.started.push(record);
                        self.crew.notify_started(self);
                    }
                }
            }
        }
    }

    /// A call that is ready goes to this thread's queue, or to the async runtime.
    #[inline]
    pub(super) fn push_task(self: &Arc<Engine>, local: &Local, record: RawRef) {
        // While closing, async calls go where the others do: to be failed one after the other, not one inside the other.
        if record.entry.is_async() && !self.is_closing() {
            self.launch(local, record);
            return;
        }
        let before = local.tasks.len() + local.actors.len();
        local.tasks.push(record);
        local.count_push();
        self.crew.notify(before);
        if self.is_closing() {
            self.drain_local(local);
        }
    }

    #[cfg(feature = "async")]
    fn launch(self: &Arc<Engine>, _local: &Local, record: RawRef) {
        super::tasks::launch_task(self, record);
    }

    #[cfg(not(feature = "async"))]
    fn launch(self: &Arc<Engine>, _local: &Local, _record: RawRef) {
        unreachable!("async entries cannot be made without the feature");
    }

    /// Runs a call on this thread. The caller has claimed it.
    #[inline]
    pub(super) fn execute(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        let Run::Sync(run) = record.entry.run else {
            // Queued while closing, and taken before it was failed.
            self.release(local, record);
            return self.end_with(local, record, Arc::new(Error::ShutDown));
        };
        if let Some(extra) = record.extra() {
            extra.begin_attempt();
        }
        let outcome = {
            let _hold = local.hold();
            let before = local.current.replace(std::ptr::from_ref(&**record));
            // SAFETY: claimed; tasks have no state.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
                run(local, record, StateRef(std::ptr::null_mut()))
            }));
            local.current.set(before);
            outcome
        };
        self.settle(local, record, outcome);
    }

    /// Puts what came of a claimed call into its record and tells whoever waits.
    #[inline]
    pub(super) fn settle(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        outcome: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        if let Ok(Ok(())) = outcome {
            if record.extra().is_some() {
                self.release(local, record);
            }
            if let Some(waiters) = record.finish(Phase::Done) {
                self.fire(local, Some(waiters), false);
            }
            return;
        }
        self.settle_failure(local, record, outcome);
    }

    #[cold]
    #[inline(never)]
    fn settle_failure(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        outcome: Result<Outcome, Box<dyn Any + Send>>,
    ) {
        let attempts =
            record.extra().map_or(1, |e| e.attempts.load(Ordering::Relaxed).max(1));
        let error = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(CallError::Runtime(e))) => e,
            Ok(Err(CallError::Function(mut failure))) => {
                failure.function = record.entry.name;
                failure.location = format!("{}:{}", record.entry.file, record.entry.line);
                failure.attempts = attempts;
                Error::TaskFailed(Arc::new(failure))
            }
            Err(payload) => {
                let mut failure = super::panics::failure(payload);
                let retries = record.extra().map_or(0, |e| e.panic_retries);
                let cancelled = record.state() & cell::CANCEL != 0;
                if attempts <= retries && record.target().is_none() && !cancelled && !self.is_closing() {
                    // Its resources stay with it; another thread may take the next attempt.
                    record.unclaim();
                    self.push_again(local, record.clone());
                    return;
                }
                failure.function = record.entry.name;
                failure.attempts = attempts;
                Error::TaskFailed(Arc::new(failure))
            }
        };
        self.release(local, record);
        self.end_with(local, record, Arc::new(error));
    }

    fn push_again(self: &Arc<Engine>, local: &Local, record: RawRef) {
        if record.extra().is_some_and(|e| e.demand.is_some()) && !record.entry.is_async() {
            self.started.push(record);
            self.crew.notify_started(self);
        } else {
            self.push_task(local, record);
        }
    }

    /// Gives back what the ledger holds for a call.
    fn release(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        if record.target().is_none() && record.extra().is_some_and(|e| e.demand.is_some()) {
            let id = record.id;
            self.with_ledger(local, |a, out| a.ledger.finish(id, out));
        }
    }

    /// Ends a claimed call with an error.
    pub(super) fn end_with(self: &Arc<Engine>, local: &Local, record: &RawRef, error: Arc<Error>) {
        // SAFETY: the caller holds the claim and has finished with the arguments.
        unsafe {
            record.drop_args();
            record.set_error(error);
        }
        let waiters = record.finish(Phase::Failed);
        self.fire(local, waiters, true);
    }

    /// Ends a call that waits for something, if it still does.
    pub(super) fn fail_waiting(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        error: Error,
    ) -> bool {
        let claimed = record.claim_waiting();
        if claimed {
            self.end_with(local, record, Arc::new(error));
        }
        claimed
    }

    /// Ends a call that is queued, if nobody has claimed it.
    pub(super) fn fail_queued(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        error: Error,
    ) -> bool {
        let claimed = record.claim();
        if claimed {
            self.release(local, record);
            self.end_with(local, record, Arc::new(error));
        }
        claimed
    }

    /// Tells the waiters, oldest first.
    #[inline(never)]
    fn fire(self: &Arc<Engine>, local: &Local, newest: Option<Box<Waiter>>, failed: bool) {
        let mut oldest: *mut Waiter = std::ptr::null_mut();
        let mut next = newest.map_or(std::ptr::null_mut(), Box::into_raw);
        while !next.is_null() {
            // SAFETY: the list is ours: its links are boxes leaked by `add_waiter`, turned around here.
            unsafe {
                let after = std::mem::replace(&mut (*next).next, oldest);
                oldest = next;
                next = after;
            }
        }
        while !oldest.is_null() {
            // SAFETY: as above; each is boxed again exactly once.
            let waiter = unsafe { Box::from_raw(oldest) };
            oldest = waiter.next;
            match waiter.kind {
                WaiterKind::Thread(thread) => thread.unpark(),
                WaiterKind::Waker(waker) => waker.wake(),
                WaiterKind::Latch(latch) => latch.hit(failed),
                WaiterKind::Dependent(record) => self.input_done(local, record),
                WaiterKind::Call(f) => f(),
            }
        }
    }

    /// Cancels a call; what came of it.
    pub fn cancel(self: &Arc<Engine>, local: &Local, record: &RawRef) -> Cancel {
        let why = || Error::Cancelled { function: record.entry.name };
        if record.claim_waiting() {
            let id = record.id;
            if record.extra().is_some_and(|e| e.demand.is_some()) {
                self.with_ledger(local, |a, out| {
                    a.parked.remove(&id);
                    a.ledger.cancel(id, out)
                });
            }
            self.cancel_claimed(local, record, why());
            return Cancel::Dequeued;
        }
        if record.claim() {
            self.release(local, record);
            self.cancel_claimed(local, record, why());
            return Cancel::Dequeued;
        }
        if finished(record.state()) || finished(record.set_flag(cell::CANCEL)) {
            return Cancel::TooLate;
        }
        #[cfg(feature = "async")]
        self.futures.wake(record.id);
        Cancel::Requested
    }

    /// As [`end_with`](Self::end_with), but leaves the arguments: others may be looking at which inputs there are.
    fn cancel_claimed(self: &Arc<Engine>, local: &Local, record: &RawRef, error: Error) {
        // SAFETY: claimed. The error's place is apart from the arguments, which `set_error` leaves to be freed with the
        // record: see `Record::set_error`.
        unsafe { record.set_error_keeping_args(Arc::new(error)) };
        let waiters = record.finish(Phase::Failed);
        self.fire(local, waiters, true);
        if let Some(actor) = record.target() {
            // It may be held for its arguments, with later calls of its caller behind it.
            let actor = actor.clone();
            actor.call_ready(local, record);
        }
    }

    /// Wakes an executor if there is work: whoever submitted it will not run it.
    pub fn hurry(&self) {
        if self.look().1 > 0 {
            self.crew.notify_injected();
        }
    }

    /// The living actor with this name.
    pub fn named(&self, name: &str) -> Option<ActorRef> {
        self.names.lock().get(name).filter(|a| a.life() != super::actor::Life::Dead).cloned()
    }

    /// Starts the executors.
    pub fn start(self: &Arc<Engine>, generation: u64) {
        self.crew.start(self, generation);
    }

    /// Stops taking work, fails what waits, and waits for what runs, until `deadline`. How many threads still run then.
    pub fn shut_down(self: &Arc<Engine>, local: &Local, deadline: std::time::Instant) -> usize {
        self.close();
        self.crew.wake_all();
        let parked: Vec<RawRef> =
            self.admission.lock().parked.drain().map(|(_, record)| record).collect();
        for record in parked {
            if record.target().is_none() {
                self.fail_waiting(local, &record, Error::ShutDown);
            }
        }
        let names: Vec<ActorRef> = self.names.lock().values().cloned().collect();
        for actor in names {
            super::actor::kill(&actor);
        }
        self.drain_all(local);
        #[cfg(feature = "async")]
        self.futures.shut_down();
        let left = self.crew.join(deadline);
        self.drain_all(local);
        left
    }

    /// Fails everything in all queues.
    fn drain_all(self: &Arc<Engine>, local: &Local) {
        use crossbeam_deque::Steal;
        loop {
            self.drain_local(local);
            let mut any = false;
            for queue in [&self.tasks, &self.started] {
                while let Steal::Success(task) = queue.steal() {
                    any = true;
                    self.fail_queued(local, &task, Error::ShutDown);
                }
            }
            while let Steal::Success(actor) = self.actors.steal() {
                any = true;
                actor.close(local);
            }
            for outbox in self.outboxes() {
                while let Steal::Success(task) = outbox.tasks.steal() {
                    any = true;
                    self.fail_queued(local, &task, Error::ShutDown);
                }
                while let Steal::Success(actor) = outbox.actors.steal() {
                    any = true;
                    actor.close(local);
                }
            }
            if !any {
                return;
            }
        }
    }

    /// How many executor threads there are.
    pub fn threads(&self) -> usize {
        self.crew.threads()
    }

    /// Runs a future on this thread, inside the async runtime.
    #[cfg(feature = "async")]
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        self.futures.block_on(future)
    }

    /// Fails everything in this thread's queues: the runtime is closing. What fails readies its dependants, which are
    /// failed by the outermost call: a long chain must not recurse.
    pub(super) fn drain_local(self: &Arc<Engine>, local: &Local) {
        if local.draining.replace(true) {
            return;
        }
        loop {
            if let Some(task) = local.tasks.pop() {
                self.fail_queued(local, &task, Error::ShutDown);
            } else if let Some(actor) = local.actors.pop() {
                actor.close(local);
            } else {
                break;
            }
        }
        local.draining.set(false);
    }
}

/// What cancelling did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It had not begun and never will.
    Dequeued,
    /// It runs, and was told.
    Requested,
    /// It had ended.
    TooLate,
}

/// A failure from an error that a remote function returned.
pub fn failure<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> CallError {
    let type_name = std::any::type_name::<E>();
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    if let Some(e @ Error::Cancelled { .. }) = error.downcast_ref::<Error>() {
        return CallError::Runtime(e.clone());
    }
    let failure = Failure::returned(&*error, type_name);
    debug_assert_eq!(failure.kind, FailureKind::Returned);
    CallError::Function(failure)
}
