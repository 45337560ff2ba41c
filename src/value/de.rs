//! The reader: archives accessed in place, decoded to owned values, and validated when foreign.
//!
//! Invariant: unvalidated access is for bytes that this process wrote through [`super::Ser`]; everything else goes
//! through [`check`] once, before it is sealed. Left out: shared pointers.

use rkyv::rancor::{self, Strategy};

use super::ser::root_pos;
use super::{Archived, Cap, CodecError, Value};

/// The deserializer that every [`Value`] is read with: it finds the references an archive holds by index.
#[derive(Debug)]
pub struct De {
    caps: *const [Cap],
}

impl De {
    /// The reader behind rkyv's wrapper, for `Deserialize` implementations of references.
    pub fn of(strategy: &mut Strategy<De, rancor::Error>) -> &mut De {
        strategy
    }

    /// The reference with this index, if the archive came with so many.
    pub fn cap(&self, index: u32) -> Option<&Cap> {
        // SAFETY: `decode` borrows the list for as long as the reader exists, and hands out no reader that outlives it:
        // `Deserialize` gets `&mut De` only, and De cannot be made or copied elsewhere.
        unsafe { &*self.caps }.get(index as usize)
    }
}

/// The archived root in `bytes`.
///
/// # Safety
/// `bytes` end where an archive of `T` ends that this process wrote or [`check`] accepted, at an address congruent
/// to the positions it was written for.
#[inline]
pub unsafe fn root<T: Value>(bytes: &[u8]) -> &Archived<T> {
    // SAFETY: the caller's promise; the root is the last thing written.
    unsafe { rkyv::api::access_unchecked::<Archived<T>>(bytes) }
}

/// An owned value from the archive in `bytes`, with the references that travel beside it.
///
/// # Safety
/// As for [`root`].
#[inline]
pub unsafe fn decode<T: Value>(bytes: &[u8], caps: &[Cap]) -> Result<T, CodecError> {
    let mut de = De { caps };
    // SAFETY: the caller's promise.
    let archived = unsafe { root::<T>(bytes) };
    rkyv::api::deserialize_using::<T, De, rancor::Error>(archived, &mut de)
        .map_err(|e| CodecError::Refused(e.to_string()))
}

/// Whether `bytes` are an archive of `T`; touches every byte that the archive refers to.
///
/// Fails when they are too short, not aligned for `T`, or hold anything that is not a `T`.
pub fn check<T: Value>(bytes: &[u8]) -> Result<(), CodecError> {
    if root_pos::<T>(bytes.len()).is_none() {
        return Err(CodecError::Refused(format!(
            "{} bytes are too short for a root of {}",
            bytes.len(),
            size_of::<Archived<T>>()
        )));
    }
    rkyv::access::<Archived<T>, rancor::Error>(bytes)
        .map(|_| ())
        .map_err(|e| CodecError::Refused(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::{Placed, Ser};
    use super::*;

    #[repr(align(64))]
    struct Aligned([u8; 4096]);

    fn archive<T: Value>(v: &T) -> (Box<Aligned>, usize) {
        let mut ser = Ser::default();
        ser.begin(0);
        assert_eq!(ser.place(v).unwrap(), Placed::Scratch);
        let mut home = Box::new(Aligned([0; 4096]));
        home.0[..ser.pos()].copy_from_slice(ser.bytes());
        let len = ser.pos();
        (home, len)
    }

    #[test]
    fn a_sound_archive_passes_and_every_truncation_fails_or_is_sound() {
        let v = vec![
            String::from("first string, long"),
            String::from("second string, longer"),
        ];
        let (home, len) = archive(&v);
        check::<Vec<String>>(&home.0[..len]).unwrap();
        for cut in 0..len {
            let piece = &home.0[..cut];
            if check::<Vec<String>>(piece).is_ok() {
                // SAFETY: it was accepted.
                let _ = unsafe { decode::<Vec<String>>(piece, &[]) }.unwrap();
            }
        }
    }

    #[test]
    fn no_flipped_byte_is_read_out_of_bounds() {
        let v = (
            7u32,
            vec![String::from("a string that is not inline at all"); 3],
            Some(true),
        );
        let (mut home, len) = archive(&v);
        for i in 0..len {
            for flip in [0x01, 0x80, 0xff] {
                home.0[i] ^= flip;
                if check::<(u32, Vec<String>, Option<bool>)>(&home.0[..len]).is_ok() {
                    // SAFETY: it was accepted; under Miri this shows that acceptance suffices.
                    let back =
                        unsafe { decode::<(u32, Vec<String>, Option<bool>)>(&home.0[..len], &[]) };
                    drop(back.unwrap());
                }
                home.0[i] ^= flip;
            }
        }
    }
}
