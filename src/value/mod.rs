//! Values as bytes and back: one rkyv archive serves the thread, the process next door and the network.
//!
//! An archive is read in place at a 64-byte aligned address; positions are relative to it. Small values are
//! written into a scratch buffer and copied once; big ones are measured first and written straight to where
//! they will live. References inside values travel beside the archive as [`Cap`]s; the archive holds their index.
//!
//! Invariant: bytes that this process did not write are validated before they are read ([`check`]).
//! Left out: where bytes live (`store`), what a reference refers to (`exec`).

#[cfg(target_endian = "big")]
compile_error!(
    "mobula stores archives little-endian and reads numbers in place: big-endian hosts are not supported"
);
#[cfg(not(target_pointer_width = "64"))]
compile_error!("mobula supports 64-bit targets only");

mod caps;
mod de;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod laws;
mod native;
mod ser;
mod traits;

pub use caps::{ArchivedCap, Cap, CapKind, type_tag};
pub use de::{De, check, decode, root};
pub use native::{Native, number_bytes, numbers, numbers_mut, vec_layout, vec_root};
pub use ser::{CodecError, Place, Placed, Ser};
pub use traits::{Archived, Value};

/// Alignment of the address an archive is laid out for.
pub const ALIGN: usize = 64;
