//! What stands for durable copies when the feature `object-store` is off: none.
//!
//! Invariant: [`Copies`] cannot be had. Left out: everything else.

use std::time::Duration;

use crate::base::{Loss, NotWritten};

/// None.
pub enum Copies {}

impl Copies {
    /// There are none.
    pub fn open(_: &str) -> Result<Copies, String> {
        Err("the feature object-store of mobula is off".to_owned())
    }

    /// Makes their folder.
    pub fn make(&self) -> Result<(), String> {
        match *self {}
    }

    /// Writes one.
    pub fn write<B>(&self, _: &str, _: B, _: Duration) -> Result<(), NotWritten> {
        match *self {}
    }

    /// Reads one.
    pub fn read(&self, _: &str, _: &mut [u8]) -> Result<(), Loss> {
        match *self {}
    }

    /// Reads one.
    pub fn read_whole(&self, _: &str) -> Result<Vec<u8>, Loss> {
        match *self {}
    }

    /// Their names.
    pub fn list(&self) -> Result<Vec<String>, String> {
        match *self {}
    }

    /// Deletes one.
    pub fn delete(&self, _: &str) -> Result<(), String> {
        match *self {}
    }
}
