//! References to objects: the result of every call, before and after it exists.
//!
//! Invariant: an [`ObjectRef<T>`] is made only for a record whose value is a `T`. Its clones are the reference count.
//! Left out: owners on other machines.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rkyv::rancor::{self, Source, Strategy};
use rkyv::{Archive, Deserialize, Place, Serialize};

use crate::base::{Error, Result};
use crate::exec::cell::{self, Blank, Phase};
use crate::exec::waiter::{Waiter, WaiterKind};
use crate::exec::{RawRef, call, local};
use crate::value::{ArchivedCap, De, Ser, Value};

/// A reference to a value of type `T` that exists, or will, or never will because its call failed.
///
/// It is small, `Send` and `Sync`, and cheap to clone; the object is freed when the last clone goes. Dropping it does not
/// cancel the call. It can be passed to remote functions, alone (they wait for the value) or inside other values (they get
/// the reference), and it is a future of the value.
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let r = mobula::put(&41u64)?;
/// assert_eq!(mobula::get(&r)? + 1, 42);
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct ObjectRef<T> {
    pub(super) raw: RawRef,
    kind: PhantomData<fn() -> T>,
}

impl<T> ObjectRef<T> {
    #[inline]
    pub(super) fn new(raw: RawRef) -> ObjectRef<T> {
        ObjectRef {
            raw,
            kind: PhantomData,
        }
    }

    #[cold]
    pub(super) fn failed(error: Error) -> ObjectRef<T> {
        let blank = Blank {
            entry: &call::PUT,
            refs: 1,
            phase: Phase::Failed,
            caller: 0,
            id: 0,
            target: None,
            extra: None,
            caps: None,
        };
        ObjectRef::new(cell::failed(blank, error))
    }

    /// A number for this object, unique in this process and stable.
    pub fn id(&self) -> u64 {
        self.raw.id
    }

    /// Whether the value, or the failure, is there: `get` will not wait.
    pub fn is_ready(&self) -> bool {
        cell::finished(self.raw.state())
    }
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> ObjectRef<T> {
        ObjectRef::new(self.raw.clone())
    }
}

impl<T> PartialEq for ObjectRef<T> {
    /// Whether both refer to the same object.
    fn eq(&self, other: &ObjectRef<T>) -> bool {
        self.raw.same(&other.raw)
    }
}

impl<T> Eq for ObjectRef<T> {}

impl<T> std::fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = cell::phase(self.raw.state());
        write!(
            f,
            "ObjectRef({:#x} of {}, {phase:?})",
            self.raw.id, self.raw.entry.name
        )
    }
}

impl<T: Value> Future for ObjectRef<T> {
    type Output = Result<T>;

    /// Never runs the call in place: an executor does.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &*self;
        if !this.is_ready() && enter(&this.raw, cx.waker()) {
            return match local::with(|local| local.engine.hurry()) {
                Ok(()) => Poll::Pending,
                // Whoever shut the runtime down fails what was queued; what runs on still ends.
                Err(_) if cell::phase(this.raw.state()) == Phase::Running => Poll::Pending,
                Err(_) if this.is_ready() => Poll::Ready(call::read(&this.raw)),
                Err(e) => Poll::Ready(Err(e)),
            };
        }
        Poll::Ready(call::read(&this.raw))
    }
}

/// Enters a waker into the record's list, once a task: futures move and are dropped, so it is the task that is known
/// again. False if the call has ended.
fn enter(raw: &RawRef, waker: &Waker) -> bool {
    // Odd, so that it is nobody's address.
    let key = (waker.data().addr() ^ std::ptr::from_ref(waker.vtable()).addr()) | 1;
    let before = raw.remove_waiter(key);
    let entered = raw
        .add_waiter(Waiter::new(key, WaiterKind::Waker(waker.clone())))
        .is_ok();
    let Some(before) = before else { return entered };
    let WaiterKind::Waker(other) = &before.kind else {
        return entered;
    };
    // Another future of this task relied on the entry; or it is another task's whose key is the same.
    if !entered {
        other.wake_by_ref();
    } else if !other.will_wake(waker)
        && let Err(ended) = raw.add_waiter(before)
        && let WaiterKind::Waker(other) = ended.kind
    {
        other.wake();
    }
    entered
}

/// `(&r).await` leaves the reference usable.
impl<T: Value> IntoFuture for &ObjectRef<T> {
    type Output = Result<T>;
    type IntoFuture = ObjectRef<T>;

    fn into_future(self) -> ObjectRef<T> {
        self.clone()
    }
}

impl<T: 'static> Archive for ObjectRef<T> {
    type Archived = ArchivedCap<ObjectRef<T>>;
    type Resolver = u32;

    fn resolve(&self, index: u32, out: Place<Self::Archived>) {
        ArchivedCap::resolve(index, out);
    }
}

impl<T: 'static> Serialize<Strategy<Ser, rancor::Error>> for ObjectRef<T> {
    fn serialize(&self, ser: &mut Strategy<Ser, rancor::Error>) -> Result<u32, rancor::Error> {
        Ok(Ser::of(ser).push_cap(self.raw.clone().into_cap::<T>()))
    }
}

impl<T: 'static> Deserialize<ObjectRef<T>, Strategy<De, rancor::Error>>
    for ArchivedCap<ObjectRef<T>>
{
    fn deserialize(
        &self,
        de: &mut Strategy<De, rancor::Error>,
    ) -> Result<ObjectRef<T>, rancor::Error> {
        De::of(de)
            .cap(self.index())
            .and_then(RawRef::from_cap::<T>)
            .map(ObjectRef::new)
            .ok_or_else(|| rancor::Error::new(NoSuchReference(self.index())))
    }
}

/// An archive names a reference that did not come with it, or one to something else.
#[derive(Debug, thiserror::Error)]
#[error(
    "reference {0} did not travel with the archive, or refers to something of another type: bytes from outside cannot hold references"
)]
pub(super) struct NoSuchReference(pub u32);
