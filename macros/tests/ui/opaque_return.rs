//! What a call gives is one known, owned type.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
fn numbers(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[remote]
fn name() -> &'static str {
    "mobula"
}

#[remote]
fn names() -> Result<Vec<&'static str>, String> {
    Ok(Vec::new())
}

#[remote]
fn forever() -> ! {
    loop {}
}

fn main() {}
