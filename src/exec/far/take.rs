//! Calls that leave this node's queues, calls that came for others, and their outcomes.
//!
//! Invariant: who takes a call holds its claim until it gives it back, or settles it here, once. Left out: which calls, and
//! to where.

use std::sync::Arc;

use super::super::call::{CallError, each_input};
use super::super::cell::{self, FOREIGN, Phase, RawRef, finished};
use super::super::engine::Engine;
use super::super::isolate::{Reader, Writer, read_failure, write_failure};
use super::super::local::Local;
use super::super::waiter::{Waiter, WaiterKind};
use super::ValueParcel;
use crate::base::{Demand, Error};
use crate::store::Distant;

/// What came of a call, to be told elsewhere.
pub enum Told {
    /// A value of so many bytes, and whether there are references in it.
    Value(usize, bool),
    /// An error, as bytes.
    Failed(Vec<u8>),
}

/// What a record that has ended says, to somebody who wants to know.
pub fn told(record: &RawRef) -> Told {
    if cell::phase(record.state()) == Phase::Failed {
        record.set_flag(cell::OBSERVED);
    }
    peek(record)
}

/// What a record that has ended says.
pub fn peek(record: &RawRef) -> Told {
    if cell::phase(record.state()) == Phase::Done {
        // SAFETY: `Done`.
        let refers = unsafe { !record.caps().is_empty() };
        return Told::Value(record.value_size(), refers);
    }
    Told::Failed(match record.peek_error() {
        Some(error) => failure_bytes(&error),
        None => failure_bytes(&Error::ShutDown),
    })
}

/// An error, as bytes.
pub fn failure_bytes(error: &Error) -> Vec<u8> {
    let error = match error {
        Error::TaskFailed(failure) => CallError::Function((**failure).clone()),
        other => CallError::Runtime(other.clone()),
    };
    let mut w = Writer::default();
    write_failure(&error, &mut w);
    w.0
}

/// What was told by bytes of why a call failed, for people; nothing if they are none.
pub fn failure_text(bytes: &[u8], function: &'static str) -> Option<String> {
    match read_failure(&mut Reader(bytes), function).ok()? {
        CallError::Function(failure) => Some(failure.message.to_string()),
        CallError::Runtime(error) => Some(error.to_string()),
    }
}

/// Whether a value lies in the store, or in its record.
pub fn is_stored(record: &RawRef) -> bool {
    record.stored().is_some()
}

/// The objects among the arguments of a call that the engine has just asked about: it waits, all its arguments are settled, and
/// only a cancellation could end it, which leaves the arguments alone.
pub fn inputs_of_waiting(record: &RawRef) -> Vec<RawRef> {
    let mut all = Vec::new();
    // SAFETY: `Waiting` with no missing inputs, as in `Engine::some_input_failed`; the caller's reference keeps the record.
    unsafe { each_input(record, |input| all.push(input.clone())) };
    all
}

impl Engine {
    /// Takes common calls out of this node's queues, and claims them; fewer than `most` if there are fewer.
    pub fn take_queued(self: &Arc<Engine>, most: usize) -> Vec<RawRef> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        let mut consider = |record: RawRef| {
            let ours = record.state() & FOREIGN == 0 && record.extra().is_none_or(|e| !e.isolate);
            if !ours {
                kept.push(record);
            } else if record.claim() {
                taken.push(record);
            }
            taken.len() + kept.len() < most
        };
        let steal = |queue: &mut dyn FnMut() -> crossbeam_deque::Steal<RawRef>| loop {
            match queue() {
                crossbeam_deque::Steal::Success(record) => return Some(record),
                crossbeam_deque::Steal::Retry => {}
                crossbeam_deque::Steal::Empty => return None,
            }
        };
        let mut more = true;
        while more && let Some(record) = steal(&mut || self.tasks.steal()) {
            more = consider(record);
        }
        for outbox in self.outboxes.read().iter() {
            while more && let Some(record) = steal(&mut || outbox.tasks.steal()) {
                more = consider(record);
            }
        }
        kept.into_iter().for_each(|record| self.inject_task(record));
        taken
    }

    /// The file of the store's memory, its length, and the unit of its pages.
    pub fn memory_file(&self) -> (std::os::fd::BorrowedFd<'_>, u64, u64) {
        let store = self.store();
        (store.file(), store.stats().capacity, store.grain())
    }

    /// How many common calls wait in this node's queues.
    pub fn queued(&self) -> usize {
        self.look().1
    }

    /// What of this node nobody holds now, in CPUs, GPUs and resources of the user's own.
    pub fn free(&self) -> Demand {
        self.admission.lock().ledger.free_now()
    }

    /// Whether this node alone can never give a call that much.
    pub fn lacks(&self, demand: &Demand) -> bool {
        self.admission
            .lock()
            .ledger
            .capacity()
            .lacks(demand)
            .is_some()
    }

    /// What this node has too little of to ever give a call that much.
    pub fn lacking(&self, demand: &Demand) -> Option<crate::base::Infeasible> {
        self.admission.lock().ledger.capacity().lacks(demand)
    }

    /// Runs a call here whose arguments are settled, and which waits.
    pub fn run_here(self: &Arc<Engine>, local: &Local, record: RawRef) {
        self.inputs_ready_here(local, record);
    }

    /// Gives a taken call back: it runs here after all.
    pub fn give_back(self: &Arc<Engine>, local: &Local, record: RawRef) {
        if record.group().is_some()
            && let Some(groups) = self.groups()
        {
            record.wait_again();
            groups.place_later(local, record);
        } else if record.demand().is_some() {
            record.wait_again();
            self.admit(local, record);
        } else {
            record.unclaim();
            self.push_task(local, record);
        }
    }

    /// Runs a call that came from elsewhere; `done` is called with its record when it has ended, on whatever thread that was.
    pub fn accept(
        self: &Arc<Engine>,
        local: &Local,
        record: RawRef,
        done: impl FnOnce(RawRef) + Send + 'static,
    ) {
        let ended = record.clone();
        let waiter = Waiter::new(0, WaiterKind::Call(Box::new(move || done(ended))));
        if let Err(waiter) = record.add_waiter(waiter)
            && let WaiterKind::Call(done) = waiter.kind
        {
            return done();
        }
        match record.target().cloned() {
            None => self.await_inputs(local, &record),
            Some(actor) => {
                self.await_inputs(local, &record);
                self.post(local, &actor, record);
            }
        }
        if !local.executor {
            // This thread will not run it, as a submitter might.
            self.crew.notify_injected();
        }
    }

    /// Has one executor, and whoever waits for a call, look on for so long before it sleeps, which burns a CPU meanwhile and
    /// saves the time that waking takes.
    pub fn set_linger(&self, long: std::time::Duration) {
        let micros = u32::try_from(long.as_micros()).unwrap_or(u32::MAX);
        self.linger
            .store(micros, std::sync::atomic::Ordering::Relaxed);
    }

    pub(in crate::exec) fn linger(&self) -> u32 {
        self.linger.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Calls `done` when the record has ended, at once if it has.
    pub fn when_ended(&self, record: &RawRef, done: impl FnOnce(RawRef) + Send + 'static) {
        let ended = record.clone();
        let waiter = Waiter::new(0, WaiterKind::Call(Box::new(move || done(ended))));
        if let Err(waiter) = record.add_waiter(waiter)
            && let WaiterKind::Call(done) = waiter.kind
        {
            done();
        }
    }

    /// Ends a claimed record with a value from elsewhere.
    pub fn settle_value(self: &Arc<Engine>, local: &Local, record: &RawRef, value: ValueParcel) {
        let outcome = value.put(local, record).map_err(CallError::Runtime);
        self.settle(local, record, Ok(outcome));
    }

    /// Ends a claimed record with a value of `len` bytes that another node has.
    pub(crate) fn settle_distant(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        len: usize,
        distant: Box<dyn Distant>,
    ) {
        record.set_flag(FOREIGN);
        // SAFETY: claimed; a call that ran elsewhere has nobody here who borrows its arguments.
        unsafe {
            record.drop_args();
            record.set_distant(self.store(), len, distant);
        }
        self.settle(local, record, Ok(Ok(())));
    }

    /// Ends a claimed record with a failure told by bytes; false if they are none.
    pub fn settle_failure_told(
        self: &Arc<Engine>,
        local: &Local,
        record: &RawRef,
        bytes: &[u8],
    ) -> bool {
        match read_failure(&mut Reader(bytes), record.entry.name) {
            Ok(failure) => {
                self.settle(local, record, Ok(Err(failure)));
                true
            }
            Err(_) => false,
        }
    }

    /// Ends a claimed record with an error of this node's.
    pub fn settle_error(self: &Arc<Engine>, local: &Local, record: &RawRef, error: Error) {
        if !finished(record.state()) {
            self.settle(local, record, Ok(Err(CallError::Runtime(error))));
        }
    }
}
