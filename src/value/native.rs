//! Numbers whose archive is the number itself, so that an archived `Vec<f32>` is read as `&[f32]`.
//!
//! Invariant: a [`Native`] type and its archived form have the same size, alignment, bytes and validity, on
//! the little-endian 64-bit targets that this crate compiles for. Left out: structs; read those archived.

use super::{Archived, Value};

mod sealed {
    pub trait Sealed {}
}

/// A number that is stored as itself: `u8` to `u64`, `i8` to `i64`, `f32`, `f64`.
#[diagnostic::on_unimplemented(
    message = "`&[{Self}]` cannot be read in place",
    label = "only slices of numbers are stored as themselves",
    note = "take `&Archived<Vec<{Self}>>` to read the archive in place, or `Vec<{Self}>` to own a copy"
)]
pub trait Native: Value + Copy + sealed::Sealed {
    /// The archived numbers, as numbers.
    fn slice(archived: &[Archived<Self>]) -> &[Self];
}

macro_rules! native {
    ($($t:ty)*) => { $(
        impl sealed::Sealed for $t {}
        impl Native for $t {
            fn slice(archived: &[Archived<Self>]) -> &[Self] {
                const {
                    assert!(size_of::<Archived<$t>>() == size_of::<$t>());
                    assert!(align_of::<Archived<$t>>() == align_of::<$t>());
                }
                // SAFETY: rend's little-endian numbers are transparent over the number on a little-endian host,
                // every bit pattern is valid for both, and size and alignment are equal as asserted.
                unsafe { std::slice::from_raw_parts(archived.as_ptr().cast(), archived.len()) }
            }
        }
    )* };
}
native!(u8 i8 u16 i16 u32 i32 u64 i64 f32 f64);

/// Bytes of the archive of a `Vec` of `len` numbers, and where its root begins; `None` if that is too many.
pub fn vec_layout<T: Native>(len: usize) -> Option<(usize, usize)> {
    let root = len
        .checked_mul(size_of::<T>())?
        .checked_next_multiple_of(align_of::<Root<T>>())?;
    Some((root.checked_add(size_of::<Root<T>>())?, root))
}

type Root<T> = rkyv::vec::ArchivedVec<Archived<T>>;

/// Completes the archive of a `Vec`: its numbers stand at the beginning of `bytes`, the root goes to their end.
///
/// # Panics
/// If `bytes` is not what [`vec_layout`] said for `len`, or not aligned.
pub fn vec_root<T: Native>(bytes: &mut [u8], len: usize) {
    let (size, root) = vec_layout::<T>(len).expect("the layout was asked for before");
    assert!(bytes.len() == size && bytes.as_ptr().addr().is_multiple_of(super::ALIGN));
    bytes[len * size_of::<T>()..].fill(0);
    // SAFETY: the root lies inside the bytes, is aligned, and its bytes are initialised.
    unsafe {
        let at = bytes.as_mut_ptr().add(root).cast::<Root<T>>();
        let place = rkyv::Place::new_unchecked(root, at);
        Root::<T>::resolve_from_len(len, rkyv::vec::VecResolver::from_pos(0), place);
    }
}

/// The numbers as bytes.
pub fn number_bytes<T: Native>(numbers: &[T]) -> &[u8] {
    // SAFETY: numbers have no padding and every byte of them is initialised.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

/// The first `len` numbers of `bytes`.
///
/// # Panics
/// If there are fewer, or they are not aligned.
pub fn numbers<T: Native>(bytes: &[u8], len: usize) -> &[T] {
    assert!(
        len.checked_mul(size_of::<T>())
            .is_some_and(|n| n <= bytes.len())
    );
    assert!(bytes.as_ptr().addr().is_multiple_of(align_of::<T>()));
    // SAFETY: in bounds and aligned; every bit pattern is a number.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) }
}

/// As [`numbers`], to be written.
///
/// # Panics
/// As for [`numbers`].
pub fn numbers_mut<T: Native>(bytes: &mut [u8], len: usize) -> &mut [T] {
    assert!(
        len.checked_mul(size_of::<T>())
            .is_some_and(|n| n <= bytes.len())
    );
    assert!(bytes.as_ptr().addr().is_multiple_of(align_of::<T>()));
    // SAFETY: in bounds and aligned; every bit pattern is a number, before and after.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archived_number_is_the_number() {
        let a = [
            rkyv::rend::f32_le::from_native(1.5),
            rkyv::rend::f32_le::from_native(-0.0),
        ];
        assert_eq!(f32::slice(&a), &[1.5, -0.0]);
        assert_eq!(
            f32::slice(&a).as_ptr().cast::<u8>(),
            a.as_ptr().cast::<u8>()
        );
    }
}
