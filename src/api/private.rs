//! What generated code calls. Not for people: no promise of stability.
//!
//! Invariant: everything here is safe to call with any types that type-check. Left out: nothing users need.

use super::args::Args;
pub use super::timeline::{Span, set_counter};
pub use super::{ActorOptions, Arg, Handle, ObjectRef, TaskOptions};
pub use crate::base::{Defaults, Result, parse_bytes};
pub use crate::exec::RawHandle;
pub use crate::exec::call::CallError as Failure;
use crate::exec::call::CallWriter;
pub use crate::exec::entry::{ActorEntry, ActorRegistration, FnEntry, Registration};
pub use crate::exec::failure;
use crate::exec::options::{Options, task_extra};
pub use crate::exec::params::{InPlace, Owned, Params, Slice, Text};
pub use crate::exec::tasks::{
    Actor, ActorMethods, ConsumingMethod, ExclusiveMethod, Method, NotSaved, Saved, SharedMethod,
    SyncTask, Task,
};
#[cfg(feature = "async")]
pub use crate::exec::tasks::{AsyncExclusiveMethod, AsyncSharedMethod, AsyncTask};
use crate::exec::{actor, local};
pub use crate::{
    __mobula_actor_options as actor_option_methods, __mobula_task_options as task_option_methods,
};
pub use inventory;

/// Gives every type the defaults of an actor without attributes; an inherent constant shadows it.
pub trait DefaultsFallback {
    /// Nothing said.
    const __MOBULA_DEFAULTS: Defaults = Defaults::NONE;
}
impl<T: ?Sized> DefaultsFallback for T {}

/// Says that `T` is a value, or why it is not, at the place that the macro names.
pub const fn is_value<T: crate::value::Value>() {}

/// A call with the attribute's options.
#[inline]
pub fn submit<F: Task, A: Args<F::Params>>(args: A) -> ObjectRef<F::Output> {
    let entry = F::ENTRY;
    if !entry.common {
        return submit_with::<F, A>(TaskOptions::new(), args);
    }
    let raw = local::with(|local| {
        let mut call = CallWriter::new(local, entry.name, F::Params::COUNT);
        args.write(&mut call);
        local.engine.submit(local, entry, call, None)
    });
    match raw {
        Ok(raw) => ObjectRef::new(raw),
        Err(e) => super::no_runtime(e),
    }
}

/// A call with options.
pub fn submit_with<F: Task, A: Args<F::Params>>(
    options: TaskOptions,
    args: A,
) -> ObjectRef<F::Output> {
    let entry = F::ENTRY;
    let raw = local::with(|local| {
        let extra = task_extra(&options.0, &entry.defaults)?;
        let mut call = CallWriter::new(local, entry.name, F::Params::COUNT);
        args.write(&mut call);
        Ok(local.engine.submit(local, entry, call, extra))
    });
    match raw.and_then(|r| r) {
        Ok(raw) => ObjectRef::new(raw),
        Err(e) => ObjectRef::failed(e),
    }
}

/// A call of a method.
#[inline]
pub fn call<M: Method, A: Args<M::Params>>(handle: &RawHandle, args: A) -> ObjectRef<M::Output> {
    let entry = M::ENTRY;
    let raw = local::with(|local| {
        let mut call = CallWriter::new(local, entry.name, M::Params::COUNT);
        args.write(&mut call);
        actor::call(&local.engine, local, handle.actor(), entry, call)
    });
    match raw {
        Ok(raw) => ObjectRef::new(raw),
        Err(e) => super::no_runtime(e),
    }
}

/// An actor with the attribute's options.
pub fn create<A: Actor, B: Args<A::Params>>(args: B) -> Handle<A> {
    made(make::<A, B>(None, args))
}

/// An actor with options; one that cannot be created is a handle whose calls fail.
pub fn create_with<A: Actor, B: Args<A::Params>>(options: ActorOptions, args: B) -> Handle<A> {
    made(make::<A, B>(Some(&options.0), args))
}

/// An actor with options, or why it cannot be created.
pub fn try_create_with<A: Actor, B: Args<A::Params>>(
    options: ActorOptions,
    args: B,
) -> Result<Handle<A>> {
    make(Some(&options.0), args)
}

fn made<A: Actor>(made: Result<Handle<A>>) -> Handle<A> {
    made.unwrap_or_else(|why| Handle::new(actor::stillborn(A::ENTRY, &why)))
}

fn make<A: Actor, B: Args<A::Params>>(options: Option<&Options>, args: B) -> Result<Handle<A>> {
    local::with(|local| {
        let entry = A::ENTRY;
        let mut call = CallWriter::new(local, entry.name, A::Params::COUNT);
        args.write(&mut call);
        actor::create(&local.engine, local, entry, call, options).map(Handle::new)
    })?
}

/// A handle to the living actor of this name.
pub fn named<A: Actor>(name: &str) -> Result<Handle<A>> {
    let found = local::with(|local| match (local.engine.refuses(), local.engine.far()) {
        (Some(why), _) => Err(why.clone()),
        (None, far) => match (local.engine.named(name), far) {
            (None, Some(far)) => far.named(local, name),
            (here, _) => Ok(here.and_then(|actor| RawHandle::upgrade(&actor))),
        },
    })??;
    let missing = || crate::base::Error::NoSuchActor {
        name: name.to_owned(),
    };
    let found = found.ok_or_else(missing)?;
    let living = found.actor();
    if !std::ptr::eq(living.entry(), A::ENTRY) {
        return Err(actor::wrong_type(name, A::ENTRY, living));
    }
    Ok(Handle::new(found))
}

/// Runs a future on this thread.
#[cfg(feature = "async")]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = Some(future);
    let ran = local::with(|local| std::sync::Arc::clone(&local.engine))
        .and_then(|engine| engine.block_on(future.take().expect("taken once")));
    match ran {
        Ok(out) => out,
        Err(e) => panic!("cannot run the async main: {e}"),
    }
}
