//! What an actor keeps so that its state outlives the process that has it: the last checkpoint, and the calls since.
//!
//! Only calls that may change the state are logged, before they run; their arguments are copied, and objects among them are kept.
//! A checkpoint is the state as an object of the store. After a death the state is read from it, or made by the constructor,
//! and the logged calls run again in their order; nobody waits for what they give.
//!
//! Invariant: checkpoint and log together are the state after the last call that was logged. Touched under the run lock only.
//! Left out: when a checkpoint is due (`core::history`), and making the state (`life`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::call::{CallError, StateRef};
use super::super::cell::{self, Blank, Phase, RawRef};
use super::super::engine::Engine;
use super::super::entry::{FnEntry, Kind};
use super::super::events;
use super::super::far::{Arg, Parcel};
use super::super::local::Local;
use super::{ActorRef, More, run};
use crate::base::{Error, Exit, snapshot};
use crate::core::history::{Log, Terms};
use crate::trace::{Deed, NOT_RECORDED};

/// One logged call.
struct Entry {
    /// The call's number, by which it is found again.
    id: u64,
    bytes: u64,
    call: Parcel,
}

/// Checkpoint and log.
pub(super) struct History {
    log: Log,
    checkpoint: Option<RawRef>,
    entries: Vec<Entry>,
    /// The call that was run again because its process was killed from outside.
    again: u64,
    began: Instant,
}

/// What others may see of a history.
#[derive(Default)]
pub(in super::super) struct Shown {
    pub order: AtomicU64,
    pub calls: AtomicU64,
    pub bytes: AtomicU64,
    /// The order number and the size of the last checkpoint.
    pub saved: AtomicU64,
    pub state: AtomicU64,
}

impl Shown {
    /// What they say now, each on its own.
    pub fn look(&self) -> snapshot::History {
        snapshot::History {
            order: self.order.load(Ordering::Relaxed),
            logged: self.calls.load(Ordering::Relaxed),
            log_bytes: self.bytes.load(Ordering::Relaxed),
            saved: self.saved.load(Ordering::Relaxed),
            state_bytes: self.state.load(Ordering::Relaxed),
        }
    }
}

/// What a logged call takes beside its arguments.
const OVERHEAD: u64 = 64;

/// Whether a call of this kind may change the state.
pub(super) fn changes(kind: Kind) -> bool {
    matches!(kind, Kind::Exclusive | Kind::AsyncExclusive)
}

impl History {
    pub fn new(terms: Terms) -> Box<History> {
        Box::new(History {
            log: Log::new(terms, Duration::ZERO),
            checkpoint: None,
            entries: Vec::new(),
            again: 0,
            began: Instant::now(),
        })
    }

    fn now(&self) -> Duration {
        if self.log.is_timed() {
            self.began.elapsed()
        } else {
            Duration::ZERO
        }
    }

    /// Logs a claimed call that is about to run.
    pub fn note(&mut self, local: &Local, record: &RawRef, shown: &Shown) {
        if self.log.is_given_up() {
            return;
        }
        // A call whose arguments are not there fails, and changes nothing.
        let Ok(call) = Parcel::pack(local, record) else {
            return;
        };
        let objects = call.args.iter().map(|a| match a {
            Arg::Object(object) => object.value_size() as u64,
            Arg::Inline(_) => 0,
        });
        let bytes = OVERHEAD + call.inline.len() as u64 + objects.sum::<u64>();
        self.log.noted(bytes);
        let id = record.id;
        self.entries.push(Entry { id, bytes, call });
        self.show(shown);
    }

    /// Takes a call out again that has not changed the state for good: its process died with it.
    pub fn forget(&mut self, id: u64, shown: &Shown) {
        if let Some(at) = self.entries.iter().rposition(|e| e.id == id) {
            let entry = self.entries.remove(at);
            self.log.forgot(entry.bytes);
            self.show(shown);
        }
    }

    /// Whether a call runs again that was under way when the process that has the state ended: once, and only if the end came from
    /// outside, since a call that ends its process would do so again; `ours`: the
    /// program had the actor killed.
    pub fn runs_again(&mut self, id: u64, ours: bool, error: &Error) -> bool {
        let outside = matches!(error, Error::WorkerDied(d) if d.exit == Exit::Signal(libc::SIGKILL) && d.out_of_memory.is_none());
        outside && !ours && std::mem::replace(&mut self.again, id) != id
    }

    /// Whether a checkpoint is due.
    pub fn is_due(&self) -> bool {
        self.log.due(self.now())
    }

    /// Saves the state and cuts the log; `state` is alive and nobody changes it.
    pub fn save(
        &mut self,
        engine: &Arc<Engine>,
        local: &Local,
        actor: &ActorRef,
        state: StateRef,
    ) -> Result<(), Error> {
        let shown = &actor.more().shown;
        let begin = events::now();
        match saved(engine, local, actor, state) {
            Ok(checkpoint) => {
                let bytes = checkpoint.value_size() as u64;
                let calls = self.log.order();
                events::kept(local, Deed::Checkpoint, actor, begin, calls, bytes);
                self.log.saved(bytes, self.now());
                shown.saved.store(self.log.order(), Ordering::Relaxed);
                shown.state.store(bytes, Ordering::Relaxed);
                self.checkpoint = Some(checkpoint);
                self.entries.clear();
                self.show(shown);
                Ok(())
            }
            // The log brings the state back, and is as long as it was.
            Err(e @ (Error::WorkerDied(_) | Error::ActorDied { .. } | Error::ShutDown)) => Err(e),
            Err(e) => {
                if self.log.failed() {
                    self.give_up(actor, &e);
                }
                self.show(shown);
                Err(e)
            }
        }
    }

    /// Keeps nothing any more until a checkpoint is made, and says so: what is kept is not what the state is, or has no room.
    pub fn give_up(&mut self, actor: &ActorRef, why: &Error) {
        let calls = self.entries.len();
        let bytes: u64 = self.entries.iter().map(|e| e.bytes).sum();
        self.log.give_up();
        self.checkpoint = None;
        self.entries = Vec::new();
        self.show(&actor.more().shown);
        let why = format!(
            "the log of {calls} calls, {bytes} bytes, was given up, since its state could not be saved ({why}): if it dies it begins anew"
        );
        super::super::report::unobserved(&Error::Encode {
            value: actor.entry.name,
            why: Arc::from(why),
        });
    }

    /// The call that makes the state as it was at the last checkpoint; `None` if the constructor is to.
    pub fn restoring(&self, local: &Local, actor: &ActorRef) -> Option<RawRef> {
        let checkpoint = self.checkpoint.clone()?;
        let keep = actor.entry.keep.as_ref()?;
        let call = Parcel {
            function: &keep.restore,
            args: vec![Arg::Object(checkpoint)],
            inline: Vec::new(),
            caps: Vec::new(),
        };
        Some(call.unpack_into(claimed(local, &keep.restore, Some(actor.clone()))))
    }

    /// Runs the logged calls again, in their order. What they give is dropped: whoever waited has it.
    ///
    /// # Errors
    /// That the process that has the state died, or a call that ran before cannot.
    pub fn replay(
        &self,
        engine: &Arc<Engine>,
        local: &Local,
        actor: &ActorRef,
    ) -> Result<(), Error> {
        let begin = events::now();
        for entry in &self.entries {
            let function = entry.call.function;
            let record =
                entry
                    .call
                    .clone()
                    .unpack_into(claimed(local, function, Some(actor.clone())));
            let state = StateRef(actor.state.load(Ordering::Relaxed));
            let outcome = run::perform(local, &record, state);
            let failed = match &outcome {
                Ok(Err(CallError::Runtime(e))) => Some(e.clone()),
                _ => None,
            };
            record.set_flag(cell::OBSERVED);
            engine.settle(local, &record, outcome);
            if let Some(e) = failed {
                return Err(e);
            }
        }
        let (calls, bytes) = self.log.len();
        if calls > 0 {
            events::kept(local, Deed::Replay, actor, begin, calls, bytes);
        }
        Ok(())
    }

    /// The actor is made by its constructor, with nothing behind it.
    pub fn begin_anew(&mut self, shown: &Shown) {
        self.log.begin_anew(self.now());
        self.checkpoint = None;
        self.entries.clear();
        shown.saved.store(0, Ordering::Relaxed);
        shown.state.store(0, Ordering::Relaxed);
        self.show(shown);
    }

    /// Whether there is none any more.
    pub fn is_given_up(&self) -> bool {
        self.log.is_given_up()
    }

    /// Whether there is anything behind the actor but its constructor.
    pub fn has_any(&self) -> bool {
        self.checkpoint.is_some() || !self.entries.is_empty()
    }

    fn show(&self, shown: &Shown) {
        let (calls, bytes) = self.log.len();
        shown.order.store(self.log.order(), Ordering::Relaxed);
        shown.calls.store(calls, Ordering::Relaxed);
        shown.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl More {
    /// A history, if the actor is to keep one: its state is in another process, and it may be made again.
    pub(super) fn history(&self) -> Option<Box<History>> {
        self.keeps_history().then(|| History::new(self.checkpoints))
    }

    pub(super) fn keeps_history(&self) -> bool {
        self.isolate && self.max_restarts > 0
    }
}

/// An actor that another node had is made as it was there.
#[cfg(feature = "cluster")]
pub(super) fn revive(
    local: &Local,
    actor: &ActorRef,
    inner: &mut super::Inner,
    revival: super::Revival,
) {
    let more = actor.more();
    more.restarts.store(revival.restarts, Ordering::Relaxed);
    let Some(restore) = revival.restore else {
        return;
    };
    let state = restore.args.iter().find_map(|arg| match arg {
        Arg::Object(state) => Some(state.clone()),
        Arg::Inline(_) => None,
    });
    if let Some(history) = &mut inner.history {
        // The next process of its own begins from there too.
        history.checkpoint = state;
    } else if let Some(keep) = &actor.entry.keep {
        let call = claimed(local, &keep.restore, Some(actor.clone()));
        inner.restore = Some(restore.unpack_into(call));
    }
}

/// Why there is no checkpoint of an actor that keeps no history.
#[cold]
pub(super) fn none(actor: &ActorRef) -> CallError {
    CallError::Runtime(Error::Encode {
        value: actor.entry.name,
        why: Arc::from(
            "it keeps no history, so there is nothing to save: give it max_restarts above 0, and have it isolated or, in a cluster, with replicas",
        ),
    })
}

/// The beginning of a claimed call that nobody submitted.
fn claimed(local: &Local, entry: &'static FnEntry, target: Option<ActorRef>) -> Blank {
    Blank {
        entry,
        refs: 1,
        phase: Phase::Running,
        caller: local.caller(),
        id: local.next_id(NOT_RECORDED),
        target,
        extra: None,
        caps: None,
    }
}

/// The state as an object.
pub(super) fn saved(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    state: StateRef,
) -> Result<RawRef, Error> {
    let Some(keep) = &actor.entry.keep else {
        return Err(Error::Encode {
            value: actor.entry.name,
            why: Arc::from("its state has no archive: put #[remote] on the type"),
        });
    };
    let call = Parcel {
        function: &keep.save,
        args: Vec::new(),
        inline: Vec::new(),
        caps: Vec::new(),
    };
    let record = call.unpack_into(claimed(local, &keep.save, Some(actor.clone())));
    // Two references: a value that nobody else wants is not kept.
    let kept = record.clone();
    let outcome = run::perform(local, &record, state);
    record.set_flag(cell::OBSERVED);
    engine.settle(local, &record, outcome);
    if cell::phase(kept.state()) == Phase::Done {
        return Ok(kept);
    }
    Err(kept.error())
}
