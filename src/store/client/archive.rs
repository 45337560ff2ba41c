//! Values into the store: measured first when large, then written where they will lie.
//!
//! Invariant: a value that refers to objects or actors of a node is refused, since its archive is only
//! indices into a list that other processes do not have. Left out: reading (`object`).

use super::{Client, SMALL};
use crate::base::{ObjectId, StoreError};
use crate::value::{CodecError, Placed, Ser, Value};

pub fn put<T: Value>(client: &Client, id: ObjectId, value: &T) -> Result<(), StoreError> {
    let mut ser = Ser::default();
    ser.begin(0);
    let refused = |e: &CodecError| encode_error::<T>(&e.to_string());
    match ser.place(value).map_err(|e| refused(&e))? {
        Placed::Scratch => {
            plain::<T>(&mut ser)?;
            client.put_bytes(id, ser.bytes())
        }
        Placed::Measured(len) => {
            let mut writing = client.create(id, len)?;
            if len > SMALL {
                writing.populate();
            }
            ser.write_into(value, &mut writing)
                .map_err(|e| refused(&e))?;
            plain::<T>(&mut ser)?;
            writing.seal()
        }
    }
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
