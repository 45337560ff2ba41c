//! Names that the attribute adds, and those of every handle.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
struct Clash;

#[remote]
impl Clash {
    pub fn new() -> Self {
        Clash
    }

    pub fn remote(&self) {}

    fn options() {}

    pub fn named(name: &str) {}

    pub fn stop(&mut self) {}

    pub fn clone(&self) -> Self {
        Clash
    }

    fn kill(&self) {}
}

fn main() {}
