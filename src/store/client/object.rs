//! Objects as they are read: bytes in place, and values in place.
//!
//! Invariant: what is read stays pinned for as long as it is held. Left out: the memory (`memory`).

use std::fmt;
use std::ops::Deref;

use rkyv::vec::ArchivedVec;

use super::memory::{Checked, Pinned};
use crate::base::{ObjectId, StoreError};
use crate::value::{Archived, Native, Value};

/// A sealed object, read where it lies: derefs to its bytes, which begin at a multiple of 64.
///
/// Held in place until it is dropped, even if it is deleted meanwhile, and even if the server ends.
pub struct Object {
    id: ObjectId,
    pinned: Pinned,
}

impl Object {
    pub(super) fn new(id: ObjectId, pinned: Pinned) -> Object {
        Object { id, pinned }
    }

    /// Its name.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Gives it back: what dropping it does, in a word.
    pub fn release(self) {}

    /// The bytes as a value, in place. Looks once at all that the archive refers to.
    ///
    /// # Errors
    /// [`StoreError::Decode`] if they are not an archive of `T`.
    pub fn view<T: Value>(self) -> Result<StoreView<T>, StoreError> {
        Ok(StoreView {
            id: self.id,
            checked: Checked::new(self.id, self.pinned)?,
        })
    }
}

impl Deref for Object {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pinned
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {} bytes)", self.id, self.len())
    }
}

/// A value of the store, read where it lies: derefs to its archived form, whose fields, strings and
/// maps are used like the original's. Held in place until it is dropped.
pub struct StoreView<T> {
    id: ObjectId,
    checked: Checked<T>,
}

impl<T: Value> StoreView<T> {
    /// The object's name.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// The archive's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.checked.bytes()
    }

    /// An owned copy.
    ///
    /// # Errors
    /// [`StoreError::Decode`] if the value holds references, which mean nothing here.
    pub fn to_owned(&self) -> Result<T, StoreError> {
        self.checked.decode().map_err(|e| StoreError::Decode {
            id: self.id,
            expected: std::any::type_name::<T>(),
            why: e.to_string(),
        })
    }
}

impl<T: Value> Deref for StoreView<T> {
    type Target = Archived<T>;

    fn deref(&self) -> &Archived<T> {
        self.checked.root()
    }
}

impl<T: Native> StoreView<Vec<T>>
where
    Vec<T>: Value<Archived = ArchivedVec<Archived<T>>>,
{
    /// The numbers, in place.
    pub fn as_slice(&self) -> &[T] {
        T::slice(ArchivedVec::as_slice(self))
    }
}

impl<T: Value> fmt::Debug for StoreView<T>
where
    Archived<T>: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
