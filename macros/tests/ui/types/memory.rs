//! A text that is no amount of memory is an error at the text; an actor's bound needs its isolation.

use mobula::remote;

#[remote(isolate, memory = "2X")]
fn unit() {}

#[remote(isolate, memory = "lots")]
fn number() {}

#[remote(memory = "2G")]
struct Bounded;

#[remote]
impl Bounded {
    pub fn new() -> Self {
        Bounded
    }
}

fn main() {}
