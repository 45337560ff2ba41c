//! Async calls: futures on a tokio runtime that starts with the first of them.
//!
//! Invariant: a future that was launched settles its record exactly once: by finishing, by panicking, by being
//! cancelled, or by being dropped with the runtime. Left out: IO and timers, which are tokio's.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::call::{CallError, Outcome, StateRef, set_value};
use super::cell::{CANCEL, RawRef};
use super::engine::Engine;
use super::entry::{FnEntry, Kind, Run};
use super::events;
use super::local::{self, Local};
use super::params::Params;
use super::pin::Pins;
use super::tasks::{Method, Task};
use crate::base::{Defaults, Error};
use crate::core::gate::Kind as Access;
use crate::trace::Outcome as End;
use crate::value::Value;

/// An `async fn`.
pub trait AsyncTask: Task {
    /// Calls it.
    fn call(
        args: <Self::Params as Params>::Decoded<'_>,
    ) -> impl Future<Output = Result<Self::Output, CallError>> + Send;
}

/// `async` over `&mut self`.
pub trait AsyncExclusiveMethod: Method {
    /// Calls it.
    fn call<'a>(
        this: &'a mut Self::Actor,
        args: <Self::Params as Params>::Decoded<'a>,
    ) -> impl Future<Output = Result<Self::Output, CallError>> + Send + 'a;
}

/// `async` over `&self`.
pub trait AsyncSharedMethod: Method {
    /// Calls it.
    fn call<'a>(
        this: &'a Self::Actor,
        args: <Self::Params as Params>::Decoded<'a>,
    ) -> impl Future<Output = Result<Self::Output, CallError>> + Send + 'a;
}

/// A call under way.
pub type BoxFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The async side of an engine.
#[derive(Default)]
pub struct Futures {
    runtime: OnceLock<Mutex<Option<Runtime>>>,
    handle: OnceLock<Option<tokio::runtime::Handle>>,
    /// Wakers of running calls to functions by record id, so that cancellation reaches a call that waits. Methods' are with
    /// their actors, whose end reaches them too.
    wakers: Mutex<HashMap<u64, Polled>>,
}

/// A call under way that was polled: how it is reached, and what can be said of it.
pub struct Polled {
    pub(super) waker: Waker,
    pub(super) entry: &'static FnEntry,
    /// When it was launched, by the clock of the books.
    pub(super) began: u64,
}

impl Polled {
    /// By which all of them are reached.
    pub fn wakers(all: &Mutex<HashMap<u64, Polled>>) -> Vec<Waker> {
        all.lock().values().map(|p| p.waker.clone()).collect()
    }
}

impl Futures {
    fn handle(&self) -> Option<&tokio::runtime::Handle> {
        self.handle
            .get_or_init(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name("mobula-async")
                    .enable_all()
                    .build()
                    .ok()?;
                let handle = runtime.handle().clone();
                let _ = self.runtime.set(Mutex::new(Some(runtime)));
                Some(handle)
            })
            .as_ref()
    }

    /// Runs a future on this thread, with the runtime's IO and timers.
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let handle = self.handle().ok_or_else(|| Error::Os {
            what: "starting the async runtime",
            source: Arc::new(std::io::Error::other("tokio could not start its threads")),
        })?;
        Ok(handle.block_on(future))
    }

    /// Polls a call again, so that it sees that it was cancelled.
    pub fn wake(&self, record: &RawRef) {
        let polled = self.wakers(record).lock();
        let waker = polled.get(&record.id).map(|p| p.waker.clone());
        drop(polled);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Calls to functions under way: id, function, since when.
    pub fn under_way(&self, most: usize) -> (Vec<(u64, &'static FnEntry, u64)>, usize) {
        let polled = self.wakers.lock();
        let some = polled.iter().take(most);
        let some = some.map(|(id, p)| (*id, p.entry, p.began)).collect();
        (some, polled.len())
    }

    fn wakers<'a>(&'a self, record: &'a RawRef) -> &'a Mutex<HashMap<u64, Polled>> {
        record.target().map_or(&self.wakers, |actor| actor.wakers())
    }

    /// Ends the tokio runtime and waits until futures under way have been dropped, and so settled; a poll that does not
    /// return by `deadline` is left behind.
    pub fn shut_down(&self, deadline: Instant) {
        // One that has not started never will.
        self.handle.get_or_init(|| None);
        let Some(runtime) = self.runtime.get().and_then(|r| r.lock().take()) else {
            return;
        };
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        // On a thread of its own: tokio refuses to wait on a thread that is inside some runtime, as the caller may be.
        let waiter = std::thread::Builder::new()
            .name("mobula-async-end".into())
            .spawn(move || runtime.shutdown_timeout(left));
        if let Ok(waiter) = waiter {
            let _ = waiter.join();
        }
    }
}

/// Runs what blocks this thread. If the thread is one of ours that polls calls, others take those over meanwhile.
pub fn aside<R>(blocking: impl FnOnce() -> R) -> R {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let ours = super::panics::POLLING.get()
        && Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if ours {
        tokio::task::block_in_place(blocking)
    } else {
        blocking()
    }
}

/// Launches a call to a function; queued, unclaimed.
pub fn launch_task(engine: &Arc<Engine>, record: RawRef) {
    if record.entry.kind != Kind::AsyncTask {
        return;
    }
    // It may come from `Waiting` (inputs just settled, or none) or be ready.
    record.make_ready();
    if record.claim() {
        launch(engine, record, StateRef(std::ptr::null_mut()), None);
    }
}

/// Launches a claimed call to a method, which the gate has let in.
pub fn launch_method(engine: &Arc<Engine>, record: RawRef, state: StateRef, access: Access) {
    launch(engine, record, state, Some(access));
}

fn launch(engine: &Arc<Engine>, record: RawRef, state: StateRef, access: Option<Access>) {
    let Run::Async(run) = record.entry.run else {
        return;
    };
    if let Some(extra) = record.extra() {
        extra.begin_attempt();
    }
    // SAFETY: claimed; the state, if any, is the actor's, and the gate keeps it until `leave`.
    let future = unsafe { run(record.clone(), state) };
    let call = Running {
        engine: Arc::clone(engine),
        record,
        access,
        future: Some(future),
        polls: 0,
        began: super::books::clock(),
    };
    match engine.futures.handle() {
        Some(handle) => drop(handle.spawn(call)),
        None => drop(call), // settles it
    }
}

/// A launched call.
struct Running {
    engine: Arc<Engine>,
    record: RawRef,
    access: Option<Access>,
    future: Option<BoxFuture>,
    /// How often it was polled.
    polls: u16,
    began: u64,
}

impl Running {
    fn end(&mut self, outcome: std::thread::Result<Outcome>) {
        // The future goes first: it borrows the state and the arguments.
        let dropped = catch_unwind(AssertUnwindSafe(|| self.future = None));
        let outcome = if dropped.is_err() {
            Ok(Err(self.why_dropped()))
        } else {
            outcome
        };
        self.engine
            .futures
            .wakers(&self.record)
            .lock()
            .remove(&self.record.id);
        if outcome.is_err()
            && let Some(actor) = self.record.target()
        {
            super::actor::method_panicked(actor, &self.record);
        }
        let engine = Arc::clone(&self.engine);
        let took = super::books::clock().saturating_sub(self.began);
        let settled = local::with(|local| {
            let took = Duration::from_nanos(took);
            local.books().took(self.record.entry, took, 1);
            // It stopped half-way, where it would not when it runs again.
            let unsure = matches!(outcome, Ok(Err(CallError::Runtime(_))))
                || self.record.state() & CANCEL != 0;
            super::actor::conclude(&engine, local, &self.record, outcome);
            if unsure
                && matches!(self.access, Some(Access::Exclusive))
                && let Some(backups) = self.record.target().and_then(|a| a.backups())
            {
                backups.unsure(local);
            }
            if let (Some(access), Some(actor)) = (self.access, self.record.target()) {
                let actor = actor.clone();
                super::actor::leave(&engine, local, &actor, access);
            }
        });
        if settled.is_err() {
            // The runtime is gone from this process; whoever still waits looks at the record itself. Its actor, if it has
            // one, is freed with the last reference to it.
            super::wait::settle_without_runtime(&self.record);
        }
    }

    fn why_dropped(&self) -> CallError {
        if self.record.state() & CANCEL != 0 {
            return CallError::Runtime(Error::Cancelled {
                function: self.record.entry.name,
            });
        }
        CallError::Runtime(Error::ShutDown)
    }
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut wakers = this.engine.futures.wakers(&this.record).lock();
            match wakers.get_mut(&this.record.id) {
                Some(polled) => polled.waker.clone_from(cx.waker()),
                None => {
                    let polled = Polled {
                        waker: cx.waker().clone(),
                        entry: this.record.entry,
                        began: this.began,
                    };
                    wakers.insert(this.record.id, polled);
                }
            }
        }
        if this.record.state() & CANCEL != 0 {
            let why = this.why_dropped();
            this.end(Ok(Err(why)));
            return Poll::Ready(());
        }
        // After the waker was put: a verdict passed later finds it.
        if let Some(why) = this.record.target().and_then(super::actor::interrupted) {
            this.end(Ok(Err(CallError::Runtime(why))));
            return Poll::Ready(());
        }
        let Some(future) = this.future.as_mut() else {
            return Poll::Ready(());
        };
        let current = std::ptr::from_ref(&*this.record);
        this.polls = this.polls.saturating_add(1);
        let before = local::with(|l| {
            if events::recorded(this.record.id) {
                events::entered(l, &this.record, this.polls);
            }
            l.current.replace(current)
        });
        super::panics::POLLING.set(true);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        super::panics::POLLING.set(false);
        if let Ok(before) = before {
            let pending = matches!(polled, Ok(Poll::Pending));
            let _ = local::with(|l| {
                if pending && events::recorded(this.record.id) {
                    events::exited(l, &this.record, End::Pending, 0);
                }
                l.current.set(before);
            });
        }
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => {
                this.end(Ok(outcome));
                Poll::Ready(())
            }
            Err(panic) => {
                this.end(Err(panic));
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.future.is_some() {
            let why = self.why_dropped();
            self.end(Ok(Err(why)));
        }
    }
}

/// # Safety
/// As for [`set_value`].
unsafe fn keep<T: Value>(record: &RawRef, value: &T) -> Outcome {
    let kept = local::with(|local| {
        events::mark(local, record);
        // SAFETY: the caller's promise.
        unsafe { set_value(local, record, value) }
    })?;
    Ok(kept?)
}

fn read<'a, P: Params>(record: &'a RawRef) -> Result<(Pins<'a>, P::Decoded<'a>), CallError> {
    // SAFETY: called by the runners below, whose records are claimed calls with parameters `P`, and which keep the record,
    // its arguments and the pins until the future is done.
    unsafe {
        let pins = local::with(|local: &Local| Pins::take(local, record))??;
        let args = P::read(record, &pins)?;
        if events::recorded(record.id) {
            local::with(|local| events::mark(local, record))?;
        }
        Ok((pins, args))
    }
}

/// # Safety
/// The record is a claimed call of `F`.
unsafe fn run_task<F: AsyncTask>(record: RawRef, _: StateRef) -> BoxFuture
where
    for<'a> <F::Params as Params>::Decoded<'a>: Send,
{
    Box::pin(async move {
        let value = {
            let (_pins, args) = read::<F::Params>(&record)?;
            F::call(args).await?
        };
        // SAFETY: claimed, and the borrows of the arguments ended with the call.
        unsafe { keep(&record, &value) }
    })
}

/// # Safety
/// The record is a claimed call of `M`; the state is a live `M::Actor` that nobody else uses until the future ends.
unsafe fn run_exclusive<M: AsyncExclusiveMethod>(record: RawRef, state: StateRef) -> BoxFuture
where
    for<'a> <M::Params as Params>::Decoded<'a>: Send,
{
    Box::pin(async move {
        let state = state;
        // SAFETY: the caller's promise.
        let this = unsafe { &mut *state.0.cast::<M::Actor>() };
        let value = {
            let (_pins, args) = read::<M::Params>(&record)?;
            M::call(this, args).await?
        };
        // SAFETY: as in `run_task`.
        unsafe { keep(&record, &value) }
    })
}

/// # Safety
/// As for [`run_exclusive`], but others may share the state.
unsafe fn run_shared<M: AsyncSharedMethod>(record: RawRef, state: StateRef) -> BoxFuture
where
    for<'a> <M::Params as Params>::Decoded<'a>: Send,
    M::Actor: Sync,
{
    Box::pin(async move {
        let state = state;
        // SAFETY: the caller's promise.
        let this = unsafe { &*state.0.cast::<M::Actor>() };
        let value = {
            let (_pins, args) = read::<M::Params>(&record)?;
            M::call(this, args).await?
        };
        // SAFETY: as in `run_task`.
        unsafe { keep(&record, &value) }
    })
}

impl FnEntry {
    /// The entry of an `async fn`.
    pub const fn async_task<F: AsyncTask>(
        name: &'static str,
        file: &'static str,
        line: u32,
        defaults: Defaults,
    ) -> FnEntry
    where
        for<'a> <F::Params as Params>::Decoded<'a>: Send,
    {
        let run = Run::Async(run_task::<F>);
        FnEntry::make::<F::Output, F::Params>(name, file, line, defaults, Kind::AsyncTask, run)
    }

    /// The entry of an `async` method over `&mut self`.
    pub const fn async_exclusive_method<M: AsyncExclusiveMethod>(
        name: &'static str,
        file: &'static str,
        line: u32,
    ) -> FnEntry
    where
        for<'a> <M::Params as Params>::Decoded<'a>: Send,
    {
        let run = Run::Async(run_exclusive::<M>);
        FnEntry::make::<M::Output, M::Params>(
            name,
            file,
            line,
            Defaults::NONE,
            Kind::AsyncExclusive,
            run,
        )
        .of_actor::<M::Actor>()
    }

    /// The entry of an `async` method over `&self`.
    pub const fn async_shared_method<M: AsyncSharedMethod>(
        name: &'static str,
        file: &'static str,
        line: u32,
    ) -> FnEntry
    where
        for<'a> <M::Params as Params>::Decoded<'a>: Send,
        M::Actor: Sync,
    {
        let run = Run::Async(run_shared::<M>);
        FnEntry::make::<M::Output, M::Params>(
            name,
            file,
            line,
            Defaults::NONE,
            Kind::AsyncShared,
            run,
        )
        .of_actor::<M::Actor>()
    }
}
