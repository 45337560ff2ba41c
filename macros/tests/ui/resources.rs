//! Resources have a name and an amount.

use mobula::remote;

#[remote(resources())]
fn none() {}

#[remote(resources(disk, "" = 1, tape = -1, lamp = "on", 3 = 3))]
fn odd() {}

fn main() {}
