//! What a macro writes for each remote item, as traits, and how such an item is run.
//!
//! Everything that touches records and states happens here, generic over those traits, so that generated code is safe
//! code and a mismatch of types cannot be written down.
//!
//! Invariant: the functions named in an entry are monomorphised for the very types the entry's calls are archived with.
//! Left out: attribute parsing, which is the macro's.

use super::call::{CallError, Outcome, StateRef, set_value};
use super::cell::RawRef;
use super::entry::{ActorEntry, FnEntry, Keep, Kind, Run};
use super::events::mark;
use super::local::Local;
use super::params::{Owned, Params};
use super::pin::Pins;
use crate::base::Defaults;
use crate::value::Value;

#[cfg(feature = "async")]
pub use super::futures::{
    AsyncExclusiveMethod, AsyncSharedMethod, AsyncTask, BoxFuture, Futures, aside, launch_method,
    launch_task,
};

/// Runs what blocks this thread.
#[cfg(not(feature = "async"))]
pub fn aside<R>(blocking: impl FnOnce() -> R) -> R {
    blocking()
}

/// A remote function.
pub trait Task: 'static {
    /// Its parameters.
    type Params: Params;
    /// Its value when it succeeds.
    type Output: Value;
    /// Its entry.
    const ENTRY: &'static FnEntry;
}

/// A function that runs on an executor.
pub trait SyncTask: Task {
    /// Calls it.
    fn call(args: <Self::Params as Params>::Decoded<'_>) -> Result<Self::Output, CallError>;
}

/// An actor type.
pub trait Actor: Sized + Send + 'static {
    /// What its handles deref to: its methods.
    type Methods: ActorMethods;
    /// Its constructor's parameters.
    type Params: Params;
    /// Its entry.
    const ENTRY: &'static ActorEntry;
    /// Makes one.
    fn construct(args: <Self::Params as Params>::Decoded<'_>) -> Result<Self, CallError>;
}

/// The methods of a handle, made from the handle beneath.
pub trait ActorMethods: Send + Sync + 'static {
    /// Wraps a handle.
    fn from_raw(raw: super::RawHandle) -> Self;
    /// The handle.
    fn raw(&self) -> &super::RawHandle;
}

/// A remote method.
pub trait Method: 'static {
    /// Its actor.
    type Actor: Actor;
    /// Its parameters without the receiver.
    type Params: Params;
    /// Its value when it succeeds.
    type Output: Value;
    /// Its entry.
    const ENTRY: &'static FnEntry;
}

/// `&mut self`.
pub trait ExclusiveMethod: Method {
    /// Calls it.
    fn call(
        this: &mut Self::Actor,
        args: <Self::Params as Params>::Decoded<'_>,
    ) -> Result<Self::Output, CallError>;
}

/// `&self`.
pub trait SharedMethod: Method {
    /// Calls it.
    fn call(
        this: &Self::Actor,
        args: <Self::Params as Params>::Decoded<'_>,
    ) -> Result<Self::Output, CallError>;
}

/// `self`.
pub trait ConsumingMethod: Method {
    /// Calls it.
    fn call(
        this: Self::Actor,
        args: <Self::Params as Params>::Decoded<'_>,
    ) -> Result<Self::Output, CallError>;
}

/// Puts a value into its record, unless nobody is left to see it.
///
/// # Safety
/// As for [`set_value`].
#[inline]
unsafe fn keep<T: Value>(local: &Local, record: &RawRef, value: &T) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let wanted = std::ptr::eq(local.wanted.get(), std::ptr::from_ref(&**record));
        if record.is_unique() && !wanted {
            record.drop_args();
            return Ok(());
        }
        Ok(set_value(local, record, value)?)
    }
}

/// # Safety
/// The record is a claimed call of `F`.
unsafe fn run_task<F: SyncTask>(local: &Local, record: &RawRef, _: StateRef) -> Outcome {
    // SAFETY: the caller's promise: written for F's parameters, claimed; the borrows end before the value is kept.
    unsafe {
        let value = {
            let pins = Pins::take(local, record)?;
            let args = F::Params::read(record, &pins)?;
            mark(local, record);
            F::call(args)?
        };
        mark(local, record);
        keep(local, record, &value)
    }
}

/// # Safety
/// The record is a claimed call of `M`; the state is a live `M::Actor` that nobody else uses.
unsafe fn run_exclusive<M: ExclusiveMethod>(
    local: &Local,
    record: &RawRef,
    state: StateRef,
) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let this = &mut *state.0.cast::<M::Actor>();
        let value = {
            let pins = Pins::take(local, record)?;
            let args = M::Params::read(record, &pins)?;
            mark(local, record);
            M::call(this, args)?
        };
        mark(local, record);
        keep(local, record, &value)
    }
}

/// # Safety
/// As for [`run_exclusive`], but others may share the state.
unsafe fn run_shared<M: SharedMethod>(local: &Local, record: &RawRef, state: StateRef) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let this = &*state.0.cast::<M::Actor>();
        let value = {
            let pins = Pins::take(local, record)?;
            let args = M::Params::read(record, &pins)?;
            mark(local, record);
            M::call(this, args)?
        };
        mark(local, record);
        keep(local, record, &value)
    }
}

/// # Safety
/// The record is a claimed call of `M`; `place` points to the pointer to a live `M::Actor` that nobody else uses. That is
/// null afterwards if the method has taken the state, also when it panicked or gave an error.
unsafe fn run_consuming<M: ConsumingMethod>(
    local: &Local,
    record: &RawRef,
    place: StateRef,
) -> Outcome {
    // SAFETY: the caller's promise; the state is a leaked box.
    unsafe {
        let value = {
            let pins = Pins::take(local, record)?;
            let args = M::Params::read(record, &pins)?;
            mark(local, record);
            let place = &mut *place.0.cast::<*mut M::Actor>();
            let this = Box::from_raw(std::mem::replace(place, std::ptr::null_mut()));
            M::call(*this, args)?
        };
        mark(local, record);
        keep(local, record, &value)
    }
}

/// # Safety
/// The record holds the constructor's arguments, which nobody else touches; `out` points to a place for a pointer.
unsafe fn run_constructor<A: Actor>(local: &Local, record: &RawRef, out: StateRef) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let pins = Pins::take(local, record)?;
        let args = A::Params::read(record, &pins)?;
        mark(local, record);
        let state = A::construct(args)?;
        out.0
            .cast::<*mut ()>()
            .write(Box::into_raw(Box::new(state)).cast());
    }
    Ok(())
}

/// # Safety
/// The state is a live `A`, which nobody changes meanwhile; the record is claimed.
unsafe fn run_save<A: Actor + Value>(local: &Local, record: &RawRef, state: StateRef) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe { keep(local, record, &*state.0.cast::<A>()) }
}

/// # Safety
/// The record holds one argument, an archive of an `A`, which nobody else touches; `out` points to a place for a pointer.
unsafe fn run_restore<A: Actor + Value>(local: &Local, record: &RawRef, out: StateRef) -> Outcome {
    // SAFETY: the caller's promise.
    unsafe {
        let pins = Pins::take(local, record)?;
        let (state,) = <(Owned<A>,) as Params>::read(record, &pins)?;
        out.0
            .cast::<*mut ()>()
            .write(Box::into_raw(Box::new(state)).cast());
    }
    Ok(())
}

/// # Safety
/// `state` is a leaked box of an `A`, not used again.
unsafe fn drop_state<A>(state: *mut ()) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(state.cast::<A>()) });
}

impl FnEntry {
    /// The entry of a function.
    pub const fn sync_task<F: SyncTask>(
        name: &'static str,
        file: &'static str,
        line: u32,
        defaults: Defaults,
    ) -> FnEntry {
        FnEntry::make::<F::Output, F::Params>(
            name,
            file,
            line,
            defaults,
            Kind::Task,
            Run::Sync(run_task::<F>),
        )
    }

    /// The entry of a `&mut self` method.
    pub const fn exclusive_method<M: ExclusiveMethod>(
        name: &'static str,
        file: &'static str,
        line: u32,
    ) -> FnEntry {
        let run = Run::Sync(run_exclusive::<M>);
        FnEntry::make::<M::Output, M::Params>(
            name,
            file,
            line,
            Defaults::NONE,
            Kind::Exclusive,
            run,
        )
        .of_actor::<M::Actor>()
    }

    /// The entry of a `&self` method.
    pub const fn shared_method<M: SharedMethod>(
        name: &'static str,
        file: &'static str,
        line: u32,
    ) -> FnEntry {
        let run = Run::Sync(run_shared::<M>);
        FnEntry::make::<M::Output, M::Params>(name, file, line, Defaults::NONE, Kind::Shared, run)
            .of_actor::<M::Actor>()
    }

    /// The entry of a `self` method.
    pub const fn consuming_method<M: ConsumingMethod>(
        name: &'static str,
        file: &'static str,
        line: u32,
    ) -> FnEntry {
        let run = Run::Sync(run_consuming::<M>);
        FnEntry::make::<M::Output, M::Params>(
            name,
            file,
            line,
            Defaults::NONE,
            Kind::Consuming,
            run,
        )
        .of_actor::<M::Actor>()
    }
}

impl ActorEntry {
    /// The entry of an actor: `on_struct` and `on_impl` are what its two attributes said.
    pub const fn new<A: Actor>(
        name: &'static str,
        file: &'static str,
        line: u32,
        on_struct: Defaults,
        on_impl: Defaults,
    ) -> ActorEntry {
        let run = Run::Sync(run_constructor::<A>);
        ActorEntry {
            name,
            file,
            line,
            defaults: on_impl.over(on_struct),
            constructor: FnEntry::make::<(), A::Params>(
                name,
                file,
                line,
                Defaults::NONE,
                Kind::Constructor,
                run,
            ),
            drop_state: drop_state::<A>,
            keep: None,
        }
    }

    /// The same, with how the state is saved and restored, if that can be.
    pub const fn keeping(mut self, keep: Option<Keep>) -> ActorEntry {
        self.keep = keep;
        self
    }
}

/// Tells whether an actor's state has an archive: [`Saved::KEEP`] is found where it has one, and otherwise that
/// of [`NotSaved`].
pub struct Saved<A>(std::marker::PhantomData<A>);

impl<A: Actor + Value> Saved<A> {
    /// How it is saved and restored.
    #[allow(clippy::declare_interior_mutable_const, reason = "for one static each")]
    pub const KEEP: Option<Keep> = Some(Keep {
        save: FnEntry::make::<A, ()>(
            "saving an actor's state",
            file!(),
            line!(),
            Defaults::NONE,
            Kind::Shared,
            Run::Sync(run_save::<A>),
        )
        .of_actor::<A>(),
        restore: FnEntry::make::<(), (Owned<A>,)>(
            "restoring an actor's state",
            file!(),
            line!(),
            Defaults::NONE,
            Kind::Constructor,
            Run::Sync(run_restore::<A>),
        ),
    });
}

/// What is found for a state without an archive.
pub trait NotSaved {
    /// Nothing.
    #[allow(clippy::declare_interior_mutable_const, reason = "for one static each")]
    const KEEP: Option<Keep> = None;
}

impl<A> NotSaved for Saved<A> {}
