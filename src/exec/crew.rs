//! The crew of executors: how many there are, who is idle, and whom to wake.
//!
//! There are as many at work as the node has CPUs. One that blocks in a `get` lends its CPU to a spare thread, so that
//! calls waiting for calls never run out of threads. Whom to wake when is the policy's ([`crate::core::park`]).
//!
//! Invariant: a queued job is seen by somebody: by an executor at work, by a napping one within a nap, or by a sleeper
//! that its submitter wakes. Left out: what an executor does (`executor`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, compiler_fence};
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
    /// How many threads there are, and how many of them are blocked, packed: one word, so that a thread that ends for being
    /// too many and one that blocks cannot miss each other.
    counts: AtomicU64,
    generation: AtomicU64,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

pub(super) const SEARCHING: u64 = 1;
pub(super) const DOZING: u64 = 1 << 16;
pub(super) const ASLEEP: u64 = 1 << 32;

const THREAD: u64 = 1;
const BLOCKED: u64 = 1 << 32;

/// All threads, and those that are not blocked.
fn threads_and_active(counts: u64) -> (usize, usize) {
    let (total, blocked) = ((counts & 0xffff_ffff) as usize, (counts >> 32) as usize);
    (total, total.saturating_sub(blocked))
}

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
            counts: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            threads: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn idlers(&self) -> Idlers {
        unpack(self.idlers.load(Ordering::SeqCst))
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
        let (n, _) = threads_and_active(self.counts.fetch_add(THREAD, Ordering::SeqCst));
        if n >= MAX_THREADS || engine.is_closing() {
            self.left();
            return;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        let engine = Arc::clone(engine);
        let spawned = std::thread::Builder::new()
            .name(format!("mobula-{n}"))
            .stack_size(super::stack::EXECUTOR_STACK)
            .spawn(move || {
                let local = Local::for_executor(&engine, generation);
                engine.work(&local);
            });
        match spawned {
            Ok(handle) => {
                let mut threads = self.threads.lock();
                threads.retain(|t| !t.is_finished());
                threads.push(handle);
            }
            Err(_) => self.left(),
        }
    }

    /// An executor ends.
    pub(super) fn left(&self) {
        self.counts.fetch_sub(THREAD, Ordering::SeqCst);
    }

    /// Whether the calling executor is one too many; then it is counted no longer, and must end. It is in no bunk: whoever
    /// blocks sees it idle, and then its block is seen here, or does not count on it.
    pub(super) fn retire(&self) -> bool {
        let change = |counts| self.is_surplus(counts).then(|| counts - THREAD);
        self.counts
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, change)
            .is_ok()
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
        self.counts.fetch_add(BLOCKED, Ordering::SeqCst);
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
        let (_, active) = threads_and_active(self.counts.load(Ordering::SeqCst));
        if active < self.target {
            self.spawn(engine);
        }
    }

    pub(super) fn uncover(&self) {
        self.counts.fetch_sub(BLOCKED, Ordering::SeqCst);
    }

    fn is_surplus(&self, counts: u64) -> bool {
        threads_and_active(counts).1 > self.target
    }

    /// Whether more executors are at work than there should be.
    pub(super) fn surplus(&self) -> bool {
        self.is_surplus(self.counts.load(Ordering::Relaxed))
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        threads_and_active(self.counts.load(Ordering::Relaxed)).0
    }
}
