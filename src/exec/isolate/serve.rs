//! A worker process: takes calls from its lanes, runs them, and answers.
//!
//! Invariant: arguments in the arena are read only while their call runs; pages are written only while they are leased.
//! A node that goes, or says what no node says, ends the process. Left out: how the process came to be (`takeover`).

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::INLINE_MAX;
use super::super::call::{CallError, Outcome, StateRef, object_blank};
use super::super::cell::{self, BODY, Blank, PAD, Phase, RawRef, SLOT, Slot, SlotTag};
use super::super::engine::Engine;
use super::super::entry::{ActorEntry, FnEntry, Kind, Run};
use super::super::events::{self, Recording};
use super::super::local::{self, Local};
use super::super::options::Extra;
use super::frame::{self, HEAD, MAX_ARGS, MAX_GPUS, Place, Reader, Writer};
use super::hello::{self, Welcome};
use super::orphan::{self, Node};
use super::table::{RESTORE, table};
use crate::base::Error;
use crate::core::Patience;
use crate::shm::{
    Aligned, Attached, HugePages, Lanes, Lease, Lied, Prefault, Receiver, Sender, Waited, Words,
    current_cpu, move_away_from,
};
use crate::store::{SpillTo, Store, StoreOptions};
use crate::trace::{Mode, NOT_RECORDED, Outcome as End, Recorder};
use crate::value::Cap;

/// What a process was given to be a worker.
pub struct Setup {
    welcome: Welcome,
    arena: OwnedFd,
    lanes: OwnedFd,
    events: Option<OwnedFd>,
    socket: OwnedFd,
}

impl Setup {
    /// Takes it from standard input, which is closed; `None` if that is no node's socket.
    pub fn receive() -> Option<Setup> {
        let input = rustix::stdio::stdin();
        let (welcome, [arena, lanes], events) = Welcome::receive(input).ok()?;
        let socket = rustix::io::fcntl_dupfd_cloexec(input, 3).ok()?;
        let null = rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .ok()?;
        rustix::stdio::dup2_stdin(null).ok()?;
        Some(Setup {
            welcome,
            arena,
            lanes,
            events,
            socket,
        })
    }
}

/// Bytes for objects that a call makes for itself; they cost memory when they are written.
const PRIVATE: u64 = 256 << 20;

/// What a worker process has.
struct Worker {
    arena: Arc<Attached>,
    lanes: Arc<Lanes>,
    socket: OwnedFd,
    /// The actor that lives here, and its state: a leaked box of its type.
    actor: OnceLock<&'static ActorEntry>,
    state: AtomicPtr<()>,
}

static WORKER: OnceLock<Worker> = OnceLock::new();

thread_local! {
    /// The lane that this thread serves, while a call of it runs.
    static LANE: RefCell<Option<Lane>> = const { RefCell::new(None) };
}

struct Lane {
    sender: Sender,
    receiver: Receiver,
    frame: Aligned,
    patience: Patience,
    /// The call that runs, as the node names it to cancel it.
    call: u32,
    /// Calls in a row that came from the CPU that this thread is on, and how many are too many.
    together: (u32, u32),
}

/// Sees to it that the thread that sends the calls and the one that runs them do not keep to one CPU, where
/// each message costs two switches of threads (5 us a call instead of 1), while the scheduler sees nothing
/// to mend. Moves away after some calls in a row, and less and less often if that does not last.
fn part(theirs: u32) {
    let mine = current_cpu();
    LANE.with_borrow_mut(|lane| {
        let Some(lane) = lane.as_mut() else { return };
        let (calls, most) = &mut lane.together;
        if mine.is_none_or(|mine| mine != theirs as usize) {
            *calls = 0;
            return;
        }
        *calls += 1;
        if *calls >= *most {
            *calls = 0;
            *most = most.saturating_mul(2).min(LEAST_OFTEN);
            move_away_from(theirs as usize);
        }
    });
}

/// Calls in a row on one CPU after which the thread that runs them moves away, at first.
const SOON: u32 = 16;
/// The same after this has been done often.
const LEAST_OFTEN: u32 = 4096;

/// Whether the call that runs on this thread was told to end.
pub fn told_to_cancel() -> bool {
    in_worker()
        && LANE.with_borrow(|lane| {
            let lane = lane.as_ref();
            lane.is_some_and(|lane| lane.call != 0 && lane.receiver.note() == lane.call)
        })
}

/// Whether this process is a worker.
pub fn in_worker() -> bool {
    WORKER.get().is_some()
}

/// Serves until the node goes.
pub fn serve(setup: Setup) {
    let Setup {
        welcome,
        arena,
        lanes,
        events,
        socket,
    } = setup;
    let refuse = |socket: BorrowedFd<'_>, why: &str| drop(hello::answer(socket, Err(why)));
    if welcome.registry != table().hash {
        return refuse(
            socket.as_fd(),
            "its remote functions are not the node's: was the executable replaced?",
        );
    }
    let mapped = Attached::map(arena.as_fd(), welcome.arena, welcome.grain)
        .and_then(|arena| Ok((arena, Lanes::attach(lanes, welcome.lanes as usize)?)));
    let (arena, lanes) = match mapped {
        Ok(both) => both,
        Err(e) => {
            return refuse(
                socket.as_fd(),
                &format!("cannot map the node's memory: {e}"),
            );
        }
    };
    let worker = WORKER.get_or_init(|| Worker {
        arena: Arc::new(arena),
        lanes,
        socket,
        actor: OnceLock::new(),
        state: AtomicPtr::new(std::ptr::null_mut()),
    });
    let store = Store::open(StoreOptions {
        capacity: Some(PRIVATE),
        prefault: Prefault::Off,
        huge_pages: HugePages::Off,
        spill: SpillTo::Off,
        ..StoreOptions::default()
    });
    let Ok(store) = store else {
        return refuse(worker.socket.as_fd(), "cannot make memory");
    };
    // A worker works without a recording as well.
    let recording = events
        .and_then(|file| Words::attach(file).ok())
        .and_then(|words| {
            let words = Arc::new(words);
            let recorder = Recorder::attach(words.clone(), Mode::from_code(welcome.trace))?;
            let recorder = Arc::new(recorder);
            Some(Recording { recorder, words })
        });
    let engine = Engine::for_worker(store, recording);
    let Ok(_) = local::start(&engine) else { return };
    super::super::panics::install();
    let watch = std::thread::Builder::new()
        .name("mobula-watch".into())
        .stack_size(128 << 10)
        .spawn(|| watch(worker));
    if watch.is_err() || hello::answer(worker.socket.as_fd(), Ok(())).is_err() {
        return;
    }
    let _ = local::with(|local| serve_lane(worker, 0, local));
}

/// Opens lanes as the node tells, and ends the process when the node is gone.
fn watch(worker: &'static Worker) {
    let mut byte = [0];
    let node = Node::of(worker.socket.as_fd());
    loop {
        node.await_news(worker.socket.as_fd());
        match rustix::net::recv(&worker.socket, &mut byte, rustix::net::RecvFlags::empty()) {
            Ok((1, _)) => {
                let lane = usize::from(byte[0]);
                let served = std::thread::Builder::new()
                    .name(format!("mobula-lane-{lane}"))
                    .spawn(move || local::with(|local| serve_lane(worker, lane, local)));
                if served.is_err() {
                    std::process::abort(); // a call would wait for this lane without end
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            _ => orphan::end(),
        }
    }
}

/// Serves the calls of one lane.
fn serve_lane(worker: &'static Worker, lane: usize, local: &Local) {
    let Some((sender, receiver)) = worker.lanes.ends(lane) else {
        return;
    };
    LANE.set(Some(Lane {
        sender,
        receiver,
        frame: Aligned::default(),
        patience: Patience::new(),
        call: 0,
        together: (0, SOON),
    }));
    let mut frame = Aligned::default();
    let mut out = Writer::default();
    loop {
        let done = next(&mut frame).and_then(|what| match what {
            frame::CALL | frame::CONSTRUCT | frame::METHOD => {
                call(worker, local, what, &frame, &mut out)
            }
            frame::DROP => drop_state(worker, &mut out),
            _ => Err(Lied),
        });
        if done.is_err() {
            // The node is of the same program: it would not.
            std::process::abort();
        }
    }
}

/// The next frame for this thread.
fn next(frame: &mut Aligned) -> Result<u32, Lied> {
    LANE.with_borrow_mut(|lane| {
        let lane = lane.as_mut().ok_or(Lied)?;
        loop {
            if let Some(what) = lane.receiver.take(&mut lane.frame)? {
                std::mem::swap(frame, &mut lane.frame);
                return Ok(what);
            }
            match lane.receiver.wait(lane.patience.spin(), || false) {
                Waited::Ready => lane.patience.found(),
                Waited::Slept | Waited::Gone => lane.patience.missed(),
            }
        }
    })
}

fn say(what: u32, parts: &[&[u8]]) -> Result<(), Lied> {
    LANE.with_borrow_mut(|lane| {
        let lane = lane.as_mut().ok_or(Lied)?;
        lane.sender.send(what, parts).map_err(|_| Lied)
    })
}

/// From here on faulting pages one by one costs more than all at once.
const POPULATE: usize = 256 << 10;

/// Pages of the arena for a value of `len` bytes, lent by the node.
pub fn lend(len: usize) -> Result<Lease, Error> {
    let lost = |why: &str| Error::Os {
        what: "writing a large value in a worker process",
        source: Arc::new(std::io::Error::other(why.to_owned())),
    };
    let worker = WORKER.get().ok_or_else(|| lost("this is none"))?;
    let mut out = Writer::default();
    out.u64(len as u64);
    say(frame::LEND, &[&out.0]).map_err(|_| lost("only the thread that runs a call can"))?;
    let mut frame = Aligned::default();
    let what = next(&mut frame).map_err(|_| lost("the node went"))?;
    let mut r = Reader(&frame);
    match what {
        frame::LENT => {
            let offset = r.u64().map_err(|_| lost("a short answer"))?;
            // SAFETY: the node lends these pages to the call that runs here, until its answer.
            let lease = unsafe { worker.arena.lease(offset, len as u64) };
            let lease = lease.map_err(|e| Error::Os {
                what: "leasing pages of the store",
                source: Arc::new(e),
            })?;
            if len >= POPULATE {
                lease.populate();
            }
            Ok(lease)
        }
        _ => Err(lost(&r.text().unwrap_or_default())),
    }
}

/// What was written to a lease, which ends, to be read in place.
pub fn written(lease: Lease) -> &'static [u8] {
    let (offset, len) = (lease.offset(), lease.len() as u64);
    drop(lease);
    let worker = WORKER.get().expect("only workers have leases");
    // SAFETY: written by this process, whose lease of it has ended; the node keeps it for the call that runs.
    unsafe { worker.arena.bytes(offset, len) }.expect("it was inside when it was leased")
}

/// Puts a value into a record that has no room for it: written at positions from [`BODY`].
///
/// # Safety
/// As for `Record::set_inline`.
pub unsafe fn keep_large(
    record: &RawRef,
    archive: &[u8],
    caps: Option<Box<[Cap]>>,
) -> Result<(), Error> {
    if archive.len() <= MAX_INLINE {
        // SAFETY: the caller's promise.
        unsafe { record.set_boxed(archive, caps) };
        return Ok(());
    }
    let mut lease = lend(PAD + archive.len())?;
    lease[..PAD].fill(0);
    lease.write_at(PAD, archive);
    // SAFETY: as above.
    unsafe { record.set_foreign(written(lease), caps) };
    Ok(())
}

const _: () = assert!(
    HEAD == PAD,
    "an archive in an answer is aligned as in a record"
);

/// The largest value that an answer holds itself.
const MAX_INLINE: usize = 64 << 10;

/// Runs one call and answers.
fn call(
    worker: &'static Worker,
    local: &Local,
    what: u32,
    bytes: &[u8],
    out: &mut Writer,
) -> Result<(), Lied> {
    let mut r = Reader(bytes);
    let number = r.u32()?;
    let restores = number & RESTORE != 0;
    let number = (number & !RESTORE) as usize;
    let wanted = r.u32()? != 0;
    let name = r.u32()?;
    part(r.u32()?);
    let id = r.u64()?;
    let gpus = (0..r.u32()?.min(MAX_GPUS as u32)).map(|_| r.u32());
    let gpus = gpus.collect::<Result<Vec<_>, _>>()?;
    let extra = (!gpus.is_empty()).then(|| Box::new(Extra::there(gpus)));
    let actor = table().actors.get(number).copied();
    let entry = if what == frame::CONSTRUCT {
        let actor = actor.ok_or(Lied)?;
        match &actor.keep {
            Some(keep) if restores => &keep.restore,
            None if restores => return Err(Lied),
            _ => &actor.constructor,
        }
    } else if restores {
        return Err(Lied);
    } else {
        *table().functions.get(number).ok_or(Lied)?
    };
    let mut state = worker.state.load(Ordering::Acquire);
    if (what == frame::METHOD) == state.is_null() {
        return Err(Lied);
    }
    let record = read_record(worker, local, (entry, id), extra, &mut r)?;
    // The node knows whether anybody wants the value.
    let wants = if wanted {
        std::ptr::from_ref(&*record)
    } else {
        std::ptr::null()
    };
    local.wanted.set(wants);
    let before = local.current.replace(std::ptr::from_ref(&*record));
    LANE.with_borrow_mut(|lane| lane.as_mut().map(|lane| lane.call = name));
    let place = match entry.kind {
        Kind::Constructor | Kind::Consuming => (&raw mut state).cast(),
        _ => state,
    };
    events::enter(local, &record);
    let outcome = run(local, &record, StateRef(place));
    if events::recorded(record.id) {
        // The node records why.
        let ended = match outcome {
            Ok(Ok(())) => End::Done,
            _ => End::Failed,
        };
        events::exited(local, &record, ended, 0);
    }
    LANE.with_borrow_mut(|lane| lane.as_mut().map(|lane| lane.call = 0));
    local.current.set(before);
    local.wanted.set(std::ptr::null());
    let mut flags = 0;
    match entry.kind {
        Kind::Constructor if !state.is_null() => {
            // After one that failed the process may be another actor's.
            worker.actor.set(actor.ok_or(Lied)?).map_err(|_| Lied)?;
            worker.state.store(state, Ordering::Release);
        }
        Kind::Consuming if state.is_null() => {
            worker.state.store(state, Ordering::Release);
            flags = frame::TAKEN;
        }
        _ => {}
    }
    answer(worker, &record, (wanted, flags), outcome, out)
}

/// Runs a claimed call.
fn run(local: &Local, record: &RawRef, state: StateRef) -> std::thread::Result<Outcome> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    match record.entry.run {
        Run::Never => Ok(Ok(())),
        // SAFETY: made by this thread, claimed; the state is null, a place for one, or the actor's that lives here, and the
        // node lets calls in by the actor's gate.
        Run::Sync(run) => catch_unwind(AssertUnwindSafe(|| unsafe { run(local, record, state) })),
        #[cfg(feature = "async")]
        Run::Async(run) => catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: as above; the future ends before this returns.
            let future = unsafe { run(record.clone(), state) };
            local.engine.block_on(future)?
        })),
    }
}

/// Drops the state of the actor that lived here. The node ends the process then.
fn drop_state(worker: &Worker, out: &mut Writer) -> Result<(), Lied> {
    let state = worker.state.swap(std::ptr::null_mut(), Ordering::AcqRel);
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if let Some(actor) = worker.actor.get()
            && !state.is_null()
        {
            // SAFETY: a leaked box of this actor's type, taken out of its place once.
            unsafe { (actor.drop_state)(state) };
        }
    }));
    // The process ends by a signal: what it printed must be out.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    out.0.clear();
    out.0.resize(HEAD, 0);
    match dropped {
        Ok(()) => say(frame::NOTHING, &[&out.0]),
        Err(payload) => {
            let failure = super::super::panics::failure(payload);
            super::failure::write(&CallError::Function(failure), out);
            say(frame::FAILED, &[&out.0])
        }
    }
}

fn answer(
    worker: &Worker,
    record: &RawRef,
    (wanted, flags): (bool, u32),
    outcome: std::thread::Result<Outcome>,
    out: &mut Writer,
) -> Result<(), Lied> {
    // What the call printed is out before its result is.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    out.0.clear();
    out.u32(flags);
    out.0.resize(HEAD, 0);
    let failure = match outcome {
        Ok(Ok(())) if !wanted || record.entry.kind == Kind::Constructor => {
            return say(frame::NOTHING, &[&out.0]);
        }
        Ok(Ok(())) => {
            drop(record.finish(Phase::Done));
            // SAFETY: `Done`.
            if unsafe { !record.caps().is_empty() } {
                CallError::Runtime(Error::Encode {
                    value: (record.entry.output)(),
                    why: Arc::from(
                        "references cannot leave a worker process inside a value; return values",
                    ),
                })
            } else if let Some(bytes) = record.foreign() {
                out.u64(worker.arena.offset_of(bytes));
                out.u64(bytes.len() as u64);
                return say(frame::STORED, &[&out.0]);
            } else {
                return say(frame::VALUE, &[&out.0, record.archive()]);
            }
        }
        Ok(Err(e)) => e,
        Err(payload) => CallError::Function(super::super::panics::failure(payload)),
    };
    super::failure::write(&failure, out);
    say(frame::FAILED, &[&out.0])
}

/// The record of a call, made anew from what the node sent.
fn read_record(
    worker: &'static Worker,
    local: &Local,
    (entry, id): (&'static FnEntry, u64),
    extra: Option<Box<Extra>>,
    r: &mut Reader<'_>,
) -> Result<RawRef, Lied> {
    let (count, end) = (r.u32()? as usize, r.u32()? as usize);
    let mut places = [Place::Inline { end: 0 }; MAX_ARGS];
    let places = places.get_mut(..count).ok_or(Lied)?;
    for place in places.iter_mut() {
        *place = r.place()?;
    }
    let first = BODY + count * SLOT;
    let inline = r.bytes(end.checked_sub(first).ok_or(Lied)?)?;
    let mut payload = vec![0; (end - BODY).next_multiple_of(32)];
    payload[first - BODY..end - BODY].copy_from_slice(inline);
    for (i, place) in places.iter().enumerate() {
        let blank = || object_blank(local, None, NOT_RECORDED);
        let object = |record: RawRef| Slot {
            tag: SlotTag::Ref,
            end: 0,
            ptr: record.into_raw().cast(),
        };
        let slot = match *place {
            Place::Inline { end: e } if (first..=end).contains(&(e as usize)) => Slot {
                tag: SlotTag::Inline,
                end: e,
                ptr: std::ptr::null_mut(),
            },
            Place::Inline { .. } => return Err(Lied),
            Place::Tail { len } => {
                let archive = r.bytes(len as usize)?;
                object(cell::with_inline_value(blank(), archive))
            }
            Place::Arena { offset, len } => {
                // SAFETY: the node keeps the object in place while the call runs.
                let bytes = unsafe { worker.arena.bytes(offset, len) }.ok_or(Lied)?;
                object(cell::with_foreign_value(blank(), bytes))
            }
        };
        slot.write_to(&mut payload[i * SLOT..(i + 1) * SLOT]);
    }
    let blank = Blank {
        entry,
        refs: 1,
        phase: Phase::Running,
        caller: 0,
        id,
        target: None,
        extra,
        caps: None,
    };
    // SAFETY: `count` slots were written at the beginning, and what they own goes to the record.
    Ok(unsafe {
        cell::with_args(
            blank,
            count,
            &payload,
            end,
            entry.result_size.max(INLINE_MAX),
        )
    })
}
