//! An actor is registered once under its name.

use mobula::remote;

#[remote]
struct Queue<T> {
    items: Vec<T>,
}

#[remote]
impl<T> Queue<T> {
    pub fn new() -> Self {
        Queue { items: Vec::new() }
    }
}

#[remote]
impl Queue<u64> {
    pub fn new() -> Self {
        Queue { items: Vec::new() }
    }
}

fn main() {}
