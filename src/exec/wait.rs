//! Waiting: a caller that needs a value does the work itself if nobody has begun it, else it waits.
//!
//! Waiting goes in steps: run the awaited call here, if it is ready and there is stack and a CPU for it; drain its actor,
//! if nobody is at it; spin briefly; lend the CPU to another thread and sleep until told.
//!
//! Invariant: only the awaited call, and what stands before it in its actor's mailbox, is ever run here; unrelated work
//! never comes onto a waiting stack. Left out: how values are read afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cell::{self, Phase, RawRef, Record, finished};
use super::engine::Engine;
use super::far::leased::{has_cpu, is_leased};
use super::local::Local;
use super::waiter::{Latch, Waiter, WaiterKind};
use crate::base::Error;

/// How long a sleeper sleeps before it looks whether the runtime was shut down.
const LOOK_UP: Duration = Duration::from_millis(100);
/// The longest that a waiting caller spins.
const SPIN: Duration = Duration::from_micros(10);

/// A thread that blocks: its CPU is lent until this goes.
pub(super) struct Block<'a> {
    engine: &'a Arc<Engine>,
    local: &'a Local,
    lent_lease: bool,
    lent_calls: Vec<u64>,
    leased: Vec<u64>,
    covered: bool,
    begun: u64,
    /// The function awaited, its call, and how many there are.
    awaited: (&'static str, u64, usize),
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        let (name, call, count) = self.awaited;
        super::events::blocked(self.local, self.begun, name, call, count);
        if self.covered {
            self.engine.crew.uncover();
        }
        if self.lent_lease || !self.lent_calls.is_empty() {
            self.engine.with_ledger(self.local, |a, _| {
                if self.lent_lease {
                    a.ledger.reclaim_lease();
                }
                self.lent_calls.iter().for_each(|call| a.reclaim(*call));
            });
        }
        if !self.leased.is_empty() {
            self.engine.block_leased(self.local, &self.leased, false);
        }
    }
}

impl Engine {
    /// Lends what this thread holds of CPUs, because it is about to sleep until `awaited` is there.
    pub(super) fn block<'a>(
        self: &'a Arc<Engine>,
        local: &'a Local,
        awaited: (&'static str, u64, usize),
    ) -> Block<'a> {
        let begun = super::events::blocks(local);
        let lent_lease = local.leased.get();
        // All calls on this stack stand still, not only the innermost.
        let (mut lent_calls, mut leased) = (Vec::new(), Vec::new());
        local.each_current(|record| {
            if is_leased(record) {
                leased.push(record.id);
            } else if record.target().is_none() && record.demand().is_some() {
                lent_calls.push(record.id);
            }
        });
        if lent_lease || !lent_calls.is_empty() {
            self.with_ledger(local, |a, out| {
                if lent_lease {
                    a.ledger.lend_lease(out);
                }
                lent_calls.iter().for_each(|call| a.lend(*call, out));
            });
        }
        if !leased.is_empty() {
            self.block_leased(local, &leased, true);
        }
        let covered = local.executor && !local.apart.get();
        if covered {
            self.crew.cover(self);
        } else if self.look().1 > 0 {
            self.crew.notify_injected();
        }
        Block {
            engine: self,
            local,
            lent_lease,
            lent_calls,
            leased,
            covered,
            begun,
            awaited,
        }
    }

    /// Whether there is room on this stack for another call.
    #[inline]
    fn has_stack(&self, local: &Local) -> bool {
        super::stack::here() > local.stack_floor.get()
    }

    /// Tries to end the call by running it here; whether anything was done. A caller with a deadline only finds out whether
    /// the wait could ever end: what it began it could not leave in time.
    #[inline]
    fn help(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        if cell::phase(record.state()) != Phase::Queued || !self.has_stack(local) {
            return Ok(false);
        }
        if let Some(actor) = record.target() {
            if local.on_stack.borrow().contains(&actor.mark()) {
                return Err(self_wait(record));
            }
            if deadline.is_some() {
                return Ok(false);
            }
            // The queue entry first: the drain may leave a new one, for calls behind the awaited one.
            self.forget_actor(local, actor);
            return Ok(super::actor::drain_here(self, local, actor, Some(record)));
        }
        if record.is_future() || deadline.is_some() {
            return Ok(false);
        }
        // A call with its own resources has them already; the common one needs a CPU, which an executor has.
        let own = record.demand().is_some();
        let had = local.leased.get();
        if !own && !had && !self.inherits_cpu(local) && !self.lease(local) {
            return Ok(false);
        }
        let claimed = record.claim();
        if claimed {
            if !own {
                self.forget_task(local, record);
            }
            let before = local.wanted.replace(std::ptr::from_ref(&**record));
            self.execute(local, record);
            local.wanted.set(before);
        }
        if !local.executor && !had && !own {
            self.unlease(local);
        }
        Ok(claimed)
    }

    /// Whether a call on this stack holds a CPU which the awaited one may use, since the one waits for the other.
    fn inherits_cpu(&self, local: &Local) -> bool {
        let mut inherits = false;
        local.each_current(|record| {
            inherits |= has_cpu(record)
                || record
                    .demand()
                    .is_some_and(|d| d.cpu >= crate::base::Units::ONE);
        });
        inherits
    }

    /// Takes a call that was claimed out of this thread's queue again, if it is on top.
    #[inline]
    fn forget_task(&self, local: &Local, record: &Record) {
        if let Some(top) = local.tasks.pop()
            && !top.same(record)
        {
            local.tasks.push(top);
        }
    }

    #[inline]
    fn forget_actor(&self, local: &Local, actor: &super::actor::ActorRef) {
        if let Some(top) = local.actors.pop()
            && !top.same(actor)
        {
            local.actors.push(top);
        }
    }

    /// Waits until the call has ended.
    ///
    /// Fails when time runs out, when it could never end, or when the runtime shuts down first.
    #[inline]
    pub fn wait(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        if finished(record.state()) {
            return Ok(());
        }
        if self.help(local, record, deadline)? && finished(record.state()) {
            return Ok(());
        }
        self.wait_slowly(local, record, deadline)
    }

    #[inline(never)]
    fn wait_slowly(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            if self.spin(local, record, deadline)? {
                return Ok(());
            }
            let _entered = match deadline {
                None => super::deadlock::enter(local, &[record], 1)?,
                Some(_) => None,
            };
            let key = local.outbox_key();
            let waiter = Waiter::new(key, WaiterKind::Thread(std::thread::current()));
            if record.add_waiter(waiter).is_err() {
                return Ok(());
            }
            let outcome = {
                let _awaits = Awaits::new(local, record);
                let _block = self.block(local, (record.entry.name, record.id, 1));
                self.sleep(deadline, || {
                    finished(record.state()) || (deadline.is_none() && self.may_help(local, record))
                })
            };
            record.remove_waiter(key);
            if finished(record.state()) {
                return Ok(());
            }
            match outcome {
                Sleep::Woken => {}
                Sleep::Closed => return Err(Error::ShutDown),
                Sleep::TimedOut => {
                    let awaited = self.describe(record);
                    return Err(Error::Timeout {
                        waited: began.elapsed(),
                        awaited,
                    });
                }
            }
        }
    }

    fn may_help(&self, local: &Local, record: &RawRef) -> bool {
        cell::phase(record.state()) == Phase::Queued
            && record.target().is_none()
            && !record.is_future()
            && self.has_stack(local)
            && local.leased.get()
    }

    /// Spins for a moment, helping whenever that becomes possible; whether the call has ended.
    fn spin(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let linger = Duration::from_micros(self.linger().into());
        let until = Instant::now() + SPIN.max(linger);
        loop {
            if !linger.is_zero() {
                // Who brings the answer may need this CPU.
                std::thread::yield_now();
            }
            for _ in 0..16 {
                if finished(record.state()) {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            if self.help(local, record, deadline)? && finished(record.state()) {
                return Ok(true);
            }
            if Instant::now() >= until {
                return Ok(false);
            }
        }
    }

    fn sleep(&self, deadline: Option<Instant>, awake: impl Fn() -> bool) -> Sleep {
        super::tasks::aside(|| self.sleep_here(deadline, awake))
    }

    fn sleep_here(&self, deadline: Option<Instant>, awake: impl Fn() -> bool) -> Sleep {
        loop {
            if awake() {
                return Sleep::Woken;
            }
            if self.is_closing() {
                return Sleep::Closed;
            }
            let mut nap = LOOK_UP;
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Sleep::TimedOut;
                }
                nap = nap.min(left);
            }
            std::thread::park_timeout(nap);
        }
    }

    /// Waits until all calls have ended, or one has failed.
    pub fn wait_all(
        self: &Arc<Engine>,
        local: &Local,
        records: &[&RawRef],
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let had = local.leased.get();
        let mut done = 0;
        while done < records.len() {
            // Whatever nobody has begun is run here, in order.
            while done < records.len() {
                let record = records[done];
                if !finished(record.state()) {
                    // Keep one lease for all of them.
                    let keep = !local.executor && !had && record.target().is_none();
                    if keep && cell::phase(record.state()) == Phase::Queued && !self.lease(local) {
                        break;
                    }
                    let helped = self.help(local, record, deadline);
                    if helped.is_err() {
                        self.unlease_outsider(local, had);
                    }
                    if !helped? || !finished(record.state()) {
                        break;
                    }
                }
                if cell::phase(record.state()) == Phase::Failed {
                    self.unlease_outsider(local, had);
                    return Ok(());
                }
                done += 1;
            }
            self.unlease_outsider(local, had);
            if done == records.len() {
                return Ok(());
            }
            if self.spin(local, records[done], deadline)? {
                continue;
            }
            self.sleep_for(local, &records[done..], usize::MAX, true, deadline)?;
            if records[done..]
                .iter()
                .any(|r| cell::phase(r.state()) == Phase::Failed)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn unlease_outsider(self: &Arc<Engine>, local: &Local, had: bool) {
        if !local.executor && !had {
            self.unlease(local);
        }
    }

    /// Sleeps until `enough` of the calls have ended (all, if there are fewer), or the first fails and `fail_fast`.
    pub fn sleep_for(
        self: &Arc<Engine>,
        local: &Local,
        records: &[&RawRef],
        enough: usize,
        fail_fast: bool,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let pending: Vec<&&RawRef> = records.iter().filter(|r| !finished(r.state())).collect();
        let ended = records.len() - pending.len();
        if fail_fast
            && records
                .iter()
                .any(|r| cell::phase(r.state()) == Phase::Failed)
        {
            return Ok(());
        }
        let missing = enough.min(records.len()).saturating_sub(ended);
        let _entered = match deadline {
            None if missing > 0 => {
                let awaited: Vec<&RawRef> = pending.iter().map(|r| **r).collect();
                super::deadlock::enter(local, &awaited, missing)?
            }
            _ => None,
        };
        let latch = Latch::new(missing, fail_fast);
        let key = Arc::as_ptr(&latch).addr();
        let mut entered = 0;
        for record in &pending {
            if latch.is_open() {
                break;
            }
            entered += 1;
            let waiter = Waiter::new(key, WaiterKind::Latch(Arc::clone(&latch)));
            if record.add_waiter(waiter).is_err() {
                latch.hit(cell::phase(record.state()) == Phase::Failed);
            }
        }
        let outcome = {
            let _awaits = pending.first().map(|first| Awaits::new(local, first));
            let first = pending.first().map_or(("", 0), |r| (r.entry.name, r.id));
            let _block = self.block(local, (first.0, first.1, missing));
            self.sleep(deadline, || latch.is_open())
        };
        for record in &pending[..entered] {
            if !finished(record.state()) {
                record.remove_waiter(key);
            }
        }
        match outcome {
            Sleep::Woken => Ok(()),
            Sleep::Closed => Err(Error::ShutDown),
            Sleep::TimedOut => {
                let left = records.iter().filter(|r| !finished(r.state())).count();
                let first = records.iter().find(|r| !finished(r.state()));
                let first = first.map_or_else(String::new, |r| self.describe(r));
                let awaited = if left > 1 {
                    format!(
                        "{left} of {} results, the first being {first}",
                        records.len()
                    )
                } else {
                    first
                };
                Err(Error::Timeout {
                    waited: began.elapsed(),
                    awaited,
                })
            }
        }
    }

    /// What a call is waiting for, in words.
    pub fn describe(&self, record: &RawRef) -> String {
        let name = record.entry.name;
        let state = record.state();
        match cell::phase(state) {
            Phase::Done | Phase::Failed => format!("{name} (it has ended)"),
            Phase::Running => match self.store().awaited_by(record.id) {
                Some(what) => format!("{name}, which is {what}"),
                None => format!("{name}, which is running"),
            },
            Phase::Queued => match record.target() {
                Some(actor) => format!("{name}, queued in the mailbox of {}", actor.entry().name),
                None => {
                    let (_, queued) = self.look();
                    format!("{name}, queued with {queued} jobs in line")
                }
            },
            Phase::Waiting => {
                let a = self.admission.lock();
                if let Some(waiting) = a.ledger.waiting(record.id) {
                    let mut text = format!("{name}, {waiting}");
                    for (i, (id, demand)) in a.ledger.holders().iter().take(3).enumerate() {
                        text += if i == 0 {
                            "; held by call "
                        } else {
                            ", by call "
                        };
                        text += &format!("{id:#x} ({demand})");
                    }
                    return match a.ledger.running() {
                        0..4 => text,
                        n => format!("{text} and {} more", n - 3),
                    };
                }
                if let Some(waiting) = a.waits_in_bundle(record.id) {
                    return format!("{name}, {waiting}");
                }
                drop(a);
                let missing = record.deps.load(std::sync::atomic::Ordering::Relaxed);
                match record.group() {
                    Some((group, _)) if missing == 0 => {
                        format!("{name}, which waits until placement group {group} is ready")
                    }
                    _ => format!("{name}, which waits for {missing} of its arguments"),
                }
            }
        }
    }
}

/// Says to whoever looks at the program what this thread waits for.
struct Awaits<'a> {
    local: &'a Local,
    before: u64,
}

impl<'a> Awaits<'a> {
    fn new(local: &'a Local, record: &Record) -> Awaits<'a> {
        Awaits {
            local,
            before: local.books().awaits(record.id),
        }
    }
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        self.local.books().awaits(self.before);
    }
}

enum Sleep {
    Woken,
    Closed,
    TimedOut,
}

#[cold]
fn self_wait(record: &Record) -> Error {
    Error::Deadlock {
        what: format!(
            "a method of an actor waits for {}, a call of the same actor that can only run after it; call the method directly, or return the reference",
            record.entry.name
        ),
    }
}

/// Ends a call whose runtime is gone from this thread: the error is put, and sleepers look up by themselves.
pub(super) fn settle_without_runtime(record: &RawRef) {
    // SAFETY: the caller holds the claim.
    unsafe {
        record.drop_args();
        record.set_error(Arc::new(Error::ShutDown));
    }
    let mut next = record.finish(Phase::Failed);
    while let Some(mut waiter) = next {
        next = waiter.take_next();
        match waiter.kind {
            WaiterKind::Thread(thread) => thread.unpark(),
            WaiterKind::Waker(waker) => super::settle::wake(waker),
            WaiterKind::Latch(latch) => latch.hit(true),
            WaiterKind::Dependent(_) | WaiterKind::Call(_) => {}
        }
    }
}
