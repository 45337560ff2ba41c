//! The store's memory as a client touches it: read where pinned, written where lent.
//!
//! The one file of the client with `unsafe`. Invariant: bytes are read only while the server has them
//! pinned for this client, and written only while it lends them; where they lie is the server's word,
//! checked against the mapping. Left out: the requests that pin, lend and give back.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use super::link::Link;
use crate::base::{ObjectId, StoreError};
use crate::shm::Lease;
use crate::store::proto::Request;
use crate::value::{self, Archived, Value};

/// An object's bytes, pinned until this is dropped.
pub struct Pinned {
    link: Arc<Link>,
    serial: u64,
    offset: u64,
    len: u64,
}

impl Pinned {
    /// Takes over the pin that came with the server's answer. Fails if that is not inside its memory.
    pub fn new(link: &Arc<Link>, serial: u64, offset: u64, len: u64) -> Result<Pinned, StoreError> {
        let pinned = Pinned {
            link: link.clone(),
            serial,
            offset,
            len,
        };
        let end = offset.checked_add(len);
        if end.is_none_or(|end| end > link.attached.len()) || !offset.is_multiple_of(64) {
            let why = format!("an object of {len} bytes at {offset} is not inside the store");
            return Err(StoreError::BadFrame { why });
        }
        Ok(pinned)
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a sealed object of the server's, pinned for this client until the release in `drop`;
        // the link, which this keeps, keeps the mapping, and the server keeps pins of a connection
        // that broke until the socket is closed.
        let bytes = unsafe { self.link.attached.bytes(self.offset, self.len) };
        // `new` has looked: it lies inside.
        bytes.unwrap_or_default()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.link.tell(Request::Release {
            serial: self.serial,
        });
    }
}

/// The pages that the server lent for writing.
pub fn lend(link: &Link, offset: u64, len: u64) -> Result<Lease, StoreError> {
    // SAFETY: the server gave these pages to this client's connection, until its object is sealed or
    // aborted; both are said only after the lease is dropped.
    let lease = unsafe { link.attached.lease(offset, len) };
    lease.map_err(|e| StoreError::Os {
        what: format!("making {len} bytes at {offset} of the store writable"),
        source: Arc::new(e),
    })
}

/// Bytes that are an archive of `T`.
pub struct Checked<T> {
    pinned: Pinned,
    kind: PhantomData<fn() -> T>,
}

impl<T: Value> Checked<T> {
    /// Looks at all that the archive refers to, once.
    pub fn new(id: ObjectId, pinned: Pinned) -> Result<Checked<T>, StoreError> {
        value::check::<T>(&pinned).map_err(|e| StoreError::Decode {
            id,
            expected: std::any::type_name::<T>(),
            why: e.to_string(),
        })?;
        Ok(Checked {
            pinned,
            kind: PhantomData,
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.pinned
    }

    /// The value in place.
    pub fn root(&self) -> &Archived<T> {
        // SAFETY: `new` accepted these bytes, and sealed bytes do not change.
        unsafe { value::root::<T>(&self.pinned) }
    }

    /// An owned copy.
    pub fn decode(&self) -> Result<T, value::CodecError> {
        // SAFETY: as in `root`.
        unsafe { value::decode::<T>(&self.pinned, &[]) }
    }
}
