//! How a function's parameters read its arguments.
//!
//! Invariant: what is read in place is pinned for as long as it is used; what is copied is let go at once. Left out:
//! how arguments are written (`call`).

use super::call::{Argument, decode_error};
use super::cell::RawRef;
use super::far::check;
use super::pin::Pins;
use crate::base::Error;
use crate::value::{Archived, Cap, Native, Value, decode, root, type_tag};

/// One argument, about to be read.
pub struct ArgView<'a> {
    record: &'a RawRef,
    index: usize,
}

impl<'a> ArgView<'a> {
    /// The argument's archive and references, wherever they are, checked to be a `T`'s if another node wrote them.
    ///
    /// # Safety
    /// The caller holds the record's claim for `'a`, does not drop its arguments meanwhile, and has pinned them.
    #[inline]
    unsafe fn bytes<T: Value>(&self) -> Result<(&'a [u8], &'a [Cap]), Error> {
        // SAFETY: the caller's promise; pinned objects are `Done`.
        unsafe {
            let object = match self.record.argument(self.index) {
                Argument::Inline(end) => {
                    let bytes = self.record.inline_arg(end);
                    check::argument::<T>(self.record, bytes)?;
                    return Ok((bytes, self.record.caps()));
                }
                Argument::Object(object) => object,
            };
            let bytes = object.bytes();
            check::value::<T>(object, bytes)?;
            Ok((bytes, object.caps()))
        }
    }
}

/// How a parameter reads its argument.
pub trait Param {
    /// The type that is archived.
    type Wire: Value;
    /// What the function gets.
    type Decoded<'a>;
    /// Whether that is a copy, so that the argument need not stay.
    const COPIES: bool = false;

    /// Reads it.
    ///
    /// # Safety
    /// `bytes` and `caps` are an archive of `Self::Wire` that stays for `'a`.
    unsafe fn read<'a>(bytes: &'a [u8], caps: &'a [Cap]) -> Result<Self::Decoded<'a>, Error>;
}

/// `T`: an owned copy.
pub struct Owned<T>(std::marker::PhantomData<T>);
/// `&[T]`: numbers read in place.
pub struct Slice<T>(std::marker::PhantomData<T>);
/// `&str`: text read in place.
pub struct Text;
/// `&Archived<T>`: the archive itself.
pub struct InPlace<T>(std::marker::PhantomData<T>);

impl<T: Value> Param for Owned<T> {
    type Wire = T;
    type Decoded<'a> = T;
    const COPIES: bool = true;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], caps: &'a [Cap]) -> Result<T, Error> {
        // SAFETY: the caller's promise.
        unsafe { decode::<T>(bytes, caps) }.map_err(|e| decode_error::<T>(&e))
    }
}

impl<T: Native> Param for Slice<T>
where
    Vec<T>: Value<Archived = rkyv::vec::ArchivedVec<Archived<T>>>,
{
    type Wire = Vec<T>;
    type Decoded<'a> = &'a [T];
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a [T], Error> {
        // SAFETY: the caller's promise.
        Ok(T::slice(unsafe { root::<Vec<T>>(bytes) }.as_slice()))
    }
}

impl Param for Text {
    type Wire = String;
    type Decoded<'a> = &'a str;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a str, Error> {
        // SAFETY: the caller's promise.
        Ok(unsafe { root::<String>(bytes) }.as_str())
    }
}

impl<T: Value> Param for InPlace<T> {
    type Wire = T;
    type Decoded<'a> = &'a Archived<T>;
    #[inline]
    unsafe fn read<'a>(bytes: &'a [u8], _: &'a [Cap]) -> Result<&'a Archived<T>, Error> {
        // SAFETY: the caller's promise.
        Ok(unsafe { root::<T>(bytes) })
    }
}

/// All parameters of a function.
pub trait Params: 'static {
    /// What the function gets.
    type Decoded<'a>;
    /// How many there are.
    const COUNT: usize;

    /// The number of the type that the parameter of this index is archived as.
    fn tag(index: usize) -> u64;

    /// Reads all arguments.
    ///
    /// # Safety
    /// The record was written for these parameters; the caller holds its claim for `'a` and keeps its arguments, and
    /// keeps `pins`, which are of this record, for as long as it uses what was read.
    unsafe fn read<'a>(record: &'a RawRef, pins: &Pins<'_>) -> Result<Self::Decoded<'a>, Error>;
}

macro_rules! params {
    ($($n:literal: $($p:ident $i:tt),*;)*) => { $(
        impl<$($p: Param + 'static),*> Params for ($($p,)*) {
            type Decoded<'a> = ($($p::Decoded<'a>,)*);
            const COUNT: usize = $n;
            #[allow(unused_variables)]
            fn tag(index: usize) -> u64 {
                $(if index == $i {
                    return type_tag::<$p::Wire>();
                })*
                0
            }
            #[inline]
            #[allow(unused_variables, clippy::unused_unit)]
            unsafe fn read<'a>(
                record: &'a RawRef,
                pins: &Pins<'_>,
            ) -> Result<Self::Decoded<'a>, Error> {
                Ok(($({
                    let view = ArgView { record, index: $i };
                    // SAFETY: the caller's promise, argument by argument.
                    let read = unsafe {
                        let (bytes, caps) = view.bytes::<$p::Wire>()?;
                        $p::read(bytes, caps)?
                    };
                    if $p::COPIES {
                        pins.release($i);
                    }
                    read
                },)*))
            }
        }
    )* };
}
params! {
    0: ;
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    9: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    10: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    11: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    12: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
}
