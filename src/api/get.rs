//! Taking values out.
//!
//! Invariant: `get` runs nothing but what it waits for; see `exec`'s waiting. Left out: reading in place (`view`).

use std::time::{Duration, Instant};

use super::ObjectRef;
use crate::base::Result;
use crate::exec::cell::{self, Phase};
use crate::exec::{RawRef, call, local};
use crate::value::Value;

/// Waits for the value behind a reference, of many, or of a tuple, and returns owned copies.
///
/// If nobody has begun the awaited call it is run right here, which costs less than a microsecond; else this thread
/// sleeps and lends its CPU to another. Large numeric vectors are better read in place, with [`view`](crate::view()).
///
/// # Errors
/// The failure of the call, at once when one of many fails; [`Error::Deadlock`](crate::Error::Deadlock) for an actor's
/// method that waits for its own actor; [`Error::ShutDown`](crate::Error::ShutDown).
///
/// ```
/// # use mobula::prelude::*;
/// # #[remote] fn square(x: u64) -> u64 { x * x }
/// # let _mobula = mobula::init()?;
/// let squares: Vec<_> = (0..4).map(square::remote).collect();
/// assert_eq!(mobula::get(&squares)?, [0, 1, 4, 9]);
/// let (a, b) = mobula::get((&squares[2], &squares[3]))?;
/// assert_eq!(a + b, 13);
/// # Ok::<(), mobula::Error>(())
/// ```
#[inline]
pub fn get<G: Get>(refs: G) -> Result<G::Output> {
    refs.get_until(None)
}

/// As [`get`], but gives up after `timeout`, saying what was awaited and in which state it was. The call is never run right
/// here, since it could not be left in time: another thread runs it.
///
/// # Errors
/// Also [`Error::Timeout`](crate::Error::Timeout); the call goes on, and can be awaited again.
pub fn get_timeout<G: Get>(refs: G, timeout: Duration) -> Result<G::Output> {
    refs.get_until(Instant::now().checked_add(timeout))
}

/// What [`get`] takes: references to objects, alone, in slices, vectors, arrays and tuples.
pub trait Get {
    /// What it gives.
    type Output;
    /// Waits, at most until `deadline`.
    #[doc(hidden)]
    fn get_until(self, deadline: Option<Instant>) -> Result<Self::Output>;
}

#[inline]
fn one<T: Value>(raw: &RawRef, deadline: Option<Instant>) -> Result<T> {
    if !cell::finished(raw.state()) {
        local::with(|local| local.engine.wait(local, raw, deadline))??;
    }
    call::read(raw)
}

fn many<T: Value>(refs: &[ObjectRef<T>], deadline: Option<Instant>) -> Result<Vec<T>> {
    if let Some(first) = refs.iter().position(|r| !r.is_ready()) {
        let raws: Vec<&RawRef> = refs[first..].iter().map(|r| &r.raw).collect();
        local::with(|local| local.engine.wait_all(local, &raws, deadline))??;
    }
    let mut values = Vec::with_capacity(refs.len());
    for r in refs {
        if cell::phase(r.raw.state()) < Phase::Done {
            // One of them failed, which is why the wait ended: it is the one to tell of.
            if let Some(failed) = refs
                .iter()
                .find(|r| cell::phase(r.raw.state()) == Phase::Failed)
            {
                return Err(failed.raw.error());
            }
        }
        values.push(call::read(&r.raw)?);
    }
    Ok(values)
}

impl<T: Value> Get for &ObjectRef<T> {
    type Output = T;
    #[inline]
    fn get_until(self, deadline: Option<Instant>) -> Result<T> {
        one(&self.raw, deadline)
    }
}

impl<T: Value> Get for ObjectRef<T> {
    type Output = T;
    #[inline]
    fn get_until(self, deadline: Option<Instant>) -> Result<T> {
        one(&self.raw, deadline)
    }
}

impl<T: Value> Get for &[ObjectRef<T>] {
    type Output = Vec<T>;
    fn get_until(self, deadline: Option<Instant>) -> Result<Vec<T>> {
        many(self, deadline)
    }
}

impl<T: Value> Get for &Vec<ObjectRef<T>> {
    type Output = Vec<T>;
    fn get_until(self, deadline: Option<Instant>) -> Result<Vec<T>> {
        many(self, deadline)
    }
}

impl<T: Value> Get for Vec<ObjectRef<T>> {
    type Output = Vec<T>;
    fn get_until(self, deadline: Option<Instant>) -> Result<Vec<T>> {
        many(&self, deadline)
    }
}

impl<T: Value, const N: usize> Get for &[ObjectRef<T>; N] {
    type Output = Vec<T>;
    fn get_until(self, deadline: Option<Instant>) -> Result<Vec<T>> {
        many(self, deadline)
    }
}

impl<T: Value, const N: usize> Get for [ObjectRef<T>; N] {
    type Output = Vec<T>;
    fn get_until(self, deadline: Option<Instant>) -> Result<Vec<T>> {
        many(&self, deadline)
    }
}

macro_rules! tuples {
    ($($($g:ident $i:tt),+;)*) => { $(
        /// One after the other.
        impl<$($g: Get),+> Get for ($($g,)+) {
            type Output = ($($g::Output,)+);
            #[inline]
            fn get_until(self, deadline: Option<Instant>) -> Result<Self::Output> {
                Ok(($(self.$i.get_until(deadline)?,)+))
            }
        }
    )* };
}
tuples! {
    A 0;
    A 0, B 1;
    A 0, B 1, C 2;
    A 0, B 1, C 2, D 3;
    A 0, B 1, C 2, D 3, E 4;
    A 0, B 1, C 2, D 3, E 4, F 5;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}
