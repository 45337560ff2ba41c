//! What driver and worker say to each other over a lane, as bytes.
//!
//! Invariant: reading never goes past the end, whatever the bytes; what cannot be read is a [`Lied`]. Left out: sending
//! (`shm`), and what follows from what is said.

use crate::shm::Lied;

/// Driver: run a function.
pub const CALL: u32 = 1;
/// Driver: make the actor that this process is for.
pub const CONSTRUCT: u32 = 2;
/// Driver: run a method of that actor.
pub const METHOD: u32 = 3;
/// Driver: drop that actor's state.
pub const DROP: u32 = 4;
/// Driver: the pages asked for.
pub const LENT: u32 = 5;
/// Driver: why there are no pages.
pub const REFUSED: u32 = 6;
/// Worker: the call's value, in the frame.
pub const VALUE: u32 = 16;
/// Worker: the call's value, in the pages lent.
pub const STORED: u32 = 17;
/// Worker: the call ended and there is no value, since nobody wants it.
pub const NOTHING: u32 = 18;
/// Worker: the call failed.
pub const FAILED: u32 = 19;
/// Worker: pages are needed.
pub const LEND: u32 = 20;

/// More arguments than a remote call can have.
pub const MAX_ARGS: usize = 16;

/// More GPUs than a machine has.
pub const MAX_GPUS: usize = 256;

/// In an answer's first word: the call consumed the actor's state.
pub const TAKEN: u32 = 1;
/// Bytes at the head of an answer: its flags, and what aligns the archive that follows as records do.
pub const HEAD: usize = 32;

/// How a call ended, as the worker says.
pub enum Answer<'a> {
    /// Well; nobody wants the value.
    Nothing { flags: u32 },
    /// With this value.
    Value { flags: u32, archive: &'a [u8] },
    /// With a value in these pages.
    Stored { flags: u32, offset: u64, len: u64 },
    /// Not well.
    Failed { flags: u32, why: Reader<'a> },
}

impl<'a> Answer<'a> {
    /// Reads an answer; the archive is aligned if the bytes are.
    pub fn read(what: u32, bytes: &'a [u8]) -> Result<Answer<'a>, Lied> {
        let flags = Reader(bytes).u32()?;
        let rest = bytes.get(HEAD..).ok_or(Lied)?;
        let mut r = Reader(rest);
        Ok(match what {
            NOTHING => Answer::Nothing { flags },
            VALUE => Answer::Value {
                flags,
                archive: rest,
            },
            STORED => Answer::Stored {
                flags,
                offset: r.u64()?,
                len: r.u64()?,
            },
            FAILED => Answer::Failed { flags, why: r },
            _ => return Err(Lied),
        })
    }

    /// Whether it consumed the state.
    pub fn taken(&self) -> bool {
        let (Answer::Nothing { flags }
        | Answer::Value { flags, .. }
        | Answer::Stored { flags, .. }
        | Answer::Failed { flags, .. }) = self;
        flags & TAKEN != 0
    }
}

/// Where one argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the call's own bytes, ending there.
    Inline { end: u32 },
    /// So many bytes in the frame's tail.
    Tail { len: u32 },
    /// In the arena.
    Arena { offset: u64, len: u64 },
}

/// Writes the numbers of a message.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn place(&mut self, place: Place) {
        match place {
            Place::Inline { end } => (self.u32(0), self.u64(end.into()), self.u64(0)),
            Place::Tail { len } => (self.u32(1), self.u64(len.into()), self.u64(0)),
            Place::Arena { offset, len } => (self.u32(2), self.u64(offset), self.u64(len)),
        };
    }
}

/// Reads them back.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Lied> {
        let (bytes, rest) = self.0.split_at_checked(n).ok_or(Lied)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Lied> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| Lied)?))
    }

    pub fn u64(&mut self) -> Result<u64, Lied> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| Lied)?))
    }

    pub fn text(&mut self) -> Result<String, Lied> {
        let len = self.u32()? as usize;
        Ok(String::from_utf8_lossy(self.bytes(len)?).into_owned())
    }

    pub fn place(&mut self) -> Result<Place, Lied> {
        let (kind, a, b) = (self.u32()?, self.u64()?, self.u64()?);
        let small = u32::try_from(a).map_err(|_| Lied);
        match kind {
            0 => Ok(Place::Inline { end: small? }),
            1 => Ok(Place::Tail { len: small? }),
            2 => Ok(Place::Arena { offset: a, len: b }),
            _ => Err(Lied),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read_back() {
        let places = [
            Place::Inline { end: 7 },
            Place::Tail { len: u32::MAX },
            Place::Arena {
                offset: u64::MAX,
                len: 1 << 40,
            },
        ];
        let mut w = Writer::default();
        places.iter().for_each(|p| w.place(*p));
        w.text("größe");
        w.u32(5);
        let mut r = Reader(&w.0);
        for place in places {
            assert_eq!(r.place(), Ok(place));
        }
        assert_eq!(r.text().as_deref(), Ok("größe"));
        assert_eq!((r.u32(), r.u32()), (Ok(5), Err(Lied)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_past_their_end(
            what in 0u32..32,
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            if let Ok(answer) = Answer::read(what, &bytes) {
                prop_assert!(bytes.len() >= HEAD);
                let _ = answer.taken();
                if let Answer::Failed { mut why, .. } = answer {
                    let _ = super::super::failure::read(&mut why, "f");
                }
            }
            let mut r = Reader(&bytes);
            while r.place().is_ok() || r.text().is_ok() {
                if r.0.is_empty() {
                    break;
                }
            }
        }
    }
}
