//! Making objects without a call: put a value, put numbers, or fill shared memory in place.
//!
//! Invariant: what is in the store is a complete archive by the time anyone can refer to it.
//! Left out: objects that other processes write.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use super::ObjectRef;
use crate::base::{Error, Origin, Result};
use crate::exec::call::{self, CallWriter};
use crate::exec::{RawRef, cell, events, local};
use crate::store::Draft;
use crate::trace::{Deed, NOT_RECORDED};
use crate::value::{self, Native, Value};

/// Puts a value where every task and actor can read it.
///
/// One copy: small values into the record of the reference, values above 512 bytes into shared memory, numeric vectors at
/// the memory's speed (on several threads from 64 MiB on). When the store is full it waits for room, at most as long as
/// [`Config::store_patience`](crate::Config::store_patience) says.
///
/// # Errors
/// [`Error::StoreFull`] with the biggest holders, [`Error::Encode`] if the value cannot be archived.
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let weights = mobula::put(&vec![0.5f32; 1000])?;
/// assert_eq!(mobula::view(&weights)?.as_slice(), [0.5; 1000]);
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
#[inline]
pub fn put<T: Value>(value: &T) -> Result<ObjectRef<T>> {
    let origin = Origin::Put(Location::caller());
    local::with(|local| call::put(local, value, origin))?.map(ObjectRef::new)
}

/// Puts numbers as a `Vec`, without making one first. Cost and errors as for [`put`].
#[track_caller]
pub fn put_slice<T: Native>(numbers: &[T]) -> Result<ObjectRef<Vec<T>>> {
    let origin = Origin::Put(Location::caller());
    slice_object(numbers, origin).map(ObjectRef::new)
}

fn slice_object<T: Native>(numbers: &[T], origin: Origin) -> Result<RawRef> {
    local::with(|local| {
        let begun = local.lane.begin();
        let (size, _) = value::vec_layout::<T>(numbers.len()).ok_or_else(too_many::<T>)?;
        let mut draft = local.engine.create(local, size, origin)?;
        draft.write_at(0, value::number_bytes(numbers));
        value::vec_root::<T>(&mut draft, numbers.len());
        let blank = call::object_blank(local, None, begun);
        let object = cell::with_stored_value(blank, draft.seal());
        events::object(local, begun, Deed::Put, origin, &object);
        Ok(object)
    })?
}

pub(super) fn write_slice<T: Native>(numbers: &[T], call: &mut CallWriter<'_>)
where
    Vec<T>: Value,
{
    if size_of_val(numbers) <= crate::exec::INLINE_MAX {
        call.value(&numbers.to_vec());
        return;
    }
    match slice_object(numbers, Origin::Argument(call.function())) {
        Ok(object) => call.reference(object),
        Err(e) => call.fail(e),
    }
}

#[cold]
fn too_many<T>() -> Error {
    Error::Encode {
        value: std::any::type_name::<Vec<T>>(),
        why: "more numbers than memory has addresses".into(),
    }
}

/// Shared memory for `len` numbers, to be filled in place and sealed: no copy at all.
///
/// The contents are unspecified until written: zeros, or numbers of earlier objects of this process.
///
/// # Errors
/// [`Error::StoreFull`].
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let mut ramp = mobula::create::<f32>(1000)?;
/// for (i, x) in ramp.iter_mut().enumerate() { *x = i as f32; }
/// let ramp = ramp.seal();
/// assert_eq!(mobula::view(&ramp)?[999], 999.0);
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
pub fn create<T: Native>(len: usize) -> Result<Writing<T>> {
    let origin = Origin::Create(Location::caller());
    let (size, _) = value::vec_layout::<T>(len).ok_or_else(too_many::<T>)?;
    let draft = local::with(|local| {
        let begun = local.lane.begin();
        let draft = local.engine.create(local, size, origin)?;
        if begun != NOT_RECORDED {
            events::made(local, begun, Deed::Create, origin, 0, size);
        }
        Ok::<_, Error>(draft)
    })??;
    Ok(Writing {
        draft,
        len,
        origin,
        kind: PhantomData,
    })
}

/// Numbers in shared memory that are being written; see [`create`]. Dropping it frees them.
#[derive(Debug)]
pub struct Writing<T> {
    draft: Draft,
    len: usize,
    origin: Origin,
    kind: PhantomData<T>,
}

impl<T: Native> Deref for Writing<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        value::numbers(&self.draft, self.len)
    }
}

impl<T: Native> DerefMut for Writing<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        value::numbers_mut(&mut self.draft, self.len)
    }
}

impl<T: Native> Writing<T> {
    /// Ends writing: from here on the numbers never change.
    pub fn seal(mut self) -> ObjectRef<Vec<T>> {
        value::vec_root::<T>(&mut self.draft, self.len);
        let (sealed, origin) = (self.draft.seal(), self.origin);
        let object = local::with(|local| {
            let begun = local.lane.begin();
            let blank = call::object_blank(local, None, begun);
            let object = cell::with_stored_value(blank, sealed);
            events::object(local, begun, Deed::Seal, origin, &object);
            object
        });
        match object {
            Ok(object) => ObjectRef::new(object),
            Err(e) => super::no_runtime(e),
        }
    }
}

/// Takes in an archive of a `T` that something else wrote: read from a file, received from a peer.
///
/// The bytes are copied into shared memory and validated there, once; every byte the archive refers to is looked at.
///
/// # Errors
/// [`Error::Decode`] if they are not an archive of a `T`; [`Error::StoreFull`].
///
/// ```
/// # use mobula::prelude::*;
/// # let _mobula = mobula::init()?;
/// let original = mobula::put(&vec![String::from("kept"), String::from("in a file")])?;
/// let file = mobula::view(&original)?.bytes().to_vec();
/// let back = mobula::put_archived::<Vec<String>>(&file)?;
/// assert_eq!(mobula::get(&back)?, mobula::get(&original)?);
/// assert!(mobula::put_archived::<Vec<String>>(&file[1..]).is_err());
/// # Ok::<(), mobula::Error>(())
/// ```
#[track_caller]
pub fn put_archived<T: Value>(bytes: &[u8]) -> Result<ObjectRef<T>> {
    let origin = Origin::Put(Location::caller());
    local::with(|local| {
        let begun = local.lane.begin();
        let mut draft = local.engine.create(local, bytes.len(), origin)?;
        draft.write_at(0, bytes);
        let sealed = draft.seal();
        value::check::<T>(&sealed).map_err(|e| call::decode_error::<T>(&e))?;
        let blank = call::object_blank(local, None, begun);
        let object = cell::with_stored_value(blank, sealed);
        events::object(local, begun, Deed::Put, origin, &object);
        Ok(ObjectRef::new(object))
    })?
}
