//! What crosses a call is one known type.
#![allow(unused_variables)]

use mobula::remote;

#[remote]
fn show(x: impl std::fmt::Display) {}

#[remote]
fn call(f: &dyn Fn(u8) -> u8, g: Box<dyn Fn()>) {}

fn main() {}
