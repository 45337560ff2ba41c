//! A method becomes remote through its `impl` block.
#![allow(unused_variables)]

use mobula::remote;

struct Counter;

impl Counter {
    #[remote]
    pub fn add(&mut self, n: u64) {}
}

fn main() {}
