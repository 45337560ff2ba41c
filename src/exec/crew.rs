//! The executors: threads that run calls and drain actors, and how they sleep.
//!
//! There are as many at work as the node has CPUs. One that blocks in a `get` lends its CPU to a spare thread, so that
//! calls waiting for calls never run out of threads. Whom to wake when is the policy's ([`crate::core::park`]).
//!
//! Invariant: a queued job is seen by somebody: by an executor at work, by a napping one within a nap, or by a sleeper
//! that its submitter wakes. Before its last sleep an executor makes every other thread's pushes visible
//! (`membarrier`) and looks once more, so that submitters need no fence.
//! Left out: what a job does.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::actor::ActorRef;
use super::cell::RawRef;
use super::engine::Engine;
use super::local::{Local, Outbox};
use crate::core::park::{self, Doze, Idlers, Look, NAP_MICROS, Spin, Wake};

/// Threads beyond which a blocked caller gets no stand-in.
const MAX_THREADS: usize = 4096;

/// What a woken executor was woken for.
const NOTHING: u8 = 0;
const TO_DOZE: u8 = 1;
const TO_WORK: u8 = 2;

/// One idle executor.
struct Bunk {
    thread: Thread,
    order: AtomicU8,
    /// It naps; else it sleeps.
    napping: AtomicU8,
}

/// All executors of an engine.
pub(super) struct Crew {
    target: usize,
    /// Idle ones by state, packed: searching, dozing, asleep, 16 bits each.
    idlers: AtomicU64,
    bunks: Mutex<Vec<Arc<Bunk>>>,
    total: AtomicUsize,
    blocked: AtomicUsize,
    generation: AtomicU64,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

const SEARCHING: u64 = 1;
const DOZING: u64 = 1 << 16;
const ASLEEP: u64 = 1 << 32;

fn unpack(word: u64) -> Idlers {
    Idlers {
        searching: (word & 0xffff) as u32,
        dozing: (word >> 16 & 0xffff) as u32,
        asleep: (word >> 32 & 0xffff) as u32,
    }
}

impl Crew {
    pub(super) fn new(target: usize) -> Crew {
        Crew {
            target,
            idlers: AtomicU64::new(0),
            bunks: Mutex::new(Vec::new()),
            total: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            threads: Mutex::new(Vec::new()),
        }
    }

    fn idlers(&self) -> Idlers {
        unpack(self.idlers.load(Ordering::Relaxed))
    }

    /// A job was pushed to a thread's queue, which held `before`.
    #[inline]
    pub(super) fn notify(&self, before: usize) {
        // The push is a plain store and this a plain load: who goes to sleep makes up for the missing fence.
        compiler_fence(Ordering::SeqCst);
        let idlers = self.idlers.load(Ordering::Relaxed);
        if idlers >> 16 != 0 {
            self.notify_slowly(before, unpack(idlers));
        }
    }

    fn notify_slowly(&self, before: usize, idlers: Idlers) {
        match park::on_submit(before, idlers) {
            Wake::None => {}
            Wake::Doze => self.wake(TO_DOZE),
            Wake::Work => self.wake(TO_WORK),
        }
    }

    /// A job was put where executors look, and no caller is about to run it.
    pub(super) fn notify_injected(&self) {
        let idlers = self.idlers();
        if idlers.searching == 0 && idlers.dozing + idlers.asleep > 0 {
            self.wake(TO_WORK);
        }
    }

    /// A call with its resources granted was queued: it may run beside whatever runs, so there must be a thread.
    pub(super) fn notify_started(&self, engine: &Arc<Engine>) {
        let idlers = self.idlers();
        if idlers.dozing + idlers.asleep > 0 {
            self.wake(TO_WORK);
        } else if idlers.searching == 0 {
            self.spawn(engine);
        }
    }

    #[cold]
    fn wake(&self, order: u8) {
        let bunk = {
            let mut bunks = self.bunks.lock();
            let napper = bunks
                .iter()
                .position(|b| b.napping.load(Ordering::Relaxed) == 1);
            let found = match (order, napper) {
                (TO_DOZE, Some(_)) => return,
                (_, Some(i)) => Some(bunks.swap_remove(i)),
                (_, None) => bunks.pop(),
            };
            let Some(bunk) = found else { return };
            let was = if bunk.napping.load(Ordering::Relaxed) == 1 {
                DOZING
            } else {
                ASLEEP
            };
            let becomes = if order == TO_WORK { SEARCHING } else { DOZING };
            self.idlers
                .fetch_add(becomes.wrapping_sub(was), Ordering::SeqCst);
            bunk.order.store(order, Ordering::Release);
            bunk
        };
        bunk.thread.unpark();
    }

    /// Starts an executor.
    pub(super) fn spawn(&self, engine: &Arc<Engine>) {
        let n = self.total.fetch_add(1, Ordering::SeqCst);
        if n >= MAX_THREADS || engine.is_closing() {
            self.total.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let engine = Arc::clone(engine);
        let spawned = std::thread::Builder::new()
            .name(format!("mobula-{n}"))
            .stack_size(super::stack::EXECUTOR_STACK)
            .spawn(move || {
                let local = Local::for_executor(&engine, generation);
                if !engine.work(&local) {
                    engine.crew.total.fetch_sub(1, Ordering::SeqCst);
                }
            });
        match spawned {
            Ok(handle) => {
                let mut threads = self.threads.lock();
                threads.retain(|t| !t.is_finished());
                threads.push(handle);
            }
            Err(_) => {
                self.total.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Starts the executors there should be.
    pub(super) fn start(&self, engine: &Arc<Engine>, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
        for _ in 0..self.target {
            self.spawn(engine);
        }
    }

    /// Wakes everybody, so that they see that the engine closes.
    pub(super) fn wake_all(&self) {
        for bunk in std::mem::take(&mut *self.bunks.lock()) {
            let was = if bunk.napping.load(Ordering::Relaxed) == 1 {
                DOZING
            } else {
                ASLEEP
            };
            self.idlers
                .fetch_add(SEARCHING.wrapping_sub(was), Ordering::SeqCst);
            bunk.order.store(TO_WORK, Ordering::Release);
            bunk.thread.unpark();
        }
    }

    /// Waits until the executors have ended, at most until `deadline`; how many have not.
    pub(super) fn join(&self, deadline: Instant) -> usize {
        let mut threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        threads.retain(|t| t.thread().id() != me);
        while !threads.is_empty() && Instant::now() < deadline {
            self.wake_all();
            threads.retain(|t| !t.is_finished());
            if !threads.is_empty() {
                std::thread::park_timeout(Duration::from_micros(200));
            }
        }
        threads.len()
    }

    /// Somebody at work is going to block: see to it that somebody else can work.
    pub(super) fn cover(&self, engine: &Arc<Engine>) {
        self.blocked.fetch_add(1, Ordering::SeqCst);
        let idlers = self.idlers();
        if idlers.searching > 0 {
            return;
        }
        if idlers.dozing + idlers.asleep > 0 {
            if engine.look().1 > 0 {
                self.wake(TO_WORK);
            }
            return;
        }
        if self.active() < self.target {
            self.spawn(engine);
        }
    }

    pub(super) fn uncover(&self) {
        self.blocked.fetch_sub(1, Ordering::SeqCst);
    }

    fn active(&self) -> usize {
        self.total
            .load(Ordering::SeqCst)
            .saturating_sub(self.blocked.load(Ordering::SeqCst))
    }

    /// Whether more executors are at work than there should be.
    fn surplus(&self) -> bool {
        let total = self.total.load(Ordering::Relaxed);
        total > self.target && total - self.blocked.load(Ordering::Relaxed).min(total) > self.target
    }

    /// Takes a thread that wants to end out of the count, if there are more than there should be: two that look at once
    /// must not both take themselves for the one too many.
    fn retire(&self) -> bool {
        let blocked = self.blocked.load(Ordering::SeqCst);
        let spare = |total: usize| total.checked_sub(1).filter(|left| left.saturating_sub(blocked) >= self.target);
        self.total.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spare).is_ok()
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

enum Job {
    /// A common call, under this thread's lease.
    Task(RawRef),
    /// A call with its own resources, or a shared method let in by its actor's gate.
    Started(RawRef),
    Actor(ActorRef),
}

/// The queues of others, as last seen: those of executors first. What a blocked executor was about to run is what it
/// waits for, likely; new work before that would block one thread after the other.
struct Others {
    seen: u64,
    outboxes: Vec<Arc<Outbox>>,
    /// How many are executors'.
    executors: usize,
    /// The user's thread at which something was found last.
    next: usize,
}

impl Engine {
    /// An executor's life. Whether it retired, and so is counted no more.
    fn work(self: &Arc<Engine>, local: &Rc<Local>) -> bool {
        set_timer_slack();
        let mut others = Others {
            seen: u64::MAX,
            outboxes: Vec::new(),
            executors: 0,
            next: 0,
        };
        let mut spin = Spin::new();
        let mut searching = false;
        let retired = loop {
            if self.is_closing() {
                break false;
            }
            match self.find(local, &mut others) {
                Some(job) => {
                    if searching {
                        searching = false;
                        self.crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
                        self.pass_search_on();
                    }
                    if matches!(job, Job::Started(_)) && !self.started.is_empty() {
                        // Calls that were let in run side by side, even if they wait for one another.
                        self.crew.notify_started(self);
                    }
                    self.run(local, job);
                    if self.pressed.load(Ordering::Relaxed) && local.leased.get() {
                        self.unlease(local);
                    }
                }
                None => {
                    if searching {
                        searching = false;
                        self.crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
                    }
                    self.unlease(local);
                    match self.idle(local, &mut spin) {
                        Idle::Look => {}
                        Idle::Search => searching = true,
                        Idle::Retire => break true,
                    }
                }
            }
        };
        if searching {
            self.crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
        }
        self.unlease(local);
        if self.is_closing() {
            self.drain_local(local);
        }
        retired
    }

    fn run(self: &Arc<Engine>, local: &Local, job: Job) {
        match job {
            Job::Actor(actor) => {
                super::actor::drain_here(self, local, &actor, None);
            }
            Job::Started(record) if record.target().is_some() => {
                super::actor::run_apart(self, local, &record);
            }
            Job::Task(record) => {
                if record.claim() {
                    self.execute(local, &record);
                }
            }
            Job::Started(record) => {
                if record.claim() {
                    self.run_started(local, &record);
                }
            }
        }
    }

    /// A call with resources of its own takes this thread, but not the CPU of a thread at common work: that one goes to
    /// another, or a call of no CPUs would keep it from everybody.
    fn run_started(self: &Arc<Engine>, local: &Local, record: &RawRef) {
        self.unlease(local);
        local.apart.set(true);
        self.crew.cover(self);
        self.execute(local, record);
        self.crew.uncover();
        local.apart.set(false);
    }

    fn find(&self, local: &Local, others: &mut Others) -> Option<Job> {
        if let Some(record) = steal(|| self.started.steal()) {
            return Some(Job::Started(record));
        }
        if let Some(actor) = local.actors.pop() {
            return Some(Job::Actor(actor));
        }
        if !local.tasks.is_empty()
            && self.lease(local)
            && let Some(task) = local.tasks.pop()
        {
            return Some(Job::Task(task));
        }
        if !self.tasks.is_empty()
            && self.lease(local)
            && let Some(task) = steal(|| self.tasks.steal_batch_and_pop(&local.tasks))
        {
            return Some(Job::Task(task));
        }
        if let Some(actor) = steal(|| self.actors.steal()) {
            return Some(Job::Actor(actor));
        }
        let enlisted = self.enlisted.load(Ordering::Acquire);
        if others.seen != enlisted {
            others.outboxes = self.outboxes();
            others.outboxes.retain(|o| !Arc::ptr_eq(o, &local.outbox));
            others.outboxes.sort_by_key(|o| !o.executor);
            others.executors = others.outboxes.partition_point(|o| o.executor);
            others.seen = enlisted;
        }
        let first = others.executors;
        let users = others.outboxes.len() - first;
        for i in 0..first + users {
            let at = if i < first { i } else { first + (others.next + i - first) % users };
            let outbox = &others.outboxes[at];
            if !outbox.tasks.is_empty()
                && self.lease(local)
                && let Some(task) = steal(|| outbox.tasks.steal_batch_and_pop(&local.tasks))
            {
                others.next = at.saturating_sub(first);
                return Some(Job::Task(task));
            }
            if let Some(actor) = steal(|| outbox.actors.steal()) {
                others.next = at.saturating_sub(first);
                return Some(Job::Actor(actor));
            }
        }
        None
    }

    /// A searcher found a job: if there is more, somebody else should look.
    fn pass_search_on(&self) {
        let idlers = self.crew.idlers();
        if idlers.searching == 0 && idlers.dozing + idlers.asleep > 0 {
            match park::on_found(self.look().1, idlers) {
                Wake::None => {}
                Wake::Doze => self.crew.wake(TO_DOZE),
                Wake::Work => self.crew.wake(TO_WORK),
            }
        }
    }

    /// A CPU for this thread, for common calls, kept until [`unlease`](Self::unlease).
    #[inline]
    pub(super) fn lease(&self, local: &Local) -> bool {
        if local.leased.get() {
            return true;
        }
        let granted = self.admission.lock().ledger.lease();
        local.leased.set(granted);
        granted
    }

    /// Gives the CPU back.
    #[inline]
    pub(super) fn unlease(self: &Arc<Engine>, local: &Local) {
        if local.leased.replace(false) {
            self.unlease_slowly(local);
        }
    }

    fn unlease_slowly(self: &Arc<Engine>, local: &Local) {
        {
            let mut a = self.admission.lock();
            if !a.ledger.pressed() && !a.ledger.wants_idle() && a.ledger.free_cpu_steps() >= 0 {
                // Nobody waits: nothing can follow from it.
                let mut none = Vec::new();
                a.ledger.unlease(&mut none);
                if none.is_empty() {
                    return;
                }
                drop(a);
                self.with_ledger(local, |_, out| out.append(&mut none));
                return;
            }
        }
        self.with_ledger(local, |a, out| a.ledger.unlease(out));
    }

    fn idle(self: &Arc<Engine>, local: &Local, spin: &mut Spin) -> Idle {
        let crew = &self.crew;
        // Search on for a moment.
        let budget = spin.budget_micros();
        if budget > 0 {
            crew.idlers.fetch_add(SEARCHING, Ordering::SeqCst);
            let until = Instant::now() + Duration::from_micros(u64::from(budget));
            let mut found = false;
            while !found && Instant::now() < until {
                std::hint::spin_loop();
                found = self.look().1 > 0;
            }
            if found {
                spin.found();
                return Idle::Search;
            }
            crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
            spin.missed();
        } else {
            spin.missed();
        }
        if self.admission.lock().ledger.wants_idle() {
            self.with_ledger(local, |a, out| a.ledger.idle(out));
            if !self.started.is_empty() {
                return Idle::Look;
            }
        }
        self.lie_down(spin)
    }

    fn lie_down(self: &Arc<Engine>, spin: &mut Spin) -> Idle {
        let crew = &self.crew;
        let (pushes, _) = self.look();
        let mut doze = Doze::new(pushes);
        let bunk = Arc::new(Bunk {
            thread: std::thread::current(),
            order: AtomicU8::new(NOTHING),
            napping: AtomicU8::new(1),
        });
        {
            let mut bunks = crew.bunks.lock();
            if crew.idlers().dozing > 0 {
                // One napper is enough.
                bunk.napping.store(0, Ordering::Relaxed);
                crew.idlers.fetch_add(ASLEEP, Ordering::SeqCst);
            } else {
                crew.idlers.fetch_add(DOZING, Ordering::SeqCst);
            }
            bunks.push(Arc::clone(&bunk));
        }
        let get_up = |state: u64| {
            let mut bunks = crew.bunks.lock();
            let Some(i) = bunks.iter().position(|b| Arc::ptr_eq(b, &bunk)) else {
                return false;
            };
            bunks.swap_remove(i);
            crew.idlers.fetch_sub(state, Ordering::SeqCst);
            true
        };
        let mut first = true;
        loop {
            if bunk.napping.load(Ordering::Relaxed) == 1 {
                std::thread::park_timeout(Duration::from_micros(NAP_MICROS));
            } else {
                // Every push before this is visible after it; every push after it sees a sleeper.
                barrier();
                if self.look().1 > 0 && get_up(ASLEEP) {
                    return Idle::Look;
                }
                let patience = if crew.surplus() {
                    Duration::from_secs(1)
                } else {
                    Duration::MAX
                };
                if patience == Duration::MAX {
                    std::thread::park();
                } else {
                    std::thread::park_timeout(patience);
                }
            }
            match bunk.order.swap(NOTHING, Ordering::Acquire) {
                TO_WORK => return Idle::Search,
                TO_DOZE => {
                    // Whoever woke it counted it as dozing and took it out of its bunk.
                    bunk.napping.store(1, Ordering::Relaxed);
                    crew.bunks.lock().push(Arc::clone(&bunk));
                    doze = Doze::new(self.look().0);
                    continue;
                }
                _ => {}
            }
            if self.is_closing() {
                let state = if bunk.napping.load(Ordering::Relaxed) == 1 {
                    DOZING
                } else {
                    ASLEEP
                };
                if get_up(state) {
                    return Idle::Look;
                }
                continue; // an order is on its way
            }
            if bunk.napping.load(Ordering::Relaxed) == 0 {
                if crew.surplus() && self.look().1 == 0 && get_up(ASLEEP) {
                    return if crew.retire() { Idle::Retire } else { Idle::Look };
                }
                continue;
            }
            let (pushes, queued) = self.look();
            match doze.on_look(pushes, queued) {
                Look::Take => {
                    if first {
                        spin.found();
                    }
                    if get_up(DOZING) {
                        return Idle::Look;
                    }
                }
                Look::Nap => {}
                Look::Sleep => {
                    let bunks = crew.bunks.lock();
                    if bunks.iter().any(|b| Arc::ptr_eq(b, &bunk)) {
                        bunk.napping.store(0, Ordering::Relaxed);
                        crew.idlers
                            .fetch_add(ASLEEP.wrapping_sub(DOZING), Ordering::SeqCst);
                    }
                }
            }
            first = false;
        }
    }
}

enum Idle {
    /// Look again.
    Look,
    /// Look again; counted as searching.
    Search,
    /// End: there are too many, and this one is counted no more.
    Retire,
}

fn steal<T>(mut attempt: impl FnMut() -> crossbeam_deque::Steal<T>) -> Option<T> {
    loop {
        match attempt() {
            crossbeam_deque::Steal::Success(job) => return Some(job),
            crossbeam_deque::Steal::Empty => return None,
            crossbeam_deque::Steal::Retry => std::hint::spin_loop(),
        }
    }
}

/// Naps of tens of microseconds must not be stretched by the kernel's default slack of 50.
fn set_timer_slack() {
    #[cfg(not(miri))]
    // SAFETY: a plain setting of the current thread.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64, 0, 0, 0);
    }
}

/// Makes what other threads stored before it visible here, and what they load after it see what was stored here.
fn barrier() {
    use rustix::thread::{MembarrierCommand, membarrier};
    std::sync::atomic::fence(Ordering::SeqCst);
    if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let _ = membarrier(MembarrierCommand::RegisterPrivateExpedited);
        });
        if membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            // No such call here: stores leave a core within microseconds; a nap is long enough.
            std::thread::park_timeout(Duration::from_micros(NAP_MICROS));
        }
    }
}
