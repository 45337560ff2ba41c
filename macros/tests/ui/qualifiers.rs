//! A task is a plain, safe Rust function.

use mobula::remote;

#[remote]
unsafe fn unchecked() {}

#[remote]
extern "C" fn foreign() {}

fn main() {}
