//! An argument is a value of the parameter's type, or a reference to one.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
fn square(x: u64) -> u64 {
    x * x
}

#[remote]
struct Counter;

#[remote]
impl Counter {
    pub fn new() -> Self {
        Counter
    }

    pub fn add(&mut self, n: u64) {}
}

fn main() {
    square::remote("two");
    let counter = Counter::remote();
    counter.add("two");
    counter.add();
    counter.multiply(2);
}
