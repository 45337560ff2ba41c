//! The crew of executors: how many there are, who is idle, and whom to wake.
//!
//! There are as many at work as the node has CPUs. One that blocks in a `get` lends its CPU to a spare thread, so that
//! calls waiting for calls never run out of threads. Whom to wake when is the policy's ([`crate::core::park`]).
//!
//! Invariant: a queued job is seen by somebody: by an executor at work, by a napping one within a nap, or by a sleeper
//! that its submitter wakes. Left out: what an executor does (`executor`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::engine::Engine;
use super::local::Local;
use crate::core::park::{self, Idlers, Wake};

/// Threads beyond which a blocked caller gets no stand-in.
const MAX_THREADS: usize = 4096;

/// What a woken executor was woken for.
pub(super) const NOTHING: u8 = 0;
pub(super) const TO_DOZE: u8 = 1;
pub(super) const TO_WORK: u8 = 2;

/// One idle executor.
pub(super) struct Bunk {
    pub(super) thread: Thread,
    pub(super) order: AtomicU8,
    /// It naps; else it sleeps.
    pub(super) napping: AtomicU8,
}

/// All executors of an engine.
pub(super) struct Crew {
    target: usize,
    /// Idle ones by state, packed: searching, dozing, asleep, 16 bits each.
    pub(super) idlers: AtomicU64,
    pub(super) bunks: Mutex<Vec<Arc<Bunk>>>,
    total: AtomicUsize,
    blocked: AtomicUsize,
    generation: AtomicU64,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

pub(super) const SEARCHING: u64 = 1;
pub(super) const DOZING: u64 = 1 << 16;
pub(super) const ASLEEP: u64 = 1 << 32;

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

    pub(super) fn idlers(&self) -> Idlers {
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
    pub(super) fn wake(&self, order: u8) {
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
    pub(super) fn surplus(&self) -> bool {
        let total = self.total.load(Ordering::Relaxed);
        total > self.target && total - self.blocked.load(Ordering::Relaxed).min(total) > self.target
    }

    /// Takes a thread that wants to end out of the count, if there are more than there should be: two that look at once
    /// must not both take themselves for the one too many.
    pub(super) fn retire(&self) -> bool {
        let blocked = self.blocked.load(Ordering::SeqCst);
        let spare = |total: usize| total.checked_sub(1).filter(|left| left.saturating_sub(blocked) >= self.target);
        self.total.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spare).is_ok()
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}
