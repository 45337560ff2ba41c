//! The writer: small values into a scratch buffer, big ones measured and then written in place.
//!
//! A first pass writes into scratch. When a single piece is large (a numeric vector) or the whole grows past
//! [`MAX_SCRATCH`], it stops copying and only counts; the caller then finds a place of that size and a second
//! pass writes straight into it. A 1 GB vector is therefore measured in nanoseconds and copied once.
//!
//! Invariant: the second pass never writes outside its place, whatever a foreign `Serialize` does.
//! Left out: shared pointers, see [`super::Value`].

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

use rkyv::rancor::{self, Source, Strategy};
use rkyv::ser::{Allocator, Positional, Writer};

use super::{Archived, Cap, Value};

/// Pieces of this size are not worth copying twice.
const BIG_PIECE: usize = 16 << 10;
/// Scratch grows up to here.
const MAX_SCRATCH: usize = 256 << 10;

/// Why a value could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// rkyv or a foreign `Serialize` refused.
    #[error("{0}")]
    Refused(String),
    /// The value did not come out the same size twice.
    #[error(
        "the value changed while it was being archived: measured {measured} bytes, then wrote {wrote}"
    )]
    Changed {
        /// Bytes of the first pass.
        measured: usize,
        /// Bytes of the second.
        wrote: usize,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("the archive does not fit the place measured for it")]
struct Overflow;

/// Where a first pass left a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// In the scratch buffer, ending at the current position.
    Scratch,
    /// Nowhere yet: it needs this many bytes at an aligned address of its own.
    Measured(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Scratch,
    Counting,
    Fixed,
}

/// The serializer that every [`Value`] is archived with.
#[derive(Debug)]
pub struct Ser {
    dst: *mut u8,
    cap: usize,
    pos: usize,
    mode: Mode,
    scratch: Vec<u8>,
    caps: Vec<Cap>,
    /// The place of a second pass, only while `write_into` borrows it.
    place: Option<NonNull<dyn Place>>,
}

/// Where a measured value is written: bytes at an aligned address, with a way of its own for large pieces.
pub trait Place {
    /// All of it.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Copies a large piece to `pos`, within bounds.
    fn write_at(&mut self, pos: usize, piece: &[u8]);
}

// SAFETY: `dst` points into `scratch`, which self owns, except within `write_into`, which borrows self for as long.
unsafe impl Send for Ser {}

impl Default for Ser {
    fn default() -> Ser {
        let mut scratch = vec![0u8; 1024];
        Ser {
            dst: scratch.as_mut_ptr(),
            cap: scratch.len() - 64,
            pos: 0,
            mode: Mode::Scratch,
            scratch,
            caps: Vec::new(),
            place: None,
        }
    }
}

impl Ser {
    /// Forgets everything and goes on writing at `pos`; the bytes before it are the caller's.
    #[inline]
    pub fn begin(&mut self, pos: usize) {
        debug_assert!(pos <= self.scratch.len());
        self.dst = self.scratch.as_mut_ptr();
        self.cap = self.scratch.len() - 64;
        self.pos = pos;
        self.mode = Mode::Scratch;
        self.caps.clear();
    }

    /// Writes `value` at the current position of the scratch buffer, or measures it.
    ///
    /// After `Measured`, the position is back where the value began.
    #[inline]
    pub fn place<T: Value>(&mut self, value: &T) -> Result<Placed, CodecError> {
        const {
            assert!(
                align_of::<Archived<T>>() <= super::ALIGN,
                "values are aligned to at most 64 bytes"
            );
        }
        let start = self.pos;
        let first_cap = self.caps.len();
        let written = rkyv::api::serialize_using::<Ser, rancor::Error>(value, self);
        if self.mode == Mode::Scratch && written.is_ok() {
            return Ok(Placed::Scratch);
        }
        self.place_slowly::<T>(value, start, first_cap, written)
    }

    #[cold]
    fn place_slowly<T: Value>(
        &mut self,
        value: &T,
        start: usize,
        first_cap: usize,
        written: Result<usize, rancor::Error>,
    ) -> Result<Placed, CodecError> {
        self.caps.truncate(first_cap);
        if self.mode == Mode::Counting {
            self.resume(start);
            written.map_err(|e| CodecError::Refused(e.to_string()))?;
            return self.measure(value).map(Placed::Measured);
        }
        self.resume(start);
        written
            .map(|_| Placed::Scratch)
            .map_err(|e| CodecError::Refused(e.to_string()))
    }

    /// How many bytes `value` needs at an address of its own.
    pub fn measure<T: Value>(&mut self, value: &T) -> Result<usize, CodecError> {
        let (start, first_cap) = (self.pos, self.caps.len());
        (self.mode, self.cap, self.pos) = (Mode::Counting, 0, 0);
        let done = rkyv::api::serialize_using::<Ser, rancor::Error>(value, self);
        let size = self.pos;
        self.caps.truncate(first_cap);
        self.resume(start);
        done.map(|_| size)
            .map_err(|e| CodecError::Refused(e.to_string()))
    }

    fn resume(&mut self, pos: usize) {
        self.dst = self.scratch.as_mut_ptr();
        self.cap = self.scratch.len() - 64;
        self.pos = pos;
        self.mode = Mode::Scratch;
    }

    /// Writes `value`, measured before, into `place`, which must be aligned to [`super::ALIGN`].
    /// The value's references are left in [`take_caps`](Self::take_caps).
    pub fn write_into<T: Value>(
        &mut self,
        value: &T,
        place: &mut (dyn Place + 'static),
    ) -> Result<(), CodecError> {
        let bytes = place.bytes_mut();
        assert!(
            bytes.as_ptr().addr().is_multiple_of(super::ALIGN),
            "archives start aligned"
        );
        let start = self.pos;
        let measured = bytes.len();
        (self.dst, self.cap, self.pos) = (bytes.as_mut_ptr(), measured, 0);
        (self.mode, self.place) = (Mode::Fixed, Some(NonNull::from(place)));
        let done = {
            // A panic in a foreign `Serialize` must not leave the place behind.
            let guard = Leave(self);
            let done = rkyv::api::serialize_using::<Ser, rancor::Error>(value, guard.0);
            let wrote = guard.0.pos;
            drop(guard);
            done.map(|_| wrote).map_err(|e| (e, wrote))
        };
        self.resume(start);
        match done {
            Ok(wrote) if wrote == measured => Ok(()),
            Ok(wrote) => Err(CodecError::Changed { measured, wrote }),
            Err((_, wrote)) if wrote > measured => Err(CodecError::Changed { measured, wrote }),
            Err((e, _)) => Err(CodecError::Refused(e.to_string())),
        }
    }

    /// The current position: where the last value placed in scratch ends.
    #[inline]
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Takes the last value placed in scratch back, down to `pos`.
    #[inline]
    pub fn rewind(&mut self, pos: usize) {
        debug_assert!(pos <= self.pos);
        self.pos = pos;
    }

    /// What was written to scratch, from its beginning.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.scratch[..self.pos.min(self.scratch.len())]
    }

    /// As [`bytes`](Self::bytes), to be kept.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.scratch.truncate(self.pos);
        self.scratch
    }

    /// Bytes before the first value, which are the caller's.
    #[inline]
    pub fn head_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        &mut self.scratch[at..at + len]
    }

    /// What was written to scratch from `begin` on, and whatever follows up to a whole number of 32 bytes, so that it can
    /// be copied in pieces of that size.
    #[inline]
    pub fn padded(&self, begin: usize) -> &[u8] {
        let len = (self.pos - begin).next_multiple_of(32);
        &self.scratch[begin..begin + len]
    }

    /// Adds a reference that the value being written holds; returns its index in the archive's list.
    pub fn push_cap(&mut self, cap: Cap) -> u32 {
        if self.mode != Mode::Counting {
            self.caps.push(cap);
        }
        u32::try_from(self.caps.len())
            .unwrap_or(u32::MAX)
            .wrapping_sub(1)
    }

    /// The references collected since [`begin`](Self::begin) or the last call.
    #[inline]
    pub fn take_caps(&mut self) -> Option<Box<[Cap]>> {
        if self.caps.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.caps).into_boxed_slice())
    }

    #[cold]
    #[inline(never)]
    fn write_slowly(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        let end = self
            .pos
            .checked_add(bytes.len())
            .ok_or_else(|| rancor::Error::new(Overflow))?;
        match self.mode {
            Mode::Fixed if end > self.cap => {
                self.pos = end;
                return Err(rancor::Error::new(Overflow));
            }
            Mode::Fixed => {
                let Some(mut place) = self.place else {
                    return Err(rancor::Error::new(Overflow));
                };
                // SAFETY: set by `write_into`, which borrows the place mutably for as long; `dst` is made anew after.
                let place = unsafe { place.as_mut() };
                place.write_at(self.pos, bytes);
                self.dst = place.bytes_mut().as_mut_ptr();
            }
            Mode::Scratch if bytes.len() >= BIG_PIECE || end > MAX_SCRATCH => {
                self.mode = Mode::Counting;
                self.cap = 0;
            }
            Mode::Scratch => {
                if end > self.scratch.len() - 64 {
                    self.scratch.resize(end.next_power_of_two() + 64, 0);
                }
                self.scratch[self.pos..end].copy_from_slice(bytes);
                self.dst = self.scratch.as_mut_ptr();
                self.cap = self.scratch.len() - 64;
            }
            Mode::Counting => {}
        }
        self.pos = end;
        Ok(())
    }
}

/// Ends a second pass, also when it panics.
struct Leave<'a>(&'a mut Ser);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.place = None;
        self.0.resume(0);
    }
}

impl Positional for Ser {
    #[inline(always)]
    fn pos(&self) -> usize {
        self.pos
    }
}

impl Writer<rancor::Error> for Ser {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), rancor::Error> {
        if bytes.len() < BIG_PIECE
            && bytes.len() <= self.cap.wrapping_sub(self.pos)
            && self.pos <= self.cap
        {
            // SAFETY: pos + len <= cap, and dst is valid for cap bytes; the source is borrowed from the value.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.dst.add(self.pos), bytes.len());
            }
            self.pos += bytes.len();
            return Ok(());
        }
        self.write_slowly(bytes)
    }
}

// SAFETY: memory comes from the global allocator and is returned to it with the same layout; zero-sized requests get
// a dangling aligned pointer, which `pop_alloc` does not free.
unsafe impl Allocator<rancor::Error> for Ser {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, rancor::Error> {
        let ptr = if layout.size() == 0 {
            layout.dangling_ptr()
        } else {
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc(layout) })
                .unwrap_or_else(|| std::alloc::handle_alloc_error(layout))
        };
        Ok(NonNull::slice_from_raw_parts(ptr, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, ptr: NonNull<u8>, layout: Layout) -> Result<(), rancor::Error> {
        if layout.size() != 0 {
            // SAFETY: the caller promises that `ptr` came from `push_alloc` with this layout.
            unsafe { dealloc(ptr.as_ptr(), layout) };
        }
        Ok(())
    }
}

/// The root of an archive of `T` sits at the end of its bytes.
#[inline]
pub(super) fn root_pos<T: Value>(len: usize) -> Option<usize> {
    len.checked_sub(size_of::<Archived<T>>())
}

/// The strategy type that rkyv's traits see.
pub(super) type SerStrategy = Strategy<Ser, rancor::Error>;

impl Ser {
    /// The writer behind rkyv's wrapper, for `Serialize` implementations of references.
    pub fn of(strategy: &mut SerStrategy) -> &mut Ser {
        strategy
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, root};
    use super::*;
    use std::collections::HashMap;

    #[repr(align(64))]
    #[derive(Clone)]
    #[allow(dead_code)] // read as bytes
    struct Line([u8; 64]);

    /// A zeroed megabyte at an aligned address.
    struct Home(Vec<Line>);

    impl Home {
        fn new(fill: u8) -> Home {
            Home(vec![Line([fill; 64]); (1 << 20) / 64])
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: lines are 64 plain bytes without padding.
            unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), self.0.len() * 64) }
        }

        fn first(&mut self, len: usize) -> Part {
            Part(self.bytes().as_mut_ptr(), len)
        }
    }

    /// The beginning of a home.
    struct Part(*mut u8, usize);

    impl Place for Part {
        fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: made from a home that outlives it in each test.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1) }
        }
        fn write_at(&mut self, pos: usize, piece: &[u8]) {
            self.bytes_mut()[pos..pos + piece.len()].copy_from_slice(piece);
        }
    }

    fn through_scratch<T: Value>(v: &T) -> T {
        let mut ser = Ser::default();
        ser.begin(0);
        assert_eq!(ser.place(v).unwrap(), Placed::Scratch);
        let len = ser.pos();
        let mut home = Home::new(0);
        home.bytes()[..len].copy_from_slice(ser.bytes());
        // SAFETY: written just now by the writer, at an aligned address.
        unsafe { decode::<T>(&home.bytes()[..len], &[]) }.unwrap()
    }

    #[test]
    fn small_values_come_back() {
        assert_eq!(through_scratch(&7u64), 7);
        through_scratch(&());
        assert_eq!(
            through_scratch(&String::from("héllo, a string longer than inline")).len(),
            35
        );
        let m: HashMap<String, Vec<u32>> = (0..50)
            .map(|i| (format!("key {i}"), (0..i).collect()))
            .collect();
        assert_eq!(through_scratch(&m), m);
    }

    #[test]
    fn scratch_may_begin_anywhere_that_the_home_does_too() {
        let mut ser = Ser::default();
        ser.begin(13);
        let v = (1u8, 2u64, vec![3u32, 4]);
        assert_eq!(ser.place(&v).unwrap(), Placed::Scratch);
        let len = ser.pos();
        let mut home = Home::new(0);
        home.bytes()[..len].copy_from_slice(ser.bytes());
        // SAFETY: as above; the archive's positions count from the home's beginning.
        let back = unsafe { decode::<(u8, u64, Vec<u32>)>(&home.bytes()[13..len], &[]) }.unwrap();
        assert_eq!(back, v);
    }

    #[test]
    fn big_values_are_measured_then_written_in_place() {
        let v: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let mut ser = Ser::default();
        ser.begin(0);
        let Placed::Measured(size) = ser.place(&v).unwrap() else {
            panic!("not measured")
        };
        assert_eq!(ser.pos(), 0);
        let mut home = Home::new(0);
        ser.write_into(&v, &mut home.first(size)).unwrap();
        // SAFETY: written just now.
        let seen = unsafe { root::<Vec<f32>>(&home.bytes()[..size]) };
        assert_eq!(seen.len(), 100_000);
        assert_eq!(seen[99_999], 99_999.0);
    }

    #[test]
    fn a_place_of_the_wrong_size_is_refused_not_overrun() {
        let v: Vec<u64> = (0..10_000).collect();
        let mut ser = Ser::default();
        ser.begin(0);
        let Placed::Measured(size) = ser.place(&v).unwrap() else {
            panic!("not measured")
        };
        let mut home = Home::new(7);
        let e = ser.write_into(&v, &mut home.first(size - 64)).unwrap_err();
        assert!(matches!(e, CodecError::Changed { .. }), "{e}");
        assert!(home.bytes()[size - 64..size + 64].iter().all(|b| *b == 7));
        let e = ser.write_into(&v, &mut home.first(size + 64)).unwrap_err();
        assert!(matches!(e, CodecError::Changed { .. }), "{e}");
    }

    #[test]
    fn a_large_value_of_small_pieces_is_measured_too() {
        let v: Vec<String> = (0..20_000).map(|i| format!("string number {i}")).collect();
        let mut ser = Ser::default();
        ser.begin(0);
        let Placed::Measured(size) = ser.place(&v).unwrap() else {
            panic!("not measured")
        };
        let mut home = Home::new(0);
        ser.write_into(&v, &mut home.first(size)).unwrap();
        // SAFETY: written just now.
        assert_eq!(
            unsafe { decode::<Vec<String>>(&home.bytes()[..size], &[]) }.unwrap(),
            v
        );
    }
}
