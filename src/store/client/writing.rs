//! An object while a client writes it.
//!
//! Invariant: it is sealed by `seal` only; dropped otherwise it is aborted, and its name is free
//! again. Lent pages are made read-only here before the server hears of the seal. Left out: where the
//! bytes come from.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::link::Link;
use super::{done, memory};
use crate::base::{ObjectId, StoreError};
use crate::shm::{Lease, copy_into};
use crate::store::proto::{Answer, PIECE_MAX, Request};
use crate::value::{ALIGN, Place};

/// An object being written: its bytes, to be filled in place.
///
/// A large one lies on pages of the store that are writable by this process alone; a small one in
/// this process, and is sent with the seal. The contents are unspecified until written. Nobody sees
/// it before [`seal`](Self::seal); dropped, it is [aborted](Self::abort).
pub struct Writing {
    id: ObjectId,
    link: Arc<Link>,
    serial: u64,
    memory: Memory,
    /// Sealed or aborted.
    over: bool,
}

enum Memory {
    Lent(Lease),
    Own(Aligned),
    /// Given back.
    None,
}

impl Writing {
    /// From the answer to a create.
    pub(super) fn new(
        link: &Arc<Link>,
        id: ObjectId,
        len: usize,
        answer: Answer,
    ) -> Result<Writing, StoreError> {
        let (serial, offset) = match answer {
            Answer::Lent { serial, offset } => (serial, Some(offset)),
            Answer::Begun { serial } => (serial, None),
            other => return Err(super::unexpected(&other)),
        };
        let mut writing = Writing {
            id,
            link: link.clone(),
            serial,
            memory: Memory::None,
            over: false,
        };
        // If it cannot be had, the drop aborts.
        writing.memory = match offset {
            Some(offset) => Memory::Lent(memory::lend(link, offset, len as u64)?),
            None => Memory::Own(Aligned::new(len)),
        };
        Ok(writing)
    }

    /// Its name.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Copies `bytes` to position `pos` at memory speed; on several threads from 64 MiB on.
    ///
    /// # Panics
    /// If they do not fit there; nothing is written then.
    pub fn write_at(&mut self, pos: usize, bytes: &[u8]) {
        let len = self.len();
        let end = pos.checked_add(bytes.len()).filter(|end| *end <= len);
        let Some(end) = end else {
            panic!(
                "{} bytes at {pos} do not fit an object of {len}",
                bytes.len()
            )
        };
        match &mut self.memory {
            Memory::Lent(lease) => lease.write_at(pos, bytes),
            _ => copy_into(&mut self[pos..end], bytes),
        }
    }

    /// Faults all its pages in at once: cheaper than one by one if all will be written. Nothing for a
    /// small object.
    pub fn populate(&self) {
        if let Memory::Lent(lease) = &self.memory {
            lease.populate();
        }
    }

    /// Ends writing: the object is complete, never changes again, and can be read by all. One round
    /// trip.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone.
    pub fn seal(mut self) -> Result<(), StoreError> {
        let seal = self.send()?;
        done(self.link.call(seal, None)?)
    }

    /// Gives the object up: its name is free again.
    ///
    /// # Errors
    /// [`StoreError::Gone`] if the server is gone, which took it back itself then.
    pub fn abort(mut self) -> Result<(), StoreError> {
        let abort = self.give_up();
        done(self.link.call(abort, None)?)
    }

    /// Sends what is not in the store yet; then only the request is missing that seals it.
    pub(super) fn send(&mut self) -> Result<Request<'static>, StoreError> {
        let serial = self.serial;
        if let Memory::Own(bytes) = &self.memory {
            for (n, bytes) in bytes.chunks(PIECE_MAX).enumerate() {
                let at = (n * PIECE_MAX) as u64;
                self.link.sound()?;
                self.link.tell(Request::Write { serial, at, bytes });
            }
        }
        // From here on this process cannot write there.
        self.memory = Memory::None;
        self.over = true;
        Ok(Request::Seal { serial })
    }

    pub(super) fn give_up(&mut self) -> Request<'static> {
        self.memory = Memory::None;
        self.over = true;
        Request::Abort {
            serial: self.serial,
        }
    }
}

impl Deref for Writing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Lent(lease) => lease,
            Memory::Own(bytes) => bytes,
            Memory::None => &[],
        }
    }
}

impl DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Lent(lease) => lease,
            Memory::Own(bytes) => bytes,
            Memory::None => &mut [],
        }
    }
}

impl Place for Writing {
    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn write_at(&mut self, pos: usize, piece: &[u8]) {
        Writing::write_at(self, pos, piece);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.over {
            let abort = self.give_up();
            self.link.tell(abort);
        }
    }
}

impl fmt::Debug for Writing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writing({}, {} bytes)", self.id, self.len())
    }
}

/// Bytes of this process at an address that archives may begin at.
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0; len + ALIGN];
        let begin = bytes.as_ptr().align_offset(ALIGN);
        Aligned { bytes, begin, len }
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.begin..self.begin + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..self.begin + self.len]
    }
}
