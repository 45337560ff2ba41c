//! Reading objects where they lie.
//!
//! Invariant: a view keeps its object alive and in place, and nobody can change it. Left out: copies (`get`).

use std::marker::PhantomData;
use std::ops::Deref;

use rkyv::vec::ArchivedVec;

use super::ObjectRef;
use crate::base::Result;
use crate::exec::cell::{self, Phase};
use crate::exec::pin::PinnedRef;
use crate::exec::{call, local};
use crate::value::{Archived, Native, Value};

/// Waits for the value like [`get`](crate::get()) and returns it to be read in place: no copy, some 20 ns once it is there.
///
/// A value that was moved to disk is brought back first. While the view lives the value stays in memory.
///
/// # Errors
/// As for [`get`](crate::get()).
#[inline]
pub fn view<T: Value>(object: &ObjectRef<T>) -> Result<View<T>> {
    if !object.is_ready() {
        local::with(|local| local.engine.wait(local, &object.raw, None))??;
    }
    if cell::phase(object.raw.state()) != Phase::Done {
        return Err(object.raw.error());
    }
    Ok(View {
        raw: call::pinned::<T>(object.raw.clone())?,
        kind: PhantomData,
    })
}

/// A value read where it lies: derefs to its archived form, whose fields, strings and maps are used like the original's.
///
/// Holds the object in place until it is dropped.
pub struct View<T> {
    raw: PinnedRef,
    kind: PhantomData<fn() -> T>,
}

impl<T: Value> View<T> {
    /// The archive's bytes, as other processes and machines see them.
    pub fn bytes(&self) -> &[u8] {
        self.raw.bytes()
    }

    /// An owned copy.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if the value holds references that did not travel with it.
    pub fn to_owned(&self) -> Result<T> {
        call::read(self.raw.raw())
    }

    /// Whether it lies in the shared-memory store; small values lie in the reference's own record.
    pub fn is_shared(&self) -> bool {
        self.raw.raw().stored().is_some()
    }
}

impl<T: Value> Deref for View<T> {
    type Target = Archived<T>;
    #[inline]
    fn deref(&self) -> &Archived<T> {
        call::archived::<T>(&self.raw)
    }
}

impl<T: Native> View<Vec<T>>
where
    Vec<T>: Value<Archived = ArchivedVec<Archived<T>>>,
{
    /// The numbers, in place.
    pub fn as_slice(&self) -> &[T] {
        T::slice(ArchivedVec::as_slice(self))
    }
}

impl<T: Value> std::fmt::Debug for View<T>
where
    Archived<T>: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
