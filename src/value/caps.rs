//! References beside archives: an archive cannot hold a counted pointer, so it holds an index into a list of
//! capabilities that travels with it.
//!
//! Invariant: a [`Cap`] owns one count of what it refers to, and gives it back when it is dropped; it converts
//! back only to the kind that made it. Left out: what the kinds are; `exec` makes them.

use std::any::TypeId;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ptr::NonNull;

use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Fallible;
use rkyv::rend::u32_le;
use rkyv::traits::NoUndef;
use rkyv::{Place, Portable};

/// How one kind of reference is counted.
#[derive(Debug)]
pub struct CapKind {
    /// For messages.
    pub name: &'static str,
    /// Adds a count.
    ///
    /// # Safety
    /// The pointer came from a `Cap` of this kind which still holds its count.
    pub acquire: unsafe fn(NonNull<()>),
    /// Gives a count back.
    ///
    /// # Safety
    /// As for `acquire`; the count must not be used again.
    pub release: unsafe fn(NonNull<()>),
}

/// The number of a type, the same in every process of one executable. Two types that differ have the same number with a
/// chance of one in 2^64.
#[inline]
pub fn type_tag<T: 'static>() -> u64 {
    /// Keeps the number that a type id hashes as.
    struct Keep(u64);
    impl Hasher for Keep {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }
    let mut keep = Keep(0);
    TypeId::of::<T>().hash(&mut keep);
    keep.0
}

/// A counted reference of some kind, to something of a type that whoever takes it out must name again: an index read from
/// one archive and used with another's list must not make a reference of a wrong type.
#[derive(Debug)]
pub struct Cap {
    target: NonNull<()>,
    kind: &'static CapKind,
    of: u64,
}

// SAFETY: kinds are made by `exec` for atomically counted cells only, which may be shared and dropped anywhere.
unsafe impl Send for Cap {}
// SAFETY: as above.
unsafe impl Sync for Cap {}

impl Cap {
    /// Takes over one count of `target`.
    ///
    /// # Safety
    /// `target` is of the kind that `kind` counts, atomically, refers to a `T`, and the caller gives up one count of it.
    #[inline]
    pub unsafe fn from_raw<T: 'static>(target: NonNull<()>, kind: &'static CapKind) -> Cap {
        // SAFETY: the caller's promise.
        unsafe { Cap::from_raw_tagged(target, kind, type_tag::<T>()) }
    }

    /// As [`from_raw`](Self::from_raw), for the type that has this number.
    ///
    /// # Safety
    /// As for [`from_raw`](Self::from_raw).
    #[inline]
    pub unsafe fn from_raw_tagged(target: NonNull<()>, kind: &'static CapKind, of: u64) -> Cap {
        Cap { target, kind, of }
    }

    /// The number of the type it refers to.
    pub fn tag(&self) -> u64 {
        self.of
    }

    /// The pointer, if this is of kind `kind`; the count stays with `self`.
    pub fn of_kind(&self, kind: &'static CapKind) -> Option<NonNull<()>> {
        std::ptr::eq(self.kind, kind).then_some(self.target)
    }

    /// The pointer, if this is of kind `kind` and refers to a `T`; the count stays with `self`.
    pub fn as_kind<T: 'static>(&self, kind: &'static CapKind) -> Option<NonNull<()>> {
        (std::ptr::eq(self.kind, kind) && self.of == type_tag::<T>()).then_some(self.target)
    }

    /// What it refers to, for messages.
    pub fn kind_name(&self) -> &'static str {
        self.kind.name
    }
}

impl Clone for Cap {
    fn clone(&self) -> Cap {
        // SAFETY: self holds a count of a target of this kind.
        unsafe { (self.kind.acquire)(self.target) };
        Cap {
            target: self.target,
            kind: self.kind,
            of: self.of,
        }
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // SAFETY: self holds a count, which ends here.
        unsafe { (self.kind.release)(self.target) };
    }
}

/// The archived form of a reference of type `R`: its index in the list that travels with the archive.
#[repr(transparent)]
pub struct ArchivedCap<R> {
    index: u32_le,
    kind: PhantomData<fn() -> R>,
}

// SAFETY: a little-endian number; the marker takes no space.
unsafe impl<R> Portable for ArchivedCap<R> {}
// SAFETY: as above: no padding.
unsafe impl<R> NoUndef for ArchivedCap<R> {}

// SAFETY: every bit pattern is an index; whether the list is that long is checked when the reference is taken out.
unsafe impl<R, C: Fallible + ?Sized> CheckBytes<C> for ArchivedCap<R> {
    unsafe fn check_bytes(_: *const Self, _: &mut C) -> Result<(), C::Error> {
        Ok(())
    }
}

impl<R> ArchivedCap<R> {
    /// Writes the archived form.
    pub fn resolve(index: u32, out: Place<ArchivedCap<R>>) {
        out.write(ArchivedCap {
            index: u32_le::from_native(index),
            kind: PhantomData,
        });
    }

    /// Which of the references that came with the archive.
    pub fn index(&self) -> u32 {
        self.index.to_native()
    }
}

impl<R> std::fmt::Debug for ArchivedCap<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "reference {}", self.index())
    }
}
