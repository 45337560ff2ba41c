//! Bytes that another node wrote: checked before the first typed read.
//!
//! A record whose bytes came from another node is marked. Typed code that is about to read it in place asks here first.
//! Which type that is cannot be known when the bytes come, since objects that were put have no function: it is the type of the
//! reference that came with them, and a reference cannot be taken out as one of another type.
//!
//! Invariant: unmarked bytes were written, or checked, by this process. Left out: what a check is (`value`).

use super::super::call::decode_error;
use super::super::cell::{CHECKED, FOREIGN, Record};
use crate::base::Error;
use crate::value::{Value, check};

/// Checks a value that came from another node, once.
#[inline]
pub fn value<T: Value>(record: &Record, bytes: &[u8]) -> Result<(), Error> {
    if record.state() & (FOREIGN | CHECKED) != FOREIGN {
        return Ok(());
    }
    checked::<T>(record, bytes)
}

#[cold]
fn checked<T: Value>(record: &Record, bytes: &[u8]) -> Result<(), Error> {
    check::<T>(bytes).map_err(|e| decode_error::<T>(&e))?;
    record.set_flag(CHECKED);
    Ok(())
}

/// Checks an argument inside a call that came from another node.
#[inline]
pub fn argument<T: Value>(record: &Record, bytes: &[u8]) -> Result<(), Error> {
    if record.state() & FOREIGN == 0 {
        return Ok(());
    }
    check::<T>(bytes).map_err(|e| decode_error::<T>(&e))
}
