//! The options, the signature and the result of one item are reported together.
#![allow(unused_variables)]

use mobula::remote;

struct Point;

#[remote(num_cpu = 2, max_retries = -3)]
unsafe fn broken<T>(p: &Point, n: &mut u64) -> &'static str {
    ""
}

fn main() {}
