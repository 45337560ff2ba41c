//! Values into the store: measured first when large, then written where they will lie.
//!
//! Invariant: a value that refers to objects or actors of a node is refused, since its archive is only
//! indices into a list that other processes do not have. Left out: reading (`object`).

use super::{Client, Writing};
use crate::base::{ObjectId, StoreError};
use crate::value::{Placed, Ser, Value};

/// What the first pass over a value came to.
pub enum First {
    /// Here it is.
    Bytes(Vec<u8>),
    /// So large that it is worth to be written where it will lie.
    Measured(usize),
}

pub fn put<T: Value>(client: &Client, id: ObjectId, value: &T) -> Result<(), StoreError> {
    match measure(value)? {
        First::Bytes(bytes) => client.put_bytes(id, &bytes),
        First::Measured(len) => {
            let mut writing = client.create(id, len)?;
            write(value, &mut writing)?;
            writing.seal()
        }
    }
}

/// The first pass.
pub fn measure<T: Value>(value: &T) -> Result<First, StoreError> {
    let mut ser = Ser::default();
    ser.begin(0);
    let placed = ser
        .place(value)
        .map_err(|e| encode_error::<T>(&e.to_string()))?;
    Ok(match placed {
        Placed::Scratch => {
            plain::<T>(&mut ser)?;
            First::Bytes(ser.into_bytes())
        }
        Placed::Measured(len) => First::Measured(len),
    })
}

/// The second pass, of what was measured.
pub fn write<T: Value>(value: &T, writing: &mut Writing) -> Result<(), StoreError> {
    let mut ser = Ser::default();
    ser.write_into(value, writing)
        .map_err(|e| encode_error::<T>(&e.to_string()))?;
    plain::<T>(&mut ser)
}

fn plain<T>(ser: &mut Ser) -> Result<(), StoreError> {
    match ser.take_caps() {
        None => Ok(()),
        Some(_) => Err(encode_error::<T>(
            "it holds references, which mean nothing to other processes; put what they refer to",
        )),
    }
}

fn encode_error<T>(why: &str) -> StoreError {
    StoreError::Encode {
        value: std::any::type_name::<T>(),
        why: why.to_owned(),
    }
}
