//! The engine: takes calls in, finds out when they may run, and settles what came of them.
//!
//! It drives two pure machines: the ledger (who may have which resources) and the parking policy. The way of a call:
//! written into a record; if references among its arguments are not there yet, it waits in their lists; if it asks
//! for more than the common task, it waits in the ledger; then it lies in a queue, until an executor or a waiting
//! caller claims it; its outcome is put into the record and whoever waits is told.
//!
//! Invariant: a record that was accepted ends in a value or an error, exactly once. Left out: how executors look for
//! work (`executor`), how callers wait (`wait`), mailboxes (`actor`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crossbeam_deque::Injector;
use parking_lot::{Mutex, RwLock};

use super::actor::ActorDeath;
use super::actor::ActorRef;
use super::admission::Admission;
use super::books::Sums;
use super::call::{CallWriter, StateRef, each_input};
use super::cell::{self, Blank, Phase, RawRef, finished};
use super::crew::Crew;
use super::entry::{FnEntry, Kind, Run};
use super::events::Recording;
use super::inspect::Looks;
use super::local::{Local, Outbox};
use super::mishaps::Mishaps;
use super::notices::Notices;
use super::options::Extra;
use super::waiter::{Waiter, WaiterKind};
use super::waiting::{NAMED, Note, WaitingCalls};
use crate::base::{Capacity, Error, Strategy};
use crate::core::Ledger;
use crate::store::{Durables, Store};
use crate::trace::Recorder;

/// One runtime's machinery.
pub struct Engine {
    store: Store,
    recording: Option<Recording>,
    pub(super) admission: Mutex<Admission>,
    /// Executors should give their CPU back between two tasks.
    pub(super) pressed: AtomicBool,
    pub(super) outboxes: RwLock<Vec<Arc<Outbox>>>,
    /// What threads that ended had counted; changed under the lock of `outboxes`.
    pub(super) past: Mutex<Sums>,
    pub(super) mishaps: Mishaps,
    /// Deaths of actors, for whoever asked to hear of them.
    pub deaths: Notices<ActorDeath>,
    pub(super) waiting: WaitingCalls,
    pub(super) looks: Mutex<Looks>,
    /// Why no common call can be made.
    refuses: Option<Error>,
    /// Counts changes of `outboxes`.
    pub(super) enlisted: AtomicU64,
    pub(super) tasks: Injector<RawRef>,
    pub(super) actors: Injector<ActorRef>,
    /// Calls whose resources the ledger has granted.
    pub(super) started: Injector<RawRef>,
    pub(super) crew: Crew,
    closing: AtomicBool,
    /// Calls wait for other nodes: these are told when nothing is left to do here.
    pub(super) tells_dry: AtomicBool,
    /// For how many microseconds who has nothing to do looks on before it sleeps; see [`set_linger`](Engine::set_linger).
    pub(super) linger: AtomicU32,
    /// The other nodes, if there are any.
    pub(super) far: std::sync::OnceLock<Arc<dyn super::far::Far>>,
    /// Copies that outlive the process.
    pub(super) durables: Arc<Durables>,
    /// The placement groups.
    pub(super) groups: std::sync::OnceLock<Arc<dyn super::groups::Groups>>,
    /// Processes for isolated calls.
    pub(super) workers: super::isolate::Workers,
    /// Living actors by name.
    pub(super) names: Mutex<HashMap<Arc<str>, ActorRef>>,
    /// Async calls under way.
    #[cfg(feature = "async")]
    pub(super) futures: super::tasks::Futures,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("closing", &self.closing)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine with nothing to do and no threads yet.
    pub(crate) fn new(
        capacity: Capacity,
        store: Store,
        recording: Option<Recording>,
    ) -> Arc<Engine> {
        let cpus = capacity.cpu.to_f64().ceil().max(1.0) as usize;
        let ledger = Ledger::new(capacity);
        Arc::new(Engine {
            store,
            recording,
            refuses: ledger.common_task_infeasible().map(Error::from),
            admission: Mutex::new(Admission {
                ledger,
                parked: HashMap::new(),
                bundles: super::bundles::Bundles::default(),
            }),
            pressed: AtomicBool::new(false),
            outboxes: RwLock::new(Vec::new()),
            past: Mutex::new(Sums::new()),
            mishaps: Mishaps::default(),
            deaths: Notices::default(),
            waiting: WaitingCalls::default(),
            looks: Mutex::new(Looks::new()),
            enlisted: AtomicU64::new(0),
            tasks: Injector::new(),
            actors: Injector::new(),
            started: Injector::new(),
            crew: Crew::new(cpus),
            closing: AtomicBool::new(false),
            tells_dry: AtomicBool::new(false),
            linger: AtomicU32::new(0),
            far: std::sync::OnceLock::new(),
            durables: Arc::new(Durables::new()),
            groups: std::sync::OnceLock::new(),
            workers: super::isolate::Workers::new(cpus),
            names: Mutex::new(HashMap::new()),
            #[cfg(feature = "async")]
            futures: super::tasks::Futures::default(),
        })
    }

    /// The engine of a worker process: it takes no calls, since the node's does.
    pub(super) fn for_worker(store: Store, recording: Option<Recording>) -> Arc<Engine> {
        let mut engine = Engine::new(Capacity::default(), store, recording);
        if let Some(engine) = Arc::get_mut(&mut engine) {
            engine.refuses = Some(super::isolate::not_here());
        }
        engine
    }

    /// Why no call can be made at all.
    pub fn refuses(&self) -> Option<&Error> {
        self.refuses
            .as_ref()
            .filter(|_| super::isolate::in_worker())
    }

    /// What the program says about its worker processes, before there are any.
    pub fn set_workers(&self, settings: super::isolate::Settings) {
        self.workers.care.set(settings);
    }

    /// The worker processes there are now.
    pub fn worker_processes(&self) -> Vec<super::isolate::Told> {
        let all = self.workers.all();
        // One that has just died stays in the pool's books for a moment longer.
        let alive = all.iter().filter(|w| !w.dead());
        let mut told: Vec<_> = alive.map(|w| w.watched.told()).collect();
        told.sort_by_key(|t| t.pid);
        told
    }

    /// Where large values live.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Where what happens is recorded, if it is.
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recording.as_ref().map(|r| &r.recorder)
    }

    /// The recorder with its memory's file, for worker processes.
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
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
        let mut outboxes = self.outboxes.write();
        outboxes.retain(|o| !Arc::ptr_eq(o, outbox));
        self.past.lock().add(&outbox.books);
        drop(outboxes);
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
        let waits = writer.refers
            || extra
                .as_ref()
                .is_some_and(|e| e.demand.is_some() || e.strategy != Strategy::Default);
        if let Some(why) = self.refusal(extra.as_deref()) {
            let record = cell::failed(
                self.blank(local, &writer, entry, 1, Phase::Failed, None),
                why,
            );
            self.note_refusal(local, &record);
            return record;
        }
        let direct = !waits && !entry.is_async();
        let (refs, phase) = if direct {
            (2, Phase::Queued)
        } else {
            (1, Phase::Waiting)
        };
        let blank = self.blank(
            local,
            &writer,
            entry,
            refs,
            phase,
            if special { extra } else { None },
        );
        let (record, refers) = writer.finish(blank, entry.result_size);
        if direct {
            if cell::phase(record.state()) == Phase::Failed {
                self.note_refusal(local, &record);
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
        writer: &CallWriter<'_>,
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
            id: local.next_id(writer.begun),
            target: None,
            extra,
            caps: None,
        }
    }

    #[inline]
    fn refusal(&self, extra: Option<&Extra>) -> Option<Error> {
        match extra.and_then(|e| e.demand.as_ref()) {
            None => self.refuses.clone(),
            Some(_) if self.refuses().is_some() => self.refuses.clone(),
            Some(demand) => {
                let lacks = self.admission.lock().ledger.capacity().lacks(demand);
                match (lacks, self.far()) {
                    (Some(_), Some(far)) => far.lacks(demand),
                    (lacks, _) => lacks.map(Error::from),
                }
            }
        }
    }

    #[inline(never)]
    fn submit_slowly(self: &Arc<Engine>, local: &Local, record: &RawRef, refers: bool) {
        if finished(record.state()) {
            return self.note_refusal(local, record);
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
        let mut note = Note {
            call: record.id,
            entry: record.entry,
            actor: record.target().map_or(0, |a| a.id()),
            missing: 0,
            named: [None; NAMED],
        };
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
                    return;
                }
                if let Some(named) = note.named.get_mut(note.missing as usize) {
                    *named = Some((input.id, input.entry));
                }
                note.missing += 1;
            });
        }
        if record.deps.load(Ordering::Acquire) == 1 {
            // Nothing is missing, so nobody else counts.
            record.deps.store(0, Ordering::Relaxed);
            return self.inputs_ready(local, record.clone());
        }
        self.waiting.note(note);
        self.input_done(local, record.clone());
    }

    pub(super) fn input_done(self: &Arc<Engine>, local: &Local, record: RawRef) {
        if record.deps.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.waiting.cross_out(record.id);
            super::events::ready(local, &record, false);
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
        if super::far::leased::is_leased(&record)
            && let Some(far) = self.far()
            && !self.some_input_failed(&record)
        {
            return far.arrived(local, &record);
        }
        if record.state() & cell::FOREIGN == 0 {
            let away = match self.far() {
                _ if record.group().is_some() => self.place_in_group(local, &record),
                Some(far) => far.place(local, &record),
                None => false,
            };
            if away {
                return;
            }
        }
        self.inputs_ready_here(local, record);
    }

    /// As [`inputs_ready`](Self::inputs_ready), for a call that runs on this node.
    pub(super) fn inputs_ready_here(self: &Arc<Engine>, local: &Local, record: RawRef) {
        let demands = record.demand().is_some() && !super::far::leased::is_leased(&record);
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
            each_input(record, |i| {
                failed |= cell::phase(i.state()) == Phase::Failed
            });
        }
        failed
    }

    /// A call that is ready goes to this thread's queue, or to the async runtime.
    #[inline]
    pub(super) fn push_task(self: &Arc<Engine>, local: &Local, record: RawRef) {
        // While closing, async calls go where the others do: to be failed one after the other, not one inside the other.
        if record.is_future() && !self.is_closing() {
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
    pub(super) fn launch(self: &Arc<Engine>, _local: &Local, record: RawRef) {
        super::tasks::launch_task(self, record);
    }

    #[cfg(not(feature = "async"))]
    pub(super) fn launch(self: &Arc<Engine>, _local: &Local, _record: RawRef) {
        unreachable!("async entries cannot be made without the feature");
    }

    /// Runs a call on this thread. The caller has claimed it.
    #[inline]
    pub(super) fn execute(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        if let Some(extra) = record.extra()
            && extra.isolate
        {
            let outcome = super::isolate::driver::execute(self, local, record);
            return self.settle(local, record, Ok(outcome));
        }
        let Run::Sync(run) = record.entry.run else {
            // Queued while closing, and taken before it was failed.
            self.release(local, record);
            return self.end_with(local, record, Arc::new(Error::ShutDown));
        };
        if let Some(extra) = record.extra() {
            extra.begin_attempt();
        }
        let outcome = {
            let before = local.current.replace(std::ptr::from_ref(&**record));
            // SAFETY: claimed, and in no mailbox, so the link is ours: see `Local::each_current`.
            unsafe { record.set_outer(before) };
            let timed = local.begin(record);
            super::events::enter(local, record);
            // SAFETY: claimed; tasks have no state.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unsafe {
                run(local, record, StateRef(std::ptr::null_mut()))
            }));
            local.current.set(before);
            local.end(record, timed);
            outcome
        };
        self.settle(local, record, outcome);
    }

    /// Wakes an executor if there is work: whoever submitted it will not run it.
    pub fn hurry(&self) {
        if self.look().1 > 0 {
            self.crew.notify_injected();
        }
    }

    /// The living actor with this name.
    pub fn named(&self, name: &str) -> Option<ActorRef> {
        self.names
            .lock()
            .get(name)
            .filter(|a| a.life() != super::actor::Life::Dead)
            .cloned()
    }

    /// A handle to the living actor of this number, if it has a name.
    pub fn named_by_id(&self, id: u64) -> Option<super::actor::HandleRef> {
        let names = self.names.lock();
        let actor = names.values().find(|a| a.id() == id)?;
        super::actor::HandleRef::upgrade(actor)
    }

    /// Starts the executors.
    pub fn start(self: &Arc<Engine>, generation: u64) {
        self.crew.start(self, generation);
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
}
