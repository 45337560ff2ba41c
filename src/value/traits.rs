//! What can be a value: one bound that users write, over rkyv's several.
//!
//! Invariant: everything rkyv can archive, validate and read back with this crate's own writer and reader is
//! a [`Value`], by a blanket implementation; nobody implements it by hand.
//! Left out: shared pointers (`Rc`, `Arc`) and other types whose archives need state across the value; rkyv
//! has open soundness questions there, and a value is a tree.

use rkyv::Archive;
use rkyv::api::high::HighValidator;
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{self, Strategy};

use super::{De, Ser};

/// A type that can be an argument, a result or an object.
///
/// Numbers, strings, tuples, arrays, `Option`, `Result`, `Vec`, maps and sets of the standard library are
/// values; so is [`ObjectRef`](crate::ObjectRef), and every type of yours that says
///
/// ```
/// #[mobula::value]
/// #[derive(Debug, PartialEq)]
/// struct Point { x: f32, y: f32 }
/// ```
///
/// which derives rkyv's `Archive`, `Serialize` and `Deserialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument, a result or an object of mobula",
    label = "not a mobula value",
    note = "put #[mobula::value] on the type `{Self}`: it derives rkyv's Archive, Serialize and Deserialize",
    note = "every field must be a value too; Rc, Arc, references, threads, files and sockets are not"
)]
pub trait Value:
    Archive<
        Archived: rkyv::Deserialize<Self, Strategy<De, rancor::Error>>
                      + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                      + Send
                      + Sync,
    > + rkyv::Serialize<Strategy<Ser, rancor::Error>>
    + Sized
    + Send
    + 'static
{
}

#[diagnostic::do_not_recommend]
impl<T> Value for T where
    T: Archive<
            Archived: rkyv::Deserialize<T, Strategy<De, rancor::Error>>
                          + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                          + Send
                          + Sync,
        > + rkyv::Serialize<Strategy<Ser, rancor::Error>>
        + Sized
        + Send
        + 'static
{
}

/// The archived form of `T`: what is read in place.
pub type Archived<T> = <T as Archive>::Archived;
