//! Stands in for a call while a worker process runs it: sends it, serves what it asks for, takes its outcome.
//!
//! Invariant: a value is put into the record only after it was checked to be an archive of the function's result.
//! Left out: which worker (`pool`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::call::{CallError, Outcome};
use super::super::cell::{self, PAD, RawRef, SLOT};
use super::super::engine::Engine;
use super::super::local::Local;
use super::frame::{self, Place, Reader};
use super::process::{Lane, Process};
use super::table::table;
use crate::base::{Error, Origin, WorkerDeath};
use crate::shm::{Full, Lied, Waited};
use crate::store::Draft;

/// What came of one attempt.
enum Attempt {
    Ended(Outcome),
    /// The worker went, or was sent away.
    Died,
}

/// Runs a claimed call to a function in a worker process.
pub fn execute(engine: &Arc<Engine>, local: &Local, record: &RawRef) -> Outcome {
    let retries = record.extra().map_or(0, |e| e.crash_retries);
    loop {
        let worker = engine.workers.take(engine)?;
        let ended = run(local, record, &worker);
        let attempts = record
            .extra()
            .map_or(1, |e| e.attempts.load(Ordering::Relaxed).max(1));
        match ended {
            Attempt::Ended(outcome) => {
                engine.workers.give_back(worker);
                return outcome;
            }
            Attempt::Died => {
                let mut death = WorkerDeath::new(record.entry.name, worker.pid, worker.exit());
                death.attempts = attempts;
                if record.state() & cell::CANCEL != 0 {
                    return Err(CallError::Runtime(Error::Cancelled {
                        function: record.entry.name,
                    }));
                }
                if engine.is_closing() {
                    return Err(CallError::Runtime(Error::ShutDown));
                }
                if attempts > retries {
                    return Err(CallError::Runtime(Error::WorkerDied(Arc::new(death))));
                }
                if let Some(extra) = record.extra() {
                    extra.begin_attempt();
                }
            }
        }
    }
}

fn run(local: &Local, record: &RawRef, worker: &Process) -> Attempt {
    let mut lane = worker.lane();
    let ended = converse(local, record, worker, &mut lane);
    worker.give_back(lane);
    match ended {
        Ok(Some(outcome)) => Attempt::Ended(outcome),
        Ok(None) => {
            worker.wait_for_death();
            Attempt::Died
        }
        Err(Lied) => {
            worker.kill();
            worker.wait_for_death();
            Attempt::Died
        }
    }
}

/// `None` if the worker went.
fn converse(
    local: &Local,
    record: &RawRef,
    worker: &Process,
    lane: &mut Lane,
) -> Result<Option<Outcome>, Lied> {
    if let Err(e) = send(local, record, lane) {
        return Ok(Some(Err(CallError::Runtime(e))));
    }
    let mut draft: Option<Draft> = None;
    let mut refused: Option<Error> = None;
    loop {
        if lane
            .receiver
            .wait(Duration::from_micros(20), || worker.dead())
            == Waited::Gone
        {
            return Ok(None);
        }
        let what = lane.receiver.take(&mut lane.frame)?;
        let mut r = Reader(&lane.frame);
        match what {
            None => {}
            Some(frame::NOTHING) => {
                // SAFETY: claimed; nobody borrows the arguments.
                unsafe { record.drop_args() };
                return Ok(Some(Ok(())));
            }
            Some(frame::VALUE) => return keep(record, &lane.frame).map(Some),
            Some(frame::STORED) => {
                let (offset, len) = (r.u64()?, r.u64()?);
                let draft = draft.take().ok_or(Lied)?;
                if (draft.offset(), draft.len() as u64) != (offset, len) {
                    return Err(Lied);
                }
                let sealed = draft.seal();
                (record.entry.check)(&sealed).map_err(|_| Lied)?;
                // SAFETY: claimed; nobody borrows the arguments.
                unsafe {
                    record.drop_args();
                    record.set_stored(sealed, None);
                }
                return Ok(Some(Ok(())));
            }
            Some(frame::FAILED) => {
                let error = super::failure::read(&mut r, record.entry.name)?;
                return Ok(Some(Err(refused.map_or(error, CallError::Runtime))));
            }
            Some(frame::LEND) => {
                let len = r.u64()?;
                let origin = Origin::Result(record.entry.name);
                let made = local.engine.store().create_on_pages(len as usize, origin);
                let out = &mut lane.out;
                out.0.clear();
                let what = match made {
                    Ok(made) => {
                        out.u64(made.offset());
                        draft = Some(made);
                        frame::LENT
                    }
                    Err(e) => {
                        out.text(&e.to_string());
                        refused = Some(e.into());
                        frame::REFUSED
                    }
                };
                lane.sender.send(what, &[&out.0]).map_err(|Full| Lied)?;
            }
            Some(_) => return Err(Lied),
        }
    }
}

/// Sends the call.
fn send(local: &Local, record: &RawRef, lane: &mut Lane) -> Result<(), Error> {
    let number = table()
        .number(record.entry)
        .ok_or_else(|| cannot("it is not registered"))?;
    let out = &mut lane.out;
    out.0.clear();
    out.u32(number);
    let unwanted =
        record.is_unique() && !std::ptr::eq(local.wanted.get(), std::ptr::from_ref(&**record));
    out.u32(u32::from(!unwanted));
    // SAFETY: claimed; the arguments stay until the call has ended.
    unsafe {
        if !record.caps().is_empty() {
            return Err(cannot(
                "references inside its arguments cannot be sent to a worker process",
            ));
        }
        let slots = record.slots();
        let end = record.args_end();
        out.u32(slots.len() as u32);
        out.u32(end);
        let mut tails = Vec::new();
        for i in 0..slots.len() {
            let place = match record.argument(local, i)? {
                super::super::call::Argument::Inline(end) => Place::Inline { end },
                super::super::call::Argument::Object(object) => {
                    if !object.caps().is_empty() {
                        return Err(cannot(
                            "references inside its arguments cannot be sent to a worker process",
                        ));
                    }
                    match object.stored() {
                        Some(sealed) => Place::Arena {
                            offset: sealed.offset(),
                            len: sealed.len() as u64,
                        },
                        None => {
                            let archive = object.archive();
                            tails.push(archive);
                            Place::Tail {
                                len: archive.len() as u32,
                            }
                        }
                    }
                }
            };
            out.place(place);
        }
        let inline = &record.inline_arg(end)[slots.len() * SLOT..];
        out.0.extend_from_slice(inline);
        tails.iter().for_each(|t| out.0.extend_from_slice(t));
    }
    lane.sender
        .send(frame::CALL, &[&out.0])
        .map_err(|Full| cannot("its arguments are too many for one message"))
}

fn cannot(why: &str) -> Error {
    Error::Os {
        what: "sending a call to a worker process",
        source: Arc::new(std::io::Error::other(why.to_owned())),
    }
}

/// Puts a small value into the record.
fn keep(record: &RawRef, frame: &[u8]) -> Result<Outcome, Lied> {
    let archive = frame.get(PAD..).ok_or(Lied)?;
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
    Ok(Ok(()))
}
