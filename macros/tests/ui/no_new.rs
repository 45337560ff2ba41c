//! An actor is created by its `new`.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
struct Without;

#[remote]
impl Without {
    pub fn add(&mut self, n: u64) {}
}

#[remote]
struct Private;

#[remote]
impl Private {
    fn new() -> Self {
        Private
    }
}

fn main() {}
