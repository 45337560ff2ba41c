//! A task cannot write to what its caller holds.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
fn sort(v: &mut [u64], s: &mut String, n: &mut u64) {}

fn main() {}
