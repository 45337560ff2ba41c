//! What may be passed where a remote function takes a `T`.
//!
//! Invariant: an argument is archived as exactly the type that the function's parameter reads.
//! Left out: how it is read, see the parameter kinds in `exec`.

use super::ObjectRef;
use crate::exec::RawRef;
use crate::exec::call::CallWriter;
use crate::exec::params::{Param, Params};
use crate::value::{Native, Value};

/// An argument for a parameter of type `T`: a `T`, a `&T`, an [`ObjectRef<T>`] or a reference to one; for a `Vec<T>` also a
/// slice of numbers, or many `ObjectRef<T>`, which are awaited and put together; for a `String` also a `&str`.
///
/// Passing a reference makes the call wait until its value is there; the value is read in place, never copied.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed where the remote function takes a `{T}`",
    label = "expected a `{T}`, a `&{T}`, or an `ObjectRef<{T}>`",
    note = "a parameter `Vec<E>` also takes a slice of numbers or a list of `ObjectRef<E>`, a parameter `String` also a `&str`"
)]
pub trait Arg<T> {
    /// Writes it into a call.
    #[doc(hidden)]
    fn write(self, call: &mut CallWriter<'_>);
}

impl<T: Value> Arg<T> for T {
    #[inline]
    fn write(self, call: &mut CallWriter<'_>) {
        call.value(&self);
    }
}

impl<T: Value> Arg<T> for &T {
    #[inline]
    fn write(self, call: &mut CallWriter<'_>) {
        call.value(self);
    }
}

impl<T: Value> Arg<T> for ObjectRef<T> {
    #[inline]
    fn write(self, call: &mut CallWriter<'_>) {
        call.reference(self.raw);
    }
}

impl<T: Value> Arg<T> for &ObjectRef<T> {
    #[inline]
    fn write(self, call: &mut CallWriter<'_>) {
        call.reference(self.raw.clone());
    }
}

impl Arg<String> for &str {
    fn write(self, call: &mut CallWriter<'_>) {
        call.value(&self.to_owned());
    }
}

impl<T: Native> Arg<Vec<T>> for &[T]
where
    Vec<T>: Value,
{
    fn write(self, call: &mut CallWriter<'_>) {
        super::put::write_slice(self, call);
    }
}

impl<T: Native, const N: usize> Arg<Vec<T>> for &[T; N]
where
    Vec<T>: Value,
{
    fn write(self, call: &mut CallWriter<'_>) {
        super::put::write_slice(self, call);
    }
}

fn raws<T>(refs: &[ObjectRef<T>]) -> Vec<RawRef> {
    refs.iter().map(|r| r.raw.clone()).collect()
}

impl<T: Value> Arg<Vec<T>> for Vec<ObjectRef<T>>
where
    Vec<T>: Value,
{
    fn write(self, call: &mut CallWriter<'_>) {
        call.references::<T>(self.into_iter().map(|r| r.raw).collect());
    }
}

impl<T: Value> Arg<Vec<T>> for &Vec<ObjectRef<T>>
where
    Vec<T>: Value,
{
    fn write(self, call: &mut CallWriter<'_>) {
        call.references::<T>(raws(self));
    }
}

impl<T: Value> Arg<Vec<T>> for &[ObjectRef<T>]
where
    Vec<T>: Value,
{
    fn write(self, call: &mut CallWriter<'_>) {
        call.references::<T>(raws(self));
    }
}

/// All arguments of a call, for parameters `P`.
#[doc(hidden)]
pub trait Args<P: Params> {
    fn write(self, call: &mut CallWriter<'_>);
}

macro_rules! args {
    ($($($p:ident $a:ident $x:ident),*;)*) => { $(
        impl<$($p: Param + 'static, $a: Arg<$p::Wire>),*> Args<($($p,)*)> for ($($a,)*) {
            #[inline]
            #[allow(unused_variables, non_snake_case)]
            fn write(self, call: &mut CallWriter<'_>) {
                let ($($x,)*) = self;
                $($x.write(call);)*
            }
        }
    )* };
}
args! {
    ;
    P0 A0 a0;
    P0 A0 a0, P1 A1 a1;
    P0 A0 a0, P1 A1 a1, P2 A2 a2;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6, P7 A7 a7;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6, P7 A7 a7, P8 A8 a8;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6, P7 A7 a7, P8 A8 a8,
        P9 A9 a9;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6, P7 A7 a7, P8 A8 a8,
        P9 A9 a9, P10 A10 a10;
    P0 A0 a0, P1 A1 a1, P2 A2 a2, P3 A3 a3, P4 A4 a4, P5 A5 a5, P6 A6 a6, P7 A7 a7, P8 A8 a8,
        P9 A9 a9, P10 A10 a10, P11 A11 a11;
}
