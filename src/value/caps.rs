//! References beside archives: an archive cannot hold a counted pointer, so it holds an index into a list of
//! capabilities that travels with it.
//!
//! Invariant: a [`Cap`] owns one count of what it refers to, and gives it back when it is dropped; it converts
//! back only to the kind that made it. Left out: what the kinds are; `exec` makes them.

use std::ptr::NonNull;

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

/// A counted reference of some kind.
#[derive(Debug)]
pub struct Cap {
    target: NonNull<()>,
    kind: &'static CapKind,
}

// SAFETY: kinds are made by `exec` for atomically counted cells only, which may be shared and dropped anywhere.
unsafe impl Send for Cap {}
// SAFETY: as above.
unsafe impl Sync for Cap {}

impl Cap {
    /// Takes over one count of `target`.
    ///
    /// # Safety
    /// `target` is of the kind that `kind` counts, atomically, and the caller gives up one count of it.
    pub unsafe fn from_raw(target: NonNull<()>, kind: &'static CapKind) -> Cap {
        Cap { target, kind }
    }

    /// The pointer, if this is of kind `kind`; the count stays with `self`.
    pub fn as_kind(&self, kind: &'static CapKind) -> Option<NonNull<()>> {
        std::ptr::eq(self.kind, kind).then_some(self.target)
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
        Cap { target: self.target, kind: self.kind }
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        // SAFETY: self holds a count, which ends here.
        unsafe { (self.kind.release)(self.target) };
    }
}
