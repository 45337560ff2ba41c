//! `new` gives the actor, at once.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
struct Slow;

#[remote]
impl Slow {
    pub async fn new() -> Self {
        Slow
    }
}

#[remote]
struct Boxed;

#[remote]
impl Boxed {
    pub fn new() -> Box<Self> {
        Box::new(Boxed)
    }
}

#[remote]
struct Borrowing;

#[remote]
impl Borrowing {
    pub fn new(name: &mut String) -> Option<Self> {
        None
    }
}

#[remote]
struct FromSelf;

#[remote]
impl FromSelf {
    pub fn new(&self) -> Self {
        FromSelf
    }
}

#[remote]
struct Nothing;

#[remote]
impl Nothing {
    pub fn new() {}
}

fn main() {}
