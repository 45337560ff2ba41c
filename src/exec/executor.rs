//! An executor's life: find a job, run it, and lie down when there is none.
//!
//! Before its last sleep it makes every other thread's pushes visible (`membarrier`) and looks once more, so that
//! submitters need no fence.
//!
//! Invariant: an executor runs common calls only while it holds a lease of one CPU. Left out: whom to wake (`crew`), and
//! when to nap or sleep (the policy's, [`crate::core::park`]).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::actor::ActorRef;
use super::cell::RawRef;
use super::crew::{ASLEEP, Bunk, DOZING, NOTHING, SEARCHING, TO_DOZE, TO_WORK};
use super::engine::Engine;
use super::local::{Local, Outbox};
use crate::core::park::{self, Doze, Look, NAP_MICROS, Spin, Wake};

/// How long a thread too many sleeps before it looks whether it still is one.
const SPARE: Duration = Duration::from_secs(1);
/// How long an executor sleeps that was denied a CPU.
const DENIED: Duration = Duration::from_millis(1);

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
    /// An executor's life.
    pub(super) fn work(self: &Arc<Engine>, local: &Rc<Local>) {
        set_timer_slack();
        let mut others = Others {
            seen: u64::MAX,
            outboxes: Vec::new(),
            executors: 0,
            next: 0,
        };
        let mut spin = Spin::new();
        let mut searching = false;
        loop {
            if self.is_closing() {
                self.crew.left();
                break;
            }
            match self.find(local, &mut others) {
                Some(job) => {
                    let searched = std::mem::replace(&mut searching, false);
                    if searched {
                        self.crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
                        self.pass_search_on();
                    }
                    if (searched || matches!(job, Job::Started(_))) && !self.started.is_empty() {
                        // Calls that were let in run side by side, even if they wait for one another; whoever queued them
                        // relied on a searcher.
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
                        Idle::Search => searching = true,
                        Idle::Retire => break,
                    }
                }
            }
        }
        if searching {
            self.crew.idlers.fetch_sub(SEARCHING, Ordering::SeqCst);
        }
        self.unlease(local);
        if self.is_closing() {
            self.drain_local(local);
        }
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
        local.denied.set(false);
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
            let at = if i < first {
                i
            } else {
                first + (others.next + i - first) % users
            };
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
        local.denied.set(!granted);
        granted
    }

    /// Gives the CPU back.
    #[inline]
    pub(super) fn unlease(self: &Arc<Engine>, local: &Local) {
        if local.leased.replace(false) {
            self.with_ledger(local, |a, out| a.ledger.unlease(out));
        }
    }

    fn idle(self: &Arc<Engine>, local: &Local, spin: &mut Spin) -> Idle {
        let crew = &self.crew;
        if local.denied.replace(false) {
            // There are common calls and no CPU for them. This thread keeps its turn in line, and nothing else may pass.
            return self.lie_down(spin, true);
        }
        // Search on for a moment.
        let linger = self.linger();
        // One that lingers is enough.
        let lingers = linger > 0 && crew.idlers().searching == 0;
        let budget = if lingers {
            linger
        } else {
            spin.budget_micros()
        };
        if budget > 0 {
            crew.idlers.fetch_add(SEARCHING, Ordering::SeqCst);
            let until = Instant::now() + Duration::from_micros(u64::from(budget));
            let mut found = false;
            while !found && Instant::now() < until {
                if lingers {
                    // Who brings the next call may need this CPU.
                    std::thread::yield_now();
                }
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
                crew.idlers.fetch_add(SEARCHING, Ordering::SeqCst);
                return Idle::Search;
            }
        }
        self.dry();
        self.lie_down(spin, false)
    }

    /// Naps and sleeps until there may be a job. One that was denied a CPU for jobs there are only sleeps, and tries again
    /// now and then, should it not be told of a free one.
    fn lie_down(self: &Arc<Engine>, spin: &mut Spin, mut denied: bool) -> Idle {
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
            if denied || crew.idlers().dozing > 0 {
                // One napper is enough.
                bunk.napping.store(0, Ordering::Relaxed);
                crew.idlers.fetch_add(ASLEEP, Ordering::SeqCst);
            } else {
                crew.idlers.fetch_add(DOZING, Ordering::SeqCst);
            }
            bunks.push(Arc::clone(&bunk));
        }
        let get_up = |state: u64, becomes: u64| {
            let mut bunks = crew.bunks.lock();
            let Some(i) = bunks.iter().position(|b| Arc::ptr_eq(b, &bunk)) else {
                return false;
            };
            bunks.swap_remove(i);
            crew.idlers
                .fetch_add(becomes.wrapping_sub(state), Ordering::SeqCst);
            true
        };
        let mut first = true;
        loop {
            if bunk.napping.load(Ordering::Relaxed) == 1 {
                std::thread::park_timeout(Duration::from_micros(NAP_MICROS));
            } else {
                if !denied {
                    // Every push before this is visible after it; every push after it sees a sleeper.
                    barrier();
                    if self.look().1 > 0 && get_up(ASLEEP, SEARCHING) {
                        return Idle::Search;
                    }
                }
                if denied {
                    std::thread::park_timeout(DENIED);
                } else if crew.surplus() {
                    std::thread::park_timeout(SPARE);
                } else {
                    std::thread::park();
                }
            }
            match bunk.order.swap(NOTHING, Ordering::Acquire) {
                TO_WORK => return Idle::Search,
                TO_DOZE => {
                    // Whoever woke it counted it as dozing and took it out of its bunk.
                    denied = false;
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
                if get_up(state, SEARCHING) {
                    return Idle::Search;
                }
                continue; // an order is on its way
            }
            if bunk.napping.load(Ordering::Relaxed) == 0 {
                if denied && get_up(ASLEEP, SEARCHING) {
                    return Idle::Search;
                }
                if crew.surplus() && self.look().1 == 0 && get_up(ASLEEP, 0) {
                    if crew.retire() {
                        return Idle::Retire;
                    }
                    crew.idlers.fetch_add(SEARCHING, Ordering::SeqCst);
                    return Idle::Search;
                }
                continue;
            }
            let (pushes, queued) = self.look();
            match doze.on_look(pushes, queued) {
                Look::Take => {
                    if first {
                        spin.found();
                    }
                    // As a searcher: pushes that relied on this napper are passed on when it finds a job.
                    if get_up(DOZING, SEARCHING) {
                        return Idle::Search;
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
    /// Look again; counted as searching.
    Search,
    /// End: there are too many.
    Retire,
}

pub(super) fn steal<T>(mut attempt: impl FnMut() -> crossbeam_deque::Steal<T>) -> Option<T> {
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
pub(super) fn barrier() {
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
