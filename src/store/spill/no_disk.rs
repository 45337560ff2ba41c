//! What stands for the disk when the feature `object-store` is off: nothing.
//!
//! Invariant: a [`Disk`] cannot be made, so nothing is ever moved. Left out: everything else.

use std::sync::Arc;

use super::super::failed::Failed;
use super::super::stored::Moving;
use super::SpillTo;
use crate::base::Loss;

/// Nowhere.
pub enum Disk {}

/// A place in it.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Which segment.
    pub segment: u64,
    /// Where in it.
    pub at: u64,
    /// The checksum.
    pub sum: u64,
}

impl Disk {
    /// There is none.
    pub fn find(to: &SpillTo) -> Result<Disk, Arc<str>> {
        Err(match to {
            SpillTo::Off => "it was turned off with Config::no_spill".into(),
            _ => "the feature object-store of mobula is off".into(),
        })
    }

    /// Where it is.
    pub fn place(&self) -> String {
        match *self {}
    }

    /// Writes a segment.
    pub fn write(&self, _: u64, _: Vec<Moving>, _: &dyn Fn() -> bool) -> Result<Vec<Spot>, Failed> {
        match *self {}
    }

    /// Reads an object.
    pub fn read(&self, _: Spot, _: &mut [u8]) -> Result<(), Loss> {
        match *self {}
    }

    /// Deletes a segment.
    pub fn delete(&self, _: u64) {
        match *self {}
    }

    /// Gives the folder back.
    pub fn close(&self) {
        match *self {}
    }
}
