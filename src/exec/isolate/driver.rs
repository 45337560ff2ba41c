//! Stands in for a call while a worker process runs it: sends it, serves what it asks for, takes its outcome.
//!
//! Invariant: a value is put into the record only after it was checked to be an archive of the function's result; pages
//! that were lent are not used for anything else before the worker has given them back or is dead.
//! Left out: which worker (`pool`), what happens to an actor whose worker died (`actor`).

use std::sync::Arc;

use super::super::actor::ActorRef;
use super::super::call::{Argument, CallError, Outcome};
use super::super::cell::{self, RawRef, Record, SLOT};
use super::super::engine::Engine;
use super::super::entry::Kind;
use super::super::local::Local;
use super::super::pin::Pins;
use super::frame::{self, Answer, Place, Reader};
use super::process::{Lane, Process};
use super::table::table;
use super::watched::Job;
use crate::base::{Error, Origin};
use crate::shm::{Full, Lied, Waited};
use crate::store::Draft;

/// How a call in a worker ended.
pub struct Ended {
    pub outcome: Outcome,
    /// It consumed the state that the worker held.
    pub taken: bool,
}

/// What came of one attempt.
enum Attempt {
    Ended(Ended),
    /// The worker went, or was sent away.
    Died,
}

/// Runs a claimed call to a function in a worker process, again if the process dies and the call has retries.
pub fn execute(engine: &Arc<Engine>, local: &Local, record: &RawRef) -> Outcome {
    let Some(extra) = record.extra() else {
        return Ok(());
    };
    let cancelled = || record.state() & cell::CANCEL != 0;
    let why_cancelled = || {
        CallError::Runtime(Error::Cancelled {
            function: record.entry.name,
        })
    };
    loop {
        let attempts = extra.begin_attempt();
        let worker = engine.workers.take(engine)?;
        *extra.host.lock() = Some(Arc::clone(&worker));
        // Whoever cancels says so before it looks for the worker.
        if cancelled() {
            *extra.host.lock() = None;
            engine.workers.give_back(worker);
            return Err(why_cancelled());
        }
        let (function, retries) = (record.entry.name, extra.crash_retries);
        let job = Job::call(function, attempts, retries, extra.memory);
        if let Err(e) = worker.watched.begin(&engine.workers.care, job) {
            *extra.host.lock() = None;
            worker.kill();
            return Err(CallError::Runtime(e));
        }
        let attempt = run(local, record, &worker);
        *extra.host.lock() = None;
        match attempt {
            Attempt::Ended(ended) => {
                engine.workers.give_back(worker);
                return ended.outcome;
            }
            Attempt::Died if cancelled() => return Err(why_cancelled()),
            Attempt::Died if engine.is_closing() => {
                return Err(CallError::Runtime(Error::ShutDown));
            }
            Attempt::Died if attempts > extra.crash_retries => {
                return Err(death(record, &worker, attempts));
            }
            Attempt::Died => {}
        }
    }
}

/// Runs an actor's constructor in a process of its own, which is the actor's from then on.
pub fn construct(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    init: &RawRef,
) -> Result<Arc<Process>, CallError> {
    let worker = engine.workers.take(engine)?;
    if let Err(e) = worker.watched.begin(&engine.workers.care, actor.job()) {
        worker.kill();
        return Err(CallError::Runtime(e));
    }
    match run(local, init, &worker) {
        Attempt::Ended(Ended {
            outcome: Ok(()), ..
        }) => Ok(worker),
        Attempt::Ended(Ended {
            outcome: Err(e), ..
        }) => {
            engine.workers.give_back(worker);
            Err(e)
        }
        Attempt::Died if engine.is_closing() => Err(CallError::Runtime(Error::ShutDown)),
        Attempt::Died => Err(death(init, &worker, 1)),
    }
}

/// Runs a claimed method in its actor's process.
pub fn method(local: &Local, record: &RawRef, host: &Process) -> Ended {
    match run(local, record, host) {
        Attempt::Ended(ended) => ended,
        Attempt::Died => {
            let outcome = Err(death(record, host, 1));
            let taken = false;
            Ended { outcome, taken }
        }
    }
}

fn death(record: &Record, worker: &Process, attempts: u32) -> CallError {
    let death = worker.watched.report(record.entry.name, attempts);
    CallError::Runtime(Error::WorkerDied(Arc::new(death)))
}

/// One attempt.
fn run(local: &Local, record: &RawRef, worker: &Process) -> Attempt {
    let before = local.current.replace(std::ptr::from_ref(&**record));
    // SAFETY: claimed, and in no mailbox, so the link is ours: see `Local::each_current`.
    unsafe { record.set_outer(before) };
    let timed = local.begin(record);
    let outer = local.books().process(worker.pid);
    let mut lane = worker.lane(record.id);
    let mut drafts = Vec::new();
    let ended = converse(local, record, worker, &mut lane, &mut drafts);
    worker.give_back(lane);
    let attempt = match ended {
        Ok(Some(ended)) => Attempt::Ended(ended),
        gone => {
            if gone.is_err() {
                worker.kill();
            }
            worker.wait_for_death();
            Attempt::Died
        }
    };
    drop(drafts); // not before it is dead: it may have been writing
    local.current.set(before);
    local.books().process(outer);
    local.end(record, timed);
    attempt
}

/// Sends the call and serves the worker until it has ended; `None` if the worker went.
fn converse(
    local: &Local,
    record: &RawRef,
    worker: &Process,
    lane: &mut Lane,
    drafts: &mut Vec<Draft>,
) -> Result<Option<Ended>, Lied> {
    let ended = |outcome, taken| Ok(Some(Ended { outcome, taken }));
    // SAFETY: claimed; the arguments are dropped after the pins are.
    let pins = match unsafe { Pins::take(local, record) } {
        Ok(pins) => pins,
        Err(e) => return ended(Err(CallError::Runtime(e)), false),
    };
    if let Err(e) = send(local, record, lane) {
        return ended(Err(CallError::Runtime(e)), false);
    }
    let mut refused: Option<Error> = None;
    loop {
        let what = match lane.receive(worker)? {
            Some(what) => what,
            None => return Ok(None),
        };
        if what == frame::LEND {
            let len = Reader(&lane.frame).u64()?;
            refused = lend(local, record, lane, len, drafts)?.or(refused);
            continue;
        }
        let answer = Answer::read(what, &lane.frame)?;
        // It has done with them.
        drop(pins);
        let taken = answer.taken();
        return match answer {
            Answer::Nothing { .. } => {
                // A constructor's are kept for a restart.
                if record.entry.kind != Kind::Constructor {
                    // SAFETY: claimed; nobody borrows the arguments.
                    unsafe { record.drop_args() };
                }
                ended(Ok(()), taken)
            }
            Answer::Value { archive, .. } => {
                keep(record, archive)?;
                ended(Ok(()), taken)
            }
            Answer::Stored { offset, len, .. } => {
                let lent = |d: &Draft| (d.offset(), d.len() as u64) == (offset, len);
                let draft = drafts.iter().position(lent).ok_or(Lied)?;
                let sealed = drafts.swap_remove(draft).seal();
                if (record.entry.check)(&sealed).is_err() {
                    return Err(Lied);
                }
                // SAFETY: claimed; nobody borrows the arguments.
                unsafe {
                    record.drop_args();
                    record.set_stored(sealed, None);
                }
                ended(Ok(()), taken)
            }
            Answer::Failed { mut why, .. } => {
                let error = super::failure::read(&mut why, record.entry.name)?;
                // What it was refused says more than what it made of that.
                ended(Err(refused.map_or(error, CallError::Runtime)), taken)
            }
        };
    }
}

/// Lends pages for a large value; why not, if there are none.
fn lend(
    local: &Local,
    record: &Record,
    lane: &mut Lane,
    len: u64,
    drafts: &mut Vec<Draft>,
) -> Result<Option<Error>, Lied> {
    /// A call has one result.
    const MOST: usize = 16;
    if drafts.len() == MOST {
        return Err(Lied);
    }
    let len = usize::try_from(len).map_err(|_| Lied)?;
    let origin = Origin::Result(record.entry.name);
    let made = local.engine.create_on_pages(local, len, origin);
    let out = &mut lane.out;
    out.0.clear();
    let (what, refused) = match made {
        Ok(draft) => {
            out.u64(draft.offset());
            drafts.push(draft);
            (frame::LENT, None)
        }
        Err(e) => {
            out.text(&e.to_string());
            (frame::REFUSED, Some(e))
        }
    };
    lane.sender.send(what, &[&out.0]).map_err(|Full| Lied)?;
    Ok(refused)
}

impl Lane {
    /// The next frame, in `frame`: what it is; `None` if the worker is dead.
    fn receive(&mut self, worker: &Process) -> Result<Option<u32>, Lied> {
        loop {
            let waited = self.receiver.wait(self.patience.spin(), || worker.dead());
            match waited {
                Waited::Gone => return Ok(None),
                Waited::Ready => self.patience.found(),
                Waited::Slept => self.patience.missed(),
            }
            if let Some(what) = self.receiver.take(&mut self.frame)? {
                return Ok(Some(what));
            }
        }
    }
}

/// Sends the call, whose arguments are pinned.
fn send(local: &Local, record: &RawRef, lane: &mut Lane) -> Result<(), Error> {
    let entry = record.entry;
    let number = table().number(entry);
    let number = number.ok_or_else(|| cannot(record, "it is not registered"))?;
    let wanted = !record.is_unique()
        || std::ptr::eq(local.wanted.get(), std::ptr::from_ref(&**record))
        || entry.kind == Kind::Constructor;
    let out = &mut lane.out;
    out.0.clear();
    out.u32(number);
    out.u32(u32::from(wanted));
    out.u32(record.id as u32);
    let gpus = record.extra().and_then(|e| e.gpus.get());
    let gpus = gpus.map_or(&[][..], |g| &g[..g.len().min(frame::MAX_GPUS)]);
    out.u32(gpus.len() as u32);
    gpus.iter().for_each(|g| out.u32(*g));
    // SAFETY: claimed; the arguments stay until the call has ended.
    unsafe {
        let caps = "an argument has references or actor handles inside; pass them as arguments of their own, or values";
        if !record.caps().is_empty() {
            return Err(cannot(record, caps));
        }
        let count = record.slots().len();
        let end = record.args_end();
        out.u32(count as u32);
        out.u32(end);
        let mut tails: [&[u8]; frame::MAX_ARGS] = [&[]; frame::MAX_ARGS];
        for (i, tail) in tails.iter_mut().enumerate().take(count) {
            let object = match record.argument(i) {
                Argument::Inline(end) => {
                    out.place(Place::Inline { end });
                    continue;
                }
                Argument::Object(object) => object,
            };
            if !object.caps().is_empty() {
                return Err(cannot(record, caps));
            }
            out.place(match object.stored() {
                Some(stored) => Place::Arena {
                    offset: stored.offset(),
                    len: stored.len() as u64,
                },
                None => {
                    *tail = object.archive();
                    Place::Tail {
                        len: tail.len() as u32,
                    }
                }
            });
        }
        out.0
            .extend_from_slice(&record.inline_arg(end)[count * SLOT..]);
        tails.iter().for_each(|t| out.0.extend_from_slice(t));
    }
    let what = match entry.kind {
        Kind::Constructor => frame::CONSTRUCT,
        Kind::Task | Kind::AsyncTask => frame::CALL,
        _ => frame::METHOD,
    };
    let full = |Full| cannot(record, "its arguments are too long for one message");
    lane.sender.send(what, &[&out.0]).map_err(full)
}

fn cannot(record: &Record, why: &str) -> Error {
    Error::Isolation {
        what: format!(
            "{} cannot run in a worker process: {why}",
            record.entry.name
        ),
    }
}

/// Puts a small value into the record.
fn keep(record: &RawRef, archive: &[u8]) -> Result<(), Lied> {
    (record.entry.check)(archive).map_err(|_| Lied)?;
    // SAFETY: claimed; nobody borrows the arguments.
    unsafe {
        record.drop_args();
        if archive.len() <= record.room() {
            record.set_inline(archive, None);
        } else {
            record.set_boxed(archive, None);
        }
    }
    Ok(())
}

/// Has the worker drop an actor's state, and ends it. Blocks while the state's own `Drop` runs; what that had to say if it
/// panicked.
pub fn end_host(host: &Process) -> Result<(), CallError> {
    let said = (|| {
        let mut lane = host.lane(0);
        let said = drop_there(host, &mut lane);
        host.give_back(lane);
        said
    })();
    host.kill();
    match said {
        Ok(Some(e)) => Err(e),
        _ => Ok(()),
    }
}

fn drop_there(host: &Process, lane: &mut Lane) -> Result<Option<CallError>, Lied> {
    if host.dead() || lane.sender.send(frame::DROP, &[]).is_err() {
        return Ok(None);
    }
    loop {
        let Some(what) = lane.receive(host)? else {
            return Ok(None);
        };
        if what == frame::LEND {
            return Err(Lied);
        }
        return match Answer::read(what, &lane.frame)? {
            Answer::Failed { mut why, .. } => super::failure::read(&mut why, "drop").map(Some),
            _ => Ok(None),
        };
    }
}
