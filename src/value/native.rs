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
        assert_eq!(f32::slice(&a).as_ptr().cast::<u8>(), a.as_ptr().cast::<u8>());
    }
}
