//! How an actor comes to be: here, here for another node, or on another node.
//!
//! Invariant: a name is claimed before its actor exists, so that two creators cannot both win. Left out: what follows, from the
//! constructor to the death (`life`).

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::super::call::CallWriter;
use super::super::cell::{self, Blank, Phase, RawRef, Record};
use super::super::engine::Engine;
use super::super::entry::ActorEntry;
use super::super::far::{Elsewhere, Far};
use super::super::local::Local;
use super::super::mail::{Mail, RunLock};
use super::super::options::{self, Extra, Options};
use super::{ActorCell, ActorRef, HandleRef, Inner, Life, Line, More, wrong_type};
use crate::base::{Defaults, Demand, Error, Strategy, Units};
use crate::core::history::Terms;

pub(super) fn new_cell(
    entry: &'static ActorEntry,
    (id, born): (u64, u64),
    more: Option<Box<More>>,
    handles: u32,
    mail: Mail<Record>,
) -> ActorRef {
    let cell = Box::new(ActorCell {
        _callers: Line,
        refs: AtomicUsize::new(1),
        mail,
        _both: Line,
        life: AtomicU8::new(Life::Starting as u8),
        handles: AtomicU32::new(handles),
        entry,
        state: AtomicPtr::new(std::ptr::null_mut()),
        _drainer: Line,
        run: RunLock::new(),
        inner: UnsafeCell::new(Inner {
            backlog: std::ptr::null_mut(),
            init: None,
            history: None,
            logged: false,
            restore: None,
        }),
        more: more.map_or_else(OnceLock::new, OnceLock::from),
        id,
        born,
        place: AtomicU32::new(super::roll::NOWHERE),
        taken: AtomicU32::new(0),
    });
    ActorRef(NonNull::from(Box::leak(cell)))
}

/// A handle to an actor that never lived: its calls fail with `why`.
pub fn stillborn(entry: &'static ActorEntry, why: &Error) -> HandleRef {
    let more = More::new();
    *more.cause.lock() = Some(Arc::from(format!("it could not be created: {why}")));
    let actor = new_cell(entry, (0, 0), Some(Box::new(more)), 1, Mail::closed());
    actor.life.store(Life::Dead as u8, Ordering::Release);
    HandleRef(actor)
}

fn more(
    options: &Options,
    d: &Defaults,
    demand: &Demand,
    (isolate, memory): (bool, Option<u64>),
    checkpoints: Terms,
) -> Option<Box<More>> {
    let more = More {
        name: options.name.as_deref().or(d.name).map(Arc::from),
        max_concurrency: options
            .max_concurrency
            .or(d.max_concurrency)
            .unwrap_or(1)
            .max(1),
        max_restarts: options.max_restarts.or(d.max_restarts).unwrap_or(0),
        restart_on_panic: options
            .restart_on_panic
            .or(d.restart_on_panic)
            .unwrap_or(false),
        max_pending: options.max_pending.or(d.max_pending).unwrap_or(0),
        fail_when_full: options.fail_when_full,
        isolate,
        memory,
        checkpoints,
        replicas: options.replicas.or(d.replicas).unwrap_or(1),
        ..More::new()
    };
    let plain = more.name.is_none()
        && more.max_concurrency == 1
        && more.max_restarts == 0
        && !more.restart_on_panic
        && more.max_pending == 0
        && !isolate
        && *demand == Demand::NONE;
    (!plain).then(|| Box::new(more))
}

/// Creates an actor: returns at once; its constructor runs on an executor, or on the first caller's thread.
///
/// Fails when the name is taken, an amount is no number, or the node can never have the resources.
pub fn create(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    writer: CallWriter<'_>,
    given: Option<&Options>,
) -> Result<HandleRef, Error> {
    if let Some(o) = given
        && matches!(o.strategy, Strategy::Group { .. })
    {
        let groups = engine.groups().ok_or_else(super::super::groups::none)?;
        let demand = options::demand(o, &entry.defaults, Units::ZERO)?;
        if let Some(elsewhere) = groups.place_actor(local, entry, o, &demand)? {
            return create_there(local, entry, writer, given, elsewhere);
        }
    } else if let Some(far) = engine.far()
        && let Some(elsewhere) = elsewhere(&**far, local, entry, given)?
    {
        return create_there(local, entry, writer, given, elsewhere);
    }
    let (begun, refers) = (writer.begun, writer.refers);
    create_here(
        engine,
        local,
        entry,
        (begun, refers),
        (given, None),
        |blank| writer.finish(blank, 0).0,
    )
}

/// What a node makes an actor here with for others.
#[cfg(feature = "cluster")]
pub struct Foreign {
    /// Who keeps its history elsewhere, if that is kept.
    pub backups: Option<Arc<dyn super::Backups>>,
    /// How it is made, if another node had it.
    pub revival: Option<super::Revival>,
}

#[cfg(not(feature = "cluster"))]
enum Foreign {}

/// Creates an actor here for another node: `init` makes the constructor's call, which has references among its arguments if
/// `refers`. Fails as [`create`] does.
#[cfg(feature = "cluster")]
pub fn create_for(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    refers: bool,
    given: &Options,
    foreign: Foreign,
    init: impl FnOnce(Blank) -> RawRef,
) -> Result<HandleRef, Error> {
    let begun = local.lane.begin();
    let given = (Some(given), Some(foreign));
    create_here(engine, local, entry, (begun, refers), given, init)
}

/// Whether another node is to make it.
fn elsewhere(
    far: &dyn Far,
    local: &Local,
    entry: &'static ActorEntry,
    given: Option<&Options>,
) -> Result<Option<Elsewhere>, Error> {
    let none = Options::default();
    let o = given.unwrap_or(&none);
    if given.is_none() && entry.defaults == Defaults::NONE {
        return Ok(None);
    }
    let demand = options::demand(o, &entry.defaults, Units::ZERO)?;
    if let Some(why) = far.lacks(&demand) {
        return Err(why);
    }
    far.create(local, entry, o, &demand)
}

fn create_here(
    engine: &Arc<Engine>,
    local: &Local,
    entry: &'static ActorEntry,
    (begun, refers): (u64, bool),
    (given, foreign): (Option<&Options>, Option<Foreign>),
    init: impl FnOnce(Blank) -> RawRef,
) -> Result<HandleRef, Error> {
    if let Some(why) = engine.refuses() {
        return Err(why.clone());
    }
    let d = &entry.defaults;
    // One that another node had goes on wherever it can.
    if !revives(&foreign) {
        options::durable(given, d, engine.durables().usual().is_some())?;
    }
    let (more, demand, detached, adopt) = match given {
        None if *d == Defaults::NONE => (None, Demand::NONE, false, false),
        given => {
            let none = Options::default();
            let o = given.unwrap_or(&none);
            let demand = options::demand(o, d, Units::ZERO)?;
            if let Some(why) = engine.admission.lock().ledger.capacity().lacks(&demand) {
                return Err(why.into());
            }
            let isolation = options::isolation(o, d)?;
            (
                more(o, d, &demand, isolation, options::checkpoints(o, d)?),
                demand,
                o.detached,
                o.get_or_create,
            )
        }
    };
    let name = more.as_ref().and_then(|m| m.name.clone());
    let id = local.next_id(begun);
    let kept = more
        .as_ref()
        .is_some_and(|m| m.max_restarts > 0 && m.replicas > 0);
    let kept = kept && entry.is_kept();
    // One that another node had has its name already.
    if let (Some(name), Some(far)) = (&name, engine.far().filter(|_| !revives(&foreign)))
        && let Some(theirs) = far.claim_name(local, name, id, entry, kept)?
    {
        let living = theirs.actor();
        if !adopt {
            let (name, actor) = (name.to_string(), living.entry.name);
            return Err(Error::NameTaken { name, actor });
        }
        if !std::ptr::eq(living.entry, entry) {
            return Err(wrong_type(name, entry, living));
        }
        return Ok(theirs);
    }
    // The name is claimed before the actor exists, so that two creators cannot both win.
    let mut names = name.as_ref().map(|_| engine.names.lock());
    if let (Some(names), Some(name)) = (&names, &name)
        // One that nobody has a handle to any more only finishes its calls: its name is free.
        && let Some(living) = names.get(name).filter(|a| a.is_held())
    {
        if !adopt {
            let (name, actor) = (name.to_string(), living.entry.name);
            return Err(Error::NameTaken { name, actor });
        }
        if !std::ptr::eq(living.entry, entry) {
            return Err(wrong_type(name, entry, living));
        }
        if let Some(handle) = HandleRef::upgrade(living) {
            return Ok(handle);
        }
    }
    let strategy = given.map_or(Strategy::Default, |o| o.strategy.clone());
    let held = demand != Demand::NONE || matches!(strategy, Strategy::Group { .. });
    let waits = refers || held;
    let more = match (more, waits) {
        (Some(m), true) => Some(Box::new(More {
            unborn: AtomicBool::new(true),
            ledger_id: id,
            ..*m
        })),
        (None, true) => Some(Box::new(More {
            unborn: AtomicBool::new(true),
            ledger_id: if held { id } else { 0 },
            ..More::new()
        })),
        (m, false) => m,
    };
    let handles = if detached { 2 } else { 1 };
    let actor = new_cell(entry, (id, local.generation()), more, handles, Mail::busy());
    let blank = Blank {
        entry: &entry.constructor,
        refs: 1,
        phase: if waits { Phase::Waiting } else { Phase::Queued },
        caller: local.caller(),
        id,
        target: waits.then(|| actor.clone()),
        extra: held.then(|| {
            Box::new(Extra {
                strategy,
                ..Extra::of_actor(demand.clone())
            })
        }),
        caps: None,
    };
    let init = init(blank);
    if cell::phase(init.state()) == Phase::Failed {
        drop(names);
        return Err(init.error());
    }
    let backups = keep_elsewhere(engine, local, &actor, &demand, given, foreign.as_ref());
    let before = match (&mut names, name) {
        // What it did elsewhere runs again before anybody finds it: see `enter_name`.
        (Some(names), Some(name)) if !revives(&foreign) => names.insert(name, actor.clone()),
        _ => None,
    };
    drop(names);
    drop(before);
    // SAFETY: nobody else has the actor yet but the table of names, through which only mail can be sent; being
    // busy, it makes nobody drain, so this thread is alone with `inner`.
    unsafe {
        let inner = &mut *actor.inner.get();
        inner.init = Some(init.clone());
        inner.history = actor.more.get().and_then(|m| m.history());
        inner.logged = inner.history.is_some() || backups.is_some();
        #[cfg(feature = "cluster")]
        if let Some(revival) = foreign.and_then(|f| f.revival) {
            super::history::revive(local, &actor, inner, revival);
        }
    }
    super::roll::enter(&actor);
    if waits {
        engine.await_inputs(local, &init);
    } else {
        drop(init);
        engine.push_actor(local, actor.clone());
    }
    Ok(HandleRef(actor))
}

/// Has an actor that another node had be found by its name.
#[cfg(feature = "cluster")]
pub fn enter_name(engine: &Engine, actor: &ActorRef) {
    let name = actor.more.get().and_then(|m| m.name.clone());
    let before = name.and_then(|name| engine.names.lock().insert(name, actor.clone()));
    drop(before);
}

#[cfg(feature = "cluster")]
fn revives(foreign: &Option<Foreign>) -> bool {
    foreign.as_ref().is_some_and(|f| f.revival.is_some())
}

#[cfg(not(feature = "cluster"))]
fn revives(_: &Option<Foreign>) -> bool {
    false
}

/// Has the history of an actor kept by other nodes too, if it is to be: one that may be made again, and whose state has an archive.
fn keep_elsewhere(
    engine: &Arc<Engine>,
    local: &Local,
    actor: &ActorRef,
    demand: &Demand,
    given: Option<&Options>,
    foreign: Option<&Foreign>,
) -> Option<Arc<dyn super::Backups>> {
    let more = actor.more.get()?;
    #[cfg(feature = "cluster")]
    let theirs = foreign.map(|f| f.backups.clone());
    #[cfg(not(feature = "cluster"))]
    let theirs: Option<Option<Arc<dyn super::Backups>>> = foreign.map(|f| match *f {});
    let backups = match theirs {
        Some(theirs) => theirs?,
        None if more.max_restarts == 0 || more.replicas == 0 || !actor.entry.is_kept() => {
            return None;
        }
        None => engine.far()?.keep(local, actor, given, demand)?,
    };
    backups.made(actor);
    let _ = more.backups.set(Arc::clone(&backups));
    Some(backups)
}

/// Has another node make the actor: its constructor's call is sent, and calls of its methods after it.
fn create_there(
    local: &Local,
    entry: &'static ActorEntry,
    writer: CallWriter<'_>,
    given: Option<&Options>,
    elsewhere: Elsewhere,
) -> Result<HandleRef, Error> {
    let blank = Blank {
        entry: &entry.constructor,
        refs: 1,
        phase: Phase::Running,
        caller: local.caller(),
        id: local.next_id(writer.begun),
        target: None,
        extra: None,
        caps: None,
    };
    let (init, _) = writer.finish(blank, 0);
    if cell::phase(init.state()) == Phase::Failed {
        return Err(init.error());
    }
    let name = given
        .and_then(|o| o.name.as_deref())
        .or(entry.defaults.name);
    elsewhere(local, &init, name)
}
