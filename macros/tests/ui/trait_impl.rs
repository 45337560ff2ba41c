//! The methods of a trait are not those of an actor.

use mobula::remote;

struct Counter;

#[remote]
impl Default for Counter {
    fn default() -> Self {
        Counter
    }
}

fn main() {}
