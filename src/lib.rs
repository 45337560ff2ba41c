//! Ray's programming model made native to Rust (docs follow).

extern crate self as mobula;

mod api;
mod base;
mod core;
mod exec;
mod node;
mod shm;
mod store;
mod value;

pub use api::*;
pub use base::{Error, Failure, FailureKind, Holder, Infeasible, Origin, Result, StoreFull, Units};
pub use exec::entry::Registered;
pub use mobula_macros::{main, remote, value};
pub use node::Config;
pub use rkyv;
pub use value::{Archived, Native, Value};

#[doc(hidden)]
pub use api::private as __private;

/// What a program that uses Mobula imports: `use mobula::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Archived, Handle, ObjectRef, Value, View, remote, secs, value as mobula_value,
    };
}
